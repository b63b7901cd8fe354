/* SPDX-License-Identifier: Apache-2.0 */
/* The weighted sum of the rows, block by block, each block by one worker in child
   order. */
#include "core/aggregate/internal.h"

#include "core/model/numeric.h"

/** sum (+)= w * row, through a tile that stays in the first cache. The first row is
    stored, not added to 0, so that -0 survives. */
static void add_row(const uint8_t *raw, enum tiered_dtype dtype, uint64_t n_elements,
                    double w, bool first, double *sum, double *tile)
{
    size_t size = tiered_dtype_size(dtype);
    for (uint64_t at = 0; at < n_elements; at += STRATEGY_CHUNK) {
        uint64_t left = n_elements - at;
        size_t n = left < STRATEGY_CHUNK ? (size_t)left : STRATEGY_CHUNK;
        double *to = sum + at;
        tiered_to_f64(dtype, raw + at * size, n, tile);
        if (first) {
            for (size_t i = 0; i < n; i++) {
                to[i] = w * tile[i];
            }
        } else {
            for (size_t i = 0; i < n; i++) {
                to[i] += w * tile[i];
            }
        }
    }
}

static int sum_rows(struct strategy_work *work, const struct tiered_block *block,
                    const struct strategy_weights *weights, struct strategy_scratch *s,
                    struct tiered_error *err)
{
    enum tiered_dtype dtype = tiered_strategy_row_dtype(work, block->dtype);
    bool first = true;
    for (size_t i = 0; i < work->run->n_rows; i++) {
        if (weights->w[i] == 0) {
            continue;
        }
        if (tiered_strategy_read(work, i, block->index, s->raw, err) != 0) {
            return -1;
        }
        add_row(s->raw, dtype, block->n_elements, weights->w[i], first, s->sum,
                s->tile);
        first = false;
    }
    if (first) {
        memset(s->sum, 0, block->n_elements * sizeof(double));
    }
    return 0;
}

/** One row with coefficient 1 and nothing else: its bytes are the result. */
static bool is_copy(const struct strategy_work *work, const struct tiered_block *block,
                    const struct strategy_weights *weights)
{
    return weights->n_active == 1 && weights->w[weights->sole] == 1 &&
           !(work->run->rows_are_deltas && work->run->base) &&
           !tiered_strategy_is_stepped(work->strategy, block);
}

static int fold_block(void *user, size_t index, unsigned worker,
                      struct tiered_error *err)
{
    struct strategy_work *work = user;
    const struct tiered_block *block = &work->layout->blocks[index];
    const struct strategy_weights *weights = tiered_strategy_weights_of(work, block);
    if (tiered_strategy_has_columns(work, block)) {
        return 0;
    }
    if (tiered_strategy_cancelled(work, err) != 0) {
        return -1;
    }
    if (is_copy(work, block, weights)) {
        return tiered_strategy_read(work, weights->sole, block->index,
                                    work->model->data + block->offset_bytes, err);
    }
    struct strategy_scratch *s = tiered_strategy_scratch(work, worker, err);
    if (!s || sum_rows(work, block, weights, s, err) != 0) {
        return -1;
    }
    for (uint64_t at = 0; at < block->n_elements; at += STRATEGY_CHUNK) {
        uint64_t left = block->n_elements - at;
        size_t n = left < STRATEGY_CHUNK ? (size_t)left : STRATEGY_CHUNK;
        if (tiered_strategy_finish(work, block, at, n, weights->rest, s->sum + at, s,
                                   err) != 0) {
            return -1;
        }
    }
    return 0;
}

int tiered_strategy_fold(struct strategy_work *work, struct tiered_error *err)
{
    return tiered_pool_for(work->run->pool, work->layout->n_blocks, fold_block, work,
                           err);
}
