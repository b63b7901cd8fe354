/* SPDX-License-Identifier: Apache-2.0 */
/* secure-sum: whole rounds without a network, and what each side refuses. */
#include "group_kit.h"

#include <math.h>

#define N_VALUES 5000

/* ---- the sum ---- */

/* The whole round; the mean goes to `out`. -1 where it failed. */
static int run_round(struct group *g, double *out, struct tiered_group_weight *sums)
{
    uint32_t who[GROUP_MOST];
    uint64_t tail[2];
    if (group_open(g) < 0 || group_pre(g) < 0) {
        return -1;
    }
    uint32_t n = group_survivors(g, who);
    for (uint32_t s = 0; s < n; s++) {
        assert_int_equal(group_mask(g, who[s]), 0);
        assert_int_equal(
            g->ops->aggregator_check(g->aggregator, who[s], g->open[who[s]], &g->err),
            0);
    }
    uint8_t *words = malloc(g->n_values * g->word_bytes + 1);
    group_add(g, who, n, words, tail);
    int result = g->ops->aggregator_survivors(g->aggregator, who, n, &g->err) < 0 ||
                         group_step(g, 4) < 0 ||
                         g->ops->sums(g->aggregator, (uint8_t *)tail, sums, &g->err) < 0
                     ? -1
                     : 0;
    for (size_t at = 0; result == 0 && at < g->n_values;) {
        size_t m = at % 777 + 1;
        m = m < g->n_values - at ? m : g->n_values - at;
        result = g->ops->unmask(g->aggregator, at, m, words + at * g->word_bytes,
                                out + at, &g->err);
        at += m;
    }
    if (result == 0) { /* unmask() leaves the sum of the plain words */
        uint8_t *plain = malloc(g->n_values * 8);
        uint8_t *sum = calloc(g->n_values, 8);
        for (uint32_t s = 0; s < n; s++) {
            group_plain(g, who[s], plain);
            for (size_t k = 0; k < g->n_values; k++) {
                if (g->word_bytes == 4) {
                    ((uint32_t *)sum)[k] += ((uint32_t *)plain)[k];
                } else {
                    ((uint64_t *)sum)[k] += ((uint64_t *)plain)[k];
                }
            }
        }
        assert_memory_equal(sum, words, g->n_values * g->word_bytes);
        free(plain);
        free(sum);
    }
    free(words);
    return result;
}

static void expect_mean(struct group *g, const double *got,
                        const struct tiered_group_weight *sums, double tolerance)
{
    uint64_t weight = 0, examples = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->silent_from[i] >= 4) {
            weight += g->weights[i] < 1000 ? g->weights[i] : 1000;
            examples += g->examples[i];
        }
    }
    assert_int_equal(sums->weight, weight);
    assert_int_equal(sums->num_examples, examples);
    for (size_t k = 0; k < g->n_values; k++) {
        double want = 0;
        for (uint32_t i = 0; i < g->n; i++) {
            if (g->silent_from[i] >= 4) {
                uint64_t w = g->weights[i] < 1000 ? g->weights[i] : 1000;
                want += (double)w * fmax(-8, fmin(8, g->values[i][k]));
            }
        }
        want /= (double)weight;
        if (fabs(want - got[k]) > tolerance) {
            fail_msg("value %zu is %.12g, not %.12g", k, got[k], want);
        }
    }
}

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
        int result = group_open(&g);
        assert_int_equal(result, cases[i].text[0] ? -1 : 0);
        assert_non_null(strstr(g.err.text, cases[i].text));
        group_finish(&g);
    }
    struct ss_rules rules = {
        .threshold = 0.7, .min_group = 3, .neighbours = 400, .ring = {4, 8, 1000, 0}};
    assert_int_equal(ss_check_group(&rules, 300, NULL), -1); /* GF(256) has no more */
    rules.neighbours = 0;
    assert_int_equal(ss_check_group(&rules, 1000, NULL), 0);
    assert_int_equal(ss_check_group(&rules, 70000, NULL), -1);
}

