/* SPDX-License-Identifier: Apache-2.0 */
/* secure-sum: whole rounds without a network, attempts, and what the aggregator sees.
 */
#include "group_kit.h"

#include <math.h>

#define N_VALUES 5000

/* ---- the sum ---- */

static void expect_round(uint32_t n, const char *options, const uint32_t *silent_from,
                         size_t n_silent, double tolerance)
{
    struct group g;
    struct tiered_group_weight sums = {0};
    double *out = malloc(N_VALUES * sizeof(double));
    group_begin(&g, n, N_VALUES, options);
    for (size_t i = 0; i < n_silent; i++) {
        g.silent_from[n - 1 - i] = silent_from[i]; /* the last members */
    }
    if (run_round(&g, out, &sums) < 0) {
        fail_msg("%s", g.err.text);
    }
    expect_mean(&g, out, &sums, tolerance);
    free(out);
    group_finish(&g);
}

static void test_sum_of_all(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= 12; n += 3) {
        expect_round(n, NULL, NULL, 0, 1e-5);
        expect_round(n, "bits=64", NULL, 0, 1e-12);
    }
}

/* Of 9 members 6 must last: three may go at any stage. */
static void test_dropouts_at_each_stage(void **state)
{
    (void)state;
    for (uint32_t stage = 1; stage <= 5; stage++) {
        const uint32_t silent[] = {stage, stage, stage};
        for (size_t n = 1; n <= 3; n++) {
            expect_round(9, NULL, silent, n, 1e-5);
        }
    }
    const uint32_t mixed[] = {2, 3, 4};
    expect_round(9, "bits=64", mixed, 3, 1e-12);
    const uint32_t all_kinds[] = {1, 2, 3, 4};
    expect_round(12, NULL, all_kinds, 4, 1e-5);
}

static void test_dropouts_on_a_graph(void **state)
{
    (void)state;
    const uint32_t silent[] = {3, 3, 4, 2};
    expect_round(40, "neighbours=16", NULL, 0, 1e-5);
    expect_round(40, "neighbours=16", silent, 4, 1e-5);
}

static void test_below_the_threshold(void **state)
{
    (void)state;
    for (uint32_t stage = 1; stage <= 4; stage++) {
        struct group g;
        struct tiered_group_weight sums = {0};
        double out[64];
        group_begin(&g, 9, 64, NULL);
        for (uint32_t i = 0; i < 4; i++) {
            g.silent_from[i] = stage;
        }
        assert_int_equal(run_round(&g, out, &sums), -1);
        assert_int_equal(g.err.code, TIERED_ERANGE);
        assert_non_null(strstr(g.err.text, "5 of 9 members are left; 6 are needed"));
        assert_non_null(strstr(g.err.text, "nothing was summed"));
        /* and the attempt is over: no step of it opens again */
        uint32_t rest[] = {4, 5, 6, 7, 8};
        assert_int_equal(g.ops->aggregator_survivors(g.aggregator, rest, 5, NULL), -1);
        assert_int_equal(g.ops->sums(g.aggregator, g.tail[4], &sums, NULL), -1);
        for (uint32_t i = 4; i < 9; i++) { /* nobody was asked for a share */
            assert_int_equal(stage < 4 ? g.view[4][i].size : 0, 0);
        }
        group_finish(&g);
    }
}

static void test_groups_that_cannot_be(void **state)
{
    (void)state;
    static const struct {
        uint32_t n;
        const char *options, *text;
    } cases[] = {
        {2, NULL, "min_group asks for 3"},
        {9, "min_group=10", "min_group asks for 10"},
        {60, "max_weight=16777216", "set bits: 64"},
        {60, "clip_range=1000000,max_weight=100000", "set bits: 64"},
        {60, "max_weight=16777216,bits=64", ""},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct group g;
        group_begin(&g, cases[i].n, 10, cases[i].options);
        struct tiered_group_terms terms = {.size = sizeof(terms)};
        struct tiered_error told = {0};
        int result = group_open(&g);
        assert_int_equal(result, cases[i].text[0] ? -1 : 0);
        assert_non_null(strstr(g.err.text, cases[i].text));
        /* a plan is told the same, of the config alone */
        assert_int_equal(g.ops->terms(g.config.data, cases[i].n, &terms, &told),
                         result);
        assert_string_equal(told.text, g.err.text);
        group_finish(&g);
    }
    struct ss_rules rules = {
        .threshold = 0.7, .min_group = 3, .neighbours = 400, .ring = {4, 8, 1000, 0}};
    assert_int_equal(ss_check_group(&rules, 300, NULL), -1); /* GF(256) has no more */
    rules.neighbours = 0;
    assert_int_equal(ss_check_group(&rules, 1000, NULL), 0);
    assert_int_equal(ss_check_group(&rules, 70000, NULL), -1);
}

