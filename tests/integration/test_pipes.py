# SPDX-License-Identifier: Apache-2.0
"""Lossy pipes through a tree: fewer bytes, the same model from the same seed, and what top-k
keeps back outlives the agents that keep it."""
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


def text(pipe):
    """That uplink on both hops, and plain downlinks."""
    return tree(TRAINER).replace("uplink: [zstd]", "uplink: " + pipe) \
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


def what_is_kept_back_outlives_its_agent(place):
    """Killed between two rounds, a fog and an edge go on with their residuals: the model is
    that of a run that nothing disturbed."""
    topology = place.topology(text("[{top-k: {ratio: 0.05}}]"))
    want = up(place, topology).model_digest()
    killed = []

    def kill(_, event):
        if event["event"] == "round_committed" and event["path"] in ("1", "2"):
            for name in ("edge-0-1", "fog-1"):
                pid = living_pid(place, name)
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(name)

    run = up(place, topology, on_event=kill)
    assert run.code == 0, run.stderr
    assert killed and run.model_digest() == want, killed


main([every_codec_runs_in_a_tree, lossy_models_come_down, what_is_kept_back_outlives_its_agent])
