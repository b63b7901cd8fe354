/* SPDX-License-Identifier: Apache-2.0 */
/* What a pipe refuses: values that are not finite, damaged streams, another model than
   the one that is named. */
#include "pipe_kit.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_screening),
        cmocka_unit_test(test_damaged_streams),
        cmocka_unit_test(test_content_digest),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
