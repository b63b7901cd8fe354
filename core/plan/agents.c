/* SPDX-License-Identifier: Apache-2.0 */
/* Which agent hosts which nodes: one a node, unless `agent:` says otherwise. */
#include <string.h>

#include "core/plan/inside.h"

struct agents {
    struct planner *p;
    struct tiered_planned_agent *items;
    struct name_table table;
    uint32_t n;
};

static const char *agent_name_of(const void *agents, uint32_t number)
{
    return ((const struct tiered_planned_agent *)agents)[number].name;
}

/* The text for the node: itself when nothing in it expands. */
static const char *expand(struct planner *p, uint32_t node, const char *text)
{
    struct tiered_error err = {0};
    if (!strchr(text, '{')) {
        return text;
    }
    TIERED_FREE char *expanded = tiered_plan_text(&p->w->plan, node, text, &err);
    char *own =
        expanded ? tiered_arena_copy(&p->w->arena, expanded, strlen(expanded)) : NULL;
    if (!own) {
        planner_no_memory(p);
    }
    return own;
}

static const char *agent_of(struct planner *p, uint32_t i)
{
    const struct tiered_node *node = &p->w->nodes[i];
    struct variant *v = variant_of(node);
    if (!node->settings->agent) {
        return node->name;
    }
    const char *name = expand(p, i, node->settings->agent);
    if (name && !tiered_name_ok(name)) {
        if (!v->reported) {
            tiered_diag_error(p->diag, v->given.marks[TIER_AGENT],
                              "%s: the agent '%.70s' has no name: " NAME_RULE, v->label,
                              name);
        }
        v->reported = true;
        return NULL;
    }
    return name;
}

static int check_host(struct agents *a, uint32_t i, struct tiered_planned_agent *agent)
{
    struct planner *p = a->p;
    struct variant *v = variant_of(&p->w->nodes[i]);
    if (!v->settings.host) {
        return 0;
    }
    const char *host = expand(p, i, v->settings.host);
    if (!host) {
        return -1;
    }
    if (agent->host && strcmp(agent->host, host) != 0) {
        tiered_diag_error(
            p->diag, v->given.marks[TIER_HOST],
            "node '%s': its agent '%s' already runs on '%.60s' and cannot "
            "run on '%.60s' too",
            p->w->nodes[i].name, agent->name, agent->host, host);
        return 0;
    }
    agent->host = host;
    return 0;
}

static int join(struct agents *a, uint32_t i)
{
    size_t errors = a->p->diag->n_errors;
    const char *name = agent_of(a->p, i);
    if (!name) {
        return a->p->diag->n_errors > errors ? 0 : -1;
    }
    a->items[a->n].name = name;
    uint32_t agent =
        plan_name_table_add(&a->table, name, a->n, agent_name_of, a->items);
    if (agent == UINT32_MAX) {
        agent = a->n++;
    }
    a->p->w->nodes[i].agent = agent;
    a->items[agent].n_nodes++;
    return check_host(a, i, &a->items[agent]);
}

/* Each agent's nodes, in the order of the plan. */
static int list_nodes(struct agents *a)
{
    struct whole_plan *w = a->p->w;
    uint32_t *nodes = tiered_arena_alloc(&w->arena, w->plan.n_nodes, sizeof(*nodes));
    TIERED_FREE uint32_t *filled = calloc(a->n ? a->n : 1, sizeof(*filled));
    if (!nodes || !filled) {
        return planner_no_memory(a->p);
    }
    for (uint32_t i = 0, at = 0; i < a->n; i++) {
        a->items[i].nodes = nodes + at;
        at += a->items[i].n_nodes;
    }
    for (uint32_t i = 0; i < w->plan.n_nodes; i++) {
        uint32_t agent = w->nodes[i].agent;
        ((uint32_t *)a->items[agent].nodes)[filled[agent]++] = i;
    }
    return 0;
}

int planner_group_agents(struct planner *p)
{
    struct whole_plan *w = p->w;
    size_t errors = p->diag->n_errors;
    struct agents a = {.p = p};
    a.items =
        tiered_arena_alloc(&w->arena, (size_t)w->plan.n_nodes + 1, sizeof(*a.items));
    if (!a.items || plan_name_table_init(&a.table, &w->arena, w->plan.n_nodes) < 0) {
        return planner_no_memory(p);
    }
    for (uint32_t i = 0; i < w->plan.n_nodes; i++) {
        if (join(&a, i) < 0) {
            return -1;
        }
    }
    w->agents = a.items;
    w->plan.n_agents = a.n;
    return p->diag->n_errors > errors ? -1 : list_nodes(&a);
}
