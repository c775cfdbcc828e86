#!/usr/bin/env bash
# The paper's tables, each with its page in docs/: `make tables`. What was trained before is not trained again; names on the
# command line pick some of: downstream model-size ablation on-device learning-budget small-data.
# Needs GLUE, REVIEWS and SQUAD (folders) and CORPUS (a text file), and what is to be compared:
#   ENCODER                an encoder: benchmarks/real_run.sh makes a teacher and a student of it first; or
#   TEACHER and STUDENT    masked-LM checkpoints, or hf://owner/name
# and perhaps QA_TEACHER, TEACHER_RATE, STUDENT_RATE, SEEDS, STEPS (of the ablation), as the scripts below say.
set -euo pipefail
HERE=$(dirname "$0") ALL="downstream model-size ablation on-device learning-budget small-data"

# What is missing is told before anything is run.
needed=
for name in ${*:-$ALL}; do
  case $name in
    downstream) needed+=" GLUE REVIEWS SQUAD student" ;;
    model-size | small-data) needed+=" GLUE teacher" ;;
    ablation) needed+=" GLUE CORPUS teacher" ;;
    on-device | learning-budget) ;;
    *) echo "$name: choose among $ALL" >&2; exit 2 ;;
  esac
done
if [ -z "${ENCODER:-}" ]; then
  needed=${needed//student/TEACHER STUDENT} needed=${needed//teacher/TEACHER}
elif [ -z "${TEACHER:-}" ]; then
  needed=${needed//student/SQUAD CORPUS} needed=${needed//teacher/SQUAD CORPUS}
fi
missing=
for variable in $needed; do
  [ "$variable" = student ] || [ "$variable" = teacher ] || [ -n "${!variable:-}" ] || [[ $missing == *" $variable"* ]] || missing+=" $variable"
done
[ -z "$missing" ] || { echo "give$missing, as the first lines of $0 say (an ENCODER in place of TEACHER and STUDENT)" >&2; exit 2; }
for folder in "${TEACHER:-}" "${STUDENT:-}" "${ENCODER:-}"; do
  [[ -z $folder || $folder == hf://* || -e $folder ]] || { echo "$folder: no such model folder" >&2; exit 2; }
done

if [ -n "$needed" ] && [ -z "${TEACHER:-}" ]; then
  RUNS=runs/real bash "$HERE/real_run.sh"
  TEACHER=runs/real/teacher STUDENT=runs/real/student QA_TEACHER=${QA_TEACHER:-runs/real/qa-teacher}
  export TEACHER STUDENT QA_TEACHER
fi
unset RUNS # every study has a folder of its own

for name in ${*:-$ALL}; do
  case $name in
    downstream) bash "$HERE/downstream.sh" && python "$HERE/downstream.py" runs/downstream ;;
    model-size) python "$HERE/model_size.py" --pairs "$GLUE/STS-B/dev.tsv" --tokenizer "$TEACHER" ;;
    ablation) bash "$HERE/ablation.sh" && python "$HERE/ablation.py" runs/ablation ;;
    on-device) python "$HERE/on_device.py" ;;
    learning-budget) python "$HERE/learning_budget.py" ;;
    small-data) bash "$HERE/small_data.sh" && python "$HERE/small_data.py" tables runs/small-data ;;
  esac
done
