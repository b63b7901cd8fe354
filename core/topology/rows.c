/* SPDX-License-Identifier: Apache-2.0 */
/* Every key of the topology file: the only place that knows them. Helps and fallbacks
   are also what editors and docs/topology.md show: './dev docs' after a change. */
#include "core/topology/inside.h"

#define SIZE_OF(type, member) sizeof(((type *)NULL)->member)
#define PLACE(type, member)                                                            \
    .offset = offsetof(type, member), .size = SIZE_OF(type, member)
#define TIER(member)    PLACE(struct tier_keys, member)
#define SETTING(member) PLACE(struct tier_keys, settings.member)
/* Two fields in a row: the share and whether it is a chance; the share and the number.
 */
#define SAMPLE                                                                         \
    .offset = offsetof(struct tier_keys, settings.rounds.sample),                      \
    .size = offsetof(struct tiered_rounds, poisson) + sizeof(bool) -                   \
            offsetof(struct tiered_rounds, sample)
#define QUORUM                                                                         \
    .offset = offsetof(struct tier_keys, settings.rounds.quorum),                      \
    .size = offsetof(struct tiered_rounds, quorum_count) + sizeof(uint32_t) -          \
            offsetof(struct tiered_rounds, quorum)
#define TOP(member)  PLACE(struct top_keys, member)
#define NESTED(rows) .nested = (rows), .n_nested = TIERED_COUNT(rows)
#define MAX_COUNT    1000000000.0
#define MAX_SEED     9007199254740992.0 /* 2^53: JSON keeps it exact */
#define ANY_NODE     (KEY_INNER | KEY_LEAF)

static const char *const late[] = {"drop", "next", NULL};
static const char *const modes[] = {"sync", "async", NULL};
static const char *const bad_updates[] = {"reject", "exclude", "allow", NULL};
static const char *const evaluators[] = {"leaves", "root", NULL};

static const struct key_row rounds_rows[] = {
    {"per_parent_round", KEY_COUNT, TIER_PER_PARENT_ROUND,
     SETTING(rounds.per_parent_round), .min = 1, .max = MAX_COUNT,
     .where = KEY_INNER | KEY_BELOW, .fallback = "1",
     .help = "rounds that the node runs for one round of its parent, before it sends "
             "one update up. Without a meaning at the root, which has 'run.rounds'"},
    {"sample", KEY_SAMPLE, TIER_SAMPLE, SAMPLE, .where = KEY_INNER, .fallback = "100%",
     .help = "share of the children that are asked in a round. At least one; halves "
             "are rounded up. '{poisson: 10%}': each child by itself with this chance, "
             "so that a round may ask nobody. Drawn from the seed"},
    {"quorum", KEY_QUORUM, TIER_QUORUM, QUORUM, .where = KEY_INNER, .fallback = "100%",
     .help = "share or number of the asked children that must answer. A share is "
             "rounded up"},
    {"deadline", KEY_DURATION, TIER_DEADLINE, SETTING(rounds.deadline_ms),
     .where = KEY_INNER,
     .help = "after this a round closes with what it has, if that is the quorum; "
             "otherwise as soon as it is. If absent, there is none"},
    {"late", KEY_CHOICE, TIER_LATE, SETTING(rounds.keep_late), .choices = late,
     .n_now = 2, .where = KEY_INNER, .fallback = "drop",
     .help = "an update that comes after its round: 'drop' it, or keep it for the "
             "'next' round, if its base is that round's model and the child's own "
             "update is still missing"},
    {"mode", KEY_CHOICE, TIER_MODE, TIER(mode), .choices = modes, .n_now = 1,
     .where = KEY_INNER, .fallback = "sync",
     .help = "how rounds close. 'async' is not in this version"},
    {"buffer", KEY_LATER, TIER_BUFFER, .where = KEY_INNER,
     .help = "of 'async': the updates after which a round publishes"},
    {"max_staleness", KEY_LATER, TIER_MAX_STALENESS, .where = KEY_INNER,
     .help = "of 'async': the oldest base that a round takes"},
    {"staleness", KEY_LATER, TIER_STALENESS, .where = KEY_INNER,
     .help = "of 'async': how a round weighs old updates"},
};

