/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes: round trips, deltas, scans, states, and that threads do not change a bit. */
#include "pipe_filters.h"
#include "pipe_kit.h"

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
        cmocka_unit_test(test_wrong_pipes),
        cmocka_unit_test(test_decode_takes),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_saved_state),
        cmocka_unit_test(test_lent_blocks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
