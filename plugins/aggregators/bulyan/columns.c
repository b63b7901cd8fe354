/* SPDX-License-Identifier: Apache-2.0 */
/* LANES columns at once: a sorting network (merge exchange, Knuth vol. 3, 5.2.2,
   algorithm M) whose exchanges are vector minima and maxima, then the place of the run
   by counting, then its sum. */
#include "columns.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                 \
    defined(__gnu_linux__) && !defined(TIERED_SANITIZED)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

#define LANES 64

#define REAL     float
#define KEY      int32_t
#define KEY_MAX  INT32_MAX
#define KEY_BITS 32
#define NAME(x)  x##_f32
#include "columns_tile.h"
#undef REAL
#undef KEY
#undef KEY_MAX
#undef KEY_BITS
#undef NAME

#define REAL     double
#define KEY      int64_t
#define KEY_MAX  INT64_MAX
#define KEY_BITS 64
#define NAME(x)  x##_f64
#include "columns_tile.h"
