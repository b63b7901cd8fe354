# SPDX-License-Identifier: Apache-2.0
"""tiered aggregate against other implementations on the same files: numpy, scipy, Flower's
own functions and geom-median. Where a peer departs from its paper the paper's equations,
written out in numpy, are the measure, and the departure is shown."""
import os
import subprocess
import sys
import tempfile

import bootstrap

BUILD, SOURCE = os.environ["TIERED_BUILD"], os.environ["TIERED_SOURCE"]
bootstrap.enter(BUILD, bootstrap.ORACLES)
sys.path.insert(0, os.path.join(SOURCE, "tests", "integration"))

import flwr.server.strategy.aggregate as flower  # noqa: E402
import numpy as np  # noqa: E402
import scipy.stats  # noqa: E402
from geom_median.numpy import compute_geometric_median  # noqa: E402

import st  # noqa: E402

TIERED = os.path.join(os.environ.get("TIERED_BIN", os.path.join(BUILD, "bin")), "tiered")
TYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32"}
SHAPES = {"conv.weight": (8, 3, 3), "conv.bias": (8,), "fc.weight": (10, 72), "scale": (),
          "none": (0, 4)}
failures = 0


def check(good, *what):
    global failures
    if not good:
        failures += 1
        print("FAIL", *what)


def write(path, model, **metadata):
    st.write(path, {k: [TYPES[v.dtype.name], list(v.shape), v.tobytes()]
                    for k, v in model.items()}, {k: str(v) for k, v in metadata.items()})


def read(path, like):
    tensors, metadata = st.read(path)
    return {k: np.array(tensors[k], like[k].dtype).reshape(like[k].shape)
            for k in like}, metadata


