/* SPDX-License-Identifier: Apache-2.0 */
/* Values of every float dtype: exact as f64, cut towards zero or rounded to nearest,
   the same bits at every vector width; and with them the norm that clip lets out. */
#include "codec_kit.h"

#include <float.h>

#include "values.h"

#define N 20000

static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64, TIERED_F16,
                                           TIERED_BF16};
static const char *const levels[] = {"portable", "avx2", "avx512"};

static struct tiered_rng rng;

static int begin_random(void **state)
{
    const uint8_t key[32] = {9, 8, 7};
    tiered_rng_init(&rng, key);
    return kit_set_up(state);
}

static bool is_half(enum tiered_dtype dtype)
{
    return dtype == TIERED_F16 || dtype == TIERED_BF16;
}

/* 16 bits by the book: a sign, an exponent and what follows it. */
static double half_value(enum tiered_dtype dtype, uint16_t bits)
{
    int digits = dtype == TIERED_F16 ? 10 : 7, bias = dtype == TIERED_F16 ? 15 : 127;
    int most = (1 << (15 - digits)) - 1, e = bits >> digits & most;
    double m = bits & ((1 << digits) - 1), sign = bits & 0x8000 ? -1 : 1;
    if (e == most) {
        return m != 0 ? NAN : sign * INFINITY;
    }
    return sign * (e ? ldexp(m + (1 << digits), e - bias - digits)
                     : ldexp(m, 1 - bias - digits));
}

static double value_at(enum tiered_dtype dtype, const void *data, size_t i)
{
    return dtype == TIERED_F64   ? ((const double *)data)[i]
           : dtype == TIERED_F32 ? (double)((const float *)data)[i]
                                 : half_value(dtype, ((const uint16_t *)data)[i]);
}

static double largest(enum tiered_dtype dtype)
{
    return dtype == TIERED_F64 ? DBL_MAX
           : dtype == TIERED_F32
               ? (double)FLT_MAX
               : half_value(dtype, dtype == TIERED_F16 ? 0x7bff : 0x7f7f);
}

/* The next value of the dtype further from zero. */
static double further(enum tiered_dtype dtype, const void *data, size_t i)
{
    if (is_half(dtype)) {
        return half_value(dtype, (uint16_t)(((const uint16_t *)data)[i] + 1));
    }
    double x = value_at(dtype, data, i), way = copysign(INFINITY, x);
    return dtype == TIERED_F64 ? nextafter(x, way)
                               : (double)nextafterf((float)x, (float)way);
}

/* Bits that are a finite value: any, or about a power of two, subnormal, the largest.
 */
static uint64_t any_bits(int width, int digits)
{
    uint64_t one = (uint64_t)1 << digits, sign = tiered_rng_u64(&rng) << (width - 1);
    uint64_t most = ((uint64_t)1 << (width - 1 - digits)) - 1, bits;
    do {
        bits = tiered_rng_u64(&rng) >> (65 - width);
        uint64_t power = bits & ~(one - 1), near = tiered_rng_u64(&rng) % 7;
        switch (tiered_rng_u64(&rng) % 8) {
        case 0:
            bits = power + near;
            break;
        case 1:
            bits = power >= near ? power - near : power;
            break;
        case 2:
            bits &= one - 1;
            break;
        case 3:
            bits = near;
            break;
        case 4:
            bits = most * one - 1 - near;
            break;
        default:
            break;
        }
    } while (bits >> digits >= most);
    uint64_t all = width == 64 ? ~(uint64_t)0 : ((uint64_t)1 << width) - 1;
    return (bits | sign) & all;
}

static void fill(enum tiered_dtype dtype, void *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (dtype == TIERED_F64) {
            ((uint64_t *)out)[i] = any_bits(64, 52);
        } else if (dtype == TIERED_F32) {
            ((uint32_t *)out)[i] = (uint32_t)any_bits(32, 23);
        } else {
            ((uint16_t *)out)[i] = (uint16_t)any_bits(16, dtype == TIERED_F16 ? 10 : 7);
        }
    }
}

