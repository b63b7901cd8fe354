#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""safetensors files for tests, with nothing but the standard library.

    st.py write FILE '{"w": ["F32", [2], [1, 2]]}' [KEY=VALUE]...   make a file
    st.py big FILE N SEED [KEY=VALUE]...    one F32 tensor "w" of N values
    st.py near FILE TENSOR TOLERANCE VALUE...     fail unless the values are near
    st.py names FILE       tensors in file order
    st.py meta FILE KEY    a metadata value
"""
import json
import math
import struct
import sys
from array import array

FORMATS = {"F32": "f", "F64": "d", "F16": "e", "I8": "b", "I16": "h", "I32": "i",
           "I64": "q", "U8": "B", "U16": "H", "U32": "I", "U64": "Q", "BOOL": "?"}


def write(path, tensors, metadata):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, values) in tensors.items():
        if not isinstance(values, bytes):
            values = struct.pack("<%d%s" % (len(values), FORMATS[dtype]), *values)
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def read(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), f.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, t in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = t["data_offsets"]
        width = struct.calcsize(FORMATS[t["dtype"]])
        tensors[name] = struct.unpack(
            "<%d%s" % ((end - begin) // width, FORMATS[t["dtype"]]), data[begin:end])
    return tensors, metadata


def near(path, name, tolerance, want):
    got = read(path)[0][name]
    same = len(got) == len(want) and all(
        a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= tolerance
        for a, b in zip(got, want))
    if not same:
        sys.exit("%s: %s is %s, not %s" % (path, name, list(got), want))


def pairs(words):
    return dict(word.split("=", 1) for word in words)


def big(path, n, seed, metadata):
    """Values that repeat every 65521, quickly made at any size."""
    values = array("f", (i * 2654435761 * seed % 65521 / 65521 - 0.5
                         for i in range(65521)))
    data = (values.tobytes() * (n // 65521 + 1))[:n * 4]
    write(path, {"w": ["F32", [n], data]}, metadata)


def main(verb, path, *rest):
    if verb == "write":
        write(path, json.loads(rest[0]), pairs(rest[1:]))
    elif verb == "big":
        big(path, int(rest[0]), int(rest[1]), pairs(rest[2:]))
    elif verb == "near":
        near(path, rest[0], float(rest[1]), [float(v) for v in rest[2:]])
    elif verb == "names":
        print(*read(path)[0])
    elif verb == "meta":
        print(read(path)[1].get(rest[0]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
