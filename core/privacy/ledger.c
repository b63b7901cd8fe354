/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan's noise spends. */
#include "core/privacy/ledger.h"

#include <math.h>
#include <string.h>

#include "core/plan/plan.h"
#include "core/privacy/filters.h"
#include "core/value/arena.h"

#define MOST_LINES 256u /* kinds of noise in one plan */

struct making {
    const struct tiered_plan *plan;
    struct tiered_ledger *ledger;
    uint64_t *rounds; /* of each node, in one round of the root */
    struct tiered_error *err;
    uint32_t last_local, last_central; /* nodes with a line, or UINT32_MAX */
};

/* What the filters from `from` on say, in order. A codec that changes values may make
   an update larger than a clip before it has left it. */
static int read_pipe(const struct making *m, uint32_t node,
                     const struct tiered_plugin_list *list, double *ret_norm,
                     struct tiered_noise *ret_noise, double *ret_noise_norm)
{
    *ret_norm = 0;
    *ret_noise = (struct tiered_noise){0};
    for (size_t i = 0; i < list->n; i++) {
        const struct tiered_plugin *plugin = &list->items[i].loaded->plugin;
        struct tiered_privacy says;
        TIERED_FREE char *options =
            tiered_plan_options(m->plan, node, &list->items[i], m->err);
        if (!options || tiered_privacy_of(plugin, options, &says, m->err) < 0) {
            return -1;
        }
        if (tiered_privacy_bounds(plugin)) {
            *ret_norm = says.norm > 0 ? says.norm : says.first_norm;
        } else if ((plugin->traits & TIERED_LOSSY) &&
                   !(plugin->traits & TIERED_PRIVACY)) {
            *ret_norm = 0;
        }
        if (says.noise.size) {
            *ret_noise = says.noise;
            *ret_noise_norm = *ret_norm;
        }
    }
    return 0;
}

static bool same(const struct tiered_ledger_line *a, const struct tiered_ledger_line *b)
{
    return a->tier == b->tier && a->central == b->central && a->bounded == b->bounded &&
           a->insecure == b->insecure && a->unproven == b->unproven &&
           a->noise_multiplier == b->noise_multiplier && a->delta == b->delta &&
           a->q == b->q && a->per_round == b->per_round && a->share == b->share &&
           a->group.members == b->group.members &&
           strcmp(a->group.why, b->group.why) == 0;
}

static int add(const struct making *m, struct tiered_ledger_line line, uint32_t *ret)
{
    struct tiered_ledger *ledger = m->ledger;
    for (size_t i = ledger->n; i-- > 0;) {
        if (same(&ledger->lines[i], &line)) {
            *ret = (uint32_t)i;
            return 0;
        }
    }
    if (ledger->n == MOST_LINES) {
        return tiered_fail(m->err, TIERED_EINVAL, "more than %u kinds of noise",
                           MOST_LINES);
    }
    tiered_accountant_add(&line.step, line.q, line.noise_multiplier, 1);
    ledger->lines[ledger->n] = line;
    *ret = (uint32_t)ledger->n++;
    return 0;
}

static int add_local(const struct making *m, uint32_t i)
{
    const struct tiered_node *node = &m->plan->nodes[i];
    struct tiered_noise noise;
    struct tiered_distributed group = {0};
    double norm, bound = 0;
    if (read_pipe(m, i, &node->settings->uplink, &norm, &noise, &bound) < 0 ||
        (bound > 0 &&
         tiered_distributed_of(m->plan, i, &noise, bound, &group, m->err) < 0)) {
        return -1;
    }
    const struct tiered_ledger_line line = {
        .tier = node->tier,
        .bounded = bound > 0,
        .insecure = noise.insecure,
        .noise_multiplier = noise.noise_multiplier * sqrt(fmax(group.members, 1)),
        .delta = noise.delta,
        .q = 1,
        .share = noise.noise_multiplier,
        .group = group,
        .per_round = m->rounds[node->parent],
        .node = i,
    };
    return noise.size ? add(m, line, &m->ledger->local[i]) : 0;
}

static int add_central(const struct making *m, uint32_t i)
{
    const struct tiered_node *node = &m->plan->nodes[i];
    const struct tiered_plugin_list *chain = &node->settings->aggregate;
    const struct tiered_plugin_list last = {1, &chain->items[chain->n - 1]};
    const struct tiered_node *child = &m->plan->nodes[node->first_child];
    const struct tiered_rounds *rounds = &node->settings->rounds;
    struct tiered_noise noise, other;
    double norm, none;
    if (read_pipe(m, i, &last, &none, &noise, &none) < 0 ||
        read_pipe(m, node->first_child, &child->settings->uplink, &norm, &other,
                  &none) < 0) {
        return -1;
    }
    bool poisson = rounds->poisson && !rounds->keep_late;
    const struct tiered_ledger_line line = {
        .tier = node->tier,
        .central = true,
        .bounded = norm > 0,
        .insecure = noise.insecure,
        .unproven = rounds->sample < 1 && !poisson,
        .noise_multiplier = noise.noise_multiplier,
        .delta = noise.delta,
        .q = poisson ? rounds->sample : 1,
        .per_round = m->rounds[i],
        .node = i,
    };
    return add(m, line, &m->ledger->central[i]);
}

