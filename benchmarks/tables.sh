#!/usr/bin/env bash
# The paper's tables, each with its page in docs/: `make tables`. What was trained before is not trained again; names on the
# command line pick some of: downstream model-size ablation on-device learning-budget small-data.
# Needs GLUE, REVIEWS and SQUAD (folders) and CORPUS (a text file), and what is to be compared:
#   ENCODER                an encoder: benchmarks/real_run.sh makes a teacher and a student of it first; or
#   TEACHER and STUDENT    masked-LM checkpoints, or hf://owner/name
# and perhaps QA_TEACHER, TEACHER_RATE, STUDENT_RATE, SEEDS, STEPS (of the ablation), as the scripts below say.
set -euo pipefail
HERE=$(dirname "$0")
if [ -z "${TEACHER:-}" ]; then
  : "${ENCODER:?an encoder, or TEACHER and STUDENT}"
  RUNS=runs/real bash "$HERE/real_run.sh"
  TEACHER=runs/real/teacher STUDENT=runs/real/student QA_TEACHER=${QA_TEACHER:-runs/real/qa-teacher}
  export TEACHER STUDENT QA_TEACHER
fi
unset RUNS # every study has a folder of its own

for name in ${*:-downstream model-size ablation on-device learning-budget small-data}; do
  case $name in
    downstream) bash "$HERE/downstream.sh" && python "$HERE/downstream.py" runs/downstream ;;
    model-size) python "$HERE/model_size.py" --pairs "${GLUE:?a folder}/STS-B/dev.tsv" --tokenizer "$TEACHER" ;;
    ablation) bash "$HERE/ablation.sh" && python "$HERE/ablation.py" runs/ablation ;;
    on-device) python "$HERE/on_device.py" ;;
    learning-budget) python "$HERE/learning_budget.py" ;;
    small-data) bash "$HERE/small_data.sh" && python "$HERE/small_data.py" tables runs/small-data ;;
    *) echo "$name: choose downstream, model-size, ablation, on-device, learning-budget or small-data" >&2; exit 2 ;;
  esac
done
