/* SPDX-License-Identifier: Apache-2.0 */
/* qsgd: that its mean is the value and its variance what the paper says, the packing by
   hand, and that a pass is the same bytes on every machine. Seeds are fixed: the
   statistics come out the same in every run. */
#include "codec_kit.h"

/* The path names the pass, and with it the random numbers. */
static void set_round(unsigned round)
{
    static char path[16];
    snprintf(path, sizeof(path), "%u", round);
    tiered_hosting_init(&kit_hosting, 7, "test", "edge", "edge-1", path);
}

/* Many rounds of one update. Each value's mean within 4.9 standard errors of a draw
   that goes up as often as it must, the sum of squares under the paper's bound, and no
   value off by more than a step. */
static void statistics(const char *json, unsigned levels, bool linf)
{
    enum { N = 64, DRAWS = 10000 };
    float in[N], out[N];
    double sum[N] = {0}, squares[N] = {0}, norm = 0, variance = 0;
    struct tiered_layout *layout = kit_flat(TIERED_F32, N);
    kit_normal(in, N, 0.02, 5);
    for (int i = 0; i < N; i++) {
        norm = linf ? fmax(norm, fabs((double)in[i]))
                    : norm + (double)in[i] * (double)in[i];
    }
    norm = linf ? norm : sqrt(norm);
    struct kit_codec c = kit_open("qsgd", json, layout);
    for (unsigned draw = 0; draw < DRAWS; draw++) {
        struct kit_pass p;
        struct tiered_error err = {0};
        size_t made;
        set_round(draw + 1);
        kit_encode(&c, in, &p);
        assert_int_equal(c.ops->inverse_begin(c.state, p.header, p.header_size, &err),
                         0);
        assert_int_equal(c.ops->inverse(c.state, layout->blocks, p.blocks[0].data,
                                        p.blocks[0].size, out, sizeof(out), &made,
                                        &err),
                         0);
        kit_pass_finish(&p);
        for (int i = 0; i < N; i++) {
            double off = (double)out[i] - (double)in[i];
            assert_true(fabs(off) <= norm / levels * 1.000001);
            sum[i] += off;
            squares[i] += off * off;
        }
    }
    for (int i = 0; i < N; i++) {
        double r = fabs((double)in[i]) * levels / norm, up = r - floor(r);
        double error = norm / levels * sqrt(up * (1 - up) / DRAWS);
        assert_true(fabs(sum[i] / DRAWS) <= 4.9 * error + 1e-9);
        variance += squares[i] / DRAWS;
    }
    double s = levels, d = N;
    double bound = linf ? d / (4 * s * s) : fmin(d / (s * s), sqrt(d) / s);
    assert_true(variance <= bound * norm * norm);
    assert_true(variance > 0);
    kit_close(&c);
    tiered_layout_unref(layout);
    set_round(3);
}

static void test_unbiased(void **state)
{
    (void)state;
    statistics("{}", 127, false);
    statistics("{\"levels\":7}", 7, false);
    statistics("{\"levels\":1}", 1, false);
    statistics("{\"levels\":1,\"norm\":\"linf\",\"packing\":\"elias\"}", 1, true);
    statistics("{\"levels\":7,\"norm\":\"linf\"}", 7, true);
}

/* Of values that lie on levels nothing is random: the bits by hand. */
static void test_fixed_by_hand(void **state)
{
    (void)state;
    const struct {
        const char *json;
        size_t n, size;
        float in[10];
        uint8_t levels[8];
    } cases[] = {
        /* 2 bits: 1+1, 0+1, -1+1, 0+1 from the lowest; the fifth in the next byte */
        {"{\"levels\":1,\"norm\":\"linf\"}", 5, 2, {3, 0, -3, 0, 3}, {0x46, 0x02}},
        /* 3 bits: 3+3, 1+3, -2+3 = 6, 4, 1: 0b001'100'110 */
        {"{\"levels\":3,\"norm\":\"linf\"}", 3, 2, {3, 1, -2}, {0x66, 0x00}},
        /* 4 bits */
        {"{\"levels\":7,\"norm\":\"linf\"}", 3, 2, {7, -7, 2}, {0x0e, 0x09}},
        {"{\"norm\":\"linf\"}", 3, 3, {127, -127, 5}, {254, 0, 132}},
        /* 5 bits: 10+10, 0+10, -10+10, 4+10 = 20, 10, 0, 14 */
        {"{\"levels\":10,\"norm\":\"linf\"}",
         4,
         3,
         {10, 0, -10, 4},
         {0x54, 0x01, 0x07}},
        /* 16 bits */
        {"{\"levels\":32767,\"norm\":\"linf\"}",
         2,
         4,
         {32767, -1},
         {0xfe, 0xff, 0xfe, 0x7f}},
    };
    for (size_t k = 0; k < TIERED_COUNT(cases); k++) {
        struct tiered_layout *layout = kit_flat(TIERED_F32, cases[k].n);
        struct kit_codec c = kit_open("qsgd", cases[k].json, layout);
        struct kit_pass p;
        float out[10], norm = 0;
        kit_encode(&c, cases[k].in, &p);
        kit_close(&c);
        assert_int_equal(p.blocks[0].size, 1 + 4 + cases[k].size);
        assert_int_equal(p.blocks[0].data[0], 0);
        memcpy(&norm, p.blocks[0].data + 1, 4);
        assert_true(norm == fabsf(cases[k].in[0]));
        assert_memory_equal(p.blocks[0].data + 5, cases[k].levels, cases[k].size);
        kit_decode("qsgd", "{}", layout, &p, out); /* the header says how */
        assert_memory_equal(out, cases[k].in, cases[k].n * sizeof(float));
        kit_pass_finish(&p);
        tiered_layout_unref(layout);
    }
}

