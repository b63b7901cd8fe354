/* SPDX-License-Identifier: Apache-2.0 */
/* A privacy filter that halves f32 values and leaves them where they are. */
#include "plain.h"

static int halve(void *state, const struct tiered_block *block, const void *in,
                 size_t in_size, void *out, size_t capacity, size_t *ret_size,
                 struct tiered_error *err)
{
    float *values = out;
    if (plain_copy(state, block, in, in_size, out, capacity, ret_size, err) < 0) {
        return -1;
    }
    for (uint64_t i = 0; block->dtype == TIERED_F32 && i < block->n_elements; i++) {
        values[i] /= 2;
    }
    return 0;
}

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             PLAIN_OPS,
                                             .bound = plain_bound,
                                             .forward = halve,
                                             .inverse = plain_copy};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "test-halve", .version = "1.0",
                     .summary = "a test", .traits = TIERED_PRIVACY | TIERED_LOSSY,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
