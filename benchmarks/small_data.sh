#!/usr/bin/env bash
# A student of random weights, distilled on SST-2 alone in one epoch: a reproduction of DistilBERT that others published, at
# our scale. Needs TEACHER (a masked-LM checkpoint) and GLUE (a folder with GLUE's SST-2, MRPC and STS-B).
# `python benchmarks/small_data.py RUNS` makes the table of docs/small-data.md of it.
set -euo pipefail
: "${TEACHER:?a checkpoint}" "${GLUE:?a folder}"
RUNS=${RUNS:-runs/small-data} SEEDS=${SEEDS:-0 1 2} HERE=$(dirname "$0")
TEACHER_RATE=${TEACHER_RATE:-1e-4} STUDENT_RATE=${STUDENT_RATE:-2e-4}
SPLIT=$RUNS/glue
source "$HERE/same_settings.sh"
same_settings "TEACHER=$TEACHER" "GLUE=$GLUE" "TEACHER_RATE=$TEACHER_RATE" "STUDENT_RATE=$STUDENT_RATE"

# QQP is written last.
[ -s "$SPLIT/QQP/dev.tsv" ] || python "$HERE/small_data.py" split "$GLUE" "$SPLIT"
run() { # run FOLDER COMMAND…: unless the folder is there
  [ -s "$1/edge_distil.json" ] || edge-distil "${@:2}" --output "$1"
}
score() { # score MODEL: on sentences that it was not chosen on, and on pairs that it was never taught
  [ -s "$1-test.json" ] || edge-distil evaluate "$1" --task sst-2 --data "$SPLIT/SST-2/test.tsv" --json > "$1-test.json"
  [ -s "$1-mrpc.json" ] || edge-distil evaluate "$1" --task mrpc --data "$GLUE/MRPC/dev.tsv" --json > "$1-mrpc.json"
  [ -s "$1-qqp.json" ] || edge-distil evaluate "$1" --task qqp --data "$SPLIT/QQP/dev.tsv" --json > "$1-qqp.json"
}

for seed in $SEEDS; do
  mkdir -p "$RUNS/seed-$seed"
  of_seed=$RUNS/seed-$seed
  # A step at a rate of 0: the student as it starts.
  run "$of_seed/random" train --teacher "$TEACHER" --init random --max-steps 1 --learning-rate 0 --seed "$seed"
  run "$of_seed/teacher" finetune --task sst-2 --data "$SPLIT/SST-2" --model "$TEACHER" --learning-rate "$TEACHER_RATE" --epochs 1 --seed "$seed"
  run "$of_seed/alone" finetune --task sst-2 --data "$SPLIT/SST-2" --model "$of_seed/random" --learning-rate "$STUDENT_RATE" --epochs 1 --seed "$seed"
  run "$of_seed/student" finetune --task sst-2 --data "$SPLIT/SST-2" --model "$of_seed/random" --teacher "$of_seed/teacher" \
    --learning-rate "$STUDENT_RATE" --epochs 1 --seed "$seed"
  # Our sentences are a ninth of the reproduction's: nine epochs are as many steps, unless the dev set says before that it learns nothing more.
  [ "$seed" != "${SEEDS%% *}" ] || run "$of_seed/longer" finetune --task sst-2 --data "$SPLIT/SST-2" --model "$of_seed/random" \
    --teacher "$of_seed/teacher" --learning-rate "$STUDENT_RATE" --epochs 9 --seed "$seed"
  for model in teacher alone student longer; do
    [ ! -d "$of_seed/$model" ] || score "$of_seed/$model"
  done
done
