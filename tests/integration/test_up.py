# SPDX-License-Identifier: Apache-2.0
"""tiered up, as its user runs it: real processes, real sockets, a real tree."""
import json
import os
import signal
import sqlite3
import subprocess
import time

from up import BIN, TEST_PLUGINS, living_pid, leftovers, main, read_safetensors, tree, up

BAD_EDGE = "nodes: {edge-1-0: {trainer: {test-trainer: {parameters: 100, behaviour: %s}}}}"


def a_run_tells_what_it_does_and_leaves_a_model(place):
    run = up(place, place.topology(tree("parameters: 5000")))
    assert run.code == 0, run.stderr
    first = run.events[0]
    assert first["event"] == "run_started"
    assert os.path.isdir(first["dir"]) and os.path.isabs(first["dir"])
    assert os.stat(first["dir"]).st_mode & 0o777 == 0o700
    names = {a["name"]: a["nodes"] for a in first["agents"]}
    assert len(names) == 7 and names["edge-1-0"] == ["edge-1-0"], names
    cloud = run.of("round_committed", tier="cloud")
    assert [e["round"] for e in cloud] == [1, 2, 3]
    for e in cloud:
        assert e["node"] == "cloud-0" and e["contributions"] == 2
        assert e["num_examples"] == 2 * 2 * 2 * 10  # fogs x rounds x edges x examples
        assert "accuracy" in e["metrics"] and "loss" in e["metrics"]
        assert e["bytes_up"] > 0 and e["bytes_down"] > 0 and e["seconds"] >= 0
    fog = run.of("round_committed", node="fog-1")
    assert [e["path"] for e in fog] == ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"]
    assert all("time" in e for e in run.events)
    assert run.end["event"] == "run_finished" and run.end["status"] == "finished"
    assert run.end["rounds"] == 3 and os.path.isabs(run.end["model"])
    header, tensors = read_safetensors(run.end["model"])
    assert header["w"]["shape"] == [5000] and len(tensors["w"]) == 20000
    assert any(tensors["w"]), "a model of zeros was not trained"


def the_same_seed_gives_the_same_bits_and_another_one_others(place):
    topology = place.topology(tree("parameters: 3000"))
    digests = [up(place, topology).model_digest() for _ in range(2)]
    other = up(place, topology, "--set", "run.seed=12").model_digest()
    assert digests[0] == digests[1]
    assert digests[0] != other


def many_nodes_in_one_agent_give_the_same_bits(place):
    alone = up(place, place.topology(tree("parameters: 3000")))
    together = up(place, place.topology(tree("parameters: 3000", edge="agent: gateway")))
    assert len(together.events[0]["agents"]) == 4
    assert alone.model_digest() == together.model_digest()


def killer(place, victim, path, killed):
    def on_event(process, event):
        if event["event"] == "round_committed" and event["path"] == path and not killed:
            pid = living_pid(place, victim)
            if pid:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    return on_event


def killed_agents_come_back_and_the_model_is_the_same(place):
    topology = place.topology(tree("parameters: 3000, delay_ms: 30", rounds=4))
    want = up(place, topology).model_digest()
    for victim, path in ("edge-0-1", "1.1"), ("fog-1", "2.1"), ("cloud-0", "2"), ("fog-0", "1.2"):
        killed = []
        run = up(place, topology, on_event=killer(place, victim, path, killed))
        assert killed, "nobody was killed"
        assert run.code == 0, run.stderr
        assert [e["round"] for e in run.of("round_committed", tier="cloud")] == [1, 2, 3, 4]
        died = run.of("agent_died")
        assert [(d["name"], d["reason"]) for d in died] == [(victim, "killed by signal 9 (Killed)")]
        assert "agent '%s'" % victim in run.stderr and "killed by signal 9" in run.stderr
        assert run.model_digest() == want, "killing %s at %s changed the model" % (victim, path)


def downlinks_that_lose_or_refer(place):
    """What a fog was given with a loss it stores, and finds again when it comes back; and what
    is sent as a difference is the same model."""
    def downlink(filters):
        text = tree("parameters: 3000, delay_ms: 30", rounds=4)
        return place.topology(text.replace("downlink: [zstd]", "downlink: [%s]" % filters))
    os.symlink(os.path.join(TEST_PLUGINS, "test-lossy.so"),
               os.path.join(place.plugins, "test-lossy.so"))
    plain = up(place, downlink("")).model_digest()
    for filters, same in ("delta, zstd", True), ("test-lossy, zstd", False):
        want = up(place, downlink(filters))
        assert want.code == 0, want.stderr
        assert (want.model_digest() == plain) == same
        for victim, path in ("fog-1", "2.1"), ("cloud-0", "2"), ("edge-0-1", "3.1"):
            killed = []
            run = up(place, downlink(filters), on_event=killer(place, victim, path, killed))
            assert killed and run.code == 0, run.stderr
            assert run.model_digest() == want.model_digest(), (filters, victim)