/* ---- one value ---- */

static void halves_are_read_exactly(void **state)
{
    (void)state;
    for (enum tiered_vector_level l = 0; l <= tiered_vector_level(); l++) {
        for (int k = 2; k < 4; k++) {
            for (uint32_t bits = 0; bits < 0x10000; bits++) {
                uint16_t half = (uint16_t)bits;
                double want = half_value(dtypes[k], half), got = 0;
                bool finite = values_ops(l)->load(dtypes[k], &half, 1, &got);
                assert_int_equal(finite, isfinite(want));
                assert_true(!finite ||
                            (got == want && !signbit(got) == !signbit(want)));
            }
        }
    }
}

/* One value that is not finite is seen wherever it stands. */
static void what_is_not_finite_is_seen(void **state)
{
    (void)state;
    static double in[100], out[100];
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (enum tiered_vector_level l = 0; l <= tiered_vector_level(); l++) {
        const struct values_ops *ops = values_ops(l);
        for (size_t i = 0; i < 100; i++) {
            in[i] = DBL_MAX;
            assert_true(ops->load(TIERED_F64, in, i, out));
            in[i] = bad[i % 3];
            assert_false(ops->load(TIERED_F64, in, 100, out));
            assert_false(isfinite(ops->squares(TIERED_F64, in, 100)));
            in[i] = DBL_MAX;
        }
        memset(in, 0, sizeof(in));
    }
}

/* The largest of the dtype that is not above the product, on its side of zero. */
static void products_are_cut(void **state)
{
    (void)state;
    double factors[] = {0.5,
                        0x1p-24,
                        0x1p-130,
                        1 - 0x1p-53,
                        1 - 0x1p-24,
                        1e-300,
                        0x1.000001p-126,
                        0x1.fffp-133,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0,
                        0};
    static double in[N], out[N];
    for (size_t f = 8; f < TIERED_COUNT(factors); f++) {
        factors[f] = (double)(tiered_rng_u64(&rng) >> 11) * 0x1p-53;
    }
    for (size_t k = 0; k < 4; k++) {
        for (size_t f = 0; f < TIERED_COUNT(factors); f++) {
            fill(dtypes[k], in, N);
            values_ops(tiered_vector_level())->scale(dtypes[k], in, N, factors[f], out);
            for (size_t i = 0; i < N; i++) {
                double x = value_at(dtypes[k], in, i),
                       made = value_at(dtypes[k], out, i);
                double want = x * factors[f];
                assert_true(!signbit(made) == !signbit(x));
                assert_true(fabs(made) <= fabs(want));
                assert_true(dtypes[k] == TIERED_F64
                                ? made == want
                                : fabs(further(dtypes[k], out, i)) > fabs(want));
            }
        }
    }
}

/* To the nearest, and of two as near the even one. */
static void noise_is_rounded_to_the_nearest(void **state)
{
    (void)state;
    static double in[N];
    static uint16_t out[N];
    for (size_t k = 2; k < 4; k++) {
        double most = largest(dtypes[k]);
        fill(dtypes[k], out, N);
        for (size_t i = 0; i < N; i++) {
            double low = half_value(dtypes[k], out[i]),
                   high = further(dtypes[k], out, i);
            double middle = isfinite(high) ? 0.5 * (low + high) : low;
            static const double off[] = {0, 0x1p-52, -0x1p-52, 0x1p-30, -0x1p-30, 0.9};
            in[i] = middle * (1 + off[i % 6]);
        }
        values_ops(tiered_vector_level())->store(dtypes[k], in, N, out);
        for (size_t i = 0; i < N; i++) {
            double made = half_value(dtypes[k], out[i]), x = in[i];
            double high = further(dtypes[k], out, i);
            double low =
                out[i] & 0x7fff ? half_value(dtypes[k], (uint16_t)(out[i] - 1)) : -high;
            double off = fabs(made - x);
            assert_true(fabs(made) <= most);
            if (fabs(x) >= most) {
                assert_true(made == copysign(most, x));
                continue;
            }
            assert_true(off <= fabs(low - x) && off <= fabs(high - x));
            assert_true((off < fabs(low - x) && off < fabs(high - x)) ||
                        out[i] % 2 == 0);
        }
    }
    static const double large[] = {1e39, -1e39, INFINITY};
    float f[3];
    double d[3];
    values_ops(tiered_vector_level())->store(TIERED_F32, large, 3, f);
    values_ops(tiered_vector_level())->store(TIERED_F64, large, 3, d);
    assert_true(f[0] == FLT_MAX && f[1] == -FLT_MAX && f[2] == FLT_MAX);
    assert_true(d[0] == 1e39 && d[1] == -1e39 && d[2] == DBL_MAX);
}

