/* SPDX-License-Identifier: Apache-2.0 */
/* core/topology: what a topology may say, and how each mistake is explained. */
#include "topology_kit.h"

/* The rows of a table mostly differ in one line of a sound topology. */
#define TOP   "tiered: 1\ntiers:\n"
#define CLOUD "  - {name: cloud, aggregate: [fedavg]}\n"
#define FOG   "  - {name: fog, fan_out: 2, aggregate: [fedavg]}\n"
#define EDGE  "  - {name: edge, fan_out: 3, trainer: {softmax: {data: d}}}\n"
#define NAME_RULE                                                                      \
    "a name has 1 to 63 of a-z 0-9 . _ - and begins with a letter or digit"

struct row {
    const char *text, *want;
};

static void check(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        TIERED_FREE char *got = kit_problems_of(rows[i].text, NULL, 0);
        assert_string_equal(got, rows[i].want);
    }
}

static void test_structure(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {TOP CLOUD EDGE, "ok"},
        {TOP CLOUD FOG EDGE, "ok"},
        {"", "1:1: the file is empty"},
        {"---\n", "2:1: the file is empty"},
        {"- a\n", "1:1: the file must be a mapping of keys, not a list"},
        {"hello\n", "1:1: the file must be a mapping of keys, not 'hello'"},
        {"tiered: 2\ntiers:\n" CLOUD EDGE, "1:9: tiered must be 1, not '2'"},
        {"tiers:\n" CLOUD EDGE,
         "1:1: the format's version is missing: write 'tiered: 1' first"},
        {"tiered: 1\n", "1:1: tiers is missing: a list of tiers, root first"},
        {"tiered: 1\ntiers: 3\n", "2:8: tiers must be a list, root first"},
        {TOP CLOUD, "3:3: 1 tier; a topology has 2 to 16, root first"},
        {TOP CLOUD EDGE "tires: 1\n",
         "5:1: unknown key 'tires'; did you mean 'tiers'?"},
        {TOP CLOUD EDGE "wings: 2\n",
         "5:1: unknown key 'wings'; known are tiered, name, run, defaults, "
         "orchestrator, tiers, tree, nodes"},
        {TOP CLOUD EDGE "tiered: 1\n",
         "5:1: duplicate key 'tiered'; the first is in line 1, column 1"},
        {"name: Plant\n" TOP CLOUD EDGE, "1:7: name 'Plant' is no name: " NAME_RULE},
        {TOP "  - 3\n" EDGE,
         "3:5: tier 1: a tier is a mapping that begins with its name"},
        {TOP "  - {aggregate: [fedavg]}\n" EDGE,
         "3:5: tier 1 needs a name, such as 'name: edge'"},
        {TOP CLOUD "  - {name: cloud, fan_out: 1, trainer: {softmax: {data: d}}}\n",
         "4:12: a second tier 'cloud'; the first is in line 3, column 12"},
        {TOP CLOUD "  - {name: edge, trainer: {softmax: {data: d}}}\n",
         "4:5: tier 'edge' needs fan_out, the number of nodes under each parent"},
        {TOP "  - {name: cloud, fan_out: 2, aggregate: [fedavg]}\n" EDGE,
         "3:19: tier 'cloud': the root tier has one node and no fan_out; a tree has "
         "one "
         "root"},
        {TOP CLOUD "  - {name: edge, fan_out: 0, trainer: {softmax: {data: d}}}\n",
         "4:27: tier 'edge': fan_out must be a whole number from 1 to 1000000, not "
         "'0'"},
        {TOP CLOUD "  - {name: fog, fan_out: 1000, aggregate: [fedavg]}\n"
                   "  - {name: edge, fan_out: 1000, trainer: {softmax: {data: d}}}\n",
         "5:18: tier 'edge': with this fan_out the tree has more than 1000000 nodes, "
         "which is the most"},
        {TOP "  - {name: c}\n" EDGE,
         "3:5: tier 'c' has children and needs aggregate, such as 'aggregate: "
         "[fedavg]'"},
        {TOP CLOUD "  - {name: edge, fan_out: 2}\n",
         "4:5: tier 'edge' has no children and needs a trainer, such as 'trainer: "
         "{mlp: "
         "{data: fashion-mnist}}'"},
    };
    check(rows, TIERED_COUNT(rows));
}