def optimizers_and_their_schedules_go_on_after_a_kill(place):
    chain = """
      - fedavg
      - fedavgm: {momentum: 0.9, warmup: 2}
      - fedadagrad: {beta1: 0.5, schedule: {step: {every: 2, factor: 0.5}}}
      - fedyogi: {schedule: {cosine: {rounds: 5}}}"""
    wanted = []
    for cosine in 5, 4:
        text = tree("parameters: 3000, delay_ms: 30", rounds=5)
        text = text.replace(" [fedavg, {fedadam: {lr: 0.01}}]", chain.replace("rounds: 5", "rounds: %d" % cosine))
        topology = place.topology(text)
        wanted.append(up(place, topology).model_digest())
        for path in ("1", "3") if cosine == 5 else ():
            killed = []
            run = up(place, topology, on_event=killer(place, "cloud-0", path, killed))
            assert killed and run.code == 0, run.stderr
            assert run.model_digest() == wanted[0], "a kill after round %s changed the model" % path
    assert wanted[0] != wanted[1], "the schedule changes nothing"


def rounds_without_a_result_leave_model_and_state(place):
    """Here no step fits f32. A commit, and a restart from it, without any step before."""
    text = tree("parameters: 100, delay_ms: 30", rounds=3)
    topology = place.topology(text.replace("{fedadam: {lr: 0.01}}", "{fedavgm: {lr: 1.0e+300}}"))
    killed = []
    run = up(place, topology, on_event=killer(place, "cloud-0", "1", killed))
    assert killed and run.code == 0, run.stderr
    assert [e["contributions"] for e in run.of("round_committed", tier="cloud")] == [0, 0, 0]
    assert "tensor 'w' would be infinite at index 0" in run.logs()
    initial = os.path.join(run.events[0]["dir"], "initial.safetensors")
    assert read_safetensors(run.end["model"])[1] == read_safetensors(initial)[1]


def updates_that_wait_for_a_killed_parent_are_those_of_its_next_turn(place):
    """Its children have trained for the new turn; it dies before it knows of that turn."""
    topology = place.topology(tree("parameters: 3000, delay_ms: 300"))
    want = up(place, topology).model_digest()
    killed = []

    def on_event(process, event):
        if event["event"] == "round_committed" and event["path"] == "1" and not killed:
            time.sleep(0.1)  # ordered, and being trained for
            killed.append(living_pid(place, "fog-1"))
            os.kill(killed[0], signal.SIGSTOP)
            time.sleep(0.5)  # trained, and in the outboxes
            os.kill(killed[0], signal.SIGKILL)
    run = up(place, topology, on_event=on_event)
    assert killed and run.code == 0, run.stderr
    assert run.model_digest() == want
    assert [e["path"] for e in run.of("round_committed", node="fog-1")] == \
        ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"]


def an_orchestrator_that_was_away_is_told_everything(place):
    """Stopped for longer than its agents wait for a word: they go on, and tell it later."""
    topology = place.topology(tree("parameters: 1000, delay_ms: 150", rounds=6))
    want = up(place, topology).model_digest()
    stopped = []

    def on_event(process, event):
        if event["event"] == "round_committed" and not stopped:
            stopped.append(process.send_signal(signal.SIGSTOP))
            time.sleep(13)
            process.send_signal(signal.SIGCONT)
    run = up(place, topology, on_event=on_event)
    assert run.code == 0, run.stderr
    assert run.model_digest() == want
    assert [e["round"] for e in run.of("round_committed", tier="cloud")] == [1, 2, 3, 4, 5, 6]
    for fog in "fog-0", "fog-1":
        paths = [e["path"] for e in run.of("round_committed", node=fog)]
        assert paths == ["%d.%d" % (r, k) for r in range(1, 7) for k in (1, 2)], paths


def a_bad_update_is_refused_by_name_and_the_round_goes_on(place):
    for behaviour in "nan", "inf":
        run = up(place, place.topology(
            tree("parameters: 100, delay_ms: 300", nodes=BAD_EDGE % behaviour, fog=", quorum: 50%")))
        assert run.code == 0, run.stderr
        assert all(e["contributions"] == 1 for e in run.of("round_committed", node="fog-1"))
        # a run starts at the quorum, so the first rounds may miss who still loads
        assert run.of("round_committed", node="fog-0")[-1]["contributions"] == 2
        logs = run.logs()
        assert "tensor 'w' has %s at index 17" % behaviour in logs, logs[-2000:]
        assert "edge-1-0" in logs
        assert "not counted: tensor 'w' has %s at index 17" % behaviour in logs
        assert "its update is bad" not in logs


