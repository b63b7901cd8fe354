# SPDX-License-Identifier: Apache-2.0
"""topologies/topology.schema.json: what `tiered validate --schema` prints, and what a
JSON Schema validator makes of it, as an editor would."""
import difflib
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

try:
    import jsonschema
    import yaml
except ImportError as missing:
    debian = "/usr/bin/python3"  # ./dev setup installs the packages for this one
    if os.path.realpath(sys.executable) == os.path.realpath(debian):
        sys.exit(f"FAIL: {missing}; ./dev setup installs python3-yaml, python3-jsonschema")
    os.execv(debian, [debian, *sys.argv])

TIERED = os.path.join(os.environ["TIERED_BIN"], "tiered")
SOURCE = os.environ["TIERED_SOURCE"]
SCHEMA = os.path.join(SOURCE, "topologies", "topology.schema.json")
MODELINE = "# yaml-language-server: $schema=topology.schema.json"

CLOUD = "  - {name: cloud, aggregate: [fedavg]}\n"
EDGE = "  - {name: edge, fan_out: 3, trainer: {softmax: {data: d}}}\n"
TOP = "tiered: 1\ntiers:\n"
ENVIRONMENT = {"ROUNDS": "3", "SHARE": "50%", "WHICH": "fedavg", "YES": "true",
               "WHAT": "exclude"}


def run(text):
    return "run: {%s}\n" % text + TOP + CLOUD + EDGE


def rounds(text):
    return TOP + "  - {name: c, aggregate: fedavg, rounds: {%s}}\n" % text + EDGE


def key(text):
    return TOP + "  - {name: c, aggregate: fedavg, %s}\n" % text + EDGE


def aggregate(text):
    return TOP + "  - {name: c, aggregate: %s}\n" % text + EDGE


def edge(text):
    return TOP + CLOUD + "  - {name: edge, fan_out: 3, %s}\n" % text


def trainer(text):
    return edge("trainer: {softmax: {data: d, %s}}" % text)


def tree(text):
    return "tree: %s\n" % text + TOP + CLOUD + EDGE.replace("fan_out: 3, ", "")


def nodes(text):
    return TOP + CLOUD + EDGE + "nodes: {%s}\n" % text


# The loader takes these, and so must the schema.
GOOD = [
    TOP + CLOUD + EDGE,
    "name: a.b-c_9\nrun:\ndefaults:\norchestrator:\ntree:\nnodes:\n" + TOP + CLOUD + EDGE,
    "orchestrator: {host: hq.example, listen: ':7400'}\n" + TOP + CLOUD + EDGE,
    run("rounds: 3, seed: 9007199254740992, model: {from: trainer}, evaluate: {every: 0}"),
    run("stop_when: {metric: accuracy, at_least: 0.97}, evaluate: {at: leaves}"),
    run("stop_when: {metric: loss, at_most: 1e-3}"),
    run("stop_when: "),
    "run:\n  rounds: ${ROUNDS}\n  seed: ${ROUNDS}\n" + TOP + CLOUD + EDGE,
    TOP + "  - name: c\n    aggregate:\n      trimmed-mean:\n        trim: ${ROUNDS}\n"
    "    insecure: ${YES}\n    on_bad_update: ${WHAT}\n" + EDGE,
    rounds("sample: 50%, quorum: 50%, deadline: 90s, late: next, mode: sync"),
    rounds("sample: 100%, quorum: 3, late: drop, deadline: 1.5m"),
    rounds("sample: 100.0%, quorum: 99.5%, deadline: 500ms"),
    rounds("sample: 0.5%, deadline: 2h"),
    rounds("sample: '50%', quorum: '${SHARE}'"),
    rounds("buffer: [], staleness: "),
    *[key("memory: 1%s" % unit) for unit in "B KiB MiB GiB TiB KB MB GB TB".split()],
    key("memory: 1.5GiB, failover: [], personal: [], limits: {}, offline: "),
    key("insecure: true, on_bad_update: exclude"),
    key("host: '{node}.example', listen: '[::1]:7400', agent: '{tier}'"),
    aggregate("fedavg"),
    aggregate("'${WHICH}'"),
    aggregate("{trimmed-mean: {beta: 0.4}}"),
    aggregate("[median, {fedadam: {lr: 1e-1, bias_correction: adam}}, fedadam]"),
    aggregate("[fedavg: ]"),
    aggregate("[{fedavg: {weighted_by: uniform}}]"),
    trainer("shard: '{index}/{count}', partition: {dirichlet: {alpha: 1}}, label: 0"),
    trainer("partition: iid, lr: .5"),
    edge("trainer: {mlp: {data: d, hidden: [64, 32]}}, uplink: zstd, downlink: "),
    edge("trainer: {softmax: {data: d}}, uplink: [{zstd: {level: 22}}, zstd], transport: unix"),
    edge("trainer: {softmax: {data: d}}, uplink: [{secure-sum: {bits: 64}}]"),
    "defaults: {trainer: {softmax: {data: d}}, uplink: [zstd]}\n" + TOP + CLOUD
    + "  - {name: edge, fan_out: 3}\n",
    tree("{hq: [press-1, press-2]}"),
    tree("{hq: {press-1: , press-2: }}"),
    tree("{hq: [press-1: , press-2]}"),
    nodes("cloud-0: {host: cloud.example, listen: ':7400', aggregate: [median]}"),
    nodes("'edge-[01]': {host: plant-b.example, agent: gateway-b}, 'edge-*': , 'edge-?': {}"),
]

