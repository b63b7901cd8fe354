/* SPDX-License-Identifier: Apache-2.0 */
/* A filter that is lossy and does not say so. */
#include "plain.h"

static int lose(void *state, const struct tiered_block *block, const void *in,
                size_t in_size, void *out, size_t capacity, size_t *ret_size,
                struct tiered_error *err)
{
    if (plain_copy(state, block, in, in_size, out, capacity, ret_size, err) < 0) {
        return -1;
    }
    if (in_size > 8) {
        memset(out, 0, 2);
    }
    return 0;
}

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             PLAIN_OPS,
                                             .bound = plain_bound,
                                             .forward = plain_copy,
                                             .inverse = lose};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "loses", .version = "1.0",
                     .summary = "a test", .ops = &ops);
