/* SPDX-License-Identifier: Apache-2.0 */
/* Noise from its bits: the functions beside libm's in long double, the tails, and that
   an element's noise is its own, however it is asked for. */
#include "codec_kit.h"

#include "normal.h"

#define RANDOM 400000
#define WHOLE  ((uint64_t)1 << NORMAL_BITS)
#define MANY   ((size_t)1 << 22)

static const char *const levels[] = {"portable", "avx2", "avx512"};

static struct tiered_rng rng;

static int begin_random(void **state)
{
    const uint8_t key[32] = {3, 1, 4};
    tiered_rng_init(&rng, key);
    return kit_set_up(state);
}

/* How far, in units of what is exact's last digit. */
static double ulps(double got, long double exact)
{
    int e;
    if (exact == 0) {
        return got == 0 ? 0 : INFINITY;
    }
    frexpl(exact, &e);
    return (double)(fabsl(got - exact) / ldexpl(1, e - 53));
}

/* ---- the functions ---- */

static void check_log(uint64_t k)
{
    long double exact = logl((long double)k) - 53 * logl(2);
    if (k > WHOLE / 2) { /* there the difference has no digits left */
        exact = log1pl(-(long double)(WHOLE - k) * 0x1p-53L);
    }
    double made = normal_log((double)k * 0x1p-53);
    if (ulps(made, exact) > 1) {
        fail_msg("ln(%llu / 2^53) is %.17g, not %.20Lg", (unsigned long long)k, made,
                 exact);
    }
}

static void logarithms_are_exact(void **state)
{
    (void)state;
    for (uint64_t k = 1; k <= 5000; k++) { /* the tail, and what is next to 1 */
        check_log(k);
        check_log(WHOLE - k);
    }
    for (int e = 0; e <= NORMAL_BITS; e++) {
        const uint64_t edges[] = {(uint64_t)1 << e,
                                  (uint64_t)(M_SQRT1_2 * (double)((uint64_t)1 << e))};
        for (size_t i = 0; i < 2; i++) {
            for (uint64_t k = edges[i] > 40 ? edges[i] - 40 : 1; k < edges[i] + 40;
                 k++) {
                check_log(k < WHOLE ? k : WHOLE);
            }
        }
    }
    for (int i = 0; i < RANDOM; i++) {
        uint64_t k = (tiered_rng_u64(&rng) >> 11) + 1;
        check_log(k);
        check_log((k >> (i % NORMAL_BITS)) + 1);
        check_log(WHOLE - (k >> (i % NORMAL_BITS)));
    }
    assert_true(normal_log(1) == 0);
    assert_true(normal_log(1 - 0x1p-53) == -0x1p-53);
}

static void units_are_exact(void **state)
{
    (void)state;
    for (int i = 0; i < RANDOM; i++) {
        uint64_t k = tiered_rng_u64(&rng) >> 11 >> (i % NORMAL_BITS);
        assert_true(normal_unit(k) == (double)(k + 1) * 0x1p-53);
        assert_true(normal_unit(WHOLE - 1 - k) == (double)(WHOLE - k) * 0x1p-53);
    }
    assert_true(normal_unit(0) == 0x1p-53 && normal_unit(WHOLE - 1) == 1);
}

static void check_turn(uint64_t k)
{
    const long double full = 6.283185307179586476925286766559005768L;
    uint64_t turned = k + WHOLE / 8, q = turned / (WHOLE / 4);
    long double angle =
        full * 0x1p-53L *
        ((long double)(turned % (WHOLE / 4)) - (long double)(WHOLE / 8));
    const long double s = sinl(angle), c = cosl(angle);
    const long double round[] = {s, c, -s, -c, s, c}; /* the next quarters' sines */
    double sine, cosine;
    normal_turn(k, &sine, &cosine);
    if (ulps(sine, round[q % 4]) > 1 || ulps(cosine, round[q % 4 + 1]) > 1) {
        fail_msg("2 pi %llu / 2^53 has %.17g and %.17g, not %.20Lg and %.20Lg",
                 (unsigned long long)k, sine, cosine, round[q % 4], round[q % 4 + 1]);
    }
}

static void turns_are_exact(void **state)
{
    (void)state;
    for (uint64_t octant = 0; octant < 8; octant++) {
        uint64_t edge = octant * (WHOLE / 8);
        for (uint64_t k = 0; k < 2000; k++) {
            check_turn(edge + k);
            check_turn((edge - k) % WHOLE);
        }
        for (int e = 0; e < 50; e++) {
            check_turn(edge + ((uint64_t)1 << e));
            check_turn((edge - ((uint64_t)1 << e)) % WHOLE);
        }
    }
    for (int i = 0; i < RANDOM; i++) {
        uint64_t k = tiered_rng_u64(&rng) >> 11;
        check_turn(k);
        check_turn(k / 8 * 8 % (WHOLE / 8) / (1 + (uint64_t)(i % 64)) +
                   (uint64_t)(i % 8) * (WHOLE / 8));
    }
    static const double sines[] = {0, 1, 0, -1, 0};
    for (uint64_t q = 0; q < 4; q++) {
        double sine, cosine;
        normal_turn(q * (WHOLE / 4), &sine, &cosine);
        assert_true(sine == sines[q] && cosine == sines[q + 1]);
    }
}

/* ---- the loop ---- */

/* At each width what the formula says of each pair of words, the extremes among them.
 */
