# SPDX-License-Identifier: Apache-2.0
"""What `tiered aggregate` is compared with: models as numpy arrays, and every dtype's rules.

A tensor is (dtype, array), the dtype as in a safetensors file. bf16, which numpy lacks,
is held as f32 whose values are bf16's.
"""
import json
import os
import struct
import subprocess
import tempfile

import numpy as np

TIERED = os.path.join(os.environ["TIERED_BIN"], "tiered")
NUMPY = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<f4", "I8": "i1", "I16": "<i2",
         "I32": "<i4", "I64": "<i8", "U16": "<u2", "U32": "<u4", "U64": "<u8"}
FLOATS = ("F32", "F64", "F16", "BF16")
INTEGERS = tuple(d for d in NUMPY if d not in FLOATS)


def to_bf16(values):
    """f64 to the nearest bf16, ties to even, without rounding to f32 on the way."""
    values = np.asarray(values, "<f8")
    mantissa, exponent = np.frexp(values)
    unit = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    return (np.rint(values / unit) * unit).astype("<f4")


def to_dtype(dtype, values):
    """f64 as the dtype: floats to the nearest, integers half to even and no further than
    their range."""
    values = np.asarray(values, "<f8")
    if dtype == "BF16":
        return to_bf16(values)
    if dtype in FLOATS:
        return values.astype(NUMPY[dtype])
    halves = np.rint(2 * values) / 2  # a quotient that is a half but for rounding
    near = np.abs(values - halves) <= 1e-12 * (1 + np.abs(halves))
    whole, info = np.rint(np.where(near, halves, values)), np.iinfo(NUMPY[dtype])
    inside = np.clip(whole, -2.0**63, 2.0**63 - 1024 if info.max < 2**63 else 2.0**64 - 2048)
    exact = inside.astype("<u8" if info.max >= 2**63 else "<i8")
    exact = np.where(whole >= float(info.max), exact.dtype.type(info.max), exact)
    return np.where(whole <= float(info.min), exact.dtype.type(info.min), exact).astype(NUMPY[dtype])


def spacing(dtype, values):
    """From one value of the dtype to the next."""
    values = np.abs(np.asarray(values, "<f8"))
    if dtype == "BF16":
        return np.ldexp(1.0, np.maximum(np.frexp(values)[1], -125) - 8)
    return np.spacing(values.astype(NUMPY[dtype])).astype("<f8")


def save(path, model, **metadata):
    header, data = {"__metadata__": {k: str(v) for k, v in metadata.items()}}, b""
    for name, (dtype, array) in model.items():
        array = np.asarray(array, NUMPY[dtype])
        raw = (array.view("<u4") >> 16).astype("<u2").tobytes() if dtype == "BF16" else array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    return path


def load(path):
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    header.pop("__metadata__", None)
    model = {}
    for name, t in header.items():
        raw = data[slice(*t["data_offsets"])]
        if t["dtype"] == "BF16":
            array = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            array = np.frombuffer(raw, NUMPY[t["dtype"]])
        model[name] = (t["dtype"], array.reshape(t["shape"]))
    return model


def aggregate(updates, *plugins, base=None, state=None, flags=(), metadata=None):
    """The models, each with its metadata, through `tiered aggregate`."""
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name)
        command = [TIERED, "aggregate", "-o", path("out"), *flags]
        for plugin in plugins:
            command += ["--plugin", plugin]
        if base is not None:
            command += ["--global", save(path("base"), base)]
        if state is not None:
            command += ["--state", state]
        for i, update in enumerate(updates):
            command.append(save(path("u%d" % i), update, **(metadata[i] if metadata else {})))
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, "%s: %s" % (" ".join(command), done.stderr)
        return load(path("out"))


def check(got, want, what, ulps=0):
    """want: f64 values as computed, before they are the dtype's. Integers must be equal,
    floats at most `ulps` of their dtype away."""
    assert list(got) == list(want), (what, list(got), list(want))
    for name, (dtype, values) in want.items():
        array = got[name][1]
        rounded = to_dtype(dtype, values)
        assert got[name][0] == dtype and array.shape == rounded.shape, (what, name)
        if dtype in FLOATS:
            far = np.abs(array.astype("<f8") - rounded) > ulps * spacing(dtype, rounded)
            bad = far | (np.isnan(array) != np.isnan(rounded))
        else:
            bad = array != rounded
        if bad.any():
            i = tuple(np.argwhere(bad)[0])
            raise AssertionError("%s: %s %s%s is %r, not %r" % (
                what, dtype, name, list(i), array[i], rounded[i]))
