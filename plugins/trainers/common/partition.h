/* SPDX-License-Identifier: Apache-2.0 */
/* Who trains on what: every example goes to exactly one leaf. The answer depends on the
   labels, the options and the key alone, so every leaf works out the same one. */
#ifndef TIERED_TRAINERS_PARTITION_H
#define TIERED_TRAINERS_PARTITION_H

#include "config.h"

struct tiered_partition {
    enum tiered_split split;
    double alpha;
    uint32_t count;           /* leaves */
    const uint32_t *class_of; /* by example */
    uint32_t n, n_classes;
};

/** owner[i] < count for each example. -1: too few examples, or no draw of the Dirichlet
    distribution gave every leaf enough. */
int tiered_partition_assign(const struct tiered_partition *partition,
                            const uint8_t key[32], uint32_t *owner,
                            struct tiered_error *err);

#endif
