# SPDX-License-Identifier: Apache-2.0
"""./dev test --suite robustness: what attacks do to a whole tree that trains on Fashion-MNIST.

One cloud, three fogs, eleven edges each; two edges of every fog (18 %) attack in every round.
For each rule at the fogs and each attack: the accuracy after ten cloud rounds. Robust rules
must stay near what they reach without an attack; the plain mean must not, where the attack is
one that breaks it (or the attack would prove nothing). Prints the table of docs/robustness.md.
usage: robustness.py [--rules median,krum] [--attacks noise]
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

BUILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build")
EDGES, BAD = 11, (2, 7)  # of each fog
RULES = {
    "fedavg": "fedavg",
    "median": "median",
    "trimmed-mean": "{trimmed-mean: {trim: 2}}",
    "krum": "{krum: {byzantine: 2}}",
    "multi-krum": "{krum: {byzantine: 2, keep: 7}}",
    "bulyan": "{bulyan: {byzantine: 2}}",
    "geometric-median": "{geometric-median: {weighted_by: uniform}}",
    "centered-clipping": "{centered-clipping: {tau: 1.5, iterations: 3}}",
    "norm-bounded": "{norm-bounded: {norm: 1.5, weighted_by: uniform}}",
}
ATTACKS = {
    "none": "attack: honest",
    "sign-flip": "attack: sign-flip, scale: 10",
    "noise": "attack: noise, scale: 10",
    "little": "attack: little, scale: 1.5",
    "label-flip": "attack: label-flip",
    "huge": "attack: huge",
    "nan": "attack: nan",
}
BREAKS_THE_MEAN = ("sign-flip", "noise", "huge")
# A norm bound limits what an attack can do; it does not find the attackers.
BOUNDED_ONLY = ("norm-bounded",)
TOPOLOGY = """
tiered: 1
name: robustness
run: {rounds: 10, seed: 5, evaluate: {every: 10}}
tiers:
  - name: cloud
    aggregate: [{fedavg: {weighted_by: uniform}}]
  - name: fog
    fan_out: 3
    aggregate: [%(rule)s]
    on_bad_update: exclude
    rounds: {per_parent_round: 2}
  - name: edge
    fan_out: %(edges)d
    agent: "edges-{parent}"
    trainer: {mlp: {%(trainer)s}}
nodes:
"""
TRAINER = "data: fashion-mnist, hidden: [64], lr: 0.02"


def topology(rule, attack):
    text = TOPOLOGY % {"rule": RULES[rule], "edges": EDGES, "trainer": TRAINER}
    for fog in range(3):
        friends = [fog * EDGES + k for k in BAD]
        for k in BAD:
            text += "  edge-%d-%d: {trainer: {attacker: {%s, %s, accomplices: %s}}}\n" % (
                fog, k, TRAINER, ATTACKS[attack], friends)
    return text


def accuracy(work, rule, attack):
    path = os.path.join(work, "t.yaml")
    with open(path, "w") as f:
        f.write(topology(rule, attack))
    out = subprocess.run([os.path.join(BUILD, "bin", "tiered"), "up", path, "--json", "--plugins",
                          os.path.join(work, "plugins"), "--runs", os.path.join(work, "runs")],
                         capture_output=True, text=True)
    end = json.loads(out.stdout.splitlines()[-1])
    if out.returncode or end.get("status") != "finished":
        sys.exit("%s under %s: %s" % (rule, attack, out.stderr[-2000:]))
    shutil.rmtree(os.path.join(work, "runs"))
    return end["metrics"]["accuracy"]


def judge(rule, attack, clean, got):
    """Why this figure is wrong, or None."""
    if rule == "fedavg":
        return "the mean should have broken" if attack in BREAKS_THE_MEAN and got > clean - 0.1 else None
    limit = clean - (0.15 if rule in BOUNDED_ONLY else 0.05)
    return "below %.3f" % limit if got < limit else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--attacks", default=",".join(ATTACKS))
    args = parser.parse_args()
    rules, attacks = args.rules.split(","), args.attacks.split(",")
    work = tempfile.mkdtemp(prefix="tiered-robustness-")
    os.mkdir(os.path.join(work, "plugins"))
    for folder in "lib/tiered", "tests/plugins":
        for name in os.listdir(os.path.join(BUILD, folder)):
            if folder == "lib/tiered" or name == "attacker.so":
                os.symlink(os.path.join(BUILD, folder, name), os.path.join(work, "plugins", name))
    print("| rule at the fogs | " + " | ".join(attacks) + " |\n|" + " --- |" * (len(attacks) + 1))
    passed, failed = 0, []
    for rule in rules:
        row, clean = [], None
        for attack in attacks:
            got = accuracy(work, rule, attack)
            clean = got if clean is None else clean
            wrong = judge(rule, attack, clean, got)
            passed += not wrong
            failed += ["%s under %s: %.3f, %s" % (rule, attack, got, wrong)] if wrong else []
            row.append("%.3f" % got)
        print("| %s | %s |" % (rule, " | ".join(row)), flush=True)
    shutil.rmtree(work)
    for line in failed:
        print(line)
    print("%d passed, %d failed" % (passed, len(failed)))
    sys.exit(1 if failed else 0)


main()
