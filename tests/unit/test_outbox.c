/* SPDX-License-Identifier: Apache-2.0 */
/* The outbox, and its folder as a death between any two steps leaves it. */
#include "spool_fixture.h"

#include "core/base/log.h"

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

static void check_before(struct tiered_outbox *outbox, const struct tiered_path *path,
                         const char *want)
{
    struct tiered_error err;
    struct tiered_bytes got = {0};
    assert_int_equal(tiered_outbox_state(outbox, path, &got, &err), 0);
    assert_string_equal(got.data ? (char *)got.data : "", want);
    assert_int_equal(got.size, strlen(want));
    tiered_bytes_finish(&got);
}

static void check_state(struct tiered_outbox *outbox, const char *want)
{
    check_before(outbox, NULL, want);
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

/* Without a state nothing is left of a settled update; with one, the newest. */
static void test_outbox_without_state(void **state)
{
    (void)state;
    struct tiered_error err;
    struct tiered_outbox *outbox = open_outbox();
    commit(outbox, &path1, "");
    struct tiered_encoded *reader = tiered_outbox_get(outbox, &path1);
    assert_int_equal(tiered_outbox_clear(outbox, &path1, &err), 0);
    assert_string_equal(listing(), "");
    check_blocks(reader);
    tiered_encoded_unref(reader);
    check_state(outbox, "");
    commit(outbox, &path1, "one");
    commit(outbox, &path2, "");
    assert_string_equal(listing(), "out-9.1.upd,state.upd");
    assert_int_equal(tiered_outbox_clear(outbox, &path2, &err), 0);
    assert_string_equal(listing(), "state.upd");
    check_state(outbox, "");
    tiered_outbox_close(outbox);
    remove_inside();
}

/* What is made again for a path goes on from where the first one did, and replaces it.
 */
static void test_outbox_made_again(void **state)
{
    (void)state;
    struct tiered_error err;
    struct tiered_outbox *outbox = open_outbox();
    commit(outbox, &path1, "one");
    check_before(outbox, &path1, "");
    check_before(outbox, &path2, "one");
    commit(outbox, &path1, "one again");
    check_before(outbox, &path1, "");
    check_state(outbox, "one again");
    commit(outbox, &path2, "two");
    check_before(outbox, &path2, "one again");
    tiered_outbox_close(outbox);
    outbox = open_outbox();
    check_before(outbox, &path2, "one again");
    check_before(outbox, &path3, "two");
    assert_int_equal(tiered_outbox_clear(outbox, &path2, &err), 0);
    check_before(outbox, &path3, "two");
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
    assert_int_equal(tiered_outbox_state(outbox, NULL, &bytes, &err), -1);
    assert_int_equal(err.code, TIERED_ECORRUPT);
    tiered_outbox_close(outbox);
    fixture_drop(&f);
    remove_inside();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outbox),
        cmocka_unit_test(test_outbox_without_state),
        cmocka_unit_test(test_outbox_made_again),
        cmocka_unit_test(test_outbox_deaths),
        cmocka_unit_test(test_outbox_refusals),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
