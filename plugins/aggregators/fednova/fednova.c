/* SPDX-License-Identifier: Apache-2.0 */
/* Normalised averaging: children that took more steps do not pull the mean their way.
   Source: Wang et al. 2020 (arXiv:2007.07481), section 4. */
#include "../common/shares.h"

#include <math.h>
#include <stdlib.h>

struct config {
    int32_t weighted_by;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_CHOICE(struct config, weighted_by, "num_examples", shares_choices,
                         "what an update counts by"),
};

/* The config stays valid until destroy() and is the whole state. */
static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host, (void)err;
    *ret_state = (void *)(uintptr_t)config;
    return 0;
}

static void destroy(void *state)
{
    (void)state;
}

/** ||a||_1: how far the child went in units of its step; plain SGD: its steps. */
static double length_of(const struct tiered_contribution *c)
{
    return c->a_norm > 0 && isfinite(c->a_norm) ? c->a_norm : c->local_steps;
}

/** The shares p_i of those that trained; the others are dropped. */
static int fill_shares(const struct config *config,
                       const struct tiered_round_view *view, double *shares,
                       struct tiered_error *err)
{
    size_t trained = 0;
    for (size_t i = 0; i < view->n; i++) {
        const struct tiered_contribution *c = view->contributions[i];
        if (!c->excluded && !(c->local_steps >= 0 && isfinite(c->local_steps))) {
            return tiered_fail(err, TIERED_EINVAL,
                               "'%s' does not say its local_steps, which fednova needs",
                               c->node);
        }
        shares[i] = !c->excluded && c->local_steps > 0;
        trained += shares[i] != 0;
    }
    if (trained == 0) {
        return tiered_fail(err, TIERED_ERANGE,
                           "none of the %zu updates took a local step; the model stays",
                           view->n);
    }
    return shares_fill(view, (enum shares_by)config->weighted_by, shares, err);
}

static double effective_steps(const struct tiered_round_view *view,
                              const double *shares)
{
    double steps = 0;
    for (size_t i = 0; i < view->n; i++) {
        if (shares[i] != 0) {
            steps += shares[i] * view->contributions[i]->local_steps;
        }
    }
    return steps;
}

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    if (fill_shares(state, view, ret_weights, err) != 0) {
        return -1;
    }
    double steps = effective_steps(view, ret_weights);
    for (size_t i = 0; i < view->n; i++) {
        if (ret_weights[i] != 0) {
            double factor = steps / length_of(view->contributions[i]);
            /* Equal steps are a plain mean, which their rounded sum must not spoil. */
            ret_weights[i] *= fabs(factor - 1) < 1e-13 ? 1 : factor;
        }
    }
    return 0;
}

/* tau_eff: with it and its sum of examples the parent goes on as if it had met this
   node's children themselves. */
static double local_steps(const void *state, const struct tiered_round_view *view)
{
    double *shares = calloc(view->n, sizeof(shares[0]));
    double steps = NAN;
    if (shares && fill_shares(state, view, shares, NULL) == 0) {
        steps = effective_steps(view, shares);
    }
    free(shares);
    return steps;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_NOTHING,
    /* Coefficients above 1 would carry running statistics past any that were seen. */
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
    .local_steps = local_steps,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "fednova", .version = "1.0",
        .summary = "mean of updates normalised by their local steps; at an inner tier "
                   "it passes its sum of examples and its mean steps up, so that the "
                   "tree equals the flat result",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_COMPOSES_EXACTLY |
                  TIERED_CONCURRENT | TIERED_SCALES | TIERED_REPLICATES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
