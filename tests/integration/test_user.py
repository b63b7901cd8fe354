# SPDX-License-Identifier: Apache-2.0
"""tiered up in the hands of a user: terminals, folders, limits, odd trees, own data."""
import fcntl
import gzip
import json
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import termios
import time

from up import check_sanitizers, leftovers, main, read_safetensors, tree, up

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def finished(place, command, limit=60, **how):
    """A command run to its end; nothing may be left behind."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, **how)
    assert not leftovers(place)
    check_sanitizers(place, done.stderr)
    return done


def on_terminal(place, command, columns=80, rows=24, keys=(), limit=60):
    """Run on a terminal of its own; keys: [(seconds, bytes)]. What it wrote, exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(command[0], command)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    out, keys, start = b"", list(keys), time.monotonic()
    while True:
        now = time.monotonic() - start
        if now > limit:
            os.kill(pid, signal.SIGKILL)
        if keys and now >= keys[0][0]:
            os.write(fd, keys.pop(0)[1])
        if select.select([fd], [], [], 0.02)[0]:
            try:
                data = os.read(fd, 65536)
            except OSError:  # how the end of a terminal reads
                break
            out += data
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    check_sanitizers(place, out.decode())
    return out.decode(), code


def screen(text, columns):
    """The lines that a terminal of this width shows in the end."""
    lines, y, x = [""], 0, 0
    for part in re.findall(r"\033\[\d*[A-Za-z]|\r|\n|[^\033\r\n]", text):
        if part == "\r":
            x = 0
        elif part == "\n":
            y += 1
        elif part.startswith("\033["):
            if part.endswith("F"):
                y, x = max(0, y - int(part[2:-1] or 1)), 0
            elif part == "\033[J":
                lines[y] = lines[y][:x]
                del lines[y + 1:]
        else:
            if x == columns:
                y, x = y + 1, 0
            lines.extend([""] * (y + 1 - len(lines)))
            lines[y] = lines[y].ljust(x)[:x] + part + lines[y][x + 1:]
            x += 1
        lines.extend([""] * (y + 1 - len(lines)))
    return lines


def a_terminal_shows_a_block_and_keeps_the_rounds(place):
    topology = place.topology(tree("parameters: 100, delay_ms: 200"))
    for columns, rows in (80, 24), (30, 24), (80, 3):
        out, code = on_terminal(place, place.command(topology, json_lines=False), columns, rows)
        assert code == 0, out
        assert "\033[" in out and "[####" in out, "no block was drawn"
        block = [line for line in re.split(r"\r?\n", out)
                 if re.match(r"(\033\[\d*[FJ])*(  (cloud|fog|edge) +\d+ node|round \d of|starting)", line)]
        assert len(block) > 4
        for line in block:
            plain = re.sub(r"\033\[\d*[A-Z]", "", line)
            assert len(plain) < columns, "%r wraps" % plain
        last = "\n".join(screen(out, columns))
        assert last.count("round 1/3") == last.count("round 3/3") == 1, last
        assert "round 2 of 3" not in last and "waiting" not in last, last
        assert "finished: 3 rounds" in last.replace("\n", "") and "model: /" in last


def the_block_is_not_disturbed_by_warnings(place):
    topology = place.topology(tree("parameters: 100, delay_ms: 100",
                                   nodes="nodes: {edge-0-1: {trainer: {test-trainer: "
                                   "{parameters: 100, behaviour: crash}}}}", fog=", quorum: 50%"))
    out, code = on_terminal(place, place.command(topology, json_lines=False), 80)
    last = screen(out, 80)
    assert code == 0, out
    assert any("agent 'edge-0-1'" in line and line.startswith("warning: ") for line in last), last
    assert not any(re.match("  (fog|edge) ", line) for line in last), last


