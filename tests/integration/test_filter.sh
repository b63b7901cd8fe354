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
for pipe in '' zstd 'zstd:level=19,window_log=20' ' zstd:level=1 | zstd '; do
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
is "$(field bytes_in)" 4000000
[ "$(field bytes_on_the_wire)" -lt 2000 ] || fail "zeros take $(field bytes_on_the_wire)"
expect 0 "$tiered" filter --pipe '' z -o o --json
[ "$(field bytes_on_the_wire)" -gt 4000000 ] || fail "a copy shrank"
expect 0 "$tiered" filter --pipe zstd z -o o
grep -q '^bytes in           4000000$' out || fail "text: $(cat out)"
grep -q '^largest error      0$' out || fail "text: $(cat out)"

# refusals leave OUT alone
echo before >o
expect 1 "$tiered" filter --pipe 'zstd:level=23' a -o o
said "level"
expect 1 "$tiered" filter --pipe 'zstd:levle=3' a -o o
said "did you mean 'level'?"
expect 1 "$tiered" filter --pipe 'zstd:dictionary=true' a -o o
said "option 'dictionary' of filter 'zstd' is not in this version"
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
