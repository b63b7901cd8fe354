/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An encoded model or update: a head and its blocks as they travel, in memory or in a
 * file. The outbox, the spool and the models that children pull are all this.
 *
 * Writing: create, append blocks 0, 1, 2 … in order, seal. Nothing may be decoded
 * before seal, which checks count, size and digest against the head. The digest is
 * SHA-256 of every block's size and crc32c: each block is held to its checksum, and all
 * of them to their order and number, for the price of one pass over the bytes. Reading:
 * any block, by any thread, once sealed.
 *
 * File form: the magic "TIERED01"; for each block u32 size, u32 crc32c, bytes; then the
 * trailer: head (protobuf Head), the outbox's state, and a footer of 32 bytes that says
 * where the trailer begins and how large its parts are, with the trailer's crc32c.
 * Little endian. The trailer is written by seal, so a file without one was cut off by a
 * crash; and the whole is verified when a file is opened again.
 */
#ifndef TIERED_CORE_ENCODED_H
#define TIERED_CORE_ENCODED_H

#include "core/base/base.h"
#include "core/model/model.h"
#include "core/wire/wire.h"

struct tiered_encoded;

/** The most bytes that a block may become: it travels in one message. */
#define TIERED_ENCODED_BLOCK_MAX (TIERED_BLOCK_BYTES + (60u << 10))

/** For receiving: the head says everything, copied. path NULL: in memory; otherwise the
    file, made now. Bounds: n_blocks as the layout has, encoded_bytes at most raw + 1/8
   + 64 KiB a block. */
int tiered_encoded_create(const Tiered__V1__Head *head, const char *path,
                          struct tiered_encoded **ret, struct tiered_error *err);
/** For producing: n_blocks, encoded_bytes and digest are filled in by seal. */
int tiered_encoded_begin(const Tiered__V1__Head *head, const char *path,
                         struct tiered_encoded **ret, struct tiered_error *err);
/** The next block, index tiered_encoded_next(). When receiving, crc is checked, and
    refused if wrong; a producer's is believed. */
int tiered_encoded_append(struct tiered_encoded *e, uint32_t index, uint32_t crc,
                          const void *data, size_t size, struct tiered_error *err);
uint32_t tiered_encoded_next(const struct tiered_encoded *e);
/** `durable`: fsync (files). */
int tiered_encoded_seal(struct tiered_encoded *e, bool durable,
                        struct tiered_error *err);
/** Open a sealed file again, verifying every block and the digest. */
int tiered_encoded_open(const char *path, struct tiered_encoded **ret,
                        struct tiered_error *err);

/** Producing, before seal: how many bytes there were behind the stage-th filter. */
void tiered_encoded_stage_bytes(struct tiered_encoded *e, size_t stage, uint64_t bytes);

const Tiered__V1__Head *tiered_encoded_head(const struct tiered_encoded *e);
struct tiered_layout *
tiered_encoded_layout(const struct tiered_encoded *e); /* borrowed */
/** A block's stored size and checksum. */
void tiered_encoded_block(const struct tiered_encoded *e, uint32_t index,
                          size_t *ret_size, uint32_t *ret_crc);
/** Read block bytes into out (capacity >= its size); or borrow them where they are in
    memory (NULL when they are in a file). */
int tiered_encoded_read(const struct tiered_encoded *e, uint32_t index, void *out,
                        size_t capacity, struct tiered_error *err);
const void *tiered_encoded_borrow(const struct tiered_encoded *e, uint32_t index);
/** The blocks' bytes in one piece as a model lies in memory, from tiered_map(): the
    caller's, and the object is left with its head alone. NULL when they do not lie so:
    in a file, with gaps, filtered, or not ours alone. Sealed objects. */
uint8_t *tiered_encoded_take(struct tiered_encoded *e);
uint64_t tiered_encoded_bytes(const struct tiered_encoded *e); /* blocks and head */
bool tiered_encoded_in_memory(const struct tiered_encoded *e);
/** Reference counted (atomic); a temporary file (spool) is removed with the last one,
    unless keep() was called. */
struct tiered_encoded *tiered_encoded_ref(struct tiered_encoded *e);
void tiered_encoded_unref(struct tiered_encoded *e);
void tiered_encoded_keep(struct tiered_encoded *e);

TIERED_DEFINE_FREE(struct tiered_encoded, tiered_encoded_unref)

#endif
