/* SPDX-License-Identifier: Apache-2.0 */
/* Distributed noise through the real masks: gaussian on each member's update, then a
   round of secure-sum with dropouts, down to the fewest whose sum is opened. What comes
   out has the noise that the ledger counts. Statistics are of noise from a fixed seed,
   so they say the same in every run. */
#include "group_kit.h"

#include "tiered/filter.h"

#define N      100000
#define TILE   4096
#define NORM   2.0
#define SHARE  0.25 /* the noise multiplier of each */
#define MEMBER 10

/* What one member's pipe makes of zeros in its `round`. */
static void add_noise(struct group *g, uint32_t member, const char *round)
{
    const struct tiered_loaded *loaded;
    struct tiered_config config = {0};
    struct tiered_hosting hosting;
    struct tiered_error err = {0};
    char node[32];
    void *state;
    snprintf(node, sizeof(node), "leaf-%u", member);
    tiered_hosting_init(&hosting, 7, "pipe", "edge", node, round);
    assert_int_equal(
        tiered_plugins_get(g->plugins, "gaussian", TIERED_FILTER, &loaded, &err), 0);
    const struct tiered_filter_ops *ops = loaded->plugin.ops;
    assert_int_equal(
        tiered_config_from_json(&loaded->plugin,
                                "{\"noise_multiplier\": 0.25, \"insecure_seed\": 3}",
                                &config, &err),
        0);
    const struct tiered_manifest manifest = {.size = sizeof(manifest)};
    assert_int_equal(ops->init(&hosting.host, config.data, &manifest, &state, &err), 0);
    assert_int_equal(ops->sensitivity(state, NORM, &err), 0);
    assert_int_equal(ops->begin(state, &hosting.host, &err), 0);
    const struct tiered_block block = {.dtype = TIERED_F32, .role = TIERED_PARAMETER};
    for (size_t at = 0; at < N; at += TILE) {
        size_t n = N - at < TILE ? N - at : TILE;
        assert_int_equal(ops->add(state, &block, at, n, g->values[member] + at, &err),
                         0);
    }
    ops->destroy(state);
    tiered_config_finish(&config);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean 0, this deviation, and the distance of Kolmogorov and Smirnov at 1 %. */
static void check_normal(double *values, double deviation)
{
    double sum = 0, squares = 0, distance = 0, exact = deviation * deviation;
    qsort(values, N, sizeof(*values), ascending);
    for (size_t i = 0; i < N; i++) {
        double below = 0.5 * erfc(-values[i] / (deviation * sqrt(2)));
        sum += values[i];
        squares += values[i] * values[i];
        distance = fmax(distance, fabs(below - (double)i / N));
        distance = fmax(distance, fabs(below - (double)(i + 1) / N));
    }
    if (fabs(squares / N - exact) > 3 * exact * sqrt(2.0 / N)) {
        fail_msg("deviation %g, not %g", sqrt(squares / N), deviation);
    }
    assert_true(fabs(sum / N) < 4 * deviation / sqrt(N));
    assert_true(distance < 1.63 / sqrt(N));
}

/* All members, or all but as many as may be lost: before masks or after them. */
static void expect_noise(const char *options, uint64_t max_weight, uint32_t lost,
                         uint32_t from)
{
    struct group g;
    struct tiered_group_weight sums;
    struct tiered_group_terms terms = {.size = sizeof(terms)};
    double *mean = malloc(N * sizeof(*mean));
    group_begin(&g, MEMBER, N, options);
    g.ring.max_weight = max_weight;
    assert_int_equal(g.ops->terms(g.config.data, MEMBER, &terms, &g.err), 0);
    assert_true(lost <= MEMBER - terms.needed);
    for (uint32_t i = 0; i < MEMBER; i++) {
        memset(g.values[i], 0, N * sizeof(double));
        add_noise(&g, i, "1");
        g.weights[i] = 1; /* as weighted_by: uniform has it */
        g.silent_from[i] = i < lost ? from : 99;
    }
    assert_int_equal(run_round(&g, mean, &sums), 0);
    uint32_t in_sum = from < 4 ? MEMBER - lost : MEMBER;
    assert_int_equal(sums.weight, in_sum);
    for (size_t k = 0; k < N; k++) {
        mean[k] *= in_sum; /* who knows the mean and how many knows the sum */
    }
    check_normal(mean, SHARE * NORM * sqrt(in_sum));
    free(mean);
    group_finish(&g);
}

static void test_a_sum_has_the_noise_of_all(void **state)
{
    (void)state;
    expect_noise(NULL, 1000, 0, 0);
    expect_noise("max_weight=1", 1, 3, 3);           /* 7 are the fewest of 10 */
    expect_noise("bits=64,min_group=9", 1000, 1, 2); /* 9 here */
    expect_noise("neighbours=6", 1000, 2, 4);        /* dropouts whose updates stay */
}

/* The least that the ledger takes for fine: 16 steps in a deviation. The sum stands on
   the steps, and has more noise for the rounding, not less. */
static void test_the_coarsest_steps(void **state)
{
    (void)state;
    struct tiered_group_terms terms = {.size = sizeof(terms)};
    struct group g;
    /* 2^31 / (10 * 5e5 * 8) is 53, so the steps are 1 / 32: 16 in 0.5 */
    static const char options[] = "max_weight=500000";
    group_begin(&g, MEMBER, 1, options);
    assert_int_equal(g.ops->terms(g.config.data, MEMBER, &terms, &g.err), 0);
    assert_true(terms.step == SHARE * NORM / 16);
    group_finish(&g);
    struct tiered_group_weight sums;
    double *mean = malloc(N * sizeof(*mean)), squares = 0, steps = SHARE * NORM / 16;
    group_begin(&g, MEMBER, N, options);
    g.ring.max_weight = 500000;
    for (uint32_t i = 0; i < MEMBER; i++) {
        memset(g.values[i], 0, N * sizeof(double));
        add_noise(&g, i, "1");
        g.weights[i] = 1;
    }
    assert_int_equal(run_round(&g, mean, &sums), 0);
    for (size_t k = 0; k < N; k++) {
        double sum = mean[k] * MEMBER;
        assert_true(fabs(sum / steps - round(sum / steps)) < 1e-6);
        squares += sum * sum;
    }
    /* that of the noise, and a sixth of a step squared for each rounding */
    double want = MEMBER * (SHARE * NORM * SHARE * NORM + steps * steps / 6);
    assert_true(fabs(squares / N - want) < 3 * want * sqrt(2.0 / N));
    free(mean);
    group_finish(&g);
}

/* The ledger counts six members' noise. An aggregator that asks five, or goes on with
   five of six, is refused by each member; one that keeps to it says why it cannot. */
static void test_members_hold_to_what_is_counted(void **state)
{
    (void)state;
    struct group g;
    double out[8];
    struct tiered_group_weight sums;
    for (int honest = 0; honest < 2; honest++) {
        for (uint32_t asked = 5; asked <= 6; asked++) {
            group_begin(&g, asked, 8, NULL);
            g.least = 6;
            g.aggregator_least = honest ? 6 : 0;
            g.silent_from[0] = asked == 6 ? 3 : 99; /* one of six drops out */
            assert_int_equal(run_round(&g, out, &sums), -1);
            const char *want =
                !honest && asked == 5 ? "a group of 5, and the noise of its members is "
                                        "counted for sums of 6 and more"
                : honest && asked == 5 ? "counted for sums of 6 and more"
                : honest               ? "5 of 6 members are left; 6 are needed "
                                         "(threshold 0.666667, min_group 3, and as the "
                                         "noise is counted)"
                                       : "5 of 6 members are left; 6 are needed";
            if (!strstr(g.err.text, want)) {
                fail_msg("\"%s\" does not say \"%s\"", g.err.text, want);
            }
            group_finish(&g);
        }
    }
    group_begin(&g, 6, 8, NULL);
    g.least = g.aggregator_least = 6;
    for (uint32_t i = 0; i < 6; i++) {
        g.silent_from[i] = i < 2 ? 4 : 99; /* too late to matter */
    }
    assert_int_equal(run_round(&g, out, &sums), 0);
    group_finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_hold_to_what_is_counted),
        cmocka_unit_test(test_a_sum_has_the_noise_of_all),
        cmocka_unit_test(test_the_coarsest_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
