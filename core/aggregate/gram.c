/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Norms and dot products of the rows' deltas, in f64, subtracted before multiplied.
 *
 * The Gram matrix is summed in segments of a block, each by one worker over tiles and
 * lanes in a fixed order; the segments' matrices are added in their order. So its bits
 * do not depend on how many workers there are, how wide their vectors, or how much of a
 * block is in memory at once.
 */
#include "core/aggregate/internal.h"

#include <math.h>

#include "core/model/numeric.h"

#define SEGMENT       2048u      /* elements; a multiple of KERNEL_TILE */
#define MATRICES      (4u << 20) /* bytes of segments' matrices at once */
#define MOST_SEGMENTS 256u

static double norm_of_block(const struct strategy_work *work,
                            const struct tiered_block *block, const uint8_t *data,
                            struct strategy_scratch *s)
{
    size_t size = tiered_dtype_size(block->dtype);
    double sum = 0;
    for (uint64_t at = 0; at < block->n_elements; at += STRATEGY_CHUNK) {
        uint64_t left = block->n_elements - at;
        size_t n = left < STRATEGY_CHUNK ? (size_t)left : STRATEGY_CHUNK;
        tiered_to_f64(block->dtype, data + at * size, n, s->tile);
        if (!work->run->rows_are_deltas) {
            tiered_to_f64(block->dtype,
                          work->run->base->data + block->offset_bytes + at * size, n,
                          s->x);
            for (size_t i = 0; i < n; i++) {
                s->tile[i] -= s->x[i];
            }
        }
        tiered_strategy_mask(work, block, at, n, s->tile);
        sum += work->kernels->square(s->tile, n);
    }
    return sum;
}

struct norms {
    struct strategy_work *work;
    double *ret;
};

static int norm_of_row(void *user, size_t row, unsigned worker,
                       struct tiered_error *err)
{
    struct norms *norms = user;
    struct strategy_work *work = norms->work;
    struct strategy_scratch *s = tiered_strategy_scratch(work, worker, err);
    if (!s) {
        return -1;
    }
    if (work->run->rows[row].contribution.excluded) {
        norms->ret[row] = INFINITY;
        return 0;
    }
    for (uint32_t b = 0; b < work->layout->n_blocks; b++) {
        const struct tiered_block *block = &work->layout->blocks[b];
        if (!tiered_strategy_is_measured(work, block)) {
            continue;
        }
        if (tiered_strategy_cancelled(work, err) != 0) {
            return -1;
        }
        const uint8_t *data = tiered_strategy_borrow(work, row, b, s->raw, err);
        if (!data) {
            return -1;
        }
        norms->ret[row] += norm_of_block(work, block, data, s);
    }
    return 0;
}

int tiered_strategy_norms(struct strategy_work *work, double *ret,
                          struct tiered_error *err)
{
    struct norms norms = {work, ret};
    return tiered_pool_for(work->run->pool, work->run->n_rows, norm_of_row, &norms,
                           err);
}

/** The window at hand, and the matrices of some of its segments. */
struct gram {
    struct strategy_work *work;
    struct strategy_window window;
    size_t n, *rows;  /* included rows */
    size_t padded;    /* n to a multiple of KERNEL_ROWS: the others are zero */
    double *matrices; /* `most` of padded x padded */
    size_t most, first;
    size_t centre_row; /* STRATEGY_CENTRE_BASE: the base, or the first row */
    double *ret;
};

/** Where a row, included, stands among those. */
static size_t place_of(const struct gram *g, size_t row)
{
    size_t i = 0;
    while (i + 1 < g->n && g->rows[i] != row) {
        i++;
    }
    return i;
}

/** What deltas are centred on, at elements at .. of the window; NULL: rows are deltas
    as they are. Without a model before the round any centre gives the same distances.
 */
static const uint8_t *centre_at(const struct gram *g, size_t at)
{
    const struct tiered_strategy_run *run = g->work->run;
    const struct strategy_window *w = &g->window;
    size_t size = tiered_dtype_size(w->block->dtype);
    if (g->centre_row != STRATEGY_CENTRE_BASE) {
        return w->at_row[place_of(g, g->centre_row)] + at * size;
    }
    if (run->rows_are_deltas) {
        return NULL;
    }
    return run->base ? run->base->data + w->block->offset_bytes + (w->at + at) * size
                     : w->at_row[0] + at * size;
}

/** The tile's deltas, zeros behind them. `centre` has room for a tile. */
static void load_tile(const struct gram *g, size_t at, size_t n, double *deltas,
                      double *centre, double *row)
{
    enum tiered_dtype dtype = g->window.block->dtype;
    const uint8_t *on = centre_at(g, at);
    if (on) {
        tiered_to_f64(dtype, on, n, centre);
    }
    for (size_t i = 0; i < g->n; i++, deltas += KERNEL_TILE) {
        const uint8_t *from = g->window.at_row[i] + at * tiered_dtype_size(dtype);
        if (dtype == TIERED_F32) {
            const float *values = (const float *)from;
            bool more = at + 2 * (size_t)KERNEL_TILE <= g->window.length;
            g->work->kernels->centre(values, on ? centre : NULL, n,
                                     more ? values + KERNEL_TILE : values, deltas);
        } else {
            tiered_to_f64(dtype, from, n, row);
            for (size_t k = 0; k < n; k++) {
                deltas[k] = on ? row[k] - centre[k] : row[k];
            }
        }
        tiered_strategy_mask(g->work, g->window.block, g->window.at + at, n, deltas);
        memset(deltas + n, 0, (KERNEL_TILE - n) * sizeof(double));
    }
}