# Both refuse these: each is a good one with one thing wrong.
BAD = [
    "- a\n",
    "hello\n",
    "tiers:\n" + CLOUD + EDGE,
    "tiered: 2\ntiers:\n" + CLOUD + EDGE,
    "tiered: 1\n",
    "tiered: 1\ntiers: 3\n",
    TOP + CLOUD,
    TOP + CLOUD + EDGE + "tires: 1\n",
    "name: Plant\n" + TOP + CLOUD + EDGE,
    TOP + "  - 3\n" + EDGE,
    TOP + "  - {aggregate: [fedavg]}\n" + EDGE,
    TOP + "  - {name: cloud, fan_out: 2, aggregate: [fedavg]}\n" + EDGE,
    TOP + "  - {name: cloud, aggregate: [fedavg], trainer: {softmax: {data: d}}}\n" + EDGE,
    TOP + CLOUD + EDGE.replace("fan_out: 3", "fan_out: 0"),
    "defaults: {fan_out: 3}\n" + TOP + CLOUD + EDGE,
    "defaults: 3\n" + TOP + CLOUD + EDGE,
    run("rounds: 0"),
    run("rounds: '3'"),
    run("rounds: 2.5"),
    run("rounds: "),
    run("seed: -1"),
    run("seed: 99999999999999999999"),
    run("evaluate: {at: root}"),
    run("evaluate: {at: leafs}"),
    run("evaluate: [1]"),
    run("stop_when: {at_least: 0.9}"),
    run("stop_when: {metric: accuracy, at_least: high}"),
    run("model: m.bin"),
    run("model: {from: scratch}"),
    rounds("quorum: 120%"),
    rounds("quorum: 0"),
    rounds("quorum: 1.5"),
    rounds("sample: 0%"),
    rounds("sample: 0.5"),
    rounds("sample: 100.5%"),
    rounds("sample: {poisson: 0.5}"),
    rounds("sample: {poisson: 0%}"),
    rounds("sample: {poisson: 10%, of: 3}"),
    rounds("sample: {}"),
    rounds("deadline: 30"),
    rounds("deadline: soon"),
    rounds("deadline: 0s"),
    rounds("deadline: 3d"),
    rounds("late: keep"),
    rounds("mode: async"),
    rounds("buffer: 3"),
    rounds("quorom: 3"),
    key("memory: 512"),
    key("memory: a lot"),
    key("memory: 1kB"),
    key("failover: [sibling]"),
    key("offline: 1h"),
    key("limits: {cpu: 1}"),
    key("insecure: maybe"),
    key("insecure: 'true'"),
    key("on_bad_update: ignore"),
    key("host: [a]"),
    key("host: ''"),
    key("host: '%s'" % ("h" * 256)),
    aggregate("[]"),
    aggregate("fedavgg"),
    aggregate("fedadam"),
    aggregate("[fedavg, median]"),
    aggregate("[[fedavg]]"),
    aggregate("[{fedavg: , median: }]"),
    aggregate("[{fedavg: 3}]"),
    aggregate("[{median: {x: 1}}]"),
    aggregate("[{fedavg: {weighted_by: size}}]"),
    aggregate("[{trimmed-mean: {beta: 0.5}}]"),
    aggregate("[{trimmed-mean: {beta: x}}]"),
    aggregate("[{trimmed-mean: {bata: 0.2}}]"),
    aggregate("[fedavg, {fedadam: {lr: 0}}]"),
    aggregate("[fedavg%s]" % (", fedadam" * 16)),
    edge("trainer: softmax"),
    edge("trainer: {softmax: {lr: 0.1}}"),
    trainer("shard: [1]"),
    trainer("local_epochs: 0"),
    trainer("partition: dirichlet"),
    trainer("partition: {dirichlet: {}}"),
    trainer("partition: {dirichlet: {beta: 1}}"),
    edge("trainer: {mlp: {data: d, hidden: 64}}"),
    edge("trainer: {mlp: {data: d, hidden: [0]}}"),
    edge("trainer: {softmax: {data: d}}, uplink: [fedavg]"),
    edge("trainer: {softmax: {data: d}}, uplink: [{zstd: {level: 23}}]"),
    edge("trainer: {softmax: {data: d}}, uplink: [{secure-sum: {bits: 48}}]"),
    edge("trainer: {softmax: {data: d}}, transport: pigeon"),
    tree("{hq: [press-1], hq2: [press-2]}"),
    tree("{hq: [Press]}"),
    tree("{hq: 3}"),
    tree("{hq: [[press-1]]}"),
    tree("{}"),
    nodes("edge-0: {fan_out: 3}"),
    nodes("edge-0: {name: e}"),
    nodes("edge-0: 3"),
    nodes("Edge-0: {agent: a}"),
    nodes("edge-0: {transprot: unix}"),
]

