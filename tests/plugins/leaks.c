/* SPDX-License-Identifier: Apache-2.0 */
/* An aggregator whose destroy frees nothing. */
#include <stdlib.h>

#include "minimal.h"

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host, (void)config;
    *ret_state = malloc(100);
    return *ret_state ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops),
                                                 .acts_on =
                                                     TIERED_ROLE_BIT(TIERED_PARAMETER),
                                                 .init = init,
                                                 .destroy = minimal_destroy,
                                                 .weigh = minimal_weigh};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "leaks", .version = "1.0",
                     .summary = "a test", .ops = &ops);
