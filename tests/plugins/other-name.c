/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin that is not called like its file: refused by name. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "another", .version = "1.0",
                     .summary = "a test", .ops = &ops);
