/* SPDX-License-Identifier: Apache-2.0 */
/* Central noise over a group: the one row is a mean, and what one update can move is
   larger by what the ring and the dtype round. Statistics are of noise from a fixed
   seed. */
#include "core/aggregate/internal.h"
#include "group_kit.h"
#include "strategy_kit.h"

#define N 100000

static void begin(struct kit *k, struct tiered_layout *layout, const char *noise)
{
    const char *const rules[] = {"fedavg:weighted_by=uniform", noise};
    if (kit_begin(k, layout, rules, 2) != 0) {
        fail_msg("%s", k->err.text);
    }
    k->run.rows_are_deltas = true;
}

/* Three of four came: their mean is three quarters of what it counts. */
static void test_the_sum_is_over_the_expected(void **state)
{
    (void)state;
    struct kit k;
    begin(&k, kit_layout(TIERED_F64, 2), "gaussian:noise_multiplier=1e-12");
    tiered_strategy_bound(k.strategy, 1, 4);
    k.run.group_weight = 3;
    k.run.group_step = 1e-6;
    BASE(&k, 10, 20);
    ROW(&k, 3000, 1, 2);
    EXPECT(&k, 1e-9, 10.75, 21.5);
    kit_finish(&k);
}

static double deviation(struct kit *k, enum tiered_dtype dtype, double step)
{
    begin(k, kit_layout(dtype, N), "gaussian:noise_multiplier=2,insecure_seed=5");
    tiered_strategy_bound(k->strategy, 3, 4);
    k->run.group_weight = 4;
    k->run.group_step = step;
    k->run.path = "1";
    double *zeros = calloc(N, sizeof(*zeros)), squares = 0;
    kit_base(k, zeros);
    kit_row(k, zeros, 1);
    struct tiered_model *out = kit_run(k);
    for (size_t i = 0; i < N; i++) {
        squares += kit_value(out, 0, i) * kit_value(out, 0, i);
    }
    free(zeros);
    tiered_model_unref(out);
    kit_finish(k);
    return sqrt(squares / N);
}

/* Norm 3, and sqrt(100000) steps of 0.01: 2 * 6.162 / 4. */
static void test_noise_is_measured_by_what_is_rounded(void **state)
{
    (void)state;
    static const struct {
        enum tiered_dtype dtype;
        double step, want;
    } rows[] = {
        {TIERED_F64, 0, 1.5},
        {TIERED_F64, 0.01, 3.08114},
        {TIERED_F32, 0.01, 3.08114},
        {TIERED_F16, 0.01, 3.08114 * (1 + 2 * 4 / 2048.0)},
        {TIERED_BF16, 0.01, 3.08114 * (1 + 2 * 4 / 256.0)},
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct kit k;
        double got = deviation(&k, rows[i].dtype, rows[i].step);
        if (fabs(got - rows[i].want) > 3 * rows[i].want / sqrt(2.0 * N)) {
            fail_msg("row %zu: %g, not %g", i, got, rows[i].want);
        }
    }
}

/* The sum that a round of six leaves, as its mean is kept in f32. */
static double *sum_of(bool without_the_first, size_t n, double norm, double *ret_step)
{
    struct group g;
    struct tiered_group_weight sums;
    struct tiered_group_terms terms = {.size = sizeof(terms)};
    double *sum = malloc(n * sizeof(*sum));
    group_begin(&g, 6, n, "max_weight=900000");
    g.ring.max_weight = 900000;
    assert_int_equal(g.ops->terms(g.config.data, 6, &terms, &g.err), 0);
    *ret_step = terms.step;
    for (uint32_t i = 0; i < 6; i++) {
        double squares = 0;
        g.weights[i] = 1;
        for (size_t k = 0; k < n; k++) {
            squares += g.values[i][k] * g.values[i][k];
        }
        for (size_t k = 0; k < n; k++) {
            bool zero = without_the_first && i == 0;
            g.values[i][k] *= zero ? 0 : norm / sqrt(squares);
        }
    }
    assert_int_equal(run_round(&g, sum, &sums), 0);
    for (size_t k = 0; k < n; k++) {
        sum[k] = (double)(float)sum[k] * (double)sums.weight;
    }
    group_finish(&g);
    return sum;
}

/* With and without one update, through the real masks: further apart than its norm, and
   within what the noise is measured by. */
static void test_one_update_moves_the_sum_by_no_more(void **state)
{
    (void)state;
    const size_t n = 5000;
    const double norm = 1;
    double step, squares = 0;
    double *with = sum_of(false, n, norm, &step),
           *without = sum_of(true, n, norm, &step);
    for (size_t k = 0; k < n; k++) {
        squares += (with[k] - without[k]) * (with[k] - without[k]);
    }
    struct tiered_layout *layout = kit_layout(TIERED_F32, n);
    const struct tiered_strategy_run run = {.layout = layout, .group_step = step};
    double bound = tiered_strategy_group_norm(&run, norm, 6);
    assert_true(step == 0.03125 && bound < 3.3);
    if (!(sqrt(squares) > 1.1 * norm && sqrt(squares) < bound)) {
        fail_msg("moved by %g; the bound is %g", sqrt(squares), bound);
    }
    tiered_layout_unref(layout);
    free(with);
    free(without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_sum_is_over_the_expected),
        cmocka_unit_test(test_noise_is_measured_by_what_is_rounded),
        cmocka_unit_test(test_one_update_moves_the_sum_by_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
