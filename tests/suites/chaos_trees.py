# SPDX-License-Identifier: Apache-2.0
"""The trees of the chaos suite, and what must be true of each run of one, whatever died."""
import hmac
import json
import math
import os
import re
import sqlite3
import struct

from up import read_safetensors, tree

ROUNDS = 5
SEED = 11
MASK64 = (1 << 64) - 1


class Record:
    """What a finished run has written down."""

    def __init__(self, run):
        self.run = run
        db = sqlite3.connect(os.path.join(run.events[0]["dir"], "run.db"))
        self.rounds = {(node, path): (contributions, examples) for node, path, contributions,
                       examples in db.execute("SELECT node, path, contributions, num_examples "
                                              "FROM rounds")}
        self.counted = {}
        for parent, path, node in db.execute("SELECT parent, path, node FROM contributions"):
            self.counted.setdefault((parent, path), []).append(node)
        self.spent = {(node, noise): steps for node, noise, steps
                      in db.execute("SELECT node, noise, steps FROM privacy")}
        self.told = [json.loads(text) for text, in db.execute(
            "SELECT json FROM events WHERE event = 'round_committed' ORDER BY id")]
        db.close()


def all_rounds(record):
    """Each round of the cloud and of the fogs once, and in order."""
    assert record.run.code == 0, "exit code %d: %s" % (record.run.code, record.run.stderr)
    rounds = [e["round"] for e in record.told if e["tier"] == "cloud"]
    assert rounds == list(range(1, ROUNDS + 1)), "cloud rounds %s" % rounds
    fogs = {node for node, _ in record.rounds} - {"cloud-0"}
    want = {(fog, "%d.%d" % (i + 1, k + 1)) for fog in fogs
            for i in range(ROUNDS) for k in range(2)}
    want |= {("cloud-0", str(i + 1)) for i in range(ROUNDS)}
    assert set(record.rounds) == want, "rounds %s" % sorted(record.rounds)


def everybody_counted(record):
    all_rounds(record)
    for key, (n, _) in record.rounds.items():
        assert n == 2 and len(record.counted[key]) == 2, "a child is missing in %s %s" % key


def same_model(record, calm):
    everybody_counted(record)
    assert calm.digest in (None, record.run.model_digest()), "the model is another one"


def spent_once(record, calm):
    """As many steps of noise as there were updates, or rounds: of each node, and in the sum
    that is told."""
    del calm
    everybody_counted(record)
    released = {}
    for nodes in record.counted.values():
        for node in nodes:
            released[node] = released.get(node, 0) + 1
    for (node, noise), steps in record.spent.items():
        want = ROUNDS if noise == "central" else released[node]
        assert steps == want, "%s spent %d steps of %s noise; it released %d" % (
            node, steps, noise, want)
    for line in record.run.end["privacy"]:
        nodes = {n for n, noise in record.spent
                 if n.startswith(line["tier"]) and noise == line["noise"]}
        leaves = {n for n in released if n.startswith(line["tier"])}
        assert nodes == (leaves or {"cloud-0"}), "of %s only %s spent" % (line["tier"], nodes)
        most = max(record.spent[n, line["noise"]] for n in nodes)
        assert line["steps"] == most, "told are %d steps, not %d" % (line["steps"], most)


def noise_is_new(record, calm):
    """Central noise was drawn once a round, and the root publishes what it wrote down."""
    spent_once(record, calm)
    models = [e["model"] for e in record.told if e["tier"] == "cloud"]
    assert len(set(models)) == ROUNDS, "a model was published twice"
    assert record.run.model_digest() != calm.digest, "the noise is no secret"


# ---- secure-sum: the sum is known, for the tests' trainer is ----

def seeded(node, path, n):
    """What the tests' trainer adds to a model: HMAC of the place, xoshiro256**."""
    message = b"".join(part.encode() + b"\0" for part in ("train", node, path))
    s = list(struct.unpack("<4Q", hmac.digest(struct.pack("<Q", SEED), message, "sha256")))
    steps = []
    for _ in range(n):
        x = s[1] * 5 & MASK64
        value = ((x << 7 | x >> 57) & MASK64) * 9 & MASK64
        t = s[1] << 17 & MASK64
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = (s[3] << 45 | s[3] >> 19) & MASK64
        steps.append(((value >> 11) * 2.0 ** -53 - 0.5) * 0.01)
    return steps


class Sum:
    """What the run must come to, from who is on record as counted: each of 10 examples."""

    def __init__(self, record, n):
        self.record, self.n = record, n

    def mean(self, parts):
        """(delta, examples) of the parts together; without examples there is no result."""
        total = sum(examples for _, examples in parts)
        if not total:
            return [0.0] * self.n, 0
        return [sum(delta[i] * examples for delta, examples in parts) / total
                for i in range(self.n)], total

    def update(self, node, path):
        """What `node` sends for its parent's round `path`."""
        children = (node, path + ".1") in self.record.rounds
        return self.turn(node, path) if children else (seeded(node, path, self.n), 10)

    def round(self, node, path):
        parts = [self.update(child, path) for child in self.record.counted.get((node, path), [])]
        delta, examples = self.mean(parts)
        said = self.record.rounds[node, path]
        assert said == (len(parts), examples), "%s %s: on record are %s, not %s" % (
            node, path, said, (len(parts), examples))
        return delta, examples

    def turn(self, node, path):
        total, weight = [0.0] * self.n, 0
        for k in (1, 2):
            delta, examples = self.round(node, "%s.%d" % (path, k))
            total = [a + b for a, b in zip(total, delta)]
            weight += examples
        return total, weight

    def model(self):
        total = [0.0] * self.n
        for i in range(ROUNDS):
            delta, _ = self.round("cloud-0", str(i + 1))
            total = [a + b for a, b in zip(total, delta)]
        return total


