#!/usr/bin/env bash
# The paper's tables, each with its page in docs/: `make tables`. What was trained before is not trained again; names on the
# command line pick some of: downstream model-size ablation on-device learning-budget small-data.
# Needs GLUE, REVIEWS and SQUAD (folders) and CORPUS (a text file), and what is to be compared:
#   ENCODER                an encoder: benchmarks/real_run.sh makes a teacher and a student of it first; or
#   TEACHER and STUDENT    masked-LM checkpoints, or hf://owner/name
# and perhaps QA_TEACHER, TEACHER_RATE, STUDENT_RATE, SEEDS, STEPS (of the ablation), as the scripts below say, and RUNS, where
# every study has a folder: another one for other models.
set -euo pipefail
HERE=$(dirname "$0") ALL="downstream model-size ablation on-device learning-budget small-data" BASE=${RUNS:-runs}
unset RUNS

# What is missing is told before anything is run.
needed=
for name in ${*:-$ALL}; do
  case $name in
    downstream) needed+=" GLUE REVIEWS SQUAD teacher student" ;;
    model-size) needed+=" GLUE tokenizer" ;;
    small-data) needed+=" GLUE teacher" ;;
    ablation) needed+=" GLUE CORPUS teacher" ;;
    learning-budget) [ -z "${ENCODER:-}" ] || needed+=" real" ;;
    on-device) ;;
    *) echo "$name: choose among $ALL" >&2; exit 2 ;;
  esac
done
[ -n "${ENCODER:-}" ] || needed=${needed//tokenizer/TEACHER}
if [ -n "${TEACHER:-}" ] || [ -z "${ENCODER:-}" ]; then
  needed=${needed//student/STUDENT} needed=${needed//teacher/TEACHER}
else
  needed=${needed//student/real} needed=${needed//teacher/real}
fi
needed=${needed//real/SQUAD CORPUS real}
missing=
for variable in ${needed//tokenizer/}; do
  [ "$variable" = real ] || [ -n "${!variable:-}" ] || [[ $missing == *" $variable"* ]] || missing+=" $variable"
done
[ -z "$missing" ] || { echo "give$missing, as the first lines of $0 say (an ENCODER in place of TEACHER and STUDENT)" >&2; exit 2; }
for variable in GLUE REVIEWS SQUAD CORPUS TEACHER STUDENT ENCODER QA_TEACHER; do
  [[ -z ${!variable:-} || ${!variable} == hf://* || -e ${!variable} ]] || { echo "$variable=${!variable}: is not there" >&2; exit 2; }
done

if [[ $needed == *real* ]]; then
  RUNS=$BASE/real bash "$HERE/real_run.sh"
  python "$HERE/real_run.py" "$BASE/real"
  export TEACHER=${TEACHER:-$BASE/real/teacher} STUDENT=${STUDENT:-$BASE/real/student}
  export QA_TEACHER=${QA_TEACHER:-$BASE/real/qa-teacher}
fi

for name in ${*:-$ALL}; do
  runs=$BASE/$name
  case $name in
    downstream) RUNS=$runs bash "$HERE/downstream.sh" && python "$HERE/downstream.py" "$runs" ;;
    model-size) python "$HERE/model_size.py" --pairs "$GLUE/STS-B/dev.tsv" --tokenizer "${TEACHER:-$ENCODER}" ;;
    ablation) RUNS=$runs bash "$HERE/ablation.sh" && python "$HERE/ablation.py" "$runs" ;;
    on-device) python "$HERE/on_device.py" ;;
    learning-budget) python "$HERE/learning_budget.py" ;;
    small-data) RUNS=$runs bash "$HERE/small_data.sh" && python "$HERE/small_data.py" "$runs" ;;
  esac
done