def below_quorum_the_run_fails_with_the_reason(place):
    run = up(place, place.topology(tree("parameters: 100", nodes=BAD_EDGE % "nan")))
    assert run.code == 1
    assert run.end["status"] == "failed" and "quorum" in run.end["reason"], run.end
    assert "error: node 'cloud-0': round 1 cannot reach its quorum" in run.stderr
    assert "warning: node 'edge-1-0', update of round 1.1: tensor 'w' has nan" in run.stderr
    failed = run.of("update_failed", node="edge-1-0")
    assert failed and failed[0]["path"] == "1.1" and "nan" in failed[0]["reason"], failed


def excluded_updates_keep_their_place_in_the_count(place):
    topology = tree("parameters: 100", nodes=BAD_EDGE % "nan").replace(
        "rounds: {per_parent_round: 2}",
        "rounds: {per_parent_round: 2}\n    on_bad_update: exclude")
    run = up(place, place.topology(topology))
    assert run.code == 0, run.stderr
    assert "excluded" in run.logs()
    for event in run.of("round_committed", tier="fog"):  # its examples weigh nothing either
        examples = 10 if event["node"] == "fog-1" else 20
        assert (event["contributions"], event["num_examples"]) == (2, examples), event
    tensors = read_safetensors(run.end["model"])[1]
    assert b"\x00\x00\xc0\x7f" not in tensors["w"], "a NaN got into the model"


def a_trainer_that_fails_or_brings_another_shape_is_missing(place):
    for behaviour, words in (("fail", "failed, as was asked for"), ("shape", "does not fit")):
        nodes = (BAD_EDGE % behaviour).replace("edge-1-0", "edge-1-1")
        run = up(place, place.topology(tree("parameters: 100, delay_ms: 300", nodes=nodes, fog=", quorum: 50%")))
        assert run.code == 0, run.stderr
        assert all(e["contributions"] == 1 for e in run.of("round_committed", node="fog-1"))
        assert words in run.logs(), run.logs()[-2000:]
        # the first rounds may do without a node that still loads
        assert run.of("update_failed", node="edge-1-1"), "not in the events"
        # once, be it of an update or, where a round began without it, of an evaluation
        assert run.stderr.count("warning: node 'edge-1-1', ") == 1, run.stderr


def a_trainer_that_brings_nothing_counts_for_nothing(place):
    run = up(place, place.topology(tree("parameters: 100", nodes=BAD_EDGE % "nothing")))
    assert run.code == 0, run.stderr
    assert all(e["num_examples"] == 10 for e in run.of("round_committed", node="fog-1"))


def an_agent_that_always_dies_is_given_up(place):
    run = up(place, place.topology(tree("parameters: 100, delay_ms: 400", rounds=2,
                                        nodes=BAD_EDGE % "crash", fog=", quorum: 50%")))
    died = run.of("agent_died", name="edge-1-0")
    assert died and "signal 6" in died[0]["reason"], died
    assert run.code == 0, run.stderr


def missing_data_is_an_error_that_names_the_node(place):
    run = up(place, place.topology(tree("parameters: 100", nodes=BAD_EDGE % "fail-load")))
    assert run.code == 1
    assert "node 'edge-1-0'" in run.stderr, run.stderr
    assert "no data, as was asked for" in run.stderr, run.stderr


def interrupting_stops_everything(place):
    sent = []

    def on_event(process, event):
        if event["event"] == "round_committed" and not sent:
            process.send_signal(signal.SIGINT)
            sent.append(True)
    run = up(place, place.topology(tree("parameters: 100, delay_ms: 500", rounds=50)),
             on_event=on_event)
    assert run.code == 130, run.code
    assert run.end["status"] == "interrupted"


def a_stop_condition_ends_the_run(place):
    run = up(place, place.topology(
        tree("parameters: 100", rounds=30, run=", stop_when: {metric: loss, at_least: 0.0}")))
    assert run.code == 0, run.stderr
    assert run.end["rounds"] == 1, run.end


def a_given_model_is_where_it_starts(place):
    first = up(place, place.topology(tree("parameters: 100")))
    start = os.path.join(place.folder, "start.safetensors")
    os.rename(first.end["model"], start)
    second = up(place, place.topology(
        tree("parameters: 100", rounds=1, run=", model: %s" % start)))
    assert second.code == 0, second.stderr
    initial = os.path.join(second.events[0]["dir"], "initial.safetensors")
    assert read_safetensors(initial)[1] == read_safetensors(start)[1]


