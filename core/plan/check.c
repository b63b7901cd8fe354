/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan means: checks between nodes, from what the topology and the plugins say.
   Nodes share variants, and each pair of these is looked at once. */
#include <inttypes.h>
#include <string.h>

#include "core/plan/inside.h"
#include "core/privacy/filters.h"

static void check_quorum(struct planner *p, struct variant *v,
                         const struct tiered_node *node)
{
    const struct tiered_rounds *rounds = &v->settings.rounds;
    uint32_t sampled = tiered_rounds_sampled(rounds, node->n_children);
    uint32_t needed = tiered_rounds_needed(rounds, node->n_children);
    if (rounds->poisson && rounds->quorum_count) {
        tiered_diag_error(p->diag, v->given.marks[TIER_QUORUM],
                          "%s: a quorum of %u children may be more than poisson asks; "
                          "a share of those asked works, such as 100%%",
                          v->label, needed);
        v->reported = true;
        return;
    }
    if (needed > node->n_children) {
        tiered_diag_error(
            p->diag, v->given.marks[TIER_QUORUM],
            "%s: a quorum of %u is above the number of children: '%s' has "
            "%u",
            v->label, needed, node->name, node->n_children);
        v->reported = true;
    } else if (needed > sampled) {
        tiered_diag_error(p->diag, v->given.marks[TIER_QUORUM],
                          "%s: a quorum of %u can never be met: sample asks %u of the "
                          "%u children of '%s'",
                          v->label, needed, sampled, node->n_children, node->name);
        v->reported = true;
    }
}

static const struct tiered_plugin_ref *group_of(const struct variant *child)
{
    const struct tiered_plugin_list *uplink = &child->settings.uplink;
    for (size_t i = 0; i < uplink->n; i++) {
        const struct tiered_loaded *loaded = uplink->items[i].loaded;
        if (loaded && loaded->plugin.kind == TIERED_GROUP) {
            return &uplink->items[i];
        }
    }
    return NULL;
}

/* A sum hides what some rules ask of single updates. */
static void check_group_rule(struct planner *p, const struct variant *parent,
                             const struct variant *child,
                             const struct tiered_plugin *group)
{
    const struct tiered_plugin_list *chain = &parent->settings.aggregate;
    const struct tiered_loaded *aggregator = chain->n ? chain->items[0].loaded : NULL;
    if (!aggregator) {
        return;
    }
    const char *by = tiered_plan_option(&chain->items[0], "weighted_by");
    if (aggregator->plugin.traits & TIERED_NEEDS_INDIVIDUAL_UPDATES) {
        tiered_diag_error(p->diag, chain->items[0].mark,
                          "%s: '%s' needs single updates, and '%s' in the uplink of %s "
                          "hides them; fedavg works on sums",
                          parent->label, aggregator->plugin.name, group->name,
                          child->label);
    } else if (by && strcmp(by, "num_examples") != 0 && strcmp(by, "uniform") != 0) {
        tiered_diag_error(
            p->diag, chain->items[0].mark,
            "%s: '%s' weighted by %.40s needs that of single updates, and "
            "'%s' in the uplink of %s hides it; weigh by num_examples or "
            "uniform",
            parent->label, aggregator->plugin.name, by, group->name, child->label);
    }
}

/* Noise on a sum is measured by what bounds single updates, and rounded for the ring
   they may be larger: by how much only the group can say. */
static void check_group_noise(struct planner *p, const struct variant *parent,
                              const struct variant *child,
                              const struct tiered_plugin *group)
{
    const struct tiered_plugin_list *chain = &parent->settings.aggregate;
    const struct tiered_plugin_ref *last =
        chain->n ? &chain->items[chain->n - 1] : NULL;
    if (last && last->loaded && tiered_privacy_is_noise(&last->loaded->plugin) &&
        !tiered_group_tells(group)) {
        tiered_diag_error(
            p->diag, last->mark,
            "%s: '%s' has no epsilon over '%s' in the uplink of %s, which "
            "does not say how far it rounds updates; put '%s' into that uplink, "
            "before '%s'",
            parent->label, last->loaded->plugin.name, group->name, child->label,
            last->loaded->plugin.name, group->name);
    }
}

static void check_group(struct planner *p, const struct variant *parent,
                        const struct variant *child)
{
    const struct tiered_plugin_ref *ref = group_of(child);
    if (!ref) {
        return;
    }
    const struct tiered_plugin *group = &ref->loaded->plugin;
    check_group_rule(p, parent, child, group);
    check_group_noise(p, parent, child, group);
    if (parent->settings.rounds.poisson) {
        tiered_diag_error(
            p->diag, parent->given.marks[TIER_SAMPLE],
            "%s: sample by poisson may ask fewer children than '%s' in the uplink of "
            "%s can sum; a share such as 50%% asks as many in each round",
            parent->label, group->name, child->label);
    }
    if (parent->settings.rounds.keep_late) {
        tiered_diag_error(
            p->diag, parent->given.marks[TIER_LATE],
            "%s: late: next cannot keep an update that '%s' in the uplink "
            "of %s masked for one round; leave it at drop",
            parent->label, group->name, child->label);
    }
    if (parent->settings.on_bad_update != TIERED_REJECT_BAD) {
        tiered_diag_error(p->diag, parent->given.marks[TIER_ON_BAD_UPDATE],
                          "%s: on_bad_update can only be reject: '%s' in the uplink of "
                          "%s hides single updates",
                          parent->label, group->name, child->label);
    }
}

