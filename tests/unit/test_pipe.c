/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes: round trips, deltas, scans, screening, damaged streams, and that threads do
   not change a bit. */
#include "pipe_filters.h"

#include <math.h>

#include "core/model/numeric.h"

static struct tiered_plugins *plugins;
static struct tiered_hosting hosting;
static struct tiered_use zstd, delta_filter;

static int set_up(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    tiered_hosting_init(&hosting, 7, "test", "edge", "edge-1", "3");
    plugins = tiered_plugins_create(NULL, &err);
    if (!plugins ||
        tiered_plugins_get(plugins, "zstd", TIERED_FILTER, &zstd.loaded, &err) < 0 ||
        tiered_plugins_get(plugins, "delta", TIERED_FILTER, &delta_filter.loaded,
                           &err) < 0) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tiered_plugins_destroy(plugins);
    return 0;
}

static struct tiered_layout *adversarial_layout(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t odd[] = {7, 11}, big[] = {3, 262144}, none[] = {0}, n[] = {5},
                   blob[] = {1500000};
    tiered_layout_add(b, "odd", TIERED_F32, TIERED_PARAMETER, 2, odd, &err);
    tiered_layout_add(b, "scalar", TIERED_F32, TIERED_PARAMETER, 0, NULL, &err);
    tiered_layout_add(b, "half", TIERED_F16, TIERED_PARAMETER, 2, odd, &err);
    tiered_layout_add(b, "none", TIERED_F64, TIERED_PARAMETER, 1, none, &err);
    tiered_layout_add(b, "big", TIERED_F32, TIERED_PARAMETER, 2, big, &err);
    tiered_layout_add(b, "steps", TIERED_I64, TIERED_BUFFER, 1, n, &err);
    tiered_layout_add(b, "trees", TIERED_U8, TIERED_BUFFER, 1, blob, &err);
    tiered_layout_add(b, "wide", TIERED_F64, TIERED_PARAMETER, 1, n, &err);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

static struct tiered_layout *floats(uint64_t n)
{
    struct tiered_error err;
    struct tiered_layout_builder *b = tiered_layout_build();
    assert_int_equal(
        tiered_layout_add(b, "w", TIERED_F32, TIERED_PARAMETER, 1, &n, &err), 0);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

/* Any bits at all: NaN with payloads, infinities, negative zeros, subnormals. */
static struct tiered_model *noise(struct tiered_layout *layout, uint64_t seed)
{
    struct tiered_error err;
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        for (uint64_t k = 0; k < block->size_bytes; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            model->data[block->offset_bytes + k] = (uint8_t)(seed >> 56);
        }
    }
    assert_int_equal(tiered_model_seal(model, &err), 0);
    return model;
}

/* Small numbers, exact in every dtype, so that differences are exact too. */
static struct tiered_model *small_numbers(struct tiered_layout *layout, int step)
{
    struct tiered_error err;
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        size_t width = tiered_dtype_size(block->dtype);
        for (uint64_t k = 0; k < block->n_elements; k++) {
            double x = (double)((k * (uint64_t)step + i) % 97);
            tiered_from_f64(block->dtype, &x, 1,
                            model->data + block->offset_bytes + k * width);
        }
    }
    assert_int_equal(tiered_model_seal(model, &err), 0);
    return model;
}

static int make_in_memory(void *user, Tiered__V1__Head *head,
                          struct tiered_encoded **ret, struct tiered_error *err)
{
    const struct tiered_model *content = user;
    if (content) {
        head->content.data = (uint8_t *)(uintptr_t)content->digest.bytes;
        head->content.len = 32;
    }
    return tiered_encoded_begin(head, NULL, ret, err);
}

static int encode(const struct tiered_use *filters, size_t n,
                  const struct tiered_model *model, const struct tiered_model *base,
                  bool screen, struct tiered_pool *pool, struct tiered_encoded **ret,
                  struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    const struct tiered_encode_job job = {
        .data = model->data,
        .base = base ? base->data : NULL,
        .screen = screen,
        .hosting = &hosting,
        .pool = pool,
        .make = make_in_memory,
        .user = base ? NULL : (void *)(uintptr_t)model,
    };
    if (tiered_pipe_create(filters, n, model->layout, &hosting, &pipe, err) < 0 ||
        tiered_pipe_encode(pipe, &job, &e, err) < 0 ||
        tiered_encoded_seal(e, false, err) < 0) {
        return -1;
    }
    *ret = TIERED_STEAL(e);
    return 0;
}