static void test_thresholds(void **state)
{
    (void)state;
    struct ss_rules rules = {.threshold = 0.666667, .min_group = 3};
    static const uint32_t cases[][2] = {{3, 2},   {4, 3},     {6, 4},       {9, 6},
                                        {10, 7},  {12, 8},    {100, 67},    {99, 66},
                                        {61, 41}, {300, 200}, {3000, 2000}, {1, 1}};
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        assert_int_equal(ss_threshold(&rules, cases[i][0]), cases[i][1]);
    }
    /* never half or less: or an aggregator could ask each half for another kind */
    rules.threshold = 0.5000001;
    for (uint32_t n = 1; n < 300; n++) {
        assert_true(2 * ss_threshold(&rules, n) > n);
        assert_true(ss_threshold(&rules, n) <= n);
    }
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

static void test_rounding_is_unbiased(void **state)
{
    (void)state;
    enum { N = 40000 };
    struct ss_ring ring = {.word_bytes = 4, .clip = 8, .max_weight = 1000};
    struct tiered_error err;
    const uint8_t key[32] = {1};
    assert_int_equal(ss_ring_fit(&ring, 10, &err), 0);
    double step = ldexp(1, -ring.exponent);
    static double values[N];
    static uint32_t words[N];
    for (int f = 1; f < 8; f++) { /* f / 8 of a step above 100 and below -100 steps */
        for (int sign = -1; sign <= 1; sign += 2) {
            double want = sign * (100 + f / 8.0), sum = 0;
            uint64_t clipped = 0;
            struct ss_stream *coins = ss_stream_create();
            for (int i = 0; i < N; i++) {
                values[i] = want * step;
            }
            ss_stream_begin(coins, key, 0, (uint64_t)f * N * 4, &err);
            assert_int_equal(
                ss_ring_encode(&ring, values, N, 1, coins, words, &clipped, &err), 0);
            for (int i = 0; i < N; i++) {
                double got = (double)(int32_t)words[i];
                assert_true(fabs(got - want) < 1);
                sum += got;
            }
            double sigma = sqrt(f / 8.0 * (1 - f / 8.0) / N);
            assert_true(fabs(sum / N - want) < 4 * sigma);
            ss_stream_destroy(coins);
        }
    }
}

/* ---- secrets ---- */

static void test_shamir(void **state)
{
    (void)state;
    uint8_t secret[32], coefficients[254 * 32], shares[255][32], x[255], got[32];
    srand(1);
    for (size_t i = 0; i < sizeof(coefficients); i++) {
        coefficients[i] = (uint8_t)rand();
    }
    memcpy(secret, "of every thirty-two bytes a sum.", 32);
    for (uint32_t t = 1; t <= 255; t += t < 8 ? 1 : 60) {
        for (uint32_t i = 0; i < 255; i++) {
            x[i] = (uint8_t)(i + 1);
            ss_share(secret, coefficients, t, x[i], shares[i]);
        }
        for (uint32_t first = 0; first + t <= 255; first += 50) { /* any t of them */
            ss_combine(x + first, (const uint8_t(*)[32])shares + first, t, got);
            assert_memory_equal(got, secret, 32);
        }
        if (t > 1) { /* and no fewer */
            ss_combine(x, (const uint8_t(*)[32])shares, t - 1, got);
            assert_memory_not_equal(got, secret, 32);
        }
    }
    /* by hand: 5 + 3x at x = 2, and 2 * 0x80 = 0x1b */
    uint8_t s[32] = {5}, c[32] = {3, 0x80}, out[32];
    ss_share(s, c, 2, 2, out);
    assert_int_equal(out[0], 5 ^ 6);
    assert_int_equal(out[1], 0x1b);
}