static void test_scope(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {TOP CLOUD "  - {name: edge, fan_out: 3, rounds: {quorum: 50%}, trainer: "
                   "{softmax: {data: d}}}\n",
         "4:30: tier 'edge' has no children and runs no rounds; 'rounds' belongs to "
         "tier 'cloud' above, whose nodes run rounds over these"},
        {TOP CLOUD "  - {name: edge, fan_out: 3, aggregate: [fedavg], trainer: "
                   "{softmax: {data: d}}}\n",
         "4:30: tier 'edge' has no children to aggregate; 'aggregate' belongs to the "
         "tiers above, a leaf has 'trainer'"},
        {TOP
         "  - {name: cloud, aggregate: [fedavg], trainer: {softmax: {data: d}}}\n" EDGE,
         "3:40: tier 'cloud' has children and trains nothing; 'trainer' belongs to the "
         "last tier"},
        {TOP "  - {name: cloud, aggregate: [fedavg], uplink: [], transport: unix, "
             "rounds: {per_parent_round: 2}}\n" EDGE,
         "3:40: warning: tier 'cloud': links lead to the parent, and the root has "
         "none; "
         "this has no effect\n"
         "3:52: warning: tier 'cloud': links lead to the parent, and the root has "
         "none; "
         "this has no effect\n"
         "3:78: warning: tier 'cloud': per_parent_round means nothing at the root, "
         "which "
         "has no parent; run.rounds is the number of its rounds"},
        {"defaults: {fan_out: 3}\n" TOP CLOUD EDGE,
         "1:12: defaults: 'fan_out' says what the tree is; it stands in tiers alone"},
        {"defaults: {rounds: {quorum: 50%}, trainer: {softmax: {data: d}}, aggregate: "
         "fedavg, uplink: [], on_bad_update: exclude}\n" TOP
         "  - name: cloud\n  - {name: edge, fan_out: 3}\n",
         "ok"},
        {"defaults: 3\n" TOP CLOUD EDGE,
         "1:11: defaults must be a mapping of keys, not '3'"},
    };
    check(rows, TIERED_COUNT(rows));
}

