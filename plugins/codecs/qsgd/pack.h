/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Levels as bits. Fixed: level + s in as few bits as 2s + 1 values need, the first
 * value in the lowest bits, each bucket from a whole byte. Elias: one stream a block,
 * first bit highest, in which each non-zero level is the gamma code of 1 + the zeros
 * before it, a sign bit (1: negative) and the gamma code of its size; zeros that end a
 * block are told by one more gap, which reaches its end.
 */
#ifndef TIERED_QSGD_PACK_H
#define TIERED_QSGD_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** ceil(log2(2s + 1)). */
unsigned pack_bits(unsigned levels);

static inline size_t pack_size(size_t n, unsigned bits)
{
    return (n * bits + 7) / 8;
}

/** n levels into pack_size(n, bits) bytes, and back; false: not such a packing. */
void pack_fixed(const int16_t *in, size_t n, unsigned levels, uint8_t *out);
bool unpack_fixed(const uint8_t *in, size_t n, unsigned levels, int16_t *out);

struct pack_writer {
    uint8_t *out;
    size_t size, capacity;
    uint64_t window; /* the lowest n_bits are still to be written */
    unsigned n_bits;
    bool full;    /* it did not fit */
    size_t zeros; /* since the last level that was written */
};

void pack_elias_begin(struct pack_writer *w, uint8_t *out, size_t capacity);
void pack_elias(struct pack_writer *w, const int16_t *in, size_t n);
/** The bytes written; false: it did not fit. */
bool pack_elias_end(struct pack_writer *w, size_t *ret_size);

struct pack_reader {
    const uint8_t *in;
    size_t size, at;
    uint64_t window; /* the lowest n_bits are read next */
    unsigned n_bits, levels;
    bool bad;
    size_t zeros; /* before `level`, or before the end if it is 0 */
    int16_t level;
    size_t left; /* values of the block not yet accounted for */
};

void unpack_elias_begin(struct pack_reader *r, const uint8_t *in, size_t size,
                        unsigned levels, size_t n);
/** The next n of the block's levels; false: damaged. */
bool unpack_elias(struct pack_reader *r, int16_t *out, size_t n);
/** All was read, and nothing follows. */
bool unpack_elias_end(const struct pack_reader *r);

#endif
