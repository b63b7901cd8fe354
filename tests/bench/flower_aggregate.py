# SPDX-License-Identifier: Apache-2.0
"""Flower's aggregation functions and plain numpy on rows of random f32.

usage: flower_aggregate.py ROWS PARAMETERS; commands on stdin, `flower RULE` or `numpy RULE`, are
answered by `SECONDS CPU_SECONDS COORDINATES`, or `none`. Where a function works on each coordinate by itself
(and for distances, which are sums over coordinates) a part of the coordinates is enough.
"""
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters  # noqa: E402
from flwr.server.strategy import aggregate as flower  # noqa: E402

N, PARAMETERS = int(sys.argv[1]), int(sys.argv[2])
BETA = 0.2
BYZANTINE = max((N - 3) // 2 - 1, 0)
MOST = {"fedavg": 1e8, "median": 1e7, "trimmed-mean": 1e7, "krum": 1e9 / N, "geometric-median": 1e8}


def rows(rule):
    n = int(min(PARAMETERS, MOST[rule] / N))
    rng = np.random.default_rng(1)
    return n, [rng.random(n, dtype=np.float32) - np.float32(0.5) for _ in range(N)]


def flower_fedavg(data):
    status = Status(Code.OK, "")
    results = [(None, FitRes(status, ndarrays_to_parameters([row]), 100 + i, {})) for i, row in enumerate(data)]
    return lambda: flower.aggregate_inplace(results)


def flower_of(function, *options):
    return lambda data: lambda: function([([row], 100 + i) for i, row in enumerate(data)], *options)


def numpy_fedavg(data):
    x, w = np.stack(data), np.arange(100, 100 + N, dtype=np.float32)
    return lambda: (w / w.sum()) @ x


def numpy_median(data):
    x = np.stack(data)
    return lambda: np.median(x, axis=0)


def numpy_trimmed_mean(data):
    x, k = np.stack(data), int(BETA * N)
    return lambda: np.sort(x, axis=0)[k:N - k].mean(axis=0)


def numpy_krum(data):
    x = np.stack(data)

    def krum():
        gram = x.astype(np.float64)
        gram = gram @ gram.T
        square = np.diag(gram)
        distances = np.sort(square[:, None] + square[None, :] - 2 * gram, axis=1)
        return x[np.argmin(distances[:, 1:max(N - BYZANTINE - 2, 1) + 1].sum(axis=1))]
    return krum


def numpy_geometric_median(data):
    x = np.stack(data)

    def weiszfeld(iterations=10):
        z = x.mean(axis=0)
        for _ in range(iterations):
            w = 1 / np.maximum(np.sqrt(((x - z) ** 2).sum(axis=1)), 1e-6)
            z = (w / w.sum()) @ x
        return z
    return weiszfeld


WAYS = {
    ("flower", "fedavg"): flower_fedavg,
    ("flower", "median"): flower_of(flower.aggregate_median),
    ("flower", "trimmed-mean"): flower_of(flower.aggregate_trimmed_avg, BETA),
    ("flower", "krum"): flower_of(flower.aggregate_krum, BYZANTINE, 0),
    ("numpy", "fedavg"): numpy_fedavg,
    ("numpy", "median"): numpy_median,
    ("numpy", "trimmed-mean"): numpy_trimmed_mean,
    ("numpy", "krum"): numpy_krum,
    ("numpy", "geometric-median"): numpy_geometric_median,
}


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        way = tuple(line.split())
        if way not in WAYS:
            print("none", flush=True)
            continue
        n, data = rows(way[1])
        call = WAYS[way](data)
        began, worked = time.perf_counter(), time.process_time()
        call()
        print("%.9f %.9f %d" % (time.perf_counter() - began, time.process_time() - worked, n), flush=True)


main()
