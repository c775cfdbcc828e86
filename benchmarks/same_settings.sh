# For the scripts beside it, which do not make again what is there: `same_settings NAME=VALUE…` ends with an error where the
# runs in the folder RUNS were made with other settings, so that one model's results never pass for another's.
same_settings() {
  mkdir -p "$RUNS"
  local file=$RUNS/settings.txt now
  now=$(printf '%s\n' "$@")
  if [ -s "$file" ] && [ "$now" != "$(cat "$file")" ]; then
    { echo "$RUNS: holds runs of other settings, < then, > now:"; diff "$file" - <<< "$now" | grep '^[<>]' || true
      echo "give another folder as RUNS, or remove this one"; } >&2
    exit 2
  fi
  echo "$now" > "$file"
}
