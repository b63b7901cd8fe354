/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Forests as plain arrays: of tree k the tensors "tk.left", "tk.right", "tk.feature"
 * (I32, a value a node), "tk.threshold" (F64, a value a node), "tk.value" (F64, nodes x
 * outputs); k counts from 0 without a gap. A leaf's left and right are -1; the root is
 * node 0.
 */
#ifndef TREE_BAGGING_FOREST_H
#define TREE_BAGGING_FOREST_H

#include <stddef.h>
#include <stdint.h>

#include "tiered/aggregator.h"

enum forest_array {
    FOREST_LEFT,
    FOREST_RIGHT,
    FOREST_FEATURE,
    FOREST_THRESHOLD,
    FOREST_VALUE,
    FOREST_ARRAYS,
};

struct forest {
    const struct tiered_whole *whole;
    uint32_t n_trees;
    uint64_t n_outputs;                   /* 0: no tree */
    const struct tiered_tensor **tensors; /* FOREST_ARRAYS of each tree */
};

/** Read and check a forest; one without tensors has no trees. Zeroed, it may be closed
    whatever came of it. `whole` is borrowed. */
int forest_open(struct forest *forest, const struct tiered_whole *whole,
                struct tiered_error *err);
void forest_close(struct forest *forest);
/** The trees of all, in order, renumbered. */
int forest_merge(const struct forest *forests, size_t n,
                 const struct tiered_merged *merged, struct tiered_error *err);

#endif
