/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Values of the float dtypes as f64, a tile at a time, and back: rounded to nearest and
 * kept finite (noise), or rounded towards zero (a norm that was bounded stays so).
 * Finite values only. Pure functions; the same bits on every machine.
 */
#ifndef TIERED_PRIVACY_VALUES_H
#define TIERED_PRIVACY_VALUES_H

#include <float.h>
#include <stdbool.h>
#include <string.h>

#include "tiered/model.h"

#define VALUES_TILE 4096u

/** Does a privacy filter act on this block? Other roles and integers pass as they are.
 */
static inline bool values_are_private(const struct tiered_block *block)
{
    return block->role == TIERED_PARAMETER &&
           (block->dtype == TIERED_F32 || block->dtype == TIERED_F64 ||
            block->dtype == TIERED_F16 || block->dtype == TIERED_BF16);
}

static inline uint32_t values_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static inline float values_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline double values_of_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    if (rest >= 0x7c00u << 13) { /* infinite or NaN: the caller sees it */
        return values_float(sign | 0x7f800000u | rest);
    }
    if (rest < 0x0400u << 13) { /* zero or subnormal: h * 2^-24, exactly */
        float f = (float)(h & 0x7fff) * 0x1p-24f;
        return values_float(sign | values_bits(f));
    }
    return values_float(sign | (rest + ((127u - 15u) << 23)));
}

static inline void values_load(enum tiered_dtype dtype, const void *in, size_t n,
                               double *out)
{
    if (dtype == TIERED_F64) {
        memcpy(out, in, n * sizeof(double));
    } else if (dtype == TIERED_F32) {
        const float *from = in;
        for (size_t i = 0; i < n; i++) {
            out[i] = (double)from[i];
        }
    } else {
        const uint16_t *from = in;
        for (size_t i = 0; i < n; i++) {
            out[i] = dtype == TIERED_F16
                         ? values_of_half(from[i])
                         : (double)values_float((uint32_t)from[i] << 16);
        }
    }
}

/** To the float next to it on the side of zero. */
static inline float values_cut(double x)
{
    float f = (float)x;
    double size = x < 0 ? -x : x, made = f < 0 ? -(double)f : (double)f;
    return values_float(values_bits(f) - (made > size));
}

static inline uint16_t values_cut_half(float f)
{
    uint32_t bits = values_bits(f), sign = bits >> 16 & 0x8000,
             rest = bits & 0x7fffffff;
    if (rest < 0x38800000u) { /* below 2^-14: whole units of 2^-24 */
        return (uint16_t)(sign | (uint32_t)(values_float(rest) * 0x1p24f));
    }
    return (uint16_t)(sign | ((rest - ((127u - 15u) << 23)) >> 13));
}

/** Towards zero. What came from the dtype and was made smaller always fits. */
static inline void values_store_cut(enum tiered_dtype dtype, const double *in, size_t n,
                                    void *out)
{
    if (dtype == TIERED_F64) {
        memcpy(out, in, n * sizeof(double));
    } else if (dtype == TIERED_F32) {
        float *to = out;
        for (size_t i = 0; i < n; i++) {
            to[i] = values_cut(in[i]);
        }
    } else {
        uint16_t *to = out;
        for (size_t i = 0; i < n; i++) {
            float f = values_cut(in[i]);
            to[i] = dtype == TIERED_F16 ? values_cut_half(f)
                                        : (uint16_t)(values_bits(f) >> 16);
        }
    }
}

static inline double values_within(double x, double most)
{
    return x > most ? most : x < -most ? -most : x;
}

/** To the nearest, halves to even; what is too large becomes the largest. */
static inline uint16_t values_near_half(double x)
{
    uint32_t bits = values_bits((float)values_within(x, 65504.0));
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest < 0x38800000u) { /* adding 0.5 rounds to units of 2^-24 */
        float shifted = values_float(rest) + 0.5f;
        return (uint16_t)(sign | (values_bits(shifted) - values_bits(0.5f)));
    }
    uint32_t odd = rest >> 13 & 1;
    return (uint16_t)(sign | ((rest - ((127u - 15u) << 23) + 0x0fff + odd) >> 13));
}

static inline uint16_t values_near_bfloat(double x)
{
    uint32_t bits = values_bits((float)values_within(x, 0x1.fep127));
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline void values_store(enum tiered_dtype dtype, const double *in, size_t n,
                                void *out)
{
    if (dtype == TIERED_F64) {
        double *to = out;
        for (size_t i = 0; i < n; i++) {
            to[i] = values_within(in[i], DBL_MAX);
        }
    } else if (dtype == TIERED_F32) {
        float *to = out;
        for (size_t i = 0; i < n; i++) {
            to[i] = (float)values_within(in[i], (double)FLT_MAX);
        }
    } else {
        uint16_t *to = out;
        for (size_t i = 0; i < n; i++) {
            to[i] = dtype == TIERED_F16 ? values_near_half(in[i])
                                        : values_near_bfloat(in[i]);
        }
    }
}

#endif
