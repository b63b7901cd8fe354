/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The plan: the topology resolved into every node with its full assignment and agent.
 * Nodes stand in breadth-first order, the root first, each node's children next to each
 * other and in canonical (name) order. Up to 1,000,000 nodes: settings are shared.
 *
 * Threads: immutable once made. The topology must outlive it.
 */
#ifndef TIERED_CORE_PLAN_H
#define TIERED_CORE_PLAN_H

#include "core/privacy/ledger.h"
#include "core/topology/topology.h"

#define TIERED_MAX_NODES 1000000u
#define TIERED_NO_NODE   UINT32_MAX

struct tiered_node {
    const char *name;
    uint32_t tier;   /* 0: root */
    uint32_t index;  /* in its tier, 0-based; {index}. Of grown trees by number
                        (edge-0-10 has 10), of named ones by position */
    uint32_t parent; /* TIERED_NO_NODE for the root */
    uint32_t first_child, n_children;
    uint32_t initial_child; /* position among its children of the one whose subtree
                               holds the first leaf by name */
    uint32_t agent;
    const struct tiered_settings *settings;
};

struct tiered_planned_agent {
    const char *name;
    const char *host; /* NULL: not given */
    uint32_t n_nodes;
    const uint32_t *nodes;
};

struct tiered_plan {
    const struct tiered_topology *topology;
    uint64_t generation; /* 1 for a first plan */
    uint32_t n_nodes, n_tiers, n_agents;
    const struct tiered_node *nodes;
    const uint32_t *tier_counts; /* nodes of each tier; {count} */
    const struct tiered_planned_agent *agents;
    uint32_t rounds; /* of the root: run.rounds, or as many as stop_when.epsilon lets */
    struct tiered_ledger ledger;
    void *arena; /* owned */
};

/** Grow the tree, lay nodes: over it, group nodes into agents and check what depends on
    nodes: names, quorums, addresses, what plugins declare about each other. */
int tiered_plan_make(const struct tiered_topology *topology, uint64_t generation,
                     struct tiered_plan **ret, struct tiered_diagnostics *diag);
void tiered_plan_destroy(struct tiered_plan *plan);
/** `text` with {node} … expanded for `node` (host, listen, agent). malloc'd. */
char *tiered_plan_text(const struct tiered_plan *plan, uint32_t node, const char *text,
                       struct tiered_error *err);
/** The options of `ref` for `node` as JSON: {node} {tier} {index} {count} {parent} are
    expanded, and relative paths (options whose unit is "path") start at the topology's
    folder. "{}" when there are none. malloc'd. */
char *tiered_plan_options(const struct tiered_plan *plan, uint32_t node,
                          const struct tiered_plugin_ref *ref,
                          struct tiered_error *err);
/** An option of a plugin as the user wrote it, or its default; NULL for neither. What
   it points to is the topology's or the plugin's. */
const char *tiered_plan_option(const struct tiered_plugin_ref *ref, const char *name);
/** Does this aggregator count every update of a round once, whatever it says of itself
    (weighted_by: uniform)? */
bool tiered_plan_counts_once(const struct tiered_plugin_ref *aggregator);
/** TIERED_NO_NODE when there is none. */
uint32_t tiered_plan_find(const struct tiered_plan *plan, const char *name);

TIERED_DEFINE_FREE(struct tiered_plan, tiered_plan_destroy)

#endif
