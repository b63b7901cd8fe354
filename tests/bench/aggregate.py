# SPDX-License-Identifier: Apache-2.0
"""./dev bench aggregate: N rows of P f32 parameters in memory, one aggregation.

Beside Flower's functions (PyPI's flwr), plain numpy, and what the machine can do at all: a read-only
sum over the same rows by all processors. Everything takes turns; medians and ranges, and the
least processor time of all threads, which other programs on the machine disturb less. Flower and
numpy work on a part of the coordinates where that is enough, and are scaled up.

usage: aggregate.py [--n 10,25,100] [--parameters 1000000,10000000] [--rules fedavg,median,…]
                    [--repeats K] [--no-flower]
       aggregate.py --memory    `tiered aggregate` on 100 files of 10 M parameters: its peak
                    resident memory, which must stay below 512 MiB for every rule
"""
import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import flower

DRIVER = os.path.join(flower.BUILD, "tests", "bench", "aggregate_bench")
RULES = ["fedavg", "median", "trimmed-mean", "test-gram", "krum", "geometric-median", "centered-clipping",
         "norm-bounded", "fednova", "bulyan"]
# What a rule is compared with, where it is not called the same: the matrix of all distances is
# what krum's time goes to.
PEERS = {"test-gram": "krum"}


def options(rule, n):
    if rule in ("krum", "bulyan"):
        f = (n - 3) // 2 - 1 if rule == "krum" else (n - 3) // 4
        return "%s:byzantine=%d" % (rule, max(f, 0))
    return {"trimmed-mean": "trimmed-mean:beta=0.2",
            "centered-clipping": "centered-clipping:tau=10",
            "norm-bounded": "norm-bounded:norm=10",
            "geometric-median": "geometric-median:max_iterations=10,tolerance=0"}.get(rule, rule)


class Process:
    """One that answers each line with a line, once it has said that it is ready."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.DEVNULL, env=environment)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("%s ended early" % self.process.args[0])
        return line.split()

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        return None if answer == ["none"] else [float(word) for word in answer]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def plugins_folder(work):
    """All plugins, and the one that only asks for the matrix."""
    folder = os.path.join(work, "plugins")
    os.mkdir(folder)
    for source in "lib/tiered", "tests/plugins":
        for name in os.listdir(os.path.join(flower.BUILD, source)):
            if source == "lib/tiered" or name == "test-gram.so":
                os.symlink(os.path.abspath(os.path.join(flower.BUILD, source, name)), os.path.join(folder, name))
    return dict(os.environ, TIERED_PLUGINS=folder)


def measure(n, parameters, rules, repeats, environment, with_flower):
    """By (who, what): pairs of seconds and processor seconds, one a repeat; and the coordinates that
    peers took."""
    ours = Process([DRIVER, str(n), str(parameters)], environment)
    peer = Process([flower.PYTHON, os.path.join(os.path.dirname(__file__), "flower_aggregate.py"), str(n),
                    str(parameters)], environment) if with_flower else None
    seconds, parts = {}, {}

    def note(key, value, scale=1.0):
        if value is not None:
            seconds.setdefault(key, []).append([x * scale for x in value[:2]])

    for _ in range(repeats):
        note("seal", ours.ask("seal"))
        for rule in rules:
            name = options(rule, n)
            note("limit", ours.ask("limit"))
            found = ours.ask("run " + name)
            if not found:
                continue
            note(rule, found)
            note("limit", ours.ask("limit"))
            note(rule, ours.ask("run " + name))
            if rule == "fedavg":
                note("fresh", ours.ask("fresh " + name))
            for who in ("flower", "numpy") if peer else ():
                answer = peer.ask("%s %s" % (who, PEERS.get(rule, rule)))
                if answer:
                    note((who, rule), answer, parameters / answer[2])
                    parts[rule] = int(answer[2])
    ours.close()
    if peer:
        peer.close()
    return seconds, parts


def middle(values):
    return statistics.median(wall for wall, _ in values)


def least(values):
    return min(cpu for _, cpu in values)


def figure(values):
    walls = [wall for wall, _ in values]
    return "%9.4f s (%.4f .. %.4f), cpu %.4f s" % (middle(values), min(walls), max(walls), least(values))


def report(n, parameters, rules, seconds, parts):
    limit = seconds["limit"]
    print("%d rows x %d parameters: %.2f GB" % (n, parameters, 4e-9 * n * parameters))
    print("  %-18s %s; %.1f GB/s" % ("read-only sum", figure(limit), 4e-9 * n * parameters / middle(limit)))
    for rule in rules:
        if rule not in seconds:
            print("  %-18s no such plugin here" % rule)
            continue
        ours = seconds[rule]
        print("  %-18s %s; %.2fx of the sum, cpu %.2fx" % (
            rule, figure(ours), middle(ours) / middle(limit), least(ours) / least(limit)))
        if rule == "fedavg":
            print("    into new memory  %s" % figure(seconds["fresh"]))
        for who in "flower", "numpy":
            if (who, rule) in seconds:
                theirs = seconds[who, rule]
                part = "" if parts[rule] == parameters else "; on %d coordinates" % parts[rule]
                print("    %-16s %s; %.1fx ours, cpu %.1fx%s" % (
                    who, figure(theirs), middle(theirs) / middle(ours), least(theirs) / least(ours), part))
    print("  %-18s %s; not in the above: the digest of one model" % ("sha-256", figure(seconds["seal"])), flush=True)


def memory(work, environment, rules, n=100, parameters=10000000):
    rows = os.path.join(work, "rows")
    os.mkdir(rows)
    subprocess.run([DRIVER, str(n), str(parameters), rows], check=True)
    files = sorted(os.path.join(rows, name) for name in os.listdir(rows))
    bad = False
    for rule in rules:
        if not os.path.exists(os.path.join(environment["TIERED_PLUGINS"], rule + ".so")):
            print("%-18s no such plugin here" % rule)
            continue
        began = time.monotonic()
        command = [os.path.join(flower.BUILD, "bin", "tiered"), "aggregate", "--plugin", options(rule, n),
                   "--global", files[0], "-o", os.path.join(work, "out.safetensors"), *files]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit("%s failed" % rule)
        peak = usage.ru_maxrss / 1024
        bad = bad or peak > 512
        print("%-18s %d files x %d parameters: peak rss %.0f MiB, %.2f s" % (
            rule, n, parameters, peak, time.monotonic() - began), flush=True)
    if bad:
        sys.exit("more than 512 MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default="10,25,100")
    parser.add_argument("--parameters", default="1000000,10000000")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-flower", action="store_true")
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    rules = args.rules.split(",")
    work = tempfile.mkdtemp(prefix="tiered-bench-")
    try:
        environment = plugins_folder(work)
        if args.memory:
            return memory(work, environment, rules)
        if not args.no_flower:
            flower.install()
        for n in map(int, args.n.split(",")):
            for parameters in map(int, args.parameters.split(",")):
                report(n, parameters, rules, *measure(n, parameters, rules, args.repeats, environment,
                                                      not args.no_flower))
    finally:
        shutil.rmtree(work)


main()
