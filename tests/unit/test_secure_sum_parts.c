/* SPDX-License-Identifier: Apache-2.0 */
/* What secure-sum is made of: thresholds, rounding, shares, primitives, the graph. */
#include "group_kit.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thresholds), cmocka_unit_test(test_rounding_is_unbiased),
        cmocka_unit_test(test_shamir),     cmocka_unit_test(test_primitives),
        cmocka_unit_test(test_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
