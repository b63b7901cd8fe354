/* SPDX-License-Identifier: Apache-2.0 */
/* A filter that believes the size which a block says of itself. */
#include "plain.h"

static size_t bound(void *state, size_t in_size)
{
    (void)state;
    return in_size + sizeof(uint32_t);
}

static int forward(void *state, const struct tiered_block *block, const void *in,
                   size_t in_size, void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err)
{
    (void)state, (void)block;
    uint32_t n = (uint32_t)in_size;
    if (in_size + sizeof(n) > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "no room");
    }
    memcpy(out, &n, sizeof(n));
    memcpy((char *)out + sizeof(n), in, in_size);
    *ret_size = in_size + sizeof(n);
    return 0;
}

static int inverse(void *state, const struct tiered_block *block, const void *in,
                   size_t in_size, void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err)
{
    (void)state, (void)block;
    uint32_t n;
    if (in_size < sizeof(n)) {
        return tiered_fail(err, TIERED_ECORRUPT, "no size");
    }
    memcpy(&n, in, sizeof(n));
    if (n > capacity) {
        return tiered_fail(err, TIERED_ECORRUPT, "too large");
    }
    memcpy(out, (const char *)in + sizeof(n), n);
    *ret_size = n;
    return 0;
}

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             PLAIN_OPS,
                                             .bound = bound,
                                             .forward = forward,
                                             .inverse = inverse};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "trusts", .version = "1.0",
                     .summary = "a test", .ops = &ops);
