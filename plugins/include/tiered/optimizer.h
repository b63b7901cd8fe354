/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Server optimizers: turn the aggregated delta into the step that the model takes.
 * They chain after any aggregator, and after each other: x' = x + step.
 *
 * A round:   begin   ( step(tile) )*
 *
 * The plugin's vectors (momentum, second moment) are slots: the host allocates one
 * value of each per parameter, starts them at slot_initial, saves them with the round's
 * commit and gives them back with each tile. Only tensors of role parameter and of a
 * float dtype are stepped; running statistics and integers take the aggregated value as
 * it is.
 */
#ifndef TIERED_OPTIMIZER_H
#define TIERED_OPTIMIZER_H

#include "plugin.h"

#define TIERED_MAX_SLOTS 4

struct tiered_optimizer_ops {
    size_t size;
    uint32_t n_slots; /* at most TIERED_MAX_SLOTS */
    const char *const *slot_names;

    int (*init)(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err);
    void (*destroy)(void *state);
    /** `step` is the number of this step, from 1; it is saved with the slots. Fill
        ret_slot_initial (n_slots values) when step is 1. */
    int (*begin)(void *state, uint64_t step, double *ret_slot_initial,
                 struct tiered_error *err);
    /** In place: delta[n] is the aggregated delta and becomes the step. x[n] is the
       model before it. slots[k][n] are read and updated. Tiles may run at once. */
    void (*step)(const void *state, size_t n, const double *x, double *delta,
                 double *const *slots);
};

#endif
