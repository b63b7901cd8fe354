/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Normal noise from random bits, by Box and Muller: of two uniform values u and w,
 * r = sqrt(-2 ln u) times the cosine and the sine of 2 pi w.
 *
 * The functions are of plain sums and products, without branches, tables or libm's own:
 * compilers make vector code of them, and the bits are the same on every machine.
 * Sine and cosine are within 1 ulp of the exact values, the logarithm too.
 */
#ifndef TIERED_GAUSSIAN_NORMAL_H
#define TIERED_GAUSSIAN_NORMAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tiered/vector.h"

#define NORMAL_GROUP 64u /* values that are made together, of as many words */
#define NORMAL_BITS  53  /* that are used of a word, the upper ones */

#define NORMAL_INLINE static inline __attribute__((always_inline))

NORMAL_INLINE double normal_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof(d));
    return d;
}

NORMAL_INLINE uint64_t normal_word(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof(bits));
    return bits;
}

/** (k + 1) / 2^53 exactly, k below 2^53: the half of k as the last 52 bits of a double
    from 1 to 2, less 1 - 2^-53 or 1 - 2^-52. */
NORMAL_INLINE double normal_unit(uint64_t k)
{
    return normal_double(0x3ff0000000000000u | k >> 1) -
           normal_double(0x3fefffffffffffffu - (k & 1));
}

/**
 * ln(u) for u from 2^-53 to 1. u is m 2^e with m about 1, sqrt(1/2) to sqrt(2). With
 * f = m - 1 and s = f / (2 + f), ln m = 2 atanh(s) = f - s f + s^3 P(s^2), P a minimax
 * polynomial of 7 terms. s f is written as f^2/2 - s f^2/2, which loses less.
 */
NORMAL_INLINE double normal_log(double u)
{
    const uint64_t least = 0x3fe6a09e00000000u, one = 0x3ff0000000000000u;
    uint64_t bits = normal_word(u) + (one - least);
    /* the exponent as the last digits of 2^52 + 1023 + e */
    double e = normal_double(0x4330000000000000u | bits >> 52) - (0x1p52 + 1023);
    double f = normal_double((bits & 0x000fffffffffffffu) + least) - 1;
    double s = f / (2 + f), z = s * s, y = z * z, half = 0.5 * f * f;
    double odd =
        0x1.9999999995223p-2 + y * (0x1.c71c62d034db1p-3 + y * 0x1.39fdb9119fcb4p-3);
    double even = 0x1.5555555555558p-1 +
                  y * (0x1.2492492e03ed8p-2 +
                       y * (0x1.7462ba2a0d20dp-3 + y * 0x1.2b5fc0f576afbp-3));
    double rest = z * (even + z * odd);
    /* ln 2 in two parts: the first times e is exact */
    double last = s * (half + rest) + e * 0x1.a39ef35793c76p-33;
    return e * 0x1.62e42feep-1 - ((half - last) - f);
}

/**
 * Sine and cosine of 2 pi k / 2^53, k below 2^53: those of the distance t to the
 * nearest quarter of a turn, which is exact and 1/8 at most, by minimax polynomials in
 * t^2; then swapped and negated by the quarter. So that products with 2 pi and its
 * square keep their last digits, t is taken in two parts, and what 1 - 2 pi^2 t^2 loses
 * is added.
 */
NORMAL_INLINE void normal_turn(uint64_t k, double *ret_sine, double *ret_cosine)
{
    const uint64_t eighth = (uint64_t)1 << (NORMAL_BITS - 3), quarter = 2 * eighth;
    uint64_t turned = k + eighth, q = turned >> (NORMAL_BITS - 2);
    /* as the last digits of a double from 0.5 to 0.75 */
    double t = normal_double(0x3fe0000000000000u | (turned & (quarter - 1))) - 0.625;
    double w = t * t, v = w * w;
    double sine =
        -0x1.4abbce625be47p+5 +
        w * (0x1.466bc67758d84p+6 +
             w * (-0x1.32d2cce333252p+6 +
                  w * (0x1.5078301b58cbfp+5 +
                       w * (-0x1.e300a650bcfc6p+3 + w * 0x1.e403cd0f477ccp+1))));
    double cosine =
        0x1.03c1f081b5ac4p+6 +
        w * (-0x1.55d3c7e3cbd75p+6 +
             w * (0x1.e1f506883046dp+5 +
                  w * (-0x1.a6d1f0ab9d9e3p+4 +
                       w * (0x1.f9cfc0a07ecb8p+2 + w * -0x1.b383513fe8356p+0))));
    double upper = normal_double(normal_word(t) & ~(uint64_t)0x7ffffff),
           lower = t - upper;
    sine = upper * 0x1.921fb5p+2 + (t * (w * sine) + (upper * 0x1.110b4611a6263p-24 +
                                                      lower * 0x1.921fb54442d18p+2));
    double drop = w * 0x1.3bd3cc9be45dep+4, near = 1 - drop;
    cosine = near + (((1 - near) - drop) + (v * cosine - w * 0x1.692b71366cc04p-50));
    uint64_t a = normal_word(sine), b = normal_word(cosine);
    uint64_t swap = (a ^ b) & (0 - (q & 1));
    *ret_sine = normal_double((a ^ swap) ^ (q & 2) << 62);
    *ret_cosine = normal_double((b ^ swap) ^ ((q + 1) & 2) << 62);
}

/**
 * Add normal noise to n_groups * NORMAL_GROUP values, each group from as many random
 * words: the first half are for u, of 53 bits and in (0, 1], the second for w. Value i
 * of the first half and value i of the second are of the same two words.
 */
typedef void (*normal_add_fn)(const uint64_t *restrict words, size_t n_groups,
                              double deviation, double *restrict values);

/** The one for this vector level; the bits are the same in all. */
normal_add_fn normal_add(enum tiered_vector_level level);

#endif
