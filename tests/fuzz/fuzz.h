/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share: a check that no build switches off, files in a folder
   of the process's own, and bytes taken from the front of an input. */
#ifndef TIERED_TESTS_FUZZ_H
#define TIERED_TESTS_FUZZ_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A finding that no sanitizer sees. */
#define FUZZ_CHECK(condition, ...)                                                     \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                            \
            fprintf(stderr, __VA_ARGS__);                                              \
            fputc('\n', stderr);                                                       \
            abort();                                                                   \
        }                                                                              \
    } while (0)

/* Every refusal says why, in one line that fits. */
static inline void fuzz_check_error(const struct tiered_error *err)
{
    FUZZ_CHECK(err->code != TIERED_OK && err->text[0], "refused without a reason");
    FUZZ_CHECK(memchr(err->text, 0, sizeof(err->text)), "a reason without an end");
}

/* The input, from front to back. What is past its end reads as zeros. */
struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
    if (in->size == 0) {
        return 0;
    }
    in->size--;
    return *in->data++;
}

static inline size_t fuzz_u16(struct fuzz_input *in)
{
    size_t low = fuzz_byte(in);
    return low | (size_t)fuzz_byte(in) << 8;
}

/* The next n bytes, or what is left of them. */
static inline struct fuzz_input fuzz_take(struct fuzz_input *in, size_t n)
{
    struct fuzz_input part = {in->data, n < in->size ? n : in->size};
    in->data += part.size;
    in->size -= part.size;
    return part;
}

static char fuzz_folder_path[64];
static char fuzz_paths[8][160]; /* of the files made so far */

static inline void fuzz_drop_folder(void)
{
    for (size_t i = 0; i < TIERED_COUNT(fuzz_paths) && fuzz_paths[i][0]; i++) {
        unlink(fuzz_paths[i]);
    }
    rmdir(fuzz_folder_path);
}

/* In memory where the system has such a folder: a target writes thousands of files a
   second. */
static inline const char *fuzz_folder(void)
{
    static const char *const roots[] = {"/dev/shm", "/tmp"};
    for (size_t i = 0; !fuzz_folder_path[0] && i < TIERED_COUNT(roots); i++) {
        char path[64];
        snprintf(path, sizeof(path), "%s/tiered-fuzz-XXXXXX", roots[i]);
        if (mkdtemp(path)) {
            strcpy(fuzz_folder_path, path);
            atexit(fuzz_drop_folder);
        }
    }
    FUZZ_CHECK(fuzz_folder_path[0], "no folder for files: %s", strerror(errno));
    return fuzz_folder_path;
}

/* The path of a file of the folder, which is removed at exit. */
static inline const char *fuzz_path(const char *name)
{
    char path[160];
    size_t i = 0;
    int n = snprintf(path, sizeof(path), "%s/%s", fuzz_folder(), name);
    while (i < TIERED_COUNT(fuzz_paths) && fuzz_paths[i][0] &&
           strcmp(fuzz_paths[i], path) != 0) {
        i++;
    }
    FUZZ_CHECK(n < (int)sizeof(path) && i < TIERED_COUNT(fuzz_paths),
               "too many files, or too long a name: '%s'", name);
    memcpy(fuzz_paths[i], path, (size_t)n + 1);
    return fuzz_paths[i];
}

/* Write such a file, anew. */
static inline const char *fuzz_file(const char *name, const void *data, size_t size)
{
    const char *path = fuzz_path(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0, "cannot make '%s': %s", path, strerror(errno));
    FUZZ_CHECK(size == 0 || write(fd, data, size) == (ssize_t)size, "cannot write '%s'",
               path);
    close(fd);
    return path;
}

#endif
