/* SPDX-License-Identifier: Apache-2.0 */
/* The same bits whatever the vectors' width, the number of threads, the memory, and the
   way that rows are read; and the bits of a plain loop. */
#include "strategy_kit.h"

#include "core/aggregate/kernels.h"
#include "core/base/log.h"
#include "tiered/random.h"

enum way { READ, IN_PARTS, LENT, EACH_IN_TURN };

static int read_part(void *source, uint32_t block, size_t offset, size_t size,
                     void *out, struct tiered_error *err)
{
    (void)err;
    const struct tiered_model *model = source;
    assert_true(offset + size <= model->layout->blocks[block].size_bytes);
    memcpy(out, model->data + model->layout->blocks[block].offset_bytes + offset, size);
    return 0;
}

static const void *borrow(void *source, uint32_t block)
{
    const struct tiered_model *model = source;
    return model->data + model->layout->blocks[block].offset_bytes;
}

static void set_way(struct kit *k, enum way way)
{
    for (size_t i = 0; i < k->run.n_rows; i++) {
        enum way of = way == EACH_IN_TURN ? (enum way)(i % 3) : way;
        k->rows[i].read_part = of == IN_PARTS ? read_part : NULL;
        k->rows[i].borrow = of == LENT ? borrow : NULL;
    }
}

struct variant {
    const char *level;
    unsigned threads;
    enum way way;
    uint64_t tile_memory;
};

static const struct variant variants[] = {
    {"portable", 0, LENT, 0},         {"avx2", 0, LENT, 0},
    {"avx512", 0, LENT, 0},           {"avx512", 1, LENT, 0},
    {"avx512", 2, LENT, 0},           {"avx512", 3, LENT, 0},
    {"avx512", 0, READ, 0},           {"avx512", 2, IN_PARTS, 0},
    {"avx512", 3, EACH_IN_TURN, 0},   {"avx512", 2, READ, 1000000},
    {"portable", 2, IN_PARTS, 70000}, {"avx2", 3, EACH_IN_TURN, 1},
};

static struct tiered_model *run_variant(struct kit *k, const struct variant *v)
{
    setenv("TIERED_VECTOR", v->level, 1);
    set_way(k, v->way);
    k->run.tile_memory = v->tile_memory;
    if (v->threads) {
        assert_int_equal(tiered_pool_create(v->threads, &k->run.pool, &k->err), 0);
    }
    struct tiered_model *model = kit_run(k);
    tiered_pool_destroy(k->run.pool);
    k->run.pool = NULL;
    unsetenv("TIERED_VECTOR");
    return model;
}

/* All variants give the bytes of the first. */
static struct tiered_model *run_all(struct kit *k)
{
    struct tiered_model *first = run_variant(k, &variants[0]);
    for (size_t i = 1; i < TIERED_COUNT(variants); i++) {
        struct tiered_model *other = run_variant(k, &variants[i]);
        if (memcmp(first->data, other->data, first->layout->m.data_bytes) != 0) {
            fail_msg("variant %zu has other bits", i);
        }
        tiered_model_unref(other);
    }
    return first;
}

/* Ties, both zeros, denormals, huge values, and numbers as weights are. */
static double draw(struct tiered_rng *rng, enum tiered_dtype dtype)
{
    double huge = dtype == TIERED_F64 ? 1e308 : dtype == TIERED_F32 ? 3e38 : 6e4;
    double tiny = dtype == TIERED_F64 ? 5e-324 : 1e-45;
    double sign = tiered_rng_u64(rng) % 2 ? 1 : -1;
    switch (tiered_rng_u64(rng) % 8) {
    case 0:
        return sign * 0.0;
    case 1:
        return sign * tiny * (double)(tiered_rng_u64(rng) % 9);
    case 2:
        return sign * huge * (1 - 0.1 * (double)(tiered_rng_u64(rng) % 9));
    case 3:
        return floor(4 * tiered_rng_normal(rng));
    default:
        return tiered_rng_normal(rng);
    }
}

#define DRAWN 4999 /* values of a row, which then repeat */

