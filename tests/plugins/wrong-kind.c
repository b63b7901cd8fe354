/* SPDX-License-Identifier: Apache-2.0 */
/* A kind that no host knows: refused. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = (enum tiered_kind)42, .name = "wrong-kind",
                     .version = "1.0", .summary = "a test", .ops = &ops);
