/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing at a place in an open file. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/base/base.h"

int tiered_read_at(int fd, void *out, size_t n, uint64_t offset,
                   struct tiered_error *err)
{
    uint8_t *at = out;
    while (n) {
        ssize_t got = pread(fd, at, n, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return tiered_fail(err, TIERED_EIO, "cannot read: %s", strerror(errno));
        }
        if (got == 0) {
            return tiered_fail(err, TIERED_ECORRUPT, "the file is cut off at byte %llu",
                               (unsigned long long)offset);
        }
        at += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int tiered_write_at(int fd, const void *data, size_t n, uint64_t offset,
                    struct tiered_error *err)
{
    const uint8_t *at = data;
    while (n) {
        ssize_t put = pwrite(fd, at, n, (off_t)offset);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return tiered_fail(err, TIERED_EIO, "cannot write: %s", strerror(errno));
        }
        at += put;
        offset += (uint64_t)put;
        n -= (size_t)put;
    }
    return 0;
}
