/* SPDX-License-Identifier: Apache-2.0 */
/* The aggregators against hand-worked numbers and the properties that they promise. */
#include "strategy_kit.h"

#include "core/base/log.h"
#include "tiered/random.h"

static void test_fedavg_by_examples(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 3), "fedavg");
    ROW(&k, 1, 1, 10, -4);
    ROW(&k, 3, 5, 20, 4);
    ROW(&k, 0, 1e30, 1e30, 1e30);
    /* (1*1 + 3*5)/4, (10 + 60)/4, (-4 + 12)/4 */
    EXPECT(&k, 0, 4, 17.5, 2);
    kit_finish(&k);
}

static void test_fedavg_other_weights(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 1), "fedavg:weighted_by=uniform");
    ROW(&k, 1, 1);
    ROW(&k, 3, 5);
    EXPECT(&k, 0, 3);
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F32, 1), "fedavg:weighted_by=local_steps");
    ROW(&k, 1, 1);
    ROW(&k, 1, 5);
    k.rows[0].contribution.local_steps = 30;
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "'b' does not say its local_steps, which weighted_by "
                        "local_steps needs");
    k.rows[1].contribution.local_steps = 10;
    EXPECT(&k, 0, 2); /* (30*1 + 10*5)/40 */
    kit_finish(&k);
}

static void test_fedavg_without_examples(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 1), "fedavg");
    ROW(&k, 0, 1);
    ROW(&k, 0, 2);
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "the 2 updates have no examples between them, so there is no "
                        "mean; the model stays");
    kit_finish(&k);
}

/* Two groups of unequal size: the mean of group means weighted by their sums is the
   flat mean; the unweighted one would be 4. */
static void test_fedavg_tree(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg");
    ROW(&k, 10, 1);
    ROW(&k, 30, 3);
    struct tiered_model *left = kit_run(&k);
    double inner = kit_value(left, 0, 0);
    assert_float_equal(inner, 2.5, 0);
    tiered_model_unref(left);
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg");
    ROW(&k, 40, inner);
    ROW(&k, 10, 5.5);
    EXPECT(&k, 1e-15, (10 * 1 + 30 * 3 + 10 * 5.5) / 50);
    kit_finish(&k);
}

static void test_dtypes(void **state)
{
    (void)state;
    struct kit k;
    /* 1.5 and 2.5 both round to the even 2; -1.5 to -2. */
    BEGIN(&k, kit_layout(TIERED_I32, 4), "fedavg");
    ROW(&k, 1, 1, 2, -1, 2147483647);
    ROW(&k, 1, 2, 3, -2, 2147483647);
    EXPECT(&k, 0, 2, 2, -2, 2147483647);
    kit_finish(&k);
    /* 1/6, 2/6, 3/6 are no binary fractions; the mean 1.5 is. */
    BEGIN(&k, kit_layout(TIERED_I64, 2), "fedavg");
    ROW(&k, 1, 2, 3);
    ROW(&k, 2, 2, 3);
    ROW(&k, 3, 1, 2);
    EXPECT(&k, 0, 2, 2);
    kit_finish(&k);
    /* 70 values of 1000 overflow f16 when added in it. */
    BEGIN(&k, kit_layout(TIERED_F16, 1), "fedavg");
    for (int i = 0; i < 70; i++) {
        ROW(&k, 70, 1000);
    }
    EXPECT(&k, 0, 1000);
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_BF16, 1), "median");
    ROW(&k, 1, 1);
    ROW(&k, 1, 3);
    EXPECT(&k, 0, 2);
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_U8, 1), "fedavg");
    ROW(&k, 1, 1);
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "tensor 'w' is U8: opaque tensors have no mean, and go only to "
                        "aggregators that accept them");
    kit_finish(&k);
}

static void test_deltas_of_unsigned(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_U32, 1), "fedavg");
    BASE(&k, 10);
    k.run.rows_are_deltas = true;
    ROW(&k, 1, 0);
    ROW(&k, 1, 0);
    uint32_t minus_four = (uint32_t)-4;
    memcpy(k.models[1]->data, &minus_four, sizeof(minus_four));
    EXPECT(&k, 0, 8); /* 10 + (0 - 4)/2 */
    kit_finish(&k);
}

static void test_median(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 4), "median");
    ROW(&k, 1, 3, -1, 3e38, 0);
    ROW(&k, 1000000, 1, -5, -3e38, 0);
    ROW(&k, 1, 2, 7, 3e38, 0);
    EXPECT(&k, 0, 2, -1, (double)3e38f, 0);
    /* With four: the mean of the middle two, which overflow f32 when added. */
    ROW(&k, 1, 10, 1, 3e38, 0);
    EXPECT(&k, 0, 2.5, 0, (double)3e38f, 0);
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F64, 2), "median");
    ROW(&k, 1, 1.5e308, -1.5e308);
    ROW(&k, 1, 1.7e308, 1.5e308);
    EXPECT(&k, 1e293, 1.6e308, 0);
    kit_finish(&k);
}

static void test_trimmed_mean(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 2), "trimmed-mean");
    ROW(&k, 1, 1, 5);
    ROW(&k, 1, 2, 4);
    ROW(&k, 1, 6, 3);
    ROW(&k, 1, 1000, 2);
    ROW(&k, 1, -1000, 1);
    EXPECT(&k, 1e-7, 3, 3); /* trunc(0.2*5) = 1 a side */
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F32, 1), "trimmed-mean:trim=2");
    for (int i = 1; i <= 4; i++) {
        ROW(&k, 1, i * i);
    }
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "trimmed-mean cuts 2 updates on each side and leaves none of "
                        "4; lower trim or wait for more updates");
    ROW(&k, 1, 25);
    EXPECT(&k, 0, 9);
    kit_finish(&k);
    const char *const both[] = {"trimmed-mean:trim=1,beta=0.1"};
    assert_int_equal(kit_begin(&k, kit_layout(TIERED_F32, 1), both, 1), -1);
    assert_string_equal(k.err.text, "trimmed-mean takes beta or trim, not both");
    kit_finish(&k);
}

