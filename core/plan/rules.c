/* SPDX-License-Identifier: Apache-2.0 */
/* What a rule does with so many updates: one that protects against nothing looks the
   same as one that does. And state of optimizers at more than one tier. */
#include <math.h>
#include <string.h>

#include "core/options/options.h"
#include "core/plan/inside.h"
#include "tiered/optimizer.h"

const char *tiered_plan_option(const struct tiered_plugin_ref *ref, const char *name)
{
    const struct tiered_value *value = tiered_value_get(ref->options, name);
    if (value && value->kind == TIERED_SCALAR) {
        return value->text;
    }
    const struct tiered_plugin *plugin = &ref->loaded->plugin;
    for (size_t i = 0; i < plugin->n_options; i++) {
        struct tiered_option row =
            tiered_option_row(plugin->options, plugin->option_size, i);
        if (strcmp(row.name, name) == 0 && row.fallback) {
            return row.fallback;
        }
    }
    return NULL;
}

bool tiered_plan_counts_once(const struct tiered_plugin_ref *aggregator)
{
    const char *by = tiered_plan_option(aggregator, "weighted_by");
    return by && strcmp(by, "uniform") == 0;
}

/* NAN where it is not given. */
static double option_of(const struct tiered_plugin_ref *ref, const char *name)
{
    const char *text = tiered_plan_option(ref, name);
    return text ? strtod(text, NULL) : NAN;
}

static void check_trimmed_mean(struct planner *p, const struct variant *v,
                               const struct tiered_plugin_ref *ref, uint32_t n)
{
    double beta = option_of(ref, "beta"), trim = option_of(ref, "trim");
    if (isnan(trim) && beta > 0 && beta * n < 1) {
        char hint[64] = "no beta can";
        if (n > 2) { /* beta stays below a half */
            snprintf(hint, sizeof(hint), "%g would cut one on each side",
                     ceil(100.0 / n) / 100);
        }
        tiered_diag_warn(p->diag, ref->mark,
                         "%s: trimmed-mean with beta %g cuts nothing from %u update%s; "
                         "%s",
                         v->label, beta, n, n == 1 ? "" : "s", hint);
    } else if (2 * trim >= n) {
        tiered_diag_warn(p->diag, ref->mark,
                         "%s: trimmed-mean with trim %g leaves nothing of %u updates",
                         v->label, trim, n);
    }
}

/* So few of those sampled may a round close with. */
static uint32_t fewest(const struct variant *v, uint32_t sampled)
{
    const struct tiered_rounds *rounds = &v->settings.rounds;
    double needed =
        rounds->quorum_count ? rounds->quorum_count : ceil(rounds->quorum * sampled);
    return needed < sampled ? (uint32_t)needed : sampled;
}

static void check_krum(struct planner *p, const struct variant *v,
                       const struct tiered_plugin_ref *ref, uint32_t n)
{
    double f = option_of(ref, "byzantine"), keep = option_of(ref, "keep");
    uint32_t least = fewest(v, n);
    if (n < 2 * f + 3) {
        tiered_diag_warn(
            p->diag, ref->mark,
            "%s: krum with byzantine %g is proven for %g updates and more, "
            "and there are %u",
            v->label, f, 2 * f + 3, n);
    } else if (least < 2 * f + 3) {
        tiered_diag_warn(
            p->diag, ref->mark,
            "%s: krum with byzantine %g is proven for %g updates and more, "
            "and a round may close with its quorum of %u",
            v->label, f, 2 * f + 3, least);
    } else if (f > 0 && keep > n - f) {
        tiered_diag_warn(p->diag, ref->mark,
                         "%s: krum keeps %g of %u updates of which %g may be bad; at "
                         "most %g are safe",
                         v->label, keep, n, f, n - f);
    }
}

static void check_bulyan(struct planner *p, const struct variant *v,
                         const struct tiered_plugin_ref *ref, uint32_t n)
{
    double f = option_of(ref, "byzantine");
    uint32_t least = fewest(v, n);
    if (n < 4 * f + 3) {
        tiered_diag_error(
            p->diag, ref->mark,
            "%s: bulyan with byzantine %g needs %g updates, and there are "
            "%u; krum needs %g",
            v->label, f, 4 * f + 3, n, 2 * f + 3);
    } else if (least < 4 * f + 3) {
        tiered_diag_warn(p->diag, ref->mark,
                         "%s: bulyan with byzantine %g needs %g updates: a round that "
                         "closes with its quorum of %u has no result",
                         v->label, f, 4 * f + 3, least);
    }
}

static void check_median(struct planner *p, const struct variant *v,
                         const struct tiered_plugin_ref *ref, uint32_t n)
{
    if (n < 3) {
        tiered_diag_warn(p->diag, ref->mark,
                         "%s: %s of %u update%s outvotes none; it takes 3", v->label,
                         ref->loaded->plugin.name, n, n == 1 ? "" : "s");
    }
}

static const struct tiered_plugin *stateful(const struct tiered_plugin_list *chain)
{
    for (size_t i = 1; i < chain->n; i++) {
        const struct tiered_loaded *loaded = chain->items[i].loaded;
        if (loaded && loaded->plugin.kind == TIERED_OPTIMIZER &&
            ((const struct tiered_optimizer_ops *)loaded->plugin.ops)->n_slots > 0) {
            return &loaded->plugin;
        }
    }
    return NULL;
}

/* Adam over Adam is legal and equal to nothing published. */
static void check_state(struct planner *p, const struct variant *v)
{
    const struct tiered_plugin_list *chain = &v->settings.aggregate;
    const struct tiered_plugin *own = stateful(chain);
    for (uint32_t t = 0; own && t < v->tier; t++) {
        const struct variant *above = &p->w->tiers[t];
        const struct tiered_plugin *other = stateful(&above->settings.aggregate);
        if (other) {
            tiered_diag_warn(
                p->diag, chain->items[0].mark,
                "%s: '%s' keeps state here and '%s' keeps state at %s above; "
                "an optimizer belongs at the root alone",
                v->label, own->name, other->name, above->label);
            return;
        }
    }
}

void planner_check_rule(struct planner *p, struct variant *v, uint32_t n_children)
{
    static const struct {
        const char *name;
        void (*check)(struct planner *p, const struct variant *v,
                      const struct tiered_plugin_ref *ref, uint32_t n);
    } rules[] = {{"trimmed-mean", check_trimmed_mean},
                 {"krum", check_krum},
                 {"bulyan", check_bulyan},
                 {"median", check_median},
                 {"geometric-median", check_median}};
    const struct tiered_plugin_list *chain = &v->settings.aggregate;
    if (!chain->n || !chain->items[0].loaded) {
        return;
    }
    uint32_t n = tiered_rounds_sampled(&v->settings.rounds, n_children);
    for (size_t i = 0; i < TIERED_COUNT(rules); i++) {
        if (strcmp(chain->items[0].loaded->plugin.name, rules[i].name) == 0) {
            rules[i].check(p, v, &chain->items[0], n);
        }
    }
    check_state(p, v);
}
