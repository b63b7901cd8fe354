/* SPDX-License-Identifier: Apache-2.0 */
/* What the host measures for rules of distances: exact where digits would cancel, about
   a point among the rows, of the tensors that the rule chooses; and the local steps
   that go up. */
#include "strategy_kit.h"

/* -------- an aggregator of the test's own -------- */

static double seen[KIT_MAX_ROWS * KIT_MAX_ROWS];
static bool leaves_out_w;

static int probe_weigh(void *state, const struct tiered_round_view *view,
                       double *ret_weights, struct tiered_error *err)
{
    (void)state, (void)err;
    memcpy(seen, view->gram, view->n * view->n * sizeof(seen[0]));
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = i == 0;
    }
    return 0;
}

static bool probe_measures(const void *state, const struct tiered_tensor *tensor)
{
    (void)state;
    return !leaves_out_w || tensor->name[0] != 'w';
}

static void probe_begin(struct kit *k, struct tiered_layout *layout,
                        enum tiered_needs needs)
{
    const struct tiered_aggregator_ops ops = {
        .needs = needs,
        .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER),
        .weigh = probe_weigh,
        .measures = probe_measures};
    leaves_out_w = false;
    kit_probe(k, layout, &ops);
}

static void run_only(struct kit *k)
{
    tiered_model_unref(kit_run(k));
}

static double at(const struct kit *k, size_t i, size_t j)
{
    return seen[i * k->run.n_rows + j];
}

/* -------- distances -------- */

static void test_distances(void **state)
{
    (void)state;
    struct kit k;
    probe_begin(&k, kit_layout(TIERED_F32, 2), TIERED_NEEDS_DISTANCES);
    ROW(&k, 1, 13, 24);
    ROW(&k, 1, 10, 20);
    ROW(&k, 1, NAN, 20);
    ROW(&k, 1, 13, 24);
    k.rows[2].contribution.excluded = 1;
    run_only(&k);
    const double want[] = {0,        25,       INFINITY, 0,        25, 0,  INFINITY, 25,
                           INFINITY, INFINITY, 0,        INFINITY, 0,  25, INFINITY, 0};
    for (size_t i = 0; i < 16; i++) {
        assert_true(seen[i] == want[i]);
    }
    kit_finish(&k);
}

/* Weights of 3000 that differ by 0.08: f32 products would lose all of it. And by one
   step of f32, of which f64 products keep no digit. */
static void test_near_rows(void **state)
{
    (void)state;
    enum { N = 5000 };
    struct kit k;
    double *values = malloc(N * sizeof(double));
    assert_non_null(values);
    probe_begin(&k, kit_layout(TIERED_F32, N), TIERED_NEEDS_DISTANCES);
    for (size_t r = 0; r < 4; r++) {
        for (size_t i = 0; i < N; i++) {
            values[i] = r == 3 ? 0 : 3000 + (double)(i % 7);
        }
        values[0] += r == 1 ? 0.0625 : 0;
        values[1] += r == 2 ? 1.0 / 4096 : 0; /* an ulp of 3001 */
        kit_row(&k, values, 1);
    }
    for (size_t i = 0; i < N; i++) {
        values[i] = 0;
    }
    kit_base(&k, values);
    run_only(&k);
    assert_true(at(&k, 0, 1) == 0.0625 * 0.0625);
    assert_true(at(&k, 0, 2) == 1.0 / 4096 / 4096);
    assert_true(at(&k, 1, 2) == 0.0625 * 0.0625 + 1.0 / 4096 / 4096);
    assert_true(at(&k, 2, 1) == at(&k, 1, 2));
    assert_true(fabs(at(&k, 0, 3) / (N * 3003.0 * 3003.0) - 1) < 1e-3);
    /* The same with an outlier as the centre: without a base the first row is it. */
    struct tiered_row first = k.rows[3];
    double want = at(&k, 1, 2);
    memset(&values[0], 0, N * sizeof(double));
    for (size_t i = 0; i < N; i++) {
        values[i] = 3e38;
    }
    kit_fill(k.models[3], values);
    k.rows[3] = k.rows[0];
    k.rows[0] = first;
    k.run.base = NULL;
    run_only(&k);
    assert_true(at(&k, 1, 2) == want);
    assert_true(at(&k, 1, 3) == 0.0625 * 0.0625);
    assert_true(at(&k, 0, 1) > 1e79 && isfinite(at(&k, 0, 1)));
    free(values);
    kit_finish(&k);
}