/* ---- values ---- */

static void test_clipping_and_bad_values(void **state)
{
    (void)state;
    struct group g;
    double values[] = {9, -9, 7.5, -8, NAN, INFINITY};
    uint32_t words[6];
    uint64_t clipped = 0;
    const struct tiered_group_weight one = {1, 1};
    const struct tiered_group_weight many = {1, (1ull << 43) + 1};
    group_begin(&g, 3, 6, NULL);
    assert_int_equal(group_open(&g), 0);
    assert_int_equal(g.ops->open(g.members[0], &one, 6, g.open[0], g.tail[0], &g.err),
                     -1);
    assert_int_equal(g.err.code, TIERED_ESTATE); /* before the pre phase */
    assert_int_equal(group_pre(&g), 0);
    assert_int_equal(g.ops->open(g.members[0], &many, 6, g.open[0], g.tail[0], &g.err),
                     -1);
    assert_int_equal(g.err.code, TIERED_ERANGE);
    assert_int_equal(g.ops->open(g.members[0], &one, 7, g.open[0], g.tail[0], &g.err),
                     -1);
    assert_non_null(strstr(g.err.text, "sums updates of 6 values; this one has 7"));
    assert_int_equal(g.ops->open(g.members[0], &one, 6, g.open[0], g.tail[0], &g.err),
                     0);
    assert_int_equal(g.ops->open(g.members[0], &one, 6, g.open[0], g.tail[0], &g.err),
                     -1);
    assert_int_equal(g.ops->mask(g.members[0], 0, 4, values, words, &clipped, &g.err),
                     0);
    assert_int_equal(clipped, 2);
    /* the same words never stand under two updates */
    assert_int_equal(g.ops->mask(g.members[0], 0, 4, values, words, &clipped, &g.err),
                     -1);
    assert_int_equal(g.ops->mask(g.members[0], 5, 1, values, words, &clipped, &g.err),
                     -1);
    assert_int_equal(g.ops->mask(g.members[0], 4, 3, values, words, &clipped, &g.err),
                     -1);
    for (int i = 4; i < 6; i++) {
        assert_int_equal(
            g.ops->mask(g.members[0], 4, 1, values + i, words, &clipped, &g.err), -1);
        assert_int_equal(g.err.code, TIERED_ERANGE);
    }
    group_finish(&g);
}

/* An attempt that failed before a share was told is begun again, with other keys. */
static void test_another_attempt(void **state)
{
    (void)state;
    struct group g;
    struct group_message m = {0}, keys = {0}, same = {0};
    double out[50];
    struct tiered_group_weight sums;
    group_begin(&g, 6, 50, NULL);
    assert_int_equal(group_open(&g), 0);
    assert_int_equal(group_pre(&g), 0);
    assert_int_equal(group_mask(&g, 0), 0);
    uint8_t open[TIERED_GROUP_OPEN];
    memcpy(open, g.open[0], sizeof(open));

    struct tiered_group_round round = group_round(&g, 6);
    assert_int_equal(g.ops->aggregator_begin(g.aggregator, &round, &g.err), 0);
    group_ask(&g, 1, 0, &m);
    assert_int_equal(group_answer(&g, 1, 0, &m, &keys), 0);
    assert_int_equal(group_answer(&g, 1, 0, &m, &same), 0); /* the order was repeated */
    assert_memory_equal(keys.data, same.data, keys.size);
    assert_memory_not_equal(keys.data + 24, g.view[1][0].data + 24, 64);

    assert_int_equal(run_round(&g, out, &sums), 0);
    expect_mean(&g, out, &sums, 1e-5);
    /* what was masked for the first attempt is no part of this one */
    assert_int_equal(group_open(&g), 0);
    assert_int_equal(g.ops->aggregator_check(g.aggregator, 0, open, &g.err), -1);
    assert_int_equal(group_pre(&g), 0);
    assert_int_equal(g.ops->aggregator_check(g.aggregator, 0, open, &g.err), -1);
    assert_non_null(strstr(g.err.text, "another attempt"));
    group_forget(&m);
    group_forget(&keys);
    group_forget(&same);
    group_finish(&g);
}

