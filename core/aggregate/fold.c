/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The weighted sum of the rows, each value's products added in child order.
 *
 * Where every row can be lent or read in parts, a job is a piece of a block: it passes
 * all rows through a tile of sums that stays in the first cache. Otherwise a job is a
 * block, whose rows are read one after the other.
 *
 * Rows are screened by their sum: a coefficient is not zero, so what is not finite
 * makes the sum so too, and only then are the rows themselves looked at.
 */
#include "core/aggregate/internal.h"

#include <math.h>

#include "core/model/numeric.h"

#define PIECE     65536u                       /* elements of one job */
#define PIECES    (TIERED_BLOCK_BYTES / PIECE) /* most of a block */
#define LENT_TILE 2048u
#define LIMIT     0x1.ffffffp127 /* what is not below rounds to an infinite float */
#define READ_TILE 16384u         /* so that a read is worth its call */

struct fold {
    struct strategy_work *work;
    const struct tiered_block *block;
    const struct strategy_weights *weights;
    struct strategy_scratch *scratch;
    uint64_t at; /* the stretch that is summed */
    size_t n;
};

/** sum (+)= w * row for a dtype that is converted first. */
static void add_converted(const struct fold *f, const uint8_t *row, double w,
                          bool first)
{
    enum tiered_dtype dtype = tiered_strategy_row_dtype(f->work, f->block->dtype);
    size_t size = tiered_dtype_size(dtype);
    for (size_t at = 0; at < f->n; at += STRATEGY_CHUNK) {
        size_t n = f->n - at < STRATEGY_CHUNK ? f->n - at : STRATEGY_CHUNK;
        tiered_to_f64(dtype, row + at * size, n, f->scratch->tile);
        f->work->kernels->add_row(f->scratch->tile, w, n, first, f->scratch->sum + at);
    }
}

static void add_rows(const struct fold *f, const uint8_t *const *rows, const double *w,
                     size_t n_rows, bool first, const uint8_t *const *next)
{
    if (f->block->dtype == TIERED_F32) {
        f->work->kernels->add_rows((const float *const *)rows, w, n_rows, f->n, first,
                                   (const float *const *)next, f->scratch->sum);
        return;
    }
    for (size_t i = 0; i < n_rows; i++) {
        add_converted(f, rows[i], w[i], first && i == 0);
    }
}

/** Where the stretch of the k-th active row lies: lent, or read into the scratch's
    place `slot`. */
static const uint8_t *stretch_of(const struct fold *f, size_t k, size_t slot,
                                 struct tiered_error *err)
{
    size_t size = tiered_dtype_size(f->block->dtype);
    const uint8_t *lent = f->scratch->row_at[k];
    if (lent) {
        return lent + f->at * size;
    }
    uint8_t *to = f->scratch->raw + slot * READ_TILE * size;
    const struct tiered_row *r = &f->work->run->rows[f->weights->active[k]];
    return r->read_part(r->source, f->block->index, f->at * size, f->n * size, to,
                        err) == 0
               ? to
               : NULL;
}

/** What follows the k-th row: the next row's stretch, after the last one the first
    one's next stretch. Only asked for, so it may be past a block's end. */
static const uint8_t *hint_of(const struct fold *f, size_t k, const uint8_t *fallback)
{
    size_t n = f->weights->n_active;
    const uint8_t *lent = f->scratch->row_at[k % n];
    uint64_t at = f->at + (k < n ? 0 : f->n);
    return lent && at < f->block->n_elements
               ? lent + at * tiered_dtype_size(f->block->dtype)
               : fallback;
}

static int sum_stretch(const struct fold *f, struct tiered_error *err)
{
    const struct strategy_weights *weights = f->weights;
    for (size_t k = 0; k < weights->n_active; k += KERNEL_SUM) {
        const uint8_t *rows[KERNEL_SUM], *next[KERNEL_SUM];
        double w[KERNEL_SUM];
        size_t left = weights->n_active - k, n = left < KERNEL_SUM ? left : KERNEL_SUM;
        for (size_t i = 0; i < n; i++) {
            w[i] = weights->w[weights->active[k + i]];
            rows[i] = stretch_of(f, k + i, i, err);
            if (!rows[i]) {
                return -1;
            }
            next[i] = hint_of(f, k + i + KERNEL_SUM, rows[i]);
        }
        add_rows(f, rows, w, n, k == 0, next);
    }
    if (weights->n_active == 0) {
        memset(f->scratch->sum, 0, f->n * sizeof(double));
    }
    return 0;
}

/** After a sum that is not finite: the row that made it so. There is none when finite
    values overflowed. */
