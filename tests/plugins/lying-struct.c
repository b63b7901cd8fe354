/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor that claims more bytes than its symbol has: refused. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

DESCRIPTOR(TIERED_ABI_VERSION, 1u << 20, .name = "lying-struct", .ops = &ops);
