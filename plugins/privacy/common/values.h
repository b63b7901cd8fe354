/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Blocks of float values for privacy filters: which they act on, their squares, a
 * multiple of them rounded towards zero (a norm that was bounded stays so), and f64 of
 * them and back, rounded to nearest and kept finite (noise).
 *
 * Pure functions, in a version for each vector width, all with the same bits: sums run
 * in VALUES_LANES lanes, which are added in a fixed order.
 */
#ifndef TIERED_PRIVACY_VALUES_H
#define TIERED_PRIVACY_VALUES_H

#include <stdbool.h>
#include <stddef.h>

#include "tiered/model.h"
#include "tiered/vector.h"

#define VALUES_LANES 16u

/** Does a privacy filter act on this block? Other roles and integers pass as they are.
 */
static inline bool values_are_private(const struct tiered_block *block)
{
    return block->role == TIERED_PARAMETER &&
           (block->dtype == TIERED_F32 || block->dtype == TIERED_F64 ||
            block->dtype == TIERED_F16 || block->dtype == TIERED_BF16);
}

/** `in` and `out` are n values of one of those four dtypes, and do not overlap. */
struct values_ops {
    /** The sum of squares; not finite where a value is not, or the sum is too large. */
    double (*squares)(enum tiered_dtype dtype, const void *in, size_t n);
    /** Each value times `factor`, of 0 to 1, towards zero. Values are finite. */
    void (*scale)(enum tiered_dtype dtype, const void *in, size_t n, double factor,
                  void *out);
    /** As f64, exactly. false: a value is not finite. */
    bool (*load)(enum tiered_dtype dtype, const void *in, size_t n, double *out);
    /** Finite values to the nearest of the dtype, halves to even; what is too large
        becomes the largest. */
    void (*store)(enum tiered_dtype dtype, const double *in, size_t n, void *out);
};

/** Those for this vector level. */
const struct values_ops *values_ops(enum tiered_vector_level level);

#endif