/* ---- many ---- */

/* In any number, from any place, whatever the width of the vectors. */
static void widths_agree(void **state)
{
    (void)state;
    static double in[N], out[2][N], values[2][N];
    static const size_t sizes[] = {0,  1,  2,  3,  4,  7,  8,  9,  15,      16,
                                   17, 31, 32, 33, 63, 64, 65, 99, N - 127, N - 8};
    for (size_t k = 0; k < 4; k++) {
        fill(dtypes[k], in, N);
        for (size_t s = 0; s < TIERED_COUNT(sizes); s++) {
            size_t n = sizes[s], width = tiered_dtype_size(dtypes[k]);
            const uint8_t *from = (const uint8_t *)in + s % 8 * width;
            memset(out, 0, sizeof(out));
            memset(values, 0, sizeof(values));
            const struct values_ops *a = values_ops(TIERED_VECTOR_PORTABLE);
            double sum = a->squares(dtypes[k], from, n);
            assert_true(a->load(dtypes[k], from, n, values[0]));
            a->scale(dtypes[k], from, n, 0.7, out[0]);
            for (enum tiered_vector_level l = 1; l <= tiered_vector_level(); l++) {
                const struct values_ops *b = values_ops(l);
                double other = b->squares(dtypes[k], from, n);
                assert_memory_equal(&sum, &other, sizeof(sum));
                assert_true(b->load(dtypes[k], from, n, values[1]));
                assert_memory_equal(values[0], values[1], sizeof(values[0]));
                b->scale(dtypes[k], from, n, 0.7, out[1]);
                assert_memory_equal(out[0], out[1], sizeof(out[0]));
                b->store(dtypes[k], values[1], n, out[1]);
                assert_memory_equal(from, out[1], n * width); /* there and back */
                memset(out[1], 0, sizeof(out[1]));
            }
        }
    }
}

static void sums_are_near(void **state)
{
    (void)state;
    static double in[N];
    for (size_t n = 0; n < N; n = n < 40 ? n + 1 : 2 * n + 1) {
        long double want = 0;
        for (size_t i = 0; i < n; i++) {
            in[i] = tiered_rng_normal(&rng);
            want += (long double)in[i] * in[i];
        }
        double got = values_ops(tiered_vector_level())->squares(TIERED_F64, in, n);
        assert_true(fabsl(got - want) <= 1e-14L * want);
    }
}

/* ---- clip ---- */

static long double norm_of(enum tiered_dtype dtype, const void *data, size_t n)
{
    long double sum = 0;
    for (size_t i = 0; i < n; i++) {
        long double x = value_at(dtype, data, i);
        sum += x * x;
    }
    return sqrtl(sum);
}

