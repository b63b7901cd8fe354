/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The protocol's messages as bytes, little endian. Each begins with a magic number, its
 * step, its direction, the member that it is for
 * or from, and the attempt's name. A reader never passes the end; a message
 * longer than it should be is refused like a shorter one.
 */
#ifndef SECURE_SUM_MESSAGE_H
#define SECURE_SUM_MESSAGE_H

#include <stdbool.h>

#include "crypto.h"

#define SS_HEADER_BYTES (8u + SS_SESSION_BYTES)

struct ss_reader {
    const uint8_t *at;
    size_t left;
};

/** The next n bytes, or NULL. */
const uint8_t *ss_read(struct ss_reader *r, size_t n);
bool ss_read_u32(struct ss_reader *r, uint32_t *ret);
bool ss_read_u64(struct ss_reader *r, uint64_t *ret);
struct ss_header {
    uint32_t member;        /* below 65536 */
    const uint8_t *session; /* borrowed */
};

/** The header of such a message; it points into the reader's. */
int ss_read_header(struct ss_reader *r, uint32_t step, bool from_member,
                   struct ss_header *ret, struct tiered_error *err);
/** A set of n members; bits past the end must be zero. */
const uint8_t *ss_read_set(struct ss_reader *r, uint32_t n);
int ss_read_end(const struct ss_reader *r, struct tiered_error *err);
int ss_fail_short(struct tiered_error *err);

/** Counts what does not fit too: size > capacity tells. */
struct ss_writer {
    uint8_t *at;
    size_t size, capacity;
};

void ss_write(struct ss_writer *w, const void *data, size_t n);
void ss_write_u32(struct ss_writer *w, uint32_t value);
void ss_write_u64(struct ss_writer *w, uint64_t value);
void ss_write_header(struct ss_writer *w, uint32_t step, bool from_member,
                     const struct ss_header *header);
int ss_write_end(const struct ss_writer *w, size_t *ret_size, struct tiered_error *err);

/* Sets of members. */
static inline size_t ss_set_bytes(uint32_t n)
{
    return ((size_t)n + 7) / 8;
}
static inline bool ss_set_has(const uint8_t *set, uint32_t member)
{
    return set[member / 8] >> (member % 8) & 1;
}
static inline void ss_set_add(uint8_t *set, uint32_t member)
{
    set[member / 8] |= (uint8_t)(1u << (member % 8));
}
uint32_t ss_set_count(const uint8_t *set, uint32_t n);

#endif
