/* SPDX-License-Identifier: Apache-2.0 */
/* top-k: which values go, that what does not go comes later, and that only a pass that
   was written changes what is kept. */
#include "codec_kit.h"

static void encode(struct kit_codec *c, const void *in, void *out)
{
    struct kit_pass p;
    kit_encode(c, in, &p);
    kit_decode("top-k", "{}", c->layout, &p, out);
    kit_pass_finish(&p);
}

static size_t n_sent(const float *out, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += out[i] != 0;
    }
    return count;
}

static void test_by_hand(void **state)
{
    (void)state;
    const float in[10] = {1, -5, 0.5f, 3, -3, 0, 3, 0.25f, -0.5f, 2};
    const float first[10] = {0, -5, 0, 3, -3}; /* the third 3 comes too late */
    /* p = 2 -5 1 3 -3 0 6 .5 -1 4 */
    const float second[10] = {0, -5, 0, 0, 0, 0, 6, 0, 0, 4};
    float out[10];
    struct tiered_layout *layout = kit_flat(TIERED_F32, 10);
    struct kit_codec c = kit_open("top-k", "{\"ratio\":0.3}", layout);
    encode(&c, in, out);
    assert_memory_equal(out, first, sizeof(out));
    encode(&c, in, out);
    assert_memory_equal(out, second, sizeof(out));
    kit_close(&c);
    c = kit_open("top-k", "{\"ratio\":0.3,\"error_feedback\":false}", layout);
    for (int i = 0; i < 2; i++) { /* forgets */
        encode(&c, in, out);
        assert_memory_equal(out, first, sizeof(out));
    }
    kit_close(&c);
    tiered_layout_unref(layout);
}

/* The same choice as sorting makes, over the whole model and several dtypes and blocks,
   with many equal sizes. */
struct ranked {
    double size;
    size_t at;
};

static int by_size(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->size > y->size ? -1 : x->size < y->size ? 1 : x->at < y->at ? -1 : 1;
}

static void test_exact_choice(void **state)
{
    (void)state;
    const struct kit_tensor tensors[] = {{TIERED_F32, TIERED_PARAMETER, 300, 1001},
                                         {TIERED_F32, TIERED_PARAMETER, 0, 0},
                                         {TIERED_F64, TIERED_PARAMETER, 999, 0},
                                         {TIERED_F32, TIERED_BUFFER, 50, 0},
                                         {TIERED_F16, TIERED_PARAMETER, 5000, 0},
                                         {TIERED_BF16, TIERED_PARAMETER, 77, 0},
                                         {TIERED_F32, TIERED_CONTROL, 3001, 0},
                                         {TIERED_F32, TIERED_PARAMETER, 1, 0}};
    const double ratios[] = {1e-9, 0.001, 0.01, 0.37, 0.999, 1};
    struct tiered_layout *layout = kit_layout(tensors, TIERED_COUNT(tensors));
    uint8_t *in = calloc(1, (size_t)layout->m.data_bytes);
    uint8_t *out = calloc(1, (size_t)layout->m.data_bytes);
    struct ranked *all = malloc(400000 * sizeof(*all));
    const uint8_t key[32] = {11};
    for (size_t k = 0; k < TIERED_COUNT(ratios); k++) {
        struct tiered_rng rng;
        size_t n = 0;
        char json[64];
        tiered_rng_init(&rng, key);
        for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
            const struct tiered_tensor *t = &layout->m.tensors[i];
            for (uint64_t e = 0; e < t->n_elements; e++) {
                /* few different sizes, all exact in every dtype */
                double v = ldexp((double)(1 + tiered_rng_below(&rng, 100)), -9);
                v = tiered_rng_below(&rng, 2) ? -v : v;
                tiered_from_f64(t->dtype, &v, 1,
                                in + t->offset_bytes + e * tiered_dtype_size(t->dtype));
                if (t->role != TIERED_BUFFER) {
                    all[n] = (struct ranked){fabs(v), n};
                    n++;
                }
            }
        }
        qsort(all, n, sizeof(*all), by_size);
        size_t want = (size_t)ceil(ratios[k] * (double)n), at = 0, sent = 0;
        bool *goes = calloc(n, sizeof(*goes));
        for (size_t i = 0; i < want; i++) {
            goes[all[i].at] = true;
        }
        snprintf(json, sizeof(json), "{\"ratio\":%.9g}", ratios[k]);
        kit_trip("top-k", json, layout, in, out);
        for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
            const struct tiered_tensor *t = &layout->m.tensors[i];
            size_t width = tiered_dtype_size(t->dtype);
            for (uint64_t e = 0; e < t->n_elements; e++) {
                double a, b;
                uint64_t where = t->offset_bytes + e * width;
                tiered_to_f64(t->dtype, in + where, 1, &a);
                tiered_to_f64(t->dtype, out + where, 1, &b);
                if (t->role == TIERED_BUFFER) {
                    assert_true(a == b);
                    continue;
                }
                assert_true(b == (goes[at] ? a : 0));
                sent += goes[at++];
            }
        }
        assert_int_equal(sent, want);
        free(goes);
    }
    free(in);
    free(out);
    free(all);
    tiered_layout_unref(layout);
}

