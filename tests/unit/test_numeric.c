/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between dtypes, differences, sums, and the search for bad numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "core/base/base.h"
#include "core/model/numeric.h"

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* The value by the definition of the format, without the code under test. */
static double half_by_definition(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double sign = h >> 15 ? -1 : 1;
    if (exponent == 31) {
        return mantissa ? NAN : sign * INFINITY;
    }
    return exponent ? sign * ldexp(1024 + mantissa, exponent - 25)
                    : sign * ldexp(mantissa, -24);
}

static uint16_t half(float f)
{
    uint16_t h;
    tiered_from_f32(TIERED_F16, &f, 1, &h);
    return h;
}

static uint16_t half_of_double(double x)
{
    uint16_t h;
    tiered_from_f64(TIERED_F16, &x, 1, &h);
    return h;
}

static uint16_t bfloat(float f)
{
    uint16_t h;
    tiered_from_f32(TIERED_BF16, &f, 1, &h);
    return h;
}

static void test_every_half(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float f;
        double d, want = half_by_definition(h);
        tiered_to_f32(TIERED_F16, &h, 1, &f);
        tiered_to_f64(TIERED_F16, &h, 1, &d);
        if (isnan(want)) {
            assert_true(isnan(f) && isnan(d));
        } else {
            assert_true((double)f == want && d == want);
            assert_int_equal(half_of_double(d), h);
        }
        assert_int_equal(bits_of(f) >> 31, h >> 15);
        assert_int_equal(half(f), h); /* payloads of NaN and -0 as well */
    }
}

/* Between every two neighbours: the middle goes to the even one, and what is the least
   bit off the middle to the nearer one. */
static void test_half_rounds_to_even(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7bff; h++) {
        double middle = (half_by_definition(h) + half_by_definition(h + 1)) / 2;
        float f = (float)middle;
        assert_true((double)f == middle);
        uint16_t even = h & 1 ? h + 1 : h;
        assert_int_equal(half(f), even);
        assert_int_equal(half(-f), even | 0x8000);
        assert_int_equal(half(nextafterf(f, 0)), h);
        assert_int_equal(half(nextafterf(f, 1e9f)), h + 1);
        /* A double may lie nearer to the middle than any float does. */
        assert_int_equal(half_of_double(nextafter(middle, 0)), h);
        assert_int_equal(half_of_double(nextafter(middle, 1e9)), h + 1);
    }
}

static void test_half_edges(void **state)
{
    (void)state;
    assert_int_equal(half(65504), 0x7bff);
    assert_int_equal(half(nextafterf(65520, 0)), 0x7bff);
    assert_int_equal(half(65520), 0x7c00);
    assert_int_equal(half(-1e30f), 0xfc00);
    assert_int_equal(half(INFINITY), 0x7c00);
    assert_int_equal(half(0x1p-25f), 0);
    assert_int_equal(half(nextafterf(0x1p-25f, 1)), 1);
    assert_int_equal(half(-0.0f), 0x8000);
    assert_int_equal(half(float_of(0x7f800001)), 0x7e00); /* its payload is lost */
    assert_int_equal(half_of_double(1e300), 0x7c00);
    assert_int_equal(half_of_double(-1e-300), 0x8000);
    assert_true((half_of_double(NAN) & 0x7fff) > 0x7c00);
}

static void test_bfloat(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t b = (uint16_t)i;
        float f;
        tiered_to_f32(TIERED_BF16, &b, 1, &f);
        assert_int_equal(bits_of(f), i << 16);
        assert_int_equal(bfloat(f), b);
        if ((b & 0x7fff) < 0x7f80) {
            double down = nextafter((double)float_of((i << 16) | 0x8000), 0);
            uint16_t rounded;
            tiered_from_f64(TIERED_BF16, &down, 1, &rounded);
            assert_int_equal(rounded, b);
        }
    }
    assert_int_equal(bfloat(float_of(0x3f808000)), 0x3f80); /* a tie, even below */
    assert_int_equal(bfloat(float_of(0x3f818000)), 0x3f82); /* a tie, even above */
    assert_int_equal(bfloat(float_of(0x3f808001)), 0x3f81);
    assert_int_equal(bfloat(float_of(0x7f7fffff)), 0x7f80);
    assert_int_equal(bfloat(float_of(0x7f800001)), 0x7fc0);
}

static void test_integers_saturate(void **state)
{
    (void)state;
    const double in[] = {0.5, 1.5, -0.5, -1.5, 2.5, 1e30, -1e30, NAN, INFINITY};
    int8_t i8[9];
    tiered_from_f64(TIERED_I8, in, 9, i8);
    const int8_t want8[] = {0, 2, 0, -2, 2, 127, -128, 0, 127};
    assert_memory_equal(i8, want8, sizeof(want8));
    uint16_t u16[9];
    tiered_from_f64(TIERED_U16, in, 9, u16);
    const uint16_t want16[] = {0, 2, 0, 0, 2, 65535, 0, 0, 65535};
    assert_memory_equal(u16, want16, sizeof(want16));
    int64_t i64[9];
    tiered_from_f64(TIERED_I64, in, 9, i64);
    const int64_t want64[] = {0, 2, 0, -2, 2, INT64_MAX, INT64_MIN, 0, INT64_MAX};
    assert_memory_equal(i64, want64, sizeof(want64));
    const double edges[] = {0x1p63, nextafter(0x1p63, 0), -0x1p63, 0x1p64};
    tiered_from_f64(TIERED_I64, edges, 3, i64);
    assert_true(i64[0] == INT64_MAX && i64[1] == INT64_MAX - 1023 &&
                i64[2] == INT64_MIN);
    uint64_t u64[4];
    tiered_from_f64(TIERED_U64, edges, 4, u64);
    assert_true(u64[0] == 1ull << 63 && u64[2] == 0 && u64[3] == UINT64_MAX);
    const float floats[] = {2147483647.f, -2.5f, 300.f};
    int32_t i32[3];
    tiered_from_f32(TIERED_I32, floats, 3, i32);
    assert_true(i32[0] == INT32_MAX && i32[1] == -2 && i32[2] == 300);
}

