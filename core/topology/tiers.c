/* SPDX-License-Identifier: Apache-2.0 */
/* tiers:, defaults: and nodes:. */
#include <string.h>

#include "core/topology/inside.h"

#define DEFAULT_MEMORY (512ull << 20)
#define MAX_EXCEPTIONS 100000

struct kind_of_tier {
    bool root, leaf;
};

static const struct tiered_settings built_in = {
    .rounds = {.per_parent_round = 1, .sample = 1, .quorum = 1},
    .memory_bytes = DEFAULT_MEMORY,
};

/* The name as written, so that messages can say it before anything is checked. */
static const char *peek_name(const struct tiered_value *item)
{
    const struct tiered_value *name = tiered_value_get(item, "name");
    return name && name->kind == TIERED_SCALAR ? name->text : NULL;
}

static const char *tier_label(char out[96], const struct tiered_value *list, size_t i)
{
    const char *name = peek_name(list->items[i]);
    if (name) {
        snprintf(out, 96, "tier '%.60s'", name);
    } else {
        snprintf(out, 96, "tier %zu", i + 1);
    }
    return out;
}

static int check_tier_name(struct loader *l, const struct tiered_value *list, size_t i)
{
    const struct tiered_value *item = list->items[i];
    const char *name = peek_name(item);
    if (!tiered_value_get(item, "name")) {
        tiered_diag_error(l->diag, item->mark,
                          "tier %zu needs a name, such as 'name: "
                          "edge'",
                          i + 1);
    }
    for (size_t k = 0; name && k < i; k++) {
        const char *other = peek_name(list->items[k]);
        if (other && strcmp(name, other) == 0) {
            struct tiered_mark first = tiered_value_get(list->items[k], "name")->mark;
            return tiered_diag_error(
                l->diag, tiered_value_get(item, "name")->mark,
                "a second tier '%.60s'; the first is in line %u, column "
                "%u",
                name, first.line, first.column);
        }
    }
    return 0;
}

static void check_fan_out(struct loader *l, const char *what,
                          const struct tier_keys *keys, struct kind_of_tier kind,
                          struct tiered_mark mark)
{
    bool given = given_has(&keys->given, TIER_FAN_OUT);
    struct tiered_mark at = keys->given.marks[TIER_FAN_OUT];
    if (l->topology->tree && at.file) {
        tiered_diag_error(l->diag, at,
                          "%s: fan_out and tree never go together; the tree says how "
                          "many nodes there are",
                          what);
    } else if (kind.root && at.file) {
        tiered_diag_error(l->diag, at,
                          "%s: the root tier has one node and no fan_out; a tree has "
                          "one root",
                          what);
    } else if (!l->topology->tree && !kind.root && !given && !at.file) {
        tiered_diag_error(l->diag, mark,
                          "%s needs fan_out, the number of nodes under each parent",
                          what);
    }
}

static void check_rounds_scope(struct loader *l, const char *what, const char *above,
                               const struct tier_keys *keys, struct kind_of_tier kind)
{
    const struct given *given = &keys->given;
    if (kind.leaf && given->marks[TIER_ROUNDS].file) {
        tiered_diag_error(l->diag, given->marks[TIER_ROUNDS],
                          "%s has no children and runs no rounds; 'rounds' belongs to "
                          "%s above, whose nodes run rounds over these",
                          what, above);
    }
    if (kind.root && given_has(given, TIER_PER_PARENT_ROUND)) {
        tiered_diag_warn(l->diag, given->marks[TIER_PER_PARENT_ROUND],
                         "%s: per_parent_round means nothing at the root, which has no "
                         "parent; run.rounds is the number of its rounds",
                         what);
    }
}

/* Keys that say nothing about this kind of tier. */
static void check_scope(struct loader *l, const char *what, const char *above,
                        const struct tier_keys *keys, struct kind_of_tier kind)
{
    static const uint32_t of_links[] = {TIER_UPLINK, TIER_DOWNLINK, TIER_TRANSPORT};
    const struct given *given = &keys->given;
    check_rounds_scope(l, what, above, keys, kind);
    if (kind.leaf && given_has(given, TIER_AGGREGATE)) {
        tiered_diag_error(l->diag, given->marks[TIER_AGGREGATE],
                          "%s has no children to aggregate; 'aggregate' belongs to the "
                          "tiers above, a leaf has 'trainer'",
                          what);
    }
    if (!kind.leaf && given_has(given, TIER_TRAINER)) {
        tiered_diag_error(l->diag, given->marks[TIER_TRAINER],
                          "%s has children and trains nothing; 'trainer' belongs to "
                          "the last tier",
                          what);
    }
    if (kind.leaf && given_has(given, TIER_ON_BAD_UPDATE)) {
        tiered_diag_warn(l->diag, given->marks[TIER_ON_BAD_UPDATE],
                         "%s: on_bad_update means nothing at a leaf, which receives no "
                         "updates; set it in %s above",
                         what, above);
    }
    for (size_t i = 0; kind.root && i < TIERED_COUNT(of_links); i++) {
        if (given_has(given, of_links[i])) {
            tiered_diag_warn(l->diag, given->marks[of_links[i]],
                             "%s: links lead to the parent, and the root has none; "
                             "this has no effect",
                             what);
        }
    }
}

