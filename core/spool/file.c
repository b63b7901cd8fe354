/* SPDX-License-Identifier: Apache-2.0 */
/* The trailer of an encoded file, and what it takes to trust a file again. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/spool/inside.h"

struct footer {
    uint64_t trailer_at, state_size;
    uint32_t head_size;
    uint32_t crc; /* of head, state, and the footer's 20 bytes before this */
    char magic[8];
};
_Static_assert(sizeof(struct footer) == 32, "as encoded.h says");

static const char footer_magic[8] = "TIEREDOK";

static uint32_t footer_crc(const struct footer *footer, uint32_t crc)
{
    return tiered_crc32c(crc, footer, offsetof(struct footer, crc));
}

int encoded_write_trailer(struct tiered_encoded *e, const void *state,
                          size_t state_size, struct tiered_error *err)
{
    size_t head_size = tiered__v1__head__get_packed_size(e->head);
    TIERED_FREE uint8_t *head = malloc(head_size + 1);
    if (!head) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered__v1__head__pack(e->head, head);
    struct footer footer = {.trailer_at = e->end,
                            .state_size = state_size,
                            .head_size = (uint32_t)head_size};
    memcpy(footer.magic, footer_magic, sizeof(footer.magic));
    uint32_t crc = tiered_crc32c(0, head, head_size);
    footer.crc = footer_crc(&footer, tiered_crc32c(crc, state, state_size));
    uint64_t state_at = e->end + head_size;
    e->state_size = state_size;
    return tiered_write_at(e->fd, head, head_size, e->end, err) < 0 ||
                   tiered_write_at(e->fd, state, state_size, state_at, err) < 0 ||
                   tiered_write_at(e->fd, &footer, sizeof(footer),
                                   state_at + state_size, err) < 0
               ? -1
               : 0;
}

/* Head and state in one piece, verified. */
static int read_trailer(int fd, struct footer *footer, struct tiered_bytes *ret,
                        struct tiered_error *err)
{
    struct stat info;
    char magic[ENCODED_MAGIC_SIZE];
    if (fstat(fd, &info) < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot read: %s", strerror(errno));
    }
    uint64_t size = (uint64_t)info.st_size;
    if (size < sizeof(magic) + sizeof(*footer)) {
        return tiered_fail(err, TIERED_ECORRUPT, "the file is cut off");
    }
    if (tiered_read_at(fd, magic, sizeof(magic), 0, err) < 0 ||
        tiered_read_at(fd, footer, sizeof(*footer), size - sizeof(*footer), err) < 0) {
        return -1;
    }
    uint64_t room = size - sizeof(magic) - sizeof(*footer);
    if (memcmp(magic, "TIERED01", sizeof(magic)) != 0 ||
        memcmp(footer->magic, footer_magic, sizeof(footer->magic)) != 0 ||
        footer->head_size > room || footer->state_size > room - footer->head_size ||
        footer->trailer_at !=
            sizeof(magic) + room - footer->head_size - footer->state_size) {
        return tiered_fail(err, TIERED_ECORRUPT, "not an update, or one cut off");
    }
    size_t n = (size_t)(footer->head_size + footer->state_size);
    uint8_t *data = malloc(n + 1);
    if (!data) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *ret = (struct tiered_bytes){.data = data, .size = n, .capacity = n};
    if (tiered_read_at(fd, data, n, footer->trailer_at, err) < 0) {
        return -1;
    }
    data[n] = 0;
    if (footer_crc(footer, tiered_crc32c(0, data, n)) != footer->crc) {
        return tiered_fail(err, TIERED_ECORRUPT, "the trailer has a wrong checksum");
    }
    return 0;
}

int encoded_read_state(const char *path, struct tiered_bytes *ret,
                       struct tiered_error *err)
{
    struct footer footer;
    struct tiered_bytes trailer = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return tiered_fail(err, errno == ENOENT ? TIERED_ENOENT : TIERED_EIO,
                           "cannot open '%.150s': %s", path, strerror(errno));
    }
    int result = read_trailer(fd, &footer, &trailer, err);
    close(fd);
    if (result < 0) {
        tiered_bytes_finish(&trailer);
        return tiered_error_prefix(err, "'%.150s': ", path);
    }
    trailer.size = (size_t)footer.state_size;
    memmove(trailer.data, trailer.data + footer.head_size, trailer.size + 1);
    *ret = trailer;
    return 0;
}

