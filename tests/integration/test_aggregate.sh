#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiered aggregate as a user runs it: values worked by hand or by st.py, exit codes,
# what is written and what is left alone.
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

near()
{
    $st near "$@" || fail "values"
}

is()
{
    [ "$1" = "$2" ] || fail "'$1' is not '$2'"
}

$st write a '{"w": ["F32", [2], [1, 10]], "n": ["I64", [], [1]], "h": ["F16", [1], [8]]}' num_examples=1
$st write b '{"n": ["I64", [], [4]], "h": ["F16", [1], [4]], "w": ["F32", [2], [5, 20]]}' num_examples=3
$st write c '{"w": ["F32", [2], [90, -9]], "n": ["I64", [], [2]], "h": ["F16", [1], [0]]}'

# fedavg, tensors in another order, a count that rounds half to even (13/4 = 3.25)
expect 0 "$tiered" aggregate --plugin fedavg -o o a b
near o w 1e-6 4 17.5
near o n 0 3
near o h 0 5
is "$($st meta o num_examples)" 4
is "$($st names o)" "$($st names a)"
expect 0 "$tiered" aggregate --plugin fedavg:weighted_by=uniform -o o a b
near o w 1e-6 3 15
near o n 0 2 # 2.5
expect 0 "$tiered" aggregate --plugin fedavg --json -o o a b c
grep -q '"updates":3.*"num_examples":5' out || fail "summary: $(cat out)"

# the order-statistics rules
expect 0 "$tiered" aggregate --plugin median -o o a b c
near o w 1e-6 5 10
near o n 0 2
expect 0 "$tiered" aggregate --plugin median -o o a b
near o w 1e-6 3 15
expect 0 "$tiered" aggregate --plugin trimmed-mean:beta=0.4 -o o a b c
near o w 1e-6 5 10
expect 0 "$tiered" aggregate --plugin trimmed-mean:trim=1 -o o a b c
near o w 1e-6 5 10
expect 0 "$tiered" aggregate --plugin trimmed-mean -o o a b c
near o w 1e-5 32 7
said "cuts none"
expect 1 "$tiered" aggregate --plugin trimmed-mean:trim=2 -o o a b c
said "leaves none of 3"

# rules of distances; a and b are nearest, and a comes first
expect 0 "$tiered" aggregate --plugin krum -o o c a b
near o w 0 1 10
near o n 0 1
expect 0 "$tiered" aggregate --plugin krum:keep=2 -o o c a b
near o w 1e-6 3 15
expect 0 "$tiered" aggregate --plugin 'krum:include=[h],keep=2' -o o c a b
expect 1 "$tiered" aggregate --plugin 'krum:exclude=[h,w]' -o o a b c
said "aggregator 'krum' measures none of the model's 3 tensors"
expect 0 "$tiered" aggregate --plugin krum:byzantine=1 -o o a b c
said "krum is proven for 5 and more"
expect 1 "$tiered" aggregate --plugin bulyan:byzantine=1 -o o a b c
said "bulyan with 1 bad updates needs 7 or more, and there are 3"
expect 0 "$tiered" aggregate --plugin bulyan -o o a b c
near o w 1e-5 32 7
expect 0 "$tiered" aggregate --plugin geometric-median -o o a a a c
near o w 1e-3 1 10

# rules of what moved, from g: one moved 3 4, the other 0.3 0.4
$st write g '{"w": ["F32", [2], [10, 20]]}'
$st write far '{"w": ["F32", [2], [13, 24]]}'
$st write by '{"w": ["F32", [2], [10.3, 20.4]]}' num_examples=3
expect 0 "$tiered" aggregate --plugin norm-bounded:norm=1 --global g -o o far by
near o w 1e-5 10.375 20.5
expect 0 "$tiered" aggregate --plugin centered-clipping:tau=1 --global g -o o far by
near o w 1e-5 10.45 20.6
expect 1 "$tiered" aggregate --plugin centered-clipping:tau=1 -o o far by
said "needs the model before the round"
expect 1 "$tiered" aggregate --plugin norm-bounded -o o far by
said "option 'norm' of aggregator 'norm-bounded' is required"

