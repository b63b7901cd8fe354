/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files, read with a limit and written all or nothing. */
#include "core/base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

static int fail_errno(struct tiered_error *err, const char *what, const char *path)
{
    int cause = errno;
    return tiered_fail(err, cause == ENOENT ? TIERED_ENOENT : TIERED_EIO,
                       "cannot %s '%s': %s", what, path, strerror(cause));
}

static int fail_too_big(struct tiered_error *err, const char *path, size_t limit)
{
    return tiered_fail(err, TIERED_ENOMEM, "'%s' is larger than the limit of %zu bytes",
                       path, limit);
}

/* Pipes have no size, so the limit is checked on the way as well. */
static int read_all(int fd, const char *path, size_t limit, struct tiered_bytes *bytes,
                    struct tiered_error *err)
{
    uint8_t chunk[65536];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof(chunk));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_errno(err, "read", path);
        }
        if ((size_t)got > limit - bytes->size) {
            return fail_too_big(err, path, limit);
        }
        if (tiered_bytes_append(bytes, chunk, (size_t)got, err) < 0) {
            return -1;
        }
        if (got == 0) {
            return 0;
        }
    }
}

int tiered_file_read(const char *path, size_t limit, struct tiered_bytes *ret,
                     struct tiered_error *err)
{
    TIERED_CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0) {
        return fail_errno(err, "read", path);
    }
    if (S_ISREG(info.st_mode) && (uint64_t)info.st_size > limit) {
        return fail_too_big(err, path, limit);
    }
    struct tiered_bytes bytes = {0};
    if (read_all(fd, path, limit, &bytes, err) < 0) {
        tiered_bytes_finish(&bytes);
        return -1;
    }
    *ret = bytes;
    return 0;
}

static int write_all(int fd, const struct tiered_part *part)
{
    const uint8_t *at = part->data;
    size_t n = part->size;
    while (n) {
        ssize_t put = write(fd, at, n);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return -1;
        }
        at += put;
        n -= (size_t)put;
    }
    return 0;
}

static int write_parts(int fd, const struct tiered_part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (write_all(fd, &parts[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static void folder_of(const char *path, char *out)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    memcpy(out, n ? path : ".", n ? n : 1);
    out[n ? n : 1] = 0;
}

/* A new file beside `path`; its name goes to `name` (PATH_MAX). The process and a
   counter make it unique; O_EXCL makes sure, should a crash have left one behind. */
static int open_beside(const char *path, unsigned mode, char *name)
{
    static atomic_uint counter;
    for (int attempt = 0; attempt < 1000; attempt++) {
        int n = snprintf(name, PATH_MAX, "%s.%ld-%u.tmp", path, (long)getpid(),
                         atomic_fetch_add(&counter, 1));
        if (n < 0 || n >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST) {
            return fd;
        }
    }
    return -1;
}

static int replace(const char *path, unsigned mode, const struct tiered_part *parts,
                   size_t n, struct tiered_error *err)
{
    char name[PATH_MAX], folder[PATH_MAX];
    int fd = open_beside(path, mode, name);
    if (fd < 0) {
        return fail_errno(err, "write", path);
    }
    bool written = write_parts(fd, parts, n) == 0 && fsync(fd) == 0;
    int cause = errno;
    written = close(fd) == 0 && written;
    if (!written || rename(name, path) < 0) {
        cause = written ? errno : cause;
        unlink(name);
        errno = cause;
        return fail_errno(err, "write", path);
    }
    folder_of(path, folder);
    return tiered_fsync_folder(folder, err);
}

static int write_in_place(const char *path, const struct tiered_part *parts, size_t n,
                          struct tiered_error *err)
{
    TIERED_CLEANUP(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write_parts(fd, parts, n) < 0) {
        return fail_errno(err, "write", path);
    }
    return 0;
}

int tiered_file_write_parts(const char *path, unsigned mode,
                            const struct tiered_part *parts, size_t n,
                            struct tiered_error *err)
{
    char target[PATH_MAX];
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        return write_in_place(path, parts, n, err); /* a pipe has no real path */
    }
    if (!realpath(path,
                  target)) { /* a new file, or an error that replace() will name */
        if (strlen(path) >= sizeof(target)) {
            errno = ENAMETOOLONG;
            return fail_errno(err, "write", path);
        }
        memcpy(target, path, strlen(path) + 1);
    }
    return replace(target, mode, parts, n, err);
}

int tiered_file_write_mode(const char *path, unsigned mode, const void *data, size_t n,
                           struct tiered_error *err)
{
    struct tiered_part part = {.data = data, .size = n};
    return tiered_file_write_parts(path, mode, &part, 1, err);
}

int tiered_file_write(const char *path, const void *data, size_t n,
                      struct tiered_error *err)
{
    return tiered_file_write_mode(path, 0666, data, n, err);
}

static int make_folder(const char *path, unsigned mode, struct tiered_error *err)
{
    struct stat info;
    if (mkdir(path, mode) == 0) {
        return 0;
    }
    int cause = errno;
    if (cause == EEXIST && stat(path, &info) == 0) {
        if (S_ISDIR(info.st_mode)) {
            return 0;
        }
        return tiered_fail(err, TIERED_EIO, "'%s' is not a folder", path);
    }
    errno = cause;
    return fail_errno(err, "make the folder", path);
}

int tiered_mkdirs(const char *path, unsigned mode, struct tiered_error *err)
{
    TIERED_FREE char *part = strdup(path);
    if (!part) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (char *at = part; *at; at++) {
        if (*at == '/' && at > part && at[-1] != '/') {
            *at = 0;
            if (make_folder(part, mode, err) < 0) {
                return -1;
            }
            *at = '/';
        }
    }
    return make_folder(part, mode, err);
}

int tiered_fsync_folder(const char *path, struct tiered_error *err)
{
    TIERED_CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot sync a folder (EINVAL): nothing better is possible. */
    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL)) {
        return fail_errno(err, "sync the folder", path);
    }
    return 0;
}