/* RFC 7748, section 6.1; SP 800-38A, F.5.5 through the stream's own counter. */
static void test_primitives(void **state)
{
    (void)state;
    static const uint8_t alice[32] = {0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d,
                                      0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
                                      0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a,
                                      0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a};
    static const uint8_t public[8] = {0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54};
    uint8_t got[32], a[32], b[32], zero[32] = {0}, ones[32] = {1};
    struct tiered_error err;
    const struct ss_use use = {"test", zero, 1, 2}, other = {"test", zero, 2, 1};
    assert_int_equal(ss_public_key(alice, got, &err), 0);
    assert_memory_equal(got, public, sizeof(public));
    uint8_t bob[32] = {9, 8, 7}, bobs[32], alices[32];
    ss_public_key(bob, bobs, &err);
    ss_public_key(alice, alices, &err);
    assert_int_equal(ss_agree(alice, bobs, &use, a, &err), 0);
    assert_int_equal(ss_agree(bob, alices, &use, b, &err), 0);
    assert_memory_equal(a, b, 32);
    assert_int_equal(ss_agree(bob, alices, &other, b, &err), 0);
    assert_memory_not_equal(a, b, 32);
    assert_int_equal(ss_agree(alice, zero, &use, a, &err), -1); /* of low order */
    assert_int_equal(err.code, TIERED_EPEER);
    assert_int_equal(ss_agree(alice, ones, &use, a, &err), -1);

    /* a stream is the same from wherever it is read */
    uint8_t whole[4096], part[4096];
    struct ss_stream *stream = ss_stream_create();
    ss_stream_begin(stream, alice, 0, 0, &err);
    ss_stream_read(stream, whole, sizeof(whole), &err);
    for (size_t at = 0; at < 200; at++) {
        ss_stream_begin(stream, alice, 0, at, &err);
        ss_stream_read(stream, part, 1000, &err);
        assert_memory_equal(part, whole + at, 1000);
    }
    ss_stream_begin(stream, alice, 1, 0, &err);
    ss_stream_read(stream, part, sizeof(part), &err);
    assert_memory_not_equal(part, whole, sizeof(part));
    ss_stream_destroy(stream);
    static const uint8_t zeros_aes[16] = {/* AES-256 of the zero key and block */
                                          0xdc, 0x95, 0xc0, 0x78, 0xa2, 0x40,
                                          0x89, 0x89, 0xad, 0x48, 0xa2, 0x14,
                                          0x92, 0x84, 0x20, 0x87};
    stream = ss_stream_create();
    ss_stream_begin(stream, zero, 0, 0, &err);
    ss_stream_read(stream, part, 16, &err);
    assert_memory_equal(part, zeros_aes, 16);
    ss_stream_destroy(stream);
}

/* ---- the graph ---- */

static bool is_in(const uint32_t *list, uint32_t n, uint32_t what)
{
    for (uint32_t i = 0; i < n; i++) {
        if (list[i] == what) {
            return true;
        }
    }
    return false;
}

static uint32_t reach(uint32_t (*lists)[256], const uint32_t *counts, uint32_t n)
{
    bool *seen = calloc(n, 1);
    uint32_t *queue = malloc(n * sizeof(*queue)), head = 0, tail = 1;
    queue[0] = 0;
    seen[0] = true;
    while (head < tail) {
        uint32_t v = queue[head++];
        for (uint32_t i = 0; i < counts[v]; i++) {
            uint32_t w = lists[v][i];
            if (!seen[w]) {
                seen[w] = true;
                queue[tail++] = w;
            }
        }
    }
    free(seen);
    free(queue);
    return tail;
}

static void test_graph(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, wanted, degree;
    } cases[] = {{3, 0, 2},     {64, 0, 63},    {65, 0, 38}, {100, 0, 40},
                 {1000, 0, 60}, {1000, 21, 22}, {10, 4, 4},  {10, 200, 9}};
    for (size_t c = 0; c < TIERED_COUNT(cases); c++) {
        uint32_t n = cases[c].n, *circle;
        struct tiered_error err;
        uint8_t session[16] = {(uint8_t)c};
        uint32_t *members = malloc(n * sizeof(*members));
        uint32_t(*lists)[256] = calloc(n, sizeof(*lists));
        uint32_t *counts = calloc(n, sizeof(*counts));
        for (uint32_t i = 0; i < n; i++) {
            members[i] = i;
        }
        assert_int_equal(ss_degree(n, cases[c].wanted), cases[c].degree);
        assert_int_equal(ss_circle(session, members, n, &circle, &err), 0);
        for (uint32_t p = 0; p < n; p++) {
            counts[circle[p]] =
                ss_neighbours(circle, n, p, cases[c].degree, lists[circle[p]]);
        }
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(counts[i], cases[c].degree);
            for (uint32_t k = 0; k < counts[i]; k++) {
                assert_true(lists[i][k] != i);
                assert_true(k == 0 || lists[i][k] > lists[i][k - 1]);
                assert_true(is_in(lists[lists[i][k]], counts[lists[i][k]], i));
            }
        }
        assert_int_equal(reach(lists, counts, n), n);
        session[3] = 77; /* another attempt, another graph */
        uint32_t *second;
        assert_int_equal(ss_circle(session, members, n, &second, &err), 0);
        if (n > 10) {
            assert_memory_not_equal(circle, second, n * sizeof(*circle));
        }
        free(second);
        free(circle);
        free(members);
        free(lists);
        free(counts);
    }
}