static int read_slot(struct tiered_encoded *e, uint64_t trailer_at, uint8_t *scratch,
                     struct tiered_error *err)
{
    uint32_t words[2], index = e->next;
    if (trailer_at - e->end < sizeof(words)) {
        return tiered_fail(err, TIERED_ECORRUPT, "block %u is missing", index);
    }
    if (tiered_read_at(e->fd, words, sizeof(words), e->end, err) < 0) {
        return -1;
    }
    struct encoded_slot slot = {
        .offset = e->end + sizeof(words), .size = words[0], .crc = words[1]};
    if (slot.size > trailer_at - slot.offset ||
        slot.size > encoded_limit(&e->layout->blocks[index])) {
        return tiered_fail(err, TIERED_ECORRUPT, "block %u has an impossible size",
                           index);
    }
    if (tiered_read_at(e->fd, scratch, slot.size, slot.offset, err) < 0) {
        return -1;
    }
    if (tiered_crc32c(0, scratch, slot.size) != slot.crc) {
        return tiered_fail(err, TIERED_ECORRUPT, "block %u has a wrong checksum",
                           index);
    }
    encoded_hash_slot(e, &slot);
    e->slots[e->next++] = slot;
    e->end = slot.offset + slot.size;
    e->bytes += slot.size;
    return 0;
}

static int read_blocks(struct tiered_encoded *e, uint64_t trailer_at,
                       struct tiered_error *err)
{
    struct tiered_digest digest;
    TIERED_FREE uint8_t *scratch = malloc(TIERED_ENCODED_BLOCK_MAX);
    if (!scratch) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    e->end = ENCODED_MAGIC_SIZE;
    while (e->next < e->layout->n_blocks) {
        if (read_slot(e, trailer_at, scratch, err) < 0) {
            return -1;
        }
    }
    tiered_hash_final(e->hash, &digest);
    tiered_hash_destroy(TIERED_STEAL(e->hash));
    const Tiered__V1__Head *head = e->head;
    if (e->end != trailer_at || head->n_blocks != e->next ||
        head->encoded_bytes != e->bytes || head->encoded.len != sizeof(digest) ||
        memcmp(head->encoded.data, &digest, sizeof(digest)) != 0) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the blocks are not those that the head's digest names");
    }
    return 0;
}

/* The head as an object, or NULL. A size over a limit has the code of a lack of memory,
   but here it speaks of the file, which its owner then may give up. */
static struct tiered_encoded *open_head(const void *data, size_t size,
                                        struct tiered_error *err)
{
    struct tiered_error why = {0};
    ProtobufCMessage *head = NULL;
    struct tiered_encoded *e = NULL;
    errno = 0;
    if (tiered_wire_unpack(&tiered__v1__head__descriptor, data, size, &head, &why) ==
        0) {
        e = encoded_new((Tiered__V1__Head *)head, &why);
    }
    if (!e) {
        bool over = why.code == TIERED_ENOMEM && errno != ENOMEM;
        tiered_fail(err, over ? TIERED_ECORRUPT : why.code, "%s", why.text);
    }
    return e;
}

static int reopen(struct tiered_encoded **ret, const char *path,
                  struct tiered_error *err)
{
    struct footer footer;
    struct tiered_bytes trailer = {0};
    struct tiered_encoded *e = NULL;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return tiered_fail(err, errno == ENOENT ? TIERED_ENOENT : TIERED_EIO,
                           "cannot open: %s", strerror(errno));
    }
    if (read_trailer(fd, &footer, &trailer, err) == 0) {
        e = open_head(trailer.data, footer.head_size, err);
    }
    tiered_bytes_finish(&trailer);
    if (!e) {
        close(fd);
        return -1;
    }
    e->fd = fd;
    e->state_size = footer.state_size;
    e->keep = true; /* whatever comes of it, the file is not ours to remove */
    e->path = strdup(path);
    *ret = e;
    return e->path ? read_blocks(e, footer.trailer_at, err)
                   : tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

int tiered_encoded_open(const char *path, struct tiered_encoded **ret,
                        struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    if (reopen(&e, path, err) < 0) {
        return tiered_error_prefix(err, "'%.150s': ", path);
    }
    e->sealed = true;
    *ret = TIERED_STEAL(e);
    return 0;
}

int encoded_rename(struct tiered_encoded *e, const char *path, struct tiered_error *err)
{
    TIERED_FREE char *name = strdup(path);
    if (!name) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (rename(e->path, path) < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot rename '%.100s' to '%.100s': %s",
                           e->path, path, strerror(errno));
    }
    char *old = e->path;
    e->path = TIERED_STEAL(name);
    free(old);
    return 0;
}
