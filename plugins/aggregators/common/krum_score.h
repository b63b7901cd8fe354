/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Krum's score of a row: the sum of the squared distances to its nearest others. Sorted
 * once, so that a rule may score again as rows leave.
 */
#ifndef TIERED_PLUGIN_KRUM_SCORE_H
#define TIERED_PLUGIN_KRUM_SCORE_H

#include <stdbool.h>

#include "tiered/aggregator.h"

/** Of each of n rows the n - 1 others, nearest first: n * (n - 1) indices to free(), or
    NULL. */
uint32_t *krum_order(const double *distances, size_t n);

/** How many others a score counts: n - byzantine - 2, at least 1. */
size_t krum_neighbours(size_t n, size_t byzantine);

/** Over the `neighbours` nearest of the others that are `in`; over fewer where there
    are fewer. Infinity: too few of them can be measured. Sums run from the nearest on,
    so they do not depend on the order of the rows. */
double krum_score(const double *distances, const uint32_t *order, const bool *in,
                  size_t n, size_t row, size_t neighbours);

#endif