/* Products about a row in the midst tell the same distances, wherever the rows lie. */
static void test_centred(void **state)
{
    (void)state;
    enum { N = 300 };
    struct kit k;
    double values[N];
    probe_begin(&k, kit_layout(TIERED_F32, N), TIERED_NEEDS_CENTRED);
    for (size_t r = 0; r < 5; r++) {
        for (size_t i = 0; i < N; i++) {
            values[i] = r == 0 ? -3e38 : 3000;
        }
        values[r] += (double)r / 4096;
        kit_row(&k, values, 1);
    }
    run_only(&k);
    for (size_t i = 1; i < 5; i++) {
        for (size_t j = 1; j < i; j++) {
            double want = (double)(i * i + j * j) / 4096 / 4096;
            double d = at(&k, i, i) + at(&k, j, j) - 2 * at(&k, i, j);
            assert_true(fabs(d - want) <= 1e-12 * want);
        }
    }
    assert_true(at(&k, 0, 0) > 1e78);
    kit_finish(&k);
}

/* Squares above f64's range: infinitely far, and no NaN. */
static void test_overflow(void **state)
{
    (void)state;
    static const enum tiered_needs needs[] = {TIERED_NEEDS_GRAM, TIERED_NEEDS_DISTANCES,
                                              TIERED_NEEDS_CENTRED};
    for (size_t which = 0; which < TIERED_COUNT(needs); which++) {
        struct kit k;
        probe_begin(&k, kit_layout(TIERED_F64, 2), needs[which]);
        BASE(&k, 0, 0);
        ROW(&k, 1, 1, 2);
        ROW(&k, 1, 1e300, -1e300);
        ROW(&k, 1, -1e300, 1e300);
        ROW(&k, 1, 2, 1);
        run_only(&k);
        for (size_t i = 0; i < 16; i++) {
            assert_false(isnan(seen[i]));
        }
        bool distances = needs[which] == TIERED_NEEDS_DISTANCES;
        assert_true(isinf(distances ? at(&k, 0, 1) : at(&k, 1, 1)));
        assert_true(isinf(distances ? at(&k, 1, 2) : at(&k, 2, 2)));
        assert_true(isfinite(at(&k, 0, 3)));
        kit_finish(&k);
    }
}

/* -------- the choice of tensors -------- */

/* "a" 3, "w" 2, "b" 2, a buffer 1: they share one block but for the buffer. */
static struct tiered_layout *four_tensors(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t sizes[] = {3, 0, 2, 2, 1};
    static const char *const names[] = {"a", "empty", "w", "b", "running"};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(tiered_layout_add(b, names[i], TIERED_F32,
                                           i == 4 ? TIERED_BUFFER : TIERED_PARAMETER, 1,
                                           &sizes[i], &err),
                         0);
    }
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

static void test_measures(void **state)
{
    (void)state;
    static const enum tiered_needs needs[] = {TIERED_NEEDS_GRAM, TIERED_NEEDS_CENTRED,
                                              TIERED_NEEDS_DISTANCES};
    for (size_t which = 0; which < TIERED_COUNT(needs); which++) {
        struct kit k;
        probe_begin(&k, four_tensors(), needs[which]);
        leaves_out_w = true;
        k.run.tile_memory = 1; /* tiles that begin and end within tensors */
        BASE(&k, 0, 0, 0, 0, 0, 0, 0, 0);
        ROW(&k, 1, 1, 2, 3, 100, 100, 4, 5, 7000);
        ROW(&k, 1, 1, 2, 3, 500, -300, 4, 6, -7000); /* near: subtracted */
        run_only(&k);
        double d = needs[which] == TIERED_NEEDS_DISTANCES
                       ? at(&k, 0, 1)
                       : at(&k, 0, 0) + at(&k, 1, 1) - 2 * at(&k, 0, 1);
        assert_true(d == 1);
        if (needs[which] == TIERED_NEEDS_GRAM) {
            assert_true(at(&k, 0, 0) == 1 + 4 + 9 + 16 + 25);
        }
        kit_finish(&k);
    }
}