/* ---- what the members refuse ---- */

static void expect_refused(struct group *g, uint32_t step, uint32_t member,
                           const struct group_message *m, const char *text)
{
    struct group_message answer = {0};
    memset(&g->err, 0, sizeof(g->err));
    assert_int_equal(group_answer(g, step, member, m, &answer), -1);
    if (!strstr(g->err.text, text)) {
        fail_msg("step %u: \"%s\" does not say \"%s\"", step, g->err.text, text);
    }
    group_forget(&answer);
}

static struct group_message changed(const struct group_message *m, size_t at,
                                    uint8_t with)
{
    struct group_message copy = {malloc(m->size + 1), m->size};
    memcpy(copy.data, m->data, m->size);
    copy.data[at] ^= with;
    return copy;
}

/* Cut off anywhere, or longer than it should be. */
static void expect_exact_size(struct group *g, uint32_t step, uint32_t member,
                              const struct group_message *m)
{
    for (size_t size = 0; size <= m->size + 1; size += size + 40 < m->size ? 7 : 1) {
        struct group_message bad = {malloc(m->size + 2), size};
        memcpy(bad.data, m->data, m->size);
        bad.data[m->size] = 0;
        if (size != m->size) {
            expect_refused(g, step, member, &bad, "");
            assert_true(g->err.text[0]);
        }
        free(bad.data);
    }
}

static void test_member_refuses(void **state)
{
    (void)state;
    struct group g, old;
    uint32_t who[GROUP_MOST];
    struct group_message m = {0}, bad;
    group_begin(&g, 6, 100, NULL);
    group_begin(&old, 6, 100, NULL);
    double out[100];
    struct tiered_group_weight sums;
    assert_int_equal(run_round(&old, out, &sums), 0); /* another attempt's messages */
    assert_int_equal(group_open(&g), 0);

    group_ask(&g, 1, 0, &m);
    expect_exact_size(&g, 1, 0, &m);
    bad = changed(&m, 0, 1);
    expect_refused(&g, 1, 0, &bad, "not a message of this secure-sum");
    free(bad.data);
    bad = changed(&m, 4, 3);
    expect_refused(&g, 1, 0, &bad, "step 2 stands for one of step 1");
    free(bad.data);
    bad = changed(&m, 24, 4); /* n: 6 -> 2 */
    expect_refused(&g, 1, 0, &bad, "min_group");
    free(bad.data);
    bad = changed(&m, 6, 8); /* self: 0 -> 8 */
    expect_refused(&g, 1, 0, &bad, "member 8 of 6");
    free(bad.data);
    bad = changed(&m, 36, 1); /* threshold */
    expect_refused(&g, 1, 0, &bad, "options of secure-sum are not this node's");
    free(bad.data);
    assert_int_equal(group_step(&g, 1), 0);

    group_ask(&g, 2, 0, &m);
    expect_refused(&g, 3, 0, &m, "step 3 does not follow step 1");
    expect_refused(&g, 2, 0, &old.asked[2][0], "another attempt");
    expect_refused(&g, 2, 1, &m, "a message for member 0");
    expect_exact_size(&g, 2, 0, &m);
    bad = changed(&m, 24, 1); /* the set: this node is out */
    expect_refused(&g, 2, 0, &bad, "this node is not in the group");
    free(bad.data);
    bad = changed(&m, 24, 0x38); /* 3 of 6 are left */
    expect_refused(&g, 2, 0, &bad, "3 of 6 members are left; 4 are needed");
    free(bad.data);
    bad = changed(&m, 24, 0x80); /* a member past the end */
    expect_refused(&g, 2, 0, &bad, "malformed");
    free(bad.data);
    bad = changed(&m, 25, 0);
    memset(bad.data + 25, 0, 32); /* a key of low order */
    expect_refused(&g, 2, 0, &bad, "member 1: not a usable public key");
    free(bad.data);
    assert_int_equal(group_step(&g, 2), 0);

    group_ask(&g, 3, 0, &m);
    expect_exact_size(&g, 3, 0, &m);
    expect_refused(&g, 3, 0, &old.asked[3][0], "another attempt");
    bad = changed(&m, 25 + 80 + 5, 1);
    expect_refused(&g, 3, 0, &bad, "member 2: its sealed shares are forged");
    free(bad.data);
    bad = changed(&m, 25, 0); /* replayed: member 2's stand for member 1's */
    memcpy(bad.data + 25, bad.data + 25 + 80, 80);
    expect_refused(&g, 3, 0, &bad, "member 1: its sealed shares are forged");
    free(bad.data);
    assert_int_equal(group_step(&g, 3), 0);

    uint32_t n = group_survivors(&g, who);
    for (uint32_t i = 1; i < n; i++) {
        assert_int_equal(group_mask(&g, i), 0);
    }
    assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who + 1, n - 1, &g.err),
                     0);
    group_ask(&g, 4, 1, &m);
    struct group_message for_zero = changed(&m, 24, 1); /* as if it had sent one */
    for_zero.data[6] = 0;
    expect_refused(&g, 4, 0, &for_zero, "before the masked update is made");
    free(for_zero.data);
    expect_exact_size(&g, 4, 1, &m);
    bad = changed(&m, 24, 0x1c); /* too few survivors: it would open up the rest */
    expect_refused(&g, 4, 1, &bad, "2 of 6 members are left; 4 are needed");
    free(bad.data);
    bad = changed(&m, 24, 2);
    expect_refused(&g, 4, 1, &bad, "this node is not in the group");
    free(bad.data);
    group_forget(&m);
    group_finish(&old);
    group_finish(&g);
}

