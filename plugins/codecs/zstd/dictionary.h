/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A dictionary of zstd as it travels: in front of the blocks, in the filter's header,
 * so that an update is decoded from itself alone. Packed it is a byte of version and
 * one Zstandard frame with a checksum; the same bytes are the sender's saved state.
 *
 * Threads: immutable once made; many may compress and decompress with one.
 */
#ifndef TIERED_ZSTD_DICTIONARY_H
#define TIERED_ZSTD_DICTIONARY_H

#include <zstd.h>

#include "tiered/filter.h"

#define DICTIONARY_VERSION 1
#define DICTIONARY_MOST    (32u << 10) /* bytes; packed, it fits a header on the wire */

struct dictionary {
    uint8_t *bytes, *packed; /* where they are still needed */
    size_t size, packed_size;
    uint32_t id; /* 1..255: what each frame made with it says, in one byte */
    ZSTD_CDict *writer;
    ZSTD_DDict *reader;
};

/** Take over `bytes`, which zstd's trainer made and malloc'ed, with an identity of its
    own. Frees them on failure. */
int dictionary_make(uint8_t *bytes, size_t size, int level, struct dictionary *ret,
                    struct tiered_error *err);
/** From a peer or a saved state: everything is checked, and bounded before memory is
    taken. `level` 0: to decompress alone. */
int dictionary_unpack(const void *packed, size_t size, int level,
                      struct dictionary *ret, struct tiered_error *err);
void dictionary_finish(struct dictionary *d);

static inline bool dictionary_is_none(const struct dictionary *d)
{
    return !d->reader;
}

#endif
