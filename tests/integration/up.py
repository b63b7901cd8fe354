# SPDX-License-Identifier: Apache-2.0
"""What the tests of `tiered up` share: a folder of their own, topologies, runs."""
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback

BIN = os.environ["TIERED_BIN"]
PLUGINS = os.environ["TIERED_PLUGINS"]
TEST_PLUGINS = os.path.join(os.environ["TIERED_BUILD"], "tests", "plugins")
LIMIT = 120  # seconds: a run that takes longer hangs


class Place:
    """A scratch folder: topologies, runs, and a plugin folder with the tests' trainer."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="tiered-test-")
        self.plugins = os.path.join(self.folder, "plugins")
        self.runs = os.path.join(self.folder, "runs")
        os.mkdir(self.plugins)
        for name in os.listdir(PLUGINS):
            os.symlink(os.path.join(PLUGINS, name), os.path.join(self.plugins, name))
        os.symlink(os.path.join(TEST_PLUGINS, "test-trainer.so"),
                   os.path.join(self.plugins, "test-trainer.so"))
        self.n = 0

    def topology(self, text):
        self.n += 1
        path = os.path.join(self.folder, "t%d.yaml" % self.n)
        with open(path, "w") as f:
            f.write(text)
        return path

    def command(self, topology, *more, json_lines=True):
        return [os.path.join(BIN, "tiered"), "up", topology, "--plugins", self.plugins,
                "--runs", self.runs, *(["--json"] if json_lines else []), *more]


class Run:
    """One finished `tiered up --json`."""

    def __init__(self, code, events, stderr):
        self.code, self.events, self.stderr = code, events, stderr

    def of(self, event, **fields):
        return [e for e in self.events if e["event"] == event
                and all(e.get(k) == v for k, v in fields.items())]

    @property
    def end(self):
        return self.events[-1]

    def model_digest(self):
        with open(self.end["model"], "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    def logs(self):
        folder = os.path.join(self.events[0]["dir"], "logs")
        return "".join(open(os.path.join(folder, f)).read() for f in sorted(os.listdir(folder)))


def follow(place, topology, *more, on_event=None):
    """`tiered up` until it exits; on_event(process, event) may disturb it."""
    process = subprocess.Popen(place.command(topology, *more), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    errors = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    alarm = threading.Timer(LIMIT, process.kill)
    alarm.start()
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if on_event:
            on_event(process, events[-1])
    code = process.wait()
    alarm.cancel()
    reader.join()
    return Run(code, events, errors[0])


def check_leftovers(place):
    left = leftovers(place)
    assert not left, "processes left behind: %s" % left


def up(place, topology, *more, on_event=None):
    """Run to the end; on_event(process, event) may disturb it. No process may be left."""
    run = follow(place, topology, *more, on_event=on_event)
    check_leftovers(place)
    check_sanitizers(place, run.stderr)
    return run


SANITIZER = re.compile(r"(ERROR|WARNING): \w+Sanitizer|\bruntime error: ")


def check_sanitizers(place, stderr=""):
    """A build with sanitizers reports into the agents' logs, and nobody else looks."""
    texts = [("stderr", stderr)]
    for folder, _, files in os.walk(place.runs):
        for name in files:
            if name.endswith(".log"):
                with open(os.path.join(folder, name), errors="replace") as f:
                    texts.append((name, f.read()))
    for name, text in texts:
        found = SANITIZER.search(text)
        assert not found, "%s: %s" % (name, text[found.start():][:4000])


def leftovers(place):
    """Agents whose working folder is one of this place's runs."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink("/proc/%s/cwd" % pid).startswith(place.runs):
                found.append(int(pid))
    return found


def living_pid(place, name):
    """The pid of the agent `name` now, or None."""
    for pid in leftovers(place):
        with contextlib.suppress(OSError):
            argv = open("/proc/%d/cmdline" % pid).read().split("\0")
            if "--name" in argv and argv[argv.index("--name") + 1] == name:
                return pid
    return None


def read_safetensors(path):
    """Header and {name: bytes} of a safetensors file."""
    with open(path, "rb") as f:
        data = f.read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    body = data[8 + size:]
    tensors = {name: body[t["data_offsets"][0]:t["data_offsets"][1]]
               for name, t in header.items() if name != "__metadata__"}
    return header, tensors


def main(tests):
    """Run every test function; print the plain summary line; exit 1 on a failure."""
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    passed, failed = 0, 0
    for test in tests:
        if only not in test.__name__:
            continue
        place = Place()
        try:
            test(place)
            print("ok   %s" % test.__name__, flush=True)
            passed += 1
        except Exception:
            failed += 1
            print("FAIL %s" % test.__name__)
            traceback.print_exc()
            show_logs(place)
        finally:
            for pid in leftovers(place):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(place.folder, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed else 0)


def show_logs(place):
    for folder, _, files in os.walk(place.runs):
        for name in files:
            if name.endswith(".log"):
                text = open(os.path.join(folder, name)).read()
                print("--- %s\n%s" % (name, text[-1500:]))


def tree(trainer, rounds=3, fog="", edge="", run="", nodes="", fog_rounds=2):
    """cloud - 2 fogs - 2 edges each, with the given keys added."""
    return re.sub(r"\n\s*\n", "\n", """
tiered: 1
name: test
run: {rounds: %d, seed: 11%s}
tiers:
  - name: cloud
    aggregate: [fedavg, {fedadam: {lr: 0.01}}]
  - name: fog
    fan_out: 2
    aggregate: [fedavg]
    rounds: {per_parent_round: %d%s}
    uplink: [zstd]
    downlink: [zstd]
  - name: edge
    fan_out: 2
    trainer: {test-trainer: {%s}}
    uplink: [zstd]
    downlink: [zstd]
    %s
%s
""" % (rounds, run, fog_rounds, fog, trainer, edge, nodes)).lstrip()
