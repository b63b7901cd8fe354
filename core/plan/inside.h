/* SPDX-License-Identifier: Apache-2.0 */
/* How a plan is made: grow the tree, lay exceptions over it, group agents, check.
   Private to core/plan. */
#ifndef TIERED_CORE_PLAN_INSIDE_H
#define TIERED_CORE_PLAN_INSIDE_H

#include "core/plan/plan.h"
#include "core/topology/inside.h"

/** Settings that nodes share: a tier's, or these with exceptions over them. */
struct variant {
    struct tiered_settings settings; /* first: a node's settings are its variant */
    struct given given;
    const char *label; /* "tier 'fog'" or "node 'fog-1'" */
    struct tiered_mark mark;
    uint32_t tier;
    /* What the last exception made of this one. */
    struct variant *derived;
    const struct exception *derived_by;
    /* What has been checked, so that a million nodes are not checked one by one. */
    uint32_t checked_children;
    const struct variant *checked_parent;
    bool checked_pipes;
    bool reported;
};

/** Names to numbers: open addressing, numbers from 0. */
struct name_table {
    uint32_t *slots; /* number + 1; 0 is free */
    uint32_t mask;
};

struct whole_plan {
    struct tiered_plan plan; /* first */
    struct tiered_arena arena;
    struct tiered_node *nodes;
    uint32_t *tier_counts;
    struct variant *tiers; /* one a tier */
    struct name_table by_name;
    struct tiered_planned_agent *agents;
};

struct planner {
    struct whole_plan *w;
    const struct tiered_topology *topology;
    struct tiered_diagnostics *diag;
};

int planner_no_memory(struct planner *p);
/** nodes[], tier_counts, by_name; -1 when there is no tree to go on with. */
int planner_grow(struct planner *p);
int planner_grow_named(struct planner *p);
void planner_find_initial(struct planner *p, uint32_t *first_leaf);
int planner_apply_exceptions(struct planner *p);
int planner_group_agents(struct planner *p);
void planner_check(struct planner *p);
/** What filters of one pipe, and noise at both ends of a link, mean together. */
void planner_check_pipes(struct planner *p, struct variant *v);
void planner_check_noise(struct planner *p, const struct variant *parent,
                         const struct variant *child);
/** Its uplink has an adaptive clip. */
bool planner_follows(const struct variant *child);
/** … and with so many children. */
void planner_check_noise_size(struct planner *p, struct variant *v,
                              const struct tiered_node *node,
                              const struct variant *child);
/** The ledger, and how many rounds its budget lets. */
int planner_count_privacy(struct planner *p);
/** Warnings that come from what a rule does with so many children. */
void planner_check_rule(struct planner *p, struct variant *v, uint32_t n_children);

static inline struct variant *variant_of(const struct tiered_node *node)
{
    return (struct variant *)(uintptr_t)node->settings;
}

int plan_name_table_init(struct name_table *table, struct tiered_arena *arena,
                         uint64_t n);
/** `name_of` gives the name of a number in the table. Returns the number that has the
    name already, or UINT32_MAX after adding `number`. */
uint32_t plan_name_table_add(struct name_table *table, const char *name,
                             uint32_t number,
                             const char *(*name_of)(const void *user, uint32_t number),
                             const void *user);
uint32_t plan_name_table_find(const struct name_table *table, const char *name,
                              const char *(*name_of)(const void *user, uint32_t number),
                              const void *user);
/** name_of for nodes; `user` is the node array. */
const char *plan_node_name_of(const void *nodes, uint32_t number);

#endif
