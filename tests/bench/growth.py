# SPDX-License-Identifier: Apache-2.0
"""./dev bench growth: how the cost of a round grows, over Unix sockets and gRPC.

With the children of one cloud (all in one agent), with the parameters (four children), and
in a tree of 1,000 leaves under ten fogs, ten leaf agents. Trainers return at once.
usage: growth.py [--rounds R] [--only children|parameters|tree]
"""
import argparse
import statistics

from tree import Bench

FLAT = """
tiered: 1
name: growth
run: {rounds: %(rounds)d, seed: 1, evaluate: {every: 0}}
defaults: {memory: 128MiB, insecure: true}
tiers:
  - name: cloud
    aggregate: [fedavg]
  - name: edge
    fan_out: %(children)d
    transport: %(transport)s
    agent: %(agent)s
    trainer: {test-trainer: {parameters: %(parameters)d, behaviour: echo}}
"""

TREE = """
tiered: 1
name: growth
run: {rounds: %(rounds)d, seed: 1, evaluate: {every: 0}}
defaults: {memory: 128MiB, insecure: true}
tiers:
  - name: cloud
    aggregate: [fedavg]
  - name: fog
    fan_out: 10
    aggregate: [fedavg]
    transport: %(transport)s
  - name: edge
    fan_out: 100
    transport: %(transport)s
    agent: "edges-{parent}"
    trainer: {test-trainer: {parameters: %(parameters)d, behaviour: echo}}
"""


def line(label, seconds, peaks):
    rest = seconds[1:] or seconds  # the first round starts everything
    agents = {}
    for name, peak in peaks.items():
        kind = name.split("-")[0]
        agents[kind] = max(agents.get(kind, 0.0), peak)
    print("  %-34s %8.3f s  (%.3f .. %.3f)   peak %s" % (
        label, statistics.median(rest), min(rest), max(rest),
        ", ".join("%s %.0f MiB" % item for item in agents.items())), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", choices=["children", "parameters", "tree"])
    args = parser.parse_args()
    bench = Bench()

    def each(title, topology, rows):
        print(title)
        for label, values in rows:
            for transport in "unix", "grpc":
                text = topology % dict(values, rounds=args.rounds, transport=transport)
                line("%s, %s" % (label, transport), *bench.run(text, transport == "grpc"))

    if args.only in (None, "children"):
        each("children of one cloud, 10,000 parameters", FLAT,
             [("%d" % n, {"children": n, "parameters": 10000, "agent": "leaves"})
              for n in (1, 3, 10, 30, 100, 300, 1000)])
    if args.only in (None, "parameters"):
        each("parameters, 4 children, an agent each", FLAT,
             [("%.0e" % n, {"children": 4, "parameters": n, "agent": "leaf-{index}"})
              for n in (10**5, 10**6, 10**7, 10**8)])
    if args.only in (None, "tree"):
        each("1 cloud, 10 fogs, 1,000 leaves", TREE,
             [("%d parameters" % n, {"parameters": n}) for n in (10000, 100000)])
    bench.close()


main()
