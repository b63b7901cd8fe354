# SPDX-License-Identifier: Apache-2.0
"""secure-sum in real runs: the same model as fedavg's, members and aggregators that die,
groups that are too small."""
import json
import os
import re
import signal
import sqlite3
import struct
import subprocess
import threading
import time
import urllib.request

from up import BIN, TEST_PLUGINS, living_pid, main, read_safetensors, up

TOPOLOGY = """
tiered: 1
name: secure
run: {rounds: %(rounds)d, seed: 11, evaluate: {every: 1}%(run)s}
tiers:
  - name: cloud
    aggregate: [%(aggregate)s]
    rounds: {quorum: %(quorum)s%(more)s}
  - name: leaf
    fan_out: 6
    trainer: {test-trainer: {parameters: 30001, delay_ms: %(delay)d}}
    uplink: [%(uplink)s]
nodes: {leaf-2: {trainer: {test-trainer: {parameters: 30001, delay_ms: %(delay)d, num_examples: 40}}}%(nodes)s}
"""


def topology(place, **more):
    keys = {"rounds": 3, "aggregate": "fedavg", "quorum": "100%", "delay": 0,
            "uplink": "secure-sum", "nodes": "", "more": "", "run": ""}
    keys.update(more)
    return place.topology(TOPOLOGY % keys)


