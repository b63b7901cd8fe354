# SPDX-License-Identifier: Apache-2.0
"""The server optimizers of tiered aggregate against their papers' formulas in numpy, and
against Flower's FedAvgM, FedAdagrad, FedAdam and FedYogi."""
import logging
import os
import sys
import tempfile

import bootstrap

bootstrap.enter(os.environ["TIERED_BUILD"], bootstrap.ORACLES)
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np  # noqa: E402
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays  # noqa: E402
from flwr.server.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi  # noqa: E402

from oracle import FLOATS, NUMPY, aggregate, check, to_dtype  # noqa: E402

logging.getLogger("flwr").setLevel(logging.ERROR)
ROUNDS = 6
LAYOUT = {  # name: dtype, shape, role
    "w": ("F32", (40, 30), "parameter"), "running": ("F32", (9,), "buffer"),
    "b": ("F64", (33,), "parameter"), "scale": ("F64", (), "parameter"),
    "half": ("F16", (17,), "parameter"), "brain": ("BF16", (5, 5), "parameter"),
    "none": ("F32", (0, 4), "parameter"), "steps": ("I64", (), "buffer"),
    "index": ("I32", (6,), "parameter")}
ROLES = {"tiered.role." + name: role for name, (_, _, role) in LAYOUT.items()}


