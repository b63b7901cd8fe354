/* SPDX-License-Identifier: Apache-2.0 */
/* A name with a capital letter: refused. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "Bad_Name", .version = "1.0",
                     .summary = "a test", .ops = &ops);
