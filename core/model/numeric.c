/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between dtypes, in plain loops that compilers turn into vector code. */
#include "core/model/numeric.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/model/half.h"

/* bytes of f16 and bf16 pass through tiles of this many floats on the stack */
#define TILE 1024

static bool is_half(enum tiered_dtype dtype)
{
    return dtype == TIERED_F16 || dtype == TIERED_BF16;
}

/* Double to float, rounding to odd: inexact results get an odd last bit, so that a
   second rounding to fewer bits gives what one rounding would have given. */
static float to_odd(double x)
{
    float f = (float)x;
    if ((double)f == x || x != x) {
        return f;
    }
    uint32_t bits = float_bits(f);
    bits -= fabs((double)f) > fabs(x); /* towards zero */
    return float_from_bits(bits | 1);
}

#define WIDEN(T, out, in, n)                                                           \
    for (size_t i = 0; i < (n); i++) {                                                 \
        (out)[i] = (__typeof__((out)[0]))((const T *)(in))[i];                         \
    }                                                                                  \
    return

enum tiered_dtype tiered_delta_dtype(enum tiered_dtype dtype)
{
    switch (dtype) {
    case TIERED_U16:
        return TIERED_I16;
    case TIERED_U32:
        return TIERED_I32;
    case TIERED_U64:
        return TIERED_I64;
    default:
        return dtype;
    }
}

void tiered_to_f64(enum tiered_dtype dtype, const void *in, size_t n, double *out)
{
    switch (dtype) {
    case TIERED_F32:
        WIDEN(float, out, in, n);
    case TIERED_F64:
        memmove(out, in, n * sizeof(*out));
        return;
    case TIERED_F16:
        for (size_t i = 0; i < n; i++) {
            out[i] = (double)half_to_float(((const uint16_t *)in)[i]);
        }
        return;
    case TIERED_BF16:
        for (size_t i = 0; i < n; i++) {
            out[i] = (double)bfloat_to_float(((const uint16_t *)in)[i]);
        }
        return;
    case TIERED_I8:
        WIDEN(int8_t, out, in, n);
    case TIERED_I16:
        WIDEN(int16_t, out, in, n);
    case TIERED_I32:
        WIDEN(int32_t, out, in, n);
    case TIERED_I64:
        WIDEN(int64_t, out, in, n);
    case TIERED_U16:
        WIDEN(uint16_t, out, in, n);
    case TIERED_U32:
        WIDEN(uint32_t, out, in, n);
    case TIERED_U64:
        WIDEN(uint64_t, out, in, n);
    case TIERED_U8:
    case TIERED_BOOL:
    default:
        WIDEN(uint8_t, out, in, n);
    }
}

void tiered_to_f32(enum tiered_dtype dtype, const void *in, size_t n, float *out)
{
    switch (dtype) {
    case TIERED_F32:
        memmove(out, in, n * sizeof(*out));
        return;
    case TIERED_F64:
        WIDEN(double, out, in, n);
    case TIERED_F16:
        for (size_t i = 0; i < n; i++) {
            out[i] = half_to_float(((const uint16_t *)in)[i]);
        }
        return;
    case TIERED_BF16:
        for (size_t i = 0; i < n; i++) {
            out[i] = bfloat_to_float(((const uint16_t *)in)[i]);
        }
        return;
    case TIERED_I8:
        WIDEN(int8_t, out, in, n);
    case TIERED_I16:
        WIDEN(int16_t, out, in, n);
    case TIERED_I32:
        WIDEN(int32_t, out, in, n);
    case TIERED_I64:
        WIDEN(int64_t, out, in, n);
    case TIERED_U16:
        WIDEN(uint16_t, out, in, n);
    case TIERED_U32:
        WIDEN(uint32_t, out, in, n);
    case TIERED_U64:
        WIDEN(uint64_t, out, in, n);
    case TIERED_U8:
    case TIERED_BOOL:
    default:
        WIDEN(uint8_t, out, in, n);
    }
}

/* Round half to even (the default mode) and saturate; NaN becomes 0. `above` is the
   first double over the largest value, and itself out of range. */
#define NARROW(T, low, high, above)                                                    \
    for (size_t i = 0; i < n; i++) {                                                   \
        double x = rint((double)in[i]);                                                \
        ((T *)out)[i] = x >= (above)         ? (T)(high)                               \
                        : x >= (double)(low) ? (T)x                                    \
                        : x < (double)(low)  ? (T)(low)                                \
                                             : (T)0;                                    \
    }                                                                                  \
    return

#define NARROW_INTEGERS(dtype)                                                         \
    switch (dtype) {                                                                   \
    case TIERED_I8:                                                                    \
        NARROW(int8_t, INT8_MIN, INT8_MAX, 128.0);                                     \
    case TIERED_I16:                                                                   \
        NARROW(int16_t, INT16_MIN, INT16_MAX, 32768.0);                                \
    case TIERED_I32:                                                                   \
        NARROW(int32_t, INT32_MIN, INT32_MAX, 0x1p31);                                 \
    case TIERED_I64:                                                                   \
        NARROW(int64_t, INT64_MIN, INT64_MAX, 0x1p63);                                 \
    case TIERED_U16:                                                                   \
        NARROW(uint16_t, 0, UINT16_MAX, 65536.0);                                      \
    case TIERED_U32:                                                                   \
        NARROW(uint32_t, 0, UINT32_MAX, 0x1p32);                                       \
    case TIERED_U64:                                                                   \
        NARROW(uint64_t, 0, UINT64_MAX, 0x1p64);                                       \
    default:                                                                           \
        NARROW(uint8_t, 0, UINT8_MAX, 256.0);                                          \
    }