/* To a share of its norm, at each vector width; the norm that arrives is in *ret. */
static void clip_to(enum tiered_dtype dtype, const void *in, size_t n, double bound,
                    long double *ret)
{
    struct tiered_layout *layout = kit_flat(dtype, n);
    size_t size = n * tiered_dtype_size(dtype);
    uint8_t *out[2] = {malloc(size), malloc(size)};
    char json[64];
    snprintf(json, sizeof(json), "{\"norm\":%.17g}", bound);
    for (size_t l = 0; l < TIERED_COUNT(levels); l++) {
        setenv("TIERED_VECTOR", levels[l], 1);
        kit_trip("clip", json, layout, in, out[l > 0]);
        unsetenv("TIERED_VECTOR");
        assert_memory_equal(out[0], out[l > 0], size);
    }
    *ret = norm_of(dtype, out[0], n);
    free(out[0]);
    free(out[1]);
    tiered_layout_unref(layout);
}

/* Random values of one kind: about powers of two, subnormal, the largest, or normal. */
static void fill_kind(enum tiered_dtype dtype, int kind, void *out, size_t n)
{
    static double values[N];
    static const double least[] = {[TIERED_F32] = 0x1p-126,
                                   [TIERED_F64] = 0x1p-400, /* its square is one */
                                   [TIERED_F16] = 0x1p-14,
                                   [TIERED_BF16] = 0x1p-126};
    double most = dtype == TIERED_F64 ? 0x1p500 : largest(dtype);
    for (size_t i = 0; i < n; i++) {
        double u = (double)(tiered_rng_u64(&rng) >> 11) * 0x1p-53;
        double sign = tiered_rng_u64(&rng) % 2 ? -1 : 1;
        int power = (int)(tiered_rng_u64(&rng) % 8);
        double off = (double)(int64_t)(tiered_rng_u64(&rng) % 5) - 2;
        double digit = is_half(dtype)        ? 0x1p-10
                       : dtype == TIERED_F32 ? 0x1p-24
                                             : 0x1p-53;
        values[i] = sign * (kind == 0   ? ldexp(1 + off * digit, power - 4)
                            : kind == 1 ? u * least[dtype]
                            : kind == 2 ? most * (1 - off * digit)
                                        : tiered_rng_normal(&rng));
    }
    values_ops(tiered_vector_level())->store(dtype, values, n, out);
}

/* What arrives is not above C, but for what f64 cannot tell, and not far below. */
static void the_norm_stays_bounded(void **state)
{
    (void)state;
    static double in[N];
    static const double step[] = {[TIERED_F32] = 0x1p-23,
                                  [TIERED_F64] = 1e-14,
                                  [TIERED_F16] = 0x1p-10,
                                  [TIERED_BF16] = 0x1p-7};
    for (size_t k = 0; k < 4; k++) {
        for (int turn = 0; turn < 40; turn++) {
            int kind = turn % 4;
            size_t n = 1 + (size_t)(tiered_rng_u64(&rng) % (turn < 36 ? 300 : N));
            double share = turn % 5 == 0   ? 0.5
                           : turn % 5 == 1 ? 1 - 0x1p-40
                                           : 0.1 + 0.1 * (turn % 9);
            fill_kind(dtypes[k], kind, in, n);
            long double norm, before = norm_of(dtypes[k], in, n);
            double bound = (double)(before * share);
            if (!(bound > 0) || !isfinite(bound)) {
                continue;
            }
            clip_to(dtypes[k], in, n, bound, &norm);
            assert_true(norm <= bound * (1 + 1e-14L));
            assert_true(kind == 1 || dtypes[k] == TIERED_F16 ||
                        norm >= bound * (1 - (long double)step[dtypes[k]]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_read_exactly),
        cmocka_unit_test(what_is_not_finite_is_seen),
        cmocka_unit_test(products_are_cut),
        cmocka_unit_test(noise_is_rounded_to_the_nearest),
        cmocka_unit_test(widths_agree),
        cmocka_unit_test(sums_are_near),
        cmocka_unit_test(the_norm_stays_bounded),
    };
    return cmocka_run_group_tests(tests, begin_random, kit_tear_down);
}
