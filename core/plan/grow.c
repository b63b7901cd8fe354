/* SPDX-License-Identifier: Apache-2.0 */
/* Regular trees: fan_out nodes under each parent, named by their path. */
#include <string.h>

#include "core/plan/inside.h"

static int count_nodes(struct planner *p, uint64_t *ret_total)
{
    const struct tiered_topology *t = p->topology;
    uint64_t count = 1, total = 1;
    p->w->tier_counts[0] = 1;
    for (size_t i = 1; i < t->n_tiers; i++) {
        const struct tier_entry *entry = &t->tiers[i];
        if (!tiered_mul(count, entry->tier.fan_out, &count) ||
            !tiered_add(total, count, &total) || total > TIERED_MAX_NODES) {
            return tiered_diag_error(p->diag,
                                     entry->given.marks[TIER_FAN_OUT].file
                                         ? entry->given.marks[TIER_FAN_OUT]
                                         : entry->tier.mark,
                                     "tier '%s': with this fan_out the tree has more "
                                     "than %u nodes, which is the most",
                                     entry->tier.name, TIERED_MAX_NODES);
        }
        p->w->tier_counts[i] = (uint32_t)count;
    }
    *ret_total = total;
    return 0;
}

/* Bytes of the longest name of a tier, its NUL included. */
static size_t longest_name(const struct tiered_topology *t, size_t tier)
{
    size_t n = strlen(t->tiers[tier].tier.name) + 1;
    for (size_t i = 1; i <= tier; i++) {
        n += (size_t)snprintf(NULL, 0, "-%u", (uint32_t)t->tiers[i].tier.fan_out - 1);
    }
    return tier ? n : n + 2;
}

static int check_names(struct planner *p)
{
    const struct tiered_topology *t = p->topology;
    for (size_t i = 0; i < t->n_tiers; i++) {
        if (longest_name(t, i) > TIERED_MAX_NODE_NAME + 1) {
            return tiered_diag_error(p->diag, t->tiers[i].tier.mark,
                                     "tier '%s': its nodes' names would have %zu "
                                     "letters; %u is the most",
                                     t->tiers[i].tier.name, longest_name(t, i) - 1,
                                     TIERED_MAX_NODE_NAME);
        }
    }
    return 0;
}

/* 0..n-1 as their names sort: 0, 1, 10, 11, 2. */
static void canonical_order(uint32_t n, uint32_t *order)
{
    uint64_t at = 1;
    order[0] = 0;
    for (uint32_t i = 1; i < n; i++) {
        order[i] = (uint32_t)at;
        if (at * 10 < n) {
            at *= 10;
            continue;
        }
        while (at % 10 == 9 || at + 1 >= n) {
            at /= 10;
            if (at == 0) {
                return; /* the last */
            }
        }
        at++;
    }
}

/* The children of all nodes of one tier; `at` is the first one's place. */
static int grow_tier(struct planner *p, uint32_t tier, uint32_t parents, uint32_t at)
{
    struct tiered_node *nodes = p->w->nodes;
    const struct tiered_topology *t = p->topology;
    const char *name = t->tiers[tier].tier.name;
    uint32_t fan_out = (uint32_t)t->tiers[tier].tier.fan_out;
    size_t skip = strlen(t->tiers[tier - 1].tier.name); /* then the parent's path */
    TIERED_FREE uint32_t *order = calloc(fan_out, sizeof(*order));
    char *names = tiered_arena_alloc(&p->w->arena, p->w->tier_counts[tier],
                                     longest_name(t, tier));
    if (!order || !names) {
        return planner_no_memory(p);
    }
    canonical_order(fan_out, order);
    for (uint32_t parent = parents; parent < parents + p->w->tier_counts[tier - 1];
         parent++) {
        nodes[parent].first_child = at;
        nodes[parent].n_children = fan_out;
        const char *path = tier == 1 ? "" : nodes[parent].name + skip;
        for (uint32_t i = 0; i < fan_out; i++, at++) {
            nodes[at] = (struct tiered_node){
                .name = names,
                .tier = tier,
                .index = nodes[parent].index * fan_out + order[i],
                .parent = parent,
                .settings = &p->w->tiers[tier].settings,
            };
            names += sprintf(names, "%s%s-%u", name, path, order[i]) + 1;
        }
    }
    return 0;
}

/* Names of two tiers can meet: 'a-1' and its child 0, 'a' and its grandchild 1-0. */
static int add_names(struct planner *p)
{
    struct whole_plan *w = p->w;
    if (plan_name_table_init(&w->by_name, &w->arena, w->plan.n_nodes) < 0) {
        return planner_no_memory(p);
    }
    for (uint32_t i = 0; i < w->plan.n_nodes; i++) {
        uint32_t other = plan_name_table_add(&w->by_name, w->nodes[i].name, i,
                                             plan_node_name_of, w->nodes);
        if (other != UINT32_MAX) {
            const struct tier_entry *tiers = p->topology->tiers;
            return tiered_diag_error(
                p->diag, tiers[w->nodes[i].tier].tier.mark,
                "tiers '%s' and '%s' both have a node '%s'; rename one",
                tiers[w->nodes[other].tier].tier.name,
                tiers[w->nodes[i].tier].tier.name, w->nodes[i].name);
        }
    }
    return 0;
}

static int grow_regular(struct planner *p)
{
    struct whole_plan *w = p->w;
    uint64_t total = 0;
    if (count_nodes(p, &total) < 0 || check_names(p) < 0) {
        return -1;
    }
    w->plan.n_nodes = (uint32_t)total;
    w->nodes = tiered_arena_alloc(&w->arena, total, sizeof(*w->nodes));
    char *root = tiered_arena_alloc(&w->arena, 1, TIERED_MAX_NODE_NAME + 3);
    if (!w->nodes || !root) {
        return planner_no_memory(p);
    }
    sprintf(root, "%s-0", p->topology->tiers[0].tier.name);
    w->nodes[0] = (struct tiered_node){
        .name = root, .parent = TIERED_NO_NODE, .settings = &w->tiers[0].settings};
    uint32_t parents = 0;
    for (uint32_t tier = 1; tier < w->plan.n_tiers; tier++) {
        uint32_t at = parents + w->tier_counts[tier - 1];
        if (grow_tier(p, tier, parents, at) < 0) {
            return -1;
        }
        parents = at;
    }
    return add_names(p);
}

int planner_grow(struct planner *p)
{
    return p->topology->tree ? planner_grow_named(p) : grow_regular(p);
}

/* From the leaves up: where each subtree's first leaf by name is. */
void planner_find_initial(struct planner *p, uint32_t *first_leaf)
{
    struct tiered_node *nodes = p->w->nodes;
    for (uint32_t i = p->w->plan.n_nodes; i-- > 0;) {
        struct tiered_node *node = &nodes[i];
        first_leaf[i] = node->n_children ? first_leaf[node->first_child] : i;
        for (uint32_t k = 1; k < node->n_children; k++) {
            uint32_t leaf = first_leaf[node->first_child + k];
            if (strcmp(nodes[leaf].name, nodes[first_leaf[i]].name) < 0) {
                first_leaf[i] = leaf;
                node->initial_child = k;
            }
        }
    }
}
