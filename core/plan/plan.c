/* SPDX-License-Identifier: Apache-2.0 */
/* Making a plan, and asking it. */
#include "core/plan/plan.h"

#include <string.h>

#include "core/plan/inside.h"

int planner_no_memory(struct planner *p)
{
    return tiered_diag_error(p->diag, (struct tiered_mark){p->topology->file, 1, 1},
                             "out of memory");
}

static int make_variants(struct planner *p)
{
    const struct tiered_topology *t = p->topology;
    struct whole_plan *w = p->w;
    w->plan.n_tiers = (uint32_t)t->n_tiers;
    w->tiers = tiered_arena_alloc(&w->arena, t->n_tiers, sizeof(*w->tiers));
    w->tier_counts = tiered_arena_alloc(&w->arena, t->n_tiers, sizeof(uint32_t));
    if (!w->tiers || !w->tier_counts) {
        return planner_no_memory(p);
    }
    for (size_t i = 0; i < t->n_tiers; i++) {
        struct variant *v = &w->tiers[i];
        const struct tier_entry *entry = &t->tiers[i];
        size_t n = strlen(entry->tier.name) + 8;
        char *label = tiered_arena_alloc(&w->arena, n, 1);
        if (!label) {
            return planner_no_memory(p);
        }
        snprintf(label, n, "tier '%s'", entry->tier.name);
        v->settings = entry->tier.settings;
        v->given = entry->given;
        v->label = label;
        v->mark = entry->tier.mark;
        v->tier = (uint32_t)i;
    }
    return 0;
}

static int make(struct planner *p)
{
    struct whole_plan *w = p->w;
    if (make_variants(p) < 0 || planner_grow(p) < 0) {
        return -1;
    }
    w->plan.nodes = w->nodes;
    w->plan.tier_counts = w->tier_counts;
    TIERED_FREE uint32_t *first_leaf = calloc(w->plan.n_nodes, sizeof(*first_leaf));
    if (!first_leaf) {
        return planner_no_memory(p);
    }
    planner_find_initial(p, first_leaf);
    if (planner_apply_exceptions(p) < 0) {
        return -1;
    }
    planner_check(p);
    int result = planner_group_agents(p);
    w->plan.agents = w->agents;
    w->plan.rounds = p->topology->run.rounds;
    /* what is wrong with the file is said already */
    return result < 0 || p->diag->n_errors ? result : planner_count_privacy(p);
}

int tiered_plan_make(const struct tiered_topology *topology, uint64_t generation,
                     struct tiered_plan **ret, struct tiered_diagnostics *diag)
{
    size_t errors = diag->n_errors;
    struct whole_plan *w = calloc(1, sizeof(*w));
    if (!w) {
        return tiered_diag_error(diag, (struct tiered_mark){topology->file, 1, 1},
                                 "out of memory");
    }
    TIERED_CLEANUP(tiered_plan_destroyp) struct tiered_plan *plan = &w->plan;
    plan->topology = topology;
    plan->generation = generation;
    plan->arena = w;
    struct planner p = {w, topology, diag};
    if (make(&p) < 0 || diag->n_errors > errors) {
        return -1;
    }
    *ret = TIERED_STEAL(plan);
    return 0;
}

void tiered_plan_destroy(struct tiered_plan *plan)
{
    if (plan) {
        struct whole_plan *w = plan->arena;
        tiered_arena_finish(&w->arena);
        free(w);
    }
}

uint32_t tiered_plan_find(const struct tiered_plan *plan, const char *name)
{
    const struct whole_plan *w = plan->arena;
    return plan_name_table_find(&w->by_name, name, plan_node_name_of, plan->nodes);
}

char *tiered_plan_text(const struct tiered_plan *plan, uint32_t node, const char *text,
                       struct tiered_error *err)
{
    const struct tiered_node *n = &plan->nodes[node];
    const struct words words = {
        .node = n->name,
        .tier = plan->topology->tiers[n->tier].tier.name,
        .parent = n->parent == TIERED_NO_NODE ? "" : plan->nodes[n->parent].name,
        .index = n->index,
        .count = plan->tier_counts[n->tier],
    };
    return topology_words_expand(text, &words, err);
}
