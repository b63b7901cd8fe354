/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded objects: blocks in order, checked as they come, in memory or in a file. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/spool/inside.h"

static Tiered__V1__Head *copy_head(const Tiered__V1__Head *head,
                                   struct tiered_error *err)
{
    size_t size = tiered__v1__head__get_packed_size(head);
    TIERED_FREE uint8_t *packed = malloc(size + 1);
    Tiered__V1__Head *copy = NULL;
    if (packed) {
        tiered__v1__head__pack(head, packed);
        copy = tiered__v1__head__unpack(NULL, size, packed);
    }
    if (!copy) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory for the head of an update");
    }
    return copy;
}

size_t encoded_limit(const struct tiered_block *block)
{
    size_t limit = (size_t)(block->size_bytes + block->size_bytes / 8 + (64u << 10));
    return limit < TIERED_ENCODED_BLOCK_MAX ? limit : TIERED_ENCODED_BLOCK_MAX;
}

struct tiered_encoded *encoded_new(Tiered__V1__Head *head, struct tiered_error *err)
{
    struct tiered_encoded *e = calloc(1, sizeof(*e));
    if (!e) {
        tiered__v1__head__free_unpacked(head, NULL);
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    atomic_init(&e->refs, 1);
    e->fd = -1;
    e->head = head;
    if (tiered_wire_layout(head, &e->layout, err) < 0) {
        tiered_encoded_unref(e);
        return NULL;
    }
    e->slots = malloc(e->layout->n_blocks * sizeof(*e->slots) + 1);
    e->hash = tiered_hash_create();
    if (!e->slots || !e->hash) {
        tiered_encoded_unref(e);
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    return e;
}

static uint64_t most_bytes(const struct tiered_layout *layout)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        most += encoded_limit(&layout->blocks[i]);
    }
    return most;
}

void encoded_hash_slot(struct tiered_encoded *e, const struct encoded_slot *slot)
{
    const uint32_t words[2] = {slot->size, slot->crc};
    tiered_hash_update(e->hash, words, sizeof(words));
}

/* What a head from outside promises must be possible before room is made for it. */
static int check_promise(const struct tiered_encoded *e, struct tiered_error *err)
{
    const struct tiered_layout *layout = e->layout;
    uint64_t most = most_bytes(layout);
    if (e->head->n_blocks != layout->n_blocks) {
        return tiered_fail(err, TIERED_EPEER,
                           "the head promises %u blocks; its tensors make %u",
                           e->head->n_blocks, layout->n_blocks);
    }
    if (e->head->encoded_bytes > most) {
        return tiered_fail(
            err, TIERED_EPEER, "the head promises %llu bytes; its tensors allow %llu",
            (unsigned long long)e->head->encoded_bytes, (unsigned long long)most);
    }
    if (e->head->encoded.len != sizeof(struct tiered_digest)) {
        return tiered_fail(err, TIERED_EPEER, "the head has no digest of its blocks");
    }
    return 0;
}

/* What is yet to be produced gets room for the most that it may become: pages that are
   never touched cost nothing. */
static int open_memory(struct tiered_encoded *e, struct tiered_error *err)
{
    uint64_t n = e->receiving ? e->head->encoded_bytes : most_bytes(e->layout);
    e->memory = n <= SIZE_MAX ? tiered_map_any((size_t)n) : NULL;
    if (!e->memory) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for %llu bytes",
                           (unsigned long long)n);
    }
    e->capacity = (size_t)n;
    return 0;
}

static int open_file(struct tiered_encoded *e, const char *path,
                     struct tiered_error *err)
{
    e->path = strdup(path);
    if (!e->path) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    /* A file of that name is what a crash has left, or is unlinked while in use. */
    unlink(path);
    e->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (e->fd < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot make '%.150s': %s", path,
                           strerror(errno));
    }
    e->end = ENCODED_MAGIC_SIZE;
    return tiered_write_at(e->fd, "TIERED01", ENCODED_MAGIC_SIZE, 0, err) < 0
               ? tiered_error_prefix(err, "'%.150s': ", path)
               : 0;
}

static int make(const Tiered__V1__Head *head, const char *path, bool receiving,
                struct tiered_encoded **ret, struct tiered_error *err)
{
    Tiered__V1__Head *copy = copy_head(head, err);
    TIERED_CLEANUP(tiered_encoded_unrefp)
    struct tiered_encoded *e = copy ? encoded_new(copy, err) : NULL;
    if (!e) {
        return -1;
    }
    e->receiving = receiving;
    if ((receiving && check_promise(e, err) < 0) ||
        (path ? open_file(e, path, err) : open_memory(e, err)) < 0) {
        return -1;
    }
    *ret = TIERED_STEAL(e);
    return 0;
}

int tiered_encoded_create(const Tiered__V1__Head *head, const char *path,
                          struct tiered_encoded **ret, struct tiered_error *err)
{
    return make(head, path, true, ret, err);
}

