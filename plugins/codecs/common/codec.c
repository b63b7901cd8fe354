/* SPDX-License-Identifier: Apache-2.0 */
/* What the codecs share. */
#include "codec.h"

#define LANES 8

void codec_load(enum tiered_dtype dtype, const void *in, size_t n, float *out)
{
    const uint16_t *half = in;
    if (dtype == TIERED_F16) {
        for (size_t i = 0; i < n; i++) {
            out[i] = codec_from_f16(half[i]);
        }
    } else if (dtype == TIERED_BF16) {
        for (size_t i = 0; i < n; i++) {
            out[i] = codec_from_bf16(half[i]);
        }
    } else if (n) {
        memcpy(out, in, n * sizeof(float));
    }
}

void codec_store(enum tiered_dtype dtype, const float *in, size_t n, void *out)
{
    uint16_t *half = out;
    if (dtype == TIERED_F16) {
        for (size_t i = 0; i < n; i++) {
            half[i] = codec_to_f16(in[i]);
        }
    } else if (dtype == TIERED_BF16) {
        for (size_t i = 0; i < n; i++) {
            half[i] = codec_to_bf16(in[i]);
        }
    } else if (n) {
        memcpy(out, in, n * sizeof(float));
    }
}

void codec_round_to_odd(const double *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double size = fabs(in[i]), most = FLT_MAX;
        size = size < most ? size : most;
        float near = (float)size;
        uint32_t bits = codec_bits(near);
        bits -= (double)near > size;  /* towards zero … */
        bits |= (double)near != size; /* … and odd where digits were lost */
        out[i] = copysignf(codec_float(bits), (float)in[i]);
    }
}

uint32_t codec_largest_bits(const float *in, size_t n)
{
    int32_t lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            int32_t bits = (int32_t)(codec_bits(in[i + k]) & 0x7fffffff);
            lanes[k] = bits > lanes[k] ? bits : lanes[k];
        }
    }
    for (; i < n; i++) {
        int32_t bits = (int32_t)(codec_bits(in[i]) & 0x7fffffff);
        lanes[0] = bits > lanes[0] ? bits : lanes[0];
    }
    for (size_t k = 1; k < LANES; k++) {
        lanes[0] = lanes[k] > lanes[0] ? lanes[k] : lanes[0];
    }
    return (uint32_t)lanes[0];
}

double codec_largest_f64(const double *in, size_t n)
{
    double largest = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        double size = fabs(in[i]);
        finite = finite && size <= DBL_MAX;
        largest = size > largest ? size : largest;
    }
    return finite ? largest : INFINITY;
}

int codec_check_values(const struct tiered_block *block, size_t in_size,
                       struct tiered_error *err)
{
    if (in_size == block->size_bytes &&
        in_size == block->n_elements * tiered_dtype_size(block->dtype)) {
        return 0;
    }
    return tiered_fail(err, TIERED_EINVAL,
                       "works on values, but the filter before it made bytes of them: "
                       "put it first");
}

int codec_check_room(size_t need, size_t capacity, struct tiered_error *err)
{
    return need <= capacity
               ? 0
               : tiered_fail(err, TIERED_ENOMEM, "%zu bytes do not fit into %zu", need,
                             capacity);
}

int codec_check_size(size_t got, size_t want, struct tiered_error *err)
{
    return got == want
               ? 0
               : tiered_fail(err, TIERED_ECORRUPT,
                             "the block has %zu bytes; it must have %zu", got, want);
}

int codec_not_finite(const struct tiered_block *block, struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ERANGE,
                       "block %u has a value that is not a finite number",
                       block->index);
}

int codec_copy(const struct tiered_block *block, const void *in, size_t in_size,
               void *out, size_t capacity, size_t *ret_size, struct tiered_error *err)
{
    (void)block;
    if (codec_check_room(in_size, capacity, err) < 0) {
        return -1;
    }
    if (in_size) {
        memcpy(out, in, in_size);
    }
    *ret_size = in_size;
    return 0;
}