/* Sums of small whole numbers are exact in every dtype: what was sent and what is kept
   is what came in, after every round, to the bit. Read from the saved state. */
static void test_nothing_is_lost(void **state)
{
    (void)state;
    enum { N = 3000, ROUNDS = 20 };
    const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64, TIERED_F16,
                                        TIERED_BF16};
    const uint8_t key[32] = {12};
    for (size_t d = 0; d < 4; d++) {
        static double total[N], sent[N], value[N], out[N], kept[N];
        static uint8_t raw[8 * N], back[8 * N], saved[8 * N];
        struct tiered_rng rng;
        struct tiered_error err = {0};
        struct tiered_layout *layout = kit_flat(dtypes[d], N);
        struct kit_codec c = kit_open("top-k", "{\"ratio\":0.05}", layout);
        tiered_rng_init(&rng, key);
        memset(total, 0, sizeof(total));
        memset(sent, 0, sizeof(sent));
        for (int round = 0; round < ROUNDS; round++) {
            size_t size = 0;
            for (size_t i = 0; i < N; i++) {
                value[i] = (double)tiered_rng_below(&rng, 61) - 30;
                total[i] += value[i];
            }
            tiered_from_f64(dtypes[d], value, N, raw);
            encode(&c, raw, back);
            tiered_to_f64(dtypes[d], back, N, out);
            assert_int_equal(
                c.ops->saved.save(c.state, saved, sizeof(saved), &size, &err), 0);
            assert_int_equal(size, N * (dtypes[d] == TIERED_F64 ? 8 : 4));
            tiered_to_f64(dtypes[d] == TIERED_F64 ? TIERED_F64 : TIERED_F32, saved, N,
                          kept);
            for (size_t i = 0; i < N; i++) {
                sent[i] += out[i];
                assert_true(sent[i] + kept[i] == total[i]);
            }
        }
        kit_close(&c);
        tiered_layout_unref(layout);
    }
}

/* With any numbers: sent + residual is exactly f32's sum of input and old residual. */
static void test_conserves_floats(void **state)
{
    (void)state;
    enum { N = 10000 };
    static float in[N], out[N], before[N], after[N];
    struct tiered_error err = {0};
    struct tiered_layout *layout = kit_flat(TIERED_F32, N);
    struct kit_codec c = kit_open("top-k", "{}", layout);
    memset(before, 0, sizeof(before));
    for (uint8_t round = 1; round < 10; round++) {
        size_t size;
        kit_normal(in, N, 0.01, round);
        encode(&c, in, out);
        assert_int_equal(n_sent(out, N), N / 100);
        assert_int_equal(c.ops->saved.save(c.state, after, sizeof(after), &size, &err),
                         0);
        for (size_t i = 0; i < N; i++) {
            float p = in[i] + before[i];
            assert_true(out[i] + after[i] == p && (out[i] == 0 || after[i] == 0));
        }
        memcpy(before, after, sizeof(before));
    }
    kit_close(&c);
    tiered_layout_unref(layout);
}

