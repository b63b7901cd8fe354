/* SPDX-License-Identifier: Apache-2.0 */
/* The codecs without randomness and state: fp16, bf16, int8, shuffle, lzma; and what
   all codecs have in common. */
#include "codec_kit.h"

static const char *const lossless[] = {"zstd", "lzma", "shuffle"};
static const struct {
    const char *name, *json;
} lossy[] = {{"fp16", "{}"},
             {"bf16", "{}"},
             {"int8", "{}"},
             {"int8", "{\"per\":\"channel\"}"},
             {"qsgd", "{}"},
             {"qsgd", "{\"levels\":1,\"norm\":\"linf\",\"packing\":\"elias\"}"},
             {"top-k", "{\"ratio\":0.3}"}};

/* Any bits at all, in tensors of every dtype and awkward sizes. */
static void test_lossless(void **state)
{
    (void)state;
    const struct kit_tensor tensors[] = {
        {TIERED_F32, TIERED_PARAMETER, 7, 11},    {TIERED_F32, TIERED_PARAMETER, 0, 0},
        {TIERED_F32, TIERED_PARAMETER, 1, 0},     {TIERED_F64, TIERED_PARAMETER, 5, 0},
        {TIERED_F16, TIERED_PARAMETER, 33, 3},    {TIERED_I64, TIERED_BUFFER, 3, 0},
        {TIERED_U8, TIERED_BUFFER, 1001, 0},      {TIERED_F32, TIERED_BUFFER, 17, 0},
        {TIERED_F32, TIERED_PARAMETER, 300000, 0}};
    struct tiered_layout *layout = kit_layout(tensors, TIERED_COUNT(tensors));
    size_t size = (size_t)layout->m.data_bytes;
    uint8_t *in = malloc(size), *out = malloc(size);
    const uint8_t key[32] = {3};
    struct tiered_rng rng;
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < size; i++) {
        in[i] = (uint8_t)tiered_rng_u64(&rng);
    }
    for (size_t k = 0; k < TIERED_COUNT(lossless); k++) {
        memset(out, 0xAA, size);
        kit_trip(lossless[k], "{}", layout, in, out);
        for (uint32_t i = 0; i < layout->n_blocks; i++) {
            const struct tiered_block *b = &layout->blocks[i];
            assert_memory_equal(in + b->offset_bytes, out + b->offset_bytes,
                                b->size_bytes);
        }
    }
    free(in);
    free(out);
    tiered_layout_unref(layout);
}

static void test_shuffle_planes(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = kit_flat(TIERED_F32, 3);
    struct kit_codec c = kit_open("shuffle", "{}", layout);
    uint8_t out[12];
    size_t made;
    const uint8_t in[] = {1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24};
    const uint8_t four[] = {1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24};
    const uint8_t two[] = {1, 3, 11, 2, 4, 12};
    assert_int_equal(
        c.ops->forward(c.state, layout->blocks, in, 12, out, 12, &made, &err), 0);
    assert_memory_equal(out, four, 12);
    /* behind a filter that left two bytes a value */
    assert_int_equal(
        c.ops->forward(c.state, layout->blocks, in, 6, out, 12, &made, &err), 0);
    assert_memory_equal(out, two, 6);
    assert_int_equal(
        c.ops->forward(c.state, layout->blocks, in, 7, out, 12, &made, &err), 0);
    assert_memory_equal(out, in, 7);
    assert_int_equal(
        c.ops->forward(c.state, layout->blocks, in, 12, out, 11, &made, &err), -1);
    kit_close(&c);
    tiered_layout_unref(layout);
}

/* Halves as IEEE 754 says, except that nothing finite becomes infinite. */
static void test_fp16_values(void **state)
{
    (void)state;
    const struct {
        float in, out;
    } cases[] = {
        {0.0f, 0.0f},
        {-0.0f, -0.0f},
        {1.0f, 1.0f},
        {1.00048828125f, 1.0f},         /* a tie goes to even */
        {1.00146484375f, 1.001953125f}, /* … also upwards */
        {65504.0f, 65504.0f},
        {65519.0f, 65504.0f},
        {65520.0f, 65504.0f},
        {3e38f, 65504.0f},
        {-3e38f, -65504.0f},
        {0x1p-24f, 0x1p-24f},
        {0x1p-25f, 0.0f},
        {0x1.8p-25f, 0x1p-24f},
        {0x1p-14f, 0x1p-14f},
        {0x1.ff8p-15f, 0x1.ff8p-15f},
        {-0x1p-149f, -0.0f},
        {0.1f, 0x1.998p-4f},
    };
    float in[TIERED_COUNT(cases)], out[TIERED_COUNT(cases)];
    struct tiered_layout *layout = kit_flat(TIERED_F32, TIERED_COUNT(cases));
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        in[i] = cases[i].in;
    }
    assert_int_equal(kit_trip("fp16", "{}", layout, in, out), sizeof(in) / 2);
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        assert_memory_equal(&out[i], &cases[i].out, sizeof(float));
    }
    tiered_layout_unref(layout);
}

