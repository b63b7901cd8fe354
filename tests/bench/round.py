# SPDX-License-Identifier: Apache-2.0
"""./dev bench round: one cloud, 20 edges whose trainer returns at once.

Seconds a round over Unix sockets and gRPC, spool included, beside the same bytes over bare
loopback TCP and beside Flower (its legacy gRPC mode), interleaved; medians and ranges, and
the aggregator's peak memory, also with a small `memory:`. usage: round.py [--clients N] [--parameters 1000000,10000000]
[--rounds R] [--repeats K] [--no-flower]
"""
import argparse
import os
import socket
import statistics
import subprocess
import sys

from flower import PYTHON, install
from tree import BUILD, ROOT, Bench

TOPOLOGY = """
tiered: 1
name: bench
run: {rounds: %d, seed: 1, evaluate: {every: 0}}
tiers:
  - name: cloud
    aggregate: [fedavg]
    memory: %s
  - name: edge
    fan_out: %d
    %s
    trainer: {test-trainer: {parameters: %d, behaviour: echo}}
"""


def tiered(bench, clients, parameters, rounds, memory, grpc):
    way = "transport: grpc\n    insecure: true" if grpc else ""
    seconds, peaks = bench.run(TOPOLOGY % (rounds, memory, clients, way, parameters), grpc)
    return seconds, peaks["cloud-0"]


def tcp(_, clients, parameters, rounds):
    out = subprocess.run([os.path.join(BUILD, "tests", "bench", "tcp_round"), str(clients),
                          str(4 * parameters), str(rounds)], capture_output=True, text=True, check=True)
    return [float(line) for line in out.stdout.split()], 0.0


def flower(_, clients, parameters, rounds):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % s.getsockname()[1]
    script = os.path.join(ROOT, "tests", "bench", "flower_round.py")
    quiet = {"stderr": subprocess.DEVNULL}
    server = subprocess.Popen([PYTHON, script, "server", address, str(clients), str(parameters), str(rounds)],
                              stdout=subprocess.PIPE, text=True, **quiet)
    edges = [subprocess.Popen([PYTHON, script, "client", address], stdout=subprocess.DEVNULL, **quiet)
             for _ in range(clients)]
    lines = server.stdout.read().split("\n")
    server.wait()
    for edge in edges:
        edge.terminate()
        edge.wait()
    seconds = [float(line) for line in lines if line and not line.startswith("peak")]
    peak = [float(line.split()[1]) for line in lines if line.startswith("peak")]
    return seconds, peak[0] if peak else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--parameters", default="1000000,10000000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-flower", action="store_true")
    args = parser.parse_args()
    bench = Bench()
    ways = {"tcp": tcp,
            "unix": lambda *a: tiered(*a, "512MiB", grpc=False),
            "grpc": lambda *a: tiered(*a, "512MiB", grpc=True),
            "unix, memory: 64MiB": lambda *a: tiered(*a, "64MiB", grpc=False),
            "grpc, memory: 64MiB": lambda *a: tiered(*a, "64MiB", grpc=True)}
    if not args.no_flower:
        install()
        ways["flower"] = flower
    for parameters in map(int, args.parameters.split(",")):
        seconds = {name: [] for name in ways}
        peaks = {name: 0.0 for name in ways}
        for _ in range(args.repeats):  # interleaved: the machine's speed drifts
            for name, way in ways.items():
                measured, peak = way(bench, args.clients, parameters, args.rounds)
                seconds[name] += measured[1:]  # the first warms up
                peaks[name] = max(peaks[name], peak)
        limit = statistics.median(seconds["tcp"])
        print("%d clients x %d parameters, %d rounds each" % (
            args.clients, parameters, len(seconds["tcp"])))
        for name, values in seconds.items():
            middle = statistics.median(values)
            print("  %-20s %8.3f s  (%.3f .. %.3f)  %6.2fx of tcp%s" % (
                name, middle, min(values), max(values), middle / limit,
                "  peak %.0f MiB" % peaks[name] if peaks[name] else ""))
    bench.close()


main()