static void test_values(void **state)
{
    (void)state;
#define RUN(text)    "run: {" text "}\n" TOP CLOUD EDGE
#define ROUNDS(text) TOP "  - {name: c, aggregate: fedavg, rounds: {" text "}}\n" EDGE
#define KEY(text)    TOP "  - {name: c, aggregate: fedavg, " text "}\n" EDGE
    static const struct row rows[] = {
        {RUN("rounds: 3, seed: 9, model: {from: trainer}, evaluate: {every: 0}"), "ok"},
        {RUN("rounds: 0"),
         "1:15: run.rounds must be a whole number from 1 to 1000000000, not '0'"},
        {RUN("rounds: '3'"), "1:15: run.rounds must be a whole number from 1 to "
                             "1000000000, not '3' in quotes"},
        {RUN("rounds: "),
         "1:15: run.rounds must be a whole number from 1 to 1000000000, "
         "and nothing is written"},
        {RUN("seed: -1"), "1:13: run.seed must be a whole number from 0 to "
                          "9007199254740992, not '-1'"},
        {RUN("seed: 99999999999999999999"),
         "1:13: run.seed must be a whole number from 0 to 9007199254740992, not "
         "'99999999999999999999'"},
        {RUN("evaluate: {at: root}"),
         "1:22: run.evaluate.at 'root' is not in this version; 'leaves' is"},
        {RUN("evaluate: {at: leafs}"), "1:22: run.evaluate.at must be one of leaves, "
                                       "root, not 'leafs'"},
        {RUN("evaluate: [1]"), "1:17: run.evaluate must be a mapping, not a list"},
        {RUN("stop_when: {metric: accuracy}"),
         "1:7: run.stop_when needs metric and one of at_least and at_most, such as "
         "{metric: accuracy, at_least: 0.97}, or epsilon"},
        {RUN("stop_when: {epsilon: 0}"),
         "1:19: run.stop_when.epsilon must be above 0, not 0"},
        {RUN("stop_when: {epsilon: 1, metric: loss}"),
         "1:7: run.stop_when needs metric and one of at_least and at_most, such as "
         "{metric: accuracy, at_least: 0.97}, or epsilon"},
        {RUN("stop_when: {epsilon: 8}"),
         "1:7: run.stop_when.epsilon is a budget, and no tier spends any: it needs "
         "noise behind a clip, such as {gaussian: {noise_multiplier: 1.1}}"},
        {RUN("stop_when: {metric: accuracy, at_least: high}"),
         "1:47: run.stop_when.at_least must be a number, not 'high'"},
        {RUN("stop_when: {metric: loss, at_most: 1}, evaluate: {every: 0}"),
         "1:7: run.stop_when needs evaluations, and run.evaluate.every is 0"},
        {RUN("model: m.bin"),
         "1:14: run.model must be {from: trainer} or the path of a "
         ".safetensors file, not 'm.bin'"},
        {RUN("model: {from: scratch}"),
         "1:14: run.model must be {from: trainer} or the path of a .safetensors file, "
         "not a mapping"},
        {ROUNDS("sample: 50%, quorum: 50%, deadline: 90s, late: next"), "ok"},
        {ROUNDS("quorum: 3, sample: 100%, mode: sync"), "ok"},
        {ROUNDS("quorum: 120%"), "3:51: tier 'c': rounds.quorum must be a share above "
                                 "0% and up to 100%, such as "
                                 "75%, or a number of children, not '120%'"},
        {ROUNDS("quorum: 0"), "3:51: tier 'c': rounds.quorum must be a share above 0% "
                              "and up to 100%, such as "
                              "75%, or a number of children, not '0'"},
        {ROUNDS("sample: 0.5"),
         "3:51: tier 'c': rounds.sample must be a share above 0% "
         "and up to 100%, such as 50%, or such a chance, {poisson: 50%}, not '0.5'"},
        {ROUNDS("sample: {poisson: 10%}"), "ok"},
        {ROUNDS("sample: {poisson: 0.5}"),
         "3:51: tier 'c': rounds.sample must be a share above 0% "
         "and up to 100%, such as 50%, or such a chance, {poisson: 50%}, not a "
         "mapping"},
        {ROUNDS("sample: {poisson: 10%, of: 3}"),
         "3:51: tier 'c': rounds.sample must be a share above 0% "
         "and up to 100%, such as 50%, or such a chance, {poisson: 50%}, not a "
         "mapping"},
        {ROUNDS("sample: {poisson: 50%}, quorum: 2"),
         "3:67: tier 'c': a quorum of 2 children may be more than poisson asks; a "
         "share of those asked works, such as 100%"},
        {ROUNDS("deadline: 30"),
         "3:53: tier 'c': rounds.deadline needs a unit: 30s, 30m"},
        {ROUNDS("deadline: soon"), "3:53: tier 'c': rounds.deadline must be a duration "
                                   "such as 500ms, 30s, 10m or 2h, not 'soon'"},
        {ROUNDS("deadline: 0s"),
         "3:53: tier 'c': rounds.deadline must be above zero; leave it out for none"},
        {ROUNDS("late: keep"),
         "3:49: tier 'c': rounds.late must be one of drop, next, not 'keep'"},
        {ROUNDS("mode: async"),
         "3:49: tier 'c': rounds.mode 'async' is not in this version; 'sync' is"},
        {ROUNDS("buffer: 3"),
         "3:51: tier 'c': rounds.buffer is not in this version; leave it out"},
        {ROUNDS("max_staleness: 3"),
         "3:58: tier 'c': rounds.max_staleness is not in this version; leave it out"},
        {ROUNDS("quorom: 3"),
         "3:43: tier 'c': unknown key 'rounds.quorom'; did you mean 'quorum'?"},
        {KEY("memory: 512"), "3:42: tier 'c': memory needs a unit: 512MiB, 512GiB"},
        {KEY("memory: a lot"), "3:42: tier 'c': memory must be a size such as 64KiB, "
                               "512MiB or 1GiB, not 'a lot'"},
        {KEY("failover: []"), "ok"},
        {KEY("failover: [sibling]"),
         "3:44: tier 'c': failover is not in this version; leave it out"},
        {KEY("offline: 1h"),
         "3:43: tier 'c': offline is not in this version; leave it out"},
        {KEY("limits: {cpu: 1}"),
         "3:42: tier 'c': limits is not in this version; leave it out"},
        {KEY("personal: [head]"),
         "3:44: tier 'c': personal is not in this version; leave it out"},
        {KEY("insecure: true"), "ok"},
        {KEY("insecure: maybe"),
         "3:44: tier 'c': insecure must be true or false, not 'maybe'"},
        {KEY("on_bad_update: ignore"), "3:49: tier 'c': on_bad_update must be one of "
                                       "reject, exclude, allow, not 'ignore'"},
        {KEY("on_bad_update: allow"), "ok"},
        {KEY("host: '{nodes}'"),
         "3:40: tier 'c': host has an unknown {nodes}; did you mean {node}?"},
        {KEY("host: [a]"), "3:40: tier 'c': host must be text, not a list"},
    };
    check(rows, TIERED_COUNT(rows));
}

