/* SPDX-License-Identifier: Apache-2.0 */
/* Noise for each vector width. */
#include "normal.h"

#include <math.h>

#define PAIRS (NORMAL_GROUP / 2)

/* In two loops, so that what each holds fits the registers. */
NORMAL_INLINE void add(const uint64_t *restrict words, size_t n_groups,
                       double deviation, double *restrict values)
{
    for (size_t g = 0; g < n_groups; g++) {
        double radius[PAIRS];
        for (size_t i = 0; i < PAIRS; i++) {
            double u = normal_unit(words[i] >> (64 - NORMAL_BITS));
            radius[i] = deviation * sqrt(-2 * normal_log(u));
        }
        for (size_t i = 0; i < PAIRS; i++) {
            double sine, cosine;
            normal_turn(words[PAIRS + i] >> (64 - NORMAL_BITS), &sine, &cosine);
            values[i] += radius[i] * cosine;
            values[PAIRS + i] += radius[i] * sine;
        }
        words += NORMAL_GROUP;
        values += NORMAL_GROUP;
    }
}

#define DEFINE(name, target)                                                           \
    target static void name(const uint64_t *restrict words, size_t n_groups,           \
                            double deviation, double *restrict values)                 \
    {                                                                                  \
        add(words, n_groups, deviation, values);                                       \
    }

DEFINE(add_portable, )
#ifdef TIERED_VECTOR_X86
DEFINE(add_avx2, TIERED_AVX2)
DEFINE(add_avx512, TIERED_AVX512)
#endif

normal_add_fn normal_add(enum tiered_vector_level level)
{
    switch (level) {
#ifdef TIERED_VECTOR_X86
    case TIERED_VECTOR_AVX512:
        return add_avx512;
    case TIERED_VECTOR_AVX2:
        return add_avx2;
#endif
    default:
        return add_portable;
    }
}
