/* SPDX-License-Identifier: Apache-2.0 */
/* A filter that loses the last bits of each f32. */
#include "plain.h"

static int lose(void *state, const struct tiered_block *block, const void *in,
                size_t in_size, void *out, size_t capacity, size_t *ret_size,
                struct tiered_error *err)
{
    uint8_t *bytes = out;
    if (plain_copy(state, block, in, in_size, out, capacity, ret_size, err) < 0) {
        return -1;
    }
    for (size_t i = 0; block->dtype == TIERED_F32 && i + 4 <= in_size; i += 4) {
        bytes[i] = 0;
    }
    return 0;
}

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             PLAIN_OPS,
                                             .bound = plain_bound,
                                             .forward = lose,
                                             .inverse = lose};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "test-lossy", .version = "1.0",
                     .summary = "a test", .traits = TIERED_LOSSY,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