static void test_plugins(void **state)
{
    (void)state;
#define AGGREGATE(text) TOP "  - {name: c, aggregate: " text "}\n" EDGE
#define TRAINER(text)   TOP CLOUD "  - {name: edge, fan_out: 3, trainer: " text "}\n"
#define UPLINK(text)                                                                   \
    TOP CLOUD "  - {name: edge, fan_out: 3, trainer: {softmax: {data: d}}, " text "}"  \
              "\n"
    static const struct row rows[] = {
        {AGGREGATE("fedavg"), "ok"},
        {AGGREGATE("{trimmed-mean: {beta: 0.4}}"), "ok"},
        {AGGREGATE("[median, {fedadam: {lr: 0.1}}]"), "ok"},
        {AGGREGATE("[fedavg: ]"), "ok"},
        {AGGREGATE("[]"),
         "3:26: tier 'c': aggregate needs an aggregator, such as [fedavg]"},
        {AGGREGATE("fedavgg"),
         "3:26: tier 'c': unknown aggregator 'fedavgg'; did you mean 'fedavg'?"},
        {AGGREGATE("kafka"), "3:26: tier 'c': plugin 'kafka' is not in this version"},
        {AGGREGATE("[[fedavg]]"),
         "3:27: tier 'c': a plugin is written NAME or {NAME: {OPTION: VALUE}}"},
        {AGGREGATE("[{fedavg: 3}]"),
         "3:36: tier 'c': the options of 'fedavg' must be a mapping"},
        {AGGREGATE("[{trimmed-mean: {beta: 0.5}}]"),
         "3:49: aggregator 'trimmed-mean' of tier 'c': option 'beta' must be a number "
         "in "
         "[0, 0.5), not '0.5'"},
        {AGGREGATE("[{trimmed-mean: {beta: x}}]"),
         "3:49: aggregator 'trimmed-mean' of tier 'c': option 'beta' must be a number "
         "in "
         "[0, 0.5), not 'x'"},
        {AGGREGATE("[{trimmed-mean: {bata: 0.2}}]"),
         "3:43: unknown option 'bata' of aggregator 'trimmed-mean' of tier 'c'; did "
         "you "
         "mean 'beta'?"},
        {AGGREGATE("[{trimmed-mean: {beta: 0.4, trim: 1}}]"),
         "3:28: aggregator 'trimmed-mean' of tier 'c': trimmed-mean takes beta or "
         "trim, "
         "not both"},
        {TOP "  - {name: c, aggregate: median, on_bad_update: allow}\n" EDGE,
         "3:34: tier 'c': on_bad_update: allow lets no sense come out of 'median'; "
         "reject or exclude would work"},
        {TRAINER("softmax"),
         "4:39: option 'data' of trainer 'softmax' of tier 'edge' is required"},
        {TRAINER("{softmax: {data: 'x{indx}'}}"),
         "4:56: trainer 'softmax' of tier 'edge': option 'data': unknown {indx}; did "
         "you "
         "mean {index}?"},
        {TRAINER("{softmax: {data: 'x{{indx}}{\"a\":1}'}}"), "ok"},
        {UPLINK("uplink: test-lossy, downlink: [test-lossy]"), "ok"},
        {UPLINK("uplink: [test-lossy, test-group]"),
         "4:70: tier 'edge': 'test-lossy' is a lossy codec, and 'test-group' behind it "
         "cannot sum what it makes; leave 'test-lossy' out: masked updates do not "
         "compress"},
        {UPLINK("uplink: [fedavg]"),
         "4:70: tier 'edge': 'fedavg' is an aggregator, and a pipe is made of filters"},
        {UPLINK("uplink: [test-group, test-lossy]"),
         "4:82: tier 'edge': 'test-group' adds in a ring, so no lossy filter may "
         "follow "
         "it; put 'test-group' last"},
        {UPLINK("downlink: [test-group]"),
         "4:72: tier 'edge': 'test-group' sums updates on their way up; it belongs in "
         "uplink"},
        {TOP "  - {name: cloud, aggregate: median}\n"
             "  - {name: edge, fan_out: 3, trainer: {softmax: {data: d}}, uplink: "
             "test-group}\n",
         "3:30: tier 'cloud': 'median' needs single updates, and 'test-group' in the "
         "uplink of tier 'edge' hides them; fedavg works on sums"},
    };
    check(rows, TIERED_COUNT(rows));
}

