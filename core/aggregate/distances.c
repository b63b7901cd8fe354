/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between rows, without what they have in common.
 *
 * ||a - b||^2 = ||a||^2 + ||b||^2 - 2ab costs one product a pair, but where rows lie
 * close together and far from the centre their common part cancels and takes the digits
 * with it. Then the rows are read once more: pairs that lie that close are subtracted
 * before they are squared, and a Gram matrix is centred on a row in their midst.
 */
#include "core/aggregate/internal.h"

#include <assert.h>
#include <math.h>

#include "core/model/numeric.h"

/* Of the 1e-13 that a long sum in f64 is good for, at worst, 1e-9 is left. */
#define NEAR       1e-4
#define PAIR_LANES 8u

static bool is_near(const double *gram, size_t n, size_t i, size_t j)
{
    double norms = gram[i * n + i] + gram[j * n + j];
    return norms > 0 && isfinite(norms) &&
           !(norms - 2 * gram[i * n + j] > NEAR * norms);
}

/** In place; the upper triangle is written last, from the lower one. */
static void gram_to_distances(double *gram, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            double d = gram[i * n + i] + gram[j * n + j] - 2 * gram[i * n + j];
            gram[j * n + i] = isnan(d) ? INFINITY : fmax(d, 0);
        }
    }
    for (size_t i = 0; i < n; i++) {
        gram[i * n + i] = 0;
        for (size_t j = 0; j < i; j++) {
            gram[i * n + j] = gram[j * n + i];
        }
    }
}

/* -------- pairs, subtracted before squared -------- */

struct pair {
    size_t i, j, slot_i, slot_j;
    double sum;
};

struct exact {
    struct strategy_work *work;
    struct pair *pairs;
    size_t n_pairs;
    size_t *rows, n_rows; /* that are in a pair; a slot each */
    double *values;       /* n_rows x capacity */
    size_t capacity, length;
    const struct tiered_block *block;
    uint64_t at;
};

static int load_row(void *user, size_t slot, unsigned worker, struct tiered_error *err)
{
    struct exact *e = user;
    double *values = e->values + slot * e->capacity;
    struct strategy_scratch *s = tiered_strategy_scratch(e->work, worker, err);
    if (!s || tiered_strategy_read(e->work, e->rows[slot], e->block->index, s->raw,
                                   err) != 0) {
        return -1;
    }
    tiered_to_f64(e->block->dtype, s->raw + e->at * tiered_dtype_size(e->block->dtype),
                  e->length, values);
    tiered_strategy_mask(e->work, e->block, e->at, e->length, values);
    return 0;
}

static int measure_pair(void *user, size_t index, unsigned worker,
                        struct tiered_error *err)
{
    (void)worker, (void)err;
    struct exact *e = user;
    struct pair *pair = &e->pairs[index];
    const double *a = e->values + pair->slot_i * e->capacity;
    const double *b = e->values + pair->slot_j * e->capacity;
    double lanes[PAIR_LANES] = {0};
    size_t k = 0;
    for (; k + PAIR_LANES <= e->length; k += PAIR_LANES) {
        for (size_t l = 0; l < PAIR_LANES; l++) {
            double d = a[k + l] - b[k + l];
            lanes[l] += d * d;
        }
    }
    for (; k < e->length; k++) {
        double d = a[k] - b[k];
        lanes[k % PAIR_LANES] += d * d;
    }
    for (size_t l = 0; l < PAIR_LANES; l++) {
        pair->sum += lanes[l];
    }
    return 0;
}

static int measure_pairs(struct exact *e, struct tiered_error *err)
{
    struct tiered_pool *pool = e->work->run->pool;
    for (uint32_t b = 0; b < e->work->layout->n_blocks; b++) {
        e->block = &e->work->layout->blocks[b];
        if (!tiered_strategy_is_measured(e->work, e->block)) {
            continue;
        }
        for (e->at = 0; e->at < e->block->n_elements; e->at += e->length) {
            uint64_t left = e->block->n_elements - e->at;
            e->length = left < e->capacity ? (size_t)left : e->capacity;
            if (tiered_strategy_cancelled(e->work, err) != 0 ||
                tiered_pool_for(pool, e->n_rows, load_row, e, err) != 0 ||
                tiered_pool_for(pool, e->n_pairs, measure_pair, e, err) != 0) {
                return -1;
            }
        }
    }
    return 0;
}

