/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lossy filter: of each f32 only its sign, one bit, and for each block the mean
 * magnitude (scaled sign compression; Bernstein et al. 2018, arXiv:1802.04434). Blocks
 * of other dtypes pass as they are.
 *
 * An encoded block: the mean, a float in host order; then the bits, eight a byte, the
 * first value's lowest. 1 is negative.
 */
#include "tiered/filter.h"

#include <math.h>
#include <string.h>

#define HEAD_BYTES sizeof(float)

static int init(const struct tiered_host *host, const void *config,
                const struct tiered_manifest *manifest, void **ret_state,
                struct tiered_error *err)
{
    (void)host, (void)config, (void)manifest, (void)err;
    *ret_state = NULL;
    return 0;
}

static void destroy(void *state)
{
    (void)state;
}

/* Of what passes as it is; f32 needs less, but for a block of one value. */
static size_t bound(void *state, size_t in_size)
{
    (void)state;
    return in_size + HEAD_BYTES;
}

static size_t encoded_bytes(const struct tiered_block *block)
{
    return HEAD_BYTES + (size_t)(block->n_elements + 7) / 8;
}

static int pass(const void *in, size_t in_size, void *out, size_t capacity,
                size_t *ret_size, struct tiered_error *err)
{
    if (in_size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "%zu bytes do not fit into %zu", in_size,
                           capacity);
    }
    memcpy(out, in, in_size);
    *ret_size = in_size;
    return 0;
}

/* Input and output are bytes that may lie anywhere: values go through memcpy. */
static float value_at(const uint8_t *in, size_t i)
{
    float value;
    memcpy(&value, in + i * sizeof(value), sizeof(value));
    return value;
}

static int forward(void *state, const struct tiered_block *block, const void *in,
                   size_t in_size, void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err)
{
    size_t n = (size_t)block->n_elements, size = encoded_bytes(block);
    uint8_t *bits = (uint8_t *)out + HEAD_BYTES;
    double sum = 0;
    (void)state;
    if (block->dtype != TIERED_F32) {
        return pass(in, in_size, out, capacity, ret_size, err);
    }
    if (in_size != n * sizeof(float)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "sign takes values: let it be the first filter");
    }
    if (size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "%zu bytes do not fit into %zu", size,
                           capacity);
    }
    memset(bits, 0, size - HEAD_BYTES);
    for (size_t i = 0; i < n; i++) {
        float value = value_at(in, i);
        sum += fabs((double)value);
        bits[i / 8] |= (uint8_t)((signbit(value) != 0) << (i % 8));
    }
    float mean = n ? (float)(sum / (double)n) : 0;
    if (!isfinite(mean)) {
        return tiered_fail(err, TIERED_ERANGE, "block %u is not finite", block->index);
    }
    memcpy(out, &mean, sizeof(mean));
    *ret_size = size;
    return 0;
}

/* From the network: every size and the mean are checked before they are used. */
static int inverse(void *state, const struct tiered_block *block, const void *in,
                   size_t in_size, void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err)
{
    size_t n = (size_t)block->n_elements;
    const uint8_t *bits = (const uint8_t *)in + HEAD_BYTES;
    (void)state;
    if (block->dtype != TIERED_F32) {
        return pass(in, in_size, out, capacity, ret_size, err);
    }
    if (in_size != encoded_bytes(block) || n * sizeof(float) > capacity) {
        return tiered_fail(err, TIERED_ECORRUPT, "%zu bytes are no block of %zu signs",
                           in_size, n);
    }
    float mean = value_at(in, 0);
    if (!isfinite(mean) || mean < 0) {
        return tiered_fail(err, TIERED_ECORRUPT, "the mean magnitude is %g",
                           (double)mean);
    }
    for (size_t i = 0; i < n; i++) {
        float value = bits[i / 8] >> (i % 8) & 1 ? -mean : mean;
        memcpy((uint8_t *)out + i * sizeof(value), &value, sizeof(value));
    }
    *ret_size = n * sizeof(float);
    return 0;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = init,
    .destroy = destroy,
    .bound = bound,
    .forward = forward,
    .inverse = inverse,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "sign", .version = "0.1",
                     .summary = "one bit a value and a scale a block; at an inner tier "
                                "it loses the same again",
                     .traits = TIERED_LOSSY | TIERED_CONCURRENT, .ops = &ops);
