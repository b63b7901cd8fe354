/* SPDX-License-Identifier: Apache-2.0 */
/* A bound that follows the children's norms: where it goes, that it survives, and what
   noise does to it and to the delta beside it. */
#include "strategy_kit.h"

#include <unistd.h>

#define ADAPTIVE "{\"adaptive\": {\"initial\": 0.5, \"quantile\": 0.25, \"lr\": 0.2}}"

static struct tiered_use clip_of(struct kit *k, const char *options)
{
    struct tiered_use use = {.options_json = options};
    assert_int_equal(
        tiered_plugins_get(k->plugins, "clip", TIERED_FILTER, &use.loaded, &k->err), 0);
    return use;
}

static int follow(struct kit *k, const char *options)
{
    struct tiered_use use = clip_of(k, options);
    return tiered_strategy_follow(k->strategy, &use, 1, &k->err);
}

/* Four rows of one value each; those of `within` say that they were. */
static void begin(struct kit *k, const double within[4])
{
    BEGIN(k, kit_layout(TIERED_F64, 1), "fedavg:weighted_by=uniform");
    k->run.rows_are_deltas = true;
    BASE(k, 0);
    for (int i = 0; i < 4; i++) {
        ROW(k, 1, 1);
        k->rows[i].within = within[i];
    }
}

static void run(struct kit *k)
{
    tiered_model_unref(kit_run(k));
}

/* C <- C exp(-lr (b - quantile)). */
static void moves_by_the_share_within(void **state)
{
    (void)state;
    struct kit k;
    begin(&k, (const double[]){1, 0, 1, 1});
    assert_true(tiered_strategy_norm(k.strategy) == 0);
    assert_false(tiered_strategy_has_state(k.strategy));
    assert_int_equal(follow(&k, ADAPTIVE), 0);
    assert_true(tiered_strategy_has_state(k.strategy));
    assert_true(tiered_strategy_norm(k.strategy) == 0.5);
    run(&k);
    assert_true(tiered_strategy_norm(k.strategy) == 0.5 * exp(-0.2 * (0.75 - 0.25)));
    k.rows[0].contribution.excluded = k.rows[2].contribution.excluded = 1;
    double before = tiered_strategy_norm(k.strategy);
    run(&k); /* one of two */
    assert_true(tiered_strategy_norm(k.strategy) == before * exp(-0.2 * (0.5 - 0.25)));
    kit_finish(&k);
}

static void stays_without_a_result(void **state)
{
    (void)state;
    static const double bad[] = {NAN, -1, 2};
    struct kit k;
    begin(&k, (const double[]){1, 0, 1, 1});
    assert_int_equal(follow(&k, ADAPTIVE), 0);
    for (size_t i = 0; i < TIERED_COUNT(bad); i++) {
        k.rows[3].within = bad[i];
        assert_non_null(strstr(kit_refusal(&k, TIERED_EINVAL), "does not say whether"));
    }
    k.run.n_rows = 0;
    kit_refusal(&k, TIERED_ERANGE);
    k.run.n_rows = 4;
    assert_true(tiered_strategy_norm(k.strategy) == 0.5);
    kit_finish(&k);
}

static void a_fixed_norm_does_not_follow(void **state)
{
    (void)state;
    struct kit k;
    begin(&k, (const double[]){NAN, NAN, NAN, NAN});
    assert_int_equal(follow(&k, "{\"norm\": 3}"), 0);
    assert_true(tiered_strategy_norm(k.strategy) == 0);
    run(&k);
    kit_finish(&k);
}