/* Ask one member for both kinds of share of one peer, in every way there is. */
static void test_never_both_kinds(void **state)
{
    (void)state;
    struct group g;
    uint32_t who[GROUP_MOST];
    struct group_message m = {0}, first = {0}, again = {0};
    group_begin(&g, 6, 50, NULL);
    assert_int_equal(group_open(&g), 0);
    assert_int_equal(group_pre(&g), 0);
    uint32_t n = group_survivors(&g, who);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(group_mask(&g, i), 0);
    }
    assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who, n, &g.err), 0);
    group_ask(&g, 4, 0, &m);
    assert_int_equal(group_answer(&g, 4, 0, &m, &first), 0);
    assert_int_equal(group_answer(&g, 4, 0, &m, &again), 0); /* asked again: the same */
    assert_int_equal(first.size, again.size);
    assert_memory_equal(first.data, again.data, first.size);
    struct group_message other =
        changed(&m, 24, 0x20); /* member 5 is no survivor now */
    expect_refused(&g, 4, 0, &other, "step 4 does not follow step 4");
    /* another attempt at the same round, in this process … */
    struct tiered_group_round round = group_round(&g, 6);
    assert_int_equal(g.ops->aggregator_begin(g.aggregator, &round, &g.err), 0);
    group_ask(&g, 1, 0, &m);
    expect_refused(&g, 1, 0, &m, "shares of this round were revealed");
    expect_refused(&g, 4, 0, &other, ""); /* … nor has it forgotten */
    /* … and in one that was started again and told so */
    round = group_round(&g, 0);
    round.spent = true;
    assert_int_equal(g.ops->member_begin(g.members[0], &round, &g.err), 0);
    expect_refused(&g, 1, 0, &m, "shares of this round were revealed");
    expect_refused(&g, 4, 0, &other, "");
    /* the next round is another matter */
    round.spent = false;
    assert_int_equal(g.ops->member_begin(g.members[0], &round, &g.err), 0);
    assert_int_equal(group_answer(&g, 1, 0, &m, &again), 0);
    group_forget(&again);
    group_forget(&first);
    group_forget(&other);
    group_forget(&m);
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

/* ---- what the aggregator refuses ---- */

static void expect_untold(struct group *g, uint32_t step, uint32_t member,
                          const struct group_message *m, const char *text)
{
    memset(&g->err, 0, sizeof(g->err));
    assert_int_equal(group_tell(g, step, member, m), -1);
    if (!strstr(g->err.text, text)) {
        fail_msg("step %u: \"%s\" does not say \"%s\"", step, g->err.text, text);
    }
}

