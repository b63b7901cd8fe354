/* SPDX-License-Identifier: Apache-2.0 */
/* Growable bytes: always one more byte than the capacity, for the final NUL. */
#include "core/base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int reserve(struct tiered_bytes *b, size_t extra)
{
    uint64_t need, doubled, room;
    if (!tiered_add(b->size, extra, &need)) {
        return -1;
    }
    if (b->data && need <= b->capacity) {
        return 0;
    }
    if (!tiered_mul(b->capacity, 2, &doubled) || doubled < need) {
        doubled = need;
    }
    if (doubled < 63) {
        doubled = 63;
    }
    if (!tiered_add(doubled, 1, &room) || room > SIZE_MAX) {
        return -1;
    }
    uint8_t *data = realloc(b->data, (size_t)room);
    if (!data) {
        return -1;
    }
    b->data = data;
    b->capacity = (size_t)doubled;
    return 0;
}

int tiered_bytes_append(struct tiered_bytes *b, const void *data, size_t n,
                        struct tiered_error *err)
{
    if (reserve(b, n) < 0) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for %zu more bytes", n);
    }
    if (n) {
        memcpy(b->data + b->size, data, n);
    }
    b->size += n;
    b->data[b->size] = 0;
    return 0;
}

int tiered_bytes_printf(struct tiered_bytes *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || reserve(b, (size_t)n) < 0) {
        return -1;
    }
    va_start(args, fmt);
    vsnprintf((char *)b->data + b->size, (size_t)n + 1, fmt, args);
    va_end(args);
    b->size += (size_t)n;
    return 0;
}

void tiered_bytes_finish(struct tiered_bytes *b)
{
    if (b) {
        free(b->data);
        memset(b, 0, sizeof(*b));
    }
}
