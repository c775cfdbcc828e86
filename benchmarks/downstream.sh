#!/usr/bin/env bash
# The figures of docs/downstream.md: a teacher and its student on GLUE's tasks, film reviews and SQuAD. Needs TEACHER and
# STUDENT (checkpoints with a masked-LM head, such as those of real_run.sh), GLUE (a folder with GLUE's folders), REVIEWS
# (train.jsonl.gz and test.jsonl.gz), SQUAD (train-v1.1.json and dev-v1.1.json). Each is trained with every seed of SEEDS,
# all with one seed before any with the next. What is there is not made again, so it can be cut off and started
# again; names on the command line pick some. The second distillations have the first seed's teachers; QA_TEACHER gives
# that of SQuAD another one. TEACHER_RATE and STUDENT_RATE are learning rates for models as small as those of real_run.sh;
# BERT-base and DistilBERT want 3e-5.
set -euo pipefail
: "${TEACHER:?a checkpoint}" "${STUDENT:?a checkpoint}" "${GLUE:?a folder}" "${REVIEWS:?a folder}" "${SQUAD:?a folder}"
RUNS=${RUNS:-runs/downstream} SEEDS=${SEEDS:-0 1 2} TEACHER_RATE=${TEACHER_RATE:-1e-4} STUDENT_RATE=${STUDENT_RATE:-2e-4}

source "$(dirname "$0")/same_settings.sh"
same_settings "TEACHER=$TEACHER" "STUDENT=$STUDENT" "GLUE=$GLUE" "REVIEWS=$REVIEWS" "SQUAD=$SQUAD" \
  "QA_TEACHER=${QA_TEACHER:-}" "TEACHER_RATE=$TEACHER_RATE" "STUDENT_RATE=$STUDENT_RATE"
teachers=$RUNS/seed-${SEEDS%% *}
all="glue-teacher glue-student glue-distilled reviews-teacher reviews-student reviews-distilled squad-teacher squad-student squad-distilled"
for name in "$@"; do
  [[ " $all " == *" $name "* ]] || { echo "$name: choose among $all" >&2; exit 2; }
done

for seed in $SEEDS; do
  mkdir -p "$RUNS/seed-$seed"
  for name in ${*:-$all}; do
    output="$RUNS/seed-$seed/$name"
    # Of GLUE's tasks, a folder each, WNLI is the last.
    [ -s "$output/edge_distil.json" ] || [ -s "$output/wnli/edge_distil.json" ] && continue
    case $name in
      *-teacher) options=(--model "$TEACHER") rate=$TEACHER_RATE ;;
      *) options=(--model "$STUDENT") rate=$STUDENT_RATE ;;
    esac
    case $name in
      glue-*)
        options+=(--task glue --data "$GLUE")
        [ "$name" = glue-distilled ] && options+=(--teacher "$teachers/glue-teacher") ;;
      reviews-*)
        options+=(--task text --data "$REVIEWS/train.jsonl.gz" --eval "$REVIEWS/test.jsonl.gz" --max-length 256)
        [ "$name" = reviews-distilled ] && options+=(--teacher "$teachers/reviews-teacher") ;;
      squad-*)
        options+=(--task squad --data "$SQUAD/train-v1.1.json" --eval "$SQUAD/dev-v1.1.json" --epochs 2)
        [ "$name" = squad-distilled ] && options+=(--teacher "${QA_TEACHER:-$teachers/squad-teacher}") ;;
    esac
    edge-distil finetune "${options[@]}" --learning-rate "$rate" --seed "$seed" --output "$output"
  done
done