failures = 0


def fail(text):
    global failures
    failures += 1
    print("FAIL:", text, file=sys.stderr)


class Core(yaml.SafeLoader):
    """YAML 1.2, as the editors' language server reads it: PyYAML has 1.1, in which 1e-3
    is a string and 1:30 a number."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9]+", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""])):
    Core.add_implicit_resolver("tag:yaml.org,2002:" + tag, re.compile(f"^(?:{pattern})$"),
                               list(first))


def tiered(*arguments):
    return subprocess.run([TIERED, *arguments], capture_output=True, text=True,
                          env={**os.environ, **ENVIRONMENT})


def loader_takes(texts):
    """For each text whether `tiered validate` finds no error in it, and what it says."""
    with tempfile.TemporaryDirectory(prefix="tiered-test-") as folder:
        paths = [os.path.join(folder, "%d.yaml" % i) for i in range(len(texts))]
        for path, text in zip(paths, texts):
            with open(path, "w") as f:
                f.write(text)
        done = tiered("validate", "--json", *paths)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(texts), done.stderr
    return [(line["ok"], line["errors"]) for line in lines]


def complaints(validator, text):
    errors = validator.iter_errors(yaml.load(text, Core))
    return ["/".join(map(str, e.absolute_path)) + ": " + e.message for e in errors]


def check_file(printed):
    with open(SCHEMA) as f:
        committed = f.read()
    if committed != printed:
        difference = difflib.unified_diff(committed.splitlines(), printed.splitlines(),
                                          "topologies/topology.schema.json",
                                          "tiered validate --schema", lineterm="", n=1)
        fail("topologies/topology.schema.json is not current: run ./dev docs\n"
             + "\n".join(list(difference)[:40]))


def check_documents(validator):
    """What people copy: topologies/, and the whole topologies in the pages."""
    for path in sorted(glob.glob(os.path.join(SOURCE, "topologies", "*.yaml"))):
        with open(path) as f:
            text = f.read()
        if text.splitlines()[0] != MODELINE:
            fail(f"{path}: the first line is not '{MODELINE}'")
        for problem in complaints(validator, text):
            fail(f"{path}: {problem}")
    blocks = 0
    for path in [os.path.join(SOURCE, "README.md"),
                 *sorted(glob.glob(os.path.join(SOURCE, "docs", "*.md")))]:
        with open(path) as f:
            page = f.read()
        for block in re.findall(r"^```yaml\n(.*?)^```", page, re.S | re.M):
            if re.search(r"^tiered: 1", block, re.M):
                blocks += 1
                for problem in complaints(validator, block):
                    fail(f"{path}: {problem}\n{block}")
    if not blocks:
        fail("README.md and docs/ hold no whole topology")


def check_tables(validator):
    for text, (taken, errors) in zip(GOOD, loader_takes(GOOD)):
        if not taken:
            fail(f"the loader refuses\n{text}{errors}")
        for problem in complaints(validator, text):
            fail(f"the schema refuses\n{text}{problem}")
    for text, (taken, _) in zip(BAD, loader_takes(BAD)):
        if taken:
            fail(f"the loader takes\n{text}")
        if not complaints(validator, text):
            fail(f"the schema takes\n{text}")


def check_words(schema):
    """What editors show: helps, defaults, and no key of a later version."""
    tier = schema["definitions"]["tier"]["properties"]
    trimmed = schema["definitions"]["aggregator"]["anyOf"][1]["properties"]["trimmed-mean"]
    beta = trimmed["properties"]["beta"]
    if (beta["default"], beta["minimum"], beta["exclusiveMaximum"]) != (0.2, 0, 0.5):
        fail(f"beta: {beta}")
    if not beta["description"].startswith("share of the updates cut"):
        fail(f"beta: {beta}")
    if not tier["failover"]["doNotSuggest"] or "doNotSuggest" in tier["uplink"]:
        fail("only keys of a later version are not proposed")


def sections(schema):
    """The file's mapping, a tier, and what holds keys in them."""
    waiting = [schema, schema["definitions"]["tier"]]
    while waiting:
        section = waiting.pop()
        yield section
        waiting += [k for k in section["properties"].values() if "properties" in k]


