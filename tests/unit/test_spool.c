/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded objects in memory and in files, the spool's budget, and the outbox at every
   place where it can die. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/spool/spool.h"

static char folder[64];

static void remove_inside(void)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] != '.') {
            unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    closedir(dir);
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tiered-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    remove_inside();
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

/* The names in the folder, sorted, with commas. */
static const char *listing(void)
{
    static char text[512];
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort);
    text[0] = 0;
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            strcat(text, text[0] ? "," : "");
            strcat(text, entries[i]->d_name);
        }
        free(entries[i]);
    }
    free(entries);
    return text;
}

/* A layout of three blocks (64 KiB of f32, some i64, a scalar f64), and its head. */
struct fixture {
    struct tiered_layout *layout;
    Tiered__V1__Head head;
    struct tiered_digest digest; /* of the three blocks that block_of gives */
};

static const char *const blocks[3] = {"first block", "", "the third"};

static void fixture_make(struct fixture *f)
{
    struct tiered_error err;
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t w[] = {128, 128}, n[] = {3};
    tiered_layout_add(b, "w", TIERED_F32, TIERED_PARAMETER, 2, w, &err);
    tiered_layout_add(b, "n", TIERED_I64, TIERED_BUFFER, 1, n, &err);
    tiered_layout_add(b, "s", TIERED_F64, TIERED_PARAMETER, 0, NULL, &err);
    f->layout = tiered_layout_seal(b, &err);
    assert_non_null(f->layout);
    f->head = (Tiered__V1__Head)TIERED__V1__HEAD__INIT;
    assert_int_equal(
        tiered_wire_tensors(f->layout, &f->head.tensors, &f->head.n_tensors, &err), 0);
    f->head.num_examples = 12;
    tiered_digest_of("first blockthe third", 20, &f->digest);
}

/* As a sender's head arrives. */
static void fixture_promise(struct fixture *f)
{
    f->head.n_blocks = 3;
    f->head.encoded_bytes = 20;
    f->head.encoded.data = f->digest.bytes;
    f->head.encoded.len = 32;
}

static void fixture_drop(struct fixture *f)
{
    tiered_wire_free_tensors(f->head.tensors, f->head.n_tensors);
    tiered_layout_unref(f->layout);
}

static int append(struct tiered_encoded *e, uint32_t i, struct tiered_error *err)
{
    size_t n = strlen(blocks[i]);
    return tiered_encoded_append(e, i, tiered_crc32c(0, blocks[i], n), blocks[i], n,
                                 err);
}

static void append_all(struct tiered_encoded *e)
{
    struct tiered_error err;
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(append(e, i, &err), 0);
    }
}

static void check_blocks(const struct tiered_encoded *e)
{
    struct tiered_error err;
    const Tiered__V1__Head *head = tiered_encoded_head(e);
    assert_int_equal(head->n_blocks, 3);
    assert_int_equal(head->encoded_bytes, 20);
    assert_int_equal(head->num_examples, 12);
    for (uint32_t i = 0; i < 3; i++) {
        char out[32] = {0};
        size_t size;
        uint32_t crc;
        tiered_encoded_block(e, i, &size, &crc);
        assert_int_equal(size, strlen(blocks[i]));
        assert_int_equal(crc, tiered_crc32c(0, blocks[i], size));
        assert_int_equal(tiered_encoded_read(e, i, out, sizeof(out), &err), 0);
        assert_string_equal(out, blocks[i]);
        const char *borrowed = tiered_encoded_borrow(e, i);
        assert_int_equal(borrowed != NULL, tiered_encoded_in_memory(e));
        if (borrowed) {
            assert_memory_equal(borrowed, blocks[i], size);
        }
    }
}

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

static void put(const char *name, const uint8_t *data, size_t n)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    fclose(file);
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

static const struct tiered_path path1 = {.depth = 1, .n = {9}},
                                path2 = {.depth = 2, .n = {9, 1}},
                                path3 = {.depth = 2, .n = {10, 2}};