/* 0.29 * 100 is 28.999999999999996 as a double: 28 are cut, not 29. */
static void test_trimmed_mean_product(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "trimmed-mean:beta=0.29");
    double sum = 0;
    for (int i = 0; i < 100; i++) {
        double v = i * i;
        ROW(&k, 1, v);
        sum += i >= 28 && i < 72 ? v : 0;
    }
    EXPECT(&k, 1e-9, sum / 44);
    kit_finish(&k);
}

/* -------- properties, on random rows of every dtype and count of rows -------- */

static void random_values(struct tiered_rng *rng, double *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = floor(tiered_rng_normal(rng) * 1000) / 8; /* with ties */
    }
}

static const char *const rules[] = {"fedavg", "median", "trimmed-mean",
                                    "fedavg:weighted_by=uniform"};
#define N_VALUES 300

/* The rows of `count` children in one order or the reverse; the result's bytes. */
static struct tiered_model *run_order(const char *rule, enum tiered_dtype dtype,
                                      size_t count, double shift, bool reverse)
{
    struct kit k;
    BEGIN(&k, kit_layout(dtype, N_VALUES), rule);
    for (size_t i = 0; i < count; i++) {
        uint8_t key[32] = {(uint8_t)(reverse ? count - 1 - i : i), 1};
        struct tiered_rng rng;
        double values[N_VALUES];
        tiered_rng_init(&rng, key);
        random_values(&rng, values, N_VALUES);
        for (size_t v = 0; v < N_VALUES; v++) {
            values[v] += shift;
        }
        kit_row(&k, values, 4);
    }
    struct tiered_model *model = kit_run(&k);
    kit_finish(&k);
    return model;
}

static void test_permutation_and_translation(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 7, 64, 65, 130};
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64};
    for (size_t r = 0; r < TIERED_COUNT(rules); r++) {
        for (size_t c = 0; c < TIERED_COUNT(counts) * TIERED_COUNT(dtypes); c++) {
            enum tiered_dtype dtype = dtypes[c % 2];
            size_t n = counts[c / 2];
            struct tiered_model *a = run_order(rules[r], dtype, n, 0, false);
            struct tiered_model *b = run_order(rules[r], dtype, n, 0, true);
            struct tiered_model *moved = run_order(rules[r], dtype, n, 512, false);
            for (size_t v = 0; v < N_VALUES; v++) {
                double x = kit_value(a, 0, v);
                assert_true(fabs(x - kit_value(b, 0, v)) <= 1e-10);
                assert_true(fabs(x + 512 - kit_value(moved, 0, v)) <= 1e-3);
            }
            tiered_model_unref(a);
            tiered_model_unref(b);
            tiered_model_unref(moved);
        }
    }
}

/* The median of 1 … 200 rows against a plain sort. */
static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void test_median_of_many(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 5, 16, 33, 63, 64, 65, 66, 129, 200};
    for (size_t c = 0; c < TIERED_COUNT(counts); c++) {
        size_t n = counts[c];
        double columns[N_VALUES][KIT_MAX_ROWS];
        struct kit k;
        BEGIN(&k, kit_layout(TIERED_F32, N_VALUES), "median");
        for (size_t i = 0; i < n; i++) {
            uint8_t key[32] = {(uint8_t)i, 2};
            struct tiered_rng rng;
            double values[N_VALUES];
            tiered_rng_init(&rng, key);
            random_values(&rng, values, N_VALUES);
            kit_row(&k, values, 1);
            for (size_t v = 0; v < N_VALUES; v++) {
                columns[v][i] = (float)values[v];
            }
        }
        struct tiered_model *model = kit_run(&k);
        for (size_t v = 0; v < N_VALUES; v++) {
            qsort(columns[v], n, sizeof(double), compare_doubles);
            float want = (float)((columns[v][(n - 1) / 2] + columns[v][n / 2]) / 2);
            assert_true(kit_value(model, 0, v) == (double)want);
        }
        tiered_model_unref(model);
        kit_finish(&k);
    }
}

static void test_identity(void **state)
{
    (void)state;
    for (size_t r = 0; r < TIERED_COUNT(rules); r++) {
        for (size_t d = 0; d < TIERED_COUNT(kit_dtypes); d++) {
            for (size_t copies = 1; copies <= 4; copies++) {
                kit_identity(rules[r], kit_dtypes[d], copies, false);
            }
        }
    }
}

static void test_i64_survives_alone(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_I64, 1), "fedavg");
    ROW(&k, 3, 0);
    int64_t odd = (1ll << 60) + 1, got; /* no f64 */
    memcpy(k.models[0]->data, &odd, sizeof(odd));
    struct tiered_model *model = kit_run(&k);
    memcpy(&got, model->data, sizeof(got));
    assert_int_equal(got, odd);
    tiered_model_unref(model);
    kit_finish(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fedavg_by_examples),
        cmocka_unit_test(test_fedavg_other_weights),
        cmocka_unit_test(test_fedavg_without_examples),
        cmocka_unit_test(test_fedavg_tree),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_deltas_of_unsigned),
        cmocka_unit_test(test_median),
        cmocka_unit_test(test_trimmed_mean),
        cmocka_unit_test(test_trimmed_mean_product),
        cmocka_unit_test(test_permutation_and_translation),
        cmocka_unit_test(test_median_of_many),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_i64_survives_alone),
    };
    tiered_log_set_level(TIERED_LOG_ERROR); /* not that a mean is plain */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
