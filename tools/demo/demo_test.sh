#!/usr/bin/env bash
# Runs the demo with the binaries of this build on a few records, whole and interrupted: nothing may be left behind.
set -euo pipefail
export DEMO_BINARIES=$PWD/services/kv DEMO_INPUT=$TEST_TMPDIR/status TMPDIR=$TEST_TMPDIR/demo
mkdir -p "$TMPDIR"
for name in adduser apt bash libc6 libstdc++6; do
  printf 'Package: %s\nStatus: install ok installed\nDescription: %s\n more of it\n\n' "$name" "$name"
done >"$DEMO_INPUT"

fail() {
  echo "demo_test: $1" >&2
  cat "$TEST_TMPDIR/transcript" >&2
  exit 1
}

tools/demo/demo >"$TEST_TMPDIR/transcript" 2>&1 || fail "it failed"
grep -qx 'Stored 5 of 5 packages.' "$TEST_TMPDIR/transcript" || fail "it did not store all"
grep -qx 'Package: adduser' "$TEST_TMPDIR/transcript" || fail "it did not get a record back"
grep -q '^3 changes$' "$TEST_TMPDIR/transcript" || fail "the watcher missed changes"
[ -z "$(ls -A "$TMPDIR")" ] || fail "it left files behind"

# Interrupted as Ctrl-C does, where it starts one thing after the other.
for _ in 1 2 3 4 5 6 7 8; do
  : >"$TEST_TMPDIR/transcript"
  tools/demo/demo >"$TEST_TMPDIR/transcript" 2>&1 &
  demo=$!
  until grep -q 'listens on' "$TEST_TMPDIR/transcript" || ! kill -0 "$demo" 2>/dev/null; do
    read -rt 0.001 _ <> <(:) || true
  done
  server=$(sed -n 's/^process \([0-9]*\) listens.*/\1/p' "$TEST_TMPDIR/transcript")
  kill -TERM "$demo" 2>/dev/null || true
  code=0
  wait "$demo" || code=$?
  [ "$code" -eq 143 ] || [ "$code" -eq 0 ] || fail "interrupted, it gave $code"
  ! kill -0 "$server" 2>/dev/null || fail "it left its server running"
  [ -z "$(ls -A "$TMPDIR")" ] || fail "interrupted, it left files behind"
done
