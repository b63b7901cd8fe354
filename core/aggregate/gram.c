/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Norms and dot products of the rows' deltas, in f64, subtracted before multiplied.
 *
 * Each entry is summed by one worker over blocks, tiles and lanes in a fixed order, so
 * its bits do not depend on how many workers there are.
 */
#include "core/aggregate/internal.h"

#include <math.h>

#include "core/model/numeric.h"

#define DOT_TILE  2048u /* elements of a row that stay in the first cache */
#define DOT_ROWS  8u    /* rows that one worker holds against all the others */
#define DOT_LANES 8u

static double dot(const double *a, const double *b, size_t n)
{
    double lanes[DOT_LANES] = {0};
    size_t i = 0;
    for (; i + DOT_LANES <= n; i += DOT_LANES) {
        for (size_t l = 0; l < DOT_LANES; l++) {
            lanes[l] += a[i + l] * b[i + l];
        }
    }
    for (; i < n; i++) {
        lanes[i % DOT_LANES] += a[i] * b[i];
    }
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static double norm_of_block(const struct strategy_work *work,
                            const struct tiered_block *block,
                            struct strategy_scratch *s)
{
    size_t size = tiered_dtype_size(block->dtype);
    double sum = 0;
    for (uint64_t at = 0; at < block->n_elements; at += STRATEGY_CHUNK) {
        uint64_t left = block->n_elements - at;
        size_t n = left < STRATEGY_CHUNK ? (size_t)left : STRATEGY_CHUNK;
        tiered_to_f64(block->dtype, s->raw + at * size, n, s->tile);
        if (!work->run->rows_are_deltas) {
            tiered_to_f64(block->dtype,
                          work->run->base->data + block->offset_bytes + at * size, n,
                          s->x);
            for (size_t i = 0; i < n; i++) {
                s->tile[i] -= s->x[i];
            }
        }
        tiered_strategy_mask(work, block, at, n, s->tile);
        sum += dot(s->tile, s->tile, n);
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
        if (tiered_strategy_cancelled(work, err) != 0 ||
            tiered_strategy_read(work, row, b, s->raw, err) != 0) {
            return -1;
        }
        norms->ret[row] += norm_of_block(work, block, s);
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

/** The tile at hand: deltas of the included rows, f64. */
struct gram {
    struct strategy_work *work;
    size_t n, *rows; /* included rows */
    double *deltas;  /* n x capacity */
    size_t capacity;
    double *centre;    /* capacity values; NULL when rows are deltas as they are */
    size_t centre_row; /* STRATEGY_CENTRE_BASE: the base, or the first row */
    const struct tiered_block *block;
    uint64_t at;
    size_t length;
    double *ret;
};

static void load_tile(const struct gram *g, const uint8_t *block_data, double *out)
{
    size_t size = tiered_dtype_size(g->block->dtype);
    tiered_to_f64(g->block->dtype, block_data + g->at * size, g->length, out);
}

static int load_row(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    struct gram *g = user;
    struct strategy_scratch *s = tiered_strategy_scratch(g->work, worker, err);
    if (!s ||
        tiered_strategy_read(g->work, g->rows[i], g->block->index, s->raw, err) != 0) {
        return -1;
    }
    double *deltas = g->deltas + i * g->capacity;
    load_tile(g, s->raw, deltas);
    for (size_t k = 0; g->centre && k < g->length; k++) {
        deltas[k] -= g->centre[k];
    }
    tiered_strategy_mask(g->work, g->block, g->at, g->length, deltas);
    return 0;
}

/** Without a model before the round any centre gives the same distances. */
static int load_centre(struct gram *g, struct tiered_error *err)
{
    const struct tiered_strategy_run *run = g->work->run;
    if (!g->centre) {
        return 0;
    }
    if (run->base && g->centre_row == STRATEGY_CENTRE_BASE) {
        load_tile(g, run->base->data + g->block->offset_bytes, g->centre);
        return 0;
    }
    size_t row = g->centre_row == STRATEGY_CENTRE_BASE ? g->rows[0] : g->centre_row;
    struct strategy_scratch *s = tiered_strategy_scratch(g->work, 0, err);
    if (!s || tiered_strategy_read(g->work, row, g->block->index, s->raw, err) != 0) {
        return -1;
    }
    load_tile(g, s->raw, g->centre);
    return 0;
}

/** Rows group * DOT_ROWS … against all rows up to themselves. */
static int multiply_rows(void *user, size_t group, unsigned worker,
                         struct tiered_error *err)
{
    (void)worker, (void)err;
    struct gram *g = user;
    size_t n_rows = g->work->run->n_rows;
    size_t first = group * DOT_ROWS;
    size_t end = first + DOT_ROWS < g->n ? first + DOT_ROWS : g->n;
    for (size_t at = 0; at < g->length; at += DOT_TILE) {
        size_t n = g->length - at < DOT_TILE ? g->length - at : DOT_TILE;
        for (size_t j = 0; j < end; j++) {
            const double *b = g->deltas + j * g->capacity + at;
            for (size_t i = first > j ? first : j; i < end; i++) {
                g->ret[g->rows[i] * n_rows + g->rows[j]] +=
                    dot(g->deltas + i * g->capacity + at, b, n);
            }
        }
    }
    return 0;
}

static int add_block(struct gram *g, struct tiered_error *err)
{
    struct tiered_pool *pool = g->work->run->pool;
    for (g->at = 0; g->at < g->block->n_elements; g->at += g->length) {
        uint64_t left = g->block->n_elements - g->at;
        g->length = left < g->capacity ? (size_t)left : g->capacity;
        size_t groups = (g->n + DOT_ROWS - 1) / DOT_ROWS;
        if (tiered_strategy_cancelled(g->work, err) != 0 || load_centre(g, err) != 0 ||
            tiered_pool_for(pool, g->n, load_row, g, err) != 0 ||
            tiered_pool_for(pool, groups, multiply_rows, g, err) != 0) {
            return -1;
        }
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
    g.capacity = tiered_strategy_tile(work, n_rows, sizeof(double));
    TIERED_FREE double *deltas = calloc(g.n + 1, g.capacity * sizeof(double));
    if (!rows || !deltas) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for a tile of %zu updates",
                           n_rows);
    }
    g.deltas = deltas;
    bool as_is = work->run->rows_are_deltas && centre_row == STRATEGY_CENTRE_BASE;
    g.centre = as_is ? NULL : deltas + g.n * g.capacity;
    for (uint32_t b = 0; g.n && b < work->layout->n_blocks; b++) {
        g.block = &work->layout->blocks[b];
        if (tiered_strategy_is_measured(work, g.block) && add_block(&g, err) != 0) {
            return -1;
        }
    }
    complete(work, ret);
    return 0;
}