/* Against the host's own conversions, over every exponent; f64 is rounded once. */
static void test_halves_agree(void **state)
{
    (void)state;
    enum { N = 100000 };
    static float in[N], out[N];
    static double wide[N], wide_out[N];
    static uint16_t half[N];
    const uint8_t key[32] = {9};
    struct tiered_rng rng;
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < N; i++) {
        int exponent = (int)tiered_rng_below(&rng, 40) - 25;
        wide[i] = ldexp(2 * tiered_rng_uniform(&rng) - 1, exponent);
        in[i] = (float)wide[i];
    }
    /* just above the middle of two halves: by way of f32 it would be the middle */
    wide[0] = 1 + 0x1p-11 + 0x1p-40;
    wide[1] = 1 + 0x1p-8 + 0x1p-40;
    struct tiered_layout *f32 = kit_flat(TIERED_F32, N), *f64 = kit_flat(TIERED_F64, N);
    const struct {
        const char *name;
        enum tiered_dtype dtype;
    } kinds[] = {{"fp16", TIERED_F16}, {"bf16", TIERED_BF16}};
    for (size_t k = 0; k < 2; k++) {
        kit_trip(kinds[k].name, "{}", f32, in, out);
        tiered_from_f32(kinds[k].dtype, in, N, half);
        for (size_t i = 0; i < N; i++) {
            float want;
            tiered_to_f32(kinds[k].dtype, half + i, 1, &want);
            assert_memory_equal(&out[i], &want, sizeof(want));
        }
        kit_trip(kinds[k].name, "{}", f64, wide, wide_out);
        for (size_t i = 0; i < N; i++) {
            /* nearest: at most half a unit of the last place off */
            double off = fabs(wide_out[i] - wide[i]);
            double ulp = ldexp(1, ilogb(wide[i]) - (k == 0 ? 10 : 7));
            double least = k == 0 ? 0x1p-24 : 0;
            assert_true(off <= (ulp > least ? ulp : least) / 2);
        }
    }
    assert_true(wide_out[1] == 1 + 0x1p-7); /* bf16 */
    kit_trip("fp16", "{}", f64, wide, wide_out);
    assert_true(wide_out[0] == 1 + 0x1p-10);
    tiered_layout_unref(f32);
    tiered_layout_unref(f64);
}

static void test_bf16_edges(void **state)
{
    (void)state;
    const float in[] = {0x1.fffffep127f, -0x1.ffp127f, 0x1p-149f, 1.00390625f, -0.0f};
    const float want[] = {0x1.fep127f, -0x1.fep127f, 0, 1.0f, -0.0f};
    float out[5];
    struct tiered_layout *layout = kit_flat(TIERED_F32, 5);
    assert_int_equal(kit_trip("bf16", "{}", layout, in, out), 10);
    assert_memory_equal(out, want, sizeof(out));
    tiered_layout_unref(layout);
    const double huge[] = {1e300, -1e300, 1e-300};
    double back[3];
    layout = kit_flat(TIERED_F64, 3);
    kit_trip("bf16", "{}", layout, huge, back);
    assert_true(back[0] == 0x1.fep127 && back[1] == -0x1.fep127 && back[2] == 0);
    kit_trip("fp16", "{}", layout, huge, back);
    assert_true(back[0] == 65504 && back[1] == -65504 && back[2] == 0);
    tiered_layout_unref(layout);
}