const struct key_row tiered_tier_rows[] = {
    {"name", KEY_NAME, TIER_NAME, TIER(name), .where = KEY_STRUCTURE | KEY_REQUIRED,
     .help = "the tier's name; names of its nodes begin with it"},
    {"fan_out", KEY_INTEGER, TIER_FAN_OUT, TIER(fan_out), .min = 1, .max = 1e6,
     .where = KEY_STRUCTURE | KEY_BELOW | KEY_NEEDED,
     .help = "nodes under each node of the tier above. Not with 'tree'"},
    {"aggregate", KEY_STRATEGY, TIER_AGGREGATE, SETTING(aggregate),
     .where = KEY_INNER | KEY_NEEDED,
     .help = "one aggregator, then any number of optimizers; a filter that adds noise "
             "may stand last"},
    {"trainer", KEY_TRAINER, TIER_TRAINER, SETTING(trainer),
     .where = KEY_LEAF | KEY_NEEDED, .help = "what trains and evaluates"},
    {"rounds", KEY_SECTION, TIER_ROUNDS, .where = KEY_INNER, NESTED(rounds_rows),
     .help = "the rounds that the tier's nodes run over their children"},
    {"uplink", KEY_UPLINK, TIER_UPLINK, SETTING(uplink), .where = ANY_NODE | KEY_BELOW,
     .fallback = "[]", .help = "filters of updates on their way to the parent"},
    {"downlink", KEY_DOWNLINK, TIER_DOWNLINK, SETTING(downlink),
     .where = ANY_NODE | KEY_BELOW, .fallback = "[]",
     .help = "filters of models on their way from the parent"},
    {"transport", KEY_TRANSPORT, TIER_TRANSPORT, SETTING(transport),
     .where = ANY_NODE | KEY_BELOW, .fallback = "unix",
     .help = "how the tier's nodes reach their parents"},
    {"memory", KEY_BYTES, TIER_MEMORY, SETTING(memory_bytes), .where = ANY_NODE,
     .fallback = "512MiB",
     .help = "arrived updates that a node with children holds in memory; what is more "
             "goes to files in its state folder"},
    {"on_bad_update", KEY_CHOICE, TIER_ON_BAD_UPDATE, SETTING(on_bad_update),
     .choices = bad_updates, .n_now = 3, .where = KEY_INNER, .fallback = "reject",
     .help = "what becomes of an update with NaN or infinite values. 'reject': "
             "refused, and the child counts as missing in this round. 'exclude': kept "
             "in the count of updates, left out of every sum, with a warning. 'allow': "
             "let through; only with aggregators that have the trait "
             "'allows_bad_updates', such as 'fedavg'"},
    {"agent", KEY_TEXT, TIER_AGENT, SETTING(agent), .where = ANY_NODE,
     .help = "the agent process that hosts the node; nodes with the same agent share "
             "it. If absent, each node has one of its own. 'agent: gateway-{parent}' "
             "puts siblings together"},
    {"host", KEY_TEXT, TIER_HOST, SETTING(host), .where = ANY_NODE,
     .help = "the host that the node runs on"},
    {"listen", KEY_TEXT, TIER_LISTEN, SETTING(listen), .where = ANY_NODE,
     .help = "the address that children dial, such as ':7400'"},
    {"insecure", KEY_BOOLEAN, TIER_INSECURE, SETTING(insecure), .where = ANY_NODE,
     .fallback = "false", .help = "plaintext on a network is meant"},
    {"failover", KEY_LATER, TIER_FAILOVER, .where = ANY_NODE,
     .help = "where children go when their parent is lost"},
    {"offline", KEY_LATER, TIER_OFFLINE, .where = ANY_NODE,
     .help = "what a node does without its parent"},
    {"limits", KEY_LATER, TIER_LIMITS, .where = ANY_NODE,
     .help = "bounds on what a node uses"},
    {"personal", KEY_LATER, TIER_PERSONAL, .where = ANY_NODE,
     .help = "tensors that stay at the node"},
};
const size_t tiered_tier_n_rows = TIERED_COUNT(tiered_tier_rows);

