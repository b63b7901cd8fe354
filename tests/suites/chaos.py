#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agents of a tree, and the orchestrator, are killed and frozen at random moments; every run
must end with exit 0, each round once, and what chaos_trees.py says of its tree: the same model
bit for bit as undisturbed, noise that is spent once, the exact sum of those who counted.

usage: chaos.py [--seconds N] [--seed S] [--kind K] [--tree T]
Every run prints its seed, kind and tree; given again, it is run alone.
"""
import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
os.environ.setdefault("TIERED_BUILD", os.path.join(ROOT, "build"))
os.environ.setdefault("TIERED_BIN", os.path.join(os.environ["TIERED_BUILD"], "bin"))
os.environ.setdefault("TIERED_PLUGINS", os.path.join(os.environ["TIERED_BUILD"], "lib", "tiered"))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

from chaos_trees import TREES, Record  # noqa: E402
from up import Place, Run, check_leftovers, check_sanitizers, follow, living_pid, up  # noqa: E402

STALL = 15  # seconds that a disturbance may cost
FROZEN = 25  # … and one that has to be noticed first, or at the end of the run


def strike(place, name, *numbers):
    """Signals to the agent `name`, with the seconds to wait between them."""
    pid = living_pid(place, name)
    for number in numbers if pid else ():
        if number < 0:
            time.sleep(-number)
            continue
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        place.kills += number == signal.SIGKILL


def kill_leaf(place, rng):
    leaves = [a for a in place.agents if a.startswith(("edge", "gateway"))]
    strike(place, rng.choice(leaves), signal.SIGKILL)


def kill_fog(place, rng):
    strike(place, rng.choice([a for a in place.agents if a.startswith("fog")]), signal.SIGKILL)


def kill_cloud(place, rng):
    strike(place, "cloud-0", signal.SIGKILL)


def kill_two(place, rng):
    for name in rng.sample(place.agents, 2):
        strike(place, name, signal.SIGKILL)


def kill_all(place, rng):
    for name in place.agents:
        strike(place, name, signal.SIGKILL)


def kill_often(place, rng):
    name = rng.choice(place.agents)
    for _ in range(7):  # one more might be its last: agents that always die are given up
        strike(place, name, signal.SIGKILL)
        time.sleep(rng.uniform(0.05, 0.6))


def kill_many(place, rng):
    for _ in range(4):
        strike(place, rng.choice(place.agents), signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.5))


def freeze_a_while(place, rng):
    strike(place, rng.choice(place.agents), signal.SIGSTOP, -rng.uniform(1, 3), signal.SIGCONT)


def freeze_and_kill(place, rng):
    frozen, killed = rng.sample(place.agents, 2)
    strike(place, frozen, signal.SIGSTOP)
    strike(place, killed, signal.SIGKILL)
    strike(place, frozen, -rng.uniform(0.1, 1), signal.SIGCONT)


def freeze_orchestrator(place, rng):
    """For a while, and an agent dies meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        place.process.send_signal(signal.SIGSTOP)
        strike(place, rng.choice(place.agents), signal.SIGKILL)
        time.sleep(rng.uniform(0.5, 3))
        place.process.send_signal(signal.SIGCONT)


def kill_orchestrator(place, rng):
    """It comes back with --resume; leaves that die meanwhile wait for it. Not inner nodes: what
    one has not told yet of its rounds dies with it, and the record would lack them."""
    with contextlib.suppress(ProcessLookupError):
        place.process.kill()
        place.kills += 1
        leaves = [a for a in place.agents if a.startswith("edge")]
        for name in rng.sample(leaves, min(len(leaves), rng.randrange(3))):
            strike(place, name, signal.SIGKILL, -rng.uniform(0, 0.3))


def kill_at_shares(place, rng):
    """Just when a node has named the survivors of its group, it or a member dies. Where there
    are no groups: some fog."""
    if not place.groups:
        kill_fog(place, rng)
        return
    parent = rng.choice(place.groups)
    below = "fog-" if parent == "cloud-0" else parent.replace("fog", "edge") + "-"
    members = [a for a in place.agents if a.startswith(below)]
    pid = living_pid(place, rng.choice([parent, rng.choice(members)]))
    named = summed(place.run_dir, parent)
    before, limit = stamp(named), time.monotonic() + 1
    while pid and stamp(named) == before and time.monotonic() < limit:
        time.sleep(0.0002)
    time.sleep(rng.choice([0, 0.0005, 0.001, 0.002, 0.004]))
    with contextlib.suppress(ProcessLookupError, TypeError):
        os.kill(pid, signal.SIGKILL)
        place.kills += 1


def summed(run_dir, node):
    """What an aggregator writes before it asks for shares."""
    return os.path.join(run_dir, "agents", node, node, "summed-" + os.path.basename(run_dir))


def stamp(path):
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def freeze_for_ever(place, rng):
    strike(place, rng.choice(place.agents), signal.SIGSTOP)


