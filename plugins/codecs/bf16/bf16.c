/* SPDX-License-Identifier: Apache-2.0 */
/* The bf16 filter: f32 and f64 values travel in bfloat16. */
#include "../common/narrow.h"

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    (void)state;
    return narrow_forward(TIERED_BF16, block, in, in_size, out, capacity, ret_size,
                          err);
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    (void)state;
    return narrow_inverse(TIERED_BF16, block, in, in_size, out, capacity, ret_size,
                          err);
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = narrow_init,
    .destroy = narrow_destroy,
    .bound = narrow_bound,
    .forward = filter_forward,
    .inverse = filter_inverse,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "bf16", .version = "1.0",
                     .summary = "2 bytes a value, 8 bits of precision, the range of "
                                "f32; rounds anew at every tier",
                     .traits = TIERED_LOSSY | TIERED_NEEDS_VALUES | TIERED_CONCURRENT |
                               TIERED_ACCEPTS_BLOBS,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
