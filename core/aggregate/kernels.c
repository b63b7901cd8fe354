/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for each vector width, and which of them this processor runs. */
#include "core/aggregate/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE__
#include <immintrin.h>
#endif

#include "tiered/vector.h"

#define LINE 16u /* floats of a cache line */

#define INLINE static inline __attribute__((always_inline))

/** At every width the same: one value's products are added one after the other. A line
    of the next rows is asked for with each line of these: the processor's own guesses
   do not cross from row to row. n_rows is a constant where this is called. */
INLINE void add_some(const float *const *rows, const double *w, size_t n_rows, size_t n,
                     bool first, const float *const *next, double *restrict sum)
{
    const float *row[KERNEL_SUM];
    double by[KERNEL_SUM];
    for (size_t r = 0; r < n_rows; r++) {
        row[r] = rows[r];
        by[r] = w[r];
    }
    size_t at = 0;
    for (; at + LINE <= n; at += LINE) {
        for (size_t r = 0; r < n_rows; r++) {
            __builtin_prefetch(next[r] + at);
        }
        for (size_t i = at; i < at + LINE; i++) {
            /* -0 is what changes nothing when added to */
            double s = first ? -0.0 : sum[i];
            for (size_t r = 0; r < n_rows; r++) {
                s += by[r] * (double)row[r][i];
            }
            sum[i] = s;
        }
    }
    for (; at < n; at++) {
        double s = first ? -0.0 : sum[at];
        for (size_t r = 0; r < n_rows; r++) {
            s += by[r] * (double)row[r][at];
        }
        sum[at] = s;
    }
}

/** After store_line()s and before anyone is told of them. */
INLINE void store_end(void)
{
#ifdef __SSE__
    _mm_sfence();
#endif
}

INLINE void store_line(float *out, const float line[LINE])
{
#ifdef __SSE__
    if ((uintptr_t)out % 16 == 0) {
        for (size_t i = 0; i < LINE; i += 4) {
            _mm_stream_ps(out + i, _mm_loadu_ps(line + i));
        }
        return;
    }
#endif
    memcpy(out, line, LINE * sizeof(float));
}

/* WIDTH: doubles of one vector. COLUMNS: of a block of products, whose KERNEL_ROWS x
   COLUMNS sums must fit the registers. */
#define NAME(x) x##_portable
#define TARGET
#define WIDTH 2
#ifdef __aarch64__
#define COLUMNS 4
#else
#define COLUMNS 2
#endif
#include "core/aggregate/kernels_body.h"
#undef NAME
#undef TARGET
#undef WIDTH
#undef COLUMNS

#ifdef TIERED_VECTOR_X86
#define NAME(x) x##_avx2
#define TARGET  TIERED_AVX2
#define WIDTH   4
#define COLUMNS 2
#include "core/aggregate/kernels_body.h"
#undef NAME
#undef TARGET
#undef WIDTH
#undef COLUMNS

#define NAME(x) x##_avx512
#define TARGET  TIERED_AVX512
#define WIDTH   8
#define COLUMNS 4
#include "core/aggregate/kernels_body.h"
#endif

const struct kernels *tiered_kernels(void)
{
    switch (tiered_vector_level()) {
#ifdef TIERED_VECTOR_X86
    case TIERED_VECTOR_AVX512:
        return &kernels_avx512;
    case TIERED_VECTOR_AVX2:
        return &kernels_avx2;
#endif
    default:
        return &kernels_portable;
    }
}
