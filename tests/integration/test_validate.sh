#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiered validate, plan and init as a user runs them: exit codes, what goes where, and
# every topology of the repository.
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

# same FILE: it holds just the text on stdin
same()
{
    diff "$1" - >difference || fail "$1 differs: $(cat difference)"
}

# Every topology that people can run and copy.
for file in "$source"/topologies/*.yaml; do
    expect 0 "$tiered" validate "$file"
    [ -s err ] && fail "$file: $(cat err)"
    grep -q "^$file: ok (" out || fail "$file: $(cat out)"
done
expect 0 "$tiered" validate "$source/topologies/fashion-mnist.yaml"
echo "$source/topologies/fashion-mnist.yaml: ok (3 tiers, 16 nodes)" | same out

# A mistake: its place, the line and a caret on stderr, nothing on stdout.
cat >bad.yaml <<'TEXT'
tiered: 1
tiers:
  - name: cloud
    aggregate: [fedavg]
    rounds: {qourum: 50%}
  - name: edge
    fan_out: 2
    trainer: {softmax: {data: d}}
TEXT
expect 1 "$tiered" validate bad.yaml
same err <<'TEXT'
bad.yaml:5:14: error: tier 'cloud': unknown key 'rounds.qourum'; did you mean 'quorum'?
      rounds: {qourum: 50%}
               ^
TEXT
same out </dev/null

# Several files: each is looked at, and one that is wrong makes the exit code.
expect 0 "$tiered" init good.yaml
expect 1 "$tiered" validate bad.yaml good.yaml
echo "good.yaml: ok (3 tiers, 9 nodes)" | same out
expect 0 "$tiered" validate --set tiers.edge.fan_out=1 good.yaml
echo "good.yaml: ok (3 tiers, 5 nodes)" | same out
expect 1 "$tiered" validate --set run.rounds=0 good.yaml
same err <<'TEXT'
--set run.rounds: error: run.rounds must be a whole number from 1 to 1000000000, not '0'
TEXT
expect 1 "$tiered" validate --json bad.yaml
echo '{"file":"bad.yaml","ok":false,"errors":[{"file":"bad.yaml","line":5,"column":14,"text":"tier '"'cloud'"': unknown key '"'rounds.qourum'"'; did you mean '"'quorum'"'?"}],"warnings":[]}' | same out

# Files that are no topologies: one clear error with its place each.
: >empty.yaml
head -c 4096 "$tiered" >binary.yaml
head -c 10485760 /dev/zero | tr '\0' '#' >large.yaml
head -c 100000 /dev/zero | tr '\0' '[' >deep.yaml
for file in empty binary large deep; do
    expect 1 timeout 10 "$tiered" validate $file.yaml
    [ "$(grep -c ': error: ' err)" = 1 ] || fail "$file: $(head -c 300 err)"
    grep -Eq "^$file.yaml:[0-9]+:[0-9]+: error: " err || fail "$file: $(head -c 300 err)"
done
expect 1 "$tiered" validate nowhere.yaml
grep -q "nowhere.yaml: error: .*No such file" err || fail "nowhere: $(cat err)"
expect 1 "$tiered" validate "$dir"

# Usage.
expect 2 "$tiered" validate
expect 2 "$tiered" validate --frobnicate good.yaml
expect 2 "$tiered" validate --set
expect 2 "$tiered" plan
expect 2 "$tiered" plan a b
expect 2 "$tiered" init a b
for command in validate plan init; do
    expect 0 "$tiered" $command --help
    grep -q "^usage: tiered $command" out || fail "$command --help: $(cat out)"
done

# init: not over a file, but with --force; '-' prints the same.
expect 1 "$tiered" init good.yaml
echo "error: 'good.yaml' exists already; --force replaces it" | same err
echo changed >good.yaml
expect 0 "$tiered" init --force good.yaml
expect 0 "$tiered" init -
same good.yaml <out
expect 0 "$tiered" init
expect 0 "$tiered" validate topology.yaml

# plan: the tree, long lists collapsed, and JSON with every node.
expect 0 "$tiered" plan --set tiers.edge.fan_out=9 good.yaml
sed 's/  */ /g' out >tree
for line in 'cloud-0 fedavg · receives' '├─ fog-0 fedavg ×2 · up' '│ ├─ edge-0-0 softmax' \
    '│ ├─ … 7 more' '│ └─ edge-0-8 softmax' ' └─ edge-1-8 softmax'; do
    grep -qF "$line" tree || fail "the tree lacks '$line': $(cat tree)"