/* A round that closes with fewer than the group needs to open its sum. */
static void check_group_quorum(struct planner *p, struct variant *v,
                               uint32_t n_children, const char *group, uint32_t needed)
{
    uint32_t sampled = tiered_rounds_sampled(&v->settings.rounds, n_children);
    uint32_t enough = tiered_rounds_needed(&v->settings.rounds, n_children);
    if (enough < needed) {
        tiered_diag_warn(p->diag, v->given.marks[TIER_QUORUM],
                         "%s: a round that closes at its quorum of %u fails: '%s' "
                         "needs %u of %u members",
                         v->label, enough, group, needed, sampled);
    }
}

/* Fewer members than the group asks for, or more than its numbers have room for, would
   fail every round. Numbers alone decide: options as written will do. */
static void check_group_size(struct planner *p, struct variant *v,
                             const struct tiered_node *node,
                             const struct variant *child)
{
    const struct tiered_plugin_ref *ref = group_of(child);
    uint32_t sampled = tiered_rounds_sampled(&v->settings.rounds, node->n_children);
    struct tiered_group_terms terms;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes json = {0};
    if (!ref || (ref->options && tiered_value_json(ref->options, &json, NULL) < 0)) {
        return;
    }
    const struct tiered_plugin *group = &ref->loaded->plugin;
    if (tiered_group_terms(group, (const char *)json.data, sampled, &terms, &err) < 0) {
        tiered_diag_error(p->diag, ref->mark,
                          "%s: '%s' cannot serve '%s', whose rounds ask %u of its %u "
                          "children: %s",
                          child->label, group->name, node->name, sampled,
                          node->n_children, err.text);
        v->reported = true;
    } else if (terms.range > 0 && (terms.range < 1 || terms.step > 1) &&
               planner_follows(child)) {
        tiered_diag_error(p->diag, ref->mark,
                          "%s: '%s' sums with an update whether an adaptive clip cut "
                          "it, as 0 or 1, and has steps of %g up to +-%g; a range of "
                          "+-1 or more in steps of 1 or finer works",
                          child->label, group->name, terms.step, terms.range);
        v->reported = true;
    } else {
        check_group_quorum(p, v, node->n_children, group->name, terms.needed);
    }
}

static void check_deadline(struct planner *p, const struct variant *parent,
                           const struct variant *child)
{
    const struct tiered_rounds *rounds = &child->settings.rounds;
    uint64_t limit = parent->settings.rounds.deadline_ms, all;
    if (!limit || !rounds->deadline_ms || child->tier + 1 == p->w->plan.n_tiers) {
        return;
    }
    if (!tiered_mul(rounds->per_parent_round, rounds->deadline_ms, &all)) {
        all = UINT64_MAX;
    }
    if (all > limit) {
        char each[32], have[32];
        tiered_format_duration(rounds->deadline_ms, each);
        tiered_format_duration(limit, have);
        tiered_diag_error(
            p->diag, child->given.marks[TIER_DEADLINE],
            "%s: %u round%s with a deadline of %s cannot fit the deadline "
            "of %s, %s",
            child->label, rounds->per_parent_round,
            rounds->per_parent_round == 1 ? "" : "s", each, parent->label, have);
    }
}

static void check_hosts(struct planner *p, const struct variant *parent,
                        const struct variant *child)
{
    const char *ours = child->settings.host, *theirs = parent->settings.host;
    const struct tiered_loaded *transport = child->settings.transport.loaded;
    if (ours && theirs && strcmp(ours, theirs) != 0 && transport &&
        (transport->plugin.traits & TIERED_LOCAL_ONLY)) {
        tiered_diag_error(
            p->diag,
            given_has(&child->given, TIER_TRANSPORT)
                ? child->given.marks[TIER_TRANSPORT]
                : child->given.marks[TIER_HOST],
            "%s: transport '%s' works within one host, and this is '%.60s' "
            "while %s is on '%.60s'",
            child->label, transport->plugin.name, ours, parent->label, theirs);
    }
}

static void check_link(struct planner *p, const struct variant *parent,
                       struct variant *child)
{
    if (child->checked_parent != parent) {
        child->checked_parent = parent;
        planner_check_pipes(p, child);
        check_group(p, parent, child);
        planner_check_noise(p, parent, child);
        check_deadline(p, parent, child);
        check_hosts(p, parent, child);
    }
}

static bool same_pipe(const struct tiered_plugin_list *a,
                      const struct tiered_plugin_list *b)
{
    return a->n == b->n && (a->n == 0 || a->items == b->items);
}

