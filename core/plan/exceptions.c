/* SPDX-License-Identifier: Apache-2.0 */
/* nodes: laid over the tree. Entries work in the order of the file, later ones win. */
#include <fnmatch.h>
#include <string.h>

#include "core/plan/inside.h"

#define MAX_MATCHES    200000000u /* globs times nodes: seconds */
#define MAX_CANDIDATES 10000u     /* names searched for the nearest */
#define QUOTE_CHARS    70

/* What one entry met. */
struct reach {
    const struct exception *exception;
    uint64_t fitting; /* keys with a meaning in at least one of its nodes */
    uint32_t example; /* the last node */
    uint64_t n;
};

static bool is_glob(const char *pattern)
{
    return strpbrk(pattern, "*?[") != NULL;
}

static struct variant *derive(struct planner *p, struct variant *old,
                              const struct exception *exception, const char *node)
{
    struct tiered_arena *arena = &p->w->arena;
    struct variant *v = tiered_arena_alloc(arena, 1, sizeof(*v));
    char *label = tiered_arena_alloc(arena, strlen(node) + 8, 1);
    if (!v || !label) {
        planner_no_memory(p);
        return NULL;
    }
    sprintf(label, "node '%s'", node);
    *v = *old;
    v->label = label;
    v->mark = exception->mark;
    v->derived = NULL;
    v->derived_by = NULL;
    old->derived = v;
    old->derived_by = exception;
    return v;
}

static int apply(struct planner *p, struct reach *reach, uint32_t i)
{
    struct tiered_node *node = &p->w->nodes[i];
    struct variant *old = variant_of(node);
    bool leaf = node->tier + 1 == p->w->plan.n_tiers;
    reach->n++;
    reach->example = i;
    if (old->derived_by != reach->exception) {
        struct variant *v = derive(p, old, reach->exception, node->name);
        if (!v) {
            return -1;
        }
        reach->fitting |= topology_tier_keys_merge(
            &reach->exception->keys, node->tier == 0, leaf, &v->settings, &v->given);
        topology_tier_settings_check(p->diag, v->label, leaf, &v->settings, &v->given,
                                     v->mark);
    }
    node->settings = &old->derived->settings;
    return 0;
}

static int match_nothing(struct planner *p, const struct exception *exception)
{
    const struct whole_plan *w = p->w;
    const char *names[MAX_CANDIDATES];
    size_t n = 0;
    for (; n < w->plan.n_nodes && n < MAX_CANDIDATES; n++) {
        names[n] = w->nodes[n].name;
    }
    bool glob = is_glob(exception->pattern);
    const char *near = glob ? NULL : tiered_nearest(exception->pattern, names, n);
    char hint[128] = "";
    if (near) {
        snprintf(hint, sizeof(hint), "; did you mean '%s'?", near);
    } else {
        snprintf(hint, sizeof(hint), "; the nodes are '%s' to '%s'", w->nodes[0].name,
                 w->nodes[w->plan.n_nodes - 1].name);
    }
    return tiered_diag_error(p->diag, exception->mark,
                             glob ? "nodes: no node's name matches '%.*s'%s"
                                  : "nodes: there is no node '%.*s'%s",
                             QUOTE_CHARS, exception->pattern, hint);
}

static void refuse_key(struct planner *p, const struct reach *reach,
                       const struct key_row *row)
{
    const struct tiered_node *node = &p->w->nodes[reach->example];
    const char *why = node->tier == 0 ? "it is the root, which has no parent"
                      : row->where & KEY_LEAF
                          ? "it has children, and this belongs to leaves"
                          : "it has no children, and this belongs to the nodes above";
    if (node->tier == 0 && !(row->where & KEY_BELOW)) {
        why = "it has children, and this belongs to leaves";
    }
    tiered_diag_error(p->diag, reach->exception->keys.given.marks[row->id],
                      "node '%s': '%s' means nothing here: %s", node->name, row->name,
                      why);
}

static void check_reach(struct planner *p, const struct reach *reach)
{
    for (size_t i = 0; i < tiered_tier_n_rows; i++) {
        const struct key_row *row = &tiered_tier_rows[i];
        if (reach->exception->keys.given.marks[row->id].file &&
            !(reach->fitting >> row->id & 1)) {
            refuse_key(p, reach, row);
        }
    }
}

static int apply_exception(struct planner *p, const struct exception *exception)
{
    struct whole_plan *w = p->w;
    struct reach reach = {.exception = exception};
    if (!is_glob(exception->pattern)) {
        uint32_t i = tiered_plan_find(&w->plan, exception->pattern);
        if (i != TIERED_NO_NODE && apply(p, &reach, i) < 0) {
            return -1;
        }
    } else {
        for (uint32_t i = 0; i < w->plan.n_nodes; i++) {
            if (fnmatch(exception->pattern, w->nodes[i].name, 0) == 0 &&
                apply(p, &reach, i) < 0) {
                return -1;
            }
        }
    }
    if (reach.n == 0) {
        match_nothing(p, exception);
    } else {
        check_reach(p, &reach);
    }
    return 0;
}

int planner_apply_exceptions(struct planner *p)
{
    const struct tiered_topology *t = p->topology;
    uint64_t matches = 0;
    for (size_t i = 0; i < t->n_exceptions; i++) {
        const struct exception *exception = &t->exceptions[i];
        matches += is_glob(exception->pattern) ? p->w->plan.n_nodes : 0;
        if (matches > MAX_MATCHES || strlen(exception->pattern) > 255) {
            return tiered_diag_error(
                p->diag, exception->mark,
                "nodes: too many globs for %u nodes, or too long a "
                "one; name the nodes, or use defaults",
                p->w->plan.n_nodes);
        }
        if (apply_exception(p, exception) < 0) {
            return -1;
        }
    }
    return 0;
}
