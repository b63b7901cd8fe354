/* SPDX-License-Identifier: Apache-2.0 */
/* krum, bulyan and geometric-median against hand-worked numbers and against their
   papers' equations, written out plainly. */
#include "strategy_kit.h"

#include "core/base/log.h"
#include "tiered/random.h"

static struct tiered_layout *two_tensors(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t one = 1;
    assert_int_equal(
        tiered_layout_add(b, "fc.weight", TIERED_F32, TIERED_PARAMETER, 1, &one, &err),
        0);
    assert_int_equal(
        tiered_layout_add(b, "fc.bias", TIERED_F32, TIERED_PARAMETER, 1, &one, &err),
        0);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

/* -------- krum -------- */

/* Two nearest of five: 0 has 1 + 2.25, 1 has 0.25 + 1, 1.5 has 0.25 + 2.25, 3 has
   2.25 + 4. */
static void begin_five(struct kit *k, const char *rule)
{
    BEGIN(k, kit_layout(TIERED_F32, 1), rule);
    ROW(k, 1, 3);
    ROW(k, 1, 0);
    ROW(k, 3, 1.5);
    ROW(k, 1000000, 100);
    ROW(k, 1, 1);
}

static void test_krum(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        double want;
    } cases[] = {
        {"krum:byzantine=1", 1},
        {"krum:byzantine=1,keep=2", 1.25},
        {"krum:byzantine=1,keep=2,weighted_by=num_examples", 1.375},
        {"krum:byzantine=1,keep=5", 21.1},
        {"krum:byzantine=1,keep=1000", 21.1},
        {"krum:byzantine=4", 1.5}, /* one neighbour: 1 and 1.5 tie, 1.5 comes first */
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct kit k;
        begin_five(&k, cases[i].rule);
        EXPECT(&k, 1e-6, cases[i].want);
        kit_finish(&k);
    }
}

static size_t warned;
static char warning[256];

static void keep_warning(const struct tiered_host *host, enum tiered_level level,
                         const char *text)
{
    (void)host;
    if (level == TIERED_LOG_WARN) {
        warned++;
        snprintf(warning, sizeof(warning), "%s", text);
    }
}

static void test_krum_warns(void **state)
{
    (void)state;
    static const struct {
        const char *rule, *want;
    } cases[] = {
        {"krum:byzantine=1", NULL},
        {"krum:byzantine=2",
         "5 updates of which 2 may be bad: krum is proven for 7 and "
         "more, so this round goes on without that guarantee"},
        {"krum:byzantine=1,keep=4", NULL},
        {"krum:byzantine=1,keep=5",
         "keeps 5 of 5 updates of which 1 may be bad, so bad ones are averaged in"},
        {"krum:keep=5", NULL},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct kit k;
        begin_five(&k, cases[i].rule);
        k.hosting.host.log = keep_warning;
        warned = 0;
        tiered_model_unref(kit_run(&k));
        assert_int_equal(warned, cases[i].want != NULL);
        if (cases[i].want) {
            assert_string_equal(warning, cases[i].want);
        }
        kit_finish(&k);
    }
}

/* 1 and 10 both have 1 + 81. */
static void test_krum_tie(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "krum");
    ROW(&k, 1, 11);
    ROW(&k, 1, 10);
    ROW(&k, 1, 1);
    ROW(&k, 1, 0);
    EXPECT(&k, 0, 10);
    kit_finish(&k);
}

/* Five with one excluded still have two neighbours each: 0.1 has 0.01 + 24.01. With one
   neighbour 0 and 0.1 would tie, and 0 comes first. */
static void test_krum_excluded(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "krum:byzantine=1");
    ROW(&k, 1, NAN);
    ROW(&k, 1, 0);
    ROW(&k, 1, 0.1);
    ROW(&k, 1, 5);
    ROW(&k, 1, 6);
    k.rows[0].contribution.excluded = 1;
    EXPECT(&k, 0, 0.1);
    kit_finish(&k);
    /* More excluded than promised: no score is finite, and still none of them wins. */
    BEGIN(&k, kit_layout(TIERED_F64, 1), "krum:byzantine=1");
    for (size_t i = 0; i < 4; i++) {
        ROW(&k, 1, INFINITY);
        k.rows[i].contribution.excluded = 1;
    }
    ROW(&k, 1, 7);
    EXPECT(&k, 0, 7);
    kit_finish(&k);
}

