/* SPDX-License-Identifier: Apache-2.0 */
/* Levels as bits: fixed width, and Elias codes of runs. */
#include "pack.h"

#include <string.h>

unsigned pack_bits(unsigned levels)
{
    unsigned bits = 1;
    while ((1u << bits) < 2 * levels + 1) {
        bits++;
    }
    return bits;
}

/* Widths that divide 8: `each` values a byte. */
static void pack_even(const int16_t *restrict in, size_t n, int levels, unsigned bits,
                      uint8_t *restrict out)
{
    size_t each = 8 / bits, whole = n / each;
    if (bits == 8) {
        for (size_t i = 0; i < n; i++) {
            out[i] = (uint8_t)(in[i] + levels);
        }
        return;
    }
    if (bits == 4) {
        for (size_t i = 0; i < whole; i++) {
            out[i] = (uint8_t)((in[2 * i] + levels) | (in[2 * i + 1] + levels) << 4);
        }
    } else {
        for (size_t i = 0; i < whole; i++) {
            const int16_t *x = in + 4 * i;
            out[i] = (uint8_t)((x[0] + levels) | (x[1] + levels) << 2 |
                               (x[2] + levels) << 4 | (x[3] + levels) << 6);
        }
    }
    unsigned last = 0;
    for (size_t i = whole * each; i < n; i++) {
        last |= (unsigned)(in[i] + levels) << bits * (i % each);
    }
    if (whole * each < n) {
        out[whole] = (uint8_t)last;
    }
}

void pack_fixed(const int16_t *in, size_t n, unsigned levels, uint8_t *out)
{
    unsigned bits = pack_bits(levels), held = 0;
    uint64_t window = 0;
    if (8 % bits == 0) {
        pack_even(in, n, (int)levels, bits, out);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        window |= (uint64_t)(in[i] + (int)levels) << held;
        held += bits;
        while (held >= 8) {
            *out++ = (uint8_t)window;
            window >>= 8;
            held -= 8;
        }
    }
    if (held) {
        *out = (uint8_t)window;
    }
}

static void unpack_even(const uint8_t *restrict in, size_t n, int levels, unsigned bits,
                        int16_t *restrict out)
{
    size_t each = 8 / bits, whole = n / each;
    if (bits == 8) {
        for (size_t i = 0; i < n; i++) {
            out[i] = (int16_t)(in[i] - levels);
        }
        return;
    }
    if (bits == 4) {
        for (size_t i = 0; i < whole; i++) {
            out[2 * i] = (int16_t)((in[i] & 15) - levels);
            out[2 * i + 1] = (int16_t)((in[i] >> 4) - levels);
        }
    } else {
        for (size_t i = 0; i < whole; i++) {
            int16_t *x = out + 4 * i;
            x[0] = (int16_t)((in[i] & 3) - levels);
            x[1] = (int16_t)((in[i] >> 2 & 3) - levels);
            x[2] = (int16_t)((in[i] >> 4 & 3) - levels);
            x[3] = (int16_t)((in[i] >> 6) - levels);
        }
    }
    for (size_t i = whole * each; i < n; i++) {
        out[i] =
            (int16_t)((in[whole] >> bits * (i % each) & ((1 << bits) - 1)) - levels);
    }
}

static void unpack_odd(const uint8_t *in, size_t n, int levels, unsigned bits,
                       int16_t *out)
{
    uint64_t window = 0;
    unsigned held = 0;
    for (size_t i = 0; i < n; i++) {
        while (held < bits) {
            window |= (uint64_t)*in++ << held;
            held += 8;
        }
        out[i] = (int16_t)((int)(window & ((1u << bits) - 1)) - levels);
        window >>= bits;
        held -= bits;
    }
}

bool unpack_fixed(const uint8_t *in, size_t n, unsigned levels, int16_t *out)
{
    unsigned bits = pack_bits(levels), used = (unsigned)(n * bits % 8);
    if (8 % bits == 0) {
        unpack_even(in, n, (int)levels, bits, out);
    } else {
        unpack_odd(in, n, (int)levels, bits, out);
    }
    int16_t largest = 0, smallest = 0; /* a 16-bit code of all ones wraps */
    for (size_t i = 0; i < n; i++) {
        largest = out[i] > largest ? out[i] : largest;
        smallest = out[i] < smallest ? out[i] : smallest;
    }
    bool tail_is_zero = !used || in[pack_size(n, bits) - 1] >> used == 0;
    return largest <= (int)levels && smallest >= -(int)levels && tail_is_zero;
}

