/* SPDX-License-Identifier: Apache-2.0 */
/* The weighted mean of the children's updates.
   Source: McMahan et al. 2017, Algorithm 1 (arXiv:1602.05629). */
#include "tiered/aggregator.h"

#include <math.h>
#include <stdlib.h>

enum weighted_by {
    BY_EXAMPLES,
    BY_NOTHING,
    BY_STEPS,
};

struct config {
    int32_t weighted_by;
};

static const struct tiered_option weights[] = {
    [BY_EXAMPLES] = {.name = "num_examples",
                     .help = "an update counts as the examples behind it"},
    [BY_NOTHING] = {.name = "uniform", .help = "every update counts once"},
    [BY_STEPS] = {.name = "local_steps",
                  .help = "an update counts as the steps that its child trained"},
};

static const struct tiered_option options[] = {
    TIERED_OPTION_CHOICE(struct config, weighted_by, "num_examples", weights,
                         "what an update counts by"),
};

struct fedavg {
    enum weighted_by weighted_by;
};

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host;
    const struct config *c = config;
    struct fedavg *self = malloc(sizeof(*self));
    if (!self) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    self->weighted_by = (enum weighted_by)c->weighted_by;
    *ret_state = self;
    return 0;
}

static void destroy(void *state)
{
    free(state);
}

static int count_of(const struct fedavg *self, const struct tiered_contribution *c,
                    double *ret, struct tiered_error *err)
{
    if (self->weighted_by == BY_EXAMPLES) {
        *ret = (double)c->num_examples;
    } else if (self->weighted_by == BY_NOTHING) {
        *ret = 1;
    } else if (c->local_steps >= 0 && isfinite(c->local_steps)) {
        *ret = c->local_steps;
    } else {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%s' does not say its local_steps, which weighted_by "
                           "local_steps needs",
                           c->node);
    }
    return 0;
}

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    const struct fedavg *self = state;
    double total = 0;
    for (size_t i = 0; i < view->n; i++) {
        const struct tiered_contribution *c = view->contributions[i];
        ret_weights[i] = 0;
        if (!c->excluded && count_of(self, c, &ret_weights[i], err) != 0) {
            return -1;
        }
        total += ret_weights[i];
    }
    if (!(total > 0)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "the %zu updates have no %s between them, so there is no "
                           "mean; the model stays",
                           view->n,
                           self->weighted_by == BY_STEPS ? "local steps" : "examples");
    }
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] /= total;
    }
    return 0;
}

/* Weighted by steps, a group weighs what its children do together, so that the tree
   equals the flat mean; otherwise it took its mean steps. */
static double local_steps(const void *state, const struct tiered_round_view *view)
{
    const struct fedavg *self = state;
    double examples = 0, sum = 0, weighted = 0;
    for (size_t i = 0; i < view->n; i++) {
        const struct tiered_contribution *c = view->contributions[i];
        if (!c->excluded && (c->num_examples > 0 || self->weighted_by == BY_STEPS)) {
            examples += (double)c->num_examples;
            sum += c->local_steps;
            weighted += (double)c->num_examples * c->local_steps;
        }
    }
    return self->weighted_by == BY_STEPS ? sum : weighted / examples;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_NOTHING,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER) |
               TIERED_ROLE_BIT(TIERED_CONTROL),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
    .local_steps = local_steps,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "fedavg", .version = "1.0",
        .summary = "weighted mean; at an inner tier it passes its sum of examples up, "
                   "so that the tree equals the flat mean",
        .traits = TIERED_COMPOSES_EXACTLY | TIERED_CONCURRENT |
                  TIERED_ALLOWS_BAD_UPDATES | TIERED_SCALES | TIERED_REPLICATES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