static void test_aggregator_refuses(void **state)
{
    (void)state;
    static const char *const names[] = {"leaf-0", "leaf-1", "leaf-2",
                                        "leaf-3", "leaf-4", "leaf-5"};
    struct group g, old;
    uint32_t who[GROUP_MOST];
    struct group_message bad, m = {0}, answers[6] = {{0}};
    double out[20];
    struct tiered_group_weight sums;
    group_begin(&g, 6, 20, NULL);
    group_begin(&old, 6, 20, NULL);
    assert_int_equal(run_round(&old, out, &sums), 0);
    assert_int_equal(group_open(&g), 0);
    struct tiered_group_round round = group_round(&g, 6);
    round.names = names;
    assert_int_equal(g.ops->aggregator_begin(g.aggregator, &round, &g.err), 0);
    for (uint32_t step = 1; step <= 4; step++) {
        for (uint32_t i = 0; i < 6; i++) {
            group_ask(&g, step, i, &m);
            assert_int_equal(group_answer(&g, step, i, &m, &answers[i]), 0);
        }
        expect_untold(&g, step % 4 + 1, 2, &answers[2], "is not open");
        expect_untold(&g, step, 6, &answers[2], "nobody has no part");
        expect_untold(&g, step, 2, &old.view[step][2], "leaf-2: its message is of an");
        for (size_t size = 0; size <= answers[2].size + 1; size++) {
            bad = changed(&answers[2], 0, 0);
            bad.size = size;
            if (size != answers[2].size) {
                expect_untold(&g, step, 2, &bad, "leaf-2: ");
            }
            free(bad.data);
        }
        if (step == 4) { /* shares: forged, of the wrong kind, another member's */
            bad = changed(&answers[2], 24 + 33 + 7, 1);
            expect_untold(&g, 4, 2, &bad, "leaf-2: its share of leaf-1 is not the one");
            free(bad.data);
            bad = changed(&answers[2], 24 + 33, 3);
            expect_untold(&g, 4, 2, &bad,
                          "leaf-2: its share of leaf-1 is of the wrong");
            free(bad.data);
            expect_untold(&g, 4, 2, &answers[3],
                          "leaf-2: its message is another member's");
            bad = changed(&answers[3], 6, 3 ^ 2);
            expect_untold(&g, 4, 2, &bad, "leaf-2: its share of leaf-0 is not");
            free(bad.data);
        }
        for (uint32_t i = 0; i < 6; i++) {
            assert_int_equal(group_tell(&g, step, i, &answers[i]), 0);
        }
        expect_untold(&g, step, 2, &answers[2], "has answered step");
        assert_int_equal(g.ops->aggregator_close(g.aggregator, step, &g.err), 0);
        if (step == 3) {
            for (uint32_t i = 0; i < 6; i++) {
                who[i] = i;
                assert_int_equal(group_mask(&g, i), 0);
            }
            const uint32_t twice[] = {0, 1, 1, 2, 3};
            const uint32_t none[] = {0, 1, 2, 9};
            assert_int_equal(
                g.ops->aggregator_survivors(g.aggregator, twice, 5, &g.err), -1);
            assert_int_equal(g.ops->aggregator_survivors(g.aggregator, none, 4, &g.err),
                             -1);
            assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who, 6, &g.err),
                             0);
            /* frozen */
            assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who, 5, &g.err),
                             -1);
        }
    }
    uint64_t tail[2] = {1ull << 60, 0};
    assert_int_equal(g.ops->sums(g.aggregator, (uint8_t *)tail, &sums, &g.err), -1);
    assert_non_null(strstr(g.err.text, "cannot be"));
    for (uint32_t i = 0; i < 6; i++) {
        group_forget(&answers[i]);
    }
    group_forget(&m);
    group_finish(&old);
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
        cmocka_unit_test(test_thresholds),
        cmocka_unit_test(test_clipping_and_bad_values),
        cmocka_unit_test(test_rounding_is_unbiased),
        cmocka_unit_test(test_shamir),
        cmocka_unit_test(test_primitives),
        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_member_refuses),
        cmocka_unit_test(test_never_both_kinds),
        cmocka_unit_test(test_another_attempt),
        cmocka_unit_test(test_aggregator_refuses),
        cmocka_unit_test(test_forged_share_is_a_dropout),
        cmocka_unit_test(test_view_hides_single_updates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
