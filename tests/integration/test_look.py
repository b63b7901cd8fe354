# SPDX-License-Identifier: Apache-2.0
"""Looking at a run from outside: status, why, watch, runs, logs, model, and HTTP."""
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request

from up import BIN, LIMIT, leftovers, main, read_safetensors, tree, up

TRAINER = "parameters: 500, delay_ms: 300"


class Living:
    """A run in the background, stopped at the end of the with block."""

    def __init__(self, place, until="round_committed", rounds=50):
        topology = place.topology(tree(TRAINER, rounds=rounds))
        self.process = subprocess.Popen(place.command(topology), stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.first = json.loads(self.process.stdout.readline())
        for line in self.process.stdout:
            if json.loads(line)["event"] == until:
                break

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.send_signal(signal.SIGINT)
        self.process.stdout.read()
        self.process.wait()
        self.process.stdout.close()

    def get(self, path, **headers):
        request = urllib.request.Request(self.first["http"] + path, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(request, timeout=10)


def tiered(place, *args, code=0):
    out = subprocess.run([os.path.join(BIN, "tiered"), *args, "--runs", place.runs],
                         capture_output=True, text=True, timeout=LIMIT)
    assert out.returncode == code, (args, out.returncode, out.stdout, out.stderr)
    return out.stdout + out.stderr


def a_living_run_is_seen_by_the_commands(place):
    with Living(place) as run:
        text = tiered(place, "status")
        assert run.first["run"] in text and "running" in text, text
        lines = text.splitlines()
        assert lines[1].startswith("cloud-0") and lines[2].startswith("  fog-0")
        assert lines[3].startswith("    edge-0-0"), text
        status = json.loads(tiered(place, "status", run.first["run"], "--json"))
        assert status["rounds_total"] == 50 and len(status["nodes"]) == 7
        assert {n["node"] for n in status["nodes"] if n["connected"]} == {
            "cloud-0", "fog-0", "fog-1", "edge-0-0", "edge-0-1", "edge-1-0", "edge-1-1"}
        why, deadline = "", time.monotonic() + 10
        while "\ncloud-0 " not in why:  # told with the next heartbeat
            assert time.monotonic() < deadline, why
            why = tiered(place, "why")
        assert "waits for" in why, why
        assert "running" in tiered(place, "runs")
        assert run.first["run"] in tiered(place, "logs", "edge-0-0")
        watch = subprocess.Popen([os.path.join(BIN, "tiered"), "watch", "--runs", place.runs],
                                 stdout=subprocess.PIPE, text=True)
        assert run.first["run"] in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=10)
        assert watch.returncode == 130
        assert run.process.poll() is None, "watching must not disturb the run"


def http_answers_on_loopback_alone(place):
    with Living(place) as run:
        about = json.load(run.get("api/run"))
        assert about["run"] == run.first["run"] and about["tiers"][2] == {"name": "edge", "nodes": 4}
        nodes = json.load(run.get("api/nodes"))
        assert [n["node"] for n in nodes][0] == "cloud-0" and nodes[1]["parent"] == "cloud-0"
        rounds = json.load(run.get("api/rounds"))
        assert rounds and rounds[0]["event"] == "round_committed"
        page = run.get("")
        assert page.headers["Content-Type"].startswith("text/html") and b"<!doctype html>" in page.read()
        for path, headers, want in (("nosuch", {}, 404), ("api/run", {"Host": "evil.example"}, 403)):
            try:
                run.get(path, **headers)
                raise AssertionError("%s should be refused" % path)
            except urllib.error.HTTPError as e:
                assert e.code == want, (path, e.code)


def events_are_followed_as_they_happen(place):
    with Living(place) as run:
        stream = run.get("api/events")
        seen = set()
        while not {"round_committed", "nodes"} <= seen:
            line = stream.readline().decode()
            assert line, "the stream ended"
            if line.startswith("data: "):
                seen.add(json.loads(line[6:])["event"])
        stream.close()


def metrics_are_prometheus_text(place):
    with Living(place) as run:
        text = run.get("metrics").read().decode()
        values = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        assert values['tiered_node_up{node="edge-0-0",tier="edge"}'] == 1
        assert values['tiered_rounds_total{node="fog-0",tier="fog"}'] >= 0
        assert any(name.startswith("tiered_run_info{") for name in values)
        with open(os.path.join(place.folder, "metrics.txt"), "w") as f:
            f.write(text)
        check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        assert check.returncode == 0, check.stdout + check.stderr


def a_run_that_is_over_is_seen_too(place):
    run = up(place, place.topology(tree("parameters: 500", rounds=2)))
    assert "finished" in tiered(place, "status") and "finished" in tiered(place, "runs")
    row = json.loads(tiered(place, "runs", "--json"))
    assert row["run"] == run.events[0]["run"] and row["rounds"] == 2 and "accuracy" in row["metrics"]
    assert tiered(place, "model", "get").strip() == run.end["model"]
    copy = os.path.join(place.folder, "copy.safetensors")
    tiered(place, "model", "get", run.events[0]["run"], "-o", copy)
    assert read_safetensors(copy)[1] == read_safetensors(run.end["model"])[1]
    assert not leftovers(place)


def what_is_not_there_is_told(place):
    assert "there is no folder" in tiered(place, "runs", code=1)
    up(place, place.topology(tree("parameters: 10", rounds=1)))
    assert "there is no run 'x'" in tiered(place, "status", "x", code=1)
    assert "has no node or agent 'nosuch'" in tiered(place, "logs", "nosuch", code=1)
    assert "NODE is missing" in tiered(place, "logs", code=2)
    assert "unknown flag" in tiered(place, "status", "--nonsense", code=2)


main([
    a_living_run_is_seen_by_the_commands,
    http_answers_on_loopback_alone,
    events_are_followed_as_they_happen,
    metrics_are_prometheus_text,
    a_run_that_is_over_is_seen_too,
    what_is_not_there_is_told,
])
