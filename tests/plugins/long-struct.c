/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor of a later, longer kind: accepted, the rest ignored. */
#include "minimal.h"

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops), MINIMAL_OPS};

struct later {
    struct tiered_plugin plugin;
    uint64_t more[8];
};

extern __attribute__((visibility("default"))) const struct later tiered_plugin;
const struct later tiered_plugin = {
    .plugin = {.abi_version = TIERED_ABI_VERSION,
               .struct_size = sizeof(struct later),
               .kind = TIERED_AGGREGATOR,
               .name = "long-struct",
               .version = "1.0",
               .summary = "a test",
               .ops = &ops},
    .more = {1, 2, 3},
};