/** The near pairs, and a slot for each row in one. `slots`: n values, SIZE_MAX each. */
static void list_pairs(struct exact *e, const double *gram, size_t n, size_t *slots)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (!is_near(gram, n, i, j)) {
                continue;
            }
            const size_t both[] = {i, j};
            for (size_t k = 0; k < 2; k++) {
                if (slots[both[k]] == SIZE_MAX) {
                    slots[both[k]] = e->n_rows;
                    e->rows[e->n_rows++] = both[k];
                }
            }
            e->pairs[e->n_pairs++] = (struct pair){i, j, slots[i], slots[j], 0};
        }
    }
}

static size_t count_near(const double *gram, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            count += is_near(gram, n, i, j);
        }
    }
    return count;
}

static int measure_near(struct exact *e, size_t n_pairs, const double *gram,
                        struct tiered_error *err)
{
    size_t n = e->work->run->n_rows;
    e->capacity = tiered_strategy_tile(e->work, n, sizeof(double));
    TIERED_FREE size_t *slots = malloc(n * sizeof(slots[0]));
    e->rows = calloc(n, sizeof(e->rows[0]));
    e->pairs = calloc(n_pairs, sizeof(e->pairs[0]));
    if (!slots || !e->rows || !e->pairs) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu distances", n_pairs);
    }
    memset(slots, 0xff, n * sizeof(slots[0]));
    list_pairs(e, gram, n, slots);
    assert(e->n_rows > 0); /* n_pairs are */
    e->values = calloc(e->n_rows, e->capacity * sizeof(double));
    if (!e->values) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for a tile of %zu updates",
                           e->n_rows);
    }
    return measure_pairs(e, err);
}

int tiered_strategy_distances(struct strategy_work *work, double *ret,
                              struct tiered_error *err)
{
    size_t n = work->run->n_rows;
    if (tiered_strategy_gram(work, STRATEGY_CENTRE_BASE, ret, err) != 0) {
        return -1;
    }
    struct exact e = {.work = work};
    size_t near = count_near(ret, n);
    int rc = near ? measure_near(&e, near, ret, err) : 0;
    gram_to_distances(ret, n);
    for (size_t k = 0; rc == 0 && k < e.n_pairs; k++) {
        const struct pair *pair = &e.pairs[k];
        ret[pair->i * n + pair->j] = ret[pair->j * n + pair->i] = pair->sum;
    }
    free(e.values);
    free(e.pairs);
    free(e.rows);
    return rc;
}

/* -------- about a row in the midst -------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/** The row from which half of the others are not far: no minority can be that. */
static size_t find_midst(const double *gram, size_t n, double *distances)
{
    size_t best = 0, measured = 0;
    double least = INFINITY;
    for (size_t i = 0; i < n; i++) {
        measured += isfinite(gram[i * n + i]);
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            double d = gram[i * n + i] + gram[j * n + j] - 2 * gram[i * n + j];
            distances[j] = isnan(d) ? INFINITY : fmax(d, 0);
        }
        qsort(distances, n, sizeof(distances[0]), compare);
        if (isfinite(gram[i * n + i]) && distances[measured / 2] < least) {
            least = distances[measured / 2];
            best = i;
        }
    }
    return isinf(least) ? STRATEGY_CENTRE_BASE : best;
}

int tiered_strategy_centred(struct strategy_work *work, double *ret,
                            struct tiered_error *err)
{
    size_t n = work->run->n_rows;
    if (tiered_strategy_gram(work, STRATEGY_CENTRE_BASE, ret, err) != 0) {
        return -1;
    }
    if (count_near(ret, n) == 0) {
        return 0;
    }
    TIERED_FREE double *distances = calloc(n, sizeof(distances[0]));
    if (!distances) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu distances", n);
    }
    size_t midst = find_midst(ret, n, distances);
    if (midst == STRATEGY_CENTRE_BASE) {
        return 0;
    }
    memset(ret, 0, n * n * sizeof(ret[0]));
    return tiered_strategy_gram(work, midst, ret, err);
}
