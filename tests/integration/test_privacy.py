# SPDX-License-Identifier: Apache-2.0
"""Noise in real runs: the ledger counts what left a node, survives kills, and keeps a budget."""
import contextlib
import json
import os
import signal
import sqlite3
import subprocess

from up import BIN, living_pid, main, read_safetensors, up

TRAINER = "parameters: 3000"


def topology(place, rounds=4, aggregate="fedavg", rules="", up_link="", fog="", fog_up="",
             run=""):
    return place.topology("""
tiered: 1
name: test
run: {rounds: %d, seed: 11%s}
tiers:
  - name: cloud
    aggregate: [%s]
    rounds: {%s}
  - name: fog
    fan_out: 2
    aggregate: [%s]
    rounds: {per_parent_round: 2}
    uplink: [%s]
  - name: edge
    fan_out: 2
    trainer: {test-trainer: {%s}}
    uplink: [%s]
""" % (rounds, run, aggregate, rules, fog or "fedavg", fog_up, TRAINER, up_link))


MEAN = "{fedavg: {weighted_by: uniform}}"
CLIP = "{clip: {norm: 1.0}}"


def gaussian(z, more=""):
    return "{gaussian: {noise_multiplier: %g%s}}" % (z, more)


def tiered(place, *arguments):
    out = subprocess.run([os.path.join(BIN, "tiered"), *arguments], capture_output=True, text=True,
                         env=dict(os.environ, TIERED_PLUGINS=place.plugins))
    assert out.returncode == 0, out.stderr
    return out.stdout


def plan(place, path):
    return json.loads(tiered(place, "plan", "--json", path))


def line(lines, tier, noise):
    found = [x for x in lines if x["tier"] == tier and x["noise"] == noise]
    assert len(found) == 1, lines
    return found[0]


def spent_rows(run):
    db = sqlite3.connect(os.path.join(run.events[0]["dir"], "run.db"))
    rows = db.execute("SELECT node, noise, steps, epsilon FROM privacy").fetchall()
    db.close()
    return {(node, noise): (steps, round(epsilon, 9)) for node, noise, steps, epsilon in rows}


def each_kind_of_noise_is_counted(place):
    path = topology(place, up_link=CLIP + ", " + gaussian(4), fog_up=CLIP,
                    aggregate=MEAN + ", " + gaussian(2, ", delta: 1e-3"))
    promised = plan(place, path)["privacy"]
    run = up(place, path)
    assert run.code == 0, run.stderr
    spent = run.end["privacy"]
    assert spent == promised, (spent, promised)
    local, central = line(spent, "edge", "local"), line(spent, "cloud", "central")
    assert local["steps"] == 8 and central["steps"] == 4  # two rounds of a fog in each
    assert central["delta"] == 1e-3 and local["delta"] == 1e-5
    rows = spent_rows(run)
    assert len(rows) == 5 and rows["edge-1-1", "local"] == (8, round(local["epsilon"], 9)), rows
    assert rows["cloud-0", "central"] == (4, round(central["epsilon"], 9))
    told = [e["epsilon"] for e in run.of("round_committed", tier="cloud")]
    assert told == sorted(told) and told[-1] == central["epsilon"], told
    status = json.loads(tiered(place, "status", "--json", "--runs", place.runs))
    assert line(status["privacy"], "edge", "local") == local
    text = tiered(place, "status", "--runs", place.runs)
    assert "privacy: cloud, central noise: epsilon %.4g at delta 0.001" % central["epsilon"] in text
    assert "q = 1" not in text


def noise_is_another_each_time(place):
    path = topology(place, rounds=1, up_link=CLIP + ", " + gaussian(1))
    assert up(place, path).model_digest() != up(place, path).model_digest()
    seeded = topology(place, rounds=2, up_link=CLIP + ", " + gaussian(1, ", insecure_seed: 5"),
                      fog_up=CLIP, aggregate=MEAN + ", " + gaussian(1, ", insecure_seed: 6"))
    first = up(place, seeded)
    assert first.model_digest() == up(place, seeded).model_digest()
    assert "protects nobody" in first.stderr and "protects nobody" in first.logs()