/* ---- Elias ---- */

static void put(struct pack_writer *w, uint32_t value, unsigned bits)
{
    w->window = w->window << bits | value; /* at most 7 + 32 bits */
    w->n_bits += bits;
    while (w->n_bits >= 8) {
        w->n_bits -= 8;
        if (w->size == w->capacity) {
            w->full = true;
            return;
        }
        w->out[w->size++] = (uint8_t)(w->window >> w->n_bits);
    }
}

/* x >= 1: as many zeros as x has bits after its first, then x. */
static void put_gamma(struct pack_writer *w, uint32_t x)
{
    unsigned more = 31u - (unsigned)__builtin_clz(x);
    put(w, 0, more);
    put(w, x, more + 1);
}

void pack_elias_begin(struct pack_writer *w, uint8_t *out, size_t capacity)
{
    *w = (struct pack_writer){.out = out, .capacity = capacity};
}

void pack_elias(struct pack_writer *w, const int16_t *in, size_t n)
{
    for (size_t i = 0; i < n && !w->full; i++) {
        if (in[i] == 0) {
            w->zeros++;
            continue;
        }
        put_gamma(w, (uint32_t)w->zeros + 1);
        put(w, in[i] < 0, 1);
        put_gamma(w, (uint32_t)(in[i] < 0 ? -in[i] : in[i]));
        w->zeros = 0;
    }
}

bool pack_elias_end(struct pack_writer *w, size_t *ret_size)
{
    if (w->zeros) {
        put_gamma(w, (uint32_t)w->zeros + 1);
    }
    if (w->n_bits) {
        put(w, 0, 8 - w->n_bits);
    }
    *ret_size = w->size;
    return !w->full;
}

/* At most 32 bits. */
static uint32_t get(struct pack_reader *r, unsigned bits)
{
    while (r->n_bits < bits) {
        if (r->at == r->size) {
            r->bad = true;
            return 0;
        }
        r->window = r->window << 8 | r->in[r->at++];
        r->n_bits += 8;
    }
    r->n_bits -= bits;
    return (uint32_t)(r->window >> r->n_bits & ((1ull << bits) - 1));
}

/* Below 2^24, which is more than a block has values. */
static uint32_t get_gamma(struct pack_reader *r)
{
    unsigned more = 0;
    while (!r->bad && get(r, 1) == 0) {
        if (++more >= 24) {
            r->bad = true;
        }
    }
    return r->bad ? 0 : 1u << more | get(r, more);
}

/* The next level and the zeros before it. */
static void advance(struct pack_reader *r)
{
    r->level = 0;
    r->zeros = 0;
    if (r->left == 0) {
        return;
    }
    uint32_t gap = get_gamma(r);
    if (r->bad || gap - 1 > r->left) {
        r->bad = true;
        return;
    }
    r->zeros = gap - 1;
    if (r->zeros == r->left) {
        r->left = 0; /* none but zeros to the end */
        return;
    }
    bool negative = get(r, 1);
    uint32_t size = get_gamma(r);
    r->bad = r->bad || size > r->levels;
    r->level = (int16_t)(r->bad ? 0 : negative ? -(int)size : (int)size);
    r->left -= r->zeros + 1;
}

void unpack_elias_begin(struct pack_reader *r, const uint8_t *in, size_t size,
                        unsigned levels, size_t n)
{
    *r = (struct pack_reader){.in = in, .size = size, .levels = levels, .left = n};
    advance(r);
}

bool unpack_elias(struct pack_reader *r, int16_t *out, size_t n)
{
    size_t at = 0;
    memset(out, 0, n * sizeof(*out));
    while (at < n && !r->bad) {
        size_t step = r->zeros < n - at ? r->zeros : n - at;
        at += step;
        r->zeros -= step;
        if (at == n) {
            break;
        }
        if (r->level == 0) {
            r->bad = true; /* the zeros ended before the block */
            break;
        }
        out[at++] = r->level;
        advance(r);
    }
    return !r->bad;
}

bool unpack_elias_end(const struct pack_reader *r)
{
    bool rest_is_zero = (r->window & ((1ull << r->n_bits) - 1)) == 0;
    return !r->bad && r->left == 0 && r->zeros == 0 && r->level == 0 &&
           r->at == r->size && r->n_bits < 8 && rest_is_zero;
}