# fednova: 8 in 4 steps and 1 in 1 step, of 10 and of 30 examples
$st write nova '{"w": ["F64", [1], [10]]}'
$st write four '{"w": ["F64", [1], [2]]}' num_examples=10 local_steps=4
$st write one1 '{"w": ["F64", [1], [9]]}' num_examples=30 local_steps=1
$st write none0 '{"w": ["F64", [1], [99]]}' num_examples=30
expect 0 "$tiered" aggregate --plugin fednova --global nova -o o four one1
near o w 1e-12 7.8125
is "$($st meta o local_steps)" 1.75
expect 1 "$tiered" aggregate --plugin fednova --global nova -o o four none0
said "'none0' does not say its local_steps"
expect 0 "$tiered" aggregate --plugin fedavg -o o four one1
is "$($st meta o local_steps)" 1.75

# one child comes back as it is
expect 0 "$tiered" aggregate --plugin fedavg -o o b
near o w 0 5 20
is "$(tail -c 18 o | sha256sum)" "$(tail -c 18 b | sha256sum)"

# an optimizer, its state, and the same two steps in deltas
$st write g1 '{"w": ["F64", [1], [1]]}'
$st write u1 '{"w": ["F64", [1], [2]]}'
$st write u2 '{"w": ["F64", [1], [4]]}'
expect 0 "$tiered" aggregate --plugin fedavg --plugin fedadam --global g1 --state s -o g2 u1
near g2 w 1e-14 1.0990050488825425
is "$($st meta s tiered.step)" 1
expect 0 "$tiered" aggregate --plugin fedavg --plugin fedadam --global g2 --state s -o g3 u2
near g3 w 1e-14 1.2225383498696765
is "$($st meta s tiered.step)" 2
expect 0 "$tiered" aggregate --plugin fedavg --plugin 'fedadam:lr=0.1,bias_correction=flower' --global g1 -o o u1
near o w 1e-14 1.0735108701389573
$st write d1 '{"w": ["F64", [1], [1]]}'
expect 0 "$tiered" aggregate --delta --plugin fedavg --plugin fedadam --global g1 -o o d1
near o w 1e-14 1.0990050488825425
expect 0 "$tiered" aggregate --delta --plugin fedavg --global g2 -o o d1
near o w 1e-14 2.0990050488825425
expect 0 "$tiered" aggregate --delta --plugin fedavg -o o d1 u2
near o w 1e-14 2.5
expect 1 "$tiered" aggregate --plugin fedavg --plugin fedadam -o o u1
said "--global"
expect 1 "$tiered" aggregate --plugin fedavg --plugin fedadam --global a --state s -o o a
said "state of other optimizers or another model"

# every optimizer; a schedule goes on from the state, and not in a run that fails
expect 0 "$tiered" aggregate --plugin fedavg --plugin fedavgm:lr=0.5 --global g1 -o o u1
near o w 1e-14 1.5
expect 0 "$tiered" aggregate --plugin fedavg --plugin fedadagrad:lr=1,tau=1 --global g1 -o o u1
near o w 1e-14 1.4142135623730951
expect 0 "$tiered" aggregate --plugin fedavg --plugin fedyogi:lr=1,tau=1,beta1=0.5 --global g1 -o o u1
near o w 1e-14 1.25
halving=fedavgm:warmup=1,schedule.exponential.factor=0.5
expect 0 "$tiered" aggregate --delta --plugin fedavg --plugin $halving --global g1 --state m -o o d1
near o w 0 1.5
expect 0 "$tiered" aggregate --delta --plugin fedavg --plugin $halving --global g1 --state m -o o d1
near o w 0 2
$st write n1 '{"w": ["F64", [1], [NaN]]}'
expect 1 "$tiered" aggregate --delta --plugin fedavg --plugin $halving --global g1 --state m -o o n1
is "$($st meta m tiered.step)" 2
expect 0 "$tiered" aggregate --delta --plugin fedavg --plugin $halving --global g1 --state m -o o d1
near o w 0 1.5
expect 1 "$tiered" aggregate --plugin fedavg --plugin fedavgm:schedule=cosine --global g1 -o o u1
said "'schedule.cosine.rounds' of optimizer 'fedavgm' is required"
expect 1 "$tiered" aggregate --plugin fedavg --plugin fedadam:tau=0 --global g1 -o o u1
said "'tau' must be a number in (0, 1000000000], not '0'"

