/* SPDX-License-Identifier: Apache-2.0 */
/* A leaf's examples. The host seeds purposes that begin with "run:" alike on every
   node; that is what lets each leaf work out the same split and the same partition. */
#include "dataset.h"

#include <inttypes.h>
#include <stdlib.h>

#include "partition.h"
#include "stream.h"
#include "tiered/random.h"

/* Row numbers of one source. */
struct rows {
    uint32_t n;
    uint32_t *items;
};

static int no_memory(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

static int check_cancelled(const struct tiered_host *host, double done,
                           struct tiered_error *err)
{
    host->progress(host, done);
    return host->cancelled(host) ? tiered_fail(err, TIERED_ECANCELED, "cancelled") : 0;
}

static int scan_sources(struct tiered_dataset *d,
                        const struct tiered_trainer_config *config,
                        struct tiered_labels *labels, struct tiered_error *err)
{
    struct tiered_source *train = &d->sources[0], *test = &d->sources[1];
    if (tiered_source_locate(config, train, test, err) < 0 ||
        tiered_source_scan(train, config->label, labels, err) < 0 ||
        (test->path && tiered_source_scan(test, config->label, labels, err) < 0)) {
        return -1;
    }
    if (test->path && test->inputs != train->inputs) {
        return tiered_fail_in(err, TIERED_ESHAPE, test->path,
                              "an example has %" PRIu64
                              " numbers, but in the training set %" PRIu64,
                              test->inputs, train->inputs);
    }
    return 0;
}

/* Codes become classes. */
static int rank_labels(struct tiered_dataset *d, const struct tiered_labels *labels,
                       struct tiered_error *err)
{
    uint32_t *class_of = tiered_labels_rank(labels);
    if (!class_of) {
        return no_memory(err);
    }
    for (int s = 0; s < 2; s++) {
        for (uint32_t i = 0; i < d->sources[s].n; i++) {
            d->sources[s].labels[i] = class_of[d->sources[s].labels[i]];
        }
    }
    free(class_of);
    d->inputs = d->sources[0].inputs;
    d->n_classes = labels->n;
    return d->n_classes > 1
               ? 0
               : tiered_fail_in(err, TIERED_EINVAL, d->sources[0].path,
                                "all labels are the same; there is nothing to learn");
}

int tiered_dataset_scan(struct tiered_dataset *d,
                        const struct tiered_trainer_config *config,
                        struct tiered_error *err)
{
    struct tiered_labels labels = {0};
    tiered_dataset_finish(d);
    int result = scan_sources(d, config, &labels, err);
    if (result == 0) {
        result = rank_labels(d, &labels, err);
    }
    tiered_labels_finish(&labels);
    if (result < 0) {
        tiered_dataset_finish(d);
        return -1;
    }
    d->scanned = true;
    return 0;
}

static int rows_create(struct rows *rows, uint32_t most, struct tiered_error *err)
{
    *rows = (struct rows){.items = malloc(((size_t)most + 1) * sizeof(uint32_t))};
    return rows->items ? 0 : no_memory(err);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sort_rows(struct rows *rows)
{
    qsort(rows->items, rows->n, sizeof(*rows->items), ascending);
}

/* Every count-th of n test examples; `order` (or NULL) says which rows they are. */
static int choose_test(struct rows *ret, uint32_t n, const uint32_t *order,
                       uint32_t index, uint32_t count, struct tiered_error *err)
{
    if (rows_create(ret, n / count + 1, err) < 0) {
        return -1;
    }
    for (uint64_t j = index; j < n; j += count) {
        ret->items[ret->n++] = order ? order[j] : (uint32_t)j;
    }
    sort_rows(ret);
    return 0;
}

/* With no test set, a share of the rows is held out, the same on every leaf. `pool`
   gets the rows to train on, `test` this leaf's part of those held out. */
static int hold_out(const struct tiered_dataset *d,
                    const struct tiered_trainer_config *config, uint32_t index,
                    uint32_t count, const struct tiered_host *host, struct rows *pool,
                    struct rows *test, struct tiered_error *err)
{
    uint32_t n = d->sources[0].n, n_test = 0;
    uint8_t key[32];
    struct tiered_rng rng;
    for (uint32_t i = 0; i < n; i++) {
        pool->items[i] = i;
    }
    if (!d->sources[1].path && config->test_fraction > 0) {
        n_test = (uint32_t)llround(n * config->test_fraction);
        n_test = n_test < n ? n_test : n - 1;
        host->seed(host, "run:split", key);
        tiered_rng_init(&rng, key);
        tiered_rng_shuffle(&rng, pool->items, n);
    }
    if (choose_test(test, n_test, pool->items, index, count, err) < 0) {
        return -1;
    }
    pool->n = n - n_test;
    memmove(pool->items, pool->items + n_test, pool->n * sizeof(*pool->items));
    sort_rows(pool);
    return 0;
}

/* Reduce the pool to the rows that the partition gives to this leaf. */
static int keep_own(const struct tiered_dataset *d,
                    const struct tiered_trainer_config *config, uint32_t index,
                    uint32_t count, const struct tiered_host *host, struct rows *pool,
                    struct tiered_error *err)
{
    uint8_t key[32];
    uint32_t *class_of = malloc(pool->n * sizeof(*class_of) + 1);
    uint32_t *owner = malloc(pool->n * sizeof(*owner) + 1);
    struct tiered_partition partition = {(enum tiered_split)config->partition,
                                         config->alpha,
                                         count,
                                         class_of,
                                         pool->n,
                                         d->n_classes};
    for (uint32_t i = 0; class_of && i < pool->n; i++) {
        class_of[i] = d->sources[0].labels[pool->items[i]];
    }
    host->seed(host, "run:partition", key);
    int result = class_of && owner
                     ? tiered_partition_assign(&partition, key, owner, err)
                     : no_memory(err);
    uint32_t kept = 0;
    for (uint32_t i = 0; result == 0 && i < pool->n; i++) {
        if (owner[i] == index) {
            pool->items[kept++] = pool->items[i];
        }
    }
    pool->n = kept;
    free(class_of);
    free(owner);
    return result;
}

static int read_examples(const struct tiered_source *source, const struct rows *rows,
                         struct tiered_examples *ret, struct tiered_error *err)
{
    size_t row_bytes = source->inputs * (source->bytes ? 1 : sizeof(float));
    size_t bytes;
    if (rows->n == 0) {
        return 0;
    }
    *ret = (struct tiered_examples){.n = rows->n, .bytes = source->bytes};
    ret->x = __builtin_mul_overflow(row_bytes, (size_t)rows->n, &bytes) ? NULL
                                                                        : malloc(bytes);
    ret->y = malloc(rows->n * sizeof(*ret->y));
    if (!ret->x || !ret->y) {
        return tiered_fail_in(err, TIERED_ENOMEM, source->path,
                              "no memory for %" PRIu32 " examples of %zu bytes",
                              rows->n, row_bytes);
    }
    for (uint32_t i = 0; i < rows->n; i++) {
        ret->y[i] = source->labels[rows->items[i]];
    }
    return tiered_source_read(source, rows->items, rows->n, ret->x, err);
}

static int load_parts(struct tiered_dataset *d,
                      const struct tiered_trainer_config *config, uint32_t index,
                      uint32_t count, const struct tiered_host *host, struct rows *own,
                      struct rows *held_out, struct rows *test,
                      struct tiered_error *err)
{
    const struct tiered_source *train = &d->sources[0], *apart = &d->sources[1];
    if (rows_create(own, train->n, err) < 0 ||
        hold_out(d, config, index, count, host, own, held_out, err) < 0 ||
        keep_own(d, config, index, count, host, own, err) < 0 ||
        (apart->path && choose_test(test, apart->n, NULL, index, count, err) < 0) ||
        check_cancelled(host, 0.2, err) < 0 ||
        read_examples(train, own, &d->train, err) < 0 ||
        check_cancelled(host, 0.8, err) < 0) {
        return -1;
    }
    return apart->path ? read_examples(apart, test, &d->test, err)
                       : read_examples(train, held_out, &d->test, err);
}

static void examples_finish(struct tiered_examples *examples)
{
    free(examples->x);
    free(examples->y);
    *examples = (struct tiered_examples){0};
}

int tiered_dataset_load(struct tiered_dataset *d,
                        const struct tiered_trainer_config *config, uint32_t index,
                        uint32_t count, const struct tiered_host *host,
                        struct tiered_error *err)
{
    struct rows own = {0}, held_out = {0}, test = {0};
    int result = load_parts(d, config, index, count, host, &own, &held_out, &test, err);
    free(own.items);
    free(held_out.items);
    free(test.items);
    if (result < 0) {
        examples_finish(&d->train);
        examples_finish(&d->test);
        return -1;
    }
    for (int s = 0; s < 2; s++) { /* the labels of other leaves' rows */
        free(d->sources[s].labels);
        d->sources[s].labels = NULL;
        d->sources[s].n = 0;
    }
    d->loaded = true;
    host->progress(host, 1);
    return 0;
}

void tiered_dataset_finish(struct tiered_dataset *d)
{
    examples_finish(&d->train);
    examples_finish(&d->test);
    tiered_source_finish(&d->sources[0]);
    tiered_source_finish(&d->sources[1]);
    *d = (struct tiered_dataset){0};
}