static void test_krum_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        double weight, bias;
    } cases[] = {
        {"krum", 2, 20},
        {"krum:exclude=[fc.bias]", 2, 20},
        {"krum:include=['*.bias']", 3, 50},
        {"krum:include=[fc.*],exclude=['*weight']", 3, 50},
        {"krum:exclude=['*w[a-e]ight',nothing]", 3, 50},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct kit k;
        BEGIN(&k, two_tensors(), cases[i].rule);
        /* 2 lies amid the weights; 50 amid the biases, which are small otherwise. */
        ROW(&k, 1, 0, 0);
        ROW(&k, 1, 2, 20);
        ROW(&k, 1, 3, 50);
        ROW(&k, 1, 90, 60);
        EXPECT(&k, 0, i < 2 ? 2 : cases[i].weight, i < 2 ? 20 : cases[i].bias);
        kit_finish(&k);
    }
    struct kit k;
    BEGIN(&k, two_tensors(), "krum:include=[conv]");
    ROW(&k, 1, 0, 0);
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "aggregator 'krum' measures none of the model's 2 tensors, so "
                        "all updates would look alike");
    kit_finish(&k);
}

/* Weights of 3000 apart by 0.08: products in f32 choose by noise. */
static void test_krum_far_from_zero(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct kit k;
    double values[N];
    static const double offsets[] = {0.09, 0.05, 0.04, 0.06, -0.3};
    BEGIN(&k, kit_layout(TIERED_F32, N), "krum:byzantine=1");
    for (size_t r = 0; r < 5; r++) {
        for (size_t i = 0; i < N; i++) {
            values[i] = 3000 + (double)(i % 10) + offsets[r];
        }
        kit_row(&k, values, 1);
    }
    struct tiered_model *model = kit_run(&k);
    assert_memory_equal(model->data, k.models[1]->data, N * sizeof(float));
    tiered_model_unref(model);
    kit_finish(&k);
}

/* -------- bulyan -------- */

static void test_bulyan_refuses(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 1), "bulyan:byzantine=1");
    for (int i = 0; i < 6; i++) {
        ROW(&k, 1, i);
    }
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "bulyan with 1 bad updates needs 7 or more, and there are 6; "
                        "the model stays");
    ROW(&k, 1, 6);
    tiered_model_unref(kit_run(&k));
    /* 5 of 7 are selected; with 3 excluded there are 4. */
    k.rows[0].contribution.excluded = k.rows[3].contribution.excluded = 1;
    tiered_model_unref(kit_run(&k));
    k.rows[5].contribution.excluded = 1;
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "bulyan selects 5 of 7 updates, and only 4 are not excluded; "
                        "the model stays");
    kit_finish(&k);
}

/* The first value sets who is selected, the second has a tie: of -4 -1 0 0.5 1 both -1
   and 1 are 1 from the median. */
static void test_bulyan_tie(void **state)
{
    (void)state;
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64};
    for (size_t d = 0; d < 2; d++) {
        struct kit k;
        BEGIN(&k, kit_layout(dtypes[d], 2), "bulyan:byzantine=1");
        ROW(&k, 1, 0, 1);
        ROW(&k, 1, 0, 0.5);
        ROW(&k, 1, 0, -4);
        ROW(&k, 1, 0, -1);
        ROW(&k, 1, 0, 0);
        ROW(&k, 1, 1000, 77);
        ROW(&k, 1, -2000, 88);
        EXPECT(&k, 1e-7, 0, -0.5 / 3);
        kit_finish(&k);
    }
}

static double distance_of(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sum;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#define MAX_N 70
#define DIM   130

/* Algorithm 1 and 2 of the paper, as they are written. */
static void plain_bulyan(double rows[MAX_N][DIM], size_t n, size_t f, double *out)
{
    bool left[MAX_N];
    double column[MAX_N], scores[MAX_N];
    size_t theta = n - 2 * f, beta = theta - 2 * f, selected[MAX_N];
    memset(left, true, sizeof(left));
    for (size_t step = 0; step < theta; step++) {
        size_t m = n - step, nearest = m > f + 3 ? m - f - 2 : 1, best = SIZE_MAX;
        double least = INFINITY;
        for (size_t i = 0; i < n; i++) {
            size_t count = 0;
            double sum = 0;
            for (size_t j = 0; j < n && left[i]; j++) {
                if (j != i && left[j]) {
                    scores[count++] = distance_of(rows[i], rows[j], DIM);
                }
            }
            qsort(scores, count, sizeof(double), by_value);
            for (size_t j = 0; j < nearest && j < count; j++) {
                sum += scores[j];
            }
            if (left[i] && sum < least) {
                least = sum;
                best = i;
            }
        }
        left[best] = false;
        selected[step] = best;
    }
    for (size_t c = 0; c < DIM; c++) {
        double pairs[MAX_N][2], sum = 0;
        for (size_t i = 0; i < theta; i++) {
            column[i] = rows[selected[i]][c];
        }
        qsort(column, theta, sizeof(double), by_value);
        double median = (column[(theta - 1) / 2] + column[theta / 2]) / 2;
        for (size_t i = 0; i < theta; i++) {
            pairs[i][0] = fabs(column[i] - median);
            pairs[i][1] = column[i];
        }
        qsort(pairs, theta, sizeof(pairs[0]), by_value);
        for (size_t i = 0; i < beta; i++) {
            sum += pairs[i][1];
        }
        out[c] = sum / (double)beta;
    }
}

static void fill_normal(const uint8_t key[32], double *values, size_t n)
{
    struct tiered_rng rng;
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < n; i++) {
        values[i] = (double)(float)tiered_rng_normal(&rng);
    }
}