static void widths_agree(void **state)
{
    (void)state;
    enum { GROUPS = 200, HALF = NORMAL_GROUP / 2, ALL = GROUPS * NORMAL_GROUP };
    static uint64_t words[ALL];
    static double values[ALL];
    for (size_t i = 0; i < ALL; i++) {
        uint64_t word = tiered_rng_u64(&rng);
        words[i] = i % 11 == 0 ? 0 : i % 13 == 0 ? ~(uint64_t)0 : word;
    }
    for (enum tiered_vector_level l = 0; l <= tiered_vector_level(); l++) {
        for (size_t i = 0; i < ALL; i++) {
            values[i] = (double)i;
        }
        normal_add(l)(words, GROUPS, 1.7, values);
        for (size_t i = 0; i < ALL; i += i % NORMAL_GROUP == HALF - 1 ? HALF + 1 : 1) {
            double sine, cosine;
            double radius = 1.7 * sqrt(-2 * normal_log(normal_unit(words[i] >> 11)));
            normal_turn(words[i + HALF] >> 11, &sine, &cosine);
            assert_true(values[i] == (double)i + radius * cosine);
            assert_true(values[i + HALF] == (double)(i + HALF) + radius * sine);
        }
    }
}

/* The furthest value is that of 53 bits, sqrt(2 * 53 ln 2): nothing cuts the tails. */
static void tails_reach_far(void **state)
{
    (void)state;
    static const uint64_t words[NORMAL_GROUP];
    double values[NORMAL_GROUP] = {0};
    normal_add(tiered_vector_level())(words, 1, 1, values);
    assert_true(fabs(values[0] - 8.5716743486529) < 1e-12);
    assert_true(values[NORMAL_GROUP / 2] == 0);
}

/* ---- the filter ---- */

struct noise {
    struct kit_codec codec;
    struct tiered_layout *layout;
};

static struct noise noise_of(const char *level, int seed, size_t n)
{
    struct tiered_error err = {0};
    char json[64];
    struct noise noise = {.layout = kit_flat(TIERED_F64, n)};
    snprintf(json, sizeof(json), "{\"noise_multiplier\":1,\"insecure_seed\":%d}", seed);
    setenv("TIERED_VECTOR", level, 1);
    noise.codec = kit_open("gaussian", json, noise.layout);
    unsetenv("TIERED_VECTOR");
    assert_int_equal(noise.codec.ops->sensitivity(noise.codec.state, 1, &err), 0);
    assert_int_equal(noise.codec.ops->begin(noise.codec.state, &kit_hosting.host, &err),
                     0);
    return noise;
}

static void noise_finish(struct noise *noise)
{
    kit_close(&noise->codec);
    tiered_layout_unref(noise->layout);
}

static void add(const struct noise *noise, uint32_t block, size_t at, size_t n,
                double *values)
{
    struct tiered_error err = {0};
    const struct tiered_block like = {.index = block,
                                      .dtype = TIERED_F64,
                                      .role = TIERED_PARAMETER,
                                      .n_elements = 10000};
    if (noise->codec.ops->add(noise->codec.state, &like, at, n, values, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

/* In one piece or in any, on vectors of any width, in a block's middle or at its end.
 */
static void noise_is_an_elements_own(void **state)
{
    (void)state;
    enum { N = 10000 };
    static double whole[N], pieces[N], other[N];
    struct noise first = noise_of("portable", 1, N);
    add(&first, 3, 0, N, whole);
    for (size_t l = 0; l < TIERED_COUNT(levels); l++) {
        struct noise noise = noise_of(levels[l], 1, N);
        memset(pieces, 0, sizeof(pieces));
        for (size_t at = 0; at < N;) { /* 64 to 4096 at a time, and the rest */
            size_t n = 64 * (size_t)(1 + tiered_rng_u64(&rng) % 64);
            n = n < N - at ? n : N - at;
            add(&noise, 3, at, n, pieces + at);
            at += n;
        }
        assert_memory_equal(whole, pieces, sizeof(whole));
        for (size_t n = 1; n <= 130; n++) { /* what is not asked for stays as it is */
            memset(pieces, 0, sizeof(pieces));
            add(&noise, 3, 128, n, pieces);
            assert_memory_equal(whole + 128, pieces, n * sizeof(*whole));
            assert_true(pieces[n] == 0);
        }
        noise_finish(&noise);
    }
    add(&first, 4, 0, N, other);
    for (size_t i = 0; i < N; i++) {
        assert_true(other[i] != whole[i]);
    }
    noise_finish(&first);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* As many values beyond 1 to 5 deviations as there should be, on either side, and none
   twice: 53 bits do not show in four million values. */
static void tails_are_normal(void **state)
{
    (void)state;
    struct noise noise = noise_of("avx512", 5, 64);
    double *values = calloc(MANY, sizeof(*values));
    add(&noise, 0, 0, MANY, values);
    qsort(values, MANY, sizeof(*values), compare);
    for (int deviations = 1; deviations <= 5; deviations++) {
        size_t below = 0, above = 0;
        double want = 0.5 * erfc(deviations / sqrt(2)) * (double)MANY;
        for (size_t i = 0; i < MANY; i++) {
            below += values[i] < -deviations;
            above += values[i] > deviations;
        }
        assert_true(fabs((double)below - want) < 4 * sqrt(want));
        assert_true(fabs((double)above - want) < 4 * sqrt(want));
    }
    for (size_t i = 1; i < MANY; i++) {
        assert_true(values[i] != values[i - 1]);
    }
    free(values);
    noise_finish(&noise);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_are_exact),  cmocka_unit_test(logarithms_are_exact),
        cmocka_unit_test(turns_are_exact),  cmocka_unit_test(widths_agree),
        cmocka_unit_test(tails_reach_far),  cmocka_unit_test(noise_is_an_elements_own),
        cmocka_unit_test(tails_are_normal),
    };
    return cmocka_run_group_tests(tests, begin_random, kit_tear_down);
}
