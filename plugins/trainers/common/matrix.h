/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of training, in f32: a matrix product and the step of SGD.

   The product is written in columns: C's elements along a row are computed side by
   side, and each is summed over k = 0, 1, 2 … by itself. So its bits depend neither on
   the width of the machine's vectors nor on the tile sizes. */
#ifndef TIERED_TRAINERS_MATRIX_H
#define TIERED_TRAINERS_MATRIX_H

#include <stddef.h>

#define TIERED_COLUMNS 16u /* rows of B and C are padded to a multiple of this */

static inline size_t tiered_padded(size_t n)
{
    return (n + TIERED_COLUMNS - 1) / TIERED_COLUMNS * TIERED_COLUMNS;
}

/** C[m][n] = first[n] + sum over k of A[m][k] * B[k][n]. */
struct tiered_product {
    size_t m, k, n; /* n is a multiple of TIERED_COLUMNS */
    const float *a; /* A[i][j] = a[i * a_row + j * a_column] */
    size_t a_row, a_column;
    const float *b; /* rows of b_row floats, aligned to 64 bytes */
    size_t b_row;
    const float *first; /* NULL: zeros */
    float *c;
    size_t c_row;
};

/** One step over n weights: g += mu (w - anchor) where mu is not 0, v = momentum v + g,
    w -= lr v. */
struct tiered_step {
    size_t n;
    float lr, momentum, mu;
    float *w, *v;
    const float *g, *anchor; /* anchor may be NULL when mu is 0 */
};

struct tiered_kernels {
    const char *name; /* of the instruction set */
    void (*multiply)(const struct tiered_product *product);
    void (*step)(const struct tiered_step *step);
};

/** The fastest for this processor. */
const struct tiered_kernels *tiered_kernels_choose(void);
/** All that this processor runs, best first, NULL at the end. */
const struct tiered_kernels *tiered_kernels_at(size_t i);

#endif