def floats(run):
    _, tensors = read_safetensors(run.end["model"])
    return struct.unpack("<%df" % (len(tensors["w"]) // 4), tensors["w"])


def distance(a, b):
    return max(abs(x - y) for x, y in zip(floats(a), floats(b)))


def the_model_is_that_of_fedavg(place):
    plain = up(place, topology(place, uplink=""))
    # with weights up to 1000 and 32 bits the step is 2^-15 of a value of weight 1; six of
    # them over a weight of 90, three times, and the steps train on what came before
    for uplink, most in (("secure-sum", 1e-5), ("{secure-sum: {bits: 64}}", 1e-6),
                         ("{secure-sum: {neighbours: 4, max_weight: 100}}", 1e-5)):
        run = up(place, topology(place, uplink=uplink))
        assert run.code == 0, run.stderr
        assert distance(run, plain) < most, distance(run, plain)
        for e in run.of("round_committed"):
            assert e["contributions"] == 6 and e["num_examples"] == 5 * 10 + 40, e
        assert [e["metrics"]["accuracy"] for e in run.of("round_committed")]


def uniform_counts_every_update_once(place):
    plain = up(place, topology(place, uplink="", aggregate="{fedavg: {weighted_by: uniform}}"))
    run = up(place, topology(place, aggregate="{fedavg: {weighted_by: uniform}}"))
    assert distance(run, plain) < 5e-4, distance(run, plain)
    assert run.of("round_committed")[0]["num_examples"] == 90


def optimizers_take_the_mean(place):
    chain = "fedavg, {fedadam: {lr: 0.01}}"
    plain = up(place, topology(place, uplink="", aggregate=chain))
    run = up(place, topology(place, aggregate=chain, uplink="{secure-sum: {bits: 64}}"))
    assert distance(run, plain) < 1e-4, distance(run, plain)


def filters_before_it_come_first(place):
    os.symlink(os.path.join(TEST_PLUGINS, "test-halve.so"),
               os.path.join(place.plugins, "test-halve.so"))
    plain = up(place, topology(place, uplink="test-halve"))
    whole = up(place, topology(place, uplink=""))
    run = up(place, topology(place, uplink="test-halve, secure-sum"))
    assert run.code == 0, run.stderr
    assert distance(run, plain) < 1e-5 < distance(run, whole), distance(run, plain)


STEP = re.compile(r"(pre|post) phase, step \d of \d: [0-5] of 6 messages; waits for .*leaf-3")


def an_adaptive_bound_rides_inside(place):
    """Who was clipped is summed like the rest: the bound goes as it does without a group."""
    rule = "{fedavg: {weighted_by: uniform}}"
    adaptive = "{clip: {adaptive: {initial: %g}}}"
    for initial in (0.01, 5):
        clip = adaptive % initial
        plain = up(place, topology(place, uplink=clip, aggregate=rule, rounds=6))
        run = up(place, topology(place, uplink=clip + ", secure-sum", aggregate=rule, rounds=6))
        assert plain.code == run.code == 0, run.stderr
        told = [[e["clip_norm"] for e in r.of("round_committed")] for r in (plain, run)]
        assert told[0] == told[1] and len(set(told[0])) == 6, told
        assert distance(plain, run) < 1e-3


def noise_before_it_is_counted(place):
    run = up(place, topology(place, uplink="{clip: {norm: 1.0}}, {gaussian: "
                                           "{noise_multiplier: 0.001}}, secure-sum"))
    assert run.code == 0, run.stderr
    rounds = run.of("round_committed")
    assert len(rounds) == 3, rounds
    spent = [(line["tier"], line["noise"], line["steps"]) for line in run.end["privacy"]]
    assert spent == [("leaf", "local", 3)], run.end
    for e in rounds:
        # six updates of 30001 floats, as they are up to the group: then as many words of 32
        # bits, and a tail of 16 bytes
        raw = 6 * 4 * 30001
        assert e["raw_up"] == raw, e
        assert e["filters_up"] == [{"name": "clip", "bytes": raw},
                                   {"name": "gaussian", "bytes": raw},
                                   {"name": "secure-sum", "bytes": raw + 6 * 16}], e


def tiered(place, *arguments):
    out = subprocess.run([os.path.join(BIN, "tiered"), *arguments], capture_output=True, text=True,
                         env=dict(os.environ, TIERED_PLUGINS=place.plugins))
    assert out.returncode == 0, out.stderr
    return out.stdout


ONCE = "{fedavg: {weighted_by: uniform}}"
SHARES = ("{clip: {norm: 1.0}}, {gaussian: {noise_multiplier: %g}}, "
          "{secure-sum: {clip_range: 12, max_weight: 1}}")


def spent_rows(run):
    db = sqlite3.connect(os.path.join(run.events[0]["dir"], "run.db"))
    rows = db.execute("SELECT node, noise, steps, noise_multiplier FROM privacy").fetchall()
    db.close()
    return {node: (noise, steps, multiplier) for node, noise, steps, multiplier in rows}


def noise_of_all_is_counted(place):
    """Four of six must last, so a sum has twice the noise of one: 1.0 of 0.5 each."""
    path = topology(place, rounds=30, aggregate=ONCE, uplink=SHARES % 0.5,
                    run=", stop_when: {epsilon: 15}")
    promised = json.loads(tiered(place, "plan", "--json", path))
    rounds = promised["rounds_within_budget"]
    assert 1 < rounds < 30, promised
    metrics = []

    def on_event(process, event):
        if event["event"] == "run_started":
            metrics.append(event["http"] + "metrics")
        if event["event"] == "round_committed" and event["round"] == 2:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(metrics[0], timeout=10) as page:
                metrics.append(page.read().decode())

    run = up(place, path, on_event=on_event)
    assert run.code == 0, run.stderr
    assert run.end["rounds"] == rounds and run.end["stopped_by"] == "epsilon", run.end
    line, = run.end["privacy"]
    assert (line["tier"], line["noise"], line["steps"]) == ("leaf", "distributed", rounds), line
    assert line["noise_multiplier"] == 1.0 and line["q"] == 1 and line["epsilon"] <= 15, line
    assert line["note"] == "of 4 members at least, 0.5 each", line
    assert run.end["privacy"] == promised["privacy"]
    # the same as noise of 1.0 that stands by itself
    for more in (0, 1):
        alone = json.loads(tiered(place, "plan", "--json", topology(
            place, rounds=rounds + more, uplink="{clip: {norm: 1.0}}, {gaussian: "
                                                "{noise_multiplier: 1.0}}")))["privacy"][0]
        assert alone["noise"] == "local"
        assert (alone["epsilon"] > 15) == bool(more), alone
        assert more or alone["epsilon"] == line["epsilon"], (alone, line)
    assert re.search(r'^tiered_privacy_epsilon\{tier="leaf",noise="distributed",line="0"\} [1-9]',
                     metrics[1], re.M), metrics
    assert spent_rows(run) == {"leaf-%d" % i: ("distributed", rounds, 1.0) for i in range(6)}
    status = json.loads(tiered(place, "status", "--json", "--runs", place.runs))["privacy"]
    assert status == [dict(line, note="")], status
    text = tiered(place, "plan", path)
    assert re.search(r"privacy: leaf, distributed noise: epsilon [0-9.]+ at delta 1e-05 after %d "
                     r"contributions of a node; noise multiplier 1 \(of 4 members at least, 0.5 "
                     r"each\)" % rounds, text), text


def a_parent_adds_noise_to_the_sum(place):
    """The same noise as on the mean of single updates, but for what the ring rounds."""
    noise = ONCE + ", {gaussian: {noise_multiplier: %s, insecure_seed: 4}}"
    clip = "{clip: {norm: 1.0}}"
    fine = clip + ", {secure-sum: {max_weight: 1}}"
    plain = up(place, topology(place, aggregate=noise % 0.001, uplink=clip))
    run = up(place, topology(place, aggregate=noise % 0.001, uplink=fine))
    assert run.code == 0, run.stderr
    assert distance(run, plain) < 1e-5, distance(run, plain)
    spent, = run.end["privacy"]
    assert spent == plain.end["privacy"][0], (spent, plain.end)
    assert (spent["tier"], spent["noise"], spent["steps"]) == ("cloud", "central", 3), spent
    assert spent_rows(run) == {"cloud-0": ("central", 3, 0.001)}
    # with noise of 100 the rounding is seen: sqrt(30001) steps of 2^-10 make 1.17 of a norm of 1
    for coarse, low, high in (("max_weight: 30000", 1.16, 1.18), ("max_weight: 1", 0.99, 1.01)):
        a = up(place, topology(place, rounds=1, aggregate=noise % 100, uplink=clip))
        b = up(place, topology(place, rounds=1, aggregate=noise % 100,
                               uplink=clip + ", {secure-sum: {%s}}" % coarse))
        ratio = (sum(x * x for x in floats(b)) / sum(x * x for x in floats(a))) ** 0.5
        assert low < ratio < high, ratio
        told = "makes the noise 1.17 times as large" in b.logs()
        assert told == (high > 1.1), b.logs()


def noise_that_does_not_add_up_is_counted_alone(place):
    path = topology(place, rounds=2, uplink=SHARES % 0.5)
    run = up(place, path)
    line, = run.end["privacy"]
    assert line["noise"] == "local" and line["noise_multiplier"] == 0.5, line
    assert line["note"].endswith("give it weighted_by: uniform"), line
    assert "'gaussian' counts as if 'secure-sum' hid no update" in run.stderr, run.stderr


def noise_is_counted_whatever_dies(place):
    """A round is a step, whoever dies in it and however often it begins anew."""
    killed = []

    def on_event(process, event):
        if event["event"] == "round_committed" and event["round"] in (1, 2, 4):
            kill(place, "cloud-0" if event["round"] == 2 else "leaf-4", process, killed)

    run = up(place, topology(place, rounds=6, delay=50, aggregate=ONCE, uplink=SHARES % 0.5),
             on_event=on_event)
    assert run.code == 0, run.stderr
    assert killed
    told = len([e for e in run.of("round_committed") if e["contributions"] == 6])
    rows = spent_rows(run)
    assert set(rows) == {"leaf-%d" % i for i in range(6)}, rows
    assert all(noise == "distributed" and told <= steps <= 6
               for noise, steps, _ in rows.values()), (rows, told)
    line, = run.end["privacy"]
    assert line["steps"] == max(steps for _, steps, _ in rows.values()), (line, rows)


def what_an_older_attempt_makes_is_void(place):
    """Updates that are still being filtered when their round begins anew use up no masks."""
    def killing(victim):
        killed = []

        def on_event(process, event):
            if event["event"] == "round_committed" and event["node"] == "cloud-0":
                threading.Timer(0.15, kill, (place, victim, process, killed)).start()
        return on_event, killed

    os.symlink(os.path.join(TEST_PLUGINS, "test-slow.so"),
               os.path.join(place.plugins, "test-slow.so"))
    on_event, killed = killing("leaf-4")
    run = up(place, topology(place, rounds=5, aggregate=ONCE,
                             uplink="test-slow, " + SHARES % 0.5), on_event=on_event)
    assert run.code == 0 and killed, run.stderr
    assert [e["contributions"] for e in run.of("round_committed")] == [6] * 5
    rows = spent_rows(run)
    assert {steps for _, steps, _ in rows.values()} == {5}, rows

    on_event, killed = killing("fog-2")
    run = up(place, place.topology("""
tiered: 1
name: secure
run: {rounds: 5, seed: 11}
tiers:
  - {name: cloud, aggregate: [fedavg]}
  - {name: fog, fan_out: 4, aggregate: [fedavg], uplink: [test-slow, secure-sum]}
  - {name: edge, fan_out: 1, trainer: {test-trainer: {parameters: 3001}}}
"""), on_event=on_event)
    assert run.code == 0 and killed, run.stderr
    assert [e["contributions"] for e in run.of("round_committed", tier="cloud")] == [4] * 5


def why_names_the_step(place):
    """A leaf is frozen at some moment of each round, until that is one of a phase."""
    said = [""]

    def on_event(process, event):
        pid = event["event"] == "round_committed" and living_pid(place, "leaf-3")
        if not pid or STEP.search(said[-1]):
            return
        os.kill(pid, signal.SIGSTOP)
        limit = time.time() + 2
        while time.time() < limit and not STEP.search(said[-1]):
            out = subprocess.run([os.path.join(BIN, "tiered"), "why", "--runs", place.runs],
                                 text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said.append(out.stdout)
        os.kill(pid, signal.SIGCONT)

    run = up(place, topology(place, rounds=15), on_event=on_event)
    assert run.code == 0, run.stderr
    assert STEP.search(said[-1]), said


def the_same_seed_gives_the_same_bits(place):
    digests = {up(place, topology(place)).model_digest() for _ in range(2)}
    assert len(digests) == 1


def the_sampled_are_the_group(place):
    run = up(place, topology(place, rounds=5, more=", sample: 67%"))
    assert run.code == 0, run.stderr
    for e in run.of("round_committed"):
        assert e["contributions"] == 4 and e["num_examples"] in (40, 70), e


def a_step_has_the_deadline_of_the_round(place):
    """A leaf that is frozen misses a step, and the round goes on at its quorum."""
    frozen = []

    def on_event(process, event):
        if event["event"] == "round_committed" and event["round"] == 1:
            frozen.append(living_pid(place, "leaf-3"))
            os.kill(frozen[0], signal.SIGSTOP)
            threading.Timer(3, os.kill, (frozen[0], signal.SIGCONT)).start()

    run = up(place, topology(place, rounds=3, quorum="80%", more=", deadline: 1s"),
             on_event=on_event)
    assert run.code == 0, run.stderr
    # frozen after its update it is a dropout, whose update counts
    assert run.of("round_committed", round=2)[0]["contributions"] in (5, 6)
    assert re.search("leaf-3 missed step|closes without leaf-3", run.logs())


def no_child_tells_its_examples(place):
    run = up(place, topology(place))
    for e in run.of("contributions"):
        assert [c["num_examples"] for c in e["counted"]] == [0] * 6, e


def groups_at_two_tiers(place):
    run = up(place, place.topology("""
tiered: 1
name: secure
run: {rounds: 2, seed: 3}
tiers:
  - {name: cloud, aggregate: [fedavg]}
  - {name: fog, fan_out: 3, aggregate: [fedavg], uplink: [secure-sum], rounds: {per_parent_round: 2}}
  - {name: leaf, fan_out: 3, trainer: {test-trainer: {parameters: 500}}, uplink: [secure-sum]}
"""))
    assert run.code == 0, run.stderr
    assert [e["num_examples"] for e in run.of("round_committed", tier="cloud")] == [180, 180]
    assert len(run.of("round_committed", tier="fog")) == 3 * 2 * 2


def wait_for_training(run_dir, number):
    """Until the members of that round train; the run must log at level debug."""
    log, limit = os.path.join(run_dir, "logs", "cloud-0.log"), time.monotonic() + 10
    line = "round=%d: the members have keys, and train" % number
    while line not in open(log).read():
        assert time.monotonic() < limit, "round %d does not train" % number
        time.sleep(0.005)


def kill(place, victim, process, killed):
    pid = living_pid(place, victim)
    if pid:
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


def a_killed_leaf_is_a_dropout(place):
    killed = []

    def on_event(process, event):
        if event["event"] == "round_committed" and event["round"] in (1, 3):
            kill(place, "leaf-4", process, killed)  # the next round is about to open

    run = up(place, topology(place, rounds=6, quorum="60%", delay=150), on_event=on_event)
    assert run.code == 0, run.stderr
    assert killed
    rounds = run.of("round_committed")
    assert len(rounds) == 6
    for e in rounds:  # leaf-2 has 40 examples; at 60 % a round may go without anybody
        assert e["contributions"] >= 4, e
        assert e["num_examples"] in (10 * e["contributions"], 10 * e["contributions"] + 30), e


def at_full_quorum_a_killed_leaf_is_waited_for(place):
    """It has lost its keys, so the round begins anew with it: nothing was revealed yet."""
    started, killed = [], []

    def on_event(process, event):
        if event["event"] == "run_started":
            started.append(event["dir"])
        if event["event"] == "round_committed" and event["round"] in (1, 3):
            wait_for_training(started[0], event["round"] + 1)
            kill(place, "leaf-4", process, killed)

    run = up(place, topology(place, rounds=5, delay=300), "--log-level", "debug",
             on_event=on_event)
    assert run.code == 0, run.stderr
    assert killed
    assert [(e["contributions"], e["num_examples"]) for e in run.of("round_committed")] == [
        (6, 90)] * 5, run.of("round_committed")
    assert "begins anew" in run.logs()


def state_file(run_dir, node, name):
    return os.path.join(run_dir, "agents", node, node, name + "-" + os.path.basename(run_dir))


def a_round_whose_shares_were_told_is_not_repeated(place):
    """As an aggregator finds it that died after it asked for shares."""
    started, done = [], []

    def on_event(process, event):
        if event["event"] == "run_started":
            started.append(event["dir"])
        if event["event"] == "round_committed" and event["round"] == 1 and not done:
            wait_for_training(started[0], 2)
            pid = living_pid(place, "cloud-0")
            os.kill(pid, signal.SIGSTOP)
            with open(state_file(started[0], "cloud-0", "summed"), "w") as f:
                f.write("2")
            os.kill(pid, signal.SIGKILL)
            done.append(pid)

    run = up(place, topology(place, rounds=4, delay=400), "--log-level", "debug",
             on_event=on_event)
    assert run.code == 0, run.stderr
    assert done
    assert [e["contributions"] for e in run.of("round_committed")] == [6, 0, 6, 6]
    assert "it cannot be repeated" in run.logs()


def a_member_joins_no_second_attempt(place):
    """As a leaf finds it that died after it revealed its shares."""
    started, done = [], []

    def on_event(process, event):
        if event["event"] == "run_started":
            started.append(event["dir"])
        if event["event"] == "round_committed" and event["round"] == 1 and not done:
            wait_for_training(started[0], 2)
            pid = living_pid(place, "leaf-5")
            os.kill(pid, signal.SIGSTOP)
            with open(state_file(started[0], "leaf-5", "revealed"), "w") as f:
                f.write("2")
            os.kill(pid, signal.SIGKILL)
            kill(place, "cloud-0", process, done)  # and begins round 2 anew

    run = up(place, topology(place, rounds=4, quorum="60%", delay=400), "--log-level",
             "debug", on_event=on_event)
    assert run.code == 0, run.stderr
    assert done
    rounds = {e["round"]: e["contributions"] for e in run.of("round_committed")}
    assert set(rounds) == {1, 2, 3, 4} and rounds[2] <= 5, rounds


def a_killed_aggregator_goes_on(place):
    """Before shares are told the round is repeated; after, it is left without a result."""
    killed = []

    def on_event(process, event):
        if event["event"] == "round_committed" and event["round"] in (1, 2, 4):
            kill(place, "cloud-0", process, killed)

    run = up(place, topology(place, rounds=6, delay=20), on_event=on_event)
    assert run.code == 0, run.stderr
    assert killed
    rounds = run.of("round_committed")
    assert [e["round"] for e in rounds] == [1, 2, 3, 4, 5, 6], rounds
    for e in rounds:
        assert e["contributions"] in (0, 6), e
        assert e["num_examples"] == (90 if e["contributions"] else 0), e


def below_the_threshold_the_run_says_why(place):
    fail = "{trainer: {test-trainer: {parameters: 30001, behaviour: fail}}}"
    nodes = ", leaf-3: %s, leaf-4: %s, leaf-5: %s" % (fail, fail, fail)
    run = up(place, topology(place, quorum="50%", nodes=nodes))
    assert run.code == 1
    # it starts with those who are ready, so that a good one may miss the first step
    left = "3 of 6 members are left; 4 are needed" in run.stderr and (
        "nothing was summed" in run.stderr)
    assert left or "cannot reach its quorum" in run.stderr, run.stderr
    assert not run.of("round_committed")


def validate(place, text):
    path = place.topology(text)
    done = subprocess.run([os.path.join(BIN, "tiered"), "validate", path], text=True,
                          stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, "TIERED_PLUGINS": place.plugins})
    return done.returncode, done.stderr


def validate_names_both_sides_and_the_cure(place):
    text = """
tiered: 1
name: secure
tiers:
  - {name: cloud, aggregate: [%s], rounds: {%s}, on_bad_update: %s}
  - {name: leaf, fan_out: %d, trainer: {test-trainer: {}}, uplink: [%s]}
"""
    for cells, said in (
            (("fedavg", "", "reject", 6, "secure-sum"), None),
            (("median", "", "reject", 6, "secure-sum"),
             "'median' needs single updates, and 'secure-sum'"),
            (("{fedavg: {weighted_by: local_steps}}", "", "reject", 6, "secure-sum"),
             "weigh by num_examples or uniform"),
            (("fedavg", "late: next", "reject", 6, "secure-sum"), "leave it at drop"),
            (("fedavg", "", "exclude", 6, "secure-sum"), "on_bad_update can only be reject"),
            (("fedavg", "", "reject", 2, "secure-sum"),
             "a group of 2, and min_group asks for 3 members"),
            (("fedavg", "", "reject", 4, "{secure-sum: {min_group: 5}}"),
             "a group of 4, and min_group asks for 5 members"),
            (("fedavg", "", "reject", 6, "zstd, secure-sum"),
             "'zstd' is a codec, and 'secure-sum' behind it"),
            (("fedavg", "sample: {poisson: 50%}", "reject", 6, "secure-sum"),
             "sample by poisson may ask fewer children"),
            (("{fedavg: {weighted_by: uniform}}, {gaussian: {noise_multiplier: 1}}", "",
              "reject", 6, "{clip: {norm: 1}}, secure-sum"),
             None),
            (("fedavg", "", "reject", 6,
              "{clip: {norm: 1}}, {gaussian: {noise_multiplier: 1}}, secure-sum"), None),
            (("fedavg", "", "reject", 6, "secure-sum, zstd"), "put 'secure-sum' last")):
        code, stderr = validate(place, text % cells)
        assert code == (1 if said else 0), (cells, stderr)
        assert said is None or said in stderr, (cells, stderr)
    code, stderr = validate(place, text % ("fedavg", "quorum: 50%", "reject", 6, "secure-sum"))
    assert code == 0 and "closes at its quorum of 3 fails" in stderr, stderr
    assert "needs 4 of 6 members" in stderr, stderr


if __name__ == "__main__":
    main([
        the_model_is_that_of_fedavg,
        uniform_counts_every_update_once,
        optimizers_take_the_mean,
        filters_before_it_come_first,
        an_adaptive_bound_rides_inside,
        noise_before_it_is_counted,
        noise_of_all_is_counted,
        a_parent_adds_noise_to_the_sum,
        noise_that_does_not_add_up_is_counted_alone,
        noise_is_counted_whatever_dies,
        what_an_older_attempt_makes_is_void,
        why_names_the_step,
        the_same_seed_gives_the_same_bits,
        the_sampled_are_the_group,
        a_step_has_the_deadline_of_the_round,
        no_child_tells_its_examples,
        groups_at_two_tiers,
        a_killed_leaf_is_a_dropout,
        at_full_quorum_a_killed_leaf_is_waited_for,
        a_round_whose_shares_were_told_is_not_repeated,
        a_member_joins_no_second_attempt,
        a_killed_aggregator_goes_on,
        below_the_threshold_the_run_says_why,
        validate_names_both_sides_and_the_cure,
    ])
