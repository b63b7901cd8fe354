#!/usr/bin/env bash
# Private memory of a lone idle agent, and the peak memory of an aggregator at 10 M
# parameters with 4 and with 40 children (memory: 128MiB).
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'kill "${agent:-}" 2>/dev/null || true; rm -rf "$work"' EXIT

build/bin/tiered-agent --name lone --state "$work/state" --orchestrator "unix:$work/none.sock" 2>/dev/null &
agent=$!
python3 - "$agent" <<'PY'
import re, sys, time
time.sleep(3)  # let it settle: there is no event to wait for in doing nothing
text = open("/proc/%s/smaps_rollup" % sys.argv[1]).read()
kb = {k: int(v) for k, v in re.findall(r"(\w+):\s+(\d+) kB", text)}
print("idle agent: private %d kB (clean %d, dirty %d), rss %d kB" % (
    kb["Private_Clean"] + kb["Private_Dirty"], kb["Private_Clean"], kb["Private_Dirty"], kb["Rss"]))
PY
kill "$agent"
wait "$agent" 2>/dev/null || true

mkdir "$work/plugins"
ln -s "$PWD"/build/lib/tiered/*.so "$PWD"/build/tests/plugins/test-trainer.so "$work/plugins/"
for children in 4 40; do
    cat >"$work/tree.yaml" <<YAML
tiered: 1
name: memory
run: {rounds: 2, seed: 1, evaluate: {every: 0}}
defaults: {memory: 128MiB}
tiers:
  - name: cloud
    aggregate: [${1:-trimmed-mean}]
  - name: edge
    fan_out: $children
    agent: edges
    trainer: {test-trainer: {parameters: 10000000}}
YAML
    build/bin/tiered up "$work/tree.yaml" --plugins "$work/plugins" --runs "$work/runs" --json |
        python3 -c '
import json, sys
pid, peak, seconds = None, 0, []
for line in sys.stdin:
    event = json.loads(line)
    if event["event"] == "run_started":
        pid = next(a["pid"] for a in event["agents"] if "cloud-0" in a["nodes"])
    if event["event"] == "round_committed":
        seconds.append(event["seconds"])
        for row in open("/proc/%d/status" % pid):
            if row.startswith("VmHWM"):
                peak = max(peak, int(row.split()[1]))
print("aggregator, '$children' children x 10 M parameters: peak rss %.1f MiB, %s s a round" % (peak / 1024, seconds))'
done
