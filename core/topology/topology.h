/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The topology file (design.md section 4): loaded, checked, immutable. Every key and
 * every plugin option is known from a table with its place, so that each problem names
 * file, line and column, and all problems of a file are reported in one run.
 *
 * A topology holds its values; core/plan resolves it into nodes. It knows nothing of
 * the network. Threads: immutable once loaded.
 */
#ifndef TIERED_CORE_TOPOLOGY_H
#define TIERED_CORE_TOPOLOGY_H

#include "core/aggregate/strategy.h"
#include "core/plugins/plugins.h"
#include "core/value/value.h"

#define TIERED_MIN_TIERS     2u
#define TIERED_MAX_TIERS     16u
#define TIERED_MAX_NODE_NAME 63u

/** A plugin named in the topology, checked against its options. */
struct tiered_plugin_ref {
    const struct tiered_loaded *loaded;
    const struct tiered_value *options; /* a mapping, or NULL */
    struct tiered_mark mark;
};

struct tiered_plugin_list {
    size_t n;
    const struct tiered_plugin_ref *items;
};

struct tiered_rounds {
    uint32_t per_parent_round;
    double sample;         /* a share, (0, 1] … */
    bool poisson;          /* … or each child's own chance */
    double quorum;         /* a share, (0, 1] */
    uint32_t quorum_count; /* quorum as a number of children; 0: the share holds */
    uint64_t deadline_ms;  /* 0: none */
    bool keep_late;
};

/** What holds for a node: its tier's keys with `defaults:` under them and `nodes:`
 * over. */
struct tiered_settings {
    struct tiered_plugin_list aggregate; /* inner nodes */
    struct tiered_plugin_ref trainer;    /* leaves */
    struct tiered_rounds rounds;
    struct tiered_plugin_list uplink, downlink; /* to and from the parent */
    struct tiered_plugin_ref transport;         /* how it reaches its parent */
    uint64_t memory_bytes;
    enum tiered_on_bad_update on_bad_update;
    /* NULL: not given. With {node} … in them: tiered_plan_text() expands. */
    const char *host, *listen, *agent;
    bool insecure;
};

struct tiered_stop {
    char metric[32]; /* "" none */
    double at;
    int sign;       /* +1 at_least, -1 at_most */
    double epsilon; /* what no tier may spend more than; 0: none */
    struct tiered_mark mark;
};

struct tiered_run_settings {
    const char *name;
    uint32_t rounds;
    uint64_t seed;
    const char *model_path; /* absolute; NULL: from the trainer */
    struct tiered_stop stop;
    uint32_t evaluate_every;                             /* 0: never */
    const char *orchestrator_host, *orchestrator_listen; /* NULL: not given */
};

struct tiered_tier {
    const char *name;
    uint64_t fan_out; /* 0 in the root and where tree: is used */
    struct tiered_settings settings;
    struct tiered_mark mark;
};

struct tiered_topology;

/** How many of `n_children` a round samples (by Poisson: on the mean, at least 1), and
    how many of these make its quorum. */
uint32_t tiered_rounds_sampled(const struct tiered_rounds *rounds, uint32_t n_children);
uint32_t tiered_rounds_needed(const struct tiered_rounds *rounds, uint32_t n_children);
/** The quorum as a share of the sampled, which rounded up gives the number above: what
    struct tiered_round_config takes. */
double tiered_rounds_quorum_share(const struct tiered_rounds *rounds,
                                  uint32_t n_children);

/** Load and check the file; `tiered_plan_make` then checks what depends on nodes. When
   the file has errors but its tree is sound, those checks are made here too, so that
   one run reports everything. `sets` are --set assignments. On any error NULL with diag
   filled; with warnings only, the topology and diag. `*ret_source` (may be NULL) gets
   the file's text for tiered_diag_print; the caller frees it. */
struct tiered_topology *tiered_topology_load(const char *path, const char *const *sets,
                                             size_t n_sets,
                                             struct tiered_plugins *plugins,
                                             struct tiered_diagnostics *diag,
                                             struct tiered_bytes *ret_source);
void tiered_topology_destroy(struct tiered_topology *topology);
const struct tiered_run_settings *
tiered_topology_run(const struct tiered_topology *topology);
size_t tiered_topology_n_tiers(const struct tiered_topology *topology);
const struct tiered_tier *tiered_topology_tier(const struct tiered_topology *topology,
                                               size_t i);
/** The absolute folder of the file: where relative paths start. */
const char *tiered_topology_folder(const struct tiered_topology *topology);

TIERED_DEFINE_FREE(struct tiered_topology, tiered_topology_destroy)

#endif
