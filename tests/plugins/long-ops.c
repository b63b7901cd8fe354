/* SPDX-License-Identifier: Apache-2.0 */
/* Ops of a later, longer kind: accepted. */
#include "minimal.h"

struct later {
    struct tiered_aggregator_ops ops;
    void *more[8];
};
static const struct later ops = {
    .ops = {.size = sizeof(struct later), MINIMAL_OPS},
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "long-ops", .version = "1.0",
                     .summary = "a test", .ops = &ops);
