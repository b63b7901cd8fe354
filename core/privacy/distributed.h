/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Distributed noise: every member of a group adds Gaussian noise to its own update, and
 * who sees their sum alone sees the noise of all. Of m updates with deviation sigma
 * each, the sum has sigma * sqrt(m), and one of them still moves it by C at most.
 *
 * It counts so where the uplink is a clip of a fixed norm, the noise, and right behind
 * it the group; where the parent counts every update once; and where nothing that the
 * group does to values changes the noise's shape (distributed.c says why these are
 * enough). m is the fewest updates that the members let the group open a sum of. They
 * are told it with their assignments and hold their parent to it, for a round may ask
 * fewer than planned, and the tier's quorum is the parent's own: it is the parent that
 * must not know.
 *
 * Threads: pure functions of a plan.
 */
#ifndef TIERED_CORE_PRIVACY_DISTRIBUTED_H
#define TIERED_CORE_PRIVACY_DISTRIBUTED_H

#include "core/base/base.h"
#include "tiered/filter.h"

struct tiered_plan;

#define TIERED_DISTRIBUTED_WHY 160

struct tiered_distributed {
    uint32_t members; /* m; 0: each update counts by itself */
    /* Why it does although a group stands behind the noise; "" otherwise. */
    char why[TIERED_DISTRIBUTED_WHY];
};

/** Of the noise in a node's uplink, behind a clip of `norm` > 0. */
int tiered_distributed_of(const struct tiered_plan *plan, uint32_t node,
                          const struct tiered_noise *noise, double norm,
                          struct tiered_distributed *ret, struct tiered_error *err);

#endif
