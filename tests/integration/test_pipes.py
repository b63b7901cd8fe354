# SPDX-License-Identifier: Apache-2.0
"""Pipes through a tree: fewer bytes, the same model from the same seed, and what top-k keeps back
and zstd has learnt outlives the agents that keep it."""
import os
import signal

from up import living_pid, main, tree, up

TRAINER = "parameters: 20000, delay_ms: 20"
PIPES = {
    "[shuffle, zstd]": 1.0,
    "[shuffle, {lzma: {preset: 1}}]": 1.0,
    "[fp16]": 0.55,
    "[bf16, shuffle, zstd]": 0.55,
    "[{int8: {per: channel}}, zstd]": 0.3,
    "[{qsgd: {levels: 7}}, zstd]": 0.15,
    "[{qsgd: {levels: 1, norm: linf, packing: elias}}]": 0.1,
    "[{top-k: {ratio: 0.05}}]": 0.1,
}


def text(pipe, trainer=TRAINER):
    """That uplink on both hops, and plain downlinks."""
    return tree(trainer).replace("uplink: [zstd]", "uplink: " + pipe) \
                        .replace("downlink: [zstd]", "downlink: []")


def bytes_up(run):
    return sum(e["bytes_up"] for e in run.of("round_committed"))


def every_codec_runs_in_a_tree(place):
    plain = bytes_up(up(place, place.topology(text("[]"))))
    for pipe, share in PIPES.items():
        topology = place.topology(text(pipe))
        runs = [up(place, topology) for _ in range(2)]
        assert all(r.code == 0 for r in runs), (pipe, runs[0].stderr)
        assert bytes_up(runs[0]) < share * plain, (pipe, bytes_up(runs[0]), plain)
        assert runs[0].model_digest() == runs[1].model_digest(), pipe


def lossy_models_come_down(place):
    for pipe in ("[int8]", "[fp16, shuffle, zstd]"):
        run = up(place, place.topology(text("[]").replace("downlink: []", "downlink: " + pipe)))
        assert run.code == 0 and len(run.of("round_committed")) == 15, (pipe, run.stderr)


def killer(place, killed):
    """Between two rounds, twice: a fog and an edge of the other one."""
    def kill(_, event):
        if event["event"] == "round_committed" and event["path"] in ("1", "2"):
            for name in ("edge-0-1", "fog-1"):
                pid = living_pid(place, name)
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(name)
    return kill


def what_is_kept_back_outlives_its_agent(place):
    """Killed between two rounds, a fog and an edge go on with their residuals: the model is
    that of a run that nothing disturbed."""
    topology = place.topology(text("[{top-k: {ratio: 0.05}}]"))
    want = up(place, topology).model_digest()
    killed = []
    run = up(place, topology, on_event=killer(place, killed))
    assert run.code == 0, run.stderr
    assert killed and run.model_digest() == want, killed


def last_filter(run, *nodes):
    """{(node, path): bytes behind the uplink's last filter}, as the updates' heads tell."""
    return {(e["node"], e["path"]): e["filters_up"][-1]["bytes"]
            for e in run.of("round_committed") if e["node"] in nodes}


def a_dictionary_outlives_its_agent(place):
    """Sixty layers with a counter behind each: no block is large. Every round but the first
    sends less than without, by more than a dictionary takes; and agents that are killed go on
    with theirs: the same bytes, and always the same model."""
    nodes = "cloud-0", "fog-0", "fog-1"
    trainer = TRAINER + ", layers: 60"
    for front, share in ("", 0.98), ("{qsgd: {levels: 7}}, ", 0.85):
        plain = up(place, place.topology(text("[%szstd]" % front, trainer)))
        topology = place.topology(text("[%s{zstd: {dictionary: true}}]" % front, trainer))
        run, again = up(place, topology), up(place, topology)
        sent, without = last_filter(run, *nodes), last_filter(plain, *nodes)
        assert len(sent) == 15 and sent == last_filter(again, *nodes), (sent, without)
        for (node, path), n in sent.items():
            first = path in ("1", "1.1")
            assert n == without[node, path] if first else \
                n + 2 * 400 < without[node, path] and n < share * without[node, path], \
                (front, node, path, n, without)
        killed = []
        disturbed = up(place, topology, on_event=killer(place, killed))
        assert killed and disturbed.code == 0, disturbed.stderr
        # fog-1's own figures died with it; those of its parent tell what it sent
        assert last_filter(disturbed, "cloud-0", "fog-0") == last_filter(run, "cloud-0", "fog-0")
        models = {r.model_digest() for r in (plain, run, again, disturbed)}
        assert len(models) == 1, models


def a_dictionary_stays_off_downlinks(place):
    """A parent keeps nothing between models that it hands out: the bytes are those without."""
    down = "downlink: [{zstd: {dictionary: true}}]"
    plain = text("[]", TRAINER + ", layers: 60").replace("downlink: []", "downlink: [zstd]")
    runs = [up(place, place.topology(t))
            for t in (plain, plain.replace("downlink: [zstd]", down))]
    assert runs[0].code == 0 and runs[1].code == 0, runs[1].stderr
    figures = [{(e["node"], e["path"]): e["bytes_down"] for e in r.of("round_committed")}
               for r in runs]
    assert figures[0] == figures[1], figures
    assert runs[0].model_digest() == runs[1].model_digest()


main([every_codec_runs_in_a_tree, lossy_models_come_down, what_is_kept_back_outlives_its_agent,
      a_dictionary_outlives_its_agent, a_dictionary_stays_off_downlinks])