/* One lies about its shares: its round goes on without them if enough are left. */
static void test_forged_share_is_a_dropout(void **state)
{
    (void)state;
    struct group g;
    uint32_t who[GROUP_MOST];
    struct group_message m = {0}, answer = {0};
    uint64_t tail[2];
    uint8_t words[20 * 4];
    double out[20];
    struct tiered_group_weight sums;
    group_begin(&g, 6, 20, NULL);
    assert_int_equal(group_open(&g), 0);
    assert_int_equal(group_pre(&g), 0);
    uint32_t n = group_survivors(&g, who);
    for (uint32_t i = 0; i < n; i++) {
        group_mask(&g, i);
    }
    group_add(&g, who, n, words, tail);
    assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who, n, &g.err), 0);
    for (uint32_t i = 0; i < n; i++) {
        group_ask(&g, 4, i, &m);
        assert_int_equal(group_answer(&g, 4, i, &m, &answer), 0);
        answer.data[60] ^= i < 2;
        assert_int_equal(group_tell(&g, 4, i, &answer), i < 2 ? -1 : 0);
    }
    assert_int_equal(g.ops->aggregator_close(g.aggregator, 4, &g.err), 0);
    assert_int_equal(g.ops->sums(g.aggregator, (uint8_t *)tail, &sums, &g.err), 0);
    assert_int_equal(g.ops->unmask(g.aggregator, 0, 20, words, out, &g.err), 0);
    expect_mean(&g, out, &sums, 1e-5);
    group_forget(&m);
    group_forget(&answer);
    group_finish(&g);
}

/* ---- what the aggregator sees ---- */

/* Chi-square of the bytes of n words against the uniform; 255 degrees of freedom, so
   below 330 but for one in a thousand. */
static double chi_square(const uint8_t *bytes, size_t n)
{
    double count[256] = {0}, sum = 0, want = (double)n / 256;
    for (size_t i = 0; i < n; i++) {
        count[bytes[i]]++;
    }
    for (int i = 0; i < 256; i++) {
        sum += (count[i] - want) * (count[i] - want) / want;
    }
    return sum;
}

static void subtract(uint8_t *words, size_t n, const uint8_t *key, int sign)
{
    struct ss_stream *stream = ss_stream_create();
    assert_int_equal(ss_stream_begin(stream, key, SS_VALUES, 0, NULL), 0);
    assert_int_equal(ss_ring_mask(4, words, n, sign, stream, NULL), 0);
    ss_stream_destroy(stream);
}

struct reveal_count {
    uint32_t seeds, secrets;
};

/* From the messages alone, parsed anew: the shares of each kind that were told of each
   member. All are neighbours of all here. */
static void count_shares(const struct group *g, const bool *shared,
                         struct reveal_count *counts)
{
    for (uint32_t i = 0; i < g->n; i++) {
        const struct group_message *m = &g->view[4][i];
        const uint8_t *at = m->data + SS_HEADER_BYTES;
        for (uint32_t of = 0; m->size && of < g->n; of++) {
            if (shared[of]) {
                counts[of].seeds += at[0] == SS_SEED;
                counts[of].secrets += at[0] == SS_SECRET;
                at += SS_REVEAL_BYTES;
            }
        }
        assert_true(!m->size || at == m->data + m->size);
    }
}

