#!/usr/bin/env bash
# The figures of docs/downstream.md: a teacher and its student on GLUE's tasks, film reviews and SQuAD. Needs TEACHER and
# STUDENT (checkpoints with a masked-LM head, such as those of real_run.sh), GLUE (a folder with GLUE's folders), REVIEWS
# (train.jsonl.gz and test.jsonl.gz), SQUAD (train-v1.1.json and dev-v1.1.json). A model whose figures are there is not
# made again, so it can be started again; names on the command line pick some. Each is trained SEEDS times.
set -euo pipefail
: "${TEACHER:?a checkpoint}" "${STUDENT:?a checkpoint}" "${GLUE:?a folder}" "${REVIEWS:?a folder}" "${SQUAD:?a folder}"
RUNS=${RUNS:-runs/downstream} SEEDS=${SEEDS:-3}
mkdir -p "$RUNS"

for name in ${*:-glue-teacher glue-student reviews-teacher reviews-student squad-teacher squad-student squad-distilled}; do
  [ -s "$RUNS/$name.json" ] && continue
  case $name in
    *-teacher) options=(--model "$TEACHER") rate=1e-4 ;;
    *) options=(--model "$STUDENT") rate=2e-4 ;;
  esac
  case $name in
    glue-*) options+=(--task glue --data "$GLUE") ;;
    reviews-*)
      options+=(--task text --data "$REVIEWS/train.jsonl.gz" --eval "$REVIEWS/test.jsonl.gz" --max-length 256) ;;
    squad-*)
      options+=(--task squad --data "$SQUAD/train-v1.1.json" --eval "$SQUAD/dev-v1.1.json" --epochs 2)
      [ "$name" = squad-distilled ] && options+=(--teacher "$RUNS/squad-teacher") ;;
  esac
  edge-distil finetune "${options[@]}" --learning-rate "$rate" --seeds "$SEEDS" --output "$RUNS/$name" --json \
    > "$RUNS/$name.part"
  mv "$RUNS/$name.part" "$RUNS/$name.json"
done