/* Nodes share settings, and there may be a million: what stood last serves again. */
static bool alike(const struct making *m, uint32_t a, uint32_t b, bool central)
{
    const struct tiered_node *nodes = m->plan->nodes;
    if (a == UINT32_MAX || nodes[a].settings != nodes[b].settings) {
        return false;
    }
    uint32_t p = nodes[a].parent, q = nodes[b].parent;
    return central ? m->rounds[a] == m->rounds[b] &&
                         nodes[nodes[a].first_child].settings ==
                             nodes[nodes[b].first_child].settings
                   : p == q || (m->rounds[p] == m->rounds[q] &&
                                nodes[p].settings == nodes[q].settings &&
                                nodes[p].n_children == nodes[q].n_children);
}

static int take_local(struct making *m, uint32_t i)
{
    uint32_t *lines = m->ledger->local;
    if (alike(m, m->last_local, i, false)) {
        lines[i] = lines[m->last_local];
        return 0;
    }
    m->last_local = i;
    return add_local(m, i);
}

static int take_central(struct making *m, uint32_t i)
{
    uint32_t *lines = m->ledger->central;
    if (alike(m, m->last_central, i, true)) {
        lines[i] = lines[m->last_central];
        return 0;
    }
    m->last_central = i;
    return add_central(m, i);
}

static bool any_noise(const struct tiered_plugin_list *list)
{
    bool any = false;
    for (size_t i = 0; i < list->n; i++) {
        any = any || (list->items[i].loaded &&
                      tiered_privacy_is_noise(&list->items[i].loaded->plugin));
    }
    return any;
}

static bool has_local(const struct tiered_plan *plan, uint32_t i)
{
    return plan->nodes[i].parent != TIERED_NO_NODE &&
           any_noise(&plan->nodes[i].settings->uplink);
}

static bool has_central(const struct tiered_plan *plan, uint32_t i)
{
    return plan->nodes[i].n_children && any_noise(&plan->nodes[i].settings->aggregate);
}

static int fill(struct making *m)
{
    for (uint32_t i = 0; i < m->plan->n_nodes; i++) {
        const struct tiered_node *node = &m->plan->nodes[i];
        bool root = node->parent == TIERED_NO_NODE;
        m->rounds[i] = root ? 1 : m->rounds[node->parent];
        if (!root && !tiered_mul(m->rounds[i], node->settings->rounds.per_parent_round,
                                 &m->rounds[i])) {
            m->rounds[i] = UINT64_MAX;
        }
        m->ledger->local[i] = m->ledger->central[i] = UINT32_MAX;
        if ((has_local(m->plan, i) && take_local(m, i) < 0) ||
            (has_central(m->plan, i) && take_central(m, i) < 0)) {
            return -1;
        }
    }
    return 0;
}

int tiered_ledger_make(const struct tiered_plan *plan, struct tiered_arena *arena,
                       struct tiered_ledger *ret, struct tiered_error *err)
{
    uint32_t first = 0;
    *ret = (struct tiered_ledger){0};
    while (first < plan->n_nodes && !has_local(plan, first) &&
           !has_central(plan, first)) {
        first++; /* plans without noise, and those are most, cost a look at each node */
    }
    if (first == plan->n_nodes) {
        return 0;
    }
    TIERED_FREE uint64_t *rounds = calloc(plan->n_nodes, sizeof(*rounds));
    struct tiered_ledger ledger = {
        .lines = tiered_arena_alloc(arena, MOST_LINES, sizeof(*ledger.lines)),
        .local = tiered_arena_alloc(arena, plan->n_nodes, sizeof(*ledger.local)),
        .central = tiered_arena_alloc(arena, plan->n_nodes, sizeof(*ledger.central)),
    };
    struct making making = {plan, &ledger, rounds, err, UINT32_MAX, UINT32_MAX};
    if (!rounds || !ledger.lines || !ledger.local || !ledger.central) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (fill(&making) < 0) {
        return -1;
    }
    *ret = ledger;
    return 0;
}

const char *tiered_ledger_kind(const struct tiered_ledger_line *line)
{
    return line->central ? "central" : line->group.members ? "distributed" : "local";
}

const struct tiered_ledger_line *
tiered_ledger_line_of(const struct tiered_ledger *ledger, uint32_t node, bool central)
{
    uint32_t line = !ledger->n ? UINT32_MAX
                    : central  ? ledger->central[node]
                               : ledger->local[node];
    return line == UINT32_MAX ? NULL : &ledger->lines[line];
}

double tiered_ledger_epsilon(const struct tiered_ledger_line *line, uint64_t steps)
{
    struct tiered_accountant spent = {0};
    tiered_accountant_add_all(&spent, &line->step, (double)steps);
    return steps == 0      ? 0
           : line->bounded ? tiered_accountant_epsilon(&spent, line->delta)
                           : INFINITY;
}

static bool within(const struct tiered_ledger *ledger, double epsilon, uint32_t rounds)
{
    bool all = true;
    for (size_t i = 0; i < ledger->n && all; i++) {
        const struct tiered_ledger_line *line = &ledger->lines[i];
        uint64_t steps;
        if (!tiered_mul(line->per_round, rounds, &steps)) {
            steps = UINT64_MAX;
        }
        all = !line->bounded || tiered_ledger_epsilon(line, steps) <= epsilon;
    }
    return all;
}

uint32_t tiered_ledger_rounds(const struct tiered_ledger *ledger, double epsilon,
                              uint32_t most)
{
    uint32_t low = 0, high = most; /* low rounds are within it */
    if (within(ledger, epsilon, most)) {
        return most;
    }
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (within(ledger, epsilon, middle)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}