def ctrl_c_is_clean_at_any_moment(place):
    topology = place.topology(tree("parameters: 100, delay_ms: 300", rounds=100))
    for moment in 0.05, 0.1, 0.2, 0.4, 1.0, 1.5:
        out, code = on_terminal(place, place.command(topology, json_lines=False),
                                keys=[(moment, b"\x03")])
        # before its handler stands, the signal itself ends it, with nothing started
        assert code in (130, -signal.SIGINT), (moment, code, out)
        assert not leftovers(place), moment
    out, code = on_terminal(place, place.command(topology, json_lines=False),
                            keys=[(1.0, b"\x03"), (1.02, b"\x03")])
    assert code == 130 and not leftovers(place)
    last = screen(out, 80)
    assert any("interrupted" in line for line in last)
    assert not any("waiting" in line for line in last), last


def a_reader_that_goes_away_ends_the_run(place):
    topology = place.topology(tree("parameters: 100, delay_ms: 200", rounds=100))
    for json_lines in True, False:
        process = subprocess.Popen(place.command(topology, json_lines=json_lines),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 1
        assert "cannot write to stdout: Broken pipe" in process.stderr.read()
        process.stderr.close()
        assert not leftovers(place)


def a_closed_or_full_stdout_is_told(place):
    topology = place.topology(tree("parameters: 100", rounds=1))
    command = " ".join(map(repr, place.command(topology, json_lines=False)))
    for where in ">&-", ">/dev/full":
        done = finished(place, ["sh", "-c", command + " " + where])
        assert done.returncode == 1 and "cannot write to stdout" in done.stderr, done
    assert finished(place, ["sh", "-c", command + " 2>&- <&-"]).returncode == 0
    plan = "%s plan %s >/dev/full" % (command.split()[0], topology)
    done = finished(place, ["sh", "-c", plan], env={"TIERED_PLUGINS": place.plugins})
    assert done.returncode == 1 and "cannot write to stdout" in done.stderr, done


def folders_may_be_deep_relative_and_have_spaces(place):
    deep = os.path.join(place.folder, *("x" * 100 for _ in range(4)), "a b")
    here = os.path.join(place.folder, "to po")
    os.makedirs(os.path.join(here, "my data"))
    os.makedirs(deep)
    write_csv(os.path.join(here, "my data", "a.csv"))
    with open(os.path.join(here, "t.yaml"), "w") as f:
        f.write(softmax('data: "my data/a.csv", label: kind'))
    command = place.command(os.path.relpath(os.path.join(here, "t.yaml"), deep))
    command[command.index("--runs") + 1] = "../r u n s"
    done = finished(place, command, cwd=deep)
    assert done.returncode == 0, done.stderr
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["model"].startswith(os.path.realpath(os.path.join(deep, "..", "r u n s")) + "/")
    read_safetensors(end["model"])


def a_folder_whose_name_is_no_text_works(place):
    command = [c.encode() for c in place.command(place.topology(tree("parameters: 100")))]
    command[command.index(b"--runs") + 1] = place.folder.encode() + b"/runs/\xff\xe4"
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert "/runs/??/" in events[0]["dir"] and events[-1]["status"] == "finished", events[-1]
    assert not leftovers(place)


def a_runs_folder_that_cannot_be_made_is_named(place):
    topology = place.topology(tree("parameters: 100"))
    for runs in "/proc/none", topology:
        command = place.command(topology)
        command[command.index("--runs") + 1] = runs
        done = finished(place, command)
        assert done.returncode == 1 and "error: " in done.stderr and runs in done.stderr, done


def two_runs_share_a_folder(place):
    topology = place.topology(tree("parameters: 1000, delay_ms: 50"))
    both = [subprocess.Popen(place.command(topology), stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    ends = [json.loads(p.communicate(timeout=60)[0].splitlines()[-1]) for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert ends[0]["run"] != ends[1]["run"]
    assert read_safetensors(ends[0]["model"])[1] == read_safetensors(ends[1]["model"])[1]
    assert not leftovers(place)


def a_full_disk_ends_the_run_with_the_reason(place):
    disk = os.path.join(place.folder, "disk")
    os.mkdir(disk)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk],
                           capture_output=True)
    if mount.returncode:
        print("     skipped: no small file system can be mounted here")
        return
    try:
        topology = place.topology(tree("parameters: 20000"))
        command = place.command(topology)
        command[command.index("--runs") + 1] = disk
        for kilobytes in 64, 140, 160, 200, 280, 360, 440, 600, 900:
            subprocess.run(["mount", "-o", "remount,size=%dk" % kilobytes, disk], check=True)
            done = finished(place, command, limit=30)
            assert done.returncode in (0, 1), (kilobytes, done)
            if done.returncode:
                assert re.search("error: .*(No space left|is full|I/O error)", done.stderr), done
            subprocess.run("rm -rf %s/*" % disk, shell=True, check=True)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def too_few_open_files_are_told(place):
    topology = place.topology(tree("parameters: 100").replace("fan_out: 2\n    trainer",
                                                              "fan_out: 30\n    trainer"))

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    done = finished(place, place.command(topology), preexec_fn=few)
    assert done.returncode == 1
    assert re.search(r"error: this run may need \d+ open files .* 'ulimit -n \d+'", done.stderr), \
        done.stderr


def large_and_deep_trees_run(place):
    many = """
tiered: 1
name: many
run: {rounds: 2}
tiers:
  - {name: cloud, aggregate: [fedavg]}
  - {name: edge, fan_out: 300, agent: all, trainer: {test-trainer: {parameters: 100}}}
"""
    run = up(place, place.topology(many))
    assert run.code == 0, run.stderr
    assert [e["contributions"] for e in run.of("round_committed")] == [300, 300]
    wide = many.replace("agent: all, ", "").replace("300", "60")
    run = up(place, place.topology(wide))
    assert run.code == 0, run.stderr
    assert len(run.events[0]["agents"]) == 61
    deep = "tiered: 1\nname: deep\nrun: {rounds: 2}\ntiers:\n  - {name: t0, aggregate: [fedavg]}\n"
    for i in range(1, 5):
        deep += ("  - {name: t%d, fan_out: %d, aggregate: [fedavg], uplink: [zstd], "
                 "rounds: {per_parent_round: 2}}\n" % (i, 1 + i % 2))
    deep += "  - {name: t5, fan_out: 2, trainer: {test-trainer: {parameters: 100}}}\n"
    run = up(place, place.topology(deep))
    assert run.code == 0, run.stderr
    assert [e["num_examples"] for e in run.of("round_committed", tier="t0")] == [1280, 1280]
    assert {e["path"] for e in run.of("round_committed", tier="t4")} >= {"1.1.1.1.1", "2.2.2.2.2"}


def who_is_late_is_named_and_the_round_goes_on(place):
    topology = place.topology(tree(
        "parameters: 100", fog=", quorum: 50%, deadline: 500ms, late: drop", rounds=2,
        nodes="nodes: {edge-1-1: {trainer: {test-trainer: {parameters: 100, delay_ms: 5000}}}}"))
    run = up(place, topology)
    assert run.code == 0, run.stderr
    slow = run.of("round_committed", node="fog-1")
    assert [e["contributions"] for e in slow] == [1, 1, 1, 1]
    assert all(0.4 < e["seconds"] < 3 for e in slow), slow
    assert "round 2.1 closes without edge-1-1" in run.logs()
    assert run.of("round_committed", node="fog-0")[-1]["contributions"] == 2


def rounds_are_evaluated_when_due_and_the_last_figures_stay(place):
    run = up(place, place.topology(tree("parameters: 100", run=", evaluate: {every: 2}")))
    assert run.code == 0, run.stderr
    have = ["accuracy" in e["metrics"] for e in run.of("round_committed", tier="cloud")]
    assert have == [False, True, False]
    assert run.end["metrics"]["accuracy"] == \
        run.of("round_committed", tier="cloud")[1]["metrics"]["accuracy"]


def sampling_and_globs_apply(place):
    run = up(place, place.topology(tree(
        "parameters: 100", fog=", sample: 50%", nodes="""nodes:
  "edge-1-*": {trainer: {test-trainer: {parameters: 100, num_examples: 1000}}}
""")))
    assert run.code == 0, run.stderr
    assert all(e["contributions"] == 1 for e in run.of("round_committed", tier="fog"))
    assert all(e["num_examples"] == 10 for e in run.of("round_committed", node="fog-0"))
    assert all(e["num_examples"] == 1000 for e in run.of("round_committed", node="fog-1"))


def softmax(options):
    return """
tiered: 1
name: own-data
run: {rounds: 3, seed: 1}
tiers:
  - {name: cloud, aggregate: [fedavg]}
  - {name: edge, fan_out: 2, trainer: {softmax: {%s, lr: 0.1}}}
""" % options


def examples():
    """Three classes that a line tells apart."""
    for i in range(300):
        c = i % 3
        yield c, (c + (i % 7) / 20, 2 - c + (i % 5) / 20)


def write_csv(path, opener=open):
    with opener(path, "wt") as f:
        f.write("first,kind,second\n")
        for c, (a, b) in examples():
            f.write("%f,%s,%f\n" % (a, ("ant", "bee", "cat")[c], b))


def own_data_as_csv_and_safetensors(place):
    write_csv(os.path.join(place.folder, "d.csv"))
    write_csv(os.path.join(place.folder, "d.csv.gz"), gzip.open)
    x = b"".join(struct.pack("<2f", *v) for _, v in examples())
    y = b"".join(struct.pack("<q", c) for c, _ in examples())
    header = json.dumps({
        "x": {"dtype": "F32", "shape": [300, 2], "data_offsets": [0, len(x)]},
        "y": {"dtype": "I64", "shape": [300], "data_offsets": [len(x), len(x) + len(y)]},
    }).encode()
    with open(os.path.join(place.folder, "d.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header + x + y)
    digests = set()
    for options in "data: d.csv, label: kind", "data: d.csv.gz, label: 1", "data: d.safetensors":
        run = up(place, place.topology(softmax(options)))
        assert run.code == 0, run.stderr
        assert run.end["metrics"]["accuracy"] > 0.6, run.end
        tensors = read_safetensors(run.end["model"])[1]
        digests.add(b"".join(tensors[name] for name in sorted(tensors)))
    assert len(digests) == 1, "the same data in three forms made different models"


def bad_data_is_named(place):
    write_csv(os.path.join(place.folder, "d.csv"))
    os.mkdir(os.path.join(place.folder, "cut"))
    for name in os.listdir(FASHION_MNIST) if os.path.isdir(FASHION_MNIST) else ():
        with open(os.path.join(FASHION_MNIST, name), "rb") as f:
            data = f.read()
        with open(os.path.join(place.folder, "cut", name), "wb") as f:
            f.write(data[:len(data) // 2] if name.startswith("train-images") else data)
    wrong = [("data: nothere", "data 'nothere' is no file or folder beside the topology"),
             ("data: ./no.csv", "/no.csv: No such file or directory"),
             ("data: d.csv, label: zebra", "no column is named 'zebra'")]
    if os.path.isdir(FASHION_MNIST):
        wrong.append(("data: cut", "train-images-idx3-ubyte.gz: the compressed data is cut off"))
    for options, words in wrong:
        run = up(place, place.topology(softmax(options)))
        assert run.code == 1 and re.search("error: node 'edge-[01]': ", run.stderr), run.stderr
        assert words in run.stderr, run.stderr


main([
    a_terminal_shows_a_block_and_keeps_the_rounds,
    the_block_is_not_disturbed_by_warnings,
    ctrl_c_is_clean_at_any_moment,
    a_reader_that_goes_away_ends_the_run,
    a_closed_or_full_stdout_is_told,
    folders_may_be_deep_relative_and_have_spaces,
    a_folder_whose_name_is_no_text_works,
    a_runs_folder_that_cannot_be_made_is_named,
    two_runs_share_a_folder,
    a_full_disk_ends_the_run_with_the_reason,
    too_few_open_files_are_told,
    large_and_deep_trees_run,
    who_is_late_is_named_and_the_round_goes_on,
    rounds_are_evaluated_when_due_and_the_last_figures_stay,
    sampling_and_globs_apply,
    own_data_as_csv_and_safetensors,
    bad_data_is_named,
])
