/* SPDX-License-Identifier: Apache-2.0 */
/* Files of bytes, plain or gzip. zlib reads both through one call. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES  (256u << 10)
#define DEFLATE_RATIO 1032
#define SHOWN_BYTES   120 /* of a path, so that the message still fits */

static void show_path(const char *path, char out[SHOWN_BYTES + 1])
{
    size_t n = strlen(path);
    if (n <= SHOWN_BYTES) {
        memcpy(out, path, n + 1);
    } else {
        snprintf(out, SHOWN_BYTES + 1, "...%s", path + (n - SHOWN_BYTES + 3));
    }
}

int(tiered_fail_in)(struct tiered_error *err, enum tiered_code code, const char *path,
                    const char *fmt, ...)
{
    char shown[SHOWN_BYTES + 1];
    va_list args;
    va_start(args, fmt);
    tiered_vfail(err, code, fmt, args);
    va_end(args);
    show_path(path, shown);
    return tiered_error_prefix(err, "%s: ", shown);
}

int(tiered_fail_line)(struct tiered_error *err, const char *path, uint64_t line,
                      uint64_t column, const char *fmt, ...)
{
    char shown[SHOWN_BYTES + 1];
    va_list args;
    va_start(args, fmt);
    tiered_vfail(err, TIERED_EINVAL, fmt, args);
    va_end(args);
    show_path(path, shown);
    return tiered_error_prefix(err, "%s:%" PRIu64 ":%" PRIu64 ": ", shown, line,
                               column);
}

static int open_file(const char *path, uint64_t *ret_bytes, struct tiered_error *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not hang */
    if (fd < 0) {
        return tiered_fail_in(err, errno == ENOENT ? TIERED_ENOENT : TIERED_EIO, path,
                              "%s", strerror(errno));
    }
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return tiered_fail_in(err, TIERED_EINVAL, path, "is not a regular file");
    }
    *ret_bytes = (uint64_t)info.st_size;
    return fd;
}

int tiered_stream_open(struct tiered_stream *stream, const char *path,
                       struct tiered_error *err)
{
    *stream = (struct tiered_stream){.path = path};
    int fd = open_file(path, &stream->file_bytes, err);
    if (fd < 0) {
        return -1;
    }
    stream->file = gzdopen(fd, "rb");
    if (!stream->file) {
        close(fd);
        return tiered_fail_in(err, TIERED_ENOMEM, path, "out of memory");
    }
    gzbuffer(stream->file, BUFFER_BYTES);
    stream->compressed = !gzdirect(stream->file);
    return 0;
}

void tiered_stream_close(struct tiered_stream *stream)
{
    if (stream->file) {
        gzclose(stream->file);
        stream->file = NULL;
    }
}

int tiered_stream_read(struct tiered_stream *stream, void *out, size_t n, size_t *ret_n,
                       struct tiered_error *err)
{
    size_t done = 0;
    int code = Z_OK;
    while (done < n) {
        size_t want = n - done < INT_MAX / 2 ? n - done : INT_MAX / 2;
        int got = gzread(stream->file, (char *)out + done, (unsigned)want);
        if (got <= 0) {
            break;
        }
        done += (size_t)got;
    }
    if (done < n) {
        const char *reason = gzerror(stream->file, &code);
        if (code == Z_BUF_ERROR) {
            return tiered_fail_in(err, TIERED_ECORRUPT, stream->path,
                                  "the compressed data is cut off");
        }
        if (code != Z_OK && code != Z_STREAM_END) {
            return tiered_fail_in(err, TIERED_ECORRUPT, stream->path,
                                  "cannot be read: %s",
                                  code == Z_ERRNO ? strerror(errno) : reason);
        }
    }
    *ret_n = done;
    return 0;
}

bool tiered_stream_can_hold(const struct tiered_stream *stream, uint64_t bytes)
{
    return stream->compressed ? bytes / DEFLATE_RATIO <= stream->file_bytes
                              : bytes <= stream->file_bytes;
}