def a_clip_bounds_what_arrives(place):
    """One leaf a fog, one round: the model moves by no more than the norm."""
    path = topology(place, rounds=1, up_link="{clip: {norm: 0.001}}", aggregate=MEAN)
    run = up(place, path, "--set", "tiers.fog.rounds.per_parent_round=1")
    folder = run.events[0]["dir"]
    _, before = read_safetensors(os.path.join(folder, "initial.safetensors"))
    header, after = read_safetensors(run.end["model"])
    import array
    squares = 0.0
    for name, data in after.items():
        if header[name]["dtype"] == "F32":
            a, b = array.array("f", data), array.array("f", before[name])
            squares += sum((x - y) ** 2 for x, y in zip(a, b))
    assert 0 < squares ** 0.5 <= 0.001 * 1.01, squares ** 0.5


def killing(agents):
    """Kill the next of `agents` at each commit of a fog or the cloud."""
    left = list(agents)

    def on_event(process, event):
        if event["event"] == "round_committed" and left:
            pid = event["place"] and living_pid(event["place"], left.pop(0))
            if pid:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
    return on_event


def kills_cost_no_epsilon(place):
    """What was in the outbox is sent again as it is: the same count as without a crash."""
    path = topology(place, rounds=5, up_link=CLIP + ", " + gaussian(4), fog_up=CLIP,
                    aggregate=MEAN + ", " + gaussian(2))
    kill = killing(["edge-0-0", "fog-1", "cloud-0", "edge-1-1", "fog-0", "edge-0-0"])
    run = up(place, path, on_event=lambda p, e: kill(p, dict(e, place=place)))
    assert run.code == 0, run.stderr
    assert run.of("agent_died"), "nothing was killed"
    rows = spent_rows(run)
    assert {rows["edge-%d-%d" % (i, k), "local"][0] for i in (0, 1) for k in (0, 1)} == {10}, rows
    assert rows["cloud-0", "central"][0] == 5
    assert run.end["privacy"] == plan(place, path)["privacy"]


ADAPTIVE = "{clip: {adaptive: {initial: 0.01, quantile: 0.6}}}"
HASTY = "{clip: {adaptive: {initial: 0.01, lr: 5}}}"


def bounds(run):
    return {(e["node"], e["path"]): e["clip_norm"] for e in run.of("round_committed")
            if "clip_norm" in e}


def a_bound_follows_the_norms(place):
    """Each parent moves its own, and a kill of whoever has it, or obeys it, changes nothing."""
    path = topology(place, rounds=5, up_link=HASTY, fog_up=ADAPTIVE)
    calm = up(place, path)
    assert calm.code == 0, calm.stderr
    told = bounds(calm)
    assert len(told) == 5 + 2 * 10, told
    # everyone is above the first: by exp(lr * quantile), of the default 0.2 and of 5
    assert abs(told["cloud-0", "1"] / 0.01 - 2.718281828 ** 0.12) < 1e-6, told
    assert abs(told["fog-0", "1.1"] / 0.01 - 2.718281828 ** 2.5) < 1e-6, told
    fog = [told["fog-0", "%d.%d" % (i, k)] for i in range(1, 6) for k in (1, 2)]
    assert fog != sorted(fog), fog  # and back down, once they are told one above their norms
    kill = killing(["edge-0-0", "fog-1", "cloud-0", "edge-1-1", "fog-0", "edge-0-0"])
    run = up(place, path, on_event=lambda p, e: kill(p, dict(e, place=place)))
    assert run.code == 0 and run.of("agent_died"), run.stderr
    assert bounds(run) == told
    assert run.model_digest() == calm.model_digest()


