/* SPDX-License-Identifier: Apache-2.0 */
/* A filter that is for changes alone, as it says, and passes them on as they are. */
#include "plain.h"

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             PLAIN_OPS,
                                             .bound = plain_bound,
                                             .forward = plain_copy,
                                             .inverse = plain_copy};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "test-changes", .version = "1.0",
                     .summary = "a test", .traits = TIERED_CHANGES_ONLY,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
