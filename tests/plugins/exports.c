/* SPDX-License-Identifier: Apache-2.0 */
/* An aggregator that shows the world a function of its own. */
#include "minimal.h"

__attribute__((visibility("default"))) int helper_of_exports(void);
int helper_of_exports(void)
{
    return 7;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops), .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER), MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "exports", .version = "1.0",
                     .summary = "a test", .ops = &ops);