static void begin(struct kit *k, const char *rule, enum tiered_dtype dtype,
                  size_t n_rows, size_t n)
{
    uint8_t key[32] = {(uint8_t)n_rows, (uint8_t)n, (uint8_t)dtype};
    struct tiered_rng rng;
    tiered_rng_init(&rng, key);
    double *values = malloc(n * sizeof(double));
    assert_non_null(values);
    BEGIN(k, kit_layout(dtype, n), rule);
    for (size_t i = 0; i < n_rows; i++) {
        for (size_t v = 0; v < n; v++) {
            values[v] = v < DRAWN ? draw(&rng, dtype) : values[v - DRAWN];
        }
        kit_row(k, values, 1 + i % 7);
    }
    free(values);
}

/* Rows of more than one block, of which the last ends within a cache line. */
static void test_same_bits(void **state)
{
    (void)state;
    static const char *const rules[] = {"fedavg", "median", "trimmed-mean"};
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64, TIERED_BF16};
#ifdef TIERED_SANITIZED /* slow there */
    static const size_t counts[] = {2, 11};
#else
    static const size_t counts[] = {1, 2, 8, 9, 19};
#endif
    for (size_t r = 0; r < TIERED_COUNT(rules); r++) {
        for (size_t i = 0; i < TIERED_COUNT(dtypes) * TIERED_COUNT(counts); i++) {
            struct kit k;
            size_t n = dtypes[i % 3] == TIERED_F32 ? 262144 + 70003 : 20011;
            begin(&k, rules[r], dtypes[i % 3], counts[i / 3], n);
            tiered_model_unref(run_all(&k));
            kit_finish(&k);
        }
    }
}

/* One step of an optimizer, from a fresh strategy. */
static struct tiered_model *step(const struct variant *variant, bool deltas)
{
    struct kit k;
    double values[5000];
    BEGIN(&k, kit_layout(TIERED_F32, 5000), "median", "fedadam");
    for (size_t i = 0; i < 6; i++) {
        for (size_t v = 0; v < TIERED_COUNT(values); v++) {
            values[v] = (double)((v * 31 + i * 17) % 1009) / 64;
        }
        kit_row(&k, values, 3);
    }
    kit_base(&k, values);
    k.run.rows_are_deltas = deltas;
    struct tiered_model *model = run_variant(&k, variant);
    kit_finish(&k);
    return model;
}

static void test_same_bits_of_steps(void **state)
{
    (void)state;
    for (size_t i = 1; i < 2 * TIERED_COUNT(variants); i++) {
        struct tiered_model *a = step(&variants[0], i % 2);
        struct tiered_model *b = step(&variants[i / 2], i % 2);
        assert_memory_equal(a->data, b->data, a->layout->m.data_bytes);
        tiered_model_unref(a);
        tiered_model_unref(b);
    }
}

static float row_value(const struct kit *k, size_t row, size_t v)
{
    return ((const float *)k->models[row]->data)[v];
}

/* fedavg as a plain loop in child order. */
static void test_fedavg_against_a_loop(void **state)
{
    (void)state;
    for (size_t n_rows = 1; n_rows <= 33; n_rows++) {
        struct kit k;
        begin(&k, "fedavg", TIERED_F32, n_rows, 1003);
        struct tiered_model *model = run_all(&k);
        double total = 0;
        for (size_t i = 0; i < n_rows; i++) {
            total += (double)k.rows[i].contribution.num_examples;
        }
        for (size_t v = 0; v < 1003; v++) {
            double sum = 0;
            for (size_t i = 0; i < n_rows; i++) {
                double w = (double)k.rows[i].contribution.num_examples / total;
                double product = w * (double)row_value(&k, i, v);
                sum = i ? sum + product : product;
            }
            float want = (float)sum;
            assert_memory_equal((const float *)model->data + v, &want, sizeof(want));
        }
        tiered_model_unref(model);
        kit_finish(&k);
    }
}

/* By value, -0 below +0. */
static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x != y ? (x > y) - (x < y) : !!signbit(y) - !!signbit(x);
}

static float trimmed_by_sorting(const struct kit *k, size_t v, size_t trim)
{
    float column[KIT_MAX_ROWS];
    size_t n = k->run.n_rows;
    for (size_t i = 0; i < n; i++) {
        column[i] = row_value(k, i, v);
    }
    qsort(column, n, sizeof(column[0]), compare_floats);
    double sum = (double)column[trim];
    for (size_t i = trim + 1; i < n - trim; i++) {
        sum += (double)column[i];
    }
    return (float)(sum / (double)(n - 2 * trim));
}