int tiered_encoded_begin(const Tiered__V1__Head *head, const char *path,
                         struct tiered_encoded **ret, struct tiered_error *err)
{
    return make(head, path, false, ret, err);
}

/* There is room: no block is larger than its limit, nor all than what was promised. */
static void store_memory(struct tiered_encoded *e, struct encoded_slot *slot,
                         const void *data)
{
    slot->offset = e->bytes;
    if (slot->size) {
        memcpy(e->memory + slot->offset, data, slot->size);
    }
}

static int store_file(struct tiered_encoded *e, struct encoded_slot *slot,
                      const void *data, struct tiered_error *err)
{
    const uint32_t words[2] = {slot->size, slot->crc};
    slot->offset = e->end + ENCODED_SLOT_SIZE;
    if (tiered_write_at(e->fd, words, sizeof(words), e->end, err) < 0 ||
        tiered_write_at(e->fd, data, slot->size, slot->offset, err) < 0) {
        return tiered_error_prefix(err, "'%.150s': ", e->path);
    }
    e->end = slot->offset + slot->size;
    return 0;
}

static int check_append(const struct tiered_encoded *e, uint32_t index, uint32_t crc,
                        const void *data, size_t size, struct tiered_error *err)
{
    if (e->sealed || !e->hash) {
        return tiered_fail(err, TIERED_ESTATE, "block %u: nothing may follow", index);
    }
    if (index != e->next || index >= e->layout->n_blocks) {
        return tiered_fail(err, TIERED_EPEER, "block %u arrived, expected %u of %u",
                           index, e->next, e->layout->n_blocks);
    }
    size_t limit = encoded_limit(&e->layout->blocks[index]);
    if (size > limit) {
        return tiered_fail(err, TIERED_EPEER, "block %u has %zu bytes; at most %zu",
                           index, size, limit);
    }
    if (e->receiving && size > e->head->encoded_bytes - e->bytes) {
        return tiered_fail(err, TIERED_EPEER,
                           "block %u goes over the %llu bytes that were promised",
                           index, (unsigned long long)e->head->encoded_bytes);
    }
    /* a producer has just computed it from these bytes */
    if (e->receiving && tiered_crc32c(0, data, size) != crc) {
        return tiered_fail(err, TIERED_ECORRUPT, "block %u has a wrong checksum",
                           index);
    }
    return 0;
}

int tiered_encoded_append(struct tiered_encoded *e, uint32_t index, uint32_t crc,
                          const void *data, size_t size, struct tiered_error *err)
{
    if (check_append(e, index, crc, data, size, err) < 0) {
        return -1;
    }
    struct encoded_slot slot = {.size = (uint32_t)size, .crc = crc};
    if (e->memory) {
        store_memory(e, &slot, data);
    } else if (store_file(e, &slot, data, err) < 0) {
        return -1;
    }
    encoded_hash_slot(e, &slot);
    e->slots[e->next++] = slot;
    e->bytes += size;
    return 0;
}

uint32_t tiered_encoded_next(const struct tiered_encoded *e)
{
    return e->next;
}

/* The head says what was made, or what was made is what the head says. */
static int settle_head(struct tiered_encoded *e, const struct tiered_digest *digest,
                       struct tiered_error *err)
{
    Tiered__V1__Head *head = e->head;
    if (e->receiving) {
        if (head->encoded_bytes != e->bytes ||
            memcmp(head->encoded.data, digest, sizeof(*digest)) != 0) {
            return tiered_fail(err, TIERED_ECORRUPT,
                               "the blocks are not those that "
                               "the head's digest names");
        }
        return 0;
    }
    uint8_t *bytes = malloc(sizeof(digest->bytes));
    if (!bytes) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(bytes, digest->bytes, sizeof(digest->bytes));
    if (head->encoded.len) {
        free(head->encoded.data);
    }
    head->encoded = (ProtobufCBinaryData){.len = sizeof(digest->bytes), .data = bytes};
    head->n_blocks = e->next;
    head->encoded_bytes = e->bytes;
    return 0;
}

int encoded_finish(struct tiered_encoded *e, const void *state, size_t state_size,
                   bool durable, struct tiered_error *err)
{
    struct tiered_digest digest;
    if (e->sealed || !e->hash) {
        return tiered_fail(err, TIERED_ESTATE, "sealed already");
    }
    if (e->next != e->layout->n_blocks) {
        return tiered_fail(err, TIERED_ESTATE, "%u of %u blocks are missing",
                           e->layout->n_blocks - e->next, e->layout->n_blocks);
    }
    tiered_hash_final(e->hash, &digest);
    tiered_hash_destroy(TIERED_STEAL(e->hash));
    if (settle_head(e, &digest, err) < 0) {
        return -1;
    }
    if (e->memory) {
        tiered_map_cut(e->memory, e->capacity, (size_t)e->bytes);
        e->capacity = (size_t)e->bytes;
    } else if (encoded_write_trailer(e, state, state_size, err) < 0) {
        return tiered_error_prefix(err, "'%.150s': ", e->path);
    } else if (durable && fsync(e->fd) < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot sync '%.150s': %s", e->path,
                           strerror(errno));
    }
    e->sealed = true;
    return 0;
}