static void test_measures_none(void **state)
{
    (void)state;
    struct kit k;
    probe_begin(&k, kit_layout(TIERED_F32, 2), TIERED_NEEDS_DISTANCES);
    leaves_out_w = true;
    ROW(&k, 1, 1, 2);
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "aggregator 'probe' measures none of the model's 1 tensors, so "
                        "all updates would look alike");
    kit_finish(&k);
    /* Where nothing can be measured there is nothing to choose. */
    probe_begin(&k, kit_layout(TIERED_I32, 2), TIERED_NEEDS_DISTANCES);
    ROW(&k, 1, 1, 2);
    ROW(&k, 1, 3, 4);
    EXPECT(&k, 0, 1, 2);
    assert_true(at(&k, 0, 1) == 0);
    kit_finish(&k);
}

/* -------- threads and tiles -------- */

static void run_big(enum tiered_needs needs, unsigned threads, uint64_t memory,
                    double *ret)
{
    enum { N = 700000, ROWS = 12 };
    struct kit k;
    double *values = malloc(N * sizeof(double));
    assert_non_null(values);
    probe_begin(&k, kit_layout(TIERED_F32, N), needs);
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < N; i++) {
            values[i] = 500 + (double)((i * 7 + r * 31) % 101) / 1024;
        }
        kit_row(&k, values, 1);
    }
    memset(values, 0, N * sizeof(double));
    kit_base(&k, values);
    free(values);
    k.run.tile_memory = memory;
    if (threads) {
        assert_int_equal(tiered_pool_create(threads, &k.run.pool, &k.err), 0);
    }
    run_only(&k);
    memcpy(ret, seen, ROWS * ROWS * sizeof(double));
    tiered_pool_destroy(k.run.pool);
    kit_finish(&k);
}

static void test_threads(void **state)
{
    (void)state;
    static const enum tiered_needs needs[] = {TIERED_NEEDS_CENTRED,
                                              TIERED_NEEDS_DISTANCES};
    for (size_t i = 0; i < TIERED_COUNT(needs); i++) {
        double one[144], three[144];
        run_big(needs[i], 0, 3000000, one);
        run_big(needs[i], 3, 3000000, three);
        assert_memory_equal(one, three, sizeof(one));
    }
}

/* -------- local steps -------- */

static void test_local_steps(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 1), "median");
    assert_true(isnan(tiered_strategy_local_steps(k.strategy)));
    ROW(&k, 10, 1);
    ROW(&k, 30, 2);
    ROW(&k, 0, 3);
    ROW(&k, 5, 4);
    k.rows[0].contribution.local_steps = 8;
    k.rows[1].contribution.local_steps = 4;
    k.rows[3].contribution.local_steps = 1000;
    k.rows[3].contribution.excluded = 1;
    run_only(&k);
    assert_true(tiered_strategy_local_steps(k.strategy) == 5); /* (80 + 120)/40 */
    k.rows[1].contribution.local_steps = NAN;
    run_only(&k);
    assert_true(isnan(tiered_strategy_local_steps(k.strategy)));
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F32, 1), "fedavg:weighted_by=local_steps");
    ROW(&k, 10, 1);
    ROW(&k, 0, 5);
    k.rows[0].contribution.local_steps = 30;
    k.rows[1].contribution.local_steps = 10;
    EXPECT(&k, 0, 2);
    assert_true(tiered_strategy_local_steps(k.strategy) == 40);
    kit_finish(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distances), cmocka_unit_test(test_near_rows),
        cmocka_unit_test(test_centred),   cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_measures),  cmocka_unit_test(test_measures_none),
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_local_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