static void test_columns_against_sorting(void **state)
{
    (void)state;
#ifdef TIERED_SANITIZED
    const size_t step = 7;
#else
    const size_t step = 1;
#endif
    for (size_t n_rows = 1; n_rows <= 130; n_rows += step) {
        for (int median = 0; median < 2; median++) {
            struct kit k;
            begin(&k, median ? "median" : "trimmed-mean:beta=0.1", TIERED_F32, n_rows,
                  331);
            size_t trim = median ? (n_rows - 1) / 2 : (size_t)(0.1 * (double)n_rows);
            struct tiered_model *model = run_variant(&k, &variants[n_rows % 6]);
            for (size_t v = 0; v < 331; v++) {
                float want = trimmed_by_sorting(&k, v, trim);
                if (memcmp((const float *)model->data + v, &want, sizeof(want)) != 0) {
                    fail_msg("%zu rows: value %zu is %a, not %a", n_rows, v,
                             (double)((const float *)model->data)[v], (double)want);
                }
            }
            tiered_model_unref(model);
            kit_finish(&k);
        }
    }
}

/* Values that are not finite are found by each way of reading, and named. */
static void test_bad_values(void **state)
{
    (void)state;
    static const char *const rules[] = {"fedavg", "median"};
    for (size_t i = 0; i < TIERED_COUNT(variants); i++) {
        for (size_t r = 0; r < TIERED_COUNT(rules); r++) {
            struct kit k;
            begin(&k, rules[r], TIERED_F32, 11, 9001);
            ((float *)k.models[9]->data)[8999] = r ? NAN : INFINITY;
            setenv("TIERED_VECTOR", variants[i].level, 1);
            set_way(&k, variants[i].way);
            assert_string_equal(
                kit_refusal(&k, TIERED_ERANGE),
                r ? "'b': tensor 'w' has NaN at index 8999"
                  : "'b': tensor 'w' has an infinite value at index 8999");
            unsetenv("TIERED_VECTOR");
            kit_finish(&k);
        }
    }
}

/* A row without a coefficient is looked at when that is asked for. */
static void test_screen_all(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 1), "fedavg");
    ROW(&k, 1, 2);
    ROW(&k, 0, NAN);
    EXPECT(&k, 0, 2);
    k.run.screen_all = true;
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "'b': tensor 'w' has NaN at index 0");
    kit_finish(&k);
}

/* Finite values whose sum overflows are no bad update. */
static void test_overflow(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg:weighted_by=uniform");
    ROW(&k, 1, 1.7e308);
    ROW(&k, 1, 1.7e308);
    ROW(&k, 1, 1.7e308);
    set_way(&k, LENT);
    struct tiered_model *model = kit_run(&k);
    assert_true(kit_value(model, 0, 0) >= 1.69e308);
    tiered_model_unref(model);
    kit_finish(&k);
}

/* Products of a tile: the levels alike, and right. */
static void test_products(void **state)
{
    (void)state;
    enum { ROWS = 20 };
    double *deltas = aligned_alloc(64, ROWS * KERNEL_TILE * sizeof(double));
    assert_non_null(deltas);
    uint8_t key[32] = {7};
    struct tiered_rng rng;
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < (size_t)ROWS * KERNEL_TILE; i++) {
        deltas[i] = tiered_rng_normal(&rng);
    }
    static const char *const levels[] = {"portable", "avx2", "avx512"};
    double sums[3][ROWS][ROWS] = {0};
    for (size_t l = 0; l < 3; l++) {
        setenv("TIERED_VECTOR", levels[l], 1);
        tiered_kernels()->products(deltas, ROWS, &sums[l][0][0]);
        tiered_kernels()->products(deltas, ROWS, &sums[l][0][0]);
    }
    unsetenv("TIERED_VECTOR");
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j <= i; j++) {
            double want = 0;
            for (size_t v = 0; v < KERNEL_TILE; v++) {
                want += 2 * deltas[i * KERNEL_TILE + v] * deltas[j * KERNEL_TILE + v];
            }
            assert_true(fabs(sums[0][i][j] - want) <= 1e-10);
            assert_memory_equal(&sums[0][i][j], &sums[1][i][j], sizeof(double));
            assert_memory_equal(&sums[0][i][j], &sums[2][i][j], sizeof(double));
        }
    }
    free(deltas);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_same_bits_of_steps),
        cmocka_unit_test(test_fedavg_against_a_loop),
        cmocka_unit_test(test_columns_against_sorting),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_screen_all),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_products),
    };
    tiered_log_set_level(TIERED_LOG_ERROR); /* not that a mean is plain */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
