/* SPDX-License-Identifier: Apache-2.0 */
/* f32 and f64 as 16 bits. */
#include "narrow.h"

int narrow_init(const struct tiered_host *host, const void *config,
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

void narrow_destroy(void *state)
{
    (void)state;
}

size_t narrow_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

static bool narrows(const struct tiered_block *block)
{
    return codec_acts_on(block) && !codec_is_half(block->dtype);
}

static int narrow_tile(enum tiered_dtype to, const struct tiered_block *block,
                       size_t at, size_t n, const void *in, uint16_t *out,
                       struct tiered_error *err)
{
    float values[CODEC_TILE];
    const float *from = values;
    if (block->dtype == TIERED_F64) {
        const double *wide = (const double *)in + at;
        if (codec_largest_f64(wide, n) > DBL_MAX) {
            return codec_not_finite(block, err);
        }
        codec_round_to_odd(wide, n, values);
    } else {
        from = (const float *)in + at;
        if (codec_largest_bits(from, n) > CODEC_FINITE) {
            return codec_not_finite(block, err);
        }
    }
    codec_store(to, from, n, out + at);
    return 0;
}

int narrow_forward(enum tiered_dtype to, const struct tiered_block *block,
                   const void *in, size_t in_size, void *out, size_t capacity,
                   size_t *ret_size, struct tiered_error *err)
{
    if (!narrows(block)) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    size_t n = (size_t)block->n_elements;
    if (codec_check_values(block, in_size, err) < 0 ||
        codec_check_room(n * 2, capacity, err) < 0) {
        return -1;
    }
    for (size_t at = 0; at < n; at += CODEC_TILE) {
        size_t m = n - at < CODEC_TILE ? n - at : CODEC_TILE;
        if (narrow_tile(to, block, at, m, in, out, err) < 0) {
            return -1;
        }
    }
    *ret_size = n * 2;
    return 0;
}

int narrow_inverse(enum tiered_dtype from, const struct tiered_block *block,
                   const void *in, size_t in_size, void *out, size_t capacity,
                   size_t *ret_size, struct tiered_error *err)
{
    if (!narrows(block)) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    size_t n = (size_t)block->n_elements, width = tiered_dtype_size(block->dtype);
    if (codec_check_size(in_size, n * 2, err) < 0 ||
        codec_check_room(n * width, capacity, err) < 0) {
        return -1;
    }
    for (size_t at = 0; at < n; at += CODEC_TILE) {
        size_t m = n - at < CODEC_TILE ? n - at : CODEC_TILE;
        uint16_t half[CODEC_TILE]; /* what came may begin at any address */
        memcpy(half, (const uint8_t *)in + 2 * at, 2 * m);
        if (block->dtype == TIERED_F32) {
            codec_load(from, half, m, (float *)out + at);
            continue;
        }
        float values[CODEC_TILE];
        double *wide = (double *)out + at;
        codec_load(from, half, m, values);
        for (size_t i = 0; i < m; i++) {
            wide[i] = (double)values[i];
        }
    }
    *ret_size = n * width;
    return 0;
}