# a result that does not fit is none
$st write edge '{"w": ["F16", [3], [1, 60000, 60000]]}'
rm -f o
expect 1 "$tiered" aggregate --delta --plugin fedavg --global edge -o o edge
said "tensor 'w' would be infinite at index 1"
[ ! -e o ] || fail "a refused run made its output"
expect 0 "$tiered" aggregate --delta --plugin fedavg --on-bad-update allow --global edge -o o edge
near o w 0 2 inf inf

# running statistics are averaged, never stepped; the role comes from the update
$st write r '{"w": ["F32", [1], [1]], "mean": ["F32", [1], [1]]}'
$st write v '{"mean": ["F32", [1], [2]], "w": ["F32", [1], [2]]}' tiered.role.mean=buffer
expect 0 "$tiered" aggregate --plugin fedavg --plugin fedadam --global r -o o v
near o w 1e-6 1.0990050488825425
near o mean 0 2

# bad updates
$st write bad '{"w": ["F32", [2], [7, NaN]], "n": ["I64", [], [1]], "h": ["F16", [1], [8]]}' num_examples=9
cp a before
cp a o
expect 1 "$tiered" aggregate --plugin fedavg -o o a bad b
said "'bad': tensor 'w' has NaN at index 1"
long=$(printf 'd%.0s' {1..200})
mkdir "$long" && cp bad "$long/"
expect 1 "$tiered" aggregate --plugin fedavg -o o a "$long/bad"
said "dd/bad': tensor 'w' has NaN at index 1"
cmp -s o before || fail "a refused run touched its output"
expect 0 "$tiered" aggregate --plugin fedavg --on-bad-update exclude -o o a bad b
said "warning: 'bad': tensor 'w' has NaN at index 1; the update is excluded"
near o w 1e-6 4 17.5
is "$($st meta o num_examples)" 4
expect 0 "$tiered" aggregate --plugin median --on-bad-update exclude -o o a bad b c
near o w 1e-6 5 10
expect 0 "$tiered" aggregate --plugin fedavg --on-bad-update allow -o o a bad
near o w 1e-6 6.4 nan
expect 1 "$tiered" aggregate --plugin median --on-bad-update allow -o o a bad
said "cannot allow bad updates"
expect 1 "$tiered" aggregate --plugin fedavg --on-bad-update exclude -o o bad

# a model without tensors, and one without values
$st write void '{}'
expect 0 "$tiered" aggregate --plugin fedavg -o o void void
$st write hollow '{"w": ["F32", [0, 4], []]}'
expect 0 "$tiered" aggregate --plugin median -o o hollow hollow
is "$($st names o)" w

