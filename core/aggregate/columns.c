/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules over all rows at once: one block after the other, window by window, the
 * window's chunks given to the plugin in parallel. A chunk is screened, and converted
 * where the rows' dtype is not the plugin's, just before, so that the plugin finds it
 * in the worker's cache.
 */
#include "core/aggregate/internal.h"

#include "core/model/numeric.h"

#define UNIT 64u /* elements: a whole number of the plugins' vectors */

struct columns {
    struct strategy_work *work;
    struct strategy_window window;
    size_t n; /* the rows of non-zero coefficient … */
    const size_t *rows;
    double *weights;         /* … and theirs */
    enum tiered_dtype dtype; /* that rows are read as */
    bool wide;               /* columns_f64 */
    size_t chunk;            /* elements */
};

static size_t element_bytes(const struct columns *c)
{
    return c->wide ? sizeof(double) : sizeof(float);
}

static bool is_converted(const struct columns *c)
{
    return c->dtype != (c->wide ? TIERED_F64 : TIERED_F32);
}

/** A quick look at a row's chunk: true when it is finite. */
static bool is_finite(const struct columns *c, size_t i, const uint8_t *chunk,
                      size_t at, size_t n)
{
    if (c->dtype != TIERED_F32) {
        return false;
    }
    const uint8_t *next =
        i + 1 < c->n ? c->window.at_row[i + 1] + at * sizeof(float) : chunk;
    return c->work->kernels->row_finite((const float *)chunk, n, (const float *)next);
}

/** The chunk's rows as the plugin reads them. */
static int prepare(const struct columns *c, size_t at, size_t n,
                   struct strategy_scratch *s, struct tiered_error *err)
{
    const struct strategy_window *w = &c->window;
    size_t stride = c->chunk * element_bytes(c);
    uint8_t *tiles =
        is_converted(c) ? tiered_strategy_tiles(s, c->n * stride, err) : NULL;
    if (is_converted(c) && !tiles) {
        return -1;
    }
    for (size_t i = 0; i < c->n; i++) {
        const uint8_t *from = w->at_row[i] + at * tiered_dtype_size(c->dtype);
        if (!is_finite(c, i, from, at, n) &&
            tiered_strategy_screen(c->work, c->rows[i], w->block, w->at + at, n, from,
                                   err) != 0) {
            return -1;
        }
        s->row_at[i] = tiles ? tiles + i * stride : from;
        if (tiles && c->wide) {
            tiered_to_f64(c->dtype, from, n, (double *)(tiles + i * stride));
        } else if (tiles) {
            tiered_to_f32(c->dtype, from, n, (float *)(tiles + i * stride));
        }
    }
    return 0;
}

static int call_f32(const struct columns *c, size_t n, const struct strategy_scratch *s,
                    float *out, struct tiered_error *err)
{
    return c->work->strategy->ops.columns_f32(c->work->strategy->stage.state,
                                              (const float *const *)s->row_at,
                                              c->weights, c->n, n, out, err);
}

static int call_columns(const struct columns *c, size_t n, struct strategy_scratch *s,
                        struct tiered_error *err)
{
    if (c->wide) {
        return c->work->strategy->ops.columns_f64(c->work->strategy->stage.state,
                                                  (const double *const *)s->row_at,
                                                  c->weights, c->n, n, s->out, err);
    }
    float *out = (float *)s->tile;
    if (call_f32(c, n, s, out, err) != 0) {
        return -1;
    }
    tiered_to_f64(TIERED_F32, out, n, s->out);
    return 0;
}

static int run_chunk(void *user, size_t chunk, unsigned worker,
                     struct tiered_error *err)
{
    struct columns *c = user;
    const struct strategy_window *w = &c->window;
    struct strategy_scratch *s = tiered_strategy_scratch(c->work, worker, err);
    size_t at = chunk * c->chunk;
    size_t n = w->length - at < c->chunk ? w->length - at : c->chunk;
    if (!s || prepare(c, at, n, s, err) != 0) {
        return -1;
    }
    if (c->dtype == TIERED_F32 && !c->wide &&
        tiered_strategy_is_plain(c->work, w->block, 0)) {
        float *out = (float *)(c->work->model->data + w->block->offset_bytes);
        out += w->at + at;
        if (call_f32(c, n, s, out, err) != 0) {
            return -1;
        }
        if (c->work->run->allow_bad || c->work->kernels->row_finite(out, n, out)) {
            return 0;
        }
        tiered_to_f64(TIERED_F32, out, n, s->out); /* to be noted */
    } else if (call_columns(c, n, s, err) != 0) {
        return -1;
    }
    return tiered_strategy_finish(c->work, w->block, w->at + at, n, 0, s->out, s, err);
}

/** As many elements of all rows as stay in a worker's cache. */
static size_t chunk_of(const struct columns *c)
{
    size_t n = STRATEGY_CACHE / c->n / element_bytes(c) / UNIT * UNIT;
    return n < UNIT ? UNIT : n < STRATEGY_CHUNK ? n : STRATEGY_CHUNK;
}

static int choose(struct columns *c, const struct tiered_block *block,
                  struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = &c->work->strategy->ops;
    c->dtype = tiered_strategy_row_dtype(c->work, block->dtype);
    bool narrow =
        c->dtype == TIERED_F32 || c->dtype == TIERED_F16 || c->dtype == TIERED_BF16;
    c->wide = !narrow || !ops->columns_f32;
    c->chunk = chunk_of(c);
    if (c->wide && !ops->columns_f64) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "aggregator '%s' has no columns for %s tensors",
                           c->work->strategy->stage.loaded->plugin.name,
                           tiered_dtype_name(block->dtype));
    }
    return 0;
}

static int run_block(struct columns *c, const struct tiered_block *block,
                     struct tiered_error *err)
{
    struct strategy_window *w = &c->window;
    uint32_t traits = c->work->strategy->stage.loaded->plugin.traits;
    struct tiered_pool *pool = traits & TIERED_CONCURRENT ? c->work->run->pool : NULL;
    if (choose(c, block, err) != 0 ||
        tiered_strategy_window_begin(w, block, UNIT, err) != 0) {
        return -1;
    }
    int more;
    while ((more = tiered_strategy_window_next(w, err)) > 0) {
        size_t chunks = (w->length + c->chunk - 1) / c->chunk;
        if (tiered_pool_for(pool, chunks, run_chunk, c, err) != 0) {
            return -1;
        }
    }
    return more;
}

static int run_blocks(struct columns *c, struct tiered_error *err)
{
    struct strategy_work *work = c->work;
    int rc = tiered_strategy_window_init(&c->window, work, c->rows, c->n, err);
    for (uint32_t b = 0; rc == 0 && b < work->layout->n_blocks; b++) {
        const struct tiered_block *block = &work->layout->blocks[b];
        if (tiered_strategy_has_columns(work, block)) {
            rc = run_block(c, block, err);
        }
    }
    tiered_strategy_window_finish(&c->window);
    return rc;
}

int tiered_strategy_columns(struct strategy_work *work, struct tiered_error *err)
{
    const struct strategy_weights *rule = &work->rule;
    TIERED_FREE double *weights = calloc(rule->n_active + 1, sizeof(weights[0]));
    if (!weights) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates",
                           rule->n_active);
    }
    struct columns c = {
        .work = work, .n = rule->n_active, .rows = rule->active, .weights = weights};
    for (size_t i = 0; i < c.n; i++) {
        weights[i] = rule->w[c.rows[i]];
    }
    return c.n ? run_blocks(&c, err) : 0;
}
