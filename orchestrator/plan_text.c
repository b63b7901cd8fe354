/* SPDX-License-Identifier: Apache-2.0 */
/* A plan as a tree for a terminal. */
#include "orchestrator/plan_text.h"

#include "orchestrator/privacy.h"

#include <inttypes.h>
#include <string.h>

#define SHOWN_SIBLINGS 6 /* a longer list shows its first and last */
#define MAX_INDENT     128
#define NAME_COLUMN    26

struct drawing {
    const struct plan_view *view;
    FILE *out;
    char indent[MAX_INDENT]; /* 16 levels of 5 bytes at most */
};

static void put_list(FILE *out, const char *before, const char *between,
                     const struct tiered_plugin_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        fprintf(out, "%s%s", i ? between : before, list->items[i].loaded->plugin.name);
    }
}

static void put_bytes(struct drawing *d, const char *before, uint64_t bytes)
{
    char text[32] = "?";
    if (d->view->model_known) {
        tiered_format_bytes(bytes, text);
    }
    fprintf(d->out, "%s%s", before, text);
}

static void put_rounds(FILE *out, const struct tiered_node *node)
{
    const struct tiered_rounds *r = &node->settings->rounds;
    if (node->parent != TIERED_NO_NODE && r->per_parent_round > 1) {
        fprintf(out, " ×%u", r->per_parent_round);
    }
    if (r->poisson) {
        fprintf(out, ", samples each with %g %%", r->sample * 100);
    } else if (r->sample < 1) {
        fprintf(out, ", samples %u of %u", tiered_rounds_sampled(r, node->n_children),
                node->n_children);
    }
    uint32_t needed = tiered_rounds_needed(r, node->n_children);
    if (r->poisson && r->quorum < 1) {
        fprintf(out, ", quorum %g %%", r->quorum * 100);
    } else if (!r->poisson && needed < tiered_rounds_sampled(r, node->n_children)) {
        fprintf(out, ", quorum %u", needed);
    }
    if (r->deadline_ms) {
        char text[32];
        tiered_format_duration(r->deadline_ms, text);
        fprintf(out, ", deadline %s", text);
    }
}

static void put_link(struct drawing *d, const struct tiered_node *node,
                     const struct node_estimate *e)
{
    const struct tiered_settings *s = node->settings;
    put_bytes(d, " · up ", e->up_bytes);
    put_list(d->out, " by ", ", ", &s->uplink);
    put_bytes(d, " · down ", e->down_bytes);
    put_list(d->out, " by ", ", ", &s->downlink);
}

static void put_node(struct drawing *d, uint32_t i, const char *branch)
{
    const struct tiered_plan *plan = d->view->plan;
    const struct tiered_node *node = &plan->nodes[i];
    const struct tiered_settings *s = node->settings;
    struct node_estimate e = estimate_node(plan, i, d->view->model_bytes);
    int pad = NAME_COLUMN - 3 * (int)node->tier;
    fprintf(d->out, "%s%s%-*s ", d->indent, branch, pad > 1 ? pad : 1, node->name);
    if (node->n_children) {
        put_list(d->out, "", " + ", &s->aggregate);
        put_rounds(d->out, node);
    } else {
        fputs(s->trainer.loaded->plugin.name, d->out);
    }
    if (node->parent != TIERED_NO_NODE) {
        put_link(d, node, &e);
    }
    if (node->n_children) {
        put_bytes(d, " · receives ", e.from_children_bytes);
        put_bytes(d, " · memory ≤ ", e.memory_bytes);
    }
    const struct tiered_planned_agent *agent = &plan->agents[node->agent];
    if (strcmp(agent->name, node->name) != 0) {
        fprintf(d->out, " · agent %s", agent->name);
    }
    if (agent->host) {
        fprintf(d->out, " · on %s", agent->host);
    }
    fputc('\n', d->out);
}

static void draw_children(struct drawing *d, uint32_t parent);

static void draw_child(struct drawing *d, uint32_t child, bool last)
{
    size_t length = strlen(d->indent);
    put_node(d, child, last ? "└─ " : "├─ ");
    snprintf(d->indent + length, sizeof(d->indent) - length, last ? "   " : "│  ");
    draw_children(d, child);
    d->indent[length] = 0;
}

static void draw_children(struct drawing *d, uint32_t parent)
{
    const struct tiered_node *node = &d->view->plan->nodes[parent];
    uint32_t n = node->n_children;
    bool collapse = !d->view->all && n > SHOWN_SIBLINGS;
    for (uint32_t i = 0; i < n; i++) {
        if (collapse && i == 1) {
            fprintf(d->out, "%s├─ … %u more\n", d->indent, n - 2);
            i = n - 1;
        }
        draw_child(d, node->first_child + i, i + 1 == n);
    }
}

/* What the run will spend at most, before it does. */
static void put_privacy(const struct tiered_plan *plan, FILE *out)
{
    const struct tiered_run_settings *run = tiered_topology_run(plan->topology);
    json_t *list = privacy_plan_json(plan);
    fputc('\n', out);
    if (plan->rounds < run->rounds) {
        fprintf(out, "stops after %u rounds: one more would exceed epsilon %g\n",
                plan->rounds, run->stop.epsilon);
    }
    privacy_print(list, out);
    json_decref(list);
}

int plan_print_tree(const struct plan_view *view, FILE *out, struct tiered_error *err)
{
    (void)err;
    const struct tiered_plan *plan = view->plan;
    struct drawing d = {.view = view, .out = out};
    fprintf(out, "%s: %u tiers, %u nodes, %u agent%s, %u round%s",
            tiered_topology_run(plan->topology)->name, plan->n_tiers, plan->n_nodes,
            plan->n_agents, plan->n_agents == 1 ? "" : "s",
            tiered_topology_run(plan->topology)->rounds,
            tiered_topology_run(plan->topology)->rounds == 1 ? "" : "s");
    put_bytes(&d, "; the model is ", view->model_bytes);
    put_privacy(plan, out);
    fputs("bytes before filters, in one round of the node above\n\n", out);
    put_node(&d, 0, "");
    draw_children(&d, 0);
    return 0;
}