# files that do not fit
$st write shape '{"w": ["F32", [2, 1], [1, 10]], "n": ["I64", [], [1]], "h": ["F16", [1], [8]]}'
expect 1 "$tiered" aggregate --plugin fedavg -o o a shape
said "'shape': tensor 'w' is F32 [2, 1], but F32 [2] in 'a'"
$st write less '{"w": ["F32", [2], [1, 10]], "n": ["I64", [], [1]]}'
expect 1 "$tiered" aggregate --plugin fedavg -o o a less
said "'less' has no tensor 'h', which 'a' has"
expect 1 "$tiered" aggregate --plugin fedavg -o o less a
said "'a' has a tensor 'h', which 'less' has not"
for on_bad in reject exclude allow; do # which are for NaN and infinity alone
    expect 1 "$tiered" aggregate --plugin fedavg --on-bad-update $on_bad -o o a shape
    said "'shape': tensor 'w' is F32 [2, 1], but F32 [2] in 'a'"
done
$st write wide '{"w": ["F64", [2], [1, 10]], "n": ["I64", [], [1]], "h": ["F16", [1], [8]]}'
expect 1 "$tiered" aggregate --plugin fedavg -o o a wide
said "'wide': tensor 'w' is F64 [2], but F32 [2] in 'a'"
$st write scalar '{"w": ["F32", [2], [1, 10]], "n": ["I64", [1], [1]], "h": ["F16", [1], [8]]}'
expect 1 "$tiered" aggregate --plugin fedavg -o o a scalar
said "'scalar': tensor 'n' is I64 [1], but I64 [] in 'a'"
$st write name '{"x": ["F32", [2], [1, 10]], "n": ["I64", [], [1]], "h": ["F16", [1], [8]]}'
expect 1 "$tiered" aggregate --plugin fedavg --global name -o o a
said "'a' has no tensor 'x', which 'name' has"
$st write nowhere '{"w": ["F32", [2], [1, Infinity]], "n": ["I64", [], [1]], "h": ["F16", [1], [8]]}'
expect 1 "$tiered" aggregate --plugin fedavg --on-bad-update exclude --global nowhere -o o a
said "'nowhere': tensor 'w' has an infinite value at index 1"
for count in -1 1.5 1e3 9007199254740993 18446744073709551616 nan "" " 5" 0x10; do
    $st write count '{"w": ["F32", [1], [1]]}' "num_examples=$count"
    for on_bad in reject exclude allow; do
        expect 1 "$tiered" aggregate --plugin fedavg --on-bad-update $on_bad -o o count
        said "'count': num_examples is '$count'; it must be an integer in 0..2^53"
    done
done
$st write most '{"w": ["F32", [1], [1]]}' num_examples=9007199254740992
expect 0 "$tiered" aggregate --plugin fedavg -o o most
is "$($st meta o num_examples)" 9007199254740992
$st write more '{"w": ["F32", [1], [1]]}'
expect 1 "$tiered" aggregate --plugin fedavg -o o most more
said "'more': num_examples of the updates sum to more than 2^53"
# what an excluded update says of its examples is not counted either
$st write boast '{"w": ["F32", [1], [NaN]]}' num_examples=9007199254740992
expect 0 "$tiered" aggregate --plugin fedavg --on-bad-update exclude -o o more boast
is "$($st meta o num_examples)" 1
$st write none '{"w": ["F32", [1], [1]]}' num_examples=0
expect 1 "$tiered" aggregate --plugin fedavg -o o none none
said "no examples"
for steps in inf nan -1 1e300 "" few; do # sums of these would be no counts
    $st write steps '{"w": ["F32", [1], [1]]}' "local_steps=$steps"
    expect 1 "$tiered" aggregate --plugin fedavg -o o steps
    said "'steps': local_steps is '$steps'; it must be a number in 0..2^53"
