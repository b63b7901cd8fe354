/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The loops that touch every value of every row, compiled once for each vector width.
 * They give the same bits at every width: each value of a sum is added in child order,
 * each dot product in lanes of a fixed number.
 */
#ifndef TIERED_AGGREGATE_KERNELS_H
#define TIERED_AGGREGATE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

#define KERNEL_SUM   8u   /* rows added in one pass */
#define KERNEL_ROWS  4u   /* rows of a block of products */
#define KERNEL_TILE  512u /* values of a row that products() takes at once */
#define KERNEL_LANES 8u   /* partial sums of a dot product */

struct kernels {
    /** sum += w[0] * rows[0] + w[1] * rows[1] …, one after the other, of at most
        KERNEL_SUM rows; with `first` the sum begins with the first product, so that -0
        survives. `next`: KERNEL_SUM places where n floats will be read afterwards. */
    void (*add_rows)(const float *const *rows, const double *w, size_t n_rows, size_t n,
                     bool first, const float *const *next, double *sum);
    void (*add_row)(const double *row, double w, size_t n, bool first, double *sum);
    /** True when every value's size is less than `limit`; never of NaN. */
    bool (*all_below)(const double *values, size_t n, double limit);
    /** Sums to floats that nothing will read soon: past the caches where the processor
        can. */
    void (*store)(const double *sum, size_t n, float *out);
    /** The same of a row, while as much of the next one is asked for. */
    bool (*row_finite)(const float *row, size_t n, const float *next);
    /** out = row, or row - centre where there is a centre, while n floats at `next` are
        asked for. */
    void (*centre)(const float *row, const double *centre, size_t n, const float *next,
                   double *out);
    /** `deltas` are n_rows x KERNEL_TILE values, n_rows a multiple of KERNEL_ROWS. The
        dot products of rows i >= j are added to sums[i * n_rows + j]; entries of the
        same blocks above the diagonal are written too, and mean nothing. */
    void (*products)(const double *deltas, size_t n_rows, double *sums);
    /** The dot product of a row with itself: KERNEL_LANES lanes over the whole of it.
     */
    double (*square)(const double *row, size_t n);
};

/** Those of the widest vectors at hand; TIERED_VECTOR in the environment lowers it. */
const struct kernels *tiered_kernels(void);

#endif