int tiered_encoded_seal(struct tiered_encoded *e, bool durable,
                        struct tiered_error *err)
{
    return encoded_finish(e, NULL, 0, durable, err);
}

void tiered_encoded_stage_bytes(struct tiered_encoded *e, size_t stage, uint64_t bytes)
{
    if (stage < e->head->n_pipe) {
        e->head->pipe[stage]->bytes = bytes;
    }
}

const Tiered__V1__Head *tiered_encoded_head(const struct tiered_encoded *e)
{
    return e->head;
}

struct tiered_layout *tiered_encoded_layout(const struct tiered_encoded *e)
{
    return e->layout;
}

void tiered_encoded_block(const struct tiered_encoded *e, uint32_t index,
                          size_t *ret_size, uint32_t *ret_crc)
{
    *ret_size = e->slots[index].size;
    *ret_crc = e->slots[index].crc;
}

const void *tiered_encoded_borrow(const struct tiered_encoded *e, uint32_t index)
{
    return e->memory ? e->memory + e->slots[index].offset : NULL;
}

int tiered_encoded_read(const struct tiered_encoded *e, uint32_t index, void *out,
                        size_t capacity, struct tiered_error *err)
{
    if (index >= e->next || capacity < e->slots[index].size) {
        return tiered_fail(err, TIERED_EINVAL, "block %u: no such block, or no room",
                           index);
    }
    const struct encoded_slot *slot = &e->slots[index];
    if (e->memory) {
        memcpy(out, e->memory + slot->offset, slot->size);
        return 0;
    }
    /* The file may be renamed by its owner meanwhile: messages go without its name. */
    if (tiered_read_at(e->fd, out, slot->size, slot->offset, err) < 0) {
        return tiered_error_prefix(err, "block %u of a stored update: ", index);
    }
    if (tiered_crc32c(0, out, slot->size) != slot->crc) { /* the disk lost it */
        return tiered_fail(err, TIERED_ECORRUPT,
                           "block %u of a stored update has a wrong checksum", index);
    }
    return 0;
}

uint8_t *tiered_encoded_take(struct tiered_encoded *e)
{
    bool ours = atomic_load_explicit(&e->refs, memory_order_acquire) == 1;
    if (!e->memory || !e->sealed || !ours || e->head->n_pipe ||
        e->bytes != e->layout->m.data_bytes) {
        return NULL;
    }
    for (uint32_t i = 0; i < e->next; i++) {
        const struct tiered_block *block = &e->layout->blocks[i];
        if (e->slots[i].offset != block->offset_bytes ||
            e->slots[i].size != block->size_bytes) {
            return NULL;
        }
    }
    e->next = 0;
    return TIERED_STEAL(e->memory);
}

uint64_t tiered_encoded_bytes(const struct tiered_encoded *e)
{
    return e->bytes + tiered__v1__head__get_packed_size(e->head);
}

bool tiered_encoded_in_memory(const struct tiered_encoded *e)
{
    return e->memory != NULL;
}

void tiered_encoded_keep(struct tiered_encoded *e)
{
    e->keep = true;
}

struct tiered_encoded *tiered_encoded_ref(struct tiered_encoded *e)
{
    if (e) {
        atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    }
    return e;
}

/* Only our own file: another may have taken the name since. */
static void remove_file(const struct tiered_encoded *e)
{
    struct stat ours, named;
    if (fstat(e->fd, &ours) == 0 && lstat(e->path, &named) == 0 &&
        ours.st_ino == named.st_ino && ours.st_dev == named.st_dev) {
        unlink(e->path);
    }
}

static void close_file(struct tiered_encoded *e)
{
    if (!e->keep) {
        remove_file(e);
    } else if (e->hollow && e->end > ENCODED_MAGIC_SIZE) {
        /* Where the file system cannot do it, the room comes back with the file. */
        int result =
            fallocate(e->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      ENCODED_MAGIC_SIZE, (off_t)(e->end - ENCODED_MAGIC_SIZE));
        (void)result;
    }
    close(e->fd);
}

void tiered_encoded_unref(struct tiered_encoded *e)
{
    if (!e || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    tiered_unmap(e->memory, e->capacity);
    if (e->fd >= 0) {
        close_file(e);
    }
    if (e->hash) {
        tiered_hash_destroy(e->hash);
    }
    tiered__v1__head__free_unpacked(e->head, NULL);
    tiered_layout_unref(e->layout);
    free(e->slots);
    free(e->path);
    free(e);
}
