/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of the wire, and what is made of a head. Input: one message. */
#include "core/wire/wire.h"
#include "fuzz.h"

#define MOST_BLOCKS 4096u

/* A layout says the same after a way through the wire. */
static void check_tensors(const struct tiered_layout *layout)
{
    struct tiered_error err = {0};
    struct tiered_layout *again = NULL;
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    FUZZ_CHECK(tiered_wire_tensors(layout, &head.tensors, &head.n_tensors, &err) == 0,
               "%s", err.text);
    FUZZ_CHECK(tiered_wire_layout(&head, &again, &err) == 0, "%s", err.text);
    FUZZ_CHECK(tiered_digest_equal(&again->digest, &layout->digest),
               "the layout is another");
    tiered_wire_free_tensors(head.tensors, head.n_tensors);
    tiered_layout_unref(again);
}

static void look_at_digest(const ProtobufCBinaryData *field)
{
    struct tiered_error err = {0};
    struct tiered_digest digest;
    if (tiered_wire_digest(field, &digest, &err) < 0) {
        fuzz_check_error(&err);
    }
}

static void look_at_metrics(Tiered__V1__Metric *const *items, size_t n)
{
    struct tiered_metrics metrics;
    tiered_wire_metrics(items, n, &metrics);
    FUZZ_CHECK(metrics.n <= TIERED_MAX_METRICS, "%u metrics", metrics.n);
    for (uint32_t i = 0; i < metrics.n; i++) {
        FUZZ_CHECK(memchr(metrics.items[i].name, 0, sizeof(metrics.items[i].name)),
                   "a metric's name without an end");
    }
}

static void look_at_head(const Tiered__V1__Head *head)
{
    struct tiered_error err = {0};
    struct tiered_layout *layout = NULL;
    look_at_digest(&head->encoded);
    look_at_digest(&head->content);
    look_at_digest(&head->base_model);
    look_at_metrics(head->metrics, head->n_metrics);
    if (tiered_wire_layout(head, &layout, &err) < 0) {
        fuzz_check_error(&err);
    } else if (layout->n_blocks <= MOST_BLOCKS) {
        check_tensors(layout);
    }
    tiered_layout_unref(layout);
}

static void look_at_body(const Tiered__V1__Frame *pb)
{
    switch (pb->body_case) {
    case TIERED__V1__FRAME__BODY_HEAD:
        look_at_head(pb->head);
        break;
    case TIERED__V1__FRAME__BODY_PUSH_BEGIN:
        if (pb->push_begin->head) {
            look_at_head(pb->push_begin->head);
        }
        break;
    case TIERED__V1__FRAME__BODY_EVALUATION:
        look_at_digest(&pb->evaluation->model);
        look_at_metrics(pb->evaluation->metrics, pb->evaluation->n_metrics);
        break;
    case TIERED__V1__FRAME__BODY_ORDER:
        look_at_digest(&pb->order->model);
        break;
    default:
        break;
    }
}

/* What was taken can be sent on, and is then taken again with the same body. */
static void check_packed(const struct tiered_frame *frame)
{
    struct tiered_error err = {0};
    struct tiered_frame again = {0};
    uint8_t *head = NULL;
    size_t n = 0;
    FUZZ_CHECK(tiered_frame_pack(frame->pb, frame->body_size, &head, &n, &err) == 0,
               "%s", err.text);
    uint8_t *message = malloc(n + frame->body_size + 1);
    FUZZ_CHECK(message, "out of memory");
    memcpy(message, head, n);
    if (frame->body_size) {
        memcpy(message + n, frame->body_data, frame->body_size);
    }
    FUZZ_CHECK(tiered_frame_unpack(message, n + frame->body_size, &again, &err) == 0,
               "%s", err.text);
    FUZZ_CHECK(again.pb->body_case == frame->pb->body_case &&
                   again.body_size == frame->body_size &&
                   (!again.body_size ||
                    memcmp(again.body_data, frame->body_data, again.body_size) == 0),
               "the frame is another");
    tiered_frame_finish(&again);
    free(message);
    free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tiered_error err = {0};
    struct tiered_frame frame = {0};
    struct tiered_path path;
    if (tiered_frame_unpack(data, size, &frame, &err) < 0) {
        FUZZ_CHECK(err.code == TIERED_EPEER || err.code == TIERED_ENOMEM, "code %d: %s",
                   (int)err.code, err.text);
        fuzz_check_error(&err);
        return 0;
    }
    FUZZ_CHECK(!frame.body_size || (frame.body_data >= data &&
                                    frame.body_data + frame.body_size <= data + size),
               "the body lies outside of its message");
    if (tiered_frame_path(frame.pb, &path, &err) == 0) {
        FUZZ_CHECK(path.depth <= TIERED_MAX_DEPTH, "a path of depth %u", path.depth);
    }
    look_at_body(frame.pb);
    check_packed(&frame);
    tiered_frame_finish(&frame);
    return 0;
}