static void integers_from_f64(enum tiered_dtype dtype, const double *in, size_t n,
                              void *out)
{
    NARROW_INTEGERS(dtype)
}

static void integers_from_f32(enum tiered_dtype dtype, const float *in, size_t n,
                              void *out)
{
    NARROW_INTEGERS(dtype)
}

void tiered_from_f64(enum tiered_dtype dtype, const double *in, size_t n, void *out)
{
    switch (dtype) {
    case TIERED_F32:
        for (size_t i = 0; i < n; i++) {
            ((float *)out)[i] = (float)in[i];
        }
        return;
    case TIERED_F64:
        memmove(out, in, n * sizeof(*in));
        return;
    case TIERED_F16:
        for (size_t i = 0; i < n; i++) {
            ((uint16_t *)out)[i] = half_from_float(to_odd(in[i]));
        }
        return;
    case TIERED_BF16:
        for (size_t i = 0; i < n; i++) {
            ((uint16_t *)out)[i] = bfloat_from_float(to_odd(in[i]));
        }
        return;
    default:
        integers_from_f64(dtype, in, n, out);
    }
}

void tiered_from_f32(enum tiered_dtype dtype, const float *in, size_t n, void *out)
{
    switch (dtype) {
    case TIERED_F32:
        memmove(out, in, n * sizeof(*in));
        return;
    case TIERED_F64:
        for (size_t i = 0; i < n; i++) {
            ((double *)out)[i] = (double)in[i];
        }
        return;
    case TIERED_F16:
        for (size_t i = 0; i < n; i++) {
            ((uint16_t *)out)[i] = half_from_float(in[i]);
        }
        return;
    case TIERED_BF16:
        for (size_t i = 0; i < n; i++) {
            ((uint16_t *)out)[i] = bfloat_from_float(in[i]);
        }
        return;
    default:
        integers_from_f32(dtype, in, n, out);
    }
}

/* 24 bits are enough that rounding to f32 first changes no f16 or bf16 result. */
static void combine_halves(enum tiered_dtype dtype, const uint16_t *a,
                           const uint16_t *b, size_t n, float sign, uint16_t *out)
{
    float x[TILE], y[TILE];
    for (size_t at = 0; at < n; at += TILE) {
        size_t m = n - at < TILE ? n - at : TILE;
        tiered_to_f32(dtype, a + at, m, x);
        tiered_to_f32(dtype, b + at, m, y);
        for (size_t i = 0; i < m; i++) {
            x[i] += sign * y[i];
        }
        tiered_from_f32(dtype, x, m, out + at);
    }
}

/* Unsigned arithmetic wraps, and its bits are those of the signed types. */
#define COMBINE(T, op)                                                                 \
    for (size_t i = 0; i < n; i++) {                                                   \
        ((T *)out)[i] = (T)(((const T *)a)[i] op((const T *)b)[i]);                    \
    }                                                                                  \
    return

#define COMBINE_WIDTHS(op)                                                             \
    if (dtype == TIERED_F32) {                                                         \
        COMBINE(float, op);                                                            \
    }                                                                                  \
    if (dtype == TIERED_F64) {                                                         \
        COMBINE(double, op);                                                           \
    }                                                                                  \
    switch (tiered_dtype_size(dtype)) {                                                \
    case 1:                                                                            \
        COMBINE(uint8_t, op);                                                          \
    case 2:                                                                            \
        COMBINE(uint16_t, op);                                                         \
    case 4:                                                                            \
        COMBINE(uint32_t, op);                                                         \
    default:                                                                           \
        COMBINE(uint64_t, op);                                                         \
    }

static bool is_opaque(enum tiered_dtype dtype)
{
    return dtype == TIERED_U8 || dtype == TIERED_BOOL;
}

void tiered_subtract(enum tiered_dtype dtype, const void *a, const void *b, size_t n,
                     void *out)
{
    if (is_opaque(dtype)) {
        memmove(out, a, n);
        return;
    }
    if (is_half(dtype)) {
        combine_halves(dtype, a, b, n, -1, out);
        return;
    }
    COMBINE_WIDTHS(-)
}

void tiered_add_to(enum tiered_dtype dtype, const void *a, const void *b, size_t n,
                   void *out)
{
    if (is_opaque(dtype)) {
        memmove(out, b, n);
        return;
    }
    if (is_half(dtype)) {
        combine_halves(dtype, a, b, n, 1, out);
        return;
    }
    COMBINE_WIDTHS(+)
}

/* A value is bad when all bits of its exponent are set. Whole tiles are looked at
   without a branch; only a bad one is searched. */
#define FIRST_BAD(T, mask)                                                             \
    for (size_t at = 0; at < n; at += TILE) {                                          \
        size_t m = n - at < TILE ? n - at : TILE;                                      \
        const T *bits = (const T *)in + at;                                            \
        unsigned bad = 0;                                                              \
        for (size_t i = 0; i < m; i++) {                                               \
            bad |= (bits[i] & (T)(mask)) == (T)(mask);                                 \
        }                                                                              \
        for (size_t i = 0; bad && i < m; i++) {                                        \
            if ((bits[i] & (T)(mask)) == (T)(mask)) {                                  \
                return at + i;                                                         \
            }                                                                          \
        }                                                                              \
    }                                                                                  \
    return n

size_t tiered_first_nonfinite(enum tiered_dtype dtype, const void *in, size_t n)
{
    switch (dtype) {
    case TIERED_F32:
        FIRST_BAD(uint32_t, 0x7f800000u);
    case TIERED_F64:
        FIRST_BAD(uint64_t, 0x7ff0000000000000u);
    case TIERED_F16:
        FIRST_BAD(uint16_t, 0x7c00u);
    case TIERED_BF16:
        FIRST_BAD(uint16_t, 0x7f80u);
    default:
        return n;
    }
}
