/* SPDX-License-Identifier: Apache-2.0 */
/* An option outside the config struct: refused. */
#include "minimal.h"

struct config {
    double beta;
};
static const struct tiered_option options[] = {
    {.name = "beta", .type = TIERED_DOUBLE, .help = "a share", .offset = 4096},
};

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "bad-row", .version = "1.0",
                     .summary = "a test", TIERED_OPTIONS(options, struct config),
                     .ops = &ops);
