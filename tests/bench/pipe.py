# SPDX-License-Identifier: Apache-2.0
"""./dev bench pipe: uplink bytes and accuracy after equal rounds on Fashion-MNIST, by pipe.

Four edges with uneven shares train a network of 101,770 parameters under one cloud. Each pipe runs
with the same seeds; the spread of the seeds says what a difference in accuracy means.
usage: pipe.py [--rounds R] [--seeds N] [--only SUBSTRING]
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TIERED = os.path.join(ROOT, "build", "bin", "tiered")

TOPOLOGY = """
tiered: 1
name: pipe
run: {rounds: %d, seed: %d, model: {from: trainer}, evaluate: {every: %d, at: leaves}}
tiers:
  - name: cloud
    aggregate: [fedavg]
    rounds: {quorum: 100%%}
  - name: edge
    fan_out: 4
    uplink: %s
    trainer:
      mlp: {data: fashion-mnist, partition: {dirichlet: {alpha: 1.0}}, shard: "{index}/{count}",
            local_steps: 100, lr: 0.02}
"""

PIPES = [
    "[]",
    "[zstd]",
    "[shuffle, zstd]",
    "[fp16]",
    "[int8]",
    "[{qsgd: {levels: 127}}]",
    "[{qsgd: {levels: 127}}, zstd]",
    "[{qsgd: {levels: 7}}, zstd]",
    "[{qsgd: {levels: 7, norm: linf}}]",
    "[{qsgd: {levels: 7, norm: linf}}, zstd]",
    "[{qsgd: {levels: 1}}, zstd]",
    "[{qsgd: {levels: 1, packing: elias}}]",
    "[{qsgd: {levels: 1, norm: linf}}, zstd]",
    "[{top-k: {ratio: 0.01}}]",
    "[{top-k: {ratio: 0.01, error_feedback: false}}]",
    "[{top-k: {ratio: 0.05}}]",
]


def run(work, rounds, seed, pipe):
    """(bytes up a round, accuracy in percent)"""
    path = os.path.join(work, "pipe.yaml")
    with open(path, "w") as f:
        f.write(TOPOLOGY % (rounds, seed, rounds, pipe))
    out = subprocess.run([TIERED, "up", path, "--json", "--runs", os.path.join(work, "runs")],
                         capture_output=True, text=True)
    if out.returncode:
        sys.exit("%s: the run failed: %s" % (pipe, out.stderr))
    events = [json.loads(line) for line in out.stdout.splitlines()]
    committed = [e for e in events if e["event"] == "round_committed"]
    assert len(committed) == rounds and all(e["contributions"] == 4 for e in committed), committed
    shutil.rmtree(os.path.join(work, "runs"))
    return (statistics.mean(e["bytes_up"] for e in committed),
            100 * events[-1]["metrics"]["accuracy"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="tiered-bench-")
    plain = None
    print("| uplink | bytes up a round | fewer | accuracy after %d rounds, %d seeds | against none |\n"
          "| --- | --- | --- | --- | --- |" % (args.rounds, args.seeds))
    for pipe in PIPES:
        if plain and args.only not in pipe:
            continue
        runs = [run(work, args.rounds, seed, pipe) for seed in range(1, args.seeds + 1)]
        up = statistics.mean(r[0] for r in runs)
        accuracy = statistics.mean(r[1] for r in runs)
        plain = plain or (up, accuracy)
        print("| `%s` | %d | %.1f x | %.2f (%.2f .. %.2f) | %+.2f |" % (
            pipe, up, plain[0] / up, accuracy, min(r[1] for r in runs), max(r[1] for r in runs),
            accuracy - plain[1]), flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
