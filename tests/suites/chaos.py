#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agents of a tree are killed and frozen at random moments; every run must end as the
undisturbed one does: exit 0, each cloud round once, the same model bit for bit.

usage: chaos.py [--seconds N] [--seed S] [--kind K] [--tree T]
Every run prints its seed, kind and tree; given again, it is run alone.
"""
import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
os.environ.setdefault("TIERED_BUILD", os.path.join(ROOT, "build"))
os.environ.setdefault("TIERED_BIN", os.path.join(os.environ["TIERED_BUILD"], "bin"))
os.environ.setdefault("TIERED_PLUGINS", os.path.join(os.environ["TIERED_BUILD"], "lib", "tiered"))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

from up import Place, living_pid, tree, up  # noqa: E402

ROUNDS = 5
STALL = 15  # seconds that a disturbance may cost
FROZEN = 20  # … and one that has to be noticed first
TREES = {
    "small": tree("parameters: 3000, delay_ms: 40", rounds=ROUNDS),
    "large": tree("parameters: 900000, delay_ms: 10", rounds=ROUNDS),  # several blocks
    "shared": tree("parameters: 3000, delay_ms: 40", rounds=ROUNDS, edge="agent: gateway",
                   nodes="nodes: {fog-1: {agent: gateway}}"),
}


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


def kill_leaf(place, rng):
    leaves = [a for a in place.agents if a.startswith(("edge", "gateway"))]
    strike(place, rng.choice(leaves), signal.SIGKILL)


def kill_fog(place, rng):
    strike(place, rng.choice(["fog-0", "fog-1"]), signal.SIGKILL)


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


def freeze_for_ever(place, rng):
    strike(place, rng.choice(place.agents), signal.SIGSTOP)


OFTEN = [kill_leaf, kill_fog, kill_cloud, kill_two, kill_all, kill_often, kill_many,
         freeze_a_while, freeze_and_kill, freeze_orchestrator]
RARELY = [freeze_for_ever]  # each takes as long as noticing it does


class Calm:
    """The undisturbed run of a tree: what the others must come to."""

    def __init__(self, place, name):
        self.name = name
        self.topology = place.topology(TREES[name])
        start = time.monotonic()
        run = up(place, self.topology)
        self.seconds = time.monotonic() - start
        self.digest = run.model_digest()
        self.agents = sorted(a["name"] for a in run.events[0]["agents"])
        check(run, self)
        print("undisturbed %s: %.1f s" % (name, self.seconds), flush=True)


def disturb(place, calm, kind, seed):
    """Run once with what `kind` does at a random moment; the run and its seconds."""
    rng = random.Random(seed)
    began, over = threading.Event(), threading.Event()
    moment = rng.uniform(0, 0.9 * calm.seconds)
    place.agents = calm.agents

    def later():
        began.wait()
        if not over.wait(moment):
            kind(place, rng)

    def on_event(process, event):
        place.process = process
        began.set()

    thread = threading.Thread(target=later)
    thread.start()
    start = time.monotonic()
    try:
        run = up(place, calm.topology, "--log-level", "debug", on_event=on_event)
    finally:
        over.set()
        began.set()
        thread.join()
    return run, time.monotonic() - start


def check(run, calm):
    assert run.code == 0, "exit code %d: %s" % (run.code, run.stderr)
    rounds = [e["round"] for e in run.of("round_committed", tier="cloud")]
    assert rounds == list(range(1, ROUNDS + 1)), "cloud rounds %s" % rounds
    assert all(e["contributions"] == 2 for e in run.of("round_committed")), "a child is missing"
    db = sqlite3.connect(os.path.join(run.events[0]["dir"], "run.db"))
    counted = db.execute("SELECT count(*) FROM contributions").fetchone()[0]
    db.close()
    assert counted == ROUNDS * 2 + ROUNDS * 2 * 2 * 2, "%d contributions on record" % counted
    assert run.model_digest() == calm.digest, "the model is another one"


def one(place, calm, kind, seed):
    shutil.rmtree(place.runs, ignore_errors=True)
    label = "%%s --seed %d --kind %s --tree %s" % (seed, kind.__name__, calm.name)
    try:
        run, seconds = disturb(place, calm, kind, seed)
        check(run, calm)
        limit = calm.seconds + (FROZEN if kind in RARELY else STALL)
        assert seconds < limit, "it took %.1f s; undisturbed %.1f s" % (seconds, calm.seconds)
    except Exception as e:  # the next seed may tell more
        kept = os.path.join(place.folder, "failed-%d-%s-%s" % (seed, kind.__name__, calm.name))
        shutil.move(place.runs, kept)
        print(label % "FAIL", "\n     %s\n     kept in %s" % (e, kept), flush=True)
        return False
    died = [e["name"] for e in run.of("agent_died")]
    print(label % "ok  ", " %.1f s  %s" % (seconds, " ".join(died)), flush=True)
    return True


def rounds_of(args, calms):
    """Seeds, kinds and trees: each tree once with what is slow, then at random."""
    seed = random.SystemRandom().randrange(1, 10**6) if args.seed is None else args.seed
    rng = random.Random(seed)
    often = [k for k in OFTEN if args.kind in (None, k.__name__)]
    rarely = [k for k in RARELY if args.kind in (None, k.__name__)]
    if args.seed is not None and args.kind and args.tree:
        yield seed, (often + rarely)[0], calms[0]
        return
    end = time.monotonic() + args.seconds
    for calm in calms if rarely else []:
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
    calms = [Calm(place, name) for name in TREES if args.tree in (None, name)]
    passed = failed = 0
    for seed, kind, calm in rounds_of(args, calms):
        if one(place, calm, kind, seed):
            passed += 1
        else:
            failed += 1
    print("%d passed, %d failed" % (passed, failed))
    if not failed:
        shutil.rmtree(place.folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