done
# trees: united by tree-bagging, and by nothing else
$st write f1 '{"t0.left": ["I32", [1], [-1]], "t0.right": ["I32", [1], [-1]], "t0.feature": ["I32", [1], [-2]], "t0.threshold": ["F64", [1], [-2]], "t0.value": ["F64", [1, 1], [3]]}' num_examples=4
$st write f2 '{"t0.value": ["F64", [1, 1], [5]], "t0.threshold": ["F64", [1], [-2]], "t0.left": ["I32", [1], [-1]], "t0.right": ["I32", [1], [-1]], "t0.feature": ["I32", [1], [-2]]}'
$st write f3 '{"t0.left": ["I32", [1], [7]], "t0.right": ["I32", [1], [-1]], "t0.feature": ["I32", [1], [-2]], "t0.threshold": ["F64", [1], [-2]], "t0.value": ["F64", [1, 1], [3]]}'
expect 0 "$tiered" aggregate --plugin tree-bagging --json -o o f1 f2 f1
grep -q '"updates":3.*"num_examples":9,"tensors":15' out || fail "summary: $(cat out)"
near o t1.value 0 5
near o t2.value 0 3
expect 0 "$tiered" aggregate --plugin tree-bagging --global o --on-bad-update exclude -o o4 f3 f2
said "'f3': tree 0: node 0 has the child 7"
near o4 t3.value 0 5
expect 1 "$tiered" aggregate --plugin tree-bagging -o o4 f2 f3
said "'f3': tree 0"
near o4 t3.value 0 5 # as before
expect 1 "$tiered" aggregate --plugin tree-bagging --on-bad-update allow -o o4 f2
said "cannot allow bad updates"
expect 1 "$tiered" aggregate --plugin tree-bagging --plugin fedadam --global o -o o4 f2
said "leave the optimizer out"
expect 1 "$tiered" aggregate --plugin tree-bagging --state s -o o4 f2
said "keeps no state"
expect 1 "$tiered" aggregate --plugin median -o o4 f1 f2
said "'median' cannot average"

$st write opaque '{"w": ["U8", [1], [1]]}'
expect 1 "$tiered" aggregate --plugin fedavg -o o opaque
said "opaque"
expect 1 "$tiered" aggregate --plugin fedavg -o o absent
said "absent"
expect 1 "$tiered" aggregate --plugin fedavg -o nowhere/o a

# the command line
expect 2 "$tiered" aggregate --plugin fedavg a
expect 2 "$tiered" aggregate -o o a
expect 2 "$tiered" aggregate --plugin fedavg -o o
expect 2 "$tiered" aggregate --plugin fedavg --frobnicate -o o a
expect 1 "$tiered" aggregate --plugin fedavg --on-bad-update ignore -o o a
expect 1 "$tiered" aggregate --plugin fedavgg -o o a
said "fedavg"
expect 1 "$tiered" aggregate --plugin trimmed-mean:beta=0.5 -o o a
said "beta"
expect 1 "$tiered" aggregate --plugin trimmed-mean:bata=0.1 -o o a
said "beta"
expect 1 "$tiered" aggregate --plugin trimmed-mean:beta=0.1,trim=1 -o o a
said "not both"
expect 1 "$tiered" aggregate --plugin fedadam -o o a
expect 0 "$tiered" aggregate --help
grep -q -- --on-bad-update out || fail "--help says nothing"

# tensors of several blocks, in another order in the second file
PYTHONPATH=$source/tests/integration python3 - <<'PY' || fail "cannot make large files"
import st
p = [i % 251 / 8 for i in range(300000)]
q = [i % 241 / 4 for i in range(400000)]
st.write("x", {"p": ["F32", [300000], p], "q": ["F32", [400, 1000], q]}, {})
st.write("y", {"q": ["F32", [400, 1000], [-v for v in q]],
               "p": ["F32", [300000], [v + 1 for v in p]]}, {})
PY
for rule in fedavg median; do
    expect 0 "$tiered" aggregate --plugin $rule -o o x y
    PYTHONPATH=$source/tests/integration python3 - <<'PY' || fail "large files: $rule"
import st
o, x = st.read("o")[0], st.read("x")[0]
assert all(a == b + 0.5 for a, b in zip(o["p"], x["p"]))
assert not any(o["q"])
PY
done

[ "$failures" = 0 ] || { echo "$failures failures" >&2; exit 1; }
echo "ok"
