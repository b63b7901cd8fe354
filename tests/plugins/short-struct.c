/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor that ends before its ops: refused. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

DESCRIPTOR(TIERED_ABI_VERSION, offsetof(struct tiered_plugin, ops),
           .name = "short-struct", .ops = &ops);