/* A parent has one pipe for all of its children. */
static void check_siblings(struct planner *p, const struct variant *first,
                           const struct variant *v, const struct tiered_node *parent)
{
    const struct tiered_settings *a = &first->settings, *b = &v->settings;
    bool up = same_pipe(&a->uplink, &b->uplink);
    if (up && same_pipe(&a->downlink, &b->downlink)) {
        return;
    }
    const struct tiered_settings *tier = &p->w->tiers[v->tier].settings;
    bool first_is_odd = up ? same_pipe(&b->downlink, &tier->downlink)
                           : same_pipe(&b->uplink, &tier->uplink);
    struct variant *odd = (struct variant *)(uintptr_t)(first_is_odd ? first : v);
    if (!odd->reported) {
        tiered_diag_error(p->diag, odd->given.marks[up ? TIER_DOWNLINK : TIER_UPLINK],
                          "%s: %s other than its siblings' is not in this version; "
                          "give all children of '%s' the same",
                          odd->label, up ? "a downlink" : "an uplink", parent->name);
    }
    odd->reported = true;
}

/* ":7400" and "0.0.0.0:7400" are one address. */
static const char *skip_any(const char *listen)
{
    static const char *const any[] = {"0.0.0.0:", "[::]:", "*:"};
    for (size_t i = 0; i < TIERED_COUNT(any); i++) {
        size_t n = strlen(any[i]);
        if (strncmp(listen, any[i], n) == 0) {
            return listen + n - 1;
        }
    }
    return listen;
}

struct address {
    const char *text; /* "HOST LISTEN" */
    uint32_t node;
};

static const char *address_of(const void *addresses, uint32_t number)
{
    return ((const struct address *)addresses)[number].text;
}

static const char *make_address(struct planner *p, uint32_t node)
{
    const struct tiered_settings *s = p->w->nodes[node].settings;
    TIERED_FREE char *listen = tiered_plan_text(&p->w->plan, node, s->listen, NULL);
    TIERED_FREE char *host =
        tiered_plan_text(&p->w->plan, node, s->host ? s->host : "", NULL);
    size_t n = listen && host ? strlen(listen) + strlen(host) + 2 : 0;
    char *text = n ? tiered_arena_alloc(&p->w->arena, n, 1) : NULL;
    if (text) {
        snprintf(text, n, "%s %s", host, skip_any(listen));
    }
    return text;
}

static uint32_t count_listeners(const struct planner *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->w->plan.n_nodes; i++) {
        n += p->w->nodes[i].settings->listen != NULL;
    }
    return n;
}

static void same_address(struct planner *p, uint32_t i, uint32_t other)
{
    struct variant *v = variant_of(&p->w->nodes[i]);
    if (!v->reported) {
        tiered_diag_error(p->diag, v->given.marks[TIER_LISTEN],
                          "nodes '%s' and '%s' have one address, '%.60s'%s%.60s; give "
                          "each its own listen or host",
                          p->w->nodes[other].name, p->w->nodes[i].name,
                          v->settings.listen, v->settings.host ? " on " : "",
                          v->settings.host ? v->settings.host : "");
    }
    v->reported = true;
}

static void check_addresses(struct planner *p)
{
    struct whole_plan *w = p->w;
    uint32_t n_listeners = count_listeners(p), n = 0;
    struct name_table table;
    TIERED_FREE struct address *addresses =
        calloc((size_t)n_listeners + 1, sizeof(*addresses));
    if (!n_listeners) {
        return;
    }
    if (!addresses || plan_name_table_init(&table, &w->arena, n_listeners) < 0) {
        planner_no_memory(p);
        return;
    }
    for (uint32_t i = 0; i < w->plan.n_nodes; i++) {
        if (!w->nodes[i].settings->listen) {
            continue;
        }
        addresses[n] = (struct address){make_address(p, i), i};
        if (!addresses[n].text) {
            planner_no_memory(p);
            return;
        }
        uint32_t other =
            plan_name_table_add(&table, addresses[n].text, n, address_of, addresses);
        if (other != UINT32_MAX) {
            same_address(p, i, addresses[other].node);
        }
        n++;
    }
}

void planner_check(struct planner *p)
{
    const struct whole_plan *w = p->w;
    for (uint32_t i = 0; i < w->plan.n_nodes; i++) {
        const struct tiered_node *node = &w->nodes[i];
        struct variant *v = variant_of(node);
        if (node->n_children && !v->reported &&
            v->checked_children != node->n_children) {
            v->checked_children = node->n_children;
            check_quorum(p, v, node);
            check_group_size(p, v, node, variant_of(&w->nodes[node->first_child]));
            planner_check_noise_size(p, v, node,
                                     variant_of(&w->nodes[node->first_child]));
            planner_check_rule(p, v, node->n_children);
        }
        for (uint32_t k = 0; k < node->n_children; k++) {
            struct variant *child = variant_of(&w->nodes[node->first_child + k]);
            check_link(p, v, child);
            check_siblings(p, variant_of(&w->nodes[node->first_child]), child, node);
        }
    }
    check_addresses(p);
}