/* 0 0 2 0 -1 and 11 zeros: gamma(3) + gamma(2), gamma(2) - gamma(1), gamma(12), that is
   011 0 010, 010 1 1, 0001100: 0110 0100 1011 0001 100 and zeros. */
static void test_elias_by_hand(void **state)
{
    (void)state;
    const float in[16] = {0, 0, 2, 0, -1};
    const uint8_t want[] = {0x64, 0xb1, 0x80};
    float out[16];
    struct tiered_layout *layout = kit_flat(TIERED_F32, 16);
    struct kit_codec c = kit_open(
        "qsgd", "{\"levels\":2,\"norm\":\"linf\",\"packing\":\"elias\"}", layout);
    struct kit_pass p;
    kit_encode(&c, in, &p);
    kit_close(&c);
    assert_int_equal(p.blocks[0].size, 1 + 4 + 3);
    assert_int_equal(p.blocks[0].data[0], 1);
    assert_memory_equal(p.blocks[0].data + 5, want, 3);
    kit_decode("qsgd", "{}", layout, &p, out);
    for (int i = 0; i < 16; i++) {
        assert_true(out[i] == in[i]);
    }
    kit_pass_finish(&p);
    tiered_layout_unref(layout);
}

/* Where codes of runs would be longer, levels are packed at fixed width. */
static void test_elias_gives_way(void **state)
{
    (void)state;
    enum { N = 5000 };
    static float in[N], out[N];
    struct tiered_layout *layout = kit_flat(TIERED_F32, N);
    kit_normal(in, N, 1, 8);
    size_t fixed = kit_trip("qsgd", "{\"norm\":\"linf\"}", layout, in, out);
    size_t elias =
        kit_trip("qsgd", "{\"norm\":\"linf\",\"packing\":\"elias\"}", layout, in, out);
    assert_int_equal(fixed, 1 + 10 * 4 + N);
    assert_int_equal(elias, fixed);
    fixed = kit_trip("qsgd", "{\"levels\":1}", layout, in, out);
    elias = kit_trip("qsgd", "{\"levels\":1,\"packing\":\"elias\"}", layout, in, out);
    assert_int_equal(fixed, 1 + 10 * 4 + 9 * 128 + 98);
    assert_true(elias < fixed / 3);
    tiered_layout_unref(layout);
}

/* One key, many blocks and buckets that end anywhere: the numbers differ, the bytes do
   not from one pass to the next. Golden bytes keep machines together. */
static void test_same_everywhere(void **state)
{
    (void)state;
    enum { N = 600000 };
    float *in = malloc(N * sizeof(float));
    struct tiered_layout *layout = kit_flat(TIERED_F32, N);
    for (size_t i = 0; i < N; i++) {
        in[i] = i % 512 == 0 ? 2 : 1; /* half a level: up and down at random */
    }
    struct kit_codec c = kit_open("qsgd", "{\"levels\":1,\"norm\":\"linf\"}", layout);
    struct kit_pass one, two, three;
    set_round(3);
    kit_encode(&c, in, &one);
    kit_encode(&c, in, &two);
    set_round(4);
    kit_encode(&c, in, &three);
    set_round(3);
    size_t n = one.blocks[0].size;
    assert_int_equal(one.n_blocks, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_memory_equal(one.blocks[i].data, two.blocks[i].data, one.blocks[i].size);
    }
    assert_memory_not_equal(one.blocks[0].data, three.blocks[0].data, n);
    assert_memory_not_equal(one.blocks[0].data + n / 2, one.blocks[1].data + n / 2,
                            100);
    assert_int_equal(tiered_crc32c(0, one.blocks[0].data, n), 0xe53994b7);
    kit_pass_finish(&one);
    kit_pass_finish(&two);
    kit_pass_finish(&three);
    kit_close(&c);
    free(in);
    tiered_layout_unref(layout);
}

