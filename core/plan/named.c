/* SPDX-License-Identifier: Apache-2.0 */
/* tree: irregular trees with the user's names; depth says the tier. */
#include <assert.h>
#include <string.h>

#include "core/plan/inside.h"

#define QUOTE_CHARS 70

/* A child as the tree writes it. */
struct entry {
    const struct tiered_value *name, *below; /* below: NULL or TIERED_NULL for a leaf */
};

struct named {
    struct planner *p;
    struct entry *entries; /* of each node */
    uint32_t n;            /* nodes so far */
    size_t errors;
};

static int compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return strcmp(x->name->text, y->name->text);
}

/* Values are at most a million, and the walk no deeper than the document. */
static uint64_t count_below(const struct tiered_value *value)
{
    uint64_t n = 0;
    if (value->kind == TIERED_SCALAR) {
        return 1;
    }
    if (value->kind == TIERED_SEQUENCE) {
        for (size_t i = 0; i < value->n; i++) {
            n += count_below(value->items[i]);
        }
    } else if (value->kind == TIERED_MAPPING) {
        for (size_t i = 0; i < value->n; i++) {
            const struct tiered_value *below = value->items[2 * i + 1];
            n += 1 + count_below(below);
        }
    }
    return n;
}

static bool is_ancestor(const struct tiered_node *nodes, uint32_t maybe, uint32_t node)
{
    while (node != TIERED_NO_NODE && node != maybe) {
        node = nodes[node].parent;
    }
    return node == maybe;
}

static int second_place(struct named *n, const struct entry *entry, uint32_t parent,
                        uint32_t first)
{
    const struct tiered_node *nodes = n->p->w->nodes;
    const struct tiered_value *name = n->entries[first].name;
    assert(name); /* each node has its entry */
    struct tiered_mark mark = name->mark;
    if (is_ancestor(nodes, first, parent)) {
        return tiered_diag_error(
            n->p->diag, entry->name->mark,
            "tree: a cycle: '%s' (line %u, column %u) stands above "
            "itself",
            entry->name->text, mark.line, mark.column);
    }
    const char *other = nodes[first].parent == TIERED_NO_NODE
                            ? "nothing"
                            : nodes[nodes[first].parent].name;
    return tiered_diag_error(
        n->p->diag, entry->name->mark,
        "tree: '%s' already stands below '%s' (line %u, column %u); "
        "a node has one parent",
        entry->name->text, other, mark.line, mark.column);
}

static int add_node(struct named *n, const struct entry *entry, uint32_t tier,
                    uint32_t parent)
{
    struct whole_plan *w = n->p->w;
    const char *name = entry->name->text;
    if (!tiered_name_ok(name)) {
        return tiered_diag_error(n->p->diag, entry->name->mark,
                                 "tree: '%.*s' is no name: " NAME_RULE, QUOTE_CHARS,
                                 name);
    }
    w->nodes[n->n] = (struct tiered_node){.name = name,
                                          .tier = tier,
                                          .index = w->tier_counts[tier],
                                          .parent = parent,
                                          .settings = &w->tiers[tier].settings};
    uint32_t first =
        plan_name_table_add(&w->by_name, name, n->n, plan_node_name_of, w->nodes);
    if (first != UINT32_MAX) {
        return second_place(n, entry, parent, first);
    }
    n->entries[n->n++] = *entry;
    w->tier_counts[tier]++;
    return 0;
}

/* The children that a mapping or list writes; -1 for what is no node. */
static int child_at(struct named *n, const struct tiered_value *below, size_t i,
                    struct entry *ret)
{
    if (below->kind == TIERED_MAPPING) {
        *ret = (struct entry){below->items[2 * i], below->items[2 * i + 1]};
        return 0;
    }
    const struct tiered_value *item = below->items[i];
    if (item->kind == TIERED_SCALAR) {
        *ret = (struct entry){item, NULL};
        return 0;
    }
    if (item->kind == TIERED_MAPPING && item->n == 1) {
        *ret = (struct entry){item->items[0], item->items[1]};
        return 0;
    }
    return tiered_diag_error(
        n->p->diag, item->mark,
        "tree: a node is written NAME, or NAME: with its children");
}

