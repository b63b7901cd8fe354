#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiered plugins check: every shipped plugin passes, and each plugin of tests/plugins that
# is wrong in one point fails for that point. In both outcomes the kit itself lives on.
set -u
tiered=$TIERED_BIN/tiered
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

fail() {
    printf '%s\n' "$@"
    failed=1
}

# check CODE FILE [FLAG...]: leaves what it says in $out.
check() {
    local expected=$1 file=$2 code
    shift 2
    "$tiered" plugins check "$file" "$@" > "$folder/out" 2> "$folder/err"
    code=$?
    out=$(cat "$folder/out")
    [ $code -eq "$expected" ] || fail "$file: exit code $code, not $expected" "$out"
    [ ! -s "$folder/err" ] || fail "$file: stderr: $(cat "$folder/err")"
}

{
    echo "width,height,kind"
    for i in $(seq 90); do echo "$((i % 7)).5,$((i % 5)).25,k$((i % 3))"; done
} > "$folder/data.csv"

# every shipped plugin; a kind that needs more than that to run says so here
n=0
for file in "${TIERED_TEST_PLUGINS%/tests/plugins}"/lib/tiered/*.so; do
    options=()
    case $(basename "$file") in
    mlp.so | softmax.so) options=(--options "data=$folder/data.csv") ;;
    clip.so) options=(--options norm=0.5) ;;
    python.so) continue ;; # needs a program in Python; tests of its own
    esac
    check 0 "$file" "${options[@]}"
    n=$((n + 1))
done
# what only an option brings: a state that is saved, a header
check 0 "${TIERED_TEST_PLUGINS%/tests/plugins}/lib/tiered/zstd.so" --options dictionary=true
grep -qx "ok    saved state" <<< "$out" || fail "zstd with a dictionary:" "$out"
[ $n -ge 8 ] || fail "only $n shipped plugins found"

check 0 "${TIERED_TEST_PLUGINS%/tests/plugins}/lib/tiered/clip.so" --options adaptive.initial=0.1
grep -qx "ok    norm" <<< "$out" || fail "clip, adaptive:" "$out"

# right ones
check 0 "$TIERED_TEST_PLUGINS/good.so"
grep -qx "aggregator 'good' 1.2: 14 ok, 0 failed, 9 skipped" <<< "$out" || fail "good:" "$out"
check 0 "$TIERED_TEST_PLUGINS/test-lossy.so"
check 0 "$TIERED_TEST_PLUGINS/test-trainer.so" --options delay_ms=20

# wrong NAME REASON: a line of its failed checks is the reason.
wrong() {
    check 1 "$TIERED_TEST_PLUGINS/$1.so" --limit 2s
    grep -qF -- "FAIL  $2" <<< "$out" || fail "$1: no failure '$2' in" "$out"
}

wrong last-row "order of children: the result depends on the order of the children"
wrong claims "doubled children: every child twice makes another result: element 0 is"
wrong claims "scaling: rows times 4 do not make the result times it: element 0 is"
wrong claims "translation: 3.5 added to every row does not add 3.5 to the result: element 0 is"
wrong claims "groups: three groups make another result than their children: element 0 is"
wrong claims "tensors: measures a tensor once and not the next time"
wrong crashes "1 to 100 children: crashes: Aborted (weigh of 3 children)"
wrong exits "1 to 100 children: ends the process with exit code 0 (weigh of 3 children)"
wrong hangs "1 to 100 children: does not end within 2.0s (weigh of 3 children)"
wrong prints "prints nothing: writes to stdout or stderr (in 'init and destroy'): weighing 7"
wrong exports "exported symbols: exports 'helper_of_exports'; only tiered_plugin may be visible"
wrong overruns "sizes: goes past the end of its output (forward of 4 bytes"
wrong trusts "damaged blocks: goes past the end of its input (inverse of "
wrong loses "round trip: is not TIERED_LOSSY, but byte 0 of block 0 (F32) comes back changed"
wrong other-name "descriptor: its plugin is called 'another', so the file should be 'another.so'"
wrong test-trainer "cancelled: train does not look at host->cancelled()"
wrong wrong-abi "loads: plugin file '$TIERED_TEST_PLUGINS/wrong-abi.so': is built for plugin ABI 7"
wrong no-symbol "loads: plugin file '$TIERED_TEST_PLUGINS/no-symbol.so': has no symbol"
wrong bad-row "loads: plugin file '$TIERED_TEST_PLUGINS/bad-row.so': option 'beta' does not lie in"
wrong no-weigh "loads: plugin file '$TIERED_TEST_PLUGINS/no-weigh.so': lacks the op 'weigh'"
# sanitizers keep a heap that the kit cannot count
if ! nm -D "$tiered" | grep -qE "__(asan|tsan)_"; then
    wrong leaks "init and destroy: 112 bytes leak each time from init to destroy"
fi

# one failure leaves the others: 23 checks are told of
check 1 "$TIERED_TEST_PLUGINS/crashes.so" --json
python3 - "$folder/out" <<'PYTHON' || fail "--json: $out"
import json, sys
d = json.load(open(sys.argv[1]))
bad = [c["check"] for c in d["checks"] if c["result"] == "FAIL"]
assert bad == ["1 to 100 children"], bad
assert (d["name"], d["kind"], d["passed"], d["failed"]) == ("crashes", "aggregator", False, 1), d
assert len(d["checks"]) == d["ok"] + d["failed"] + d["skipped"] == 23, d
assert len(d["sha256"]) == 64, d
PYTHON

# options, and files that are none
check 1 "${TIERED_TEST_PLUGINS%/tests/plugins}/lib/tiered/mlp.so"
grep -qx "FAIL  loads: option 'data' is required: say it by --options 'data=…'" <<< "$out" ||
    fail "required option:" "$out"
check 1 "$TIERED_TEST_PLUGINS/good.so" --options trim=500
grep -q "FAIL  loads: .*trim.*500" <<< "$out" || fail "option out of range:" "$out"
check 1 "$folder/nowhere.so"
echo hello > "$folder/text.so"
check 1 "$folder/text.so"
grep -q "is not a shared object" <<< "$out" || fail "text:" "$out"

# usage
usage() {
    "$tiered" plugins "$@" > "$folder/out" 2>&1
    [ $? -eq 2 ] || fail "plugins $*: not a usage error: $(cat "$folder/out")"
}
usage check
usage check a.so b.so
usage check a.so --limit soon
exit $failed