/** A square that is not finite: of a bad value, unless finite ones overflowed. */
static int screen_segment(const struct gram *g, size_t at, size_t n,
                          const double *matrix, struct tiered_error *err)
{
    const struct strategy_window *w = &g->window;
    size_t size = tiered_dtype_size(w->block->dtype);
    for (size_t i = 0; i < g->n; i++) {
        if (!isfinite(matrix[i * g->padded + i]) &&
            tiered_strategy_screen(g->work, g->rows[i], w->block, w->at + at, n,
                                   w->at_row[i] + at * size, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int multiply_segment(void *user, size_t index, unsigned worker,
                            struct tiered_error *err)
{
    struct gram *g = user;
    struct strategy_scratch *s = tiered_strategy_scratch(g->work, worker, err);
    double *deltas =
        s ? tiered_strategy_tiles(s, g->padded * KERNEL_TILE * sizeof(double), err)
          : NULL;
    if (!deltas) {
        return -1;
    }
    double *matrix = g->matrices + index * g->padded * g->padded;
    memset(matrix, 0, g->padded * g->padded * sizeof(double));
    memset(deltas + g->n * KERNEL_TILE, 0,
           (g->padded - g->n) * KERNEL_TILE * sizeof(double));
    size_t from = (g->first + index) * SEGMENT;
    size_t left = g->window.length - from, n = left < SEGMENT ? left : SEGMENT;
    for (size_t at = 0; at < n; at += KERNEL_TILE) {
        size_t tile = n - at < KERNEL_TILE ? n - at : KERNEL_TILE;
        load_tile(g, from + at, tile, deltas, s->x, s->tile);
        g->work->kernels->products(deltas, g->padded, matrix);
    }
    return screen_segment(g, from, n, matrix, err);
}

/** The matrices to the result's lower triangle, a row of it by one worker. */
static int add_row(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    (void)worker, (void)err;
    const struct gram *g = user;
    double *to = g->ret + g->rows[i] * g->work->run->n_rows;
    size_t left = (g->window.length + SEGMENT - 1) / SEGMENT - g->first;
    for (size_t m = 0; m < g->most && m < left; m++) {
        const double *from = g->matrices + (m * g->padded + i) * g->padded;
        for (size_t j = 0; j <= i; j++) {
            to[g->rows[j]] += from[j];
        }
    }
    return 0;
}

static int add_window(struct gram *g, struct tiered_error *err)
{
    struct tiered_pool *pool = g->work->run->pool;
    size_t segments = (g->window.length + SEGMENT - 1) / SEGMENT;
    for (g->first = 0; g->first < segments; g->first += g->most) {
        size_t n = segments - g->first < g->most ? segments - g->first : g->most;
        if (tiered_strategy_cancelled(g->work, err) != 0 ||
            tiered_pool_for(pool, n, multiply_segment, g, err) != 0) {
            return -1;
        }
        /* Few rows are added sooner than helpers come. */
        tiered_pool_for(g->n > 64 ? pool : NULL, g->n, add_row, g, err);
    }
    return 0;
}

/** Mirror the lower triangle; an excluded row is infinitely far from every other, and
    so is one that overflows. */
static void complete(const struct strategy_work *work, double *gram)
{
    size_t n = work->run->n_rows;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            gram[j * n + i] = gram[i * n + j];
        }
        if (work->run->rows[i].contribution.excluded) {
            gram[i * n + i] = INFINITY;
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n && !isfinite(gram[i * n + i]); j++) {
            gram[i * n + j] = gram[j * n + i] = i == j ? INFINITY : 0;
        }
    }
}

static int gram_blocks(struct gram *g, struct tiered_error *err)
{
    const struct tiered_layout *layout = g->work->layout;
    int more = tiered_strategy_window_init(&g->window, g->work, g->rows, g->n, err);
    for (uint32_t b = 0; more == 0 && b < layout->n_blocks; b++) {
        if (!tiered_strategy_is_measured(g->work, &layout->blocks[b])) {
            continue;
        }
        more =
            tiered_strategy_window_begin(&g->window, &layout->blocks[b], SEGMENT, err);
        while (more == 0 && (more = tiered_strategy_window_next(&g->window, err)) > 0) {
            more = add_window(g, err);
        }
    }
    tiered_strategy_window_finish(&g->window);
    return more;
}

int tiered_strategy_gram(struct strategy_work *work, size_t centre_row, double *ret,
                         struct tiered_error *err)
{
    size_t n_rows = work->run->n_rows;
    TIERED_FREE size_t *rows = calloc(n_rows, sizeof(rows[0]));
    struct gram g = {.work = work, .rows = rows, .ret = ret, .centre_row = centre_row};
    for (size_t i = 0; rows && i < n_rows; i++) {
        if (!work->run->rows[i].contribution.excluded) {
            rows[g.n++] = i;
        }
    }
    g.padded = (g.n + KERNEL_ROWS - 1) / KERNEL_ROWS * KERNEL_ROWS;
    size_t matrix = g.padded * g.padded * sizeof(double);
    g.most = matrix ? MATRICES / matrix : 1;
    g.most = g.most < 4 ? 4 : g.most < MOST_SEGMENTS ? g.most : MOST_SEGMENTS;
    TIERED_FREE double *matrices = malloc(g.most * matrix + sizeof(double));
    if (!rows || !matrices) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "no memory for the distances of %zu updates", n_rows);
    }
    g.matrices = matrices;
    if (g.n && gram_blocks(&g, err) != 0) {
        return -1;
    }
    complete(work, ret);
    return 0;
}
