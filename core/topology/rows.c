/* SPDX-License-Identifier: Apache-2.0 */
/* Every key of the topology file: the only place that knows them. */
#include "core/topology/inside.h"

#define SIZE_OF(type, member) sizeof(((type *)NULL)->member)
#define PLACE(type, member)                                                            \
    .offset = offsetof(type, member), .size = SIZE_OF(type, member)
#define TIER(member)    PLACE(struct tier_keys, member)
#define SETTING(member) PLACE(struct tier_keys, settings.member)
/* The share and, after it, the number. */
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
     .where = KEY_INNER | KEY_BELOW, .help = "rounds for each round of the parent"},
    {"sample", KEY_SHARE, TIER_SAMPLE, SETTING(rounds.sample), .where = KEY_INNER,
     .help = "share of the children asked in a round"},
    {"quorum", KEY_QUORUM, TIER_QUORUM, QUORUM, .where = KEY_INNER,
     .help = "share or number of the asked that must answer"},
    {"deadline", KEY_DURATION, TIER_DEADLINE, SETTING(rounds.deadline_ms),
     .where = KEY_INNER, .help = "after this a round closes at its quorum"},
    {"late", KEY_CHOICE, TIER_LATE, SETTING(rounds.keep_late), .choices = late,
     .n_now = 2, .where = KEY_INNER,
     .help = "what becomes of an update after the round"},
    {"mode", KEY_CHOICE, TIER_MODE, TIER(mode), .choices = modes, .n_now = 1,
     .where = KEY_INNER, .help = "how rounds close"},
    {"buffer", KEY_LATER, TIER_BUFFER, .where = KEY_INNER,
     .help = "updates that an async round publishes after"},
    {"max_staleness", KEY_LATER, TIER_MAX_STALENESS, .where = KEY_INNER,
     .help = "the oldest base that an async round takes"},
    {"staleness", KEY_LATER, TIER_STALENESS, .where = KEY_INNER,
     .help = "how an async round weighs old updates"},
};

const struct key_row tiered_tier_rows[] = {
    {"name", KEY_NAME, TIER_NAME, TIER(name), .where = KEY_STRUCTURE | KEY_REQUIRED,
     .help = "the tier's name; its nodes' names begin with it"},
    {"fan_out", KEY_INTEGER, TIER_FAN_OUT, TIER(fan_out), .min = 1, .max = 1e6,
     .where = KEY_STRUCTURE | KEY_BELOW,
     .help = "nodes under each node of the tier above"},
    {"aggregate", KEY_STRATEGY, TIER_AGGREGATE, SETTING(aggregate), .where = KEY_INNER,
     .help = "one aggregator, then optimizers"},
    {"trainer", KEY_TRAINER, TIER_TRAINER, SETTING(trainer), .where = KEY_LEAF,
     .help = "what trains and evaluates"},
    {"rounds", KEY_SECTION, TIER_ROUNDS, .where = KEY_INNER, NESTED(rounds_rows),
     .help = "the rounds that the tier's nodes run over their children"},
    {"uplink", KEY_UPLINK, TIER_UPLINK, SETTING(uplink), .where = ANY_NODE | KEY_BELOW,
     .help = "filters of what goes to the parent"},
    {"downlink", KEY_DOWNLINK, TIER_DOWNLINK, SETTING(downlink),
     .where = ANY_NODE | KEY_BELOW, .help = "filters of what comes from the parent"},
    {"transport", KEY_TRANSPORT, TIER_TRANSPORT, SETTING(transport),
     .where = ANY_NODE | KEY_BELOW, .help = "how the nodes reach their parents"},
    {"memory", KEY_BYTES, TIER_MEMORY, SETTING(memory_bytes), .where = ANY_NODE,
     .help = "updates held in memory before files are used"},
    {"on_bad_update", KEY_CHOICE, TIER_ON_BAD_UPDATE, SETTING(on_bad_update),
     .choices = bad_updates, .n_now = 3, .where = KEY_INNER,
     .help = "what becomes of an update with values that are not finite"},
    {"listen", KEY_TEXT, TIER_LISTEN, SETTING(listen), .where = ANY_NODE,
     .help = "the address that children dial"},
    {"host", KEY_TEXT, TIER_HOST, SETTING(host), .where = ANY_NODE,
     .help = "the host that the node runs on"},
    {"agent", KEY_TEXT, TIER_AGENT, SETTING(agent), .where = ANY_NODE,
     .help = "the agent that hosts the node; nodes with one agent share it"},
    {"insecure", KEY_BOOLEAN, TIER_INSECURE, SETTING(insecure), .where = ANY_NODE,
     .help = "plaintext on a network"},
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
    {"metric", KEY_TEXT, TOP_METRIC, TOP(metric), .where = KEY_REQUIRED,
     .help = "such as accuracy"},
    {"at_least", KEY_NUMBER, TOP_AT_LEAST, TOP(at_least), .help = "stop at or above"},
    {"at_most", KEY_NUMBER, TOP_AT_MOST, TOP(at_most), .help = "stop at or below"},
};