/* A pass that is dropped before its end, or fails, leaves everything as it was. */
static void test_failed_passes(void **state)
{
    (void)state;
    enum { N = 2000 };
    float in[N], next[N], bad[N], out[N], want[N];
    struct tiered_error err = {0};
    struct tiered_layout *layout = kit_flat(TIERED_F32, N);
    kit_normal(in, N, 1, 1);
    kit_normal(next, N, 1, 2);
    kit_normal(bad, N, 1, 3);
    bad[N - 1] = NAN;
    struct kit_codec straight = kit_open("top-k", "{}", layout);
    encode(&straight, in, want);
    encode(&straight, next, want);
    kit_close(&straight);
    struct kit_codec c = kit_open("top-k", "{}", layout);
    struct kit_pass p;
    encode(&c, in, out);
    assert_int_equal(kit_forward(&c, (uint8_t *)in, &p, &err), 0); /* no end */
    kit_pass_finish(&p);
    assert_int_equal(kit_forward(&c, (uint8_t *)bad, &p, &err), -1);
    encode(&c, next, out);
    assert_memory_equal(out, want, sizeof(out));
    kit_close(&c);
    tiered_layout_unref(layout);
}

static void test_saved_state(void **state)
{
    (void)state;
    enum { N = 2000 };
    float in[N], out[N], want[N], saved[N];
    struct tiered_error err = {0};
    size_t size = 1;
    struct tiered_layout *layout = kit_flat(TIERED_F32, N),
                         *other = kit_flat(TIERED_F32, 9);
    struct kit_codec a = kit_open("top-k", "{}", layout);
    const uint32_t version = a.ops->saved.version;
    assert_int_equal(a.ops->saved.save(a.state, NULL, 0, &size, &err), 0);
    assert_int_equal(size, 0); /* nothing yet */
    kit_normal(in, N, 1, 1);
    encode(&a, in, out);
    assert_int_equal(a.ops->saved.save(a.state, NULL, 0, &size, &err), 0);
    assert_int_equal(size, sizeof(saved));
    assert_int_equal(a.ops->saved.save(a.state, saved, size - 1, &size, &err), -1);
    assert_int_equal(a.ops->saved.save(a.state, saved, size, &size, &err), 0);
    encode(&a, in, want);
    kit_close(&a);
    struct kit_codec b = kit_open("top-k", "{}", layout);
    assert_int_equal(b.ops->saved.load(b.state, version + 1, saved, size, &err), -1);
    assert_int_equal(err.code, TIERED_ENOTSUP);
    assert_int_equal(b.ops->saved.load(b.state, version, saved, size - 4, &err), -1);
    assert_int_equal(err.code, TIERED_ESHAPE);
    assert_int_equal(b.ops->saved.load(b.state, version, saved, size, &err), 0);
    float keep = saved[5];
    saved[5] = INFINITY; /* refused, and what was loaded stays */
    assert_int_equal(b.ops->saved.load(b.state, version, saved, size, &err), -1);
    assert_int_equal(err.code, TIERED_ECORRUPT);
    saved[5] = keep;
    encode(&b, in, out);
    assert_memory_equal(out, want, sizeof(out));
    kit_close(&b);
    b = kit_open("top-k", "{}", other); /* another model's */
    assert_int_equal(b.ops->saved.load(b.state, version, saved, size, &err), -1);
    assert_int_equal(b.ops->saved.load(b.state, version, NULL, 0, &err), 0);
    kit_close(&b);
    tiered_layout_unref(layout);
    tiered_layout_unref(other);
}

