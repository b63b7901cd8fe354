# SPDX-License-Identifier: Apache-2.0
"""What the benches share: run a topology with the built programs, and time its rounds."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.path.join(ROOT, "build")


def peak_mib(pid):
    """The most resident memory that a process ever had."""
    try:
        with open("/proc/%d/status" % pid) as status:
            return next(int(row.split()[1]) / 1024 for row in status if row.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0.0  # it has just gone


class Bench:
    """A folder with every plugin, the test trainer included, and a place for runs."""

    def __init__(self):
        self.work = tempfile.mkdtemp(prefix="tiered-bench-")
        self.plugins = os.path.join(self.work, "plugins")
        os.mkdir(self.plugins)
        for folder in "lib/tiered", "tests/plugins":
            for name in os.listdir(os.path.join(BUILD, folder)):
                if folder == "lib/tiered" or name == "test-trainer.so":
                    os.symlink(os.path.join(BUILD, folder, name), os.path.join(self.plugins, name))

    def run(self, topology, network=False):
        """Seconds of the root's rounds, and the peak MiB of each agent by name. Every asked
        child must have answered in each of the rounds."""
        path = os.path.join(self.work, "bench.yaml")
        with open(path, "w") as f:
            f.write(topology)
        process = subprocess.Popen(
            [os.path.join(BUILD, "bin", "tiered"), "up", path, "--json", "--plugins", self.plugins,
             "--runs", os.path.join(self.work, "runs"), *(["--network"] if network else [])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        seconds, peaks, pids, children = [], {}, {}, None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "run_started":
                pids = {a["name"]: a["pid"] for a in event["agents"]}
                root = event["agents"][0]["nodes"][0]
            elif event["event"] == "round_committed" and event["node"] == root:
                children = children or event["contributions"]
                assert event["contributions"] == children, event
                seconds.append(event["seconds"])
                for name, pid in pids.items():
                    peaks[name] = max(peaks.get(name, 0.0), peak_mib(pid))
        if process.wait() != 0:
            sys.exit("the run failed: %s\nsee %s" % (process.stderr.read(), self.work))
        shutil.rmtree(os.path.join(self.work, "runs"))
        return seconds, peaks

    def close(self):
        shutil.rmtree(self.work)
