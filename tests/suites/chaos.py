#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Agents of a tree are killed and frozen at random moments; every run must end as the
undisturbed one does: exit 0, each cloud round once, the same model bit for bit.

usage: chaos.py [--seconds N] [--seed S] [--kind K] [--keep]
Every run prints its seed and kind; both given again, it is run alone.
"""
import argparse
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
FROZEN = 25  # … and one that has to be noticed first
AGENTS = ["cloud-0", "fog-0", "fog-1", "edge-0-0", "edge-0-1", "edge-1-0", "edge-1-1"]


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


def kill_one(place, rng):
    strike(place, rng.choice(AGENTS), signal.SIGKILL)


def kill_leaf(place, rng):
    strike(place, rng.choice(AGENTS[3:]), signal.SIGKILL)


def kill_fog(place, rng):
    strike(place, rng.choice(AGENTS[1:3]), signal.SIGKILL)


def kill_cloud(place, rng):
    strike(place, AGENTS[0], signal.SIGKILL)


def kill_two(place, rng):
    for name in rng.sample(AGENTS, 2):
        strike(place, name, signal.SIGKILL)


def kill_all(place, rng):
    for name in AGENTS:
        strike(place, name, signal.SIGKILL)


def kill_often(place, rng):
    name = rng.choice(AGENTS)
    for _ in range(4):
        strike(place, name, signal.SIGKILL)
        time.sleep(rng.uniform(0.05, 0.6))


def kill_many(place, rng):
    for _ in range(4):
        kill_one(place, rng)
        time.sleep(rng.uniform(0, 0.5))


def freeze_a_while(place, rng):
    strike(place, rng.choice(AGENTS), signal.SIGSTOP, -rng.uniform(1, 3), signal.SIGCONT)


def freeze_and_kill(place, rng):
    frozen, killed = rng.sample(AGENTS, 2)
    strike(place, frozen, signal.SIGSTOP)
    strike(place, killed, signal.SIGKILL)
    strike(place, frozen, -rng.uniform(0.1, 1), signal.SIGCONT)


def freeze_for_ever(place, rng):
    strike(place, rng.choice(AGENTS), signal.SIGSTOP)


OFTEN = [kill_one, kill_leaf, kill_fog, kill_cloud, kill_two, kill_all, kill_often, kill_many,
         freeze_a_while, freeze_and_kill]
RARELY = [freeze_for_ever]  # each takes as long as noticing it does


def disturb(place, kind, seed, length):
    """Run once with what `kind` does at a random moment; the run and its seconds."""
    rng = random.Random(seed)
    began = threading.Event()
    over = threading.Event()

    def later():
        began.wait()
        if not over.wait(rng.uniform(0, length)):
            kind(place, rng)

    def on_event(process, event):
        began.set()

    thread = threading.Thread(target=later)
    thread.start()
    start = time.monotonic()
    try:
        run = up(place, place.chaos, "--log-level", "debug", on_event=on_event)
    finally:
        over.set()
        began.set()
        thread.join()
    return run, time.monotonic() - start


def check(run, want):
    assert run.code == 0, "exit code %d: %s" % (run.code, run.stderr)
    rounds = [e["round"] for e in run.of("round_committed", tier="cloud")]
    assert rounds == list(range(1, ROUNDS + 1)), "cloud rounds %s" % rounds
    assert all(e["contributions"] == 2 for e in run.of("round_committed")), "a round closed early"
    db = sqlite3.connect(os.path.join(run.events[0]["dir"], "run.db"))
    counted = db.execute("SELECT count(*) FROM contributions").fetchone()[0]
    db.close()
    assert counted == ROUNDS * 2 + ROUNDS * 2 * 2 * 2, "%d contributions on record" % counted
    assert run.model_digest() == want, "the model is another one"


def one(place, kind, seed, want, length):
    shutil.rmtree(place.runs, ignore_errors=True)
    label = "%s --seed %d --kind %s" % ("%s", seed, kind.__name__)
    try:
        run, seconds = disturb(place, kind, seed, length)
        check(run, want)
        limit = length + (FROZEN if kind in RARELY else STALL)
        assert seconds < limit, "it took %.1f s; undisturbed it takes %.1f s" % (seconds, length)
    except Exception as e:  # the next seed may tell more
        kept = os.path.join(place.folder, "failed-%d-%s" % (seed, kind.__name__))
        shutil.move(place.runs, kept)
        print(label % "FAIL", "\n     %s\n     kept in %s" % (e, kept), flush=True)
        return False
    died = [e["name"] for e in run.of("agent_died")]
    print(label % "ok  ", " %.1f s  %s" % (seconds, " ".join(died)), flush=True)
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--kind")
    args = parser.parse_args()
    place = Place()
    place.chaos = place.topology(tree("parameters: 3000, delay_ms: 40", rounds=ROUNDS))
    start = time.monotonic()
    calm = up(place, place.chaos)
    length = time.monotonic() - start
    want = calm.model_digest()
    check(calm, want)
    print("undisturbed: %.1f s" % length, flush=True)
    kinds = [k for k in OFTEN + RARELY if args.kind in (None, k.__name__)]
    seed = random.SystemRandom().randrange(1, 10**6) if args.seed is None else args.seed
    passed = failed = 0
    end = time.monotonic() + args.seconds
    rng = random.Random(seed)
    while True:
        # what is slow comes first, and once; then the others at random
        kind = kinds[-1 - passed - failed] if passed + failed < len(RARELY) else rng.choice(kinds)
        while kind in RARELY and len(kinds) > 1 and passed + failed >= len(RARELY):
            kind = rng.choice(kinds)
        if one(place, kind, seed, want, length):
            passed += 1
        else:
            failed += 1
        if args.seed is not None and args.kind or time.monotonic() > end:
            break
        seed += 1
    print("%d passed, %d failed" % (passed, failed))
    if not failed:
        shutil.rmtree(place.folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