/* Each form is taken where it is the shortest. */
static void test_forms(void **state)
{
    (void)state;
    enum { N = 8000 };
    static float in[N], out[N];
    const struct {
        const char *json;
        uint8_t form;
        size_t least, most;
    } cases[] = {
        {"{\"ratio\":0.01}", 0, 80 * 5, 5 + 80 * 6},
        {"{\"ratio\":0.5}", 1, 1 + 1000 + 4000 * 4, 1 + 1000 + 4000 * 4},
        {"{\"ratio\":1}", 2, 1 + N * 4, 1 + N * 4},
    };
    struct tiered_layout *layout = kit_flat(TIERED_F32, N);
    kit_normal(in, N, 1, 1);
    for (size_t k = 0; k < TIERED_COUNT(cases); k++) {
        struct kit_codec c = kit_open("top-k", cases[k].json, layout);
        struct kit_pass p;
        kit_encode(&c, in, &p);
        assert_int_equal(p.blocks[0].data[0], cases[k].form);
        assert_in_range(p.blocks[0].size, cases[k].least, cases[k].most);
        kit_decode("top-k", "{}", layout, &p, out);
        for (size_t i = 0; i < N; i++) {
            assert_true(out[i] == in[i] || out[i] == 0);
        }
        kit_pass_finish(&p);
        kit_close(&c);
    }
    kit_damage("top-k", "{\"ratio\":0.001}", layout, in); /* each form's cuts */
    tiered_layout_unref(layout);
    layout = kit_flat(TIERED_F32, 50);
    kit_damage("top-k", "{\"ratio\":0.5}", layout, in);
    kit_damage("top-k", "{\"ratio\":1}", layout, in);
    tiered_layout_unref(layout);
}

static void test_bad_blocks(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = kit_flat(TIERED_F32, 9);
    struct kit_codec c = kit_open("top-k", "{}", layout);
    const struct {
        size_t size;
        uint8_t bytes[16];
    } blocks[] = {{0, {0}},
                  {1, {0}},
                  {5, {0, 0xff, 0xff, 0xff, 0xff}}, /* a count over all */
                  {10, {0, 1, 0, 0, 0, 9}},         /* behind the end */
                  {10, {0, 1, 0, 0, 0, 0x80}},      /* a gap without its end */
                  {13, {0, 1, 0, 0, 0, 0x80, 0x80, 0x80, 0x80}},
                  {11, {0, 1, 0, 0, 0, 0, 0}}, /* a byte too many */
                  {3, {1, 0, 2}},              /* a bit behind the end */
                  {6, {1, 3, 0, 0, 0, 0}},     /* a value is missing */
                  {5, {2, 0, 0, 0, 0}},
                  {5, {3, 0, 0, 0, 0}}};
    const uint8_t good = 1, old = 0;
    float out[9];
    size_t made;
    assert_int_equal(c.ops->inverse_begin(c.state, &old, 1, &err), -1);
    assert_int_equal(c.ops->inverse_begin(c.state, &good, 0, &err), -1);
    assert_int_equal(c.ops->inverse_begin(c.state, &good, 1, &err), 0);
    for (size_t i = 0; i < TIERED_COUNT(blocks); i++) {
        assert_int_equal(c.ops->inverse(c.state, layout->blocks, blocks[i].bytes,
                                        blocks[i].size, out, sizeof(out), &made, &err),
                         -1);
        assert_int_equal(err.code, TIERED_ECORRUPT);
    }
    kit_close(&c);
    tiered_layout_unref(layout);
}

/* ceil(ratio * values), also where the product of two floats is a little over. */
static void test_counts(void **state)
{
    (void)state;
    const struct {
        const char *json;
        size_t n, k;
    } cases[] = {{"{\"ratio\":0.07}", 100, 7},  {"{\"ratio\":0.01}", 100, 1},
                 {"{\"ratio\":0.01}", 101, 2},  {"{\"ratio\":0.01}", 1, 1},
                 {"{\"ratio\":0.29}", 100, 29}, {"{\"ratio\":1}", 77, 77}};
    float in[101], out[101];
    kit_normal(in, 101, 1, 1);
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct tiered_layout *layout = kit_flat(TIERED_F32, cases[i].n);
        kit_trip("top-k", cases[i].json, layout, in, out);
        assert_int_equal(n_sent(out, cases[i].n), cases[i].k);
        tiered_layout_unref(layout);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),         cmocka_unit_test(test_exact_choice),
        cmocka_unit_test(test_nothing_is_lost), cmocka_unit_test(test_conserves_floats),
        cmocka_unit_test(test_failed_passes),   cmocka_unit_test(test_saved_state),
        cmocka_unit_test(test_forms),           cmocka_unit_test(test_bad_blocks),
        cmocka_unit_test(test_counts),
    };
    return cmocka_run_group_tests(tests, kit_set_up, kit_tear_down);
}