static struct tiered_outbox *open_outbox(void)
{
    struct tiered_error err;
    struct tiered_outbox *outbox = NULL;
    assert_int_equal(tiered_outbox_open(folder, &outbox, &err), 0);
    return outbox;
}

static void commit(struct tiered_outbox *outbox, const struct tiered_path *path,
                   const char *saved)
{
    struct fixture f;
    struct tiered_error err;
    struct tiered_encoded *e = NULL;
    fixture_make(&f);
    assert_int_equal(tiered_outbox_begin(outbox, path, &f.head, &e, &err), 0);
    append_all(e);
    assert_int_equal(tiered_outbox_commit(outbox, path, e, saved, strlen(saved), &err),
                     0);
    tiered_encoded_unref(e);
    fixture_drop(&f);
}

static void check_state(struct tiered_outbox *outbox, const char *want)
{
    struct tiered_error err;
    struct tiered_bytes got = {0};
    assert_int_equal(tiered_outbox_state(outbox, &got, &err), 0);
    assert_string_equal(got.data ? (char *)got.data : "", want);
    assert_int_equal(got.size, strlen(want));
    tiered_bytes_finish(&got);
}

static void check_entry(struct tiered_outbox *outbox, const struct tiered_path *path,
                        bool there)
{
    struct tiered_encoded *e = tiered_outbox_get(outbox, path);
    assert_int_equal(e != NULL, there);
    if (e) {
        check_blocks(e);
    }
    tiered_encoded_unref(e);
}

static void test_outbox(void **state)
{
    (void)state;
    struct tiered_error err;
    struct tiered_outbox *outbox = open_outbox();
    check_state(outbox, "");
    check_entry(outbox, &path1, false);
    commit(outbox, &path1, "one");
    assert_string_equal(listing(), "out-9.upd");
    check_entry(outbox, &path1, true);
    check_entry(outbox, &path2, false);
    check_state(outbox, "one");
    assert_int_equal(tiered_outbox_clear(outbox, &path2, &err), 0); /* not there */
    check_entry(outbox, &path1, true);
    struct tiered_encoded *reader = tiered_outbox_get(outbox, &path1);
    assert_int_equal(tiered_outbox_clear(outbox, &path1, &err), 0);
    assert_int_equal(tiered_outbox_clear(outbox, &path1, &err), 0);
    check_blocks(reader); /* whoever reads may finish */
    tiered_encoded_unref(reader);
    assert_string_equal(listing(), "state.upd");
    check_entry(outbox, &path1, false);
    check_state(outbox, "one");
    commit(outbox, &path2, "two");
    commit(outbox, &path3, "three"); /* supersedes without a clear */
    assert_string_equal(listing(), "out-10.2.upd,state.upd");
    check_entry(outbox, &path2, false);
    check_state(outbox, "three");
    commit(outbox, &path3, "again"); /* the same path once more */
    check_entry(outbox, &path3, true);
    check_state(outbox, "again");
    tiered_outbox_close(outbox);

    outbox = open_outbox(); /* all of it survives the process */
    check_entry(outbox, &path3, true);
    check_state(outbox, "again");
    assert_int_equal(tiered_outbox_clear(outbox, &path3, &err), 0);
    tiered_outbox_close(outbox);
    outbox = open_outbox();
    check_entry(outbox, &path3, false);
    check_state(outbox, "again");
    tiered_outbox_close(outbox);
    remove_inside();
}