static void test_bulyan(void **state)
{
    (void)state;
    static const size_t cases[][2] = {{3, 0},  {7, 1},  {8, 1},
                                      {11, 2}, {12, 2}, {70, 3}};
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64};
    for (size_t i = 0; i < 2 * TIERED_COUNT(cases); i++) {
        size_t n = cases[i / 2][0], f = cases[i / 2][1];
        static double rows[MAX_N][DIM];
        double want[DIM];
        char rule[40];
        struct kit k;
        snprintf(rule, sizeof(rule), "bulyan:byzantine=%zu", f);
        BEGIN(&k, kit_layout(dtypes[i % 2], DIM), rule);
        for (size_t r = 0; r < n; r++) {
            const uint8_t key[32] = {(uint8_t)r, (uint8_t)n};
            fill_normal(key, rows[r], DIM);
            kit_row(&k, rows[r], r);
        }
        plain_bulyan(rows, n, f, want);
        struct tiered_model *model = kit_run(&k);
        kit_expect(model, want, DIM, i % 2 ? 1e-14 : 1e-6);
        tiered_model_unref(model);
        kit_finish(&k);
    }
}

static void test_bulyan_large_values(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 3), "bulyan");
    ROW(&k, 1, 1.7e308, -1.7e308, 1);
    ROW(&k, 1, 1.7e308, 1.7e308, 1);
    ROW(&k, 1, 1.7e308, -1.7e308, 1);
    struct tiered_model *model = kit_run(&k);
    assert_true(fabs(kit_value(model, 0, 0) / 1.7e308 - 1) < 1e-15);
    assert_true(fabs(kit_value(model, 0, 1) / -1.7e308 * 3 - 1) < 1e-15);
    tiered_model_unref(model);
    kit_finish(&k);
}

/* -------- geometric-median -------- */

static void test_geometric_median_steps(void **state)
{
    (void)state;
    struct kit k;
    /* z = 2; distances 2 1 3; b = 1/2 1 1/3; z = (1 + 5/3) / (11/6) */
    BEGIN(&k, kit_layout(TIERED_F64, 1),
          "geometric-median:max_iterations=1,tolerance=0");
    ROW(&k, 7, 0);
    ROW(&k, 7, 1);
    ROW(&k, 7, 5);
    EXPECT(&k, 1e-14, 16.0 / 11);
    /* Weighted: z = (2*0 + 1 + 5)/4 = 1.5; b = 2/1.5 1/.5 1/3.5 */
    k.rows[0].contribution.num_examples = 14;
    EXPECT(&k, 1e-14, (2 + 5 / 3.5) / (2 / 1.5 + 2 + 1 / 3.5));
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F64, 1),
          "geometric-median:max_iterations=1,tolerance=0,weighted_by=uniform");
    ROW(&k, 0, 0);
    ROW(&k, 0, 1);
    ROW(&k, 9, 5);
    EXPECT(&k, 1e-14, 16.0 / 11);
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F64, 1), "geometric-median");
    ROW(&k, 0, 0);
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "the 1 updates that count have no examples between them, so "
                        "there is no mean; the model stays");
    kit_finish(&k);
}

