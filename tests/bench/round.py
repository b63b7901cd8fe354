# SPDX-License-Identifier: Apache-2.0
"""./dev bench round: one cloud, 20 edges whose trainer returns at once.

Seconds a round over Unix sockets and gRPC, spool included, beside the same bytes over bare
loopback TCP and beside Flower (its legacy gRPC mode), interleaved; medians and ranges, and
the aggregator's peak memory. usage: round.py [--clients N] [--parameters 1000000,10000000]
[--rounds R] [--repeats K] [--no-flower]
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile

from flower import BUILD, PYTHON, ROOT, install

TOPOLOGY = """
tiered: 1
name: bench
run: {rounds: %d, seed: 1, evaluate: {every: 0}}
tiers:
  - name: cloud
    aggregate: [fedavg]
  - name: edge
    fan_out: %d
    %s
    trainer: {test-trainer: {parameters: %d, behaviour: echo}}
"""


def peak_mib(pid):
    for row in open("/proc/%d/status" % pid):
        if row.startswith("VmHWM"):
            return int(row.split()[1]) / 1024
    return 0.0


def tiered(work, clients, parameters, rounds, grpc):
    path = os.path.join(work, "bench.yaml")
    with open(path, "w") as f:
        f.write(TOPOLOGY % (rounds, clients, "transport: grpc\n    insecure: true" if grpc else "", parameters))
    process = subprocess.Popen(
        [os.path.join(BUILD, "bin", "tiered"), "up", path, "--json", "--plugins",
         os.path.join(work, "plugins"), "--runs", os.path.join(work, "runs"),
         *(["--network"] if grpc else [])],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds, peak, pid = [], 0.0, None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "run_started":
            pid = next(a["pid"] for a in event["agents"] if "cloud-0" in a["nodes"])
        elif event["event"] == "round_committed":
            assert event["contributions"] == clients, event
            seconds.append(event["seconds"])
            peak = max(peak, peak_mib(pid))
    if process.wait() != 0:
        sys.exit("the run failed; see %s" % work)
    shutil.rmtree(os.path.join(work, "runs"))
    return seconds, peak


def tcp(work, clients, parameters, rounds):
    out = subprocess.run([os.path.join(BUILD, "tests", "bench", "tcp_round"), str(clients),
                          str(4 * parameters), str(rounds)], capture_output=True, text=True, check=True)
    return [float(line) for line in out.stdout.split()], 0.0


def flower(work, clients, parameters, rounds):
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
    work = tempfile.mkdtemp(prefix="tiered-bench-")
    plugins = os.path.join(work, "plugins")
    os.mkdir(plugins)
    for folder in "lib/tiered", "tests/plugins":
        for name in os.listdir(os.path.join(BUILD, folder)):
            if folder == "lib/tiered" or name == "test-trainer.so":
                os.symlink(os.path.join(BUILD, folder, name), os.path.join(plugins, name))
    ways = {"tcp": tcp, "unix": lambda *a: tiered(*a, grpc=False)}
    if os.path.exists(os.path.join(plugins, "grpc.so")):
        ways["grpc"] = lambda *a: tiered(*a, grpc=True)
    if not args.no_flower:
        install()
        ways["flower"] = flower
    for parameters in map(int, args.parameters.split(",")):
        seconds = {name: [] for name in ways}
        peaks = {name: 0.0 for name in ways}
        for _ in range(args.repeats):  # interleaved: the machine's speed drifts
            for name, way in ways.items():
                measured, peak = way(work, args.clients, parameters, args.rounds)
                seconds[name] += measured[1:]  # the first warms up
                peaks[name] = max(peaks[name], peak)
        limit = statistics.median(seconds["tcp"])
        print("%d clients x %d parameters, %d rounds each" % (
            args.clients, parameters, len(seconds["tcp"])))
        for name, values in seconds.items():
            middle = statistics.median(values)
            print("  %-7s %8.3f s  (%.3f .. %.3f)  %6.2fx of tcp%s" % (
                name, middle, min(values), max(values), middle / limit,
                "  peak %.0f MiB" % peaks[name] if peaks[name] else ""))
    shutil.rmtree(work)


main()
