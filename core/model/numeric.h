/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Conversions between dtypes and the screening of bad numbers, one tile at a time.
 * f16 and bf16 round to nearest even; integers round half to even and saturate.
 * Opaque dtypes (u8, bool) are refused by the callers. Pure functions.
 */
#ifndef TIERED_CORE_NUMERIC_H
#define TIERED_CORE_NUMERIC_H

#include "tiered/model.h"

/** The dtype that a delta of such values has: unsigned ones wrap, so theirs is signed.
 */
enum tiered_dtype tiered_delta_dtype(enum tiered_dtype dtype);
void tiered_to_f64(enum tiered_dtype dtype, const void *in, size_t n, double *out);
void tiered_to_f32(enum tiered_dtype dtype, const void *in, size_t n, float *out);
void tiered_from_f64(enum tiered_dtype dtype, const double *in, size_t n, void *out);
void tiered_from_f32(enum tiered_dtype dtype, const float *in, size_t n, void *out);
/** out = a - b and out = a + b in the dtype itself (integers wrap; f16 and bf16 through
    f32). out may be a or b. Opaque values have no difference: they are replaced, so
    subtract gives a, and add_to (a the base, b the delta) gives b. */
void tiered_subtract(enum tiered_dtype dtype, const void *a, const void *b, size_t n,
                     void *out);
void tiered_add_to(enum tiered_dtype dtype, const void *a, const void *b, size_t n,
                   void *out);
/** Index of the first value that is NaN or infinite, or n. Integers: n. */
size_t tiered_first_nonfinite(enum tiered_dtype dtype, const void *in, size_t n);

#endif
