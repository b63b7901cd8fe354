/* SPDX-License-Identifier: Apache-2.0 */
/* Packing, checking and opening a dictionary. */
#include "dictionary.h"

#include <stdlib.h>
#include <string.h>

#define HEAD 8 /* magic and identity, in front of the tables */

/* A frame's descriptor is its fifth byte; this bit says that a checksum ends it. */
#define DESCRIPTOR   4
#define HAS_CHECKSUM 0x04

/* FNV-1a over the tables and the content: dictionaries that differ are told apart. */
static uint32_t identity_of(const uint8_t *bytes, size_t size)
{
    uint32_t hash = 2166136261u;
    for (size_t i = HEAD; i < size; i++) {
        hash = (hash ^ bytes[i]) * 16777619u;
    }
    return 1 + hash % 255;
}

static int open_reader(struct dictionary *d, struct tiered_error *err)
{
    d->id = ZSTD_getDictID_fromDict(d->bytes, d->size);
    d->reader = d->id ? ZSTD_createDDict(d->bytes, d->size) : NULL;
    return d->reader ? 0
                     : tiered_fail(err, TIERED_ECORRUPT, "the dictionary is damaged");
}

static int open_writer(struct dictionary *d, int level, struct tiered_error *err)
{
    d->writer = ZSTD_createCDict(d->bytes, d->size, level);
    return d->writer
               ? 0
               : tiered_fail(err, TIERED_ENOMEM, "out of memory for a dictionary");
}

static int pack(struct dictionary *d, struct tiered_error *err)
{
    size_t bound = ZSTD_compressBound(d->size);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    d->packed = malloc(1 + bound);
    size_t made = 0;
    if (context && d->packed) {
        d->packed[0] = DICTIONARY_VERSION;
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
        made = ZSTD_compress2(context, d->packed + 1, bound, d->bytes, d->size);
    }
    ZSTD_freeCCtx(context);
    if (made == 0 || ZSTD_isError(made)) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a dictionary");
    }
    d->packed_size = 1 + made;
    return 0;
}

int dictionary_make(uint8_t *bytes, size_t size, int level, struct dictionary *ret,
                    struct tiered_error *err)
{
    struct dictionary d = {.bytes = bytes, .size = size};
    if (size <= HEAD || size > DICTIONARY_MOST) {
        free(bytes);
        return tiered_fail(err, TIERED_EINVAL, "a dictionary of %zu bytes", size);
    }
    const uint8_t id[4] = {(uint8_t)identity_of(bytes, size)};
    memcpy(bytes + HEAD - sizeof(id), id, sizeof(id));
    if (open_reader(&d, err) < 0 || open_writer(&d, level, err) < 0 ||
        pack(&d, err) < 0) {
        dictionary_finish(&d);
        return -1;
    }
    *ret = d;
    return 0;
}

/* One frame that says how much it makes, no more than the most, and ends in a checksum.
   Returns how much; 0: it is not such a frame. */
static size_t declared_size(const uint8_t *frame, size_t size)
{
    unsigned long long declared = ZSTD_getFrameContentSize(frame, size);
    return declared != ZSTD_CONTENTSIZE_ERROR && declared != ZSTD_CONTENTSIZE_UNKNOWN &&
                   declared > HEAD && declared <= DICTIONARY_MOST &&
                   frame[DESCRIPTOR] & HAS_CHECKSUM &&
                   ZSTD_findFrameCompressedSize(frame, size) == size
               ? (size_t)declared
               : 0;
}

static int unpack(struct dictionary *d, const uint8_t *packed, size_t size,
                  struct tiered_error *err)
{
    d->bytes = malloc(d->size);
    if (!d->bytes) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a dictionary");
    }
    if (ZSTD_decompress(d->bytes, d->size, packed + 1, size - 1) != d->size) {
        return tiered_fail(err, TIERED_ECORRUPT, "the dictionary is damaged");
    }
    return open_reader(d, err);
}

/* To compress with, and to send again. */
static int keep(struct dictionary *d, const void *packed, size_t size, int level,
                struct tiered_error *err)
{
    d->packed = malloc(size);
    if (!d->packed) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a dictionary");
    }
    memcpy(d->packed, packed, size);
    d->packed_size = size;
    return open_writer(d, level, err);
}

int dictionary_unpack(const void *packed, size_t size, int level,
                      struct dictionary *ret, struct tiered_error *err)
{
    const uint8_t *in = packed;
    struct dictionary d = {0};
    if (size == 0 || in[0] != DICTIONARY_VERSION) {
        return tiered_fail(err, TIERED_ECORRUPT, "not a dictionary of version %d",
                           DICTIONARY_VERSION);
    }
    if (size > 1 + ZSTD_COMPRESSBOUND(DICTIONARY_MOST) ||
        !(d.size = declared_size(in + 1, size - 1))) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the dictionary is not one frame of at most %u bytes with "
                           "a checksum",
                           DICTIONARY_MOST);
    }
    if (unpack(&d, in, size, err) < 0 ||
        (level && keep(&d, packed, size, level, err) < 0)) {
        dictionary_finish(&d);
        return -1;
    }
    /* the library has copies: a parent has one dictionary a child */
    free(d.bytes);
    d.bytes = NULL;
    *ret = d;
    return 0;
}

void dictionary_finish(struct dictionary *d)
{
    ZSTD_freeCDict(d->writer);
    ZSTD_freeDDict(d->reader);
    free(d->bytes);
    free(d->packed);
    *d = (struct dictionary){0};
}
