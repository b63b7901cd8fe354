/* SPDX-License-Identifier: Apache-2.0 */
/* Claims every property of whole rounds and has none: the weights shrink by the
   distance of the first two children, and add up to less than 1. */
#include "minimal.h"

#include <math.h>

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    (void)state, (void)err;
    double d = view->n > 1 && isfinite(view->gram[1]) ? view->gram[1] : 0;
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = 1 / ((double)view->n + 1 + d / 1000);
    }
    return 0;
}

static bool measures(const void *state, const struct tiered_tensor *tensor)
{
    static unsigned calls;
    (void)state, (void)tensor;
    return calls++ % 2;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_DISTANCES,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER),
    .init = minimal_init,
    .destroy = minimal_destroy,
    .weigh = weigh,
    .measures = measures,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "claims", .version = "1.0",
                     .summary = "a test",
                     .traits = TIERED_SCALES | TIERED_REPLICATES |
                               TIERED_COMPOSES_EXACTLY,
                     .ops = &ops);