/* From far below and far above, it comes to the quantile of the norms. */
static void finds_the_quantile(void **state)
{
    (void)state;
    static const double norms[] = {0.9, 2, 3.1, 4.6};
    static const char *const starts[] = {
        "{\"adaptive\": {\"initial\": 0.01, \"quantile\": 0.6, \"lr\": 0.1}}",
        "{\"adaptive\": {\"initial\": 900, \"quantile\": 0.6, \"lr\": 0.1}}"};
    for (size_t s = 0; s < 2; s++) {
        struct kit k;
        begin(&k, norms);
        assert_int_equal(follow(&k, starts[s]), 0);
        for (int round = 0; round < 400; round++) {
            for (int i = 0; i < 4; i++) {
                k.rows[i].within = norms[i] <= tiered_strategy_norm(k.strategy);
            }
            run(&k);
        }
        double norm = tiered_strategy_norm(k.strategy); /* 2 of 4 within: grows */
        assert_true(norm > 3.1 * exp(-0.1) && norm < 3.1 * exp(0.1));
        kit_finish(&k);
    }
}

static void is_saved_and_loaded(void **state)
{
    (void)state;
    const char *path = "/tmp/tiered-follow.safetensors";
    struct kit a, b, other;
    begin(&a, (const double[]){1, 0, 1, 1});
    begin(&b, (const double[]){1, 0, 1, 1});
    begin(&other, (const double[]){1, 0, 1, 1});
    assert_int_equal(follow(&a, ADAPTIVE) | follow(&b, ADAPTIVE), 0);
    for (int i = 0; i < 3; i++) { /* saved before the first run as well */
        assert_int_equal(tiered_strategy_save(a.strategy, path, &a.err), 0);
        assert_int_equal(tiered_strategy_load(b.strategy, path, b.layout, &b.err), 0);
        assert_true(tiered_strategy_norm(a.strategy) ==
                    tiered_strategy_norm(b.strategy));
        run(&a);
    }
    run(&b);
    assert_true(tiered_strategy_norm(a.strategy) == tiered_strategy_norm(b.strategy));
    assert_int_equal(
        tiered_strategy_load(other.strategy, path, other.layout, &other.err), -1);
    assert_non_null(strstr(other.err.text, "tiered.norm is '0."));
    assert_int_equal(tiered_strategy_save(other.strategy, path, &other.err), 0);
    assert_int_equal(tiered_strategy_load(a.strategy, path, a.layout, &a.err), -1);
    assert_non_null(strstr(a.err.text, "tiered.norm is ''"));
    unlink(path);
    kit_finish(&a);
    kit_finish(&b);
    kit_finish(&other);
}

/* ---- with noise ---- */

#define N 100000

static void begin_noisy(struct kit *k, uint64_t n, const char *noise, double expected)
{
    const char *const rules[] = {"fedavg:weighted_by=uniform", noise};
    assert_int_equal(kit_begin(k, kit_layout(TIERED_F64, n), rules, 2), 0);
    k->run.rows_are_deltas = true;
    k->base = kit_model(k->layout);
    k->run.base = k->base;
    tiered_strategy_bound(k->strategy, 0, expected);
}

/* The delta's noise is raised to z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2), and is
   measured by the bound of the round: here 1.0327956 * 0.5 / 40. */
static void the_delta_has_more_noise(void **state)
{
    (void)state;
    struct kit k;
    begin_noisy(&k, N, "gaussian:noise_multiplier=1,insecure_seed=3", 40);
    assert_int_equal(follow(&k, ADAPTIVE), 0);
    for (int round = 1; round <= 2; round++) {
        double deviation = tiered_strategy_norm(k.strategy) / sqrt(1 - 1.0 / 16) / 40;
        char path[8];
        snprintf(path, sizeof(path), "%d", round);
        k.run.path = path;
        struct tiered_model *out = kit_run(&k);
        double *values = malloc(N * sizeof(*values));
        for (size_t i = 0; i < N; i++) {
            values[i] = kit_value(out, 0, i);
        }
        kit_check_normal(values, N, deviation);
        free(values);
        tiered_model_unref(out);
    }
    assert_true(tiered_strategy_norm(k.strategy) != 0.5);
    kit_finish(&k);
}

/* The share's deviation is sigma_b / n = 1/20, around what the updates say, of which
   those that did not come count as a half. */
