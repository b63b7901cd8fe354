# SPDX-License-Identifier: Apache-2.0
"""tiered filter against numpy: fp16, bf16, int8, top-k to the bit, qsgd within its levels,
on random models of every float dtype."""
import json
import os
import subprocess
import sys
import tempfile

import bootstrap

bootstrap.enter(os.environ["TIERED_BUILD"], bootstrap.ORACLES)

import numpy as np  # noqa: E402

from oracle import FLOATS, NUMPY, TIERED, load, save, to_bf16, to_dtype  # noqa: E402

N_MODELS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
SHAPES = ((64,), (3, 50), (17, 64), (500,), (40, 30, 20), (300, 1000))
LARGEST = {"F16": 65504.0, "BF16": float(np.float32(3.3895314e38))}


def random_model(random):
    model = {}
    for i in range(int(random.integers(1, 8))):
        dtype = str(random.choice(FLOATS))
        shape = SHAPES[random.integers(len(SHAPES))]
        values = random.normal(size=shape) * 10.0 ** random.uniform(-8, 3)
        if random.integers(3) == 0:
            values = np.rint(values / np.abs(values).max() * 20) / 16  # many equal ones
        model["t%d" % i] = (dtype, np.asarray(to_dtype(dtype, values)))
    model["n"] = ("I32", np.arange(100, dtype="<i4"))
    return model


def through(model, pipe):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        done = subprocess.run([TIERED, "filter", "--json", "--pipe", pipe, "-o", out,
                               save(os.path.join(folder, "in"), model)],
                              capture_output=True, text=True)
        assert done.returncode == 0, (pipe, done.stderr)
        return load(out), json.loads(done.stdout)


def same(model, want, pipe):
    got, _ = through(model, pipe)
    assert list(got) == list(model)
    for name, (dtype, values) in model.items():
        array = got[name][1]
        expected = want(name, dtype, values) if dtype in FLOATS else values
        expected = np.asarray(expected).astype(NUMPY[dtype])
        bad = np.argwhere(array != expected)
        assert not len(bad), "%s: %s %s%s: %r became %r, not %r" % (
            pipe, dtype, name, list(bad[0]), values[tuple(bad[0])], array[tuple(bad[0])],
            expected[tuple(bad[0])])


def narrow(to):
    def want(_, dtype, values):
        if dtype in ("F16", "BF16"):
            return values
        clipped = np.clip(values.astype("<f8"), -LARGEST[to], LARGEST[to])
        return to_bf16(clipped) if to == "BF16" else clipped.astype("<f2")
    return want


def int8(rows):
    def scaled(dtype, values):
        kind = np.dtype("<f8" if dtype == "F64" else "<f4")
        values = values.astype(kind)
        largest = np.abs(values).max()
        scale = largest / kind.type(127)
        if scale * kind.type(127) < largest:
            scale = np.nextafter(scale, kind.type(np.inf))
        scale = scale if largest else kind.type(1)
        return np.rint(np.clip(values / scale, -127, 127)).astype(kind) * scale

    def want(_, dtype, values):
        if rows and values.ndim >= 2:
            out = np.stack([scaled(dtype, row) for row in values])
        else:
            out = scaled(dtype, values)
        return out if dtype in ("F32", "F64") else to_dtype(dtype, out)
    return want


def top_k(model, ratio):
    names = [n for n, (dtype, _) in model.items() if dtype in FLOATS]
    sizes = np.concatenate([np.abs(model[n][1].astype("<f8")).ravel() for n in names])
    order = np.argsort(-sizes, kind="stable")[:int(np.ceil(ratio * len(sizes)))]
    sent = np.zeros(len(sizes), bool)
    sent[order] = True
    masks, at = {}, 0
    for n in names:
        size = model[n][1].size
        masks[n] = sent[at:at + size].reshape(model[n][1].shape)
        at += size
    return lambda name, _, values: np.where(masks[name], values, 0)


def check_qsgd(random, levels, bucket, norm):
    values = random.normal(size=100001).astype("<f4")
    got, _ = through({"w": ("F32", values)},
                     "qsgd:levels=%d,bucket=%d,norm=%s" % (levels, bucket, norm))
    got = got["w"][1].astype("<f8")
    for at in range(0, len(values), bucket):
        v, g = values[at:at + bucket].astype("<f8"), got[at:at + bucket]
        size = np.abs(v).max() if norm == "linf" else np.sqrt((v * v).sum())
        steps = g / (size / levels)
        assert np.abs(steps - np.rint(steps)).max() < 1e-4, "not on levels"
        assert np.abs(g - v).max() <= size / levels * (1 + 1e-5), "more than a level away"
        assert np.all(g * v >= 0), "a sign changed"


def main():
    for seed in range(N_MODELS):
        random = np.random.default_rng(seed)
        model = random_model(random)
        same(model, narrow("F16"), "fp16")
        same(model, narrow("BF16"), "bf16 | shuffle | zstd")
        same(model, int8(False), "int8 | lzma:preset=0")
        same(model, int8(True), "int8:per=channel")
        same(model, lambda name, dtype, values: values, "shuffle | lzma:preset=0")
        for ratio in (0.25, 0.011):
            same(model, top_k(model, ratio), "top-k:ratio=%s | zstd" % ratio)
    random = np.random.default_rng(99)
    for levels, bucket in ((1, 512), (7, 100), (127, 512), (1000, 4097)):
        check_qsgd(random, levels, bucket, "l2")
        check_qsgd(random, levels, bucket, "linf")
    print("ok: %d models" % N_MODELS)


if __name__ == "__main__":
    main()
