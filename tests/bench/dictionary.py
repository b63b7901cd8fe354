# SPDX-License-Identifier: Apache-2.0
"""./dev bench dictionary: bytes of updates with and without a dictionary of zstd, on networks
whose layers have running statistics and a counter each, as batch normalisation makes them.

Such a network is trained on Fashion-MNIST, a hundred batches of 32 a round, and stored after each
round with PyTorch's names, order and dtypes; dictionary_bench sends the differences.
usage: dictionary.py [--rounds R]
"""
import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.path.join(ROOT, "build")
DATA = "/usr/share/datasets/fashion-mnist"
sys.path.insert(0, os.path.join(ROOT, "tests", "interop"))
import bootstrap  # noqa: E402

bootstrap.enter(BUILD)
import numpy as np  # noqa: E402

NETWORKS = ((16, 40), (32, 20), (64, 12))  # width, hidden layers
BATCHES, BATCH, LR, MOMENTUM = 100, 32, 0.05, 0.1


def images():
    with gzip.open(os.path.join(DATA, "train-images-idx3-ubyte.gz")) as f:
        x = np.frombuffer(f.read(), np.uint8)[16:].reshape(-1, 784).astype(np.float32) / 255
    with gzip.open(os.path.join(DATA, "train-labels-idx1-ubyte.gz")) as f:
        return x, np.frombuffer(f.read(), np.uint8)[8:]


class Layer:
    """Linear without bias, batch normalisation, and ReLU where it is not the last."""

    def __init__(self, rng, inputs, outputs, last):
        scale = np.sqrt(2 / inputs)
        self.weight = (rng.standard_normal((outputs, inputs)) * scale).astype(np.float32)
        self.gain, self.bias = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
        self.mean, self.var = np.zeros(outputs, np.float32), np.ones(outputs, np.float32)
        self.batches = np.zeros((), np.int64)
        self.last = last

    def forward(self, x):
        z = x @ self.weight.T
        mean, self.v = z.mean(0), z.var(0)
        self.x, self.z = x, (z - mean) / np.sqrt(self.v + 1e-5)
        self.mean += np.float32(MOMENTUM) * (mean - self.mean)
        self.var += np.float32(MOMENTUM) * (self.v - self.var)
        self.batches += 1
        self.out = self.z * self.gain + self.bias
        out = self.out if self.last else np.maximum(self.out, 0)
        self.skips = not self.last and out.shape == x.shape
        return x + out if self.skips else out

    def backward(self, d):
        skipped = d if self.skips else 0
        if not self.last:
            d = d * (self.out > 0)
        gain, bias, dz = (d * self.z).sum(0), d.sum(0), d * self.gain
        dz = (dz - dz.mean(0) - self.z * (dz * self.z).mean(0)) / np.sqrt(self.v + 1e-5)
        back = dz @ self.weight + skipped
        for value, step in ((self.weight, dz.T @ self.x), (self.gain, gain), (self.bias, bias)):
            value -= (LR * step).astype(np.float32)
        return back

    def tensors(self, prefix):
        return {prefix + "weight": self.weight, prefix + "norm.weight": self.gain,
                prefix + "norm.bias": self.bias, prefix + "norm.running_mean": self.mean,
                prefix + "norm.running_var": self.var,
                prefix + "norm.num_batches_tracked": self.batches}


def train(layers, x, y):
    for layer in layers:
        x = layer.forward(x)
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    right = (p.argmax(1) == y).mean()
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    for layer in reversed(layers):
        p = layer.backward(p)
    return right


def write(path, layers):
    """In the order of the layers, which is also that of the blocks."""
    header, body = {}, b""
    for i, layer in enumerate(layers):
        for name, value in layer.tensors("layers.%d." % i).items():
            data = value.tobytes()
            header[name] = {"dtype": "I64" if value.dtype == np.int64 else "F32",
                            "shape": list(value.shape),
                            "data_offsets": [len(body), len(body) + len(data)]}
            body += data
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + body)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    x, y = images()
    for width, depth in NETWORKS:
        rng = np.random.default_rng(1)
        sizes = [784] + [width] * depth + [10]
        layers = [Layer(rng, a, b, i == depth) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]
        with tempfile.TemporaryDirectory() as work:
            paths, last = [], 0
            for r in range(args.rounds + 1):
                paths.append(os.path.join(work, "%d.safetensors" % r))
                write(paths[-1], layers)
                right = 0
                for _ in range(BATCHES if r < args.rounds else 0):
                    i = rng.integers(0, len(x), BATCH)
                    right += train(layers, x[i], y[i]) / BATCHES
                last = right or last
            print("%d hidden layers of %d, accuracy in the last round %.3f" % (depth, width, last),
                  flush=True)
            subprocess.run([os.path.join(BUILD, "tests", "bench", "dictionary_bench"), *paths],
                           env={**os.environ,
                                "TIERED_PLUGINS": os.path.join(BUILD, "lib", "tiered")},
                           check=True)
            print(flush=True)


main()
