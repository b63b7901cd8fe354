#!/usr/bin/env bash
# The demo beside the same model trained centrally: one node with all the data, for as
# many passes over it. Prints accuracy, seconds and bytes of both.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
build/bin/tiered up topologies/fashion-mnist.yaml --runs "$runs" --json >"$runs/tree.jsonl"
passes=$(python3 - "$runs/tree.jsonl" <<'PY'
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
fog = [e for e in events if e["event"] == "round_committed" and e["tier"] == "fog"]
print(round(sum(e["num_examples"] for e in fog) / 60000))
PY
)
cat >"$runs/central.yaml" <<YAML
tiered: 1
name: central
run: {rounds: 1, seed: 7}
tiers:
  - name: cloud
    aggregate: [fedavg]
  - name: all
    fan_out: 1
    trainer: {mlp: {data: fashion-mnist, local_epochs: $passes, lr: 0.05}}
YAML
build/bin/tiered up "$runs/central.yaml" --runs "$runs" --json >"$runs/central.jsonl"
python3 - "$runs/tree.jsonl" "$runs/central.jsonl" "$passes" <<'PY'
import json, sys
for name, path in ("tree", sys.argv[1]), ("central", sys.argv[2]):
    events = [json.loads(line) for line in open(path)]
    end = events[-1]
    rounds = [e for e in events if e["event"] == "round_committed"]
    print("%-8s accuracy %.4f  loss %.4f  %.1f s  received %.1f MiB  sent %.1f MiB  (%s passes)" % (
        name, end["metrics"]["accuracy"], end["metrics"]["loss"], end["seconds"],
        sum(e["bytes_up"] for e in rounds) / 2**20, sum(e["bytes_down"] for e in rounds) / 2**20, sys.argv[3]))
PY