OFTEN = [kill_leaf, kill_fog, kill_cloud, kill_two, kill_all, kill_often, kill_many,
         freeze_a_while, freeze_and_kill, freeze_orchestrator, kill_orchestrator,
         kill_at_shares]
RARELY = [freeze_for_ever]  # each takes as long as noticing it does


class Calm:
    """The undisturbed run of a tree: what the others may be compared with."""

    def __init__(self, place, name):
        self.name = name
        text, self.check = TREES[name]
        self.topology = place.topology(text)
        start = time.monotonic()
        run = up(place, self.topology, "--log-level", "debug")
        self.seconds = time.monotonic() - start
        self.digest = None  # nothing to compare this one with
        self.agents = sorted(a["name"] for a in run.events[0]["agents"])
        self.groups = [a for a in self.agents if stamp(summed(run.events[0]["dir"], a))]
        self.check(Record(run), self)
        self.digest = run.model_digest()
        print("undisturbed %s: %.1f s" % (name, self.seconds), flush=True)


def go_on(place, topology, before):
    """With --resume, until an orchestrator lives to the end."""
    run = before
    while run.code == -signal.SIGKILL and run.end["event"] != "run_finished":
        more = follow(place, topology, "--log-level", "debug", "--resume")
        run = Run(more.code, run.events + more.events, run.stderr + more.stderr)
    if run.end["event"] == "run_finished":  # killed after it had told all
        run.code = max(run.code, 0)
    check_leftovers(place)
    check_sanitizers(place, run.stderr)
    return run


def disturb(place, calm, kind, seed):
    """Run once with what `kind` does at a random moment; the run and its seconds."""
    rng = random.Random(seed)
    began, over = threading.Event(), threading.Event()
    moment = rng.uniform(0, 0.9 * calm.seconds)
    place.agents, place.groups = calm.agents, calm.groups

    def later():
        began.wait()
        if not over.wait(moment):
            kind(place, rng)

    def on_event(process, event):
        place.process = process
        place.run_dir = event.get("dir") or place.run_dir
        began.set()

    thread = threading.Thread(target=later)
    thread.start()
    start = time.monotonic()
    try:
        run = follow(place, calm.topology, "--log-level", "debug", on_event=on_event)
        over.set()
        thread.join()
        run = go_on(place, calm.topology, run)
    finally:
        over.set()
        began.set()
        thread.join()
    return run, time.monotonic() - start


def one(place, calm, kind, seed):
    shutil.rmtree(place.runs, ignore_errors=True)
    label = "%%s --seed %d --kind %s --tree %s" % (seed, kind.__name__, calm.name)
    try:
        run, seconds = disturb(place, calm, kind, seed)
        calm.check(Record(run), calm)
        limit = calm.seconds + (FROZEN if kind in RARELY else STALL)
        assert seconds < limit, "it took %.1f s; undisturbed %.1f s" % (seconds, calm.seconds)
    except Exception as e:  # the next seed may tell more
        kept = os.path.join(place.folder, "failed-%d-%s-%s" % (seed, kind.__name__, calm.name))
        shutil.move(place.runs, kept)
        print(label % "FAIL", "\n     %s\n     kept in %s" % (e, kept), flush=True)
        return False
    died = [e["name"] for e in run.of("agent_died")]
    without = [e["node"] for e in run.of("round_committed", contributions=0)]
    print(label % "ok  ", " %.1f s  %s" % (seconds, " ".join(died)),
          "; no result: %s" % " ".join(without) if without else "", flush=True)
    return True


def rounds_of(args, calms):
    """Seeds, kinds and trees: some trees once with what is slow, then at random."""
    seed = random.SystemRandom().randrange(1, 10**6) if args.seed is None else args.seed
    rng = random.Random(seed)
    often = [k for k in OFTEN if args.kind in (None, k.__name__)]
    rarely = [k for k in RARELY if args.kind in (None, k.__name__)]
    if args.seed is not None and args.kind and args.tree:
        yield seed, (often + rarely)[0], calms[0]
        return
    end = time.monotonic() + args.seconds
    for calm in rng.sample(calms, min(3, len(calms))) if rarely else []:
        yield seed, rng.choice(rarely), calm
        seed += 1
    while time.monotonic() < end and often:
        yield seed, rng.choice(often), rng.choice(calms)
        seed += 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=160)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--kind", choices=[k.__name__ for k in OFTEN + RARELY])
    parser.add_argument("--tree", choices=list(TREES))
    args = parser.parse_args()
    place = Place()
    place.kills, place.run_dir = 0, None
    calms = [Calm(place, name) for name in TREES if args.tree in (None, name)]
    passed = failed = 0
    for seed, kind, calm in rounds_of(args, calms):
        if one(place, calm, kind, seed):
            passed += 1
        else:
            failed += 1
    print("%d passed, %d failed; %d processes were killed" % (passed, failed, place.kills))
    if not failed:
        shutil.rmtree(place.folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
