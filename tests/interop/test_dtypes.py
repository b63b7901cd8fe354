# SPDX-License-Identifier: Apache-2.0
"""tiered aggregate against numpy, on random models of every dtype: many tensors, empty
ones, scalars, in any order; parameters and deltas; fedavg, median, trimmed-mean."""
import os
import sys

import bootstrap

bootstrap.enter(os.environ["TIERED_BUILD"], bootstrap.ORACLES)

import numpy as np  # noqa: E402

from oracle import FLOATS, INTEGERS, NUMPY, aggregate, check, to_dtype  # noqa: E402

N_MODELS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
SHAPES = ((), (1,), (0,), (3, 0, 2), (7,), (2, 3), (5, 1, 4), (300,), (70, 80), (1, 1, 1, 1))


def random_layout(random):
    """Tensors by name: dtype, shape and role."""
    n = int(random.integers(1, 25))
    dtypes = random.choice(list(NUMPY), n)
    return {"t%d.%s" % (i, "é" if i % 7 == 3 else "w"): (
        str(dtypes[i]), SHAPES[random.integers(len(SHAPES))],
        str(random.choice(["parameter", "buffer"]))) for i in range(n)}


def random_values(random, dtype, shape):
    """Over the whole range for a third of the tensors, with ties for another."""
    kind = random.integers(3)
    if dtype in FLOATS:
        spread = {0: 1.0, 1: 10.0 ** random.uniform(-6, 4), 2: 1.0}[int(kind)]
        values = random.normal(size=shape) * spread
        return np.asarray(to_dtype(dtype, np.rint(values * 4) / 4 if kind == 2 else values))
    info = np.iinfo(NUMPY[dtype])
    # means of integers are formed in f64, which holds them up to 2^53
    low, high = max(info.min, -2**52), min(info.max, 2**52)
    if kind == 2:
        low, high = max(low, -9), 9
    return np.asarray(random.integers(low, high, shape, endpoint=True)).astype(NUMPY[dtype])


def random_model(random, layout):
    names = list(layout)
    random.shuffle(names)
    return {name: (layout[name][0], random_values(random, *layout[name][:2])) for name in names}


def wide(update, name):
    return update[name][1].astype("<f8")


def mean(rows, weights):
    """In child order; the first row is stored, not added to 0."""
    total = None
    for row, weight in zip(rows, weights):
        if weight:
            total = weight * row if total is None else total + weight * row
    return total


def by_counts(counts):
    counts = np.asarray(counts, "<f8")
    return counts / sum(float(c) for c in counts)


def trimmed(rows, k):
    rows = np.sort(np.stack(rows), axis=0)
    return rows[k:len(rows) - k].mean(axis=0)


def wrap_delta(update, base):
    """u - x in the dtype: floats are rounded, integers wrap."""
    out = {}
    for name, (dtype, array) in update.items():
        with np.errstate(over="ignore"):
            difference = array - base[name][1]
        if dtype in FLOATS:
            difference = to_dtype(dtype, wide(update, name) - wide(base, name))
        out[name] = (dtype, difference)
    return out


def signed(dtype, array):
    return array.astype("<f8") if dtype in FLOATS else array.view("<i%d" % array.itemsize).astype("<f8")


class Case:
    def __init__(self, seed):
        random = self.random = np.random.default_rng(seed)
        self.what = "seed %d" % seed
        self.n = int(random.integers(1, 10))
        self.layout = random_layout(random)
        self.updates = [random_model(random, self.layout) for _ in range(self.n)]
        self.examples = [int(e) for e in random.integers(0, 2000, self.n)]
        self.examples[random.integers(self.n)] += 1  # at least one
        self.steps = [round(float(s), 2) for s in random.uniform(0.1, 50, self.n)]
        roles = {"tiered.role." + name: role for name, (_, _, role) in self.layout.items()}
        self.metadata = [{"num_examples": e, "local_steps": s, **roles}
                         for e, s in zip(self.examples, self.steps)]

    def rows(self, name):
        return [wide(u, name) for u in self.updates]

    def result(self, rule):
        """In the order of the first update's tensors."""
        return {name: (self.layout[name][0], rule(self.rows(name))) for name in self.updates[0]}

    def run(self, *plugins, updates=None, **more):
        return aggregate(updates or self.updates, *plugins, metadata=self.metadata, **more)