static bool contains(const struct group_message *m, const uint8_t *what, size_t n)
{
    for (size_t at = 0; at + n <= m->size; at++) {
        if (memcmp(m->data + at, what, n) == 0) {
            return true;
        }
    }
    return false;
}

/* All that the aggregator of a round with a dropout has. It must not find any single
   update in it, or a sum of some of them. */
static void test_view_hides_single_updates(void **state)
{
    (void)state;
    enum { N = 9, VALUES = 40000 };
    struct group g;
    uint32_t who[GROUP_MOST];
    struct reveal_count counts[N] = {{0}};
    bool shared[N];
    double *out = malloc(VALUES * sizeof(double));
    struct tiered_group_weight sums;
    group_begin(&g, N, VALUES, NULL);
    for (uint32_t i = 0; i < N; i++) {
        for (size_t k = 0; k < VALUES; k++) {
            g.values[i][k] = 0.25; /* nothing hides a constant but its mask */
        }
    }
    g.silent_from[7] = 3; /* dealt, never sent */
    g.silent_from[8] = 2;
    assert_int_equal(run_round(&g, out, &sums), 0);
    uint32_t n = group_survivors(&g, who);
    for (uint32_t i = 0; i < N; i++) {
        shared[i] = i != 8;
    }
    for (uint32_t s = 0; s < n; s++) {
        double chi = chi_square(g.masked[who[s]], (size_t)VALUES * 4);
        if (chi > 350) {
            fail_msg("the update of member %u is not uniform: chi-square %g", who[s],
                     chi);
        }
    }
    /* never both kinds of a member; of survivors the seed alone */
    count_shares(&g, shared, counts);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(counts[i].seeds, i < 7 ? n : 0);
        assert_int_equal(counts[i].secrets, i == 7 ? n : 0);
    }
    /* its own reconstruction: seeds of survivors take off one layer, and what is under
       it is as uniform as before, of one and of the sum of any but all */
    const struct ss_aggregator *a =
        &((const struct ss_state *)g.aggregator)->aggregator;
    assert_int_equal(a->n_survivors, n);
    uint8_t *sum = malloc((size_t)VALUES * 4);
    uint64_t tail[2];
    for (uint32_t size = 1; size <= n; size++) {
        group_add(&g, who, size, sum, tail);
        for (uint32_t s = 0; s < size; s++) {
            subtract(sum, VALUES, a->masks[s].key, a->masks[s].sign);
        }
        for (size_t k = n; k < a->n_masks; k++) { /* the dropout's with each of them */
            if (k - n < size) {
                subtract(sum, VALUES, a->masks[k].key, a->masks[k].sign);
            }
        }
        double chi = chi_square(sum, (size_t)VALUES * 4);
        if (size < n ? chi > 350 : chi < 1e5) {
            fail_msg("the sum of %u of %u: chi-square %g", size, n, chi);
        }
    }
    /* no seed, secret or share travels in the clear before it may be told */
    for (uint32_t i = 0; i < n; i++) {
        const struct ss_member *m = &((const struct ss_state *)g.members[i])->member;
        for (uint32_t step = 1; step <= 4; step++) {
            for (uint32_t v = 0; v < N; v++) {
                assert_false(contains(&g.view[step][v], m->seed, 32));
                assert_false(contains(&g.view[step][v], m->secret_s, 32));
                assert_false(contains(&g.view[step][v], m->secret_c, 32));
                assert_false(step < 4 && contains(&g.view[step][v], m->own_share, 32));
            }
        }
    }
    free(sum);
    free(out);
    group_finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_of_all),
        cmocka_unit_test(test_dropouts_at_each_stage),
        cmocka_unit_test(test_dropouts_on_a_graph),
        cmocka_unit_test(test_below_the_threshold),
        cmocka_unit_test(test_groups_that_cannot_be),
        cmocka_unit_test(test_clipping_and_bad_values),
        cmocka_unit_test(test_another_attempt),
        cmocka_unit_test(test_forged_share_is_a_dropout),
        cmocka_unit_test(test_view_hides_single_updates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
