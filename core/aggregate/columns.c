/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules over all rows at once: one block after the other. The rows of a block are read
 * in parallel into one tile, then the tile's chunks are given to the plugin in
 * parallel, so the memory is one tile however many workers there are. When tile_memory
 * does not hold a block of every row, the tile is a part of the block and the rows are
 * read once for each part.
 */
#include "core/aggregate/internal.h"

#include "core/model/numeric.h"

/* Rows a power of two apart would share a few sets of the caches. */
#define ROW_PADDING 320u

struct columns {
    struct strategy_work *work;
    size_t n, *rows; /* the rows of non-zero coefficient */
    double *weights; /* theirs */
    uint8_t *data;   /* n x stride bytes, aligned */
    size_t memory, stride;
    const struct tiered_block *block;
    enum tiered_dtype dtype; /* that rows are read as */
    bool wide;               /* columns_f64 */
    uint64_t at;
    size_t length;
};

static size_t element_bytes(const struct columns *c)
{
    return c->wide ? sizeof(double) : sizeof(float);
}

static bool reads_in_place(const struct columns *c)
{
    return c->length == c->block->n_elements &&
           c->dtype == (c->wide ? TIERED_F64 : TIERED_F32);
}

static int load_row(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    struct columns *c = user;
    void *to = c->data + i * c->stride;
    if (reads_in_place(c)) {
        return tiered_strategy_read(c->work, c->rows[i], c->block->index, to, err);
    }
    struct strategy_scratch *s = tiered_strategy_scratch(c->work, worker, err);
    if (!s ||
        tiered_strategy_read(c->work, c->rows[i], c->block->index, s->raw, err) != 0) {
        return -1;
    }
    const uint8_t *from = s->raw + c->at * tiered_dtype_size(c->dtype);
    if (c->wide) {
        tiered_to_f64(c->dtype, from, c->length, to);
    } else {
        tiered_to_f32(c->dtype, from, c->length, to);
    }
    return 0;
}

static int call_columns(const struct columns *c, size_t n, struct strategy_scratch *s,
                        struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = &c->work->strategy->ops;
    void *state = c->work->strategy->stage.state;
    if (c->wide) {
        return ops->columns_f64(state, (const double *const *)s->row_at, c->weights,
                                c->n, n, s->out, err);
    }
    float *out = (float *)s->tile;
    if (ops->columns_f32(state, (const float *const *)s->row_at, c->weights, c->n, n,
                         out, err) != 0) {
        return -1;
    }
    tiered_to_f64(TIERED_F32, out, n, s->out);
    return 0;
}

static int run_chunk(void *user, size_t chunk, unsigned worker,
                     struct tiered_error *err)
{
    struct columns *c = user;
    struct strategy_scratch *s = tiered_strategy_scratch(c->work, worker, err);
    if (!s) {
        return -1;
    }
    size_t at = chunk * STRATEGY_CHUNK;
    size_t n = c->length - at < STRATEGY_CHUNK ? c->length - at : STRATEGY_CHUNK;
    for (size_t i = 0; i < c->n; i++) {
        s->row_at[i] = c->data + i * c->stride + at * element_bytes(c);
    }
    if (call_columns(c, n, s, err) != 0) {
        return -1;
    }
    return tiered_strategy_finish(c->work, c->block, c->at + at, n, 0, s->out, s, err);
}

static int grow(struct columns *c, size_t capacity, struct tiered_error *err)
{
    c->stride = capacity * element_bytes(c) + ROW_PADDING;
    uint64_t bytes;
    if (!tiered_mul(c->n, c->stride, &bytes) || bytes > SIZE_MAX / 2) {
        return tiered_fail(err, TIERED_ENOMEM, "too many updates: %zu", c->n);
    }
    if (bytes > c->memory) {
        free(c->data);
        c->memory = 0;
        c->data = aligned_alloc(TIERED_ALIGN, (size_t)bytes);
        if (!c->data) {
            return tiered_fail(err, TIERED_ENOMEM,
                               "no memory for a tile of %zu updates", c->n);
        }
        c->memory = (size_t)bytes;
    }
    return 0;
}

static int begin_block(struct columns *c, const struct tiered_block *block,
                       struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = &c->work->strategy->ops;
    c->block = block;
    c->dtype = tiered_strategy_row_dtype(c->work, block->dtype);
    bool narrow =
        c->dtype == TIERED_F32 || c->dtype == TIERED_F16 || c->dtype == TIERED_BF16;
    c->wide = !narrow || !ops->columns_f32;
    if (c->wide && !ops->columns_f64) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "aggregator '%s' has no columns for %s tensors",
                           c->work->strategy->stage.loaded->plugin.name,
                           tiered_dtype_name(block->dtype));
    }
    return 0;
}

static int run_block(struct columns *c, struct tiered_error *err)
{
    struct tiered_pool *pool = c->work->run->pool;
    uint32_t traits = c->work->strategy->stage.loaded->plugin.traits;
    uint64_t n = c->block->n_elements;
    size_t capacity = tiered_strategy_tile(c->work, c->n, element_bytes(c));
    if (capacity > n) {
        capacity = ((size_t)n + 63) / 64 * 64;
    }
    if (grow(c, capacity, err) != 0) {
        return -1;
    }
    for (c->at = 0; c->at < n; c->at += c->length) {
        c->length = n - c->at < capacity ? (size_t)(n - c->at) : capacity;
        size_t chunks = (c->length + STRATEGY_CHUNK - 1) / STRATEGY_CHUNK;
        if (tiered_strategy_cancelled(c->work, err) != 0 ||
            tiered_pool_for(pool, c->n, load_row, c, err) != 0 ||
            tiered_pool_for(traits & TIERED_CONCURRENT ? pool : NULL, chunks, run_chunk,
                            c, err) != 0) {
            return -1;
        }
    }
    return 0;
}

int tiered_strategy_columns(struct strategy_work *work, struct tiered_error *err)
{
    const struct strategy_weights *rule = &work->rule;
    TIERED_FREE size_t *rows = calloc(rule->n_active + 1, sizeof(rows[0]));
    TIERED_FREE double *weights = calloc(rule->n_active + 1, sizeof(weights[0]));
    if (!rows || !weights) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates",
                           rule->n_active);
    }
    struct columns c = {.work = work, .rows = rows, .weights = weights};
    for (size_t i = 0; i < work->run->n_rows; i++) {
        if (rule->w[i] != 0) {
            weights[c.n] = rule->w[i];
            rows[c.n++] = i;
        }
    }
    int rc = 0;
    for (uint32_t b = 0; rc == 0 && b < work->layout->n_blocks; b++) {
        const struct tiered_block *block = &work->layout->blocks[b];
        if (tiered_strategy_has_columns(work, block)) {
            rc = begin_block(&c, block, err) != 0 ? -1 : run_block(&c, err);
        }
    }
    free(c.data);
    return rc;
}