def check_defaults(schema):
    """A default is a value that its own key takes."""
    n = 0
    for section in sections(schema):
        for name, key in section["properties"].items():
            if "default" in key:
                n += 1
                part = {**section, "required": [], "definitions": schema["definitions"]}
                if not jsonschema.Draft7Validator(part).is_valid({name: key["default"]}):
                    fail(f"{name}: the default {key['default']} is refused")
    if n < 15:
        fail(f"the schema tells only {n} defaults")


def check_own_plugins():
    """The plugins of another folder; one of them sums, which only uplinks may do."""
    with tempfile.TemporaryDirectory(prefix="tiered-test-") as folder:
        name = "test-group.so"
        os.symlink(os.path.join(os.environ["TIERED_TEST_PLUGINS"], name),
                   os.path.join(folder, name))
        done = tiered("validate", "--schema", "--plugins", folder)
    parts = json.loads(done.stdout)["definitions"]
    if parts["group"]["anyOf"][0]["enum"] != ["test-group"]:
        fail(f"test-group is not in {parts['group']}")
    for pipe, taken in (("uplink", True), ("downlink", False)):
        validator = jsonschema.Draft7Validator({**parts[pipe], "definitions": parts})
        if validator.is_valid(["test-group"]) != taken:
            fail(f"{pipe}: [test-group] is {'refused' if taken else 'taken'}")


def check_usage():
    for arguments in (("--schema", "a.yaml"), ("--schema", "--json"),
                      ("--schema", "--set", "a=b")):
        done = tiered("validate", *arguments)
        if done.returncode != 2 or "--schema takes no FILE" not in done.stderr:
            fail(f"{arguments}: exit {done.returncode}, {done.stderr}")
    if "--schema" not in tiered("validate", "--help").stdout:
        fail("--help says nothing of --schema")


done = tiered("validate", "--schema")
if done.returncode or done.stderr:
    sys.exit(f"FAIL: tiered validate --schema: exit {done.returncode}: {done.stderr}")
whole = json.loads(done.stdout)
jsonschema.Draft7Validator.check_schema(whole)
check_file(done.stdout)
check_documents(jsonschema.Draft7Validator(whole))
check_tables(jsonschema.Draft7Validator(whole))
check_words(whole)
check_defaults(whole)
check_own_plugins()
check_usage()
if failures:
    sys.exit(1)
print(f"all good: {len(GOOD)} good and {len(BAD)} bad topologies")