static const struct key_row evaluate_rows[] = {
    {"every", KEY_COUNT, TOP_EVERY, TOP(every), .max = MAX_COUNT,
     .help = "rounds of the root from one evaluation to the next; 0: never"},
    {"at", KEY_CHOICE, TOP_AT, TOP(at), .choices = evaluators, .n_now = 1,
     .help = "who evaluates"},
};

static const struct key_row run_rows[] = {
    {"rounds", KEY_COUNT, TOP_ROUNDS, TOP(rounds), .min = 1, .max = MAX_COUNT,
     .help = "rounds of the root tier"},
    {"seed", KEY_INTEGER, TOP_SEED, TOP(seed), .max = MAX_SEED,
     .help = "decides sampling, initial models and partitions"},
    {"model", KEY_MODEL, TOP_MODEL, TOP(model),
     .help = "{from: trainer}, or a .safetensors file"},
    {"stop_when", KEY_SECTION, TOP_STOP_WHEN, NESTED(stop_rows),
     .help = "a metric that ends the run early"},
    {"evaluate", KEY_SECTION, TOP_EVALUATE, NESTED(evaluate_rows),
     .help = "when the model is evaluated"},
};

static const struct key_row orchestrator_rows[] = {
    {"host", KEY_TEXT, TOP_HOST, TOP(host), .help = "where the orchestrator runs"},
    {"listen", KEY_TEXT, TOP_LISTEN, TOP(listen), .help = "the address agents dial"},
};

const struct key_row tiered_top_rows[] = {
    {"tiered", KEY_INTEGER, TOP_TIERED, TOP(version), .min = 1, .max = 1,
     .where = KEY_REQUIRED, .help = "the format's version: 1"},
    {"name", KEY_NAME, TOP_NAME, TOP(name), .help = "the topology's name"},
    {"run", KEY_SECTION, TOP_RUN, NESTED(run_rows), .help = "what one run does"},
    {"defaults", KEY_DEFAULTS, TOP_DEFAULTS, TOP(defaults),
     .help = "tier keys that hold where a tier says nothing"},
    {"orchestrator", KEY_SECTION, TOP_ORCHESTRATOR, NESTED(orchestrator_rows),
     .help = "where the orchestrator is"},
    {"tiers", KEY_TIERS, TOP_TIERS, TOP(tiers), .where = KEY_REQUIRED,
     .help = "root first"},
    {"tree", KEY_TREE, TOP_TREE, TOP(tree), .help = "an irregular tree of names"},
    {"nodes", KEY_NODES, TOP_NODES, TOP(nodes), .help = "exceptions by name or glob"},
};
const size_t tiered_top_n_rows = TIERED_COUNT(tiered_top_rows);