def noise_follows_an_adaptive_bound(place):
    path = topology(place, rounds=4, up_link=CLIP, fog_up=ADAPTIVE,
                    aggregate=MEAN + ", " + gaussian(0.15))
    promised = plan(place, path)["privacy"]
    run = up(place, path)
    assert run.code == 0, run.stderr
    assert run.end["privacy"] == promised and promised[0]["epsilon"] > 0
    told = bounds(run)
    assert len(set(told.values())) == 4, told  # the share is noisy
    out = subprocess.run([os.path.join(BIN, "tiered"), "validate",
                          topology(place, fog_up=ADAPTIVE, aggregate=MEAN + ", " + gaussian(0.2))],
                         capture_output=True, text=True,
                         env=dict(os.environ, TIERED_PLUGINS=place.plugins))
    assert out.returncode == 1 and "needs more than 2 children asked a round" in out.stderr


def the_ledger_outlives_the_orchestrator(place):
    path = topology(place, rounds=6, up_link=CLIP + ", " + gaussian(4), fog_up=CLIP,
                    aggregate=MEAN + ", " + gaussian(2))
    process = subprocess.Popen(place.command(path), stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    for text in process.stdout:
        event = json.loads(text)
        if event["event"] == "round_committed" and event["path"] == "2":
            break
    process.kill()
    process.wait()
    process.stdout.close()
    run = up(place, path, "--resume")
    assert run.code == 0, run.stderr
    assert run.end["privacy"] == plan(place, path)["privacy"], run.end["privacy"]


def a_budget_is_kept(place):
    path = topology(place, rounds=50, fog_up=CLIP, aggregate=MEAN + ", " + gaussian(5),
                    run=", stop_when: {epsilon: 2.5}")
    promised = plan(place, path)
    rounds = promised["rounds_within_budget"]
    assert 1 < rounds < 50 and promised["rounds"] == 50
    run = up(place, path)
    assert run.code == 0 and run.end["status"] == "finished"
    assert run.end["rounds"] == rounds and run.end["stopped_by"] == "epsilon"
    spent = line(run.end["privacy"], "cloud", "central")
    assert spent["steps"] == rounds and spent["epsilon"] <= 2.5
    more = plan(place, topology(place, rounds=rounds + 1, fog_up=CLIP,
                                aggregate=MEAN + ", " + gaussian(5)))
    assert line(more["privacy"], "cloud", "central")["epsilon"] > 2.5
    out = subprocess.run(place.command(path, json_lines=False), capture_output=True, text=True)
    assert "privacy: of 50 rounds one more than %d would exceed epsilon 2.5" % rounds in out.stdout


def a_round_may_ask_nobody(place):
    """Without noise it has no result and the run goes on; with noise it has the noise alone."""
    path = topology(place, rounds=12, rules="sample: {poisson: 20%}")
    run = up(place, path)
    assert run.code == 0 and run.end["rounds"] == 12, run.stderr
    counts = [e["contributions"] for e in run.of("round_committed", tier="cloud")]
    models = [e["model"] for e in run.of("round_committed", tier="cloud")]
    assert 0 in counts and max(counts) >= 1, counts
    for i in range(1, len(counts)):
        assert (models[i] == models[i - 1]) == (counts[i] == 0), (counts, models)

    path = topology(place, rounds=12, rules="sample: {poisson: 20%}", fog_up=CLIP,
                    aggregate=MEAN + ", " + gaussian(1))
    run = up(place, path)
    assert [e["contributions"] for e in run.of("round_committed", tier="cloud")] == counts
    assert len({e["model"] for e in run.of("round_committed", tier="cloud")}) == 12
    spent = line(run.end["privacy"], "cloud", "central")
    assert spent["q"] == 0.2 and spent["steps"] == 12
    half = plan(place, topology(place, rounds=12, rules="sample: 50%", fog_up=CLIP,
                                aggregate=MEAN + ", " + gaussian(1)))["privacy"][0]
    assert half["q"] == 1 and "not Poisson" in half["note"]
    assert half["epsilon"] > spent["epsilon"]


main([
    each_kind_of_noise_is_counted,
    noise_is_another_each_time,
    a_clip_bounds_what_arrives,
    kills_cost_no_epsilon,
    a_bound_follows_the_norms,
    noise_follows_an_adaptive_bound,
    the_ledger_outlives_the_orchestrator,
    a_budget_is_kept,
    a_round_may_ask_nobody,
])
