#!/usr/bin/env bash
# The demo, to its end: every round is committed, and the model is good enough.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
build/bin/tiered up topologies/fashion-mnist.yaml --runs "$runs" --json >"$runs/events.jsonl"
python3 - "$runs/events.jsonl" <<'PY'
import json, os, sys
events = [json.loads(line) for line in open(sys.argv[1])]
end = events[-1]
assert events[0]["event"] == "run_started", events[0]
assert end["event"] == "run_finished" and end["status"] == "finished", end
rounds = [e for e in events if e["event"] == "round_committed" and e["tier"] == "cloud"]
assert len(rounds) == end["rounds"], (len(rounds), end["rounds"])
assert os.path.getsize(end["model"]) > 100000, end["model"]
print("accuracy %.4f after %d rounds in %.1f s" % (end["metrics"]["accuracy"], end["rounds"], end["seconds"]))
assert end["metrics"]["accuracy"] >= 0.84, end["metrics"]
PY
if pgrep -f "$runs" >/dev/null; then
    echo "processes were left behind" >&2
    exit 1
fi
echo "1 passed, 0 failed"
