# SPDX-License-Identifier: Apache-2.0
"""FedNova through a tree of agents: local steps, the trainers' lengths and the sums of
examples go up, so that two tiers make the model that one makes of the same leaves."""
import array
import os
import random

from up import main, read_safetensors, up

STEPS = [1, 4, 9, 20]  # of the four leaves
TRAINER = ("{softmax: {data: %s, label: 3, batch_size: 1000, lr: 0.02, momentum: %s, "
           "mu: %s, local_steps: %d}}")
FLAT = """
tiered: 1
name: flat
run: {rounds: 1, seed: 5%s}
tiers:
  - {name: cloud, aggregate: [%s]}
  - {name: edge, fan_out: 4, trainer: %s}
nodes:
%s"""
TREE = """
tiered: 1
name: tree
run: {rounds: 1, seed: 5%s}
tiers:
  - {name: cloud, aggregate: [%s]}
  - {name: fog, aggregate: [%s]}
  - {name: edge, trainer: %s}
tree: {cloud: {fog-0: [edge-0], fog-1: [edge-1, edge-2, edge-3]}}
nodes:
%s"""


def make_data(place):
    rng = random.Random(7)
    path = os.path.join(place.folder, "data.csv")
    with open(path, "w") as f:
        f.write("a,b,c,kind\n")
        for _ in range(203):  # leaves have 50 or 51 less what is kept to test
            kind = rng.randrange(3)
            f.write("%s,k%d\n" % (",".join("%.3f" % (rng.gauss(0, 1) + 2 * (kind == i))
                                           for i in range(3)), kind))
    return path


def trainers(data, momentum, mu):
    each = [TRAINER % (data, momentum, mu, steps) for steps in STEPS]
    return each[0], "".join("  edge-%d: {trainer: %s}\n" % (i, t)
                            for i, t in enumerate(each) if i)


def model_of(place, text):
    run = up(place, place.topology(text.lstrip()))
    assert run.code == 0, run.stderr
    values = array.array("f")
    for _, data in sorted(read_safetensors(run.end["model"])[1].items()):
        values.frombytes(bytes(data))
    return values, os.path.join(run.events[0]["dir"], "initial.safetensors")


def apart(a, b):
    assert len(a) == len(b) > 0
    return max(abs(x - y) for x, y in zip(a, b))


def two_tiers_of_fednova_are_one(place):
    data = make_data(place)
    for momentum, mu in ((0, 0), (0.9, 0.5)):
        first, others = trainers(data, momentum, mu)
        flat, initial = model_of(place, FLAT % ("", "fednova", first, others))
        model = ", model: %s" % initial
        again, _ = model_of(place, FLAT % (model, "fednova", first, others))
        mean, _ = model_of(place, FLAT % (model, "fedavg", first, others))
        nova, _ = model_of(place, TREE % (model, "fednova", "fednova", first, others))
        tree, _ = model_of(place, TREE % (model, "fedavg", "fedavg", first, others))
        assert apart(again, flat) < 2e-6, apart(again, flat)
        assert apart(nova, flat) < 2e-6, apart(nova, flat)
        assert apart(tree, mean) < 2e-6, apart(tree, mean)
        assert apart(mean, flat) > 1e-3, "the steps make no difference"


def a_group_of_several_rounds_counts_by_their_steps(place):
    """The root scales by its one child's steps, whatever their sum is: nothing is lost
    on the way, and nothing counted twice."""
    first, others = trainers(make_data(place), 0, 0)
    flat, initial = model_of(place, (FLAT % ("", "fednova", first, others)).replace(
        "rounds: 1,", "rounds: 3,"))
    text = TREE % (", model: %s" % initial, "fednova", "fednova", first, others)
    tree, _ = model_of(place, text.replace(
        "fednova]}\n  - {name: edge",
        "fednova], rounds: {per_parent_round: 3}}\n  - {name: edge").replace(
            "fog-0: [edge-0], fog-1: [edge-1,", "fog-0: [edge-0, edge-1,"))
    assert apart(tree, flat) < 5e-6, apart(tree, flat)


main([two_tiers_of_fednova_are_one, a_group_of_several_rounds_counts_by_their_steps])