/* unix unless the tier says otherwise. */
static void default_transport(struct loader *l, const char *what,
                              struct tier_entry *entry, struct tiered_mark mark)
{
    struct tiered_value name = {.kind = TIERED_SCALAR, .mark = mark, .text = "unix"};
    if (!given_has(&entry->given, TIER_TRANSPORT)) {
        topology_plugin_read(l, what, TIERED_TRANSPORT, &name,
                             &entry->tier.settings.transport);
    }
}

static void read_tier(struct loader *l, const struct tiered_value *list, size_t i,
                      const struct tier_keys *defaults)
{
    struct tiered_topology *t = l->topology;
    struct tier_entry *entry = &t->tiers[i];
    const struct tiered_value *item = list->items[i];
    struct kind_of_tier kind = {i == 0, i + 1 == list->n};
    char what[96], above[96] = "the tier";
    tier_label(what, list, i);
    if (i) {
        tier_label(above, list, i - 1);
    }
    entry->tier.name = "";
    entry->tier.mark = item->mark;
    TIERED_FREE struct tier_keys *keys = calloc(1, sizeof(*keys));
    if (!keys || item->kind != TIERED_MAPPING) {
        tiered_diag_error(l->diag, item->mark, "%s: %s", what,
                          keys ? "a tier is a mapping that begins with its name"
                               : "out of memory");
        return;
    }
    topology_tier_keys_read(l, what, 0, item, keys);
    bool named = check_tier_name(l, list, i) == 0 && keys->name;
    check_fan_out(l, what, keys, kind, item->mark);
    check_scope(l, what, above, keys, kind);
    entry->tier.name = named ? keys->name : "";
    entry->tier.fan_out = keys->fan_out;
    entry->given.marks[TIER_FAN_OUT] = keys->given.marks[TIER_FAN_OUT];
    topology_tier_keys_merge(defaults, kind.root, kind.leaf, &entry->tier.settings,
                             &entry->given);
    topology_tier_keys_merge(keys, kind.root, kind.leaf, &entry->tier.settings,
                             &entry->given);
    if (!kind.root) {
        default_transport(l, what, entry, item->mark);
    }
    topology_tier_settings_check(l->diag, what, kind.leaf, &entry->tier.settings,
                                 &entry->given, item->mark);
}

static int check_list(struct loader *l, const struct tiered_value *list)
{
    if (!list || list->kind != TIERED_SEQUENCE) {
        return tiered_diag_error(
            l->diag, list ? list->mark : (struct tiered_mark){l->topology->file, 1, 1},
            list ? "tiers must be a list, root first"
                 : "tiers is missing: a list of tiers, root first");
    }
    if (list->n < TIERED_MIN_TIERS || list->n > TIERED_MAX_TIERS) {
        return tiered_diag_error(
            l->diag, list->mark, "%zu tier%s; a topology has %u to %u, root first",
            list->n, list->n == 1 ? "" : "s", TIERED_MIN_TIERS, TIERED_MAX_TIERS);
    }
    return 0;
}

void topology_tiers_read(struct loader *l, const struct top_keys *keys)
{
    struct tiered_topology *t = l->topology;
    TIERED_FREE struct tier_keys *defaults = calloc(1, sizeof(*defaults));
    if (!defaults) {
        tiered_diag_error(l->diag, (struct tiered_mark){t->file, 1, 1},
                          "out of memory");
        return;
    }
    if (keys->defaults) {
        topology_tier_keys_read(l, "defaults", KEY_STRUCTURE, keys->defaults, defaults);
    }
    if (check_list(l, keys->tiers) < 0) {
        return;
    }
    t->tiers = tiered_arena_alloc(&t->arena, keys->tiers->n, sizeof(*t->tiers));
    if (!t->tiers) {
        tiered_diag_error(l->diag, keys->tiers->mark, "out of memory");
        return;
    }
    t->n_tiers = keys->tiers->n;
    for (size_t i = 0; i < t->n_tiers; i++) {
        t->tiers[i].tier.settings = built_in;
        read_tier(l, keys->tiers, i, defaults);
    }
}

void topology_exceptions_read(struct loader *l, const struct tiered_value *nodes)
{
    struct tiered_topology *t = l->topology;
    if (!nodes || nodes->kind == TIERED_NULL) {
        return;
    }
    if (nodes->kind != TIERED_MAPPING) {
        tiered_diag_error(l->diag, nodes->mark,
                          "nodes must be a mapping of names or globs to tier keys");
        return;
    }
    if (nodes->n > MAX_EXCEPTIONS) {
        tiered_diag_error(l->diag, nodes->mark,
                          "%zu entries; %d is the most, and a glob "
                          "covers many nodes",
                          nodes->n, MAX_EXCEPTIONS);
        return;
    }
    t->exceptions = tiered_arena_alloc(&t->arena, nodes->n, sizeof(*t->exceptions));
    if (!t->exceptions) {
        tiered_diag_error(l->diag, nodes->mark, "out of memory");
        return;
    }
    for (size_t i = 0; i < nodes->n; i++) {
        struct exception *exception = &t->exceptions[i];
        char what[96];
        exception->pattern = nodes->items[2 * i]->text;
        exception->mark = nodes->items[2 * i]->mark;
        snprintf(what, sizeof(what), "node '%.60s'", exception->pattern);
        topology_tier_keys_read(l, what, KEY_STRUCTURE, nodes->items[2 * i + 1],
                                &exception->keys);
    }
    t->n_exceptions = nodes->n;
}