def factor(step, schedule="constant", warmup=0, **options):
    """The schedules, as their page has them."""
    if step <= warmup:
        return step / (warmup + 1)
    k = step - warmup - 1
    if schedule == "step":
        return options.get("factor", 0.1) ** (k // options["every"])
    if schedule == "exponential":
        return options["factor"] ** k
    if schedule == "cosine":
        low, n = options.get("min_factor", 0), options["rounds"]
        return low if k >= n else low + (1 - low) * (1 + np.cos(np.pi * k / n)) / 2
    return 1


class Optimizer:
    """One tensor's state; slots are f32 unless the parameter is f64."""

    def __init__(self, dtype, name, options, schedule):
        self.name, self.o, self.schedule, self.t = name, options, schedule, 0
        self.slot = lambda values: values if dtype == "F64" else values.astype("<f4").astype("<f8")
        start = 0.0 if options.get("bias_correction", "none") != "none" else options.get("tau", 0) ** 2
        self.m, self.v = np.float64(0), self.slot(np.float64(start))

    def step(self, delta):
        self.t += 1
        o, rate = self.o, self.o["lr"] * factor(self.t, **self.schedule)
        if self.name == "fedavgm":
            m = o["momentum"] * self.m + delta
            self.m = self.slot(m)
            return rate * m
        m, square = o["beta1"] * self.m + (1 - o["beta1"]) * delta, delta * delta
        if self.name == "fedadagrad":
            v = self.v + square
        elif self.name == "fedadam":
            v = o["beta2"] * self.v + (1 - o["beta2"]) * square
        else:
            v = self.v - (1 - o["beta2"]) * square * np.sign(self.v - square)
        t = {"none": None, "adam": self.t, "flower": self.t + 1}[o.get("bias_correction", "none")]
        if t:
            rate *= np.sqrt(1 - o["beta2"] ** t) / (1 - o["beta1"] ** t)
        self.m, self.v = self.slot(m), self.slot(v)
        return rate * m / (np.sqrt(v) + o["tau"])


DEFAULTS = {"fedavgm": {"lr": 1.0, "momentum": 0.0},
            "fedadagrad": {"lr": 0.1, "beta1": 0.0, "tau": 1e-3},
            "fedadam": {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
            "fedyogi": {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}}
CASES = (  # name, options, schedule
    ("fedavgm", {}, {}), ("fedavgm", {"momentum": 0.9, "lr": 0.3}, {"warmup": 3}),
    ("fedavgm", {"momentum": 0.5}, {"schedule": "step", "every": 2}),
    ("fedadagrad", {}, {}),
    ("fedadagrad", {"beta1": 0.5, "tau": 0.1}, {"schedule": "exponential", "factor": 0.7}),
    ("fedadam", {}, {}), ("fedadam", {"bias_correction": "adam", "lr": 0.02}, {"warmup": 1}),
    ("fedadam", {"bias_correction": "flower", "beta1": 0.3, "beta2": 0.8},
     {"schedule": "cosine", "rounds": 4, "min_factor": 0.1}),
    ("fedyogi", {}, {}), ("fedyogi", {"beta2": 0.5, "tau": 0.2, "lr": 1.0},
                          {"schedule": "cosine", "rounds": 9, "warmup": 2}),
)


def spec(name, options, schedule):
    pairs = dict(options)
    kind = schedule.get("schedule")
    for key, value in schedule.items():
        if key == "warmup":
            pairs[key] = value
        elif key != "schedule":
            pairs["schedule.%s.%s" % (kind, key)] = value
    return name + (":" if pairs else "") + ",".join("%s=%s" % p for p in pairs.items())


def random_tensor(random, dtype, shape, spread=1.0):
    if dtype in FLOATS:
        return np.asarray(to_dtype(dtype, random.normal(size=shape) * spread))
    return np.asarray(random.integers(-50, 50, shape)).astype(NUMPY[dtype])


def against_the_formulas(name, options, schedule):
    """Rounds of three uneven children. From round to round both sides go on from tiered's
    model, so that roundings of f16 do not add up, but each from its own state."""
    random = np.random.default_rng(len(spec(name, options, schedule)))
    o = {**DEFAULTS[name], **options}
    mine = {n: Optimizer(d, name, o, schedule) for n, (d, _, _) in LAYOUT.items()}
    model = {n: (d, random_tensor(random, d, s)) for n, (d, s, _) in LAYOUT.items()}
    counts = [7, 1, 12]
    weights = [c / sum(counts) for c in counts]
    with tempfile.TemporaryDirectory() as folder:
        for step in range(ROUNDS):
            updates = [{n: (d, random_tensor(random, d, s, 1.5)) for n, (d, s, _) in LAYOUT.items()}
                       for _ in counts]
            if step == 3:  # no change: nothing but momentum moves
                updates = [model] * 3
            want = {}
            for n, (dtype, _, role) in LAYOUT.items():
                mean = sum(w * u[n][1].astype("<f8") for w, u in zip(weights, updates))
                x = model[n][1].astype("<f8")
                steps = dtype in FLOATS and role == "parameter"
                want[n] = (dtype, x + mine[n].step(mean - x) if steps else mean)
            model = aggregate(updates, "fedavg", spec(name, options, schedule), base=model,
                              state=os.path.join(folder, "state"),
                              metadata=[{"num_examples": c, **ROLES} for c in counts])
            # f64: some roundings of the sum, of a power or of the cosine
            what = "%s, round %d" % (spec(name, options, schedule), step + 1)
            check({n: t for n, t in model.items() if t[0] != "F64"},
                  {n: t for n, t in want.items() if t[0] != "F64"}, what, ulps=1)
            for n, (dtype, values) in want.items():
                if dtype == "F64":
                    np.testing.assert_allclose(model[n][1], values, rtol=1e-13, atol=1e-14,
                                               err_msg=what + ", " + n)


class Child:
    def __init__(self, arrays, examples):
        self.result = None, FitRes(status=Status(Code.OK, ""), metrics={}, num_examples=examples,
                                   parameters=ndarrays_to_parameters(arrays))


def flower(name, initial):
    """Flower's strategy. Where the paper starts v at tau^2, so that Tiered does, it is told to."""
    start = {"initial_parameters": ndarrays_to_parameters(initial)}
    if name == "fedavgm":
        return FedAvgM(server_learning_rate=0.7, server_momentum=0.9, **start)
    strategy = {"fedadagrad": lambda: FedAdagrad(eta=0.1, tau=1e-3, **start),
                "fedadam": lambda: FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3, **start),
                "fedyogi": lambda: FedYogi(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3, **start)}[name]()
    if name != "fedadam":
        strategy.v_t = [np.full_like(x, 1e-6) for x in initial]
    return strategy


def against_flower(name, plugin, dtype, tolerance):
    """Every child and every round the same on both sides, each with its own model."""
    random = np.random.default_rng(5)
    kind = NUMPY[dtype]
    initial = [random.normal(size=(31, 7)).astype(kind), random.normal(size=11).astype(kind)]
    strategy = flower(name, initial)
    model = {"a": (dtype, initial[0]), "b": (dtype, initial[1])}
    counts = [3, 40, 17, 5]
    with tempfile.TemporaryDirectory() as folder:
        for step in range(1, ROUNDS + 1):
            updates = [[(x[1] + random.normal(size=x[1].shape) * 0.3).astype(kind)
                        for x in model.values()] for _ in counts]
            results = [Child(u, n).result for u, n in zip(updates, counts)]
            theirs, _ = strategy.aggregate_fit(step, results, [])
            model = aggregate([{"a": (dtype, u[0]), "b": (dtype, u[1])} for u in updates], "fedavg", plugin,
                              base=model, state=os.path.join(folder, "state"),
                              metadata=[{"num_examples": n} for n in counts])
            for got, want in zip(model.values(), parameters_to_ndarrays(theirs)):
                np.testing.assert_allclose(got[1], want, rtol=tolerance, atol=tolerance,
                                           err_msg="%s, %s, round %d" % (plugin, dtype, step))


for case in CASES:
    against_the_formulas(*case)
for case in (("fedavgm", "fedavgm:lr=0.7,momentum=0.9"), ("fedadagrad", "fedadagrad"),
             ("fedadam", "fedadam:bias_correction=flower"), ("fedyogi", "fedyogi")):
    against_flower(*case, "F64", 1e-12)
    against_flower(*case, "F32", 2e-5)
print("%d of the papers', 4 of Flower's" % len(CASES))
sys.exit(0)