static const struct key_row stop_rows[] = {
    {"metric", KEY_TEXT, TOP_METRIC, TOP(metric),
     .help = "the metric's name, such as 'accuracy' or 'loss'"},
    {"at_least", KEY_NUMBER, TOP_AT_LEAST, TOP(at_least), .with = "metric",
     .help = "stop at this value or above. Either this or 'at_most' is written"},
    {"at_most", KEY_NUMBER, TOP_AT_MOST, TOP(at_most), .with = "metric",
     .help = "stop at this value or below"},
    {"epsilon", KEY_NUMBER, TOP_EPSILON, TOP(epsilon),
     .help = "stop before a tier with noise would spend more than this, at the noise's "
             "delta. By itself, or beside a metric"},
};

static const struct key_row evaluate_rows[] = {
    {"every", KEY_COUNT, TOP_EVERY, TOP(every), .max = MAX_COUNT, .fallback = "1",
     .help = "rounds of the root from one evaluation to the next; 0 is never"},
    {"at", KEY_CHOICE, TOP_AT, TOP(at), .choices = evaluators, .n_now = 1,
     .fallback = "leaves", .help = "who evaluates. 'root' is not in this version"},
};

static const struct key_row run_rows[] = {
    {"rounds", KEY_COUNT, TOP_ROUNDS, TOP(rounds), .min = 1, .max = MAX_COUNT,
     .fallback = "10", .help = "rounds of the root"},
    {"seed", KEY_INTEGER, TOP_SEED, TOP(seed), .max = MAX_SEED, .fallback = "0",
     .help = "0 to 2^53. Decides sampling, the initial model, partitions and batches"},
    {"model", KEY_MODEL, TOP_MODEL, TOP(model), .fallback = "{from: trainer}",
     .help = "the initial model: the first leaf by name makes it, or the path of a "
             "'.safetensors' file"},
    {"stop_when", KEY_SECTION, TOP_STOP_WHEN, NESTED(stop_rows),
     .help = "ends the run early, for example '{metric: loss, at_most: 0.3}'. A metric "
             "is looked at after each evaluation; '{epsilon: 8}' is a budget of "
             "privacy"},
    {"evaluate", KEY_SECTION, TOP_EVALUATE, NESTED(evaluate_rows),
     .help = "when the model is evaluated, and by whom"},
};

static const struct key_row orchestrator_rows[] = {
    {"host", KEY_TEXT, TOP_HOST, TOP(host), .help = "the host that it runs on"},
    {"listen", KEY_TEXT, TOP_LISTEN, TOP(listen),
     .help = "the address that agents dial"},
};

const struct key_row tiered_top_rows[] = {
    {"tiered", KEY_INTEGER, TOP_TIERED, TOP(version), .min = 1, .max = 1,
     .where = KEY_REQUIRED, .help = "the version of the format: '1'"},
    {"name", KEY_NAME, TOP_NAME, TOP(name),
     .help = "names the runs. If absent, the file's name does: 'plant.yaml' is "
             "'plant'"},
    {"run", KEY_SECTION, TOP_RUN, NESTED(run_rows), .help = "what one run does"},
    {"defaults", KEY_DEFAULTS, TOP_DEFAULTS, TOP(defaults),
     .help = "tier keys that hold where a tier says nothing. A key without a meaning "
             "in a tier is passed over there. Not 'name' and 'fan_out'"},
    {"orchestrator", KEY_SECTION, TOP_ORCHESTRATOR, NESTED(orchestrator_rows),
     .help = "where the orchestrator is. 'tiered up' runs it on this machine and does "
             "not use this"},
    {"tiers", KEY_TIERS, TOP_TIERS, TOP(tiers), .where = KEY_REQUIRED,
     .help = "the tiers, root first, 2 to 16 of them"},
    {"tree", KEY_TREE, TOP_TREE, TOP(tree),
     .help = "an irregular tree, in place of 'fan_out'"},
    {"nodes", KEY_NODES, TOP_NODES, TOP(nodes),
     .help = "exceptions, by node name or glob"},
};
const size_t tiered_top_n_rows = TIERED_COUNT(tiered_top_rows);
