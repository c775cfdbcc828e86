#!/usr/bin/env bash
# Table 4 of Sanh et al. (2019): students of one budget, each with a part of the method left out, fine-tuned on GLUE's tasks.
# Needs TEACHER (a masked-LM checkpoint), CORPUS (a text file) and GLUE (a folder with GLUE's folders). STEPS of training
# of 16 blocks of 128 tokens each; every student is fine-tuned with every seed of SEEDS, all with one seed before any with the
# next. What is there is not made again; names on the command line pick some.
# `python benchmarks/ablation.py RUNS` makes the tables of docs/ablation.md of it.
set -euo pipefail
: "${TEACHER:?a checkpoint}" "${CORPUS:?a text file}" "${GLUE:?a folder}"
RUNS=${RUNS:-runs/ablation} STEPS=${STEPS:-500} STUDENT_RATE=${STUDENT_RATE:-2e-4} SEEDS=${SEEDS:-0 1 2}
source "$(dirname "$0")/same_settings.sh"
same_settings "TEACHER=$TEACHER" "CORPUS=$CORPUS" "GLUE=$GLUE" "STEPS=$STEPS" "STUDENT_RATE=$STUDENT_RATE"
names=${*:-triple without-ce without-cos without-mlm random}

for name in $names; do
  case $name in
    triple) options=() ;;
    without-*) options=("--alpha-${name#without-}" 0) ;;
    random) options=(--init random) ;;
    *) echo "$name: choose triple, without-ce, without-cos, without-mlm or random" >&2; exit 2 ;;
  esac
  mkdir -p "$RUNS/$name"
  [ -s "$RUNS/$name/student/edge_distil.json" ] || edge-distil train --teacher "$TEACHER" --corpus "$CORPUS" \
    --block-length 128 --max-steps "$STEPS" --batch-size 16 --learning-rate 5e-4 --dropout 0 ${options[@]+"${options[@]}"} \
    --output "$RUNS/$name/student" --resume
done
for seed in $SEEDS; do
  for name in $names; do
    # Of GLUE's tasks, a folder each, WNLI is the last.
    [ -s "$RUNS/$name/seed-$seed/wnli/edge_distil.json" ] || edge-distil finetune --task glue --data "$GLUE" \
      --model "$RUNS/$name/student" --learning-rate "$STUDENT_RATE" --seed "$seed" --output "$RUNS/$name/seed-$seed"
  done
done
