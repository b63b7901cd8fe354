# SPDX-License-Identifier: Apache-2.0
"""tree-bagging against XGBoost and scikit-learn: models trained on shards, bagged by tiered
aggregate, loaded and asked; what they say is the sum, or the mean, of all trees."""
import json
import os
import subprocess
import sys

import bootstrap

bootstrap.enter(os.environ["TIERED_BUILD"], bootstrap.ORACLES)
sys.path.insert(0, os.path.join(os.environ["TIERED_SOURCE"], "tests", "integration"))

import numpy as np  # noqa: E402
import xgboost as xgb  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits  # noqa: E402
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier  # noqa: E402

from up import main  # noqa: E402

TIERED = os.path.join(os.environ["TIERED_BIN"], "tiered")
CANCER = (load_breast_cancer(return_X_y=True), {"objective": "binary:logistic"}, 0.0)
DIGITS = (load_digits(return_X_y=True), {"objective": "multi:softprob", "num_class": 10}, 0.5)
DIABETES = (load_diabetes(return_X_y=True), {"objective": "reg:squarederror"}, 0.5)
PARALLEL = {"num_parallel_tree": 3, "subsample": 0.6, "colsample_bynode": 0.5}


class Bag:
    """Files in a test's folder, and the command run on them."""

    def __init__(self, place):
        self.folder, self.n, self.text = place.folder, 0, ""

    def path(self, name):
        return os.path.join(self.folder, name + ".safetensors")

    def save(self, tensors, **metadata):
        self.n += 1
        path = self.path("u%d" % self.n)
        save_file(tensors, path, metadata={k: str(v) for k, v in metadata.items()})
        return path

    def model(self, raw, **metadata):
        if isinstance(raw, xgb.Booster):
            raw = raw.save_raw("ubj")
        elif isinstance(raw, dict):
            raw = json.dumps(raw).encode()
        return self.save({"model": np.frombuffer(bytes(raw), np.uint8)}, **metadata)

    def run(self, updates, code=0, base=None, out="out", options="", more=()):
        command = [TIERED, "aggregate", "--plugin", "tree-bagging" + options, "-o",
                   self.path(out), *more, *(["--global", base] if base else []), *updates]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, (done.returncode, done.stderr)
        self.text = done.stderr
        return load_file(self.path(out)) if code == 0 else None

    def merged(self, updates, **options):
        return self.run(updates, **options)["model"].tobytes()

    def refused(self, updates, *words, **options):
        self.run(updates, code=1, **options)
        for word in words:
            assert word in self.text, "'%s' is not in: %s" % (word, self.text)


def train(data, params, shard, rounds=2, start=None, **more):
    x, y = data
    own = xgb.DMatrix(x[shard::3], y[shard::3])
    params = {"max_depth": 3, "eta": 0.3, "base_score": 0.5, "seed": shard, "nthread": 1,
              **params, **more}
    return xgb.train(params, own, rounds, xgb_model=start)


def booster(raw):
    made = xgb.Booster()
    made.load_model(bytearray(raw))
    return made


def parts(model):
    raw = bytes(model.save_raw("json")) if isinstance(model, xgb.Booster) else model
    return json.loads(raw)["learner"]["gradient_booster"]["model"]


def margin(model, data):
    return model.predict(xgb.DMatrix(data[0]), output_margin=True).astype(np.float64)


def check_merge(raw, models, data, start):
    """All trees, unchanged and in order, and margins that add up."""
    made, want = booster(raw), sum(margin(m, data) - start for m in models) + start
    assert np.abs(margin(made, data) - want).max() <= 4e-6 * np.abs(want).max()
    all_parts = [parts(m) for m in models]
    trees = [t for p in all_parts for t in p["trees"]]
    got = parts(made)
    assert len(trees) == len(made.get_dump()) and len(trees) == int(
        got["gbtree_model_param"]["num_trees"])
    assert [t["id"] for t in got["trees"]] == list(range(len(trees)))
    assert [{**t, "id": 0} for t in got["trees"]] == [{**t, "id": 0} for t in trees]
    assert got["tree_info"] == [i for p in all_parts for i in p["tree_info"]]
    assert made.num_boosted_rounds() == sum(m.num_boosted_rounds() for m in models)
    ends = np.cumsum([0] + [len(p["trees"]) for p in all_parts])
    assert got["iteration_indptr"] == [0] + [
        int(e + i) for p, e in zip(all_parts, ends) for i in p["iteration_indptr"][1:]]
    return made


def models_of_every_kind_add_up(place):
    for data, params, start in (CANCER, DIGITS, DIABETES):
        for more in ({}, PARALLEL):
            models = [train(data, params, k, rounds=1 + k, **more) for k in range(3)]
            for form in ("ubj", "json"):
                bag = Bag(place)
                raw = bag.merged([bag.model(m.save_raw(form), num_examples=10 + k)
                                  for k, m in enumerate(models)])
                made = check_merge(raw, models, data, start)
                # a file that XGBoost itself could have written
                assert raw == bytes(made.save_raw(form))