/* Buckets of sizes that nothing divides, in every float dtype: within a step. */
static void test_odd_buckets(void **state)
{
    (void)state;
    enum { N = 5001 };
    static double in[N], out[N];
    static uint8_t raw[N * 8], back[N * 8];
    const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64, TIERED_F16,
                                        TIERED_BF16};
    const char *const options[] = {
        "{\"bucket\":17,\"levels\":100}", "{\"bucket\":3001,\"levels\":100}",
        "{\"bucket\":100,\"levels\":100,\"norm\":\"linf\",\"packing\":\"elias\"}"};
    static float normal[N];
    kit_normal(normal, N, 1, 6);
    for (size_t d = 0; d < 4; d++) {
        struct tiered_layout *layout = kit_flat(dtypes[d], N);
        for (size_t k = 0; k < TIERED_COUNT(options); k++) {
            for (size_t i = 0; i < N; i++) {
                in[i] = (double)normal[i];
            }
            tiered_from_f64(dtypes[d], in, N, raw);
            tiered_to_f64(dtypes[d], raw, N, in);
            kit_trip("qsgd", options[k], layout, raw, back);
            tiered_to_f64(dtypes[d], back, N, out);
            double norm = sqrt(3100), rounding = dtypes[d] == TIERED_BF16 ? 0.02 : 0.01;
            for (size_t i = 0; i < N; i++) {
                assert_true(fabs(out[i] - in[i]) <=
                            norm / 100 + rounding * fabs(in[i]));
            }
        }
        tiered_layout_unref(layout);
    }
}

static void test_headers(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = kit_flat(TIERED_F32, 4);
    struct kit_codec c = kit_open("qsgd", "{}", layout);
    const uint8_t good[] = {1, 127, 0, 0, 0, 0, 2, 0, 0};
    assert_int_equal(c.ops->inverse_begin(c.state, good, 9, &err), 0);
    const uint8_t bad[][9] = {{2, 127, 0, 0, 0, 0, 2, 0, 0},
                              {1, 0, 0, 0, 0, 0, 2, 0, 0},
                              {1, 0, 128, 0, 0, 0, 2, 0, 0},
                              {1, 127, 0, 0, 0, 15, 0, 0, 0},
                              {1, 127, 0, 0, 0, 1, 0, 16, 0}};
    for (size_t i = 0; i < TIERED_COUNT(bad); i++) {
        assert_int_equal(c.ops->inverse_begin(c.state, bad[i], 9, &err), -1);
        assert_int_equal(err.code, TIERED_ECORRUPT);
    }
    assert_int_equal(c.ops->inverse_begin(c.state, good, 8, &err), -1);
    assert_int_equal(c.ops->inverse_begin(c.state, NULL, 0, &err), -1);
    kit_close(&c);
    tiered_layout_unref(layout);
}

/* Norms and levels that no sender makes. */
static void test_bad_blocks(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = kit_flat(TIERED_F32, 3);
    struct kit_codec c = kit_open("qsgd", "{\"levels\":7}", layout);
    const uint8_t header[] = {1, 7, 0, 0, 0, 0, 2, 0, 0};
    const uint8_t blocks[][7] = {{0, 0, 0, 0xc0, 0x7f, 0x77, 0x07},  /* NaN */
                                 {0, 0, 0, 0x80, 0x7f, 0x77, 0x07},  /* infinite */
                                 {0, 0, 0, 0x80, 0xbf, 0x77, 0x07},  /* -1 */
                                 {0, 0, 0, 0x80, 0x3f, 0x7f, 0x07},  /* level 8 */
                                 {0, 0, 0, 0x80, 0x3f, 0x77, 0x17},  /* unused bits */
                                 {2, 0, 0, 0x80, 0x3f, 0x77, 0x07},  /* packing */
                                 {1, 0, 0, 0x80, 0x3f, 0x00, 0x00},  /* no gap ends */
                                 {1, 0, 0, 0x80, 0x3f, 0x24, 0x00}}; /* too far */
    float out[3];
    size_t made;
    assert_int_equal(c.ops->inverse_begin(c.state, header, 9, &err), 0);
    for (size_t i = 0; i < TIERED_COUNT(blocks); i++) {
        assert_int_equal(
            c.ops->inverse(c.state, layout->blocks, blocks[i], 7, out, 12, &made, &err),
            -1);
        assert_int_equal(err.code, TIERED_ECORRUPT);
    }
    kit_close(&c);
    tiered_layout_unref(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unbiased),        cmocka_unit_test(test_fixed_by_hand),
        cmocka_unit_test(test_elias_by_hand),   cmocka_unit_test(test_elias_gives_way),
        cmocka_unit_test(test_same_everywhere), cmocka_unit_test(test_odd_buckets),
        cmocka_unit_test(test_headers),         cmocka_unit_test(test_bad_blocks),
    };
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