/* Values that every dtype can hold come back from each conversion. */
static void test_round_trips(void **state)
{
    (void)state;
    const double values[] = {0, 1, 2, 3, 64, 100, 127};
    for (int dtype = 0; dtype < TIERED_N_DTYPES; dtype++) {
        uint8_t raw[7 * 8], again[7 * 8];
        double d[7];
        float f[7];
        tiered_from_f64((enum tiered_dtype)dtype, values, 7, raw);
        tiered_to_f64((enum tiered_dtype)dtype, raw, 7, d);
        assert_memory_equal(d, values, sizeof(d));
        tiered_to_f32((enum tiered_dtype)dtype, raw, 7, f);
        tiered_from_f32((enum tiered_dtype)dtype, f, 7, again);
        assert_memory_equal(raw, again,
                            7 * tiered_dtype_size((enum tiered_dtype)dtype));
    }
    int16_t minus = -7;
    double d;
    tiered_to_f64(TIERED_I16, &minus, 1, &d);
    assert_true(d == -7);
    double x = 0.1;
    float f;
    tiered_from_f64(TIERED_F32, &x, 1, &f);
    assert_true(f == 0.1f);
}

static void test_subtract_and_add(void **state)
{
    (void)state;
    float a[3] = {1.5f, -2, 1e-3f}, b[3] = {0.25f, 3, 1e-3f};
    tiered_subtract(TIERED_F32, a, b, 3, a); /* in place */
    assert_true(a[0] == 1.25f && a[1] == -5 && a[2] == 0);
    tiered_add_to(TIERED_F32, a, b, 3, b);
    assert_true(b[0] == 1.5f && b[1] == -2 && b[2] == 1e-3f);

    int8_t small[2] = {-128, 127}, one[2] = {1, -1}, out[2];
    tiered_subtract(TIERED_I8, small, one, 2, out);
    assert_true(out[0] == 127 && out[1] == -128); /* wraps */
    tiered_add_to(TIERED_I8, out, one, 2, out);
    assert_memory_equal(out, small, 2);
    uint64_t wide = 1, two = 2;
    tiered_subtract(TIERED_U64, &wide, &two, 1, &wide);
    assert_true(wide == UINT64_MAX);

    uint8_t blob[2] = {7, 9}, base[2] = {1, 2}, moved[2];
    tiered_subtract(TIERED_U8, blob, base, 2, moved);
    assert_memory_equal(moved, blob, 2);
    tiered_add_to(TIERED_U8, base, moved, 2, base);
    assert_memory_equal(base, blob, 2);
}

/* More than a tile of halves, against the definition. */
static void test_halves_combine(void **state)
{
    (void)state;
    static uint16_t a[3000], b[3000], out[3000];
    for (int i = 0; i < 3000; i++) {
        a[i] = (uint16_t)(i * 7 % 0x7c00);
        b[i] = (uint16_t)(i * 13 % 0x7c00);
    }
    tiered_subtract(TIERED_F16, a, b, 3000, out);
    for (int i = 0; i < 3000; i++) {
        double want = half_by_definition(a[i]) - half_by_definition(b[i]);
        assert_int_equal(out[i], half_of_double(want));
    }
    tiered_add_to(TIERED_F16, a, b, 3000, a);
    double want = half_by_definition(2999 * 7 % 0x7c00) + half_by_definition(b[2999]);
    assert_int_equal(a[2999], half_of_double(want));
}

static void test_first_nonfinite(void **state)
{
    (void)state;
    static float f[5000];
    assert_int_equal(tiered_first_nonfinite(TIERED_F32, f, 5000), 5000);
    f[4998] = NAN;
    assert_int_equal(tiered_first_nonfinite(TIERED_F32, f, 5000), 4998);
    f[1024] = -INFINITY;
    assert_int_equal(tiered_first_nonfinite(TIERED_F32, f, 5000), 1024);
    double d[3] = {1e308, INFINITY, 0};
    assert_int_equal(tiered_first_nonfinite(TIERED_F64, d, 3), 1);
    uint16_t h[3] = {0x7bff, 0xfbff, 0xfc01}, b[2] = {0x7f7f, 0xff80};
    assert_int_equal(tiered_first_nonfinite(TIERED_F16, h, 3), 2);
    assert_int_equal(tiered_first_nonfinite(TIERED_BF16, b, 2), 1);
    int32_t i[2] = {-1, -1}; /* the bits of a NaN */
    assert_int_equal(tiered_first_nonfinite(TIERED_I32, i, 2), 2);
    assert_int_equal(tiered_first_nonfinite(TIERED_F32, f, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half),
        cmocka_unit_test(test_half_rounds_to_even),
        cmocka_unit_test(test_half_edges),
        cmocka_unit_test(test_bfloat),
        cmocka_unit_test(test_integers_saturate),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_subtract_and_add),
        cmocka_unit_test(test_halves_combine),
        cmocka_unit_test(test_first_nonfinite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
