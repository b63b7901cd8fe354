/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that end before a required one: refused. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {
    .size = offsetof(struct tiered_aggregator_ops, destroy), MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "cut-ops", .version = "1.0",
                     .summary = "a test", .ops = &ops);