/* q = rint(v / scale), scale = largest / 127, by hand. */
static void test_int8_values(void **state)
{
    (void)state;
    const struct kit_tensor shape = {TIERED_F32, TIERED_PARAMETER, 2, 8};
    struct tiered_layout *layout = kit_layout(&shape, 1);
    const float in[16] = {127,   -127,   1,    0.5f,  1.5f, -2.5f, 0, 3,
                          12.7f, -1.27f, 0.1f, 0.05f, 0,    0,     0, 0};
    const int8_t by_tensor[16] = {127, -127, 1, 0, 2, -2, 0, 3, 13, -1};
    const int8_t rows[16] = {127, -127, 1, 0, 2, -2, 0, 3, 127, -13, 1, 0};
    struct kit_pass p;
    float scale, out[16];
    struct kit_codec c = kit_open("int8", "{}", layout);
    kit_encode(&c, in, &p);
    kit_close(&c);
    assert_int_equal(p.blocks[0].size, 4 + 16);
    memcpy(&scale, p.blocks[0].data, 4);
    assert_true(scale == 1);
    assert_memory_equal(p.blocks[0].data + 4, by_tensor, 16);
    kit_decode("int8", "{}", layout, &p, out);
    assert_true(out[0] == 127 && out[5] == -2 && out[8] == 13);
    kit_pass_finish(&p);
    c = kit_open("int8", "{\"per\":\"channel\"}", layout);
    kit_encode(&c, in, &p);
    kit_close(&c);
    assert_int_equal(p.blocks[0].size, 8 + 16);
    memcpy(&scale, p.blocks[0].data + 4, 4);
    assert_true(fabsf(scale - 0.1f) < 1e-8f);
    assert_int_equal(p.blocks[0].data[8 + 8], 127);
    assert_int_equal((int8_t)p.blocks[0].data[8 + 9], rows[9]);
    kit_decode("int8", "{\"per\":\"channel\"}", layout, &p, out);
    assert_true(fabsf(out[9] + 1.3f) < 1e-6f);
    kit_pass_finish(&p);
    tiered_layout_unref(layout);
}

/* A tensor over several blocks has one scale, and no value is off by more than half. */
static void test_int8_over_blocks(void **state)
{
    (void)state;
    enum { N = 700000 };
    float *in = malloc(N * sizeof(float)), *out = malloc(N * sizeof(float));
    struct tiered_layout *layout = kit_flat(TIERED_F32, N);
    kit_normal(in, N, 0.01, 1);
    in[N - 1] = -1.27f; /* the last block's, yet the first one's scale too */
    assert_true(layout->n_blocks == 3);
    assert_int_equal(kit_trip("int8", "{}", layout, in, out), N + 3 * 4);
    for (size_t i = 0; i < N; i++) {
        assert_true(fabsf(out[i] - in[i]) <= 0.005001f);
    }
    assert_true(out[N - 1] == in[N - 1] || fabsf(out[N - 1] + 1.27f) < 1e-6f);
    free(in);
    free(out);
    tiered_layout_unref(layout);
}

/* Subnormals and the largest floats keep within half a scale, and stay finite. */
static void test_int8_extremes(void **state)
{
    (void)state;
    float in[64], out[64];
    double wide[64], wide_out[64];
    const double sizes[] = {0x1p-149, 190 * 0x1p-149, 0x1p-126, 1, 0x1.fffffep127};
    struct tiered_layout *f32 = kit_flat(TIERED_F32, 64),
                         *f64 = kit_flat(TIERED_F64, 64);
    for (size_t k = 0; k < TIERED_COUNT(sizes); k++) {
        for (int i = 0; i < 64; i++) {
            wide[i] = sizes[k] / 63 * (i % 2 ? i : -i);
            in[i] = (float)wide[i];
        }
        kit_trip("int8", "{}", f32, in, out);
        kit_trip("int8", "{}", f64, wide, wide_out);
        double scale = sizes[k] / 127 > 0x1p-149 ? sizes[k] / 127 : 0x1p-149;
        for (int i = 0; i < 64; i++) {
            assert_true(isfinite(out[i]));
            assert_true(fabs((double)out[i] - (double)in[i]) <= scale * 0.67);
            assert_true(fabs(wide_out[i] - wide[i]) <= sizes[k] / 127 * 0.5001);
        }
    }
    memset(in, 0, sizeof(in));
    kit_trip("int8", "{}", f32, in, out);
    assert_memory_equal(in, out, sizeof(in));
    tiered_layout_unref(f32);
    tiered_layout_unref(f64);
}

