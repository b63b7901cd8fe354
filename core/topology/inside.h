/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How the topology file is read: tables of keys, and one engine that reads a mapping
 * against them. Private to core/topology and core/plan.
 */
#ifndef TIERED_CORE_TOPOLOGY_INSIDE_H
#define TIERED_CORE_TOPOLOGY_INSIDE_H

#include "core/topology/keys.h"
#include "core/topology/topology.h"
#include "core/value/arena.h"

/** Which keys were written, and where. */
struct given {
    uint64_t mask;
    struct tiered_mark marks[32];
};

static inline bool given_has(const struct given *given, uint32_t id)
{
    return given->mask >> id & 1;
}

enum tier_id {
    TIER_NAME,
    TIER_FAN_OUT,
    TIER_AGGREGATE,
    TIER_TRAINER,
    TIER_ROUNDS,
    TIER_UPLINK,
    TIER_DOWNLINK,
    TIER_TRANSPORT,
    TIER_MEMORY,
    TIER_ON_BAD_UPDATE,
    TIER_LISTEN,
    TIER_HOST,
    TIER_AGENT,
    TIER_INSECURE,
    TIER_FAILOVER,
    TIER_OFFLINE,
    TIER_LIMITS,
    TIER_PERSONAL,
    TIER_PER_PARENT_ROUND,
    TIER_SAMPLE,
    TIER_QUORUM,
    TIER_DEADLINE,
    TIER_LATE,
    TIER_MODE,
    TIER_BUFFER,
    TIER_MAX_STALENESS,
    TIER_STALENESS,
    TIER_N_IDS
};

/** What the keys of a tier, of defaults: or of one entry of nodes: say. */
struct tier_keys {
    const char *name;
    uint64_t fan_out;
    struct tiered_settings settings;
    int32_t mode;
    struct given given;
};

enum top_id {
    TOP_TIERED,
    TOP_NAME,
    TOP_RUN,
    TOP_DEFAULTS,
    TOP_ORCHESTRATOR,
    TOP_TIERS,
    TOP_TREE,
    TOP_NODES,
    TOP_ROUNDS,
    TOP_SEED,
    TOP_MODEL,
    TOP_STOP_WHEN,
    TOP_EVALUATE,
    TOP_METRIC,
    TOP_AT_LEAST,
    TOP_AT_MOST,
    TOP_EPSILON,
    TOP_EVERY,
    TOP_AT,
    TOP_HOST,
    TOP_LISTEN,
};

struct top_keys {
    uint64_t version;
    const char *name, *model;
    const struct tiered_value *defaults, *tiers, *tree, *nodes;
    uint32_t rounds, every;
    uint64_t seed;
    const char *metric;
    double at_least, at_most, epsilon;
    int32_t at;
    const char *host, *listen;
    struct given given;
};

/** One entry of nodes: a node's name or a glob, and what it changes. */
struct exception {
    const char *pattern;
    struct tiered_mark mark;
    struct tier_keys keys;
};

struct tier_entry {
    struct tiered_tier tier;
    struct given given; /* by defaults: or the tier */
};

struct tiered_topology {
    struct tiered_arena arena;
    struct tiered_document *document;
    const char *file, *folder;
    struct tiered_run_settings run;
    struct tier_entry *tiers;
    size_t n_tiers;
    const struct tiered_value *tree; /* NULL: grown by fan_out */
    struct exception *exceptions;
    size_t n_exceptions;
};

/** One loading. */
struct loader {
    struct tiered_topology *topology;
    struct tiered_plugins *plugins;
    struct tiered_diagnostics *diag;
};

/** Read `value` (a mapping) into `out` by the rows; problems go to the diagnostics,
    with `what` in front ("tier 'fog'"; "" for the file itself). Keys with one of the
    `refuse` bits in `where` are unknown here. */
void topology_section_read(struct loader *l, const char *what,
                           const struct key_row *rows, size_t n_rows, unsigned refuse,
                           const struct tiered_value *value, void *out,
                           struct given *given);
/** Complain about `key` that the rows do not know. */
void topology_section_unknown(struct loader *l, const char *what, const char *section,
                              const struct tiered_value *key,
                              const struct key_row *rows, size_t n_rows,
                              unsigned refuse);
/** Read a tier's keys. */
void topology_tier_keys_read(struct loader *l, const char *what, unsigned refuse,
                             const struct tiered_value *value, struct tier_keys *keys);
/** Put what `from` gives over `to`, for a node of this kind; returns the mask of what
    has a meaning there. */
uint64_t topology_tier_keys_merge(const struct tier_keys *from, bool root, bool leaf,
                                  struct tiered_settings *to, struct given *given);
/** Whether settings make sense by themselves: required keys, traits. `mark` is where
    the tier or node was named. */
void topology_tier_settings_check(struct tiered_diagnostics *diag, const char *what,
                                  bool leaf, const struct tiered_settings *settings,
                                  const struct given *given, struct tiered_mark mark);

void topology_plugin_read(struct loader *l, const char *what, enum tiered_kind kind,
                          const struct tiered_value *value,
                          struct tiered_plugin_ref *ret);
void topology_strategy_read(struct loader *l, const char *what,
                            const struct tiered_value *value,
                            struct tiered_plugin_list *ret);
void topology_pipe_read(struct loader *l, const char *what, bool group_allowed,
                        const struct tiered_value *value,
                        struct tiered_plugin_list *ret);

void topology_run_read(struct loader *l, const struct top_keys *keys);
void topology_tiers_read(struct loader *l, const struct top_keys *keys);
void topology_exceptions_read(struct loader *l, const struct tiered_value *nodes);
/** ${VAR} in every string of the document. */
void topology_environment_expand(struct loader *l, const struct tiered_value *root);

bool tiered_name_ok(const char *name);
/** What is wrong with a name, for messages. */
#define NAME_RULE                                                                      \
    "a name has 1 to 63 of a-z 0-9 . _ - and begins with a letter or digit"

/** What {node} … stand for. */
struct words {
    const char *node, *tier, *parent;
    uint32_t index, count;
};
/** The text with {word} replaced, malloc'd; {{word}} gives {word}. `words` NULL: only
    checks, and gives the text as it is. NULL with *err for an unknown word. */
char *topology_words_expand(const char *text, const struct words *words,
                            struct tiered_error *err);

#endif
