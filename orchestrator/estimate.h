/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a plan will cost, as far as it can be known before a run: bytes before filters,
 * and memory.
 */
#ifndef TIERED_ORCHESTRATOR_ESTIMATE_H
#define TIERED_ORCHESTRATOR_ESTIMATE_H

#include "core/plan/plan.h"

/** The model's bytes, from run.model or from the first leaf's trainer (asked for its
    shape alone). -1 with *err when neither can tell. */
int estimate_model(const struct tiered_plan *plan, uint64_t *ret_bytes,
                   struct tiered_error *err);

/** Of one node, in one round of its parent (of the run, at the root). */
struct node_estimate {
    uint64_t up_bytes, down_bytes; /* over its own link; 0 at the root */
    uint64_t from_children_bytes;  /* received from its children, all its rounds */
    uint64_t memory_bytes;         /* of an inner node, at most; 0 at a leaf */
};
struct node_estimate estimate_node(const struct tiered_plan *plan, uint32_t node,
                                   uint64_t model_bytes);

#endif
