/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of few values: gaps, a bitmap, or all of them. */
#include "sparse.h"

enum form { GAPS, BITMAP, DENSE };

struct writer {
    const struct residual *r;
    const struct residual_span *span;
    enum tiered_dtype dtype;
    size_t width;
    uint8_t *marks, *values;       /* where the next gap and value go; marks of a bitmap
                                      stay at its begin */
    size_t count, gap_bytes, next; /* next: behind the last value */
};

static size_t gap_size(size_t gap)
{
    return gap < 1u << 7 ? 1 : gap < 1u << 14 ? 2 : gap < 1u << 21 ? 3 : 4;
}

static void put_value(struct writer *w, size_t i, uint8_t *to)
{
    if (w->span->wide) {
        memcpy(to, (const double *)w->span->values + i, sizeof(double));
    } else if (codec_is_half(w->dtype)) {
        uint16_t half;
        codec_store(w->dtype, (const float *)w->span->values + i, 1, &half);
        memcpy(to, &half, sizeof(half));
    } else {
        memcpy(to, (const float *)w->span->values + i, sizeof(float));
    }
}

static void put_gap(struct writer *w, size_t gap)
{
    while (gap >= 0x80) {
        *w->marks++ = (uint8_t)(gap | 0x80);
        gap >>= 7;
    }
    *w->marks++ = (uint8_t)gap;
}

typedef void (*value_fn)(struct writer *w, size_t i);

static void count_one(struct writer *w, size_t i)
{
    w->count++;
    w->gap_bytes += gap_size(i - w->next);
    w->next = i + 1;
}

static void gap_one(struct writer *w, size_t i)
{
    put_gap(w, i - w->next);
    put_value(w, i, w->values);
    w->values += w->width;
    w->next = i + 1;
}

static void bit_one(struct writer *w, size_t i)
{
    w->marks[i / 8] |= (uint8_t)(1u << i % 8);
    put_value(w, i, w->values);
    w->values += w->width;
}

static void dense_one(struct writer *w, size_t i)
{
    put_value(w, i, w->values + i * w->width);
}

static void each_sent(struct writer *w, value_fn one)
{
    uint32_t sent[CODEC_TILE];
    w->next = 0;
    for (size_t at = 0; at < w->span->n; at += CODEC_TILE) {
        size_t m = w->span->n - at < CODEC_TILE ? w->span->n - at : CODEC_TILE;
        size_t count = residual_sent(w->r, w->span, at, m, sent);
        for (size_t i = 0; i < count; i++) {
            one(w, sent[i]);
        }
    }
}

static size_t bitmap_size(size_t n)
{
    return (n + 7) / 8;
}

int sparse_write(const struct residual *r, const struct residual_span *span,
                 enum tiered_dtype dtype, void *out, size_t capacity, size_t *ret_size,
                 struct tiered_error *err)
{
    uint8_t *to = out;
    struct writer w = {
        .r = r, .span = span, .dtype = dtype, .width = tiered_dtype_size(dtype)};
    each_sent(&w, count_one);
    size_t values = w.count * w.width, gaps = 4 + w.gap_bytes + values;
    size_t bitmap = bitmap_size(span->n) + values, dense = span->n * w.width;
    enum form form = gaps <= bitmap && gaps <= dense ? GAPS
                     : bitmap <= dense               ? BITMAP
                                                     : DENSE;
    size_t size = 1 + (form == GAPS ? gaps : form == BITMAP ? bitmap : dense);
    if (codec_check_room(size, capacity, err) < 0) {
        return -1;
    }
    to[0] = (uint8_t)form;
    w.marks = to + 1;
    if (form == GAPS) {
        const uint32_t count = (uint32_t)w.count;
        memcpy(to + 1, &count, sizeof(count));
        w.marks += sizeof(count);
        w.values = w.marks + w.gap_bytes;
        each_sent(&w, gap_one);
    } else if (form == BITMAP) {
        memset(w.marks, 0, bitmap_size(span->n));
        w.values = w.marks + bitmap_size(span->n);
        each_sent(&w, bit_one);
    } else {
        memset(w.marks, 0, dense);
        w.values = w.marks;
        each_sent(&w, dense_one);
    }
    *ret_size = size;
    return 0;
}

/* ---- back ---- */

static int damaged(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ECORRUPT,
                       "the block's places and values are damaged");
}

/* Four bytes say more than a block has values. */
static bool read_gap(const uint8_t **at, const uint8_t *end, size_t *ret)
{
    size_t gap = 0;
    for (unsigned shift = 0; shift < 28; shift += 7) {
        if (*at == end) {
            return false;
        }
        uint8_t byte = *(*at)++;
        gap |= (size_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = gap;
            return true;
        }
    }
    return false;
}

static int read_gaps(const uint8_t *in, size_t size, size_t n, size_t width,
                     uint8_t *out, struct tiered_error *err)
{
    uint32_t count;
    if (size < sizeof(count)) {
        return damaged(err);
    }
    memcpy(&count, in, sizeof(count));
    in += sizeof(count);
    size -= sizeof(count);
    if (count > n || size < count * width) {
        return damaged(err);
    }
    const uint8_t *end = in + (size - count * width), *values = end;
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t gap;
        if (!read_gap(&in, end, &gap) || gap >= n - at) {
            return damaged(err);
        }
        at += gap;
        memcpy(out + at * width, values + i * width, width);
        at++;
    }
    return in == end ? 0 : damaged(err);
}

static int read_bitmap(const uint8_t *in, size_t size, size_t n, size_t width,
                       uint8_t *out, struct tiered_error *err)
{
    size_t bytes = bitmap_size(n), count = 0;
    if (size < bytes || (n % 8 && in[bytes - 1] >> n % 8)) {
        return damaged(err);
    }
    for (size_t i = 0; i < bytes; i++) {
        count += (size_t)__builtin_popcount(in[i]);
    }
    if (size != bytes + count * width) {
        return damaged(err);
    }
    const uint8_t *values = in + bytes;
    for (size_t i = 0; i < n; i++) {
        if (in[i / 8] >> i % 8 & 1) {
            memcpy(out + i * width, values, width);
            values += width;
        }
    }
    return 0;
}

int sparse_read(const void *in, size_t in_size, size_t n, enum tiered_dtype dtype,
                void *out, struct tiered_error *err)
{
    const uint8_t *from = in;
    size_t width = tiered_dtype_size(dtype);
    if (in_size == 0 || from[0] > DENSE) {
        return damaged(err);
    }
    if (from[0] == DENSE) {
        if (codec_check_size(in_size, 1 + n * width, err) < 0) {
            return -1;
        }
        if (n) {
            memcpy(out, from + 1, n * width);
        }
        return 0;
    }
    if (n) {
        memset(out, 0, n * width);
    }
    return from[0] == GAPS ? read_gaps(from + 1, in_size - 1, n, width, out, err)
                           : read_bitmap(from + 1, in_size - 1, n, width, out, err);
}
