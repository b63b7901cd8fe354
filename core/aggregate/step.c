/* SPDX-License-Identifier: Apache-2.0 */
/* From aggregated values to the new model: the base's share, noise, the optimizers, the
   dtype. */
#include "core/aggregate/internal.h"

#include <inttypes.h>
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

/** Note the first of n stored values that is not finite, if it is the worker's first.
    Finite rows can lead there: a sum, a rate or a square may not fit the dtype. */
static void note_overflow(struct strategy_work *work, struct strategy_scratch *scratch,
                          enum tiered_dtype dtype, const uint8_t *stored, size_t n,
                          struct strategy_overflow at)
{
    size_t bad = work->run->allow_bad ? n : tiered_first_nonfinite(dtype, stored, n);
    if (bad == n) {
        return;
    }
    const struct tiered_tensor *tensors = work->layout->m.tensors;
    tiered_to_f64(dtype, stored + bad * tiered_dtype_size(dtype), 1, &at.value);
    for (at.element += bad; at.element >= tensors[at.tensor].n_elements; at.tensor++) {
        at.element -= tensors[at.tensor].n_elements;
    }
    const struct strategy_overflow *first = &scratch->overflow;
    if (!first->found || at.tensor < first->tensor ||
        (at.tensor == first->tensor && at.element < first->element)) {
        at.found = true;
        scratch->overflow = at;
    }
}

int tiered_strategy_check_overflow(const struct strategy_work *work,
                                   struct tiered_error *err)
{
    const struct strategy_overflow *first = NULL;
    for (size_t i = 0; i < work->n_scratch; i++) {
        const struct strategy_overflow *o =
            work->scratch[i] ? &work->scratch[i]->overflow : NULL;
        if (o && o->found &&
            (!first || o->tensor < first->tensor ||
             (o->tensor == first->tensor && o->element < first->element))) {
            first = o;
        }
    }
    if (!first) {
        return 0;
    }
    const char *name = work->layout->m.tensors[first->tensor].name;
    const char *what = isnan(first->value) ? "NaN" : "infinite";
    if (!first->optimizer) {
        return tiered_fail(err, TIERED_ERANGE,
                           "tensor '%.100s' would be %s at index %" PRIu64, name, what,
                           first->element);
    }
    return tiered_fail(err, TIERED_ERANGE,
                       "optimizer '%s': its %s of tensor '%.100s' would be %s at "
                       "index %" PRIu64,
                       first->optimizer->stage.loaded->plugin.name,
                       first->optimizer->ops.slot_names[first->slot], name, what,
                       first->element);
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
        const uint32_t n_slots = opt->ops.n_slots;
        for (uint32_t k = 0; k < n_slots; k++) {
            stored[k] =
                slot_at(work, opt, k, work->ordinals[tensor], element, &dtype[k]);
            slots[k] = scratch->slots[k];
            tiered_to_f64(dtype[k], stored[k], n, slots[k]);
        }
        opt->ops.step(opt->stage.state, n, x, delta, slots);
        for (uint32_t k = 0; k < n_slots; k++) {
            tiered_from_f64(dtype[k], slots[k], n, stored[k]);
            const struct strategy_overflow here = {
                .tensor = tensor, .element = element, .optimizer = opt, .slot = k};
            note_overflow(work, scratch, dtype[k], stored[k], n, here);
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

bool tiered_strategy_is_plain(const struct strategy_work *work,
                              const struct tiered_block *block, double rest)
{
    const struct tiered_strategy_run *run = work->run;
    return !work->strategy->noise.ops &&
           !tiered_strategy_is_stepped(work->strategy, block) &&
           (run->rows_are_deltas ? !run->base : rest == 0);
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
    const struct strategy_overflow here = {.tensor = block->first_tensor,
                                           .element = block->first_element + at};
    note_overflow(work, scratch, dtype, work->model->data + offset, n, here);
    return 0;
}
