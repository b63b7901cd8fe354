/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in and out of bytes. */
#include "message.h"

#include <string.h>

static const uint8_t magic[4] = {'S', 'S', 'M', '1'};

const uint8_t *ss_read(struct ss_reader *r, size_t n)
{
    const uint8_t *at = r->at;
    if (n > r->left) {
        return NULL;
    }
    r->at += n;
    r->left -= n;
    return at;
}

bool ss_read_u32(struct ss_reader *r, uint32_t *ret)
{
    const uint8_t *p = ss_read(r, 4);
    if (!p) {
        return false;
    }
    *ret = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return true;
}

bool ss_read_u64(struct ss_reader *r, uint64_t *ret)
{
    uint32_t low, high;
    if (!ss_read_u32(r, &low) || !ss_read_u32(r, &high)) {
        return false;
    }
    *ret = low | (uint64_t)high << 32;
    return true;
}

int ss_fail_short(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_EPEER, "a message of secure-sum is cut off");
}

int ss_read_header(struct ss_reader *r, uint32_t step, bool from_member,
                   struct ss_header *ret, struct tiered_error *err)
{
    const uint8_t *p = ss_read(r, SS_HEADER_BYTES);
    if (!p) {
        return ss_fail_short(err);
    }
    if (memcmp(p, magic, sizeof(magic)) != 0) {
        return tiered_fail(err, TIERED_EPEER, "not a message of this secure-sum");
    }
    if (p[4] != step || p[5] != from_member) {
        return tiered_fail(err, TIERED_EPEER,
                           "a message of step %u stands for one of step %u", p[4],
                           step);
    }
    ret->member = p[6] | (uint32_t)p[7] << 8;
    ret->session = p + 8;
    return 0;
}

const uint8_t *ss_read_set(struct ss_reader *r, uint32_t n)
{
    const uint8_t *set = ss_read(r, ss_set_bytes(n));
    return set && n % 8 && set[n / 8] >> (n % 8) ? NULL : set;
}

int ss_read_end(const struct ss_reader *r, struct tiered_error *err)
{
    return r->left ? tiered_fail(err, TIERED_EPEER,
                                 "%zu bytes follow a message of secure-sum", r->left)
                   : 0;
}

void ss_write(struct ss_writer *w, const void *data, size_t n)
{
    if (n <= w->capacity && w->size <= w->capacity - n) {
        memcpy(w->at + w->size, data, n);
    }
    w->size += n;
}

void ss_write_u32(struct ss_writer *w, uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8),
                              (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    ss_write(w, bytes, sizeof(bytes));
}

void ss_write_u64(struct ss_writer *w, uint64_t value)
{
    ss_write_u32(w, (uint32_t)value);
    ss_write_u32(w, (uint32_t)(value >> 32));
}

void ss_write_header(struct ss_writer *w, uint32_t step, bool from_member,
                     const struct ss_header *header)
{
    const uint8_t rest[4] = {(uint8_t)step, from_member, (uint8_t)header->member,
                             (uint8_t)(header->member >> 8)};
    ss_write(w, magic, sizeof(magic));
    ss_write(w, rest, sizeof(rest));
    ss_write(w, header->session, SS_SESSION_BYTES);
}

int ss_write_end(const struct ss_writer *w, size_t *ret_size, struct tiered_error *err)
{
    if (w->size > w->capacity) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "a message of secure-sum has %zu bytes; %zu are allowed",
                           w->size, w->capacity);
    }
    *ret_size = w->size;
    return 0;
}

uint32_t ss_set_count(const uint8_t *set, uint32_t n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        count += ss_set_has(set, i);
    }
    return count;
}