def the_record_holds_rounds_and_contributions(place):
    run = up(place, place.topology(tree("parameters: 100")))
    db = sqlite3.connect(os.path.join(run.events[0]["dir"], "run.db"))
    assert db.execute("SELECT status FROM runs").fetchall() == [("finished",)]
    assert db.execute("SELECT count(*) FROM rounds").fetchone() == (3 + 2 * 6,)
    assert db.execute("SELECT count(*), sum(num_examples) FROM contributions "
                      "WHERE parent = 'fog-0'").fetchone() == (12, 120)
    assert db.execute("SELECT count(*) FROM generations").fetchone() == (1,)


def elsewhere_than_on_a_terminal_it_prints_a_line_a_round(place):
    topology = place.topology(tree("parameters: 100"))
    out = subprocess.run(place.command(topology, json_lines=False), capture_output=True,
                         text=True, timeout=100)
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    assert sum(line.startswith("round ") for line in lines) == 3, out.stdout
    assert "\033" not in out.stdout
    assert lines[-1].startswith("model: /"), lines[-1]
    for tier in "cloud", "fog", "edge":
        assert any(line.startswith(tier) for line in lines)
    assert not leftovers(place)


def a_relative_plugin_folder_of_the_environment_reaches_the_agents(place):
    topology = place.topology(tree("parameters: 100", rounds=1))
    command = place.command(topology)
    at = command.index("--plugins")
    del command[at:at + 2]
    out = subprocess.run(command, capture_output=True, text=True, timeout=100,
                         cwd=place.folder, env={**os.environ, "TIERED_PLUGINS": "plugins"})
    assert out.returncode == 0, out.stderr
    assert not leftovers(place)


def an_agent_may_be_started_by_somebody_else(place):
    joined = []

    def on_event(process, event):
        if event["event"] == "run_started":
            folder = event["dir"]
            said = json.load(open(os.path.join(folder, "agents", "edge-0-1.json")))
            assert said["nodes"][0]["node"] == "edge-0-1", said
            assert [a["pid"] for a in event["agents"] if a["name"] == "edge-0-1"] == [0]
            joined.append(subprocess.Popen(
                [os.path.join(BIN, "tiered-agent"), "--name", said["agent"], "--state",
                 "agents/edge-0-1", "--orchestrator", said["orchestrator"], "--plugins", place.plugins],
                cwd=folder, env={"TIERED_TOKEN": said["token"]}, stderr=subprocess.DEVNULL))
        if event["event"] == "run_finished":
            assert joined[0].wait(timeout=30) == 0
    topology = place.topology(tree("parameters: 100"))
    want = up(place, topology).model_digest()
    run = up(place, topology, "--external", "edge-0-1", on_event=on_event)
    assert run.code == 0 and run.model_digest() == want, run.stderr
    run = up(place, topology, "--external", "nosuch")
    assert run.code == 1 and "there is no agent 'nosuch'" in run.stderr, run.stderr


def wrong_arguments_are_told(place):
    def code(*args):
        return subprocess.run([os.path.join(BIN, "tiered"), "up", *args],
                              capture_output=True).returncode
    assert code() == 2
    assert code("--nonsense", "x.yaml") == 2
    assert code(os.path.join(place.folder, "absent.yaml")) == 1
    assert code("--help") == 0


main([
    a_run_tells_what_it_does_and_leaves_a_model,
    the_same_seed_gives_the_same_bits_and_another_one_others,
    many_nodes_in_one_agent_give_the_same_bits,
    killed_agents_come_back_and_the_model_is_the_same,
    downlinks_that_lose_or_refer,
    optimizers_and_their_schedules_go_on_after_a_kill,
    rounds_without_a_result_leave_model_and_state,
    updates_that_wait_for_a_killed_parent_are_those_of_its_next_turn,
    an_orchestrator_that_was_away_is_told_everything,
    a_bad_update_is_refused_by_name_and_the_round_goes_on,
    below_quorum_the_run_fails_with_the_reason,
    excluded_updates_keep_their_place_in_the_count,
    a_trainer_that_fails_or_brings_another_shape_is_missing,
    a_trainer_that_brings_nothing_counts_for_nothing,
    an_agent_that_always_dies_is_given_up,
    missing_data_is_an_error_that_names_the_node,
    interrupting_stops_everything,
    a_stop_condition_ends_the_run,
    a_given_model_is_where_it_starts,
    the_record_holds_rounds_and_contributions,
    elsewhere_than_on_a_terminal_it_prints_a_line_a_round,
    a_relative_plugin_folder_of_the_environment_reaches_the_agents,
    an_agent_may_be_started_by_somebody_else,
    wrong_arguments_are_told,
])