/* Rows of a few values would cost more than they save. */
static void test_int8_leaves_small_rows(void **state)
{
    (void)state;
    const struct kit_tensor shape = {TIERED_F32, TIERED_PARAMETER, 1000, 1};
    struct tiered_layout *layout = kit_layout(&shape, 1);
    float in[1000], out[1000];
    kit_normal(in, 1000, 1, 2);
    assert_int_equal(kit_trip("int8", "{\"per\":\"channel\"}", layout, in, out), 4000);
    assert_memory_equal(in, out, sizeof(in));
    tiered_layout_unref(layout);
}

/* Statistics, counters and blobs are not a codec's to change. */
static void test_roles(void **state)
{
    (void)state;
    const struct kit_tensor tensors[] = {{TIERED_F32, TIERED_BUFFER, 100, 0},
                                         {TIERED_I32, TIERED_PARAMETER, 100, 0},
                                         {TIERED_U8, TIERED_PARAMETER, 100, 0},
                                         {TIERED_F32, TIERED_PARAMETER, 100, 0},
                                         {TIERED_F32, TIERED_CONTROL, 100, 0}};
    struct tiered_layout *layout = kit_layout(tensors, TIERED_COUNT(tensors));
    size_t size = (size_t)layout->m.data_bytes;
    uint8_t *in = calloc(1, size), *out = calloc(1, size);
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &layout->m.tensors[i];
        for (size_t k = 0; k < 100; k++) {
            double value = t->dtype == TIERED_F32 ? sin((double)k) : (double)k;
            if (t->dtype == TIERED_U8) {
                in[t->offset_bytes + k] = (uint8_t)k;
            } else {
                tiered_from_f64(t->dtype, &value, 1, in + t->offset_bytes + 4 * k);
            }
        }
    }
    for (size_t k = 0; k < TIERED_COUNT(lossy); k++) {
        memset(out, 0, size);
        kit_trip(lossy[k].name, lossy[k].json, layout, in, out);
        for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
            const struct tiered_tensor *t = &layout->m.tensors[i];
            int differs = memcmp(in + t->offset_bytes, out + t->offset_bytes,
                                 (size_t)t->size_bytes) != 0;
            assert_int_equal(differs, i >= 3);
        }
    }
    free(in);
    free(out);
    tiered_layout_unref(layout);
}

/* Empty, one value, all equal, subnormal, huge, of each float dtype: finite, and the
   empty ones have nothing to get wrong. */
static void test_adversarial(void **state)
{
    (void)state;
    const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64, TIERED_F16,
                                        TIERED_BF16};
    const double values[] = {0, 1, -1, 0x1p-149, -0x1p-130, 6e4, 1e-7, 3e38};
    const uint64_t counts[] = {0, 1, 2, 511, 512, 513, 1025};
    for (size_t k = 0; k < TIERED_COUNT(lossy); k++) {
        for (size_t d = 0; d < 4; d++) {
            for (size_t c = 0; c < TIERED_COUNT(counts); c++) {
                size_t n = (size_t)counts[c], width = tiered_dtype_size(dtypes[d]);
                struct tiered_layout *layout = kit_flat(dtypes[d], n);
                uint8_t *in = malloc(n * width + 1), *out = malloc(n * width + 1);
                for (size_t v = 0; v < TIERED_COUNT(values); v++) {
                    double value = values[v];
                    if (fabs(value) > 1e38) {
                        value = dtypes[d] == TIERED_F16 ? 65504
                                                        : 3e38 / sqrt((double)n + 1);
                    }
                    for (size_t i = 0; i < n; i++) {
                        tiered_from_f64(dtypes[d], &value, 1, in + i * width);
                    }
                    kit_trip(lossy[k].name, lossy[k].json, layout, in, out);
                    assert_int_equal(tiered_first_nonfinite(dtypes[d], out, n), n);
                    if (value == 0) {
                        assert_memory_equal(in, out, n * width);
                    }
                }
                free(in);
                free(out);
                tiered_layout_unref(layout);
            }
        }
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct tiered_layout *layout = kit_flat(TIERED_F32, 600);
    float in[600];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < TIERED_COUNT(lossy); k++) {
        for (size_t v = 0; v < 3; v++) {
            kit_normal(in, 600, 1, 1);
            in[577] = bad[v];
            kit_expect_refused(
                lossy[k].name, lossy[k].json, layout, in, TIERED_ERANGE,
                strcmp(lossy[k].name, "qsgd") == 0
                    ? "block 0 has a value that is not finite, or a bucket whose norm "
                      "is not"
                    : "block 0 has a value that is not a finite number");
        }
        /* another filter's bytes are no values */
        struct tiered_error err = {0};
        struct kit_codec c = kit_open(lossy[k].name, lossy[k].json, layout);
        uint8_t out[4096];
        size_t made;
        struct kit_pass p;
        kit_normal(in, 600, 1, 1);
        assert_int_equal(kit_begin(&c, (uint8_t *)in, &p, &err), 0);
        assert_int_equal(c.ops->forward(c.state, layout->blocks, in, 1000, out,
                                        sizeof(out), &made, &err),
                         -1);
        assert_string_equal(err.text, "works on values, but the filter before it made "
                                      "bytes of them: put it first");
        kit_close(&c);
    }
    tiered_layout_unref(layout);
}