static bool is_collection(const struct tiered_value *value)
{
    return value && (value->kind == TIERED_MAPPING || value->kind == TIERED_SEQUENCE);
}

static void add_children(struct named *n, uint32_t parent, struct entry *scratch)
{
    struct planner *p = n->p;
    struct tiered_node *node = &p->w->nodes[parent];
    const struct tiered_value *below = n->entries[parent].below;
    const struct tiered_value *name = n->entries[parent].name;
    bool last = node->tier + 1 == p->topology->n_tiers;
    if (below && below->kind == TIERED_SCALAR) {
        tiered_diag_error(p->diag, below->mark,
                          "tree: the children of '%s' must be a list or a mapping",
                          name->text);
        return;
    }
    size_t count = is_collection(below) ? below->n : 0;
    if (last && count) {
        tiered_diag_error(p->diag, name->mark,
                          "tree: '%s' is of the last tier, '%s', and cannot have "
                          "children; the tree has more levels than tiers",
                          name->text, p->topology->tiers[node->tier].tier.name);
        return;
    }
    if (!last && !count) {
        tiered_diag_error(p->diag, name->mark,
                          "tree: '%s' is of tier '%s' and needs children; only the "
                          "last tier, '%s', has none",
                          name->text, p->topology->tiers[node->tier].tier.name,
                          p->topology->tiers[p->topology->n_tiers - 1].tier.name);
        return;
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        kept += child_at(n, below, i, &scratch[kept]) == 0;
    }
    qsort(scratch, kept, sizeof(*scratch), compare);
    node->first_child = n->n;
    for (size_t i = 0; i < kept; i++) {
        node->n_children += add_node(n, &scratch[i], node->tier + 1, parent) == 0;
    }
}

static int check_root(struct planner *p, const struct tiered_value *tree)
{
    if (tree->kind != TIERED_MAPPING || tree->n == 0) {
        return tiered_diag_error(p->diag, tree->mark,
                                 "tree must be a mapping of the root to its children, "
                                 "such as {hq: {plant-a: [press-1]}}");
    }
    if (tree->n > 1) {
        return tiered_diag_error(p->diag, tree->items[2]->mark,
                                 "tree: a second root '%.*s'; a tree has one, and "
                                 "'%.*s' is it",
                                 QUOTE_CHARS, tree->items[2]->text, QUOTE_CHARS,
                                 tree->items[0]->text);
    }
    return 0;
}

int planner_grow_named(struct planner *p)
{
    const struct tiered_value *tree = p->topology->tree;
    struct whole_plan *w = p->w;
    if (check_root(p, tree) < 0) {
        return -1;
    }
    uint64_t most = count_below(tree);
    if (most > TIERED_MAX_NODES) {
        return tiered_diag_error(p->diag, tree->mark,
                                 "the tree has more than %u nodes, which is the most",
                                 TIERED_MAX_NODES);
    }
    TIERED_FREE struct entry *entries = calloc(most, sizeof(*entries));
    TIERED_FREE struct entry *scratch = calloc(most, sizeof(*scratch));
    w->nodes = tiered_arena_alloc(&w->arena, most + 1, sizeof(*w->nodes));
    if (!entries || !scratch || !w->nodes ||
        plan_name_table_init(&w->by_name, &w->arena, most) < 0) {
        return planner_no_memory(p);
    }
    size_t errors = p->diag->n_errors;
    struct named n = {.p = p, .entries = entries};
    struct entry root = {tree->items[0], tree->items[1]};
    if (add_node(&n, &root, 0, TIERED_NO_NODE) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < n.n; i++) {
        add_children(&n, i, scratch);
    }
    w->plan.n_nodes = n.n;
    return p->diag->n_errors > errors ? -1 : 0;
}
