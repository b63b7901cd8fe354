# SPDX-License-Identifier: Apache-2.0
"""tiered up --resume: a run outlives its orchestrator, and an interruption."""
import contextlib
import json
import os
import signal
import subprocess
import time

from up import leftovers, main, tree, up

TRAINER = "parameters: 2000, delay_ms: 20"


def started(place, topology):
    return subprocess.Popen(place.command(topology), stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True)


def events_until(process, event, **fields):
    """Read the process's events up to the first such one."""
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == event and all(events[-1].get(k) == v for k, v in fields.items()):
            return events
    raise AssertionError("no %s %s among %s" % (event, fields, events))


def kill_orchestrator(place, topology, event, **fields):
    process = started(place, topology)
    events = events_until(process, event, **fields)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return events


def kill_in_time(place, topology, n_agents, event, **fields):
    """The last round's event is soon followed by the end of all agents: on a busy machine the
    kill may come after that, and is tried again with another run."""
    for _ in range(5):
        before = kill_orchestrator(place, topology, event, **fields)
        if len(leftovers(place)) == n_agents:
            return before
    assert fields.get("path") == "4", "the agents should go on"
    print("skip a kill after the last round: it always came after the end of the agents")
    return None


def an_orchestrator_that_was_killed_is_replaced(place):
    topology = place.topology(tree(TRAINER, rounds=4))
    want = up(place, topology).model_digest()
    moments = (("run_started", {}), ("run_ready", {}),
               ("round_committed", {"path": "1.1"}), ("round_committed", {"path": "2"}),
               ("round_committed", {"path": "4.2"}), ("round_committed", {"path": "4"}))
    for event, fields in moments:
        before = kill_in_time(place, topology, 7, event, **fields)
        if not before:
            continue
        run = up(place, topology, "--resume")
        assert run.code == 0, run.stderr
        assert run.events[0]["run"] == before[0]["run"] and run.events[0]["resumed"] is True
        pids = [{a["name"]: a["pid"] for a in e["agents"]} for e in (before[0], run.events[0])]
        assert pids[0] == pids[1], "living agents are adopted"
        assert run.end["status"] == "finished" and run.end["rounds"] == 4, run.end
        assert "accuracy" in run.end["metrics"], run.end
        assert run.model_digest() == want, (event, fields)
        told = [e["round"] for e in before + run.events
                if e["event"] == "round_committed" and e["tier"] == "cloud"]
        assert told == sorted(set(told)), told


def everything_may_be_killed_at_once(place):
    topology = place.topology(tree(TRAINER, rounds=4))
    want = up(place, topology).model_digest()
    for path in "1.2", "3":
        kill_orchestrator(place, topology, "round_committed", path=path)
        for pid in leftovers(place):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        run = up(place, topology, "--resume")
        assert run.code == 0, run.stderr
        assert run.end["rounds"] == 4 and run.model_digest() == want


def an_interrupted_run_goes_on(place):
    topology = place.topology(tree(TRAINER, rounds=4))
    want = up(place, topology).model_digest()
    process = started(place, topology)
    events_until(process, "round_committed", path="2")
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait() == 130
    assert not leftovers(place)
    run = up(place, topology, "--resume")
    assert run.code == 0, run.stderr
    assert run.end["rounds"] == 4 and run.model_digest() == want


def agents_without_an_orchestrator_go_on_with_their_rounds(place):
    topology = place.topology(tree(TRAINER, rounds=6))
    kill_orchestrator(place, topology, "round_committed", path="1")
    log = os.path.join(place.runs, os.listdir(place.runs)[0], "logs", "cloud-0.log")
    deadline = time.monotonic() + 30
    while "round=4" not in open(log).read():
        assert time.monotonic() < deadline, "the tree stood still"
        time.sleep(0.05)
    run = up(place, topology, "--resume")
    assert run.code == 0 and run.end["rounds"] == 6
    rounds = [e["round"] for e in run.of("round_committed", tier="cloud")]
    assert 4 in rounds, "what happened meanwhile is told later: %s" % rounds


def resume(place, topology, *more):
    out = subprocess.run(place.command(topology, "--resume", *more), capture_output=True, text=True,
                         timeout=60)
    return out.returncode, out.stderr


def what_cannot_be_resumed_is_told(place):
    topology = place.topology(tree(TRAINER, rounds=2))
    code, text = resume(place, topology)
    assert code == 1 and "there is no unfinished run of 'test'" in text, text
    assert up(place, topology).code == 0
    code, text = resume(place, topology)
    assert code == 1 and "there is no unfinished run of 'test'" in text, text

    process = started(place, topology)
    events_until(process, "run_started")
    code, text = resume(place, topology)
    assert code == 1 and "another 'tiered up' runs in" in text, text
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    process.wait()
    code, text = resume(place, topology, "--set", "run.rounds=9")
    assert code == 1 and "began with another topology or other flags" in text, text
    assert resume(place, topology)[0] == 0


main([
    an_orchestrator_that_was_killed_is_replaced,
    everything_may_be_killed_at_once,
    an_interrupted_run_goes_on,
    agents_without_an_orchestrator_go_on_with_their_rounds,
    what_cannot_be_resumed_is_told,
])