static void test_damage(void **state)
{
    (void)state;
    struct tiered_layout *layout = kit_flat(TIERED_F32, 100);
    float in[100];
    kit_normal(in, 100, 1, 4);
    for (size_t k = 0; k < TIERED_COUNT(lossy); k++) {
        kit_damage(lossy[k].name, lossy[k].json, layout, in);
    }
    kit_damage("lzma", "{}", layout, in);
    tiered_layout_unref(layout);
}

/* A stream of zeros that says how much it makes of little, and one with a dictionary
   that no block needs. */
static void test_lzma_bombs(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    static uint8_t zeros[1u << 20], out[1u << 20];
    struct tiered_layout *large = kit_flat(TIERED_F32, 1u << 18),
                         *small = kit_flat(TIERED_F32, 10);
    struct kit_codec c = kit_open("lzma", "{\"preset\":9}", large);
    struct kit_pass p;
    size_t made;
    kit_encode(&c, zeros, &p);
    assert_true(p.blocks[0].size < 1000);
    assert_int_equal(c.ops->inverse(c.state, small->blocks, p.blocks[0].data,
                                    p.blocks[0].size, out, 40, &made, &err),
                     -1);
    assert_string_equal(err.text, "the stream is cut off, or makes more than 40 bytes");
    /* xz -9 </dev/null with a byte in it: a dictionary of 64 MiB */
    static const uint8_t wide[] = {0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x00,
                                   0xff, 0x12, 0xd9, 0x41, 0x02, 0x00, 0x21, 0x01,
                                   0x1c, 0x00, 0x00, 0x00, 0x10, 0xcf, 0x58, 0xcc};
    assert_int_equal(c.ops->inverse(c.state, large->blocks, wide, sizeof(wide), out,
                                    sizeof(out), &made, &err),
                     -1);
    assert_string_equal(err.text, "the stream wants more memory than a block needs");
    kit_pass_finish(&p);
    kit_close(&c);
    tiered_layout_unref(large);
    tiered_layout_unref(small);
}

static void test_traits(void **state)
{
    (void)state;
    const struct {
        const char *name;
        uint32_t traits;
    } all[] = {{"fp16", TIERED_LOSSY | TIERED_NEEDS_VALUES},
               {"bf16", TIERED_LOSSY | TIERED_NEEDS_VALUES},
               {"qsgd", TIERED_LOSSY | TIERED_NEEDS_VALUES | TIERED_CHANGES_ONLY},
               {"int8", TIERED_LOSSY | TIERED_NEEDS_SCAN | TIERED_NEEDS_VALUES},
               {"top-k", TIERED_LOSSY | TIERED_NEEDS_SCAN | TIERED_NEEDS_VALUES |
                             TIERED_CHANGES_ONLY},
               {"shuffle", 0},
               {"lzma", 0}};
    struct tiered_layout *layout = kit_flat(TIERED_F32, 1);
    for (size_t i = 0; i < TIERED_COUNT(all); i++) {
        struct kit_codec c = kit_open(all[i].name, "{}", layout);
        assert_int_equal(c.traits,
                         all[i].traits | TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS);
        kit_close(&c);
    }
    tiered_layout_unref(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lossless),
        cmocka_unit_test(test_shuffle_planes),
        cmocka_unit_test(test_fp16_values),
        cmocka_unit_test(test_halves_agree),
        cmocka_unit_test(test_bf16_edges),
        cmocka_unit_test(test_int8_values),
        cmocka_unit_test(test_int8_over_blocks),
        cmocka_unit_test(test_int8_extremes),
        cmocka_unit_test(test_int8_leaves_small_rows),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_adversarial),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_lzma_bombs),
        cmocka_unit_test(test_traits),
    };
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
