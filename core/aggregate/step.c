/* SPDX-License-Identifier: Apache-2.0 */
/* From aggregated values to the new model: the base's share, noise, the optimizers, the
   dtype. */
#include "core/aggregate/internal.h"

#include <math.h>

#include "core/model/numeric.h"

static uint8_t *slot_at(struct strategy_work *work, const struct strategy_optimizer *o,
                        uint32_t slot, uint32_t ordinal, uint64_t element,
                        enum tiered_dtype *ret_dtype)
{
    const struct tiered_layout *layout = work->slots->layout;
    uint32_t n_stepped = work->ordinals[work->layout->m.n_tensors];
    const struct tiered_tensor *t =
        &layout->m.tensors[o->first_tensor + slot * n_stepped + ordinal];
    *ret_dtype = t->dtype;
    return work->slots->data + t->offset_bytes + element * tiered_dtype_size(t->dtype);
}

/** `delta` becomes the step, for n elements of one tensor. */
static void step_piece(struct strategy_work *work, uint32_t tensor, uint64_t element,
                       size_t n, const double *x, double *delta,
                       struct strategy_scratch *scratch)
{
    struct tiered_strategy *strategy = work->strategy;
    for (size_t o = 0; o < strategy->n_optimizers; o++) {
        const struct strategy_optimizer *opt = &strategy->optimizers[o];
        double *slots[TIERED_MAX_SLOTS];
        uint8_t *stored[TIERED_MAX_SLOTS];
        enum tiered_dtype dtype[TIERED_MAX_SLOTS];
        for (uint32_t k = 0; k < opt->ops.n_slots; k++) {
            stored[k] =
                slot_at(work, opt, k, work->ordinals[tensor], element, &dtype[k]);
            slots[k] = scratch->slots[k];
            tiered_to_f64(dtype[k], stored[k], n, slots[k]);
        }
        opt->ops.step(opt->stage.state, n, x, delta, slots);
        for (uint32_t k = 0; k < opt->ops.n_slots; k++) {
            tiered_from_f64(dtype[k], slots[k], n, stored[k]);
        }
    }
}

static void step_range(struct strategy_work *work, const struct tiered_block *block,
                       uint64_t at, size_t n, const double *x, double *delta,
                       struct strategy_scratch *scratch)
{
    const struct tiered_tensor *tensors = work->layout->m.tensors;
    uint32_t tensor = block->first_tensor;
    uint64_t element = block->first_element + at;
    for (size_t done = 0; done < n;) {
        while (element >= tensors[tensor].n_elements) {
            element -= tensors[tensor++].n_elements;
        }
        uint64_t left = tensors[tensor].n_elements - element;
        size_t piece = left < n - done ? (size_t)left : n - done;
        step_piece(work, tensor, element, piece, x + done, delta + done, scratch);
        element += piece;
        done += piece;
    }
}

/** Coefficients are rounded quotients: a sum this near to a half is meant as one, and
    must round to even like one. */
static void snap_halves(double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double half = rint(2 * values[i]) / 2;
        if (fabs(values[i] - half) <= 1e-12 * (1 + fabs(half))) {
            values[i] = half;
        }
    }
}

int tiered_strategy_finish(struct strategy_work *work, const struct tiered_block *block,
                           uint64_t at, size_t n, double rest, double *values,
                           struct strategy_scratch *scratch, struct tiered_error *err)
{
    const struct tiered_strategy_run *run = work->run;
    uint64_t offset = block->offset_bytes + at * tiered_dtype_size(block->dtype);
    bool stepped = tiered_strategy_is_stepped(work->strategy, block);
    bool shrinks = rest != 0 && !run->rows_are_deltas;
    bool from_delta = run->rows_are_deltas && run->base;
    double *x = scratch->x;
    if (stepped || shrinks || from_delta) {
        tiered_to_f64(block->dtype, run->base->data + offset, n, x);
    }
    for (size_t i = 0; shrinks && i < n; i++) {
        values[i] += rest * x[i];
    }
    for (size_t i = 0; stepped && !run->rows_are_deltas && i < n; i++) {
        values[i] -= x[i];
    }
    if (tiered_strategy_noise_add(work, block, at, n, values, err) != 0) {
        return -1;
    }
    if (stepped) {
        step_range(work, block, at, n, x, values, scratch);
    }
    for (size_t i = 0; (stepped || from_delta) && i < n; i++) {
        values[i] += x[i];
    }
    if (!tiered_dtype_is_float(block->dtype)) {
        snap_halves(values, n);
    }
    /* Without a base a delta stays one, in the dtype that deltas have. */
    enum tiered_dtype dtype =
        from_delta ? block->dtype : tiered_strategy_row_dtype(work, block->dtype);
    tiered_from_f64(dtype, values, n, work->model->data + offset);
    return 0;
}