def logs_of(run):
    """{node: its log} of a tree with an agent for each node."""
    folder = os.path.join(run.events[0]["dir"], "logs")
    return {name[:-4]: open(os.path.join(folder, name), errors="replace").read()
            for name in os.listdir(folder) if not name.startswith("@")}


TOLD = re.compile(r"round=(\S+): shares are told for the survivors (\S+)")
NAMED = re.compile(r"round=(\S+): survivors are named: (\d+) of (\d+) members")


def one_kind_of_share(logs):
    """An aggregator names the survivors of a round once, and a member tells its shares for one
    list: so of no peer both kinds. Both write that down before it leaves them."""
    for node, log in logs.items():
        lists = {}
        for path, survivors in TOLD.findall(log):
            assert lists.setdefault(path, survivors) == survivors, (
                "%s told shares for two lists in round %s" % (node, path))
        named = [path for path, _, _ in NAMED.findall(log)]
        assert len(named) == len(set(named)), "%s named survivors twice: %s" % (node, named)


WHY = r"round=%s: .*(nothing was summed|it cannot be repeated)"


def reasons(record, logs, least):
    """A round counts enough children, or nobody, and says why."""
    for (node, path), (n, _) in record.rounds.items():
        if n == 0:
            assert re.search(WHY % re.escape(path), logs[node]), (
                "%s does not say why round %s has no sum" % (node, path))
        else:
            assert n >= (2 if node == "cloud-0" else least), "%s %s: of %d" % (node, path, n)


def exact_sum(least, most_off):
    """A check: each round is the sum of those on record, within the ring's rounding."""
    def check(record, calm):
        del calm
        all_rounds(record)
        logs = logs_of(record.run)
        one_kind_of_share(logs)
        reasons(record, logs, least)
        _, tensors = read_safetensors(record.run.end["model"])
        model = struct.unpack("<%df" % (len(tensors["w"]) // 4), tensors["w"])
        want = Sum(record, len(model)).model()
        off = max(abs(a - b) for a, b in zip(model, want))
        assert off < most_off and math.isfinite(off), "the sum is off by %g" % off
    return check


# ---- the trees ----

MEAN = "{fedavg: {weighted_by: uniform}}"
CLIP = "{clip: {norm: 1.0}}"
SLOW = "parameters: 3000, delay_ms: 40"


def noisy(local="", central="", more=""):
    """cloud - 2 fogs - 2 edges each, with noise at the edges or the cloud."""
    noise = ", {gaussian: {noise_multiplier: 2%s}}" % more
    return """
tiered: 1
name: test
run: {rounds: %d, seed: %d}
tiers:
  - {name: cloud, aggregate: [%s%s]}
  - {name: fog, fan_out: 2, aggregate: [fedavg], rounds: {per_parent_round: 2}, uplink: [%s, zstd]}
  - {name: edge, fan_out: 2, trainer: {test-trainer: {%s}}, uplink: [%s%s], downlink: [zstd]}
""" % (ROUNDS, SEED, MEAN, central and noise, CLIP, SLOW, CLIP, local and noise)


def masked(fogs, edges, rules, fog_up, edge_up):
    return """
tiered: 1
name: test
run: {rounds: %d, seed: %d}
tiers:
  - {name: cloud, aggregate: [fedavg]}
  - name: fog
    fan_out: %d
    aggregate: [fedavg]
    rounds: {per_parent_round: 2%s}
    uplink: [%s]
  - name: edge
    fan_out: %d
    trainer: {test-trainer: {parameters: 1000, delay_ms: 40}}
    uplink: [%s]
""" % (ROUNDS, SEED, fogs, rules, fog_up, edges, edge_up)


# name: the topology, and the check that takes a run's record and the undisturbed run
TREES = {
    "small": (tree(SLOW, rounds=ROUNDS), same_model),
    "large": (tree("parameters: 900000, delay_ms: 10", rounds=ROUNDS), same_model),  # blocks
    "shared": (tree(SLOW, rounds=ROUNDS, edge="agent: gateway",
                    nodes="nodes: {fog-1: {agent: gateway}}"), same_model),
    "local-noise": (noisy(local="yes"), spent_once),
    "central-noise": (noisy(central="yes"), noise_is_new),
    "seeded-noise": (noisy("yes", "yes", ", insecure_seed: 5"), same_model),
    # 2^-20 is a step of the ring with 32 bits and these weights; of a mean of 30 examples
    "groups": (masked(2, 4, ", quorum: 75%", "zstd", "{secure-sum: {max_weight: 100}}"),
               exact_sum(3, 1e-5)),
    "groups-of-groups": (masked(3, 3, "", "{secure-sum: {bits: 64}}", "{secure-sum: {bits: 64}}"),
                         exact_sum(3, 1e-6)),
}
