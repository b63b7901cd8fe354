/* SPDX-License-Identifier: Apache-2.0 */
/* Loops over values of each dtype. What is done to one value has no branches, so that
   compilers make vector code of the loops; the dtype is a constant in each of them. */
#include "values.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

INLINE float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

#define HALF_LEAST 0x38800000u          /* 2^-14, below which halves are subnormal */
#define HALF_SHIFT ((127u - 15u) << 23) /* between the exponents */

INLINE float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t small = bits_of((float)(int32_t)(h & 0x7fff) * 0x1p-24f);
    uint32_t huge = rest | 0x7f800000u; /* infinite or NaN: the caller sees it */
    return float_of(sign | (rest < 0x0400u << 13   ? small
                            : rest < 0x7c00u << 13 ? rest + HALF_SHIFT
                                                   : huge));
}

INLINE double value_at(enum tiered_dtype dtype, const void *in, size_t i)
{
    switch (dtype) {
    case TIERED_F64:
        return ((const double *)in)[i];
    case TIERED_F32:
        return (double)((const float *)in)[i];
    case TIERED_F16:
        return (double)from_half(((const uint16_t *)in)[i]);
    default:
        return (double)float_of((uint32_t)((const uint16_t *)in)[i] << 16);
    }
}

/* ---- towards zero ---- */

/** To the float next to it on the side of zero: the nearest, or one step back. */
INLINE uint32_t cut(double x)
{
    float near = (float)x;
    return bits_of(near) - (fabs((double)near) > fabs(x));
}

/** Of a float's bits. Below 2^-14 whole units of 2^-24 are left. */
INLINE uint16_t cut_half(uint32_t bits)
{
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    float least = float_of(rest < HALF_LEAST ? rest : HALF_LEAST);
    uint32_t small = (uint32_t)(int32_t)(least * 0x1p24f);
    uint32_t normal = (rest - HALF_SHIFT) >> 13;
    return (uint16_t)(sign | (rest < HALF_LEAST ? small : normal));
}

/** What came from the dtype and was made smaller always fits. */
INLINE void put_cut(enum tiered_dtype dtype, double x, void *out, size_t i)
{
    switch (dtype) {
    case TIERED_F64:
        ((double *)out)[i] = x;
        break;
    case TIERED_F32:
        ((float *)out)[i] = float_of(cut(x));
        break;
    case TIERED_F16:
        ((uint16_t *)out)[i] = cut_half(cut(x));
        break;
    default:
        ((uint16_t *)out)[i] = (uint16_t)(cut(x) >> 16);
    }
}

/* ---- to the nearest ---- */

INLINE double within(double x, double most)
{
    return x > most ? most : x < -most ? -most : x;
}

/** A float's bits: towards zero, and odd where digits were lost, so that a second
    rounding, to 16 bits, is the only one. */
INLINE uint32_t odd(double x)
{
    uint32_t bits = cut(x);
    return bits | ((double)float_of(bits) != x);
}

/** Below 2^-14 adding 0.5 rounds to units of 2^-24. */
INLINE uint16_t near_half(double x)
{
    uint32_t bits = odd(within(x, 65504.0));
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    uint32_t small = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);
    uint32_t normal = (rest - HALF_SHIFT + 0x0fff + (rest >> 13 & 1)) >> 13;
    return (uint16_t)(sign | (rest < HALF_LEAST ? small : normal));
}

INLINE uint16_t near_bfloat(double x)
{
    uint32_t bits = odd(within(x, 0x1.fep127));
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE void put_near(enum tiered_dtype dtype, double x, void *out, size_t i)
{
    switch (dtype) {
    case TIERED_F64:
        ((double *)out)[i] = within(x, DBL_MAX);
        break;
    case TIERED_F32:
        ((float *)out)[i] = (float)within(x, (double)FLT_MAX);
        break;
    case TIERED_F16:
        ((uint16_t *)out)[i] = near_half(x);
        break;
    default:
        ((uint16_t *)out)[i] = near_bfloat(x);
    }
}

/* ---- loops ---- */

INLINE double squares_as(enum tiered_dtype dtype, const void *in, size_t n)
{
    double lanes[VALUES_LANES] = {0};
    size_t at = 0;
    for (; at + VALUES_LANES <= n; at += VALUES_LANES) {
        for (size_t l = 0; l < VALUES_LANES; l++) {
            double x = value_at(dtype, in, at + l);
            lanes[l] += x * x;
        }
    }
    for (size_t l = 0; at + l < n; l++) {
        double x = value_at(dtype, in, at + l);
        lanes[l] += x * x;
    }
    for (size_t half = VALUES_LANES / 2; half > 0; half /= 2) {
        for (size_t l = 0; l < half; l++) {
            lanes[l] += lanes[l + half];
        }
    }
    return lanes[0];
}

INLINE void scale_as(enum tiered_dtype dtype, const void *in, size_t n, double factor,
                     void *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        put_cut(dtype, value_at(dtype, in, i) * factor, out, i);
    }
}

/** Adding one to an exponent of all ones carries into the sign's place, which is
    cleared before. */
INLINE bool load_as(enum tiered_dtype dtype, const void *in, size_t n,
                    double *restrict out)
{
    uint64_t carried = 0;
    for (size_t i = 0; i < n; i++) {
        double x = value_at(dtype, in, i);
        uint64_t bits;
        memcpy(&bits, &x, sizeof(bits));
        carried |= (bits & 0x7fffffffffffffffu) + 0x0010000000000000u;
        out[i] = x;
    }
    return !(carried >> 63);
}

INLINE void store_as(enum tiered_dtype dtype, const double *in, size_t n,
                     void *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        put_near(dtype, in[i], out, i);
    }
}

#define NAME(x) x##_portable
#define TARGET
#include "values_body.h"
#undef NAME
#undef TARGET

#ifdef TIERED_VECTOR_X86
#define NAME(x) x##_avx2
#define TARGET  TIERED_AVX2
#include "values_body.h"
#undef NAME
#undef TARGET

#define NAME(x) x##_avx512
#define TARGET  TIERED_AVX512
#include "values_body.h"
#undef NAME
#undef TARGET
#endif

const struct values_ops *values_ops(enum tiered_vector_level level)
{
    switch (level) {
#ifdef TIERED_VECTOR_X86
    case TIERED_VECTOR_AVX512:
        return &ops_avx512;
    case TIERED_VECTOR_AVX2:
        return &ops_avx2;
#endif
    default:
        return &ops_portable;
    }
}