done
grep -q edge-0-5 tree && fail "the list is not collapsed"
expect 0 "$tiered" plan --all --set tiers.edge.fan_out=9 good.yaml
grep -q edge-0-5 out || fail "--all leaves nodes out"
expect 0 "$tiered" plan --json good.yaml
python3 - <<'TEXT' || fail "plan --json: $(head -c 400 out)"
import json
plan = json.load(open("out"))
nodes = {n["name"]: n for n in plan["nodes"]}
assert [t["nodes"] for t in plan["tiers"]] == [1, 2, 6]
assert nodes["cloud-0"]["children"] == ["fog-0", "fog-1"]
assert nodes["fog-1"]["rounds"]["per_parent_round"] == 2
edge = nodes["edge-1-2"]
assert edge["parent"] == "fog-1" and edge["index"] == 5 and edge["agent"] == "edge-1-2"
assert edge["trainer"]["options"]["shard"] == "5/6"
# softmax on Fashion-MNIST: 784 x 10 weights and 10 biases, f32
assert plan["model_bytes"] == 7850 * 4 and edge["bytes_up"] == 7850 * 4
assert nodes["fog-0"]["bytes_from_children"] == 2 * 3 * 7850 * 4
assert len(plan["agents"]) == 9
TEXT

# A model's file gives its size; what is no model is refused with its place.
python3 - <<'TEXT'
import json, struct
header = json.dumps({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
open("m.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + bytes(12))
header = json.dumps({"t": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}).encode()
open("blob.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + bytes(3))
TEXT
mkdir elsewhere
cd elsewhere || exit 1
expect 0 "$tiered" plan --json --set run.model=m.safetensors ../good.yaml
grep -q '"model_bytes":12,' out || fail "the model's size: $(head -c 200 out)"
expect 1 "$tiered" validate --set run.model=none.safetensors ../good.yaml
grep -q "run.model: .*none.safetensors" err || fail "no model: $(cat err)"
expect 1 "$tiered" validate --set run.model=blob.safetensors ../good.yaml
grep -q "tensor 't' is an opaque U8, which 'fedavg'" err || fail "blobs: $(cat err)"

# Trees have no mean, and a run in a tree keeps the tensors that it begins with.
$st write forest.safetensors '{"t0.left": ["I32", [1], [-1]], "t0.right": ["I32", [1], [-1]], "t0.feature": ["I32", [1], [-2]], "t0.threshold": ["F64", [1], [-2]], "t0.value": ["F64", [1, 1], [3]]}'
mv forest.safetensors ..
expect 1 "$tiered" validate --set run.model=forest.safetensors ../good.yaml
grep -q "trees of a forest .*, which 'fedavg' of tier" err || fail "a forest: $(cat err)"
expect 1 "$tiered" validate --set 'tiers.cloud.aggregate=[tree-bagging, fedadam]' ../good.yaml
grep -q "tier 'cloud': 'tree-bagging' merges models that grow.*'tiered aggregate'" err || fail "whole models: $(cat err)"
grep -q "optimizer 'fedadam' steps along a mean, and 'tree-bagging'" err || fail "an optimizer: $(cat err)"

# Filters for values stand before those that make bytes.
expect 1 "$tiered" validate --set 'tiers.fog.uplink=[zstd, qsgd]' ../good.yaml
grep -q "'qsgd' works on values, and 'zstd' before it makes bytes of them; put 'qsgd' first" err || fail "order: $(cat err)"
expect 0 "$tiered" validate --set 'tiers.fog.uplink=[qsgd, zstd]' ../good.yaml

[ "$failures" = 0 ] || exit 1
echo "all good"
