/* SPDX-License-Identifier: Apache-2.0 */
/* An aggregator that cannot weigh: refused. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops), .init = minimal_init, .destroy = minimal_destroy};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "no-weigh", .version = "1.0",
                     .summary = "a test", .ops = &ops);