def aggregate(rule, updates, counts=None, base=None, metadata=None, flags=()):
    """Models in, a model out."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, update in enumerate(updates):
            paths.append(os.path.join(folder, "u%03d" % i))
            extra = metadata[i] if metadata else {}
            write(paths[-1], update, num_examples=counts[i] if counts else 1, **extra)
        out = os.path.join(folder, "out")
        flags = list(flags)
        if base:
            write(os.path.join(folder, "base"), base)
            flags += ["--global", os.path.join(folder, "base")]
        done = subprocess.run([TIERED, "aggregate", "--plugin", rule, *flags, "-o", out,
                               *paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True)
        if done.returncode:
            sys.exit("%s: %s" % (rule, done.stderr))
        return read(out, updates[0])


def random_models(rng, n, dtype="float32", spread=0.1, offset=1.0):
    middle = {k: rng.normal(offset, 1, s) for k, s in SHAPES.items()}
    return [{k: (v + rng.normal(0, spread, v.shape)).astype(dtype) for k, v in middle.items()}
            for _ in range(n)]


def flat(model):
    return np.concatenate([v.astype("float64").ravel() for v in model.values()])


def same(what, got, want, tolerance=1e-6):
    want = want if isinstance(want, np.ndarray) else flat(want)
    off = np.abs(flat(got) - want).max(initial=0)
    check(off <= tolerance * max(1, np.abs(want).max(initial=0)), what, "is off by", off)


def as_flower(updates, counts):
    return [(list(u.values()), n) for u, n in zip(updates, counts)]


def from_flower(updates, arrays):
    return dict(zip(updates[0], arrays))


# ---- the papers' equations ----

def squared_distances(rows):
    return np.array([[((a - b) ** 2).sum() for b in rows] for a in rows])


def krum_scores(distances, left, f):
    nearest = max(1, len(left) - f - 2)
    return {i: np.sort([distances[i, j] for j in left if j != i])[:nearest].sum()
            for i in left}


def krum(rows, f, keep=1):
    scores = krum_scores(squared_distances(rows), range(len(rows)), f)
    return rows[sorted(scores, key=lambda i: (scores[i], i))[:keep]].mean(axis=0)


def bulyan(rows, f):
    distances, left, chosen = squared_distances(rows), list(range(len(rows))), []
    for _ in range(len(rows) - 2 * f):
        scores = krum_scores(distances, left, f)
        chosen.append(min(left, key=lambda i: (scores[i], i)))
        left.remove(chosen[-1])
    picked = np.sort(rows[chosen], axis=0)
    near = np.argsort(np.abs(picked - np.median(picked, axis=0)), axis=0, kind="stable")
    return np.take_along_axis(picked, near[:len(chosen) - 2 * f], axis=0).mean(axis=0)


def weiszfeld(rows, alpha, iterations, epsilon=1e-6):
    z = alpha @ rows
    for _ in range(iterations):
        b = alpha / np.maximum(epsilon, np.linalg.norm(rows - z, axis=1))
        z = b @ rows / b.sum()
    return z


def objective(rows, alpha, z):
    return alpha @ np.linalg.norm(rows - z, axis=1)


# ---- the rules ----

def test_means(rng):
    for dtype in ("float32", "float64", "float16"):
        tolerance = 1e-3 if dtype == "float16" else 1e-6
        for n in (1, 2, 5, 20):
            updates = random_models(rng, n, dtype)
            counts = [int(c) for c in rng.integers(1, 500, n)]
            rows = np.array([flat(u) for u in updates])
            what = "%s of %d" % (dtype, n)
            got, metadata = aggregate("fedavg", updates, counts)
            same("fedavg, numpy, " + what, got, np.average(rows, 0, counts), tolerance)
            check(metadata["num_examples"] == str(sum(counts)), "num_examples", metadata)
            if dtype != "float16":  # Flower adds in the updates' own dtype
                same("fedavg, flwr, " + what, got,
                     from_flower(updates, flower.aggregate(as_flower(updates, counts))),
                     1e-5)
            got, _ = aggregate("median", updates, counts)
            same("median, numpy, " + what, got, np.median(rows, 0), tolerance)
            if dtype != "float16":
                same("median, flwr, " + what, got, from_flower(
                    updates, flower.aggregate_median(as_flower(updates, counts))))
            got, _ = aggregate("trimmed-mean:beta=0.2", updates, counts)
            same("trimmed-mean, scipy, " + what, got,
                 scipy.stats.trim_mean(rows, 0.2, axis=0), tolerance)
            if dtype == "float64":
                same("trimmed-mean, flwr, " + what, got, from_flower(
                    updates, flower.aggregate_trimmed_avg(as_flower(updates, counts), 0.2)))


def test_krum(rng):
    for n, f, keep in ((5, 1, 1), (7, 2, 1), (12, 3, 1), (12, 3, 5), (20, 4, 9)):
        updates = random_models(rng, n)
        counts = [int(c) for c in rng.integers(1, 500, n)]
        rows = np.array([flat(u) for u in updates])
        rule = "krum:byzantine=%d,keep=%d" % (f, keep)
        got, _ = aggregate(rule, updates, counts)
        same(rule, got, krum(rows, f, keep))
        got, _ = aggregate(rule + ",weighted_by=num_examples", updates, counts)
        same(rule + ", flwr", got, from_flower(updates, flower.aggregate_krum(
            as_flower(updates, counts), f, keep if keep > 1 else 0)), 1e-5)


def test_krum_departures(rng):
    """What Flower gets wrong: an update with NaN wins, and keep above n averages fewer."""
    updates = random_models(rng, 5)
    updates[1]["fc.weight"][3, 3] = np.nan
    peer = flower.aggregate_krum(as_flower(updates, [1] * 5), 1, 0)
    check(np.isnan(peer[2]).any(), "flwr: NaN no longer wins; drop this from the docs")
    got, _ = aggregate("krum:byzantine=1", updates, flags=["--on-bad-update", "exclude"])
    rows = np.array([flat(u) for u in updates])
    rows[1] = np.inf
    with np.errstate(invalid="ignore"):
        distances = np.nan_to_num(squared_distances(rows), nan=np.inf)
    scores = krum_scores(distances, range(5), 1)
    same("krum, NaN excluded", got, rows[min((i for i in range(5) if i != 1), key=scores.get)])


def test_bulyan(rng):
    for n, f in ((3, 0), (7, 1), (8, 1), (11, 2), (16, 3)):
        updates = random_models(rng, n)
        rows = np.array([flat(u) for u in updates])
        got, _ = aggregate("bulyan:byzantine=%d" % f, updates)
        same("bulyan of %d, %d bad" % (n, f), got, bulyan(rows, f))


def test_geometric_median(rng):
    for n in (1, 2, 5, 20):
        for offset in (0.0, 1000.0):
            updates = random_models(rng, n, "float64", offset=offset)
            counts = [int(c) for c in rng.integers(1, 500, n)]
            rows = np.array([flat(u) for u in updates])
            alpha = np.array(counts) / sum(counts)
            what = "geometric-median of %d at %g" % (n, offset)
            got, _ = aggregate("geometric-median:tolerance=0,max_iterations=3", updates,
                               counts)
            if alpha.max() < 0.5:  # otherwise that update is the median
                same(what + ", 3 iterations", got, weiszfeld(rows, alpha, 3), 1e-9)
            got, _ = aggregate("geometric-median:tolerance=0,max_iterations=1000", updates,
                               counts)
            peer = compute_geometric_median(
                [[r] for r in rows], alpha, eps=1e-6, maxiter=1000, ftol=1e-20).median[0]
            ours, theirs = objective(rows, alpha, flat(got)), objective(rows, alpha, peer)
            check(ours <= theirs * (1 + 1e-9) + 1e-9, what, "objective", ours, theirs)
            if n != 2 and alpha.max() < 0.5:  # of two every point between them is one
                same(what + ", geom-median", got, peer, 1e-5)
            got, _ = aggregate("geometric-median", updates, counts)
            ours = objective(rows, alpha, flat(got))
            theirs = objective(rows, alpha, weiszfeld(rows, alpha, 100))
            check(ours <= theirs * (1 + 1e-6) + 1e-9, what, "default", ours, theirs)


def test_bounded(rng):
    updates, base = random_models(rng, 9), random_models(rng, 1)[0]
    counts = [int(c) for c in rng.integers(1, 500, 9)]
    rows, x = np.array([flat(u) for u in updates]), flat(base)
    alpha = np.array(counts) / sum(counts)
    norms = np.linalg.norm(rows - x, axis=1)
    bound = float(np.median(norms))
    got, _ = aggregate("norm-bounded:norm=%r" % bound, updates, counts, base)
    same("norm-bounded", got, x + (alpha * np.minimum(1, bound / norms)) @ (rows - x))
    v = x
    for iterations in range(1, 5):
        off = rows - v
        factors = np.minimum(1, bound / np.linalg.norm(off, axis=1))
        v = v + (factors[:, None] * off).mean(axis=0)
        got, _ = aggregate("centered-clipping:tau=%r,iterations=%d" % (bound, iterations),
                           updates, counts, base)
        same("centered-clipping, %d" % iterations, got, v)


def test_fednova(rng):
    """Local SGD on least squares, with momentum and without; flat, and in a tree."""
    n = 9
    updates, base = random_models(rng, n), random_models(rng, 1)[0]
    counts = [int(c) for c in rng.integers(1, 500, n)]
    steps = [int(s) for s in rng.integers(1, 40, n)]
    rho = 0.9
    lengths = [(t - rho * (1 - rho ** t) / (1 - rho)) / (1 - rho) for t in steps]
    rows, x = np.array([flat(u) for u in updates]), flat(base)
    p, tau = np.array(counts) / sum(counts), np.array(steps)
    for momentum in (False, True):
        a = np.array(lengths) if momentum else tau
        want = x - (p @ tau) * (p @ ((x - rows) / a[:, None]))
        told = [{"local_steps": t, **({"a_norm": repr(float(l))} if momentum else {})}
                for t, l in zip(steps, lengths)]
        got, metadata = aggregate("fednova", updates, counts, base, told)
        same("fednova", got, want)
        check(abs(float(metadata["local_steps"]) - p @ tau) < 1e-9, "tau_eff", metadata)
        groups = [aggregate("fednova", updates[i:j], counts[i:j], base, told[i:j])
                  for i, j in ((0, 1), (1, 5), (5, 9))]
        tree, metadata = aggregate(
            "fednova", [g for g, _ in groups], [int(m["num_examples"]) for _, m in groups],
            base, [{"local_steps": m["local_steps"]} for _, m in groups])
        same("fednova in a tree", tree, want, 2e-6)
        check(abs(float(metadata["local_steps"]) - p @ tau) < 1e-9, "tau_eff", metadata)


def main():
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test(np.random.default_rng(len(name)))
            print("done", name)
    sys.exit("%d failures" % failures if failures else 0)


main()