static int decode(const struct tiered_use *filters, size_t n, struct tiered_encoded *e,
                  struct tiered_pool *pool, struct tiered_model **ret,
                  struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *d = NULL;
    return tiered_decoder_create(filters, n, &hosting, e, &d, err) < 0
               ? -1
               : tiered_decoder_model(d, pool, ret, err);
}

static void check_round_trip(const struct tiered_use *filters, size_t n,
                             const struct tiered_model *model, struct tiered_pool *pool)
{
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *back = NULL;
    assert_int_equal(encode(filters, n, model, NULL, false, pool, &e, &err), 0);
    assert_int_equal(decode(filters, n, e, pool, &back, &err), 0);
    assert_true(tiered_digest_equal(&model->digest, &back->digest));
    assert_memory_equal(model->data, back->data, model->layout->m.data_bytes);
}

static void test_round_trips(void **state)
{
    (void)state;
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = noise(layout, 1);
    const struct tiered_use fast = {zstd.loaded, "{\"level\":1,\"window_log\":12}"};
    const struct tiered_use chains[][3] = {
        {zstd}, {MASK}, {MASK, zstd}, {zstd, MASK}, {MASK, fast, MASK}, {zstd, zstd}};
    const size_t lengths[] = {1, 1, 2, 2, 3, 2};
    check_round_trip(NULL, 0, model, NULL);
    for (size_t i = 0; i < TIERED_COUNT(lengths); i++) {
        check_round_trip(chains[i], lengths[i], model, NULL);
    }
}

static void test_empty_models(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    for (int tensors = 0; tensors < 2; tensors++) {
        struct tiered_layout_builder *b = tiered_layout_build();
        const uint64_t none[] = {4, 0};
        if (tensors) {
            tiered_layout_add(b, "w", TIERED_F32, TIERED_PARAMETER, 2, none, &err);
        }
        TIERED_CLEANUP(tiered_layout_unrefp)
        struct tiered_layout *layout = tiered_layout_seal(b, &err);
        TIERED_CLEANUP(tiered_model_unrefp)
        struct tiered_model *model = noise(layout, 1);
        check_round_trip(NULL, 0, model, NULL);
        check_round_trip(&zstd, 1, model, NULL);
        check_round_trip(&MASK, 1, model, NULL);
    }
}

/* What grows with a filter must still fit a message. */
static void test_blocks_that_grow(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t n[] = {100};
    tiered_layout_add(b, "w", TIERED_F32, TIERED_PARAMETER, 1, n, &err);
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *small = tiered_layout_seal(b, &err);
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *fits = noise(small, 3);
    const struct tiered_use chain[] = {MASK, TWICE, TWICE, zstd};
    check_round_trip(chain, 4, fits, NULL);
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = noise(layout, 1);
    struct tiered_encoded *e = NULL;
    assert_int_equal(encode(&TWICE, 1, model, NULL, false, NULL, &e, &err), -1);
    assert_string_equal(err.text, "block 2 has 2097152 bytes; at most 1110016");
    const struct tiered_use many[] = {TWICE, TWICE, TWICE, TWICE, TWICE};
    assert_int_equal(encode(many, 5, model, NULL, false, NULL, &e, &err), -1);
    assert_string_equal(err.text,
                        "filter 'twice' would make 33554432 bytes of a block; "
                        "at most 16777216");
}

