/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Bulyan's second step: of each column the mean of the `keep` values nearest to the
 * median. The kept values stand side by side among the sorted ones; of two such runs
 * that are as near, the lower one is kept.
 *
 * Values are compared as integers that sort like the numbers, so the result has the
 * same bits for any order of the rows, on every instruction set, and no branch depends
 * on a value. Requires 1 <= keep <= n_rows. Threads: pure. Fails with TIERED_ENOMEM.
 */
#ifndef TIERED_PLUGIN_BULYAN_COLUMNS_H
#define TIERED_PLUGIN_BULYAN_COLUMNS_H

#include "tiered/aggregator.h"

int bulyan_f32(const float *const *rows, size_t n_rows, size_t keep, size_t n,
               float *out, struct tiered_error *err);
int bulyan_f64(const double *const *rows, size_t n_rows, size_t keep, size_t n,
               double *out, struct tiered_error *err);

#endif
