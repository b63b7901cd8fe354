/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded objects in memory and in files, and the spool's budget. */
#include "spool_fixture.h"

static void test_produce_and_receive(void **state)
{
    (void)state;
    for (int in_file = 0; in_file < 2; in_file++) {
        struct fixture f;
        struct tiered_error err;
        const char *path = in_file ? in_folder("made") : NULL;
        fixture_make(&f);
        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *made = NULL;
        assert_int_equal(tiered_encoded_begin(&f.head, path, &made, &err), 0);
        append_all(made);
        assert_int_equal(tiered_encoded_seal(made, true, &err), 0);
        check_blocks(made);
        const Tiered__V1__Head *head = tiered_encoded_head(made);
        assert_memory_equal(head->encoded.data, f.digest.bytes, 32);
        assert_int_equal(tiered_encoded_bytes(made),
                         20 + tiered__v1__head__get_packed_size(head));

        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *got = NULL;
        path = in_file ? in_folder("got") : NULL;
        assert_int_equal(tiered_encoded_create(head, path, &got, &err), 0);
        append_all(got);
        assert_int_equal(tiered_encoded_seal(got, false, &err), 0);
        check_blocks(got);
        assert_int_equal(
            tiered_layout_match(f.layout, tiered_encoded_layout(got), &err), 0);
        assert_int_equal(append(got, 2, &err), -1);
        assert_string_equal(err.text, "block 2: nothing may follow");
        fixture_drop(&f);
    }
    assert_string_equal(listing(), ""); /* gone with the last reference */
}

static void expect_append(struct tiered_encoded *e, uint32_t index, uint32_t crc,
                          const void *data, size_t size, enum tiered_code code,
                          const char *text)
{
    struct tiered_error err = {0};
    assert_int_equal(tiered_encoded_append(e, index, crc, data, size, &err), -1);
    assert_int_equal(err.code, code);
    assert_string_equal(err.text, text);
}

static void test_order_sizes_and_checksums(void **state)
{
    (void)state;
    struct fixture f;
    struct tiered_error err;
    fixture_make(&f);
    fixture_promise(&f);
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    assert_int_equal(tiered_encoded_create(&f.head, NULL, &e, &err), 0);
    uint32_t crc = tiered_crc32c(0, "first block", 11);
    expect_append(e, 1, crc, "first block", 11, TIERED_EPEER,
                  "block 1 arrived, expected 0 of 3");
    expect_append(e, 0, crc + 1, "first block", 11, TIERED_ECORRUPT,
                  "block 0 has a wrong checksum");
    expect_append(e, 0, crc, "first blocK", 11, TIERED_ECORRUPT,
                  "block 0 has a wrong checksum");
    static char big[200000];
    /* 65536 raw: an eighth and 64 KiB more may be needed */
    expect_append(e, 0, 0, big, 65536 + 8192 + 65536 + 1, TIERED_EPEER,
                  "block 0 has 139265 bytes; at most 139264");
    expect_append(e, 0, 0, big, 21, TIERED_EPEER,
                  "block 0 goes over the 20 bytes that were promised");
    assert_int_equal(tiered_encoded_seal(e, false, &err), -1);
    assert_string_equal(err.text, "3 of 3 blocks are missing");
    assert_int_equal(append(e, 0, &err), 0); /* refusals changed nothing */
    expect_append(e, 0, crc, "first block", 11, TIERED_EPEER,
                  "block 0 arrived, expected 1 of 3");
    assert_int_equal(append(e, 1, &err), 0);
    assert_int_equal(append(e, 2, &err), 0);
    expect_append(e, 3, 0, "", 0, TIERED_EPEER, "block 3 arrived, expected 3 of 3");
    assert_int_equal(tiered_encoded_seal(e, false, &err), 0);
    fixture_drop(&f);
}

