/* SPDX-License-Identifier: Apache-2.0 */
/* The mean of updates none of which may move the model further than a bound.
   Source: Sun et al. 2019 (arXiv:1911.07963), section 3, norm thresholding. */
#include "../common/shares.h"

#include <math.h>
#include <stdlib.h>

struct config {
    double norm;
    int32_t weighted_by;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, norm, NULL, 0, INFINITY,
                         "the largest L2 norm that an update's change counts with",
                         .flags = TIERED_REQUIRED | TIERED_EXCLUSIVE_MIN),
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

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    const struct config *config = state;
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = !view->contributions[i]->excluded;
    }
    if (shares_fill(view, (enum shares_by)config->weighted_by, ret_weights, err) != 0) {
        return -1;
    }
    for (size_t i = 0; i < view->n; i++) {
        double norm = sqrt(view->gram[i]);
        if (norm > config->norm) { /* an infinite one counts for nothing */
            ret_weights[i] *= config->norm / norm;
        }
    }
    return 0;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_NORMS,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER) |
               TIERED_ROLE_BIT(TIERED_CONTROL),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "norm-bounded", .version = "1.0",
        .summary = "weighted mean of changes clipped to a norm; at an inner tier it "
                   "clips what whole groups moved: bound single children at the tier "
                   "above the leaves",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT |
                  TIERED_REPLICATES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