static void test_geometric_median_known(void **state)
{
    (void)state;
    struct kit k;
    /* Of a convex quadrangle: where the diagonals cross. */
    BEGIN(&k, kit_layout(TIERED_F32, 2), "geometric-median:tolerance=0");
    ROW(&k, 1, 0, 0);
    ROW(&k, 1, 4, 4);
    ROW(&k, 1, 0, 2);
    ROW(&k, 1, 6, 0);
    EXPECT(&k, 1e-4, 1.5, 1.5);
    kit_finish(&k);
    /* Of equal updates, and of one: that one. */
    BEGIN(&k, kit_layout(TIERED_F32, 2), "geometric-median");
    ROW(&k, 1, 3, 5);
    EXPECT(&k, 0, 3, 5);
    ROW(&k, 2, 3, 5);
    EXPECT(&k, 0, 3, 5);
    /* More than half at one point: there. */
    ROW(&k, 2, 1e6, 5);
    ROW(&k, 0, -1e6, 5);
    EXPECT(&k, 1e-3, 3, 5);
    kit_finish(&k);
}

static double objective(struct kit *k, const double *z, size_t dim)
{
    double sum = 0;
    for (size_t r = 0; r < k->run.n_rows; r++) {
        double square = 0;
        for (size_t i = 0; i < dim; i++) {
            double d = kit_value(k->models[r], 0, i) - z[i];
            square += d * d;
        }
        sum += (double)k->rows[r].contribution.num_examples * sqrt(square);
    }
    return sum;
}

/* Nothing nearby is better, far from zero too, with and without a base. */
static void test_geometric_median_optimal(void **state)
{
    (void)state;
    enum { D = 6 };
    for (size_t shifted = 0; shifted < 4; shifted++) {
        struct kit k;
        double z[D], values[D];
        BEGIN(&k, kit_layout(TIERED_F64, D),
              "geometric-median:tolerance=1e-13,max_iterations=10000");
        for (size_t r = 0; r < 9; r++) {
            const uint8_t key[32] = {(uint8_t)r, 77};
            fill_normal(key, values, D);
            for (size_t i = 0; i < D; i++) {
                values[i] += shifted % 2 ? 1e5 : 0;
            }
            kit_row(&k, values, 1 + r);
        }
        if (shifted / 2) {
            BASE(&k, 0, 0, 0, 0, 0, 0);
        }
        struct tiered_model *model = kit_run(&k);
        for (size_t i = 0; i < D; i++) {
            z[i] = kit_value(model, 0, i);
        }
        double best = objective(&k, z, D);
        for (size_t i = 0; i < 2 * D; i++) {
            double kept = z[i / 2];
            z[i / 2] += i % 2 ? 1e-3 : -1e-3;
            assert_true(objective(&k, z, D) > best);
            z[i / 2] = kept;
        }
        tiered_model_unref(model);
        kit_finish(&k);
    }
}

/* Four of ten as far away as f32 reaches, the first and heaviest among them. */
static void test_geometric_median_outliers(void **state)
{
    (void)state;
    static const double far[] = {10, 1e10, 3e38, -3e38};
    for (size_t f = 0; f < TIERED_COUNT(far); f++) {
        struct kit k;
        BEGIN(&k, kit_layout(TIERED_F32, 2), "geometric-median:weighted_by=uniform");
        for (int i = 0; i < 10; i++) {
            double bad = i % 3 == 0 ? far[f] : 1 + i / 10.0;
            ROW(&k, 1ull << (50 - i), bad, i % 3 == 0 ? 0 : 5 - i / 10.0);
        }
        struct tiered_model *model = kit_run(&k);
        for (size_t i = 0; i < 2; i++) {
            double v = kit_value(model, 0, i), middle = i ? 4.5 : 1.5;
            if (!(fabs(v - middle) < 1.5)) {
                fail_msg("outliers at %g: %g", far[f], v);
            }
        }
        tiered_model_unref(model);
        kit_finish(&k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_krum),
        cmocka_unit_test(test_krum_warns),
        cmocka_unit_test(test_krum_tie),
        cmocka_unit_test(test_krum_excluded),
        cmocka_unit_test(test_krum_patterns),
        cmocka_unit_test(test_krum_far_from_zero),
        cmocka_unit_test(test_bulyan_refuses),
        cmocka_unit_test(test_bulyan_tie),
        cmocka_unit_test(test_bulyan),
        cmocka_unit_test(test_bulyan_large_values),
        cmocka_unit_test(test_geometric_median_steps),
        cmocka_unit_test(test_geometric_median_known),
        cmocka_unit_test(test_geometric_median_optimal),
        cmocka_unit_test(test_geometric_median_outliers),
    };
    tiered_log_set_level(TIERED_LOG_ERROR); /* not what krum warns of */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
