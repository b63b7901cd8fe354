/* SPDX-License-Identifier: Apache-2.0 */
/* Warnings from what a robust rule does with so many updates: a rule that protects
   against nothing looks the same as one that does. */
#include <math.h>
#include <string.h>

#include "core/options/options.h"
#include "core/plan/inside.h"

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

static void check_krum(struct planner *p, const struct variant *v,
                       const struct tiered_plugin_ref *ref, uint32_t n)
{
    double f = option_of(ref, "f");
    if (n < 2 * f + 3) {
        tiered_diag_warn(p->diag, ref->mark,
                         "%s: krum with f %g is proven for %g updates and more, and "
                         "there are %u",
                         v->label, f, 2 * f + 3, n);
    }
}

void planner_check_rule(struct planner *p, struct variant *v, uint32_t n_children)
{
    static const struct {
        const char *name;
        void (*check)(struct planner *p, const struct variant *v,
                      const struct tiered_plugin_ref *ref, uint32_t n);
    } rules[] = {{"trimmed-mean", check_trimmed_mean}, {"krum", check_krum}};
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
}
