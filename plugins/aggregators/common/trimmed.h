/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Means of order statistics, one column at a time: what the coordinate-wise rules are
 * made of. Of n_rows sorted values `trim` are cut on each side and the rest averaged in
 * f64; the median cuts all but the middle one or two.
 *
 * Values are compared as integers that sort like the numbers (with -0 below +0), so the
 * result has the same bits for any order of the rows up to TIERED_SORTED_ROWS, on every
 * instruction set. No branch depends on a value: a row made to be slow to sort is not.
 *
 * Requires n_rows >= 1 and 2 * trim < n_rows; rows do not alias out. Threads: pure.
 * Fails with TIERED_ENOMEM only, and only above TIERED_SORTED_ROWS.
 */
#ifndef TIERED_PLUGIN_TRIMMED_H
#define TIERED_PLUGIN_TRIMMED_H

#include "tiered/aggregator.h"

#define TIERED_SORTED_ROWS 256

int trimmed_f32(const float *const *rows, size_t n_rows, size_t trim, size_t n,
                float *out, struct tiered_error *err);
int trimmed_f64(const double *const *rows, size_t n_rows, size_t trim, size_t n,
                double *out, struct tiered_error *err);

#endif
