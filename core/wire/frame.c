/* SPDX-License-Identifier: Apache-2.0 */
/* Packing and unpacking frames around a payload that is never copied. */
#include "core/wire/check.h"

/* protobuf-c's structs are larger than their bytes: a frame may unpack to this much. A
   table of small tensors takes about 8 times its bytes. */
#define BUDGET_FACTOR 16
#define BUDGET_FLOOR  (64u << 10)

#define DATA_TAG 0x7a /* field 15, length-delimited */

struct budget {
    size_t left;
    bool spent;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    if (size > budget->left) {
        budget->spent = true;
        return NULL;
    }
    budget->left -= size;
    return malloc(size);
}

static void budget_free(void *data, void *p)
{
    (void)data;
    free(p);
}

static ProtobufCMessage *unpack_bounded(const ProtobufCMessageDescriptor *desc,
                                        const uint8_t *data, size_t size,
                                        struct tiered_error *err)
{
    struct budget budget = {.left = size * BUDGET_FACTOR + BUDGET_FLOOR};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    static const uint8_t nothing[1];
    ProtobufCMessage *message =
        protobuf_c_message_unpack(desc, &allocator, size, size ? data : nothing);
    if (!message) {
        tiered_fail(err, budget.spent ? TIERED_ENOMEM : TIERED_EPEER,
                    budget.spent ? "frame: too many small fields"
                                 : "frame: not a %s message",
                    desc->short_name);
    }
    return message;
}

int tiered_wire_unpack(const ProtobufCMessageDescriptor *desc, const void *data,
                       size_t size, ProtobufCMessage **ret, struct tiered_error *err)
{
    if (tiered_wire_check(desc, data, size, NULL, TIERED_EPEER, err) < 0) {
        return -1;
    }
    ProtobufCMessage *message = unpack_bounded(desc, data, size, err);
    if (!message) {
        return -1;
    }
    *ret = message;
    return 0;
}

/* Everything but the data field: in place when that is first or last, else joined. */
static ProtobufCMessage *unpack_around(const uint8_t *data, size_t size,
                                       const struct tiered_wire_span *span,
                                       struct tiered_error *err)
{
    const ProtobufCMessageDescriptor *desc = &tiered__v1__frame__descriptor;
    size_t after = span->start + span->n, tail = size - after;
    if (span->n == 0 || tail == 0) {
        return unpack_bounded(desc, data, size - span->n, err);
    }
    if (span->start == 0) {
        return unpack_bounded(desc, data + after, tail, err);
    }
    TIERED_FREE uint8_t *joined = malloc(span->start + tail);
    if (!joined) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    memcpy(joined, data, span->start);
    memcpy(joined + span->start, data + after, tail);
    return unpack_bounded(desc, joined, span->start + tail, err);
}

int tiered_frame_unpack(const void *data, size_t size, struct tiered_frame *ret,
                        struct tiered_error *err)
{
    const uint8_t *bytes = data;
    struct tiered_wire_span span;
    struct tiered_path path;
    if (tiered_wire_check(&tiered__v1__frame__descriptor, bytes, size, &span,
                          TIERED_EPEER, err) < 0) {
        return -1;
    }
    ProtobufCMessage *message = unpack_around(bytes, size, &span, err);
    if (!message) {
        return -1;
    }
    struct tiered_frame frame = {.pb = (Tiered__V1__Frame *)message};
    if (tiered_frame_path(frame.pb, &path, err) < 0) {
        tiered_frame_finish(&frame);
        return -1;
    }
    if (span.n > 0) {
        frame.body_data = bytes + span.body;
        frame.body_size = span.body_size;
    }
    *ret = frame;
    return 0;
}

void tiered_frame_finish(struct tiered_frame *frame)
{
    if (frame && frame->pb) {
        tiered__v1__frame__free_unpacked(frame->pb, NULL);
    }
    if (frame) {
        *frame = (struct tiered_frame){0};
    }
}

static size_t put_length(uint8_t out[5], uint32_t n)
{
    size_t used = 0;
    for (; n >= 0x80; n >>= 7) {
        out[used++] = (uint8_t)(n | 0x80);
    }
    out[used++] = (uint8_t)n;
    return used;
}

int tiered_frame_pack(const Tiered__V1__Frame *pb, size_t body_size, uint8_t **ret_head,
                      size_t *ret_head_size, struct tiered_error *err)
{
    uint8_t tail[6] = {DATA_TAG};
    size_t tail_size = 0, size;
    if (pb->data.len > 0) {
        return tiered_fail(err, TIERED_EINVAL, "frame: the data travels as the body");
    }
    size = tiered__v1__frame__get_packed_size(pb);
    if (size > TIERED_MESSAGE_MAX || body_size > TIERED_MESSAGE_MAX - size) {
        return tiered_fail(
            err, TIERED_ENOMEM,
            "a frame of %zu and %zu bytes does not fit the limit of %u%s", size,
            body_size, TIERED_MESSAGE_MAX,
            size > body_size ? "; fewer or larger tensors, nodes or options would"
                             : "");
    }
    if (body_size > 0) {
        tail_size = 1 + put_length(tail + 1, (uint32_t)body_size);
    }
    if (size + tail_size + body_size > TIERED_MESSAGE_MAX) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "a frame of %zu bytes does not fit the limit of %u",
                           size + tail_size + body_size, TIERED_MESSAGE_MAX);
    }
    TIERED_FREE uint8_t *head = malloc(size + tail_size + 1); /* never malloc(0) */
    if (!head) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered__v1__frame__pack(pb, head);
    if (tiered_wire_check(&tiered__v1__frame__descriptor, head, size, NULL,
                          TIERED_EINVAL, err) < 0) {
        return -1;
    }
    memcpy(head + size, tail, tail_size);
    *ret_head = TIERED_STEAL(head);
    *ret_head_size = size + tail_size;
    return 0;
}

int tiered_frame_path(const Tiered__V1__Frame *pb, struct tiered_path *ret,
                      struct tiered_error *err)
{
    struct tiered_path path = {.depth = (uint32_t)pb->n_path};
    if (pb->n_path > TIERED_MAX_DEPTH) {
        return tiered_fail(err, TIERED_EPEER, "Frame.path has more than %d values",
                           TIERED_MAX_DEPTH);
    }
    for (uint32_t i = 0; i < path.depth; i++) {
        if (pb->path[i] == 0) {
            return tiered_fail(err, TIERED_EPEER, "Frame.path: rounds count from 1");
        }
        path.n[i] = pb->path[i];
    }
    *ret = path;
    return 0;
}
