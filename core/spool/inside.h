/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An encoded object from the inside. Internal to core/spool.
 */
#ifndef TIERED_CORE_SPOOL_INSIDE_H
#define TIERED_CORE_SPOOL_INSIDE_H

#include <stdatomic.h>

#include "core/spool/encoded.h"

#define ENCODED_MAGIC_SIZE 8u
#define ENCODED_SLOT_SIZE  8u /* in front of a block in a file */

struct encoded_slot {
    uint64_t offset; /* of its bytes, in the memory or the file */
    uint32_t size, crc;
};

struct tiered_encoded {
    _Atomic uint32_t refs;
    Tiered__V1__Head *head;
    struct tiered_layout *layout;
    struct encoded_slot *slots; /* layout->n_blocks; `next` are filled */
    uint32_t next;
    bool receiving; /* the head came first and is law */
    bool sealed;
    uint64_t bytes;           /* of the blocks so far */
    struct tiered_hash *hash; /* of their sizes and checksums; NULL once final */

    uint8_t *memory; /* mapped; NULL: in a file */
    size_t capacity;

    int fd; /* -1: in memory */
    char *path;
    uint64_t end; /* where the next block goes; once sealed, where the trailer is */
    uint64_t state_size; /* in the trailer */
    bool keep;           /* the file outlives this object */
    bool hollow;         /* the blocks are not needed again: give their room back */

    uint64_t counted; /* by the spool's budget */
};

/** An empty object; takes the head. */
struct tiered_encoded *encoded_new(Tiered__V1__Head *head, struct tiered_error *err);
/** Seal with the outbox's state in the trailer. */
int encoded_finish(struct tiered_encoded *e, const void *state, size_t state_size,
                   bool durable, struct tiered_error *err);
/** The next block's share in the digest of them all. */
void encoded_hash_slot(struct tiered_encoded *e, const struct encoded_slot *slot);
/** The most bytes that this block may become. */
size_t encoded_limit(const struct tiered_block *block);

/** Write the trailer behind the blocks. */
int encoded_write_trailer(struct tiered_encoded *e, const void *state,
                          size_t state_size, struct tiered_error *err);
/** The state in a sealed file, verified; the blocks are not looked at. */
int encoded_read_state(const char *path, struct tiered_bytes *ret,
                       struct tiered_error *err);
/** Another name for the file of `e`, atomically. */
int encoded_rename(struct tiered_encoded *e, const char *path,
                   struct tiered_error *err);

#endif
