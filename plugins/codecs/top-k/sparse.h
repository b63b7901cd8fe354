/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A block of which few values are not zero. u8 form, then whichever is shortest:
 *
 *   0  u32 count; for each value the number of zeros before it since the last one,
 * seven bits a byte, lowest first, the eighth bit set where more follow; the values 1
 * a bit for each value, the first in the lowest bit; the values whose bit is set 2  all
 * values, zeros too
 *
 * Values are in the block's dtype, little endian.
 */
#ifndef TIERED_TOP_K_SPARSE_H
#define TIERED_TOP_K_SPARSE_H

#include "residual.h"

#define SPARSE_OVERHEAD 5 /* over the block's raw bytes, at most */

int sparse_write(const struct residual *r, const struct residual_span *span,
                 enum tiered_dtype dtype, void *out, size_t capacity, size_t *ret_size,
                 struct tiered_error *err);
/** n values into out, which has room for them. */
int sparse_read(const void *in, size_t in_size, size_t n, enum tiered_dtype dtype,
                void *out, struct tiered_error *err);

#endif
