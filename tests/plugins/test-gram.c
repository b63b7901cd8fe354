/* SPDX-License-Identifier: Apache-2.0 */
/* An aggregator that asks for the Gram matrix and then keeps the first update: what a
   measurement sees is the matrix. */
#include "minimal.h"

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    (void)state, (void)err;
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = i == 0;
    }
    return 0;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_GRAM,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER),
    .init = minimal_init,
    .destroy = minimal_destroy,
    .weigh = weigh,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "test-gram", .version = "1.0",
                     .summary = "measures all updates, keeps the first",
                     .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
