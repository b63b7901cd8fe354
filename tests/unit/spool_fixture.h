/* SPDX-License-Identifier: Apache-2.0 */
/* A folder, a head of three blocks and their bytes: for the tests of spool and outbox.
 */
#ifndef TIERED_TESTS_SPOOL_FIXTURE_H
#define TIERED_TESTS_SPOOL_FIXTURE_H

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

#include "core/spool/spool.h"

static char folder[64];

static inline void remove_inside(void)
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

static inline int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tiered-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int drop_folder(void **state)
{
    (void)state;
    remove_inside();
    return rmdir(folder);
}

static inline const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

/* The names in the folder, sorted, with commas. */
static inline const char *listing(void)
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

static inline void fixture_make(struct fixture *f)
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
    uint32_t words[3][2];
    for (uint32_t i = 0; i < 3; i++) {
        words[i][0] = (uint32_t)strlen(blocks[i]);
        words[i][1] = tiered_crc32c(0, blocks[i], words[i][0]);
    }
    tiered_digest_of(words, sizeof(words), &f->digest);
}

/* As a sender's head arrives. */
static inline void fixture_promise(struct fixture *f)
{
    f->head.n_blocks = 3;
    f->head.encoded_bytes = 20;
    f->head.encoded.data = f->digest.bytes;
    f->head.encoded.len = 32;
}

static inline void fixture_drop(struct fixture *f)
{
    tiered_wire_free_tensors(f->head.tensors, f->head.n_tensors);
    tiered_layout_unref(f->layout);
}

static inline int append(struct tiered_encoded *e, uint32_t i, struct tiered_error *err)
{
    size_t n = strlen(blocks[i]);
    return tiered_encoded_append(e, i, tiered_crc32c(0, blocks[i], n), blocks[i], n,
                                 err);
}

static inline void append_all(struct tiered_encoded *e)
{
    struct tiered_error err;
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(append(e, i, &err), 0);
    }
}

static inline void check_blocks(const struct tiered_encoded *e)
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

static inline void put(const char *name, const uint8_t *data, size_t n)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    fclose(file);
}

#endif
