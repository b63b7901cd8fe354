/* SPDX-License-Identifier: Apache-2.0 */
/* A config of more than 64 KiB: refused. */
#include "minimal.h"

struct config {
    bool on;
    char room[64 << 10];
};
static const struct tiered_option options[] = {
    TIERED_OPTION_BOOLEAN(struct config, on, "true", "a switch"),
};

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "big-config", .version = "1.0",
                     .summary = "a test", TIERED_OPTIONS(options, struct config),
                     .ops = &ops);