/* The folder as a death leaves it between two steps. */
static void test_outbox_deaths(void **state)
{
    (void)state;
    struct fixture f;
    struct tiered_error err;
    struct tiered_bytes entry = {0};
    fixture_make(&f);
    /* While writing: the temporary file, and the truth from before. */
    struct tiered_outbox *outbox = open_outbox();
    commit(outbox, &path1, "one");
    struct tiered_encoded *e = NULL;
    assert_int_equal(tiered_outbox_begin(outbox, &path2, &f.head, &e, &err), 0);
    append_all(e);
    assert_string_equal(listing(), "out-9.1.1.tmp,out-9.upd");
    struct tiered_outbox *after = open_outbox();
    assert_string_equal(listing(), "out-9.upd");
    check_entry(after, &path1, true);
    check_state(after, "one");
    tiered_outbox_close(after);
    tiered_encoded_unref(e);

    /* After the rename, before the old entry went: the newest path counts. */
    assert_int_equal(tiered_file_read(in_folder("out-9.upd"), 1 << 20, &entry, &err),
                     0);
    commit(outbox, &path3, "three");
    put("out-9.upd", entry.data, entry.size);
    after = open_outbox();
    check_entry(after, &path3, true);
    check_entry(after, &path1, false);
    check_state(after, "three");
    assert_string_equal(listing(), "out-10.2.upd,state.upd");
    tiered_outbox_close(after);

    /* A lost clear: the update is back, and is cleared again. */
    assert_int_equal(tiered_outbox_clear(outbox, &path3, &err), 0);
    put("out-9.upd", entry.data, entry.size);
    after = open_outbox();
    check_entry(after, &path1, true);
    check_state(after, "one");
    assert_int_equal(tiered_outbox_clear(after, &path1, &err), 0);
    tiered_outbox_close(after);
    tiered_outbox_close(outbox);

    /* A damaged entry: removed, and the state from before it is what is left. */
    entry.data[20] ^= 1;
    put("out-11.upd", entry.data, entry.size);
    put("out-x.upd", entry.data, entry.size); /* not a path: not ours */
    put("out-12.upd", entry.data, 0);
    tiered_log_set_level(TIERED_LOG_ERROR);
    after = open_outbox();
    tiered_log_set_level(TIERED_LOG_INFO);
    assert_string_equal(listing(), "out-x.upd,state.upd");
    check_state(after, "one");
    tiered_outbox_close(after);
    tiered_bytes_finish(&entry);
    fixture_drop(&f);
    remove_inside();
}

static void test_outbox_refusals(void **state)
{
    (void)state;
    struct fixture f;
    struct tiered_error err;
    fixture_make(&f);
    struct tiered_outbox *outbox = open_outbox();
    commit(outbox, &path1, "one");
    struct tiered_encoded *e = NULL;
    assert_int_equal(tiered_outbox_begin(outbox, &path2, &f.head, &e, &err), 0);
    assert_int_equal(append(e, 0, &err), 0);
    assert_int_equal(tiered_outbox_commit(outbox, &path2, e, NULL, 0, &err), -1);
    assert_string_equal(err.text, "2 of 3 blocks are missing");
    tiered_encoded_unref(e);
    assert_string_equal(listing(), "out-9.upd"); /* what stood still stands */
    check_state(outbox, "one");
    assert_int_equal(tiered_encoded_begin(&f.head, NULL, &e, &err), 0);
    append_all(e);
    assert_int_equal(tiered_outbox_commit(outbox, &path2, e, NULL, 0, &err), -1);
    assert_string_equal(err.text, "the update was not begun in the outbox");
    tiered_encoded_unref(e);
    put("state.upd", (const uint8_t *)"rubbish", 7);
    assert_int_equal(tiered_outbox_clear(outbox, &path1, &err), 0); /* replaces it */
    check_state(outbox, "one");
    put("state.upd", (const uint8_t *)"rubbish", 7);
    struct tiered_bytes bytes = {0};
    assert_int_equal(tiered_outbox_state(outbox, &bytes, &err), -1);
    assert_int_equal(err.code, TIERED_ECORRUPT);
    tiered_outbox_close(outbox);
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
        cmocka_unit_test(test_outbox),
        cmocka_unit_test(test_outbox_deaths),
        cmocka_unit_test(test_outbox_refusals),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