def fedavg_by(case):
    for option, counts in (("num_examples", case.examples), ("uniform", [1] * case.n),
                           ("local_steps", case.steps)):
        weights = by_counts(counts)
        got = case.run("fedavg:weighted_by=" + option)
        check(got, case.result(lambda rows: mean(rows, weights)),
              "%s, fedavg by %s" % (case.what, option), ulps=1)


def order_statistics(case):
    check(case.run("median"), case.result(lambda rows: np.median(np.stack(rows), axis=0)),
          case.what + ", median", ulps=1)
    beta = round(float(case.random.uniform(0, 0.49)), 3)
    check(case.run("trimmed-mean:beta=%g" % beta),
          case.result(lambda rows: trimmed(rows, int(beta * case.n))),
          "%s, trimmed-mean of %g" % (case.what, beta), ulps=2)
    trim = int(case.random.integers(0, (case.n + 1) // 2))
    check(case.run("trimmed-mean:trim=%d" % trim),
          case.result(lambda rows: trimmed(rows, trim)),
          "%s, trimmed-mean by %d" % (case.what, trim), ulps=2)


def deltas(case):
    """Given deltas: with --global the new model, without it the mean of the deltas."""
    base = random_model(case.random, case.layout)
    updates = [wrap_delta(u, base) for u in case.updates]
    weights = by_counts(case.examples)
    want, plain = {}, {}
    for name in base:
        dtype = case.layout[name][0]
        step = mean([signed(dtype, u[name][1]) for u in updates], weights)
        want[name] = (dtype, step + wide(base, name))
    got = case.run("fedavg", updates=updates, base=base, flags=["--delta"])
    check(got, want, case.what + ", deltas onto a model", ulps=1)
    for name in updates[0]:
        dtype = case.layout[name][0]
        kind = dtype.replace("U", "I")
        step = mean([signed(dtype, u[name][1]) for u in updates], weights)
        plain[name] = (dtype, to_dtype(kind, step).view(NUMPY[dtype]) if kind in INTEGERS else step)
    got = case.run("fedavg", updates=updates, flags=["--delta"])
    for name, (dtype, values) in plain.items():
        if dtype in INTEGERS:  # the bits of the signed one: no number of the dtype's own
            assert (got[name][1] == values).all(), (case.what, name)
    floats = {n: t for n, t in plain.items() if t[0] in FLOATS}
    check({n: got[n] for n in floats}, floats, case.what + ", the mean of deltas", ulps=1)


def one_child_and_copies(case):
    """One child, and the same one many times, come back bit for bit."""
    one = case.updates[0]
    for plugin in "fedavg:weighted_by=uniform", "median", "trimmed-mean:beta=0.2":
        for copies in 1, 4:
            got = aggregate([one] * copies, plugin)
            assert list(got) == list(one)
            for name, (dtype, array) in one.items():
                assert (got[name][1].tobytes() == array.tobytes()), (case.what, plugin, copies, name)


def excluded(case):
    """A child with a NaN leaves the others' result."""
    floats = [n for n, (d, s, _) in case.layout.items() if d in FLOATS and np.prod(s) > 0]
    if not floats:
        return
    bad = {n: (d, a.copy()) for n, (d, a) in case.updates[-1].items()}
    bad[floats[0]][1].flat[-1] = [np.nan, np.inf, -np.inf][case.n % 3]
    metadata = case.metadata + [{**case.metadata[-1], "num_examples": 2**53}]
    for plugin in "fedavg", "median", "trimmed-mean:trim=0":
        want = case.run(plugin)
        got = aggregate(case.updates + [bad], plugin, metadata=metadata,
                        flags=["--on-bad-update", "exclude"])
        for name in want:
            assert got[name][1].tobytes() == want[name][1].tobytes(), (case.what, plugin, name)


for seed in range(N_MODELS):
    for test in fedavg_by, order_statistics, deltas, one_child_and_copies, excluded:
        test(Case(seed))
print("%d models" % N_MODELS)
sys.exit(0)