def pruned_trees_keep_their_deleted_nodes(place):
    data, params, _ = DIABETES
    prune = {**params, "tree_method": "exact", "gamma": 50000, "max_depth": 6}
    models = [train(data, prune, k) for k in range(3)]
    assert all(int(t["tree_param"]["num_deleted"]) for t in parts(models[0])["trees"])
    for forms in (("ubj",) * 3, ("json", "ubj", "json")):
        bag = Bag(place)
        updates = [bag.model(m.save_raw(f)) for m, f in zip(models, forms)]
        check_merge(bag.merged(updates), models, data, 0.5)


def encodings_mix(place):
    data, params, start = DIGITS
    models = [train(data, params, k) for k in range(3)]
    for forms in (("json", "ubj", "json"), ("ubj", "json", "ubj")):
        bag = Bag(place)
        raw = bag.merged([bag.model(m.save_raw(f)) for m, f in zip(models, forms)])
        made = check_merge(raw, models, data, start)
        assert raw == bytes(made.save_raw(forms[0]))


def a_global_model_is_extended_round_by_round(place):
    for data, params, start in (CANCER, DIGITS):
        bag, everything, base = Bag(place), [], None
        for _ in range(3):
            full = [train(data, params, k, start=base and booster(base), eta=0.1)
                    for k in range(3)]
            new = [m[booster(base).num_boosted_rounds():] for m in full] if base else full
            everything += new
            update = [bag.model(m.save_raw("ubj")) for m in new]
            # the first update's encoding, whatever the global model's is
            as_json = base and bag.model(booster(base).save_raw("json"))
            base = bag.merged(update, base=as_json)
            assert base[:2] == b"{L"
            check_merge(base, everything, data, start)
        x, y = data
        said = booster(base).predict(xgb.DMatrix(x))
        right = (said.argmax(1) if said.ndim > 1 else said > 0.5) == y
        assert right.mean() > 0.95, right.mean()


def groups_append_to_the_flat_model(place):
    data, params, _ = DIGITS
    bag = Bag(place)
    base = bag.model(train(data, params, 0, rounds=1))
    updates = [bag.model(train(data, params, k % 3, seed=k)) for k in range(5)]
    flat = bag.merged(updates, base=base)
    left = bag.merged(updates[:2])
    right = bag.merged(updates[2:])
    assert bag.merged([bag.model(left), bag.model(right)], base=base) == flat
    assert bag.merged([updates[3]]) == load_file(updates[3])["model"].tobytes()
    assert bag.merged(updates, base=base) == flat
    assert bag.merged(updates, base=base, more=["--delta"]) == flat


def names_and_categories_and_attributes_are_kept(place):
    rng, bag = np.random.default_rng(3), Bag(place)
    x = np.stack([rng.integers(0, 7, 300), rng.normal(size=300)], 1).astype(np.float32)
    y = (np.isin(x[:, 0], [1, 4, 6]) * 2.0 + x[:, 1]).astype(np.float32)
    names, models = ['say "ä"\n', "b\\c"], []
    for k in range(2):
        own = xgb.DMatrix(x[k::2], y[k::2], feature_names=names, feature_types=["c", "q"],
                          enable_categorical=True)
        model = xgb.train({"max_depth": 3, "base_score": 0.0, "max_cat_to_onehot": 1}, own, 4)
        model.set_attr(note='"quoted"', best_iteration="1")
        models.append(model)
    assert any(t["categories"] for t in parts(models[0])["trees"])
    every = xgb.DMatrix(x, feature_names=names, feature_types=["c", "q"],
                        enable_categorical=True)
    want = sum(m.predict(every) for m in models)
    for forms in (("json", "json"), ("ubj", "ubj"), ("json", "ubj"), ("ubj", "json")):
        made = booster(bag.merged([bag.model(m.save_raw(f)) for m, f in zip(models, forms)]))
        assert np.abs(made.predict(every) - want).max() < 1e-5
        assert made.feature_names == names and made.feature_types == ["c", "q"]
        assert made.attributes() == {"note": '"quoted"'}, made.attributes()


