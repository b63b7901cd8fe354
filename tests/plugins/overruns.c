/* SPDX-License-Identifier: Apache-2.0 */
/* A filter whose bound is one byte less than what forward writes. */
#include "plain.h"

static int forward(void *state, const struct tiered_block *block, const void *in,
                   size_t in_size, void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err)
{
    (void)state, (void)block;
    (void)capacity, (void)err;
    memcpy(out, in, in_size);
    ((char *)out)[in_size] = 0;
    *ret_size = in_size;
    return 0;
}

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             PLAIN_OPS,
                                             .bound = plain_bound,
                                             .forward = forward,
                                             .inverse = plain_copy};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "overruns", .version = "1.0",
                     .summary = "a test", .ops = &ops);