static void test_meaning(void **state)
{
    (void)state;
#define TWO_DEADLINES(above, rounds)                                                   \
    TOP "  - {name: cloud, aggregate: fedavg, rounds: {deadline: " above "}}\n"        \
        "  - {name: fog, fan_out: 2, aggregate: fedavg, rounds: {" rounds "}}\n" EDGE
    static const struct row rows[] = {
        {TOP "  - {name: c, aggregate: fedavg, rounds: {quorum: 4}}\n" EDGE,
         "3:43: tier 'c': a quorum of 4 is above the number of children: 'c-0' has 3"},
        {TOP
         "  - {name: c, aggregate: fedavg, rounds: {quorum: 3, sample: 50%}}\n" EDGE,
         "3:43: tier 'c': a quorum of 3 can never be met: sample asks 2 of the 3 "
         "children of 'c-0'"},
        {TWO_DEADLINES("1m", "per_parent_round: 2, deadline: 30s"), "ok"},
        {TWO_DEADLINES("1m", "per_parent_round: 3, deadline: 30s"),
         "4:78: tier 'fog': 3 rounds with a deadline of 30.0s cannot fit the deadline "
         "of "
         "tier 'cloud', 1m 00s"},
        {TOP "  - {name: c, aggregate: {trimmed-mean: {beta: 0.1}}}\n" EDGE,
         "3:27: warning: tier 'c': trimmed-mean with beta 0.1 cuts nothing from 3 "
         "updates; 0.34 would cut one on each side"},
        {TOP "  - {name: c, aggregate: trimmed-mean, rounds: {sample: 50%}}\n" EDGE,
         "3:26: warning: tier 'c': trimmed-mean with beta 0.2 cuts nothing from 2 "
         "updates; no beta can"},
        {TOP "  - {name: c, aggregate: {trimmed-mean: {trim: 2}}}\n" EDGE,
         "3:27: warning: tier 'c': trimmed-mean with trim 2 leaves nothing of 3 "
         "updates"},
        {TOP "  - {name: c, aggregate: krum}\n" EDGE, "ok"},
        {TOP "  - {name: c, aggregate: {krum: {byzantine: 1}}}\n" EDGE,
         "3:27: warning: tier 'c': krum with byzantine 1 is proven for 5 updates and "
         "more, and there are 3"},
        {TOP "  - {name: c, aggregate: {krum: {byzantine: 1}}, rounds: {quorum: 4}}\n"
             "  - {name: edge, fan_out: 5, trainer: {softmax: {data: d}}}\n",
         "3:27: warning: tier 'c': krum with byzantine 1 is proven for 5 updates and "
         "more, and a round may close with its quorum of 4"},
        {TOP "  - {name: c, aggregate: {krum: {byzantine: 1, keep: 5}}}\n"
             "  - {name: edge, fan_out: 5, trainer: {softmax: {data: d}}}\n",
         "3:27: warning: tier 'c': krum keeps 5 of 5 updates of which 1 may be bad; at "
         "most 4 are safe"},
        {TOP "  - {name: c, aggregate: bulyan}\n" EDGE, "ok"},
        {TOP "  - {name: c, aggregate: {bulyan: {byzantine: 1}}}\n" EDGE,
         "3:27: tier 'c': bulyan with byzantine 1 needs 7 updates, and there are 3; "
         "krum needs 5"},
        {TOP "  - {name: c, aggregate: bulyan, rounds: {quorum: 50%}}\n" EDGE,
         "3:26: warning: tier 'c': bulyan with byzantine 0 needs 3 updates: a round "
         "that closes with its quorum of 2 has no result"},
        {TOP "  - {name: c, aggregate: median, rounds: {sample: 50%}}\n" EDGE,
         "3:26: warning: tier 'c': median of 2 updates outvotes none; it takes 3"},
        {TOP "  - {name: c, aggregate: geometric-median, rounds: {sample: 1%}}\n" EDGE,
         "3:26: warning: tier 'c': geometric-median of 1 update outvotes none; it "
         "takes "
         "3"},
        {TOP "  - {name: c, aggregate: [fedavg, fedadam]}\n"
             "  - {name: fog, fan_out: 2, aggregate: fedavg}\n"
             "  - {name: mist, fan_out: 2, aggregate: [median, fedadam]}\n" EDGE,
         "5:42: warning: tier 'mist': 'fedadam' keeps state here and 'fedadam' keeps "
         "state at tier 'c' above; an optimizer belongs at the root alone"},
        {TOP CLOUD EDGE "nodes: {edge-0: {host: a}, cloud-0: {host: b}}\n",
         "5:18: node 'edge-0': transport 'unix' works within one host, and this is 'a' "
         "while node 'cloud-0' is on 'b'"},
        {TOP CLOUD
         "  - {name: fog, fan_out: 2, aggregate: fedavg, listen: ':7400'}\n" EDGE,
         "4:48: nodes 'fog-0' and 'fog-1' have one address, ':7400'; give each its own "
         "listen or host"},
        {TOP CLOUD
         "  - {name: fog, fan_out: 2, aggregate: fedavg, listen: ':740{index}'}\n" EDGE,
         "ok"},
        {TOP CLOUD "  - {name: fog, fan_out: 2, aggregate: fedavg}\n" EDGE
                   "nodes: {fog-0: {listen: ':74'}, fog-1: {listen: '0.0.0.0:74'}}\n",
         "6:41: nodes 'fog-0' and 'fog-1' have one address, '0.0.0.0:74'; give each "
         "its "
         "own listen or host"},
    };
    check(rows, TIERED_COUNT(rows));
}