static void the_share_has_noise(void **state)
{
    (void)state;
    enum { RUNS = 4000 };
    struct kit k;
    begin_noisy(&k, 1, "gaussian:noise_multiplier=1,insecure_seed=4", 40);
    /* at its quantile, or it would leave the range of doubles */
    assert_int_equal(
        follow(&k,
               "{\"adaptive\": {\"initial\": 0.5, \"quantile\": 0.575, \"lr\": 0.2}}"),
        0);
    for (int i = 0; i < 10; i++) {
        ROW(&k, 1, 1);
        k.rows[i].within = i < 8;
    }
    double *values = malloc(RUNS * sizeof(*values)), mean = 0;
    for (int i = 0; i < RUNS; i++) {
        double before = tiered_strategy_norm(k.strategy);
        char path[16];
        snprintf(path, sizeof(path), "%d", i + 1);
        k.run.path = path;
        run(&k);
        double share = 0.575 - log(tiered_strategy_norm(k.strategy) / before) / 0.2;
        values[i] = share - (0.5 + 3.0 / 40); /* (8 - 2) halves */
        mean += values[i] / RUNS;
    }
    assert_true(fabs(mean) < 4 * 0.05 / sqrt(RUNS));
    kit_check_normal(values, RUNS, 0.05);
    free(values);
    kit_finish(&k);
}

/* A group's one row stands for all: 30 of the 40, of whom 24 were within. An update of
   zeros would be within too, so one moves the count by one: z < sigma_b = n / 20. The
   share is of those 30. */
static void a_group_says_its_share(void **state)
{
    (void)state;
    enum { RUNS = 2000 };
    static double values[N];
    const double zeros[1] = {0};
    struct kit k;
    begin_noisy(&k, 1, "gaussian:noise_multiplier=1,insecure_seed=6", 40);
    struct tiered_use uses[2] = {
        clip_of(&k, "{\"adaptive\": {\"initial\": 0.5, \"quantile\": 0.8, "
                    "\"lr\": 0.2}}")};
    assert_int_equal(tiered_plugins_get(k.plugins, "secure-sum", TIERED_GROUP,
                                        &uses[1].loaded, &k.err),
                     0);
    assert_int_equal(tiered_strategy_follow(k.strategy, uses, 2, &k.err), 0);
    kit_row(&k, zeros, 300);
    k.rows[0].within = 0.8;
    k.run.group_weight = 30;
    double before = tiered_strategy_norm(k.strategy), moved[RUNS];
    for (int i = 0; i < RUNS; i++) {
        char path[16];
        snprintf(path, sizeof(path), "%d", i + 1);
        k.run.path = path;
        struct tiered_model *out = kit_run(&k);
        values[i] = kit_value(out, 0, 0) / (before / sqrt(1 - 0.25) / 40);
        tiered_model_unref(out);
        double after = tiered_strategy_norm(k.strategy);
        moved[i] = 0.8 - log(after / before) / 0.2 - 0.8;
        before = after;
    }
    kit_check_normal(values, RUNS, 1);
    kit_check_normal(moved, RUNS, 2.0 / 30);
    k.run.path = "last";
    k.rows[0].within = 8; /* what a member masked, whatever the rest */
    run(&k);
    kit_finish(&k);
}

/* z < 2 sigma_b = n / 10, or there is no noise left for the delta. */
static void too_few_children_are_refused(void **state)
{
    (void)state;
    struct kit k;
    begin_noisy(&k, 1, "gaussian:noise_multiplier=1", 10);
    assert_int_equal(follow(&k, ADAPTIVE), -1);
    assert_non_null(strstr(k.err.text, "needs more than 10 children"));
    kit_finish(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_by_the_share_within),
        cmocka_unit_test(stays_without_a_result),
        cmocka_unit_test(a_fixed_norm_does_not_follow),
        cmocka_unit_test(finds_the_quantile),
        cmocka_unit_test(is_saved_and_loaded),
        cmocka_unit_test(the_delta_has_more_noise),
        cmocka_unit_test(the_share_has_noise),
        cmocka_unit_test(a_group_says_its_share),
        cmocka_unit_test(too_few_children_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
