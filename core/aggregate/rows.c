/* SPDX-License-Identifier: Apache-2.0 */
/* Rows: reading, screening, and which rule a block falls under. */
#include "core/aggregate/internal.h"

#include <inttypes.h>
#include <math.h>

#include "core/model/numeric.h"

enum tiered_dtype tiered_strategy_row_dtype(const struct strategy_work *work,
                                            enum tiered_dtype dtype)
{
    return work->run->rows_are_deltas ? tiered_delta_dtype(dtype) : dtype;
}

static int fail_nonfinite(const struct tiered_layout *layout,
                          const struct tiered_block *block, uint64_t element,
                          const void *data, const char *node, struct tiered_error *err)
{
    double value;
    tiered_to_f64(block->dtype, data, 1, &value);
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

static int screen(const struct tiered_layout *layout, const struct tiered_block *block,
                  uint64_t at, size_t n, const void *data, const char *node,
                  struct tiered_error *err)
{
    size_t bad = tiered_first_nonfinite(block->dtype, data, n);
    if (bad == n) {
        return 0;
    }
    const uint8_t *value =
        (const uint8_t *)data + bad * tiered_dtype_size(block->dtype);
    return fail_nonfinite(layout, block, at + bad, value, node, err);
}

int tiered_strategy_screen(const struct strategy_work *work, size_t row,
                           const struct tiered_block *block, uint64_t at, size_t n,
                           const void *data, struct tiered_error *err)
{
    return work->run->allow_bad ? 0
                                : screen(work->layout, block, at, n, data,
                                         work->run->rows[row].contribution.node, err);
}

const uint8_t *tiered_strategy_lent(const struct strategy_work *work, size_t row,
                                    uint32_t block)
{
    const struct tiered_row *r = &work->run->rows[row];
    return r->borrow ? r->borrow(r->source, block) : NULL;
}

const void *tiered_strategy_borrow(const struct strategy_work *work, size_t row,
                                   uint32_t index, void *raw, struct tiered_error *err)
{
    const struct tiered_block *block = &work->layout->blocks[index];
    const struct tiered_row *r = &work->run->rows[row];
    const void *data = tiered_strategy_lent(work, row, index);
    if (!data) {
        if (r->read(r->source, index, raw, err) != 0) {
            return NULL;
        }
        data = raw;
    }
    size_t n = (size_t)block->n_elements;
    return tiered_strategy_screen(work, row, block, 0, n, data, err) == 0 ? data : NULL;
}

int tiered_strategy_read(const struct strategy_work *work, size_t row, uint32_t index,
                         void *out, struct tiered_error *err)
{
    const void *data = tiered_strategy_borrow(work, row, index, out, err);
    if (data && data != out) {
        memcpy(out, data, (size_t)work->layout->blocks[index].size_bytes);
    }
    return data ? 0 : -1;
}

int tiered_strategy_read_part(const struct strategy_work *work, size_t row,
                              const struct tiered_block *block, uint64_t at, size_t n,
                              void *out, void *raw, struct tiered_error *err)
{
    const struct tiered_row *r = &work->run->rows[row];
    size_t size = tiered_dtype_size(block->dtype);
    if (n == block->n_elements) {
        return r->read(r->source, block->index, out, err);
    }
    if (r->read_part) {
        return r->read_part(r->source, block->index, at * size, n * size, out, err);
    }
    if (r->read(r->source, block->index, raw, err) != 0) {
        return -1;
    }
    memcpy(out, (const uint8_t *)raw + at * size, n * size);
    return 0;
}

int tiered_row_screen(const struct tiered_layout *layout, const struct tiered_row *row,
                      struct tiered_error *err)
{
    TIERED_FREE void *raw = malloc(TIERED_BLOCK_BYTES);
    if (!raw) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for a block");
    }
    for (uint32_t b = 0; b < layout->n_blocks; b++) {
        const struct tiered_block *block = &layout->blocks[b];
        const void *data = row->borrow ? row->borrow(row->source, b) : NULL;
        if (!data && row->read(row->source, b, raw, err) != 0) {
            return -1;
        }
        if (screen(layout, block, 0, (size_t)block->n_elements, data ? data : raw,
                   row->contribution.node, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int screen_left_out(void *user, size_t i, unsigned worker,
                           struct tiered_error *err)
{
    (void)worker;
    const struct strategy_work *work = user;
    const struct tiered_row *row = &work->run->rows[i];
    bool used = work->rule.w[i] != 0 && work->by_examples.w[i] != 0;
    return used || row->contribution.excluded
               ? 0
               : tiered_row_screen(work->layout, row, err);
}

int tiered_strategy_screen_left_out(struct strategy_work *work,
                                    struct tiered_error *err)
{
    return tiered_pool_for(work->run->pool, work->run->n_rows, screen_left_out, work,
                           err);
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

void *tiered_strategy_tiles(struct strategy_scratch *scratch, size_t bytes,
                            struct tiered_error *err)
{
    if (bytes > scratch->tiles_bytes) {
        free(scratch->tiles);
        scratch->tiles_bytes = 0;
        bytes = (bytes + TIERED_ALIGN - 1) / TIERED_ALIGN * TIERED_ALIGN;
        scratch->tiles = aligned_alloc(TIERED_ALIGN, bytes);
        if (!scratch->tiles) {
            tiered_fail(err, TIERED_ENOMEM, "no memory for a worker's tiles");
            return NULL;
        }
        scratch->tiles_bytes = bytes;
    }
    return scratch->tiles;
}

int tiered_strategy_cancelled(const struct strategy_work *work,
                              struct tiered_error *err)
{
    return atomic_load(&work->strategy->hosting->cancel)
               ? tiered_fail(err, TIERED_ECANCELED, "aggregation was cancelled")
               : 0;
}
