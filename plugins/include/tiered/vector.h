/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Which vector code to run, for plugins with hot loops; header only.
 *
 * Write the loop once as an always_inline function, without intrinsics, wrap it in one
 * function for each level, and call the one that tiered_vector_level() names:
 *
 *     static inline __attribute__((always_inline)) void body(...) { plain loops }
 *     static void body_portable(...) { body(...); }
 *     #ifdef TIERED_VECTOR_X86
 *     TIERED_AVX2 static void body_avx2(...) { body(...); }
 *     TIERED_AVX512 static void body_avx512(...) { body(...); }
 *     #endif
 *
 * Results must not depend on the level: sums in a fixed order of lanes, and
 * -ffp-contract=off. On arm64 the portable code is NEON code already.
 */
#ifndef TIERED_VECTOR_H
#define TIERED_VECTOR_H

#include <stdlib.h>
#include <string.h>

enum tiered_vector_level {
    TIERED_VECTOR_PORTABLE = 0,
    TIERED_VECTOR_AVX2 = 1,
    TIERED_VECTOR_AVX512 = 2,
};

#if defined(__x86_64__) && defined(__GNUC__)
#define TIERED_VECTOR_X86 1
#define TIERED_AVX2       __attribute__((target("avx2")))
#define TIERED_AVX512     __attribute__((target("avx2,avx512f,avx512dq,avx512bw,avx512vl")))
#endif

/** The widest that this processor has, or less if the variable TIERED_VECTOR says
    `portable` or `avx2`: then the level can be compared. Any thread. */
static inline enum tiered_vector_level tiered_vector_level(void)
{
#ifdef TIERED_VECTOR_X86
    const char *most = getenv("TIERED_VECTOR");
    if ((most && strcmp(most, "portable") == 0) || !__builtin_cpu_supports("avx2")) {
        return TIERED_VECTOR_PORTABLE;
    }
    if ((most && strcmp(most, "avx2") == 0) || !__builtin_cpu_supports("avx512f") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl")) {
        return TIERED_VECTOR_AVX2;
    }
    return TIERED_VECTOR_AVX512;
#else
    return TIERED_VECTOR_PORTABLE;
#endif
}

#endif