def models_that_do_not_fit_are_refused_with_the_cure(place):
    data, params, _ = CANCER
    x, y = data
    bag = Bag(place)
    ours = bag.model(train(data, params, 0))
    two = bag.model(train(data, params, 1, base_score=0.25))
    bag.refused([ours, two], "base_score is", "set base_score explicitly", os.path.basename(two))
    for p, d, words in (
            ({"objective": "binary:hinge"}, data, "objective is binary:hinge"),
            (params, (x[:, :7], y), "num_feature is 7, and 30"),
            ({**params, "num_parallel_tree": 2}, data, "num_parallel_tree is 2, and 1")):
        bag.refused([ours, bag.model(train(d, p, 1))], words)
    digits, p, _ = DIGITS
    few = digits[1] < 9
    bag.refused([bag.model(train(digits, p, 0)), bag.model(
        train((digits[0][few], digits[1][few]), {**p, "num_class": 9}, 0))],
        "num_class is 9, and 10")
    auto = [xgb.train({**params}, xgb.DMatrix(x[k::3][:60], y[k::3][:60]), 1) for k in range(2)]
    scores = [json.loads(bytes(m.save_raw("json")))["learner"]["learner_model_param"][
        "base_score"] for m in auto]
    assert scores[0] != scores[1]
    bag.refused([bag.model(m) for m in auto], "set base_score explicitly")
    # against the global model too; or left out
    bag.refused([two], "the model before the round", "base_score", base=ours)
    raw = bag.merged([ours, two], base=ours, more=["--on-bad-update", "exclude"])
    assert "excluded" in bag.text and len(booster(raw).get_dump()) == 4


def other_boosters_are_refused(place):
    (x, y), params, _ = DIABETES
    bag, own = Bag(place), xgb.DMatrix(x, y)
    bag.refused([bag.model(xgb.train({"booster": "dart"}, own, 1))], "'dart'")
    bag.refused([bag.model(xgb.train({"booster": "gblinear"}, own, 1))], "'gblinear'")
    both = xgb.DMatrix(x, np.stack([y, -y], 1))
    many = {"tree_method": "hist", "base_score": 0.5}
    bag.refused([bag.model(xgb.train({**many, "multi_strategy": "multi_output_tree"}, both, 1))],
                "vectors of 2", "one_output_per_tree")
    models = [xgb.train({**many, "max_depth": k}, both, 2) for k in (1, 2)]
    check_merge(bag.merged([bag.model(m) for m in models]), models, (x, y), 0.5)
    bag.refused([bag.save({"a": np.zeros(3, np.uint8), "b": np.zeros(3, np.uint8)})],
                "one U8 tensor", options=":format=xgboost")
    bag.refused([bag.model(b"binf\0\0")], "save_raw('ubj')")


def a_strangers_trees_are_checked(place):
    data, params, _ = CANCER
    bag = Bag(place)
    good = train(data, params, 0)
    text = bytes(good.save_raw("json"))

    def spoilt(change):
        model = json.loads(text)
        change(model["learner"]["gradient_booster"]["model"])
        return [bag.model(good), bag.model(model)]

    def tree(key, index, value):
        return spoilt(lambda m: m["trees"][1][key].__setitem__(index, value))

    bag.refused(tree("left_children", 1, 0), "tree 1: node 1 has children 0")
    bag.refused(tree("left_children", 0, 9999), "tree 1: node 0 has children 9999")
    bag.refused(tree("right_children", 2, 1), "tree 1:")
    bag.refused(tree("parents", 1, 1), "its parent is 1")
    bag.refused(tree("split_indices", 0, 30), "splits feature 30 of 30")
    bag.refused(tree("split_conditions", -1, float("nan")), "has NaN")
    bag.refused(tree("split_conditions", -1, float("inf")), "has an infinite value")
    bag.refused(spoilt(lambda m: m["trees"][1]["left_children"].pop()), "'left_children' is not")
    bag.refused(spoilt(lambda m: m["trees"].pop()), "num_trees is 2")
    bag.refused(spoilt(lambda m: m["tree_info"].__setitem__(0, 1)), "tree 0: its tree_info")
    bag.refused(spoilt(lambda m: m["iteration_indptr"].__setitem__(1, 7)), "iteration_indptr")
    raw = bytes(good.save_raw("ubj"))
    for cut in range(1, len(raw), 97):
        bag.refused([bag.model(raw[:cut])], "error")
    assert len(booster(bag.merged(tree("parents", 1, 1), more=[
        "--on-bad-update", "exclude"])).get_dump()) == 2


def growth_has_a_bound(place):
    data, params, _ = CANCER
    bag = Bag(place)
    three = [bag.model(train(data, params, k)) for k in range(3)]
    assert bag.merged(three, options=":max_trees=6")
    bag.refused(three, "would have 6 trees, and max_trees is 5", options=":max_trees=5")
    bag.refused(three, "it has 2 trees, and max_trees is 1", options=":max_trees=1")


# ---- forests: what docs/aggregate.md shows ----

