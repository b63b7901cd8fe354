/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All rows of a stretch of a block at once. Rows that are lent cost no memory. The
 * others are read in parallel into a tile; where they can be read in parts the tile is
 * small enough for the caches, else as large as allowed, since a part that is left is
 * read again.
 */
#include "core/aggregate/internal.h"

/* Rows a power of two apart would share a few sets of the caches. */
#define ROW_PADDING 320u
#define NEAR_BYTES  (8ull << 20)

int tiered_strategy_window_init(struct strategy_window *w, struct strategy_work *work,
                                const size_t *rows, size_t n, struct tiered_error *err)
{
    *w = (struct strategy_window){.work = work, .rows = rows, .n = n};
    w->at_row = calloc(n + 1, sizeof(w->at_row[0]));
    w->lent = calloc(n + 1, sizeof(w->lent[0]));
    w->slots = calloc(n + 1, sizeof(w->slots[0]));
    return w->at_row && w->lent && w->slots
               ? 0
               : tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates", n);
}

void tiered_strategy_window_finish(struct strategy_window *w)
{
    free(w->at_row);
    free(w->lent);
    free(w->slots);
    free(w->tile);
    *w = (struct strategy_window){0};
}

/** Elements of a row in the tile: a multiple of unit, one at least. */
static size_t fit(const struct strategy_window *w, size_t unit, bool in_parts)
{
    size_t size = tiered_dtype_size(w->block->dtype);
    uint64_t n = tiered_strategy_tile(w->work, w->n_read, size);
    uint64_t near = NEAR_BYTES / w->n_read / size;
    uint64_t all = (w->block->n_elements + unit - 1) / unit * unit;
    n = in_parts && near < n ? near : n;
    n = n < unit ? unit : n / unit * unit;
    return (size_t)(n < all ? n : all);
}

static int grow(struct strategy_window *w, struct tiered_error *err)
{
    size_t bytes = w->capacity * tiered_dtype_size(w->block->dtype);
    w->stride = (bytes + TIERED_ALIGN - 1) / TIERED_ALIGN * TIERED_ALIGN + ROW_PADDING;
    uint64_t all;
    if (!tiered_mul(w->n_read, w->stride, &all) || all > SIZE_MAX / 2) {
        return tiered_fail(err, TIERED_ENOMEM, "too many updates: %zu", w->n_read);
    }
    if (all > w->tile_bytes) {
        free(w->tile);
        w->tile_bytes = 0;
        w->tile = aligned_alloc(TIERED_ALIGN, (size_t)all);
        if (!w->tile) {
            return tiered_fail(err, TIERED_ENOMEM,
                               "no memory for a tile of %zu updates", w->n_read);
        }
        w->tile_bytes = (size_t)all;
    }
    return 0;
}

int tiered_strategy_window_begin(struct strategy_window *w,
                                 const struct tiered_block *block, size_t unit,
                                 struct tiered_error *err)
{
    bool in_parts = true;
    w->block = block;
    w->n_read = 0;
    w->at = 0;
    w->length = 0;
    for (size_t i = 0; i < w->n; i++) {
        w->lent[i] = tiered_strategy_lent(w->work, w->rows[i], block->index);
        if (!w->lent[i]) {
            w->slots[w->n_read++] = i;
            in_parts = in_parts && w->work->run->rows[w->rows[i]].read_part;
        }
    }
    w->capacity = (size_t)block->n_elements;
    if (w->n_read == 0) {
        return 0;
    }
    w->capacity = fit(w, unit, in_parts);
    return grow(w, err);
}

static int read_row(void *user, size_t slot, unsigned worker, struct tiered_error *err)
{
    struct strategy_window *w = user;
    struct strategy_scratch *s = tiered_strategy_scratch(w->work, worker, err);
    uint8_t *to = w->tile + slot * w->stride;
    size_t i = w->slots[slot];
    w->at_row[i] = to;
    return s ? tiered_strategy_read_part(w->work, w->rows[i], w->block, w->at,
                                         w->length, to, s->raw, err)
             : -1;
}

int tiered_strategy_window_next(struct strategy_window *w, struct tiered_error *err)
{
    w->at += w->length;
    if (w->at >= w->block->n_elements) {
        return 0;
    }
    uint64_t left = w->block->n_elements - w->at;
    w->length = left < w->capacity ? (size_t)left : w->capacity;
    for (size_t i = 0; i < w->n; i++) {
        if (w->lent[i]) {
            w->at_row[i] = w->lent[i] + w->at * tiered_dtype_size(w->block->dtype);
        }
    }
    if (tiered_strategy_cancelled(w->work, err) != 0 ||
        tiered_pool_for(w->work->run->pool, w->n_read, read_row, w, err) != 0) {
        return -1;
    }
    return 1;
}