static void test_nodes(void **state)
{
    (void)state;
#define NODES(text) TOP CLOUD FOG EDGE "nodes: " text "\n"
    static const struct row rows[] = {
        {NODES("{fog-1: {memory: 1GiB}, 'edge-*': {agent: a}, '*': {insecure: true}}"),
         "ok"},
        {NODES("[a]"), "6:8: nodes must be a mapping of names or globs to tier keys"},
        {NODES("{fog-2: {host: a}}"),
         "6:9: nodes: there is no node 'fog-2'; did you mean 'fog-0'?"},
        {NODES("{'edge-7-*': {host: a}}"), "6:9: nodes: no node's name matches "
                                           "'edge-7-*'; the nodes are 'cloud-0' to "
                                           "'edge-1-2'"},
        {NODES("{fog-1: {fan_out: 2}}"),
         "6:17: node 'fog-1': 'fan_out' says what the tree is; it stands in tiers "
         "alone"},
        {NODES("{fog-1: 2}"), "6:16: node 'fog-1' must be a mapping of keys, not '2'"},
        {NODES("{edge-1-1: {rounds: {quorum: 50%}}}"),
         "6:20: node 'edge-1-1': 'rounds' means nothing here: it has no children, and "
         "this belongs to the nodes above"},
        {NODES("{fog-1: {trainer: {softmax: {data: d}}}}"),
         "6:17: node 'fog-1': 'trainer' means nothing here: it has children, and this "
         "belongs to leaves"},
        {NODES("{cloud-0: {uplink: []}}"),
         "6:19: node 'cloud-0': 'uplink' means nothing here: it is the root, which has "
         "no parent"},
        {NODES("{fog-1: {rounds: {quorum: 9}}}"),
         "6:26: node 'fog-1': a quorum of 9 is above the number of children: 'fog-1' "
         "has 3"},
        {NODES("{'edge-1-*': {uplink: test-lossy, downlink: []}}"), "ok"},
        {NODES("{edge-1-1: {uplink: [], downlink: []}}"), "ok"},
        {NODES("{edge-1-1: {uplink: test-lossy}}"),
         "6:20: node 'edge-1-1': an uplink other than its siblings' is not in this "
         "version; give all children of 'fog-1' the same"},
        {NODES("{edge-1-0: {downlink: test-lossy}}"),
         "6:20: node 'edge-1-0': a downlink other than its siblings' is not in this "
         "version; give all children of 'fog-1' the same"},
        {NODES("{fog-1: {agent: 'A b'}}"),
         "6:17: node 'fog-1': the agent 'A b' has no name: " NAME_RULE},
        {NODES("{fog-1: {agent: x, host: h}, fog-0: {agent: x, host: i}}"),
         "6:27: node 'fog-1': its agent 'x' already runs on 'i' and cannot run on 'h' "
         "too"},
    };
    check(rows, TIERED_COUNT(rows));
}

static void test_trees(void **state)
{
    (void)state;
#define TREE(text)                                                                     \
    TOP CLOUD "  - {name: fog, aggregate: fedavg}\n"                                   \
              "  - {name: edge, trainer: {softmax: {data: d}}}\n"                      \
              "tree: " text "\n"
    static const struct row rows[] = {
        {TREE("{hq: {a: [x, y], b: [z]}}"), "ok"},
        {TREE("{hq: {a: {x: , y: }, b: [z: , w]}}"), "ok"},
        {TREE("[hq]"), "6:7: tree must be a mapping of the root to its children, such "
                       "as {hq: {plant-a: [press-1]}}"},
        {TREE("{hq: {a: [x]}, hq2: {b: [y]}}"),
         "6:22: tree: a second root 'hq2'; a tree has one, and 'hq' is it"},
        {TREE("{hq: {a: [x], b: [x]}}"),
         "6:25: tree: 'x' already stands below 'a' (line 6, column 17); a node has one "
         "parent"},
        {TREE("{hq: {a: [hq]}}"),
         "6:17: tree: a cycle: 'hq' (line 6, column 8) stands above itself"},
        {TREE("{hq: {a: [x], b: []}}"), "6:21: tree: 'b' is of tier 'fog' and needs "
                                        "children; only the last tier, 'edge', has "
                                        "none"},
        {TREE("{hq: {a: {x: [y]}}}"),
         "6:17: tree: 'x' is of the last tier, 'edge', and cannot have children; the "
         "tree has more levels than tiers"},
        {TREE("{hq: {a: x}}"),
         "6:16: tree: the children of 'a' must be a list or a mapping"},
        {TREE("{hq: {a: [X]}}"), "6:17: tree: 'X' is no name: " NAME_RULE},
        {TREE("{hq: {a: [[x]]}}"),
         "6:17: tree: a node is written NAME, or NAME: with its children"},
        {TOP CLOUD EDGE "tree: {hq: [x]}\n",
         "4:18: tier 'edge': fan_out and tree never go together; the tree says how "
         "many "
         "nodes there are"},
        {TREE("{hq: {a: [x]}}") "nodes: {y: {memory: 1GiB}}\n",
         "7:9: nodes: there is no node 'y'; the nodes are 'hq' to 'x'"},
    };
    check(rows, TIERED_COUNT(rows));
}

