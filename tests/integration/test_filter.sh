#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiered filter as a user runs it: what comes back, what it prints, how it refuses.
set -u
source=${TIERED_SOURCE:-$PWD}
tiered=${TIERED_BIN:-$source/build/bin}/tiered
st="python3 $source/tests/integration/st.py"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failures=0

fail()
{
    echo "FAIL: $*" >&2
    failures=$((failures + 1))
}

# expect CODE COMMAND...: stdout to out, stderr to err
expect()
{
    local want=$1
    shift
    "$@" >out 2>err
    local got=$?
    [ "$got" = "$want" ] || fail "exit $got, not $want: $* ($(head -c 300 err))"
}

said()
{
    grep -qF -- "$1" err || fail "stderr lacks '$1': $(cat err)"
}

# field NAME: a figure of the JSON in out
field()
{
    python3 -c 'import json, sys; print(json.load(open("out"))[sys.argv[1]])' "$1"
}

is()
{
    [ "$1" = "$2" ] || fail "'$1' is not '$2'"
}

$st write a '{"w": ["F32", [3], [1, -0.0, NaN]], "n": ["I64", [], [7]], "b": ["U8", [2], [3, 4]]}' num_examples=12
for pipe in '' zstd 'zstd:level=19,window_log=20' ' zstd:level=1 | zstd ' 'zstd:dictionary=true'; do
    expect 0 "$tiered" filter --pipe "$pipe" a -o o --json
    is "$(field bytes_in)" 22
    is "$(field largest_error)" 0.0
    is "$(field mean_square_error)" 0.0
    # Once more: a file of ours comes back byte for byte.
    expect 0 "$tiered" filter --pipe "$pipe" o -o o2
    cmp -s o o2 || fail "'$pipe' changed the file"
    is "$($st meta o num_examples)" 12
    $st near o w 0 1 0 nan || fail "values"
done

# 4 MB of zeros: the wire has next to nothing
python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import st
st.write("z", {"w": ["F32", [1000, 1000], bytes(4000000)]}, {})' "$source/tests/integration"
expect 0 "$tiered" filter --pipe zstd z -o o --json
once=$(cat out) # one pass: nothing earlier that a dictionary could come from
expect 0 "$tiered" filter --pipe zstd:dictionary=true z -o o --json
is "$(cat out)" "$once"
is "$(field bytes_in)" 4000000
[ "$(field bytes_on_the_wire)" -lt 2000 ] || fail "zeros take $(field bytes_on_the_wire)"
expect 0 "$tiered" filter --pipe '' z -o o --json
[ "$(field bytes_on_the_wire)" -gt 4000000 ] || fail "a copy shrank"
expect 0 "$tiered" filter --pipe zstd z -o o
grep -q '^bytes in           4000000$' out || fail "text: $(cat out)"
grep -q '^largest error      0$' out || fail "text: $(cat out)"

# pipes of several filters: bytes after each, and errors as large as they may be
python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import st
from array import array
import random
random.seed(1)
x = array("f", [random.gauss(0, 0.001) for _ in range(100000)])
st.write("u", {"w": ["F32", [100000], x.tobytes()]}, {})' "$source/tests/integration"
# pipe PIPE MOST_WIRE MOST_ERROR: what it may cost
pipe()
{
    expect 0 "$tiered" filter --pipe "$1" u -o o --json
    python3 - "$@" <<'PY' || fail "$1: $(cat out)"
import json, sys
r = json.load(open("out"))
names = [f.split(":")[0].strip() for f in sys.argv[1].split("|")]
assert [f["name"] for f in r["filters"]] == names, r
assert r["filters"][-1]["bytes"] <= r["bytes_on_the_wire"] <= int(sys.argv[2]), r
assert r["largest_error"] <= float(sys.argv[3]) and r["mean_square_error"] <= r["largest_error"] ** 2, r
assert r["bytes_in"] == 400000 and (r["largest_error"] > 0) == (float(sys.argv[3]) > 0), r
PY
}
pipe 'shuffle | zstd' 350000 0
pipe 'shuffle|lzma:preset=1' 350000 0
pipe 'fp16' 200200 2e-6
pipe 'bf16 | shuffle | zstd' 150000 1.6e-5
pipe 'int8:per=channel' 100200 1.9e-5
pipe 'qsgd' 101200 2e-4
pipe 'qsgd:levels=7,norm=linf | zstd' 51200 8e-4
pipe 'qsgd:levels=1,packing=elias' 10000 0.03
pipe 'top-k:ratio=0.01' 6000 0.003
expect 0 "$tiered" filter --pipe 'fp16 | zstd' u -o o
grep -q '^after fp16         200000 (50.0%)$' out || fail "text: $(cat out)"
expect 1 "$tiered" filter --pipe 'zstd | fp16' u -o o
said "filter 'fp16': works on values, but the filter before it made bytes of them: put it first"
expect 1 "$tiered" filter --pipe 'fp16' a -o o
said "tensor 'w' has nan at index 2"
expect 1 "$tiered" filter --pipe 'qsgd:levels=0' u -o o
said "levels"
expect 1 "$tiered" filter --pipe 'top-k:ratio=0' u -o o
said "ratio"

# refusals leave OUT alone
echo before >o
expect 1 "$tiered" filter --pipe 'zstd:level=23' a -o o
said "level"
expect 1 "$tiered" filter --pipe 'zstd:levle=3' a -o o
said "did you mean 'level'?"
expect 1 "$tiered" filter --pipe 'zstdd' a -o o
said "did you mean 'zstd'?"
expect 1 "$tiered" filter --pipe 'fedavg' a -o o
expect 1 "$tiered" filter --pipe 'zstd | | zstd' a -o o
said "the pipe has an empty place"
expect 1 "$tiered" filter --pipe zstd missing -o o
said "'missing': cannot open: No such file or directory"
head -c 100 a >cut
expect 1 "$tiered" filter --pipe zstd cut -o o
said "'cut': the header has"
is "$(cat o)" before

expect 2 "$tiered" filter a -o o
said "--pipe is missing"
expect 2 "$tiered" filter --pipe zstd a
said "-o is missing"
expect 2 "$tiered" filter --pipe zstd -o o
said "give one IN file"
expect 2 "$tiered" filter --pipe zstd --jsn a -o o
said "unknown flag '--jsn'"
expect 0 "$tiered" filter --help

[ "$failures" = 0 ] || { echo "$failures failures" >&2; exit 1; }
echo "ok"
