/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the codecs share: which blocks they change, floats of every width, and the
 * refusals that every filter needs. Pure functions; compiled into each plugin.
 *
 * The loops have no branches that depend on values, so that compilers make vector code
 * of them; results are the same bits with and without.
 */
#ifndef TIERED_CODECS_CODEC_H
#define TIERED_CODECS_CODEC_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "tiered/filter.h"

#define CODEC_TILE 2048 /* values that are worked on at a time, on the stack */

/** Floats that training changes: parameters and control variates. Running statistics,
    counters and blobs go through a lossy codec untouched. */
static inline bool codec_acts_on(const struct tiered_block *block)
{
    return block->dtype <= TIERED_BF16 &&
           (block->role == TIERED_PARAMETER || block->role == TIERED_CONTROL);
}

static inline bool codec_is_half(enum tiered_dtype dtype)
{
    return dtype == TIERED_F16 || dtype == TIERED_BF16;
}

static inline uint32_t codec_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static inline float codec_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/** To nearest even; too large becomes +-65504, so what is finite stays so. */
static inline uint16_t codec_to_f16(float f)
{
    uint32_t bits = codec_bits(f), rest = bits & 0x7fffffff;
    rest = rest < 0x477fe000u ? rest : 0x477fe000u;
    /* below 2^-14 adding 0.5 rounds to units of 2^-24 */
    uint32_t small = codec_bits(codec_float(rest) + 0.5f) - 0x3f000000u;
    uint32_t normal = (rest - ((127u - 15u) << 23) + 0x0fff + (rest >> 13 & 1)) >> 13;
    return (uint16_t)((bits >> 16 & 0x8000) | (rest < 0x38800000u ? small : normal));
}

/** To nearest even; too large becomes the largest. */
static inline uint16_t codec_to_bf16(float f)
{
    uint32_t bits = codec_bits(f), rest = bits & 0x7fffffff;
    rest = rest < 0x7f7f0000u ? rest : 0x7f7f0000u;
    return (uint16_t)((bits >> 16 & 0x8000) | (rest + 0x7fff + (rest >> 16 & 1)) >> 16);
}

/** Exact; infinities and NaN stay such. */
static inline float codec_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t small = codec_bits((float)(int32_t)(h & 0x7fff) * 0x1p-24f);
    uint32_t normal = rest + ((127u - 15u) << 23);
    uint32_t huge = rest | 0x7f800000u;
    return codec_float(sign | (rest < 0x0400u << 13   ? small
                               : rest < 0x7c00u << 13 ? normal
                                                      : huge));
}

static inline float codec_from_bf16(uint16_t b)
{
    return codec_float((uint32_t)b << 16);
}

/** n values of f32, f16 or bf16 as f32, exactly. */
void codec_load(enum tiered_dtype dtype, const void *in, size_t n, float *out);
/** n values of f32 as f32, f16 or bf16: to nearest even, finite stays finite. */
void codec_store(enum tiered_dtype dtype, const float *in, size_t n, void *out);
/** f64 to f32 rounded to odd: a second rounding, to 16 bits, is then the only one. */
void codec_round_to_odd(const double *in, size_t n, float *out);

/** The largest |x| of n values as its bits; above CODEC_FINITE: one is not finite. */
#define CODEC_FINITE 0x7f7fffffu
uint32_t codec_largest_bits(const float *in, size_t n);
/** The same of f64: the largest |x|, or infinity where a value is not finite. */
double codec_largest_f64(const double *in, size_t n);

/** -1: a filter that works on values got another filter's bytes. */
int codec_check_values(const struct tiered_block *block, size_t in_size,
                       struct tiered_error *err);
/** -1 TIERED_ENOMEM: `need` bytes do not fit. */
int codec_check_room(size_t need, size_t capacity, struct tiered_error *err);
/** -1 TIERED_ECORRUPT: a stream of another size than it must have. */
int codec_check_size(size_t got, size_t want, struct tiered_error *err);
/** -1 TIERED_ERANGE, always. */
int codec_not_finite(const struct tiered_block *block, struct tiered_error *err);
/** The block as it is, in either direction. */
int codec_copy(const struct tiered_block *block, const void *in, size_t in_size,
               void *out, size_t capacity, size_t *ret_size, struct tiered_error *err);

#endif
