/* SPDX-License-Identifier: Apache-2.0 */
/* Rows: reading, screening, and which rule a block falls under. */
#include "core/aggregate/internal.h"

#include <inttypes.h>
#include <math.h>

#include "core/model/numeric.h"

enum tiered_dtype tiered_strategy_row_dtype(const struct strategy_work *work,
                                            enum tiered_dtype dtype)
{
    if (work->run->rows_are_deltas) {
        switch (dtype) {
        case TIERED_U16:
            return TIERED_I16;
        case TIERED_U32:
            return TIERED_I32;
        case TIERED_U64:
            return TIERED_I64;
        default:
            break;
        }
    }
    return dtype;
}

static int fail_nonfinite(const struct tiered_layout *layout,
                          const struct tiered_block *block, uint64_t element,
                          const void *data, const char *node, struct tiered_error *err)
{
    double value;
    size_t size = tiered_dtype_size(block->dtype);
    tiered_to_f64(block->dtype, (const uint8_t *)data + element * size, 1, &value);
    const struct tiered_tensor *t = &layout->m.tensors[block->first_tensor];
    uint64_t index = block->first_element + element;
    while (index >= t->n_elements) {
        index -= t->n_elements;
        t++;
    }
    return tiered_fail(err, TIERED_ERANGE,
                       "'%s': tensor '%.100s' has %s at index %" PRIu64, node, t->name,
                       isnan(value) ? "NaN" : "an infinite value", index);
}

static int read_screened(const struct tiered_layout *layout,
                         const struct tiered_row *row, uint32_t index, void *out,
                         struct tiered_error *err)
{
    const struct tiered_block *block = &layout->blocks[index];
    if (row->read(row->source, index, out, err) != 0) {
        return -1;
    }
    size_t n = (size_t)block->n_elements;
    size_t bad = tiered_first_nonfinite(block->dtype, out, n);
    return bad == n
               ? 0
               : fail_nonfinite(layout, block, bad, out, row->contribution.node, err);
}

int tiered_strategy_read(const struct strategy_work *work, size_t row, uint32_t block,
                         void *out, struct tiered_error *err)
{
    const struct tiered_row *r = &work->run->rows[row];
    return work->run->allow_bad ? r->read(r->source, block, out, err)
                                : read_screened(work->layout, r, block, out, err);
}

int tiered_row_screen(const struct tiered_layout *layout, const struct tiered_row *row,
                      struct tiered_error *err)
{
    TIERED_FREE void *raw = malloc(TIERED_BLOCK_BYTES);
    if (!raw) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for a block");
    }
    for (uint32_t b = 0; b < layout->n_blocks; b++) {
        if (read_screened(layout, row, b, raw, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static bool acts_on(const struct strategy_work *work, const struct tiered_block *block)
{
    return work->strategy->ops.acts_on & TIERED_ROLE_BIT(block->role);
}

bool tiered_strategy_has_columns(const struct strategy_work *work,
                                 const struct tiered_block *block)
{
    const struct tiered_aggregator_ops *ops = &work->strategy->ops;
    return acts_on(work, block) && (ops->columns_f32 || ops->columns_f64);
}

bool tiered_strategy_is_stepped(const struct tiered_strategy *strategy,
                                const struct tiered_block *block)
{
    return strategy->n_optimizers && block->role == TIERED_PARAMETER &&
           tiered_dtype_is_float(block->dtype);
}

const struct strategy_weights *
tiered_strategy_weights_of(const struct strategy_work *work,
                           const struct tiered_block *block)
{
    return acts_on(work, block) ? &work->rule : &work->by_examples;
}

size_t tiered_strategy_tile(const struct strategy_work *work, size_t n_rows,
                            size_t element_bytes)
{
    uint64_t memory = work->run->tile_memory;
    uint64_t n = (memory ? memory : STRATEGY_TILE_MEMORY) / n_rows / element_bytes;
    n = n / 64 * 64;
    if (n < 64) {
        n = 64;
    }
    return n < TIERED_BLOCK_BYTES ? (size_t)n : TIERED_BLOCK_BYTES;
}

struct strategy_scratch *tiered_strategy_scratch(struct strategy_work *work,
                                                 unsigned worker,
                                                 struct tiered_error *err)
{
    struct strategy_scratch **s = &work->scratch[worker];
    if (!*s) {
        *s = calloc(1, sizeof(**s));
        if (*s) {
            (*s)->raw = malloc(TIERED_BLOCK_BYTES);
            (*s)->sum = malloc(TIERED_BLOCK_BYTES * sizeof(double));
            (*s)->row_at = calloc(work->run->n_rows + 1, sizeof((*s)->row_at[0]));
        }
    }
    if (!*s || !(*s)->raw || !(*s)->sum || !(*s)->row_at) {
        tiered_fail(err, TIERED_ENOMEM, "no memory for a worker's tiles");
        return NULL;
    }
    return *s;
}

int tiered_strategy_cancelled(const struct strategy_work *work,
                              struct tiered_error *err)
{
    return atomic_load(&work->strategy->hosting->cancel)
               ? tiered_fail(err, TIERED_ECANCELED, "aggregation was cancelled")
               : 0;
}