/* All problems in one run, in the order of the file, those of nodes included. */
static void test_all_at_once(void **state)
{
    (void)state;
    TIERED_FREE char *got = kit_problems_of(
        "tiered: 1\n"
        "run: {rounds: x}\n"
        "tiers:\n"
        "  - {name: cloud, aggregate: [fedavgg], rounds: {deadline: 5}}\n"
        "  - {name: edge, fan_out: 2, trainer: {softmax: {data: d, lr: -1}}}\n"
        "nodes: {'x*': {host: a}}\n",
        NULL, 0);
    assert_string_equal(
        got,
        "2:15: run.rounds must be a whole number from 1 to 1000000000, not 'x'\n"
        "4:31: tier 'cloud': unknown aggregator 'fedavgg'; did you mean 'fedavg'?\n"
        "4:60: tier 'cloud': rounds.deadline needs a unit: 5s, 5m\n"
        "5:63: trainer 'softmax' of tier 'edge': option 'lr' must be a number above 0, "
        "not "
        "'-1'\n"
        "6:9: nodes: no node's name matches 'x*'; the nodes are 'cloud-0' to 'edge-1'");
}

static void test_environment(void **state)
{
    (void)state;
    setenv("TIERED_TEST_DATA", "sets", 1);
    setenv("TIERED_TEST_LR", "0.5", 1);
    unsetenv("TIERED_TEST_NONE");
    static const struct row rows[] = {
        {TOP CLOUD "  - name: edge\n    fan_out: 3\n    trainer:\n      softmax:\n"
                   "        data: ${TIERED_TEST_DATA}/a\n"
                   "        lr: ${TIERED_TEST_LR}\n",
         "ok"},
        {TRAINER("{softmax: {data: '${TIERED_TEST_NONE}'}}"),
         "4:56: the environment has no 'TIERED_TEST_NONE', which ${TIERED_TEST_NONE} "
         "reads"},
        {TRAINER("{softmax: {data: '${TIERED'}}"),
         "4:56: '${' reads the environment and needs a name and '}'"},
    };
    check(rows, TIERED_COUNT(rows));
}

static void test_sets(void **state)
{
    (void)state;
    const char *const good[] = {"run.rounds=3", "tiers.edge.trainer.softmax.lr=0.2",
                                "tiers.edge.fan_out=5", "name=other"};
    struct kit_result r;
    kit_write(TOP CLOUD EDGE, strlen(TOP CLOUD EDGE));
    kit_load(good, 4, &r);
    assert_non_null(r.plan);
    assert_int_equal(tiered_topology_run(r.topology)->rounds, 3);
    assert_string_equal(tiered_topology_run(r.topology)->name, "other");
    assert_int_equal(r.plan->n_nodes, 6);
    TIERED_FREE char *options =
        tiered_plan_options(r.plan, 1, &r.plan->nodes[1].settings->trainer, NULL);
    assert_string_equal(options, "{\"data\":\"d\",\"lr\":0.2}");
    kit_finish(&r);
    const char *const bad[] = {"run.rounds=0", "tiers.fog.fan_out=2"};
    TIERED_FREE char *got = kit_problems_of(TOP CLOUD EDGE, bad, 2);
    assert_string_equal(
        got,
        "--set: 'tiers.fog.fan_out': the list has no 'fog'\n"
        "--set run.rounds: run.rounds must be a whole number from 1 to 1000000000, "
        "not '0'");
}