static int find_bad(const struct fold *f, struct tiered_error *err)
{
    for (size_t k = 0; k < f->weights->n_active; k++) {
        const uint8_t *row = stretch_of(f, k, 0, err);
        if (!row || tiered_strategy_screen(f->work, f->weights->active[k], f->block,
                                           f->at, f->n, row, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/** `fits`: no sum is infinite as a float. Others are noted on the way. */
static int finish(const struct fold *f, bool fits, struct tiered_error *err)
{
    if (fits && f->block->dtype == TIERED_F32 &&
        tiered_strategy_is_plain(f->work, f->block, f->weights->rest)) {
        float *out = (float *)(f->work->model->data + f->block->offset_bytes);
        f->work->kernels->store(f->scratch->sum, f->n, out + f->at);
        return 0;
    }
    for (size_t at = 0; at < f->n; at += STRATEGY_CHUNK) {
        size_t n = f->n - at < STRATEGY_CHUNK ? f->n - at : STRATEGY_CHUNK;
        if (tiered_strategy_finish(f->work, f->block, f->at + at, n, f->weights->rest,
                                   f->scratch->sum + at, f->scratch, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int fold_piece(struct fold *f, size_t piece, size_t tile,
                      struct tiered_error *err)
{
    uint64_t from = (uint64_t)piece * PIECE, end = from + PIECE;
    end = end < f->block->n_elements ? end : f->block->n_elements;
    for (f->at = from; f->at < end; f->at += f->n) {
        f->n = end - f->at < tile ? (size_t)(end - f->at) : tile;
        if (sum_stretch(f, err) != 0) {
            return -1;
        }
        double limit = f->block->dtype == TIERED_F32 ? LIMIT : INFINITY;
        bool fits = f->work->run->allow_bad ||
                    f->work->kernels->all_below(f->scratch->sum, f->n, limit);
        if ((!fits && find_bad(f, err) != 0) || finish(f, fits, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int fold_whole(struct fold *f, struct tiered_error *err)
{
    const struct strategy_weights *weights = f->weights;
    f->at = 0;
    f->n = (size_t)f->block->n_elements;
    for (size_t k = 0; k < weights->n_active; k++) {
        size_t row = weights->active[k];
        const uint8_t *data =
            tiered_strategy_borrow(f->work, row, f->block->index, f->scratch->raw, err);
        if (!data) {
            return -1;
        }
        add_rows(f, &data, &weights->w[row], 1, k == 0, &data);
    }
    return finish(f, false, err);
}

/** Which rows are lent, and the tile to sum by: 0 when the block must be folded whole.
 */
static size_t prepare(const struct fold *f)
{
    size_t tile = LENT_TILE;
    for (size_t k = 0; k < f->weights->n_active; k++) {
        size_t row = f->weights->active[k];
        f->scratch->row_at[k] = tiered_strategy_lent(f->work, row, f->block->index);
        if (f->scratch->row_at[k]) {
            continue;
        }
        if (!f->work->run->rows[row].read_part) {
            return 0;
        }
        tile = READ_TILE;
    }
    return tile;
}

/** One row with coefficient 1 and nothing else: its bytes are the result. */
static bool is_copy(const struct strategy_work *work, const struct tiered_block *block,
                    const struct strategy_weights *weights)
{
    return weights->n_active == 1 && weights->w[weights->active[0]] == 1 &&
           tiered_strategy_is_plain(work, block, weights->rest);
}

static int fold_job(void *user, size_t index, unsigned worker, struct tiered_error *err)
{
    struct strategy_work *work = user;
    const struct tiered_block *block = &work->layout->blocks[index / PIECES];
    size_t piece = index % PIECES;
    struct fold f = {.work = work,
                     .block = block,
                     .weights = tiered_strategy_weights_of(work, block)};
    if (tiered_strategy_has_columns(work, block) ||
        (uint64_t)piece * PIECE >= block->n_elements) {
        return 0;
    }
    if (tiered_strategy_cancelled(work, err) != 0) {
        return -1;
    }
    if (is_copy(work, block, f.weights)) {
        return piece
                   ? 0
                   : tiered_strategy_read(work, f.weights->active[0], block->index,
                                          work->model->data + block->offset_bytes, err);
    }
    f.scratch = tiered_strategy_scratch(work, worker, err);
    if (!f.scratch) {
        return -1;
    }
    size_t tile = prepare(&f);
    return tile         ? fold_piece(&f, piece, tile, err)
           : piece == 0 ? fold_whole(&f, err)
                        : 0;
}

int tiered_strategy_fold(struct strategy_work *work, struct tiered_error *err)
{
    return tiered_pool_for(work->run->pool, (size_t)work->layout->n_blocks * PIECES,
                           fold_job, work, err);
}