static void test_promises(void **state)
{
    (void)state;
    struct fixture f;
    struct tiered_error err;
    struct tiered_encoded *e = NULL;
    fixture_make(&f);
    fixture_promise(&f);
    f.head.n_blocks = 4;
    assert_int_equal(tiered_encoded_create(&f.head, NULL, &e, &err), -1);
    assert_string_equal(err.text, "the head promises 4 blocks; its tensors make 3");
    f.head.n_blocks = 3;
    f.head.encoded_bytes = 1ull << 60;
    assert_int_equal(tiered_encoded_create(&f.head, NULL, &e, &err), -1);
    assert_string_equal(err.text, "the head promises 1152921504606846976 bytes; its "
                                  "tensors allow 270372");
    f.head.encoded_bytes = 20;
    f.head.encoded.len = 0;
    assert_int_equal(tiered_encoded_create(&f.head, NULL, &e, &err), -1);
    assert_string_equal(err.text, "the head has no digest of its blocks");
    f.head.encoded.len = 32;
    f.digest.bytes[7] ^= 1;
    assert_int_equal(tiered_encoded_create(&f.head, NULL, &e, &err), 0);
    append_all(e);
    assert_int_equal(tiered_encoded_seal(e, false, &err), -1);
    assert_int_equal(err.code, TIERED_ECORRUPT);
    assert_string_equal(err.text,
                        "the blocks are not those that the head's digest names");
    assert_int_equal(tiered_encoded_seal(e, false, &err), -1); /* it stays refused */
    tiered_encoded_unref(e);
    fixture_drop(&f);
}

/* Growing past the first 64 KiB of memory, and a big file. */
static void test_many_bytes(void **state)
{
    (void)state;
    struct tiered_error err;
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t n[] = {2500000};
    tiered_layout_add(b, "w", TIERED_U8, TIERED_BUFFER, 1, n, &err);
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    tiered_wire_tensors(layout, &head.tensors, &head.n_tensors, &err);
    TIERED_FREE uint8_t *data = malloc(2500000), *out = malloc(1 << 20);
    for (int i = 0; i < 2500000; i++) {
        data[i] = (uint8_t)(i * 7 + i / 1000);
    }
    for (int in_file = 0; in_file < 2; in_file++) {
        TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
        assert_int_equal(
            tiered_encoded_begin(&head, in_file ? in_folder("big") : NULL, &e, &err),
            0);
        for (uint32_t i = 0; i < 3; i++) {
            const struct tiered_block *k = &layout->blocks[i];
            const uint8_t *at = data + k->offset_bytes;
            uint32_t crc = tiered_crc32c(0, at, k->size_bytes);
            assert_int_equal(tiered_encoded_append(e, i, crc, at, k->size_bytes, &err),
                             0);
        }
        assert_int_equal(tiered_encoded_seal(e, false, &err), 0);
        for (uint32_t i = 0; i < 3; i++) {
            const struct tiered_block *k = &layout->blocks[i];
            assert_int_equal(tiered_encoded_read(e, i, out, 1 << 20, &err), 0);
            assert_memory_equal(out, data + k->offset_bytes, k->size_bytes);
        }
        assert_int_equal(tiered_encoded_read(e, 0, out, 7, &err), -1);
    }
    tiered_wire_free_tensors(head.tensors, head.n_tensors);
}

static void expect_unreadable(const char *name)
{
    struct tiered_error err = {0};
    struct tiered_encoded *e = NULL;
    assert_int_equal(tiered_encoded_open(in_folder(name), &e, &err), -1);
    assert_null(e);
    assert_int_equal(err.code, TIERED_ECORRUPT);
}

/* Every byte and every length of a file matters. */
static void test_files_are_verified(void **state)
{
    (void)state;
    struct fixture f;
    struct tiered_error err;
    struct tiered_encoded *e = NULL;
    fixture_make(&f);
    assert_int_equal(tiered_encoded_begin(&f.head, in_folder("a"), &e, &err), 0);
    append_all(e);
    assert_int_equal(tiered_encoded_seal(e, true, &err), 0);
    tiered_encoded_keep(e);
    tiered_encoded_unref(e);
    e = NULL;
    assert_int_equal(tiered_encoded_open(in_folder("a"), &e, &err), 0);
    check_blocks(e);
    tiered_encoded_unref(TIERED_STEAL(e));
    assert_string_equal(listing(), "a"); /* opening does not own the file */

    struct tiered_bytes good = {0};
    assert_int_equal(tiered_file_read(in_folder("a"), 1 << 20, &good, &err), 0);
    for (size_t i = 0; i < good.size; i++) {
        good.data[i] ^= 0x10;
        put("b", good.data, good.size);
        expect_unreadable("b");
        good.data[i] ^= 0x10;
    }
    for (size_t n = 0; n < good.size; n++) {
        put("b", good.data, n);
        expect_unreadable("b");
    }
    good.data[good.size] = 0; /* one byte more */
    put("b", good.data, good.size + 1);
    expect_unreadable("b");
    assert_int_equal(tiered_encoded_open(in_folder("none"), &e, &err), -1);
    assert_int_equal(err.code, TIERED_ENOENT);
    tiered_bytes_finish(&good);
    fixture_drop(&f);
    remove_inside();
}