static void test_deltas_are_exact(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = small_numbers(layout, 5);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *base = small_numbers(layout, 3);
    const struct tiered_use chains[][2] = {{zstd}, {MASK, zstd}};
    for (size_t n = 0; n < 3; n++) {
        const struct tiered_use *filters = n ? chains[n - 1] : NULL;
        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
        TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *delta = NULL;
        assert_int_equal(encode(filters, n, model, base, true, NULL, &e, &err), 0);
        assert_int_equal(decode(filters, n, e, NULL, &delta, &err), 0);
        for (uint32_t i = 0; i < layout->n_blocks; i++) {
            const struct tiered_block *k = &layout->blocks[i];
            TIERED_FREE uint8_t *sum = malloc(k->size_bytes);
            tiered_add_to(k->dtype, base->data + k->offset_bytes,
                          delta->data + k->offset_bytes, k->n_elements, sum);
            assert_memory_equal(sum, model->data + k->offset_bytes, k->size_bytes);
        }
        float want = (float)(5 % 97) - (float)(3 % 97), got;
        memcpy(&got, delta->data + 4, sizeof(got));
        assert_true(got == want);
    }
}

/* On several threads the same bytes as on one. */
static void test_threads_change_nothing(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = small_numbers(layout, 5);
    TIERED_CLEANUP(tiered_pool_destroyp) struct tiered_pool *pool = NULL;
    assert_int_equal(tiered_pool_create(3, &pool, &err), 0);
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *one = NULL;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *many = NULL;
    const struct tiered_use two[] = {zstd, zstd};
    assert_int_equal(encode(two, 2, model, NULL, true, NULL, &one, &err), 0);
    for (int i = 0; i < 20; i++) {
        tiered_encoded_unref(TIERED_STEAL(many));
        assert_int_equal(encode(two, 2, model, NULL, true, pool, &many, &err), 0);
        const Tiered__V1__Head *a = tiered_encoded_head(one);
        const Tiered__V1__Head *b = tiered_encoded_head(many);
        assert_memory_equal(a->encoded.data, b->encoded.data, 32);
        assert_int_equal(a->encoded_bytes, b->encoded_bytes);
        TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *back = NULL;
        assert_int_equal(decode(two, 2, many, pool, &back, &err), 0);
        assert_memory_equal(model->data, back->data, layout->m.data_bytes);
    }
    check_round_trip(&MASK, 1, model, pool); /* not concurrent: this thread, in order */
}

static void test_scan_and_calls(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = noise(layout, 9);
    mask_loaded.plugin.traits = TIERED_NEEDS_SCAN;
    const int n = (int)layout->n_blocks;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    assert_int_equal(encode(&MASK, 1, model, NULL, false, NULL, &e, &err), 0);
    assert_int_equal(last.begins, 1);
    assert_int_equal(last.scans, n);
    assert_int_equal(last.headers, 1);
    assert_int_equal(last.forwards, n);
    assert_int_equal(last.ends, 1);
    uint8_t key = 0;
    for (int i = 0; i < n; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        for (uint64_t k = 0; k < block->size_bytes; k++) {
            key = (uint8_t)(key + model->data[block->offset_bytes + k]);
        }
    }
    const Tiered__V1__Head *head = tiered_encoded_head(e);
    assert_int_equal(head->n_pipe, 1);
    assert_string_equal(head->pipe[0]->name, "mask");
    assert_int_equal(head->pipe[0]->header.len, 1);
    assert_int_equal(head->pipe[0]->header.data[0], key);
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *back = NULL;
    assert_int_equal(decode(&MASK, 1, e, NULL, &back, &err), 0);
    assert_int_equal(last.inverse_ends, 1);
    /* A scan behind another filter sees what that one makes; two scans, two keys. */
    const struct tiered_use chain[] = {zstd, MASK, MASK};
    check_round_trip(chain, 3, model, NULL);
    mask_loaded.plugin.traits = 0;
}

/* What went into the filters and came out of each, in the pass that writes alone. */
static void test_counts(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = floats(300);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = small_numbers(layout, 3);
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    const struct tiered_use chain[] = {TWICE, MASK, zstd};
    const struct tiered_encode_job job = {
        .data = model->data, .hosting = &hosting, .make = make_in_memory};
    mask_loaded.plugin.traits = TIERED_NEEDS_SCAN;
    assert_int_equal(tiered_pipe_create(chain, 3, layout, &hosting, &pipe, &err), 0);
    struct tiered_pipe_counts counts = tiered_pipe_counts(pipe);
    assert_int_equal(counts.n, 3);
    assert_int_equal(counts.bytes[0], 0);
    for (int turn = 0; turn < 2; turn++) {
        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
        size_t size;
        uint32_t crc;
        assert_int_equal(tiered_pipe_encode(pipe, &job, &e, &err), 0);
        tiered_encoded_block(e, 0, &size, &crc);
        counts = tiered_pipe_counts(pipe);
        assert_int_equal(counts.bytes[0], 1200);
        assert_int_equal(counts.bytes[1], 2400);
        assert_int_equal(counts.bytes[2], 2400);
        assert_int_equal(counts.bytes[3], size);
    }
    mask_loaded.plugin.traits = 0;
}

