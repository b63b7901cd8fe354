/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shuffle filter: all first bytes of a block's items, then all second ones, and so
 * on. Exponents of floats then lie side by side, which a compressor after it finds.
 *
 * The width of an item is the input's size over the block's elements, so it is right
 * first in a pipe and behind filters that keep so many bytes an element; a size that
 * does not divide is copied. The size stays, so the receiver finds the same width.
 */
#include <string.h>

#include "tiered/filter.h"

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    (void)host;
    (void)config;
    (void)manifest;
    (void)err;
    *ret_state = NULL;
    return 0;
}

static void filter_destroy(void *state)
{
    (void)state;
}

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

static size_t width_of(const struct tiered_block *block, size_t size)
{
    uint64_t n = block->n_elements;
    return n && size % n == 0 ? (size_t)(size / n) : 1;
}

static void split2(const uint8_t *restrict in, size_t n, uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t x;
        memcpy(&x, in + 2 * i, sizeof(x));
        out[i] = (uint8_t)x;
        out[n + i] = (uint8_t)(x >> 8);
    }
}

static void join2(const uint8_t *restrict in, size_t n, uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t x = (uint16_t)(in[i] | in[n + i] << 8);
        memcpy(out + 2 * i, &x, sizeof(x));
    }
}

static void split4(const uint8_t *restrict in, size_t n, uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t x;
        memcpy(&x, in + 4 * i, sizeof(x));
        out[i] = (uint8_t)x;
        out[n + i] = (uint8_t)(x >> 8);
        out[2 * n + i] = (uint8_t)(x >> 16);
        out[3 * n + i] = (uint8_t)(x >> 24);
    }
}

static void join4(const uint8_t *restrict in, size_t n, uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)in[i] | (uint32_t)in[n + i] << 8 |
                     (uint32_t)in[2 * n + i] << 16 | (uint32_t)in[3 * n + i] << 24;
        memcpy(out + 4 * i, &x, sizeof(x));
    }
}

static void split8(const uint8_t *restrict in, size_t n, uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t x;
        memcpy(&x, in + 8 * i, sizeof(x));
        for (size_t b = 0; b < 8; b++) {
            out[b * n + i] = (uint8_t)(x >> 8 * b);
        }
    }
}

static void join8(const uint8_t *restrict in, size_t n, uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t x = 0;
        for (size_t b = 0; b < 8; b++) {
            x |= (uint64_t)in[b * n + i] << 8 * b;
        }
        memcpy(out + 8 * i, &x, sizeof(x));
    }
}

typedef void (*plane_fn)(const uint8_t *restrict in, size_t n, uint8_t *restrict out);

static int run(const struct tiered_block *block, const plane_fn by_width[4],
               const void *in, size_t in_size, void *out, size_t capacity,
               size_t *ret_size, struct tiered_error *err)
{
    if (in_size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "%zu bytes do not fit into %zu", in_size,
                           capacity);
    }
    size_t width = width_of(block, in_size);
    plane_fn planes = width == 2   ? by_width[1]
                      : width == 4 ? by_width[2]
                      : width == 8 ? by_width[3]
                                   : NULL;
    if (planes) {
        planes(in, in_size / width, out);
    } else if (in_size) {
        memcpy(out, in, in_size);
    }
    *ret_size = in_size;
    return 0;
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    static const plane_fn split[] = {NULL, split2, split4, split8};
    (void)state;
    return run(block, split, in, in_size, out, capacity, ret_size, err);
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    static const plane_fn join[] = {NULL, join2, join4, join8};
    (void)state;
    return run(block, join, in, in_size, out, capacity, ret_size, err);
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .bound = filter_bound,
    .forward = filter_forward,
    .inverse = filter_inverse,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "shuffle", .version = "1.0",
                     .summary = "bytes of like place side by side, for a compressor "
                                "behind it; bit for bit the same at every tier",
                     .traits = TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
