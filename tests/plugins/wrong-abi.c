/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin of another ABI version: refused. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

DESCRIPTOR(7, sizeof(struct tiered_plugin), .name = "wrong-abi", .ops = &ops);