static void test_screening(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    const struct {
        const char *tensor;
        uint64_t index;
        double value;
        const char *text;
    } cases[] = {
        {"odd", 17, NAN, "tensor 'odd' has nan at index 17"},
        {"scalar", 0, INFINITY, "tensor 'scalar' has inf at index 0"},
        {"half", 76, -INFINITY, "tensor 'half' has -inf at index 76"},
        {"big", 786431, NAN, "tensor 'big' has nan at index 786431"},
        {"wide", 4, INFINITY, "tensor 'wide' has inf at index 4"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        TIERED_CLEANUP(tiered_model_unrefp)
        struct tiered_model *model = small_numbers(layout, 3);
        const struct tiered_tensor *t = layout->m.tensors;
        while (strcmp(t->name, cases[i].tensor) != 0) {
            t++;
        }
        uint8_t *at = model->data + t->offset_bytes;
        tiered_from_f64(t->dtype, &cases[i].value, 1,
                        at + cases[i].index * tiered_dtype_size(t->dtype));
        assert_int_equal(tiered_model_seal(model, &err), 0);
        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
        assert_int_equal(encode(&zstd, 1, model, NULL, true, NULL, &e, &err), -1);
        assert_int_equal(err.code, TIERED_ERANGE);
        assert_string_equal(err.text, cases[i].text);
        for (size_t n = 0; n < 2; n++) { /* the receiver finds it as well */
            tiered_encoded_unref(TIERED_STEAL(e));
            assert_int_equal(encode(&zstd, n, model, NULL, false, NULL, &e, &err), 0);
            TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *d = NULL;
            assert_int_equal(tiered_decoder_create(&zstd, n, &hosting, e, &d, &err), 0);
            memset(&err, 0, sizeof(err));
            assert_int_equal(tiered_decoder_screen(d, NULL, &err), -1);
            assert_string_equal(err.text, cases[i].text);
        }
    }
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *a = small_numbers(layout, 3);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *b = small_numbers(layout, 3);
    const float huge = 3e38f, minus = -3e38f; /* finite, but their difference is not */
    memcpy(a->data, &huge, 4);
    memcpy(b->data, &minus, 4);
    struct tiered_encoded *e = NULL;
    assert_int_equal(encode(NULL, 0, a, b, true, NULL, &e, &err), -1);
    assert_string_equal(err.text, "tensor 'odd' has inf at index 0");
}

/* The encoded object again with one block changed; its checksums are made to fit. */
static struct tiered_encoded *tampered(const struct tiered_encoded *from,
                                       uint32_t which, const uint8_t *data, size_t size)
{
    struct tiered_error err;
    struct tiered_encoded *to = NULL;
    static uint8_t block[TIERED_ENCODED_BLOCK_MAX];
    const Tiered__V1__Head *head = tiered_encoded_head(from);
    assert_int_equal(tiered_encoded_begin(head, NULL, &to, &err), 0);
    for (uint32_t i = 0; i < head->n_blocks; i++) {
        size_t n;
        uint32_t crc;
        tiered_encoded_block(from, i, &n, &crc);
        assert_int_equal(tiered_encoded_read(from, i, block, sizeof(block), &err), 0);
        const void *use = i == which ? data : block;
        n = i == which ? size : n;
        assert_int_equal(
            tiered_encoded_append(to, i, tiered_crc32c(0, use, n), use, n, &err), 0);
    }
    assert_int_equal(tiered_encoded_seal(to, false, &err), 0);
    return to;
}

static void expect_refused(struct tiered_encoded *e, uint32_t which, const char *text)
{
    static uint8_t out[TIERED_BLOCK_BYTES];
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *d = NULL;
    assert_int_equal(tiered_decoder_create(&zstd, 1, &hosting, e, &d, &err), 0);
    assert_int_equal(tiered_decoder_read(d, which, out, &err), -1);
    assert_int_equal(err.code, TIERED_ECORRUPT);
    if (text) {
        assert_string_equal(err.text, text);
    }
    tiered_encoded_unref(e);
}

static void test_damaged_streams(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = small_numbers(layout, 3);
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    assert_int_equal(encode(&zstd, 1, model, NULL, true, NULL, &e, &err), 0);
    uint8_t frame[4096];
    size_t n, bigger;
    uint32_t crc;
    tiered_encoded_block(e, 0, &n, &crc); /* odd and scalar: 78 floats, 312 bytes */
    assert_true(n + 16 < sizeof(frame));
    assert_int_equal(tiered_encoded_read(e, 0, frame, sizeof(frame), &err), 0);
    expect_refused(tampered(e, 0, frame, 0), 0,
                   "block 0: filter 'zstd': not a zstd frame");
    expect_refused(tampered(e, 0, (const uint8_t *)"hello", 5), 0,
                   "block 0: filter 'zstd': not a zstd frame");
    expect_refused(tampered(e, 0, frame, n - 1), 0, NULL);
    memset(frame + n, 0, 3);
    expect_refused(tampered(e, 0, frame, n + 3), 0,
                   "block 0: filter 'zstd': 3 bytes follow the frame");
    for (size_t i = 0; i < n; i++) { /* any flip: an error or other bytes, no crash */
        frame[i] ^= 0x24;
        TIERED_CLEANUP(tiered_encoded_unrefp)
        struct tiered_encoded *bad = tampered(e, 0, frame, n);
        TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *back = NULL;
        assert_int_equal(decode(&zstd, 1, bad, NULL, &back, &err), -1);
        frame[i] ^= 0x24;
    }
    /* A bomb: a good frame of more bytes than the block has. */
    static uint8_t other[TIERED_ENCODED_BLOCK_MAX];
    tiered_encoded_block(e, 2, &bigger, &crc);
    assert_int_equal(tiered_encoded_read(e, 2, other, sizeof(other), &err), 0);
    expect_refused(tampered(e, 0, other, bigger < 60000 ? bigger : 60000), 0,
                   "block 0: filter 'zstd': the frame declares 1048576 bytes; at most "
                   "312 are expected");
    /* And one of fewer. */
    expect_refused(tampered(e, 2, frame, n), 2,
                   "block 2 decodes to 312 bytes, expected 1048576");
}

static void test_wrong_pipes(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = small_numbers(layout, 3);
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    struct tiered_decoder *d = NULL;
    assert_int_equal(encode(&MASK, 1, model, NULL, true, NULL, &e, &err), 0);
    assert_int_equal(tiered_decoder_create(&zstd, 1, &hosting, e, &d, &err), -1);
    assert_string_equal(err.text,
                        "the update went through filter 'mask'; this pipe has "
                        "'zstd' there");
    assert_int_equal(tiered_decoder_create(NULL, 0, &hosting, e, &d, &err), -1);
    assert_string_equal(err.text, "the update went through 1 filters; this pipe has 0");
    struct tiered_encoded *wrong = NULL;
    const struct tiered_use group = {&group_loaded, NULL};
    assert_int_equal(encode(&group, 1, model, NULL, true, NULL, &wrong, &err), -1);
    assert_string_equal(
        err.text,
        "'secure-sum' is a group protocol: it sums the updates of a round, and "
        "is no filter of one");
    const struct tiered_use level = {zstd.loaded, "{\"level\":23}"};
    assert_int_equal(encode(&level, 1, model, NULL, true, NULL, &wrong, &err), -1);
    assert_int_equal(err.code, TIERED_EINVAL);
    atomic_store(&hosting.cancel, true);
    assert_int_equal(encode(&zstd, 1, model, NULL, true, NULL, &wrong, &err), -1);
    atomic_store(&hosting.cancel, false);
    assert_int_equal(err.code, TIERED_ECANCELED);
    assert_null(wrong);
}

/* Bytes that lie as the model's do are its own, unless somebody else has them. */
static void test_decode_takes(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layouts[] = {floats(400000), floats(7), adversarial_layout()};
    for (size_t i = 0; i < 2 * TIERED_COUNT(layouts); i++) {
        bool shared = i % 2, lies_so = i / 2 < 2;
        struct tiered_model *model = small_numbers(layouts[i / 2], 3), *back = NULL;
        struct tiered_encoded *e = NULL;
        assert_int_equal(encode(NULL, 0, model, NULL, true, NULL, &e, &err), 0);
        const void *bytes = tiered_encoded_borrow(e, 0);
        struct tiered_encoded *other = shared ? tiered_encoded_ref(e) : NULL;
        assert_int_equal(
            tiered_decode_model(NULL, 0, &hosting, NULL, e, NULL, &back, &err), 0);
        assert_int_equal(back->data == bytes, lies_so && !shared);
        assert_true(tiered_digest_equal(&back->digest, &model->digest));
        assert_memory_equal(back->data, model->data, model->layout->m.data_bytes);
        tiered_encoded_unref(other);
        tiered_model_unref(back);
        tiered_model_unref(model);
    }
    for (size_t i = 0; i < TIERED_COUNT(layouts); i++) {
        tiered_layout_unref(layouts[i]);
    }
}

static struct tiered_encoded *encode_against(const struct tiered_use *filters, size_t n,
                                             const struct tiered_model *model,
                                             const struct tiered_model *reference)
{
    struct tiered_error err;
    struct tiered_pipe *pipe = NULL;
    struct tiered_encoded *e = NULL;
    const struct tiered_encode_job job = {.data = model->data,
                                          .reference = reference,
                                          .hosting = &hosting,
                                          .make = make_in_memory,
                                          .user = (void *)(uintptr_t)model};
    assert_int_equal(
        tiered_pipe_create(filters, n, model->layout, &hosting, &pipe, &err), 0);
    assert_int_equal(tiered_pipe_encode(pipe, &job, &e, &err), 0);
    assert_int_equal(tiered_encoded_seal(e, false, &err), 0);
    tiered_pipe_destroy(pipe);
    return e;
}

/* Against a model that both ends have, and against none. */
static void test_references(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    const struct tiered_use filters[] = {delta_filter, zstd};
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *layout = floats(400000);
    struct tiered_model *old = noise(layout, 5), *new = noise(layout, 5), *back = NULL;
    memset(new->data, 1, 1000);
    assert_int_equal(tiered_model_seal(new, &err), 0);
    assert_true(tiered_pipe_refers(filters, 2));
    assert_false(tiered_pipe_refers(&zstd, 1));
    struct tiered_encoded *against = encode_against(filters, 2, new, old);
    struct tiered_encoded *whole = encode_against(filters, 2, new, NULL);
    assert_true(tiered_encoded_bytes(against) < 4000);
    assert_true(tiered_encoded_bytes(whole) > 1000000);
    assert_int_equal(tiered_decode_model(filters, 2, &hosting, new,
                                         tiered_encoded_ref(against), NULL, &back,
                                         &err),
                     -1);
    assert_string_equal(
        err.text, "filter 'delta': it refers to a model that is not at hand here");
    struct tiered_encoded *const both[] = {against, whole};
    for (size_t i = 0; i < TIERED_COUNT(both); i++) {
        assert_int_equal(
            tiered_decode_model(filters, 2, &hosting, old, both[i], NULL, &back, &err),
            0);
        assert_true(tiered_digest_equal(&back->content, &new->content));
        tiered_model_unref(back);
    }
    tiered_model_unref(old);
    tiered_model_unref(new);
}

static uint8_t turn_of(struct tiered_encoded *e)
{
    return tiered_encoded_head(e)->pipe[1]->header.data[0];
}

/* A pipe of another process goes on where the saved one was. */
static void test_saved_state(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    const struct tiered_use filters[] = {TWICE, TURNS}, other[] = {TURNS, TWICE};
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *layout = floats(1000);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = small_numbers(layout, 3);
    struct tiered_bytes saved = {0};
    for (uint8_t turn = 1; turn <= 3; turn++) {
        struct tiered_pipe *pipe = NULL;
        struct tiered_encoded *e = NULL;
        const struct tiered_encode_job job = {.data = model->data,
                                              .hosting = &hosting,
                                              .make = make_in_memory,
                                              .user = model};
        assert_int_equal(tiered_pipe_create(filters, 2, layout, &hosting, &pipe, &err),
                         0);
        assert_true(tiered_pipe_has_state(pipe));
        assert_int_equal(tiered_pipe_load(pipe, saved.data, saved.size, &err), 0);
        assert_int_equal(tiered_pipe_encode(pipe, &job, &e, &err), 0);
        assert_int_equal(turn_of(e), turn);
        tiered_bytes_finish(&saved);
        assert_int_equal(tiered_pipe_save(pipe, &saved, &err), 0);
        assert_int_equal(tiered_pipe_load(pipe, saved.data, saved.size - 1, &err), -1);
        assert_string_equal(err.text, "the filters' state is of another pipe");
        assert_int_equal(tiered_pipe_load(pipe, saved.data, 5, &err), -1);
        assert_string_equal(err.text, "the filters' state is cut off");
        tiered_encoded_unref(e);
        tiered_pipe_destroy(pipe);
    }
    struct tiered_pipe *pipe = NULL;
    assert_int_equal(tiered_pipe_create(other, 2, layout, &hosting, &pipe, &err), 0);
    assert_int_equal(tiered_pipe_load(pipe, saved.data, saved.size, &err), -1);
    assert_string_equal(err.text, "the filters' state is of another pipe");
    tiered_pipe_destroy(pipe);
    tiered_bytes_finish(&saved);
}

/* A head may name a model that the blocks are not. */
static void test_content_digest(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = small_numbers(layout, 3);
    model->digest.bytes[0] ^= 1;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    struct tiered_model *back = NULL;
    assert_int_equal(encode(&zstd, 1, model, NULL, true, NULL, &e, &err), 0);
    assert_int_equal(decode(&zstd, 1, e, NULL, &back, &err), -1);
    assert_string_equal(err.text, "the model is not the one that its head names");
    tiered_encoded_unref(TIERED_STEAL(e));
    assert_int_equal(encode(NULL, 0, model, NULL, true, NULL, &e, &err), 0);
    assert_int_equal(tiered_decode_model(NULL, 0, &hosting, NULL, TIERED_STEAL(e), NULL,
                                         &back, &err),
                     -1);
    assert_string_equal(err.text, "the model is not the one that its head names");
}

/* Blocks are lent raw where nothing was filtered and they lie aligned: most do here. */
static void test_lent_blocks(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = adversarial_layout();
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = noise(layout, 4);
    for (size_t filters = 0; filters < 2; filters++) {
        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
        TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *d = NULL;
        uint32_t lent = 0;
        assert_int_equal(encode(&zstd, filters, model, NULL, false, NULL, &e, &err), 0);
        assert_int_equal(tiered_decoder_create(&zstd, filters, &hosting, e, &d, &err),
                         0);
        for (uint32_t i = 0; i < layout->n_blocks; i++) {
            const struct tiered_block *block = &layout->blocks[i];
            const uint8_t *data = tiered_decoder_borrow(d, i);
            if (data) {
                lent++;
                assert_int_equal((uintptr_t)data % tiered_dtype_size(block->dtype), 0);
                assert_memory_equal(data, model->data + block->offset_bytes,
                                    block->size_bytes);
            }
        }
        assert_null(tiered_decoder_borrow(d, layout->n_blocks));
        assert_true(filters ? lent == 0 : lent > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_empty_models),
        cmocka_unit_test(test_blocks_that_grow),
        cmocka_unit_test(test_deltas_are_exact),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_scan_and_calls),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_screening),
        cmocka_unit_test(test_damaged_streams),
        cmocka_unit_test(test_wrong_pipes),
        cmocka_unit_test(test_decode_takes),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_saved_state),
        cmocka_unit_test(test_content_digest),
        cmocka_unit_test(test_lent_blocks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
