/* SPDX-License-Identifier: Apache-2.0 */
/* Files of an outbox or a spool. Input: a byte, then
     with bit 0: the file as it is;
     else: u16 size of the head, u16 size of the state, head, state, then blocks with a
     u16 size each, of which a file with right checksums is made. Where the head is one,
     counts and digest are put right too, unless bit 1 is set. */
#include "core/base/log.h"
#include "core/spool/spool.h"
#include "fuzz_decode.h"

#define ENTRY "out-3.2.upd"

static void append(struct tiered_bytes *file, const void *data, size_t n)
{
    struct tiered_error err = {0};
    FUZZ_CHECK(tiered_bytes_append(file, data, n, &err) == 0, "%s", err.text);
}

/* The blocks in their file form; `hash` goes over their sizes and checksums. */
static uint32_t add_blocks(struct tiered_bytes *file, struct fuzz_input in,
                           struct tiered_digest *ret_digest, uint64_t *ret_bytes)
{
    struct tiered_hash *hash = tiered_hash_create();
    uint32_t n = 0;
    FUZZ_CHECK(hash, "out of memory");
    *ret_bytes = 0;
    for (; in.size >= 2; n++) {
        size_t size = fuzz_u16(&in);
        struct fuzz_input block = fuzz_take(&in, size);
        const uint32_t words[2] = {(uint32_t)block.size,
                                   tiered_crc32c(0, block.data, block.size)};
        append(file, words, sizeof(words));
        append(file, block.data, block.size);
        tiered_hash_update(hash, words, sizeof(words));
        *ret_bytes += block.size;
    }
    tiered_hash_final(hash, ret_digest);
    tiered_hash_destroy(hash);
    return n;
}

/* The head as it came, or with its promises kept. */
static void add_head(struct tiered_bytes *file, struct fuzz_input in, bool mend,
                     uint32_t n_blocks, uint64_t bytes, struct tiered_digest *digest)
{
    static const uint8_t nothing[1];
    Tiered__V1__Head *head =
        mend ? tiered__v1__head__unpack(NULL, in.size, in.size ? in.data : nothing)
             : NULL;
    if (!head) {
        append(file, in.data, in.size);
        return;
    }
    ProtobufCBinaryData own = head->encoded;
    head->n_blocks = n_blocks;
    head->encoded_bytes = bytes;
    head->encoded = (ProtobufCBinaryData){sizeof(digest->bytes), digest->bytes};
    size_t size = tiered__v1__head__get_packed_size(head);
    uint8_t *packed = malloc(size);
    FUZZ_CHECK(packed, "out of memory");
    tiered__v1__head__pack(head, packed);
    append(file, packed, size);
    free(packed);
    head->encoded = own;
    tiered__v1__head__free_unpacked(head, NULL);
}

static void compose(struct fuzz_input in, bool mend, struct tiered_bytes *file)
{
    struct {
        uint64_t trailer_at, state_size;
        uint32_t head_size, crc;
        char magic[8];
    } footer = {.magic = {'T', 'I', 'E', 'R', 'E', 'D', 'O', 'K'}};
    struct tiered_digest digest;
    uint64_t bytes;
    size_t head_size = fuzz_u16(&in), state_size = fuzz_u16(&in);
    struct fuzz_input head = fuzz_take(&in, head_size);
    struct fuzz_input state = fuzz_take(&in, state_size);
    append(file, "TIERED01", 8);
    uint32_t n = add_blocks(file, in, &digest, &bytes);
    footer.trailer_at = file->size;
    add_head(file, head, mend, n, bytes, &digest);
    footer.head_size = (uint32_t)(file->size - footer.trailer_at);
    footer.state_size = state.size;
    append(file, state.data, state.size);
    footer.crc = tiered_crc32c(0, file->data + footer.trailer_at,
                               file->size - (size_t)footer.trailer_at);
    footer.crc = tiered_crc32c(footer.crc, &footer, 20);
    append(file, &footer, sizeof(footer));
}

static void read_blocks(const struct tiered_encoded *e)
{
    struct tiered_error err = {0};
    for (uint32_t i = 0; i < tiered_encoded_next(e); i++) {
        size_t size;
        uint32_t crc;
        tiered_encoded_block(e, i, &size, &crc);
        uint8_t *out = malloc(size ? size : 1);
        FUZZ_CHECK(out, "out of memory");
        FUZZ_CHECK(tiered_encoded_read(e, i, out, size, &err) == 0, "%s", err.text);
        FUZZ_CHECK(tiered_crc32c(0, out, size) == crc, "block %u is another", i);
        free(out);
    }
}

/* The outbox stands or falls with the file; an unreadable one is taken away. */
static void check_outbox(bool readable)
{
    struct tiered_error err = {0};
    struct tiered_outbox *outbox = NULL;
    struct tiered_bytes state = {0};
    const struct tiered_path path = {2, {3, 2}};
    tiered_log_set_level(TIERED_LOG_ERROR);
    FUZZ_CHECK(tiered_outbox_open(fuzz_folder(), &outbox, &err) == 0, "%s", err.text);
    struct tiered_encoded *e = tiered_outbox_get(outbox, &path);
    FUZZ_CHECK((e != NULL) == readable, "the outbox thinks otherwise");
    FUZZ_CHECK(tiered_outbox_state(outbox, NULL, &state, &err) == 0, "%s", err.text);
    FUZZ_CHECK(readable || state.size == 0, "a state of a file that is not readable");
    tiered_encoded_unref(e);
    tiered_bytes_finish(&state);
    tiered_outbox_close(outbox);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct tiered_error err = {0};
    struct tiered_bytes file = {0};
    struct tiered_encoded *e = NULL;
    unsigned flags = fuzz_byte(&in);
    if (flags & 1) {
        append(&file, in.data, in.size);
    } else {
        compose(in, !(flags & 2), &file);
    }
    const char *path = fuzz_file(ENTRY, file.data, file.size);
    int result = tiered_encoded_open(path, &e, &err);
    if (result == 0) {
        read_blocks(e);
        fuzz_decode(e);
    } else {
        fuzz_check_error(&err);
    }
    tiered_encoded_unref(e);
    FUZZ_CHECK(access(path, F_OK) == 0, "opening a file removed it");
    check_outbox(result == 0);
    tiered_bytes_finish(&file);
    return 0;
}