static void test_disk_loses_a_block(void **state)
{
    (void)state;
    struct fixture f;
    struct tiered_error err;
    fixture_make(&f);
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    assert_int_equal(tiered_encoded_begin(&f.head, in_folder("a"), &e, &err), 0);
    append_all(e);
    assert_int_equal(tiered_encoded_seal(e, false, &err), 0);
    FILE *file = fopen(in_folder("a"), "r+b");
    fseek(file, 8 + 8, SEEK_SET); /* the first block's first byte */
    fputc('F', file);
    fclose(file);
    char out[32];
    assert_int_equal(tiered_encoded_read(e, 0, out, sizeof(out), &err), -1);
    assert_string_equal(err.text, "block 0 of a stored update has a wrong checksum");
    fixture_drop(&f);
}

static void test_spool_budget(void **state)
{
    (void)state;
    struct fixture f;
    struct tiered_error err;
    fixture_make(&f);
    fixture_promise(&f);
    uint64_t cost = 20 + 3 * 16 + tiered__v1__head__get_packed_size(&f.head);
    put("spool-7", (const uint8_t *)"old", 3);
    put("other", (const uint8_t *)"x", 1);
    TIERED_CLEANUP(tiered_spool_closep) struct tiered_spool *spool = NULL;
    assert_int_equal(tiered_spool_open(folder, 2 * cost + 1, &spool, &err), 0);
    assert_string_equal(listing(), "other"); /* emptied of what is the spool's */
    struct tiered_encoded *e[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tiered_spool_receive(spool, &f.head, &e[i], &err), 0);
        assert_int_equal(tiered_encoded_in_memory(e[i]), i < 2);
        append_all(e[i]);
        assert_int_equal(tiered_encoded_seal(e[i], false, &err), 0);
        check_blocks(e[i]);
    }
    assert_int_equal(tiered_spool_memory(spool), 2 * cost);
    assert_string_equal(listing(), "other,spool-0,spool-1");
    tiered_spool_release(spool, e[2]);
    assert_int_equal(tiered_spool_memory(spool), 2 * cost);
    assert_string_equal(listing(), "other,spool-1");
    tiered_encoded_ref(e[0]); /* a reader still has it */
    tiered_spool_release(spool, e[0]);
    assert_int_equal(tiered_spool_memory(spool), cost);
    check_blocks(e[0]);
    tiered_encoded_unref(e[0]);
    assert_int_equal(tiered_spool_receive(spool, &f.head, &e[0], &err), 0);
    assert_true(tiered_encoded_in_memory(e[0])); /* the budget came back */
    f.head.n_blocks = 9;
    struct tiered_encoded *bad = NULL;
    assert_int_equal(tiered_spool_receive(spool, &f.head, &bad, &err), -1);
    assert_int_equal(tiered_spool_memory(spool), 2 * cost);
    tiered_spool_release(spool, e[0]);
    tiered_spool_release(spool, e[1]);
    tiered_spool_release(spool, e[3]);
    tiered_spool_release(spool, NULL);
    assert_int_equal(tiered_spool_memory(spool), 0);
    assert_string_equal(listing(), "other");
    fixture_drop(&f);
    remove_inside();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_produce_and_receive),
        cmocka_unit_test(test_order_sizes_and_checksums),
        cmocka_unit_test(test_promises),
        cmocka_unit_test(test_many_bytes),
        cmocka_unit_test(test_files_are_verified),
        cmocka_unit_test(test_disk_loses_a_block),
        cmocka_unit_test(test_spool_budget),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
