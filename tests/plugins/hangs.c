/* SPDX-License-Identifier: Apache-2.0 */
/* An aggregator that never comes back from a round of three. */
#include <unistd.h>

#include "minimal.h"

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    while (view->n == 3) {
        sleep(1);
    }
    return minimal_weigh(state, view, ret_weights, err);
}

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops),
                                                 .acts_on =
                                                     TIERED_ROLE_BIT(TIERED_PARAMETER),
                                                 .init = minimal_init,
                                                 .destroy = minimal_destroy,
                                                 .weigh = weigh};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "hangs", .version = "1.0",
                     .summary = "a test", .ops = &ops);