static void test_defaults(void **state)
{
    (void)state;
    const char *text = "tiered: 1\n"
                       "defaults: {memory: 1GiB, rounds: {quorum: 50%, late: next}}\n"
                       "tiers:\n"
                       "  - {name: cloud, aggregate: fedavg, rounds: {sample: 100%}}\n"
                       "  - {name: fog, fan_out: 2, aggregate: median, memory: 1MiB,\n"
                       "     rounds: {quorum: 2, deadline: 5s, per_parent_round: 4}}\n"
                       "  - {name: edge, fan_out: 3, trainer: {softmax: {data: d}}}\n";
    struct kit_result r;
    kit_write(text, strlen(text));
    kit_load(NULL, 0, &r);
    assert_non_null(r.topology);
    const struct tiered_run_settings *run = tiered_topology_run(r.topology);
    assert_string_equal(run->name, "t"); /* the file's */
    assert_int_equal(run->rounds, 10);
    assert_int_equal(run->seed, 0);
    assert_int_equal(run->evaluate_every, 1);
    assert_null(run->model_path);
    assert_int_equal(run->stop.sign, 0);
    const struct tiered_settings *cloud =
        &tiered_topology_tier(r.topology, 0)->settings;
    const struct tiered_settings *fog = &tiered_topology_tier(r.topology, 1)->settings;
    const struct tiered_settings *edge = &tiered_topology_tier(r.topology, 2)->settings;
    assert_true(cloud->rounds.quorum == 0.5 && cloud->rounds.quorum_count == 0);
    assert_true(cloud->rounds.keep_late && fog->rounds.keep_late);
    assert_int_equal(fog->rounds.quorum_count, 2);
    assert_int_equal(fog->rounds.deadline_ms, 5000);
    assert_int_equal(fog->rounds.per_parent_round, 4);
    assert_int_equal(cloud->memory_bytes, 1u << 30);
    assert_int_equal(fog->memory_bytes, 1u << 20);
    assert_int_equal(edge->memory_bytes, 1u << 30);
    assert_string_equal(edge->transport.loaded->plugin.name, "unix");
    assert_string_equal(tiered_topology_folder(r.topology), kit.folder);
    kit_finish(&r);
}

static void test_quorums(void **state)
{
    (void)state;
    struct tiered_rounds r = {.sample = 0.5, .quorum = 0.75};
    assert_int_equal(tiered_rounds_sampled(&r, 7), 4); /* 3.5, half up */
    assert_int_equal(tiered_rounds_needed(&r, 7), 3);
    assert_true(tiered_rounds_quorum_share(&r, 7) == 0.75);
    r = (struct tiered_rounds){.sample = 0.01, .quorum = 0.01};
    assert_int_equal(tiered_rounds_sampled(&r, 3), 1);
    assert_int_equal(tiered_rounds_needed(&r, 3), 1);
    /* A count as a share gives the count back, rounded up as a round does it. */
    for (uint32_t n = 1; n <= 300; n++) {
        for (uint32_t count = 1; count <= n; count++) {
            r = (struct tiered_rounds){.sample = 1, .quorum = 1, .quorum_count = count};
            struct tiered_rounds share = {.sample = 1,
                                          .quorum = tiered_rounds_quorum_share(&r, n)};
            assert_int_equal(tiered_rounds_needed(&share, n), count);
        }
    }
}

static void test_bad_files(void **state)
{
    (void)state;
    struct kit_result r;
    kit_write("tiered: 1\n\0\1", 12);
    kit_load(NULL, 0, &r);
    TIERED_FREE char *binary = kit_problems(&r);
    assert_string_equal(binary, "2:1: not text: a control character (0x00)");
    kit_finish(&r);

    size_t size = 10u << 20;
    TIERED_FREE char *large = malloc(size);
    assert_non_null(large);
    memset(large, '#', size);
    kit_write(large, size);
    kit_load(NULL, 0, &r);
    TIERED_FREE char *too_large = kit_problems(&r);
    assert_string_equal(too_large,
                        "1:1: the file has more than 4 MiB, which is the most");
    kit_finish(&r);

    memset(large, '[', 100000);
    kit_write(large, 100000);
    kit_load(NULL, 0, &r);
    TIERED_FREE char *deep = kit_problems(&r);
    assert_string_equal(deep,
                        "1:65: nested more than 64 levels deep; that is the most");
    kit_finish(&r);

    unlink(kit.file);
    kit_load(NULL, 0, &r);
    assert_int_equal(r.diag.n, 1);
    assert_int_equal(r.diag.items[0].mark.line, 0);
    assert_non_null(strstr(r.diag.items[0].text, "No such file or directory"));
    kit_finish(&r);
}

static void test_alias_bomb(void **state)
{
    (void)state;
    struct tiered_bytes text = {0};
    tiered_bytes_printf(&text, "tiered: 1\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 20; i++) {
        tiered_bytes_printf(&text, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++) {
            tiered_bytes_printf(&text, "%s*a%d", k ? "," : "", i - 1);
        }
        tiered_bytes_printf(&text, "]\n");
    }
    TIERED_FREE char *bomb = (char *)text.data;
    TIERED_FREE char *got = kit_problems_of(bomb, NULL, 0);
    assert_string_equal(got,
                        "7:38: more than 1000000 values, aliases expanded; that is "
                        "the most a file may hold");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_structure),   cmocka_unit_test(test_scope),
        cmocka_unit_test(test_values),      cmocka_unit_test(test_plugins),
        cmocka_unit_test(test_meaning),     cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_trees),       cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_environment), cmocka_unit_test(test_sets),
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_quorums),
        cmocka_unit_test(test_bad_files),   cmocka_unit_test(test_alias_bomb),
    };
    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}