def export(forest):
    tensors = {}
    for k, tree in enumerate(e.tree_ for e in forest.estimators_):
        value = tree.value.reshape(tree.node_count, -1).astype(np.float64)
        tensors["t%d.left" % k] = tree.children_left.astype(np.int32)
        tensors["t%d.right" % k] = tree.children_right.astype(np.int32)
        tensors["t%d.feature" % k] = tree.feature.astype(np.int32)
        tensors["t%d.threshold" % k] = tree.threshold.astype(np.float64)
        tensors["t%d.value" % k] = value
    return tensors


def predict(forest, x):
    x, n, total = np.asarray(x, np.float32), len(forest) // 5, 0
    for k in range(n):
        left, right, feature, threshold, value = (
            forest["t%d.%s" % (k, a)] for a in ("left", "right", "feature", "threshold", "value"))
        node = np.zeros(len(x), np.int64)
        while (inner := left[node] >= 0).any():
            goes_left = x[np.arange(len(x)), feature[node]] <= threshold[node]
            node = np.where(inner, np.where(goes_left, left[node], right[node]), node)
        total = total + value[node]
    return total / n


def forests_are_united(place):
    x, y = load_digits(return_X_y=True)
    bag = Bag(place)
    grown = [RandomForestClassifier(5 + k, random_state=k, max_depth=6 + k).fit(
        x[k::3], y[k::3]) for k in range(3)]
    files = [bag.save(export(f)) for f in grown]
    union = bag.run(files)
    want = sum(len(f.estimators_) * f.predict_proba(x) for f in grown) / 18
    assert len(union) == 5 * 18
    assert np.abs(predict(union, x) - want).max() < 1e-12
    # in order, bit for bit, and extended
    for k, name in ((0, "t0.value"), (5, "t0.value"), (17, "t6.threshold")):
        mine = export(grown[0 if k == 0 else 1 if k == 5 else 2])[name]
        assert np.array_equal(union["t%d.%s" % (k, name.split(".")[1])], mine)
    flat = bag.run(files[1:], base=files[0])
    assert flat.keys() == union.keys()
    assert all(np.array_equal(flat[k], union[k]) for k in union)
    for name in ("t17.left", "t17.value"):
        assert union[name].dtype == (np.int32 if "left" in name else np.float64)
    # a border that only float32 has: 0.1 in float32 is above 0.1
    x, y = load_diabetes(return_X_y=True)
    grown = [ExtraTreesRegressor(4, random_state=k).fit(x[k::2], y[k::2]) for k in range(2)]
    union = bag.run([bag.save(export(f)) for f in grown])
    want = np.mean([f.predict(x) for f in grown], 0)
    assert np.abs(predict(union, x)[:, 0] - want).max() < 1e-9


def forests_that_do_not_fit_are_refused(place):
    x, y = load_digits(return_X_y=True)
    bag = Bag(place)
    grown = [RandomForestClassifier(2, random_state=k, max_depth=3).fit(x[y < n], y[y < n])
             for k, n in enumerate((10, 9))]
    good, other = (export(f) for f in grown)
    bag.refused([bag.save(good), bag.save(other)], "9 outputs, and 10", "same classes")

    def spoilt(name, value):
        return [bag.save({**good, name: value})]

    def changed(name, index, value):
        array = good[name].copy()
        array[index] = value
        return spoilt(name, array)

    bag.refused(spoilt("t0.left", good["t0.left"].astype(np.int64)), "astype('int32')")
    bag.refused(spoilt("t0.value", good["t0.value"].ravel()), "reshape(nodes, -1)")
    bag.refused(spoilt("t1.feature", good["t1.feature"][1:]), "'t1.feature'")
    bag.refused(spoilt("bias", np.zeros(2)), "'bias' is none of a forest's")
    bag.refused(changed("t1.left", 0, 0), "tree 1: node 0 has the child 0")
    bag.refused(changed("t1.right", 0, 1), "which another has too")
    bag.refused(changed("t0.right", 0, 1000), "none of its nodes")
    bag.refused(changed("t0.feature", 0, -1), "splits feature -1")
    bag.refused(changed("t0.value", 1, np.nan), "'t0.value' has NaN")
    without = {k: v for k, v in good.items() if k != "t1.value"}
    bag.refused([bag.save(without)], "t1.")
    done = subprocess.run([TIERED, "aggregate", "--plugin", "fedavg", "-o", bag.path("o"),
                           bag.save(good)], capture_output=True, text=True)
    assert done.returncode == 1 and "tree-bagging" in done.stderr, done.stderr


main([
    models_of_every_kind_add_up,
    pruned_trees_keep_their_deleted_nodes,
    encodings_mix,
    a_global_model_is_extended_round_by_round,
    groups_append_to_the_flat_model,
    names_and_categories_and_attributes_are_kept,
    models_that_do_not_fit_are_refused_with_the_cure,
    other_boosters_are_refused,
    a_strangers_trees_are_checked,
    growth_has_a_bound,
    forests_are_united,
    forests_that_do_not_fit_are_refused,
])
