/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: round trips, every truncation, every flipped byte, every malformed field. */
#include "wire_kit.h"

static uint8_t digest_bytes[32] = {1, 2, 3};

static struct packed block_frame(const void *body, size_t n)
{
    static uint32_t path[] = {3, 2};
    Tiered__V1__Frame pb = TIERED__V1__FRAME__INIT;
    Tiered__V1__Block block = TIERED__V1__BLOCK__INIT;
    block.index = 7;
    block.crc32c = 0x01020304;
    pb.run = (char *)"plant-1";
    pb.node = (char *)"edge-1-3";
    pb.path = path;
    pb.n_path = 2;
    pb.generation = 5;
    pb.body_case = TIERED__V1__FRAME__BODY_BLOCK;
    pb.block = &block;
    return pack(&pb, body, n);
}

static struct packed head_frame(void)
{
    static uint64_t shape[] = {784, 200};
    Tiered__V1__Frame pb = TIERED__V1__FRAME__INIT;
    Tiered__V1__PushBegin begin = TIERED__V1__PUSH_BEGIN__INIT;
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    Tiered__V1__Tensor a = TIERED__V1__TENSOR__INIT, b = TIERED__V1__TENSOR__INIT;
    Tiered__V1__FilterHead filter = TIERED__V1__FILTER_HEAD__INIT;
    Tiered__V1__Metric metric = TIERED__V1__METRIC__INIT;
    Tiered__V1__Tensor *tensors[] = {&a, &b};
    Tiered__V1__FilterHead *pipe[] = {&filter};
    Tiered__V1__Metric *metrics[] = {&metric};
    a.name = (char *)"w1";
    a.n_shape = 2;
    a.shape = shape;
    b.name = (char *)"b1";
    b.dtype = TIERED_F64;
    b.role = TIERED_BUFFER;
    filter.name = (char *)"zstd";
    filter.header = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
    metric.name = (char *)"accuracy";
    metric.value = 0.5;
    head.n_tensors = 2;
    head.tensors = tensors;
    head.n_pipe = 1;
    head.pipe = pipe;
    head.n_metrics = 1;
    head.metrics = metrics;
    head.num_examples = 1ull << 53;
    head.encoded = (ProtobufCBinaryData){32, digest_bytes};
    begin.head = &head;
    pb.node = (char *)"edge-0-0";
    pb.body_case = TIERED__V1__FRAME__BODY_PUSH_BEGIN;
    pb.push_begin = &begin;
    return pack(&pb, NULL, 0);
}

static struct packed text_frame(const char *node, const char *reason)
{
    Tiered__V1__Frame pb = TIERED__V1__FRAME__INIT;
    Tiered__V1__Failed failed = TIERED__V1__FAILED__INIT;
    failed.code = TIERED_EIO;
    failed.reason = (char *)reason;
    pb.node = (char *)node;
    pb.body_case = TIERED__V1__FRAME__BODY_FAILED;
    pb.failed = &failed;
    return pack(&pb, NULL, 0);
}

static void block_round_trip(void **state)
{
    (void)state;
    static uint8_t body[300];
    struct tiered_frame frame;
    struct tiered_path path;
    struct tiered_error err = {0};
    memset(body, 0xab, sizeof(body));
    struct packed p = block_frame(body, sizeof(body));
    assert_int_equal(tiered_frame_unpack(p.bytes, p.size, &frame, &err), 0);
    assert_ptr_equal(frame.body_data, p.bytes + p.size - sizeof(body));
    assert_int_equal(frame.body_size, sizeof(body));
    assert_int_equal(frame.pb->data.len, 0);
    assert_string_equal(frame.pb->run, "plant-1");
    assert_string_equal(frame.pb->node, "edge-1-3");
    assert_int_equal(frame.pb->generation, 5);
    assert_int_equal(frame.pb->body_case, TIERED__V1__FRAME__BODY_BLOCK);
    assert_int_equal(frame.pb->block->index, 7);
    assert_int_equal(frame.pb->block->crc32c, 0x01020304);
    assert_int_equal(tiered_frame_path(frame.pb, &path, &err), 0);
    assert_int_equal(path.depth, 2);
    assert_int_equal(path.n[0], 3);
    assert_int_equal(path.n[1], 2);
    assert_int_equal(path.n[2], 0);
    tiered_frame_finish(&frame);
    assert_null(frame.pb);
    /* Any protobuf reader takes it: field 15 is the body. */
    Tiered__V1__Frame *whole = tiered__v1__frame__unpack(NULL, p.size, p.bytes);
    assert_non_null(whole);
    assert_int_equal(whole->data.len, sizeof(body));
    assert_memory_equal(whole->data.data, body, sizeof(body));
    tiered__v1__frame__free_unpacked(whole, NULL);
    free(p.bytes);
}

static void head_round_trip(void **state)
{
    (void)state;
    struct tiered_frame frame;
    struct tiered_error err = {0};
    struct packed p = head_frame();
    assert_int_equal(tiered_frame_unpack(p.bytes, p.size, &frame, &err), 0);
    assert_null(frame.body_data);
    assert_int_equal(frame.body_size, 0);
    const Tiered__V1__Head *head = frame.pb->push_begin->head;
    assert_int_equal(head->n_tensors, 2);
    assert_string_equal(head->tensors[0]->name, "w1");
    assert_int_equal(head->tensors[0]->n_shape, 2);
    assert_int_equal(head->tensors[0]->shape[0], 784);
    assert_int_equal(head->tensors[1]->dtype, TIERED_F64);
    assert_int_equal(head->pipe[0]->header.len, 3);
    assert_true(head->num_examples == 1ull << 53);
    assert_memory_equal(head->encoded.data, digest_bytes, 32);
    assert_int_equal(head->content.len, 0);
    tiered_frame_finish(&frame);
    free(p.bytes);
}

static void empty_body_and_empty_frame(void **state)
{
    (void)state;
    struct tiered_frame frame;
    struct tiered_error err = {0};
    assert_int_equal(tiered_frame_unpack("", 0, &frame, &err), 0);
    assert_int_equal(frame.pb->body_case, TIERED__V1__FRAME__BODY__NOT_SET);
    tiered_frame_finish(&frame);
    const uint8_t empty[] = {0x7a, 0};
    assert_int_equal(tiered_frame_unpack(empty, 2, &frame, &err), 0);
    assert_int_equal(frame.body_size, 0);
    tiered_frame_finish(&frame);
    tiered_frame_finish(NULL);
}

/* A cut frame is refused or, between two fields, a shorter valid one; never a crash. */
static void truncations(void **state)
{
    (void)state;
    uint8_t body[40] = {9};
    struct packed all[] = {block_frame(body, sizeof(body)), head_frame(),
                           text_frame("fog-1", "the disk is full")};
    for (size_t i = 0; i < TIERED_COUNT(all); i++) {
        size_t refused = 0;
        for (size_t n = 0; n < all[i].size; n++) {
            struct tiered_frame frame;
            uint8_t *cut = malloc(n + (n == 0));
            memcpy(cut, all[i].bytes, n);
            if (tiered_frame_unpack(cut, n, &frame, NULL) == 0) {
                tiered_frame_finish(&frame);
            } else {
                refused++;
            }
            free(cut);
        }
        assert_true(refused > all[i].size / 2);
        free(all[i].bytes);
    }
}

static void flips(void **state)
{
    (void)state;
    uint8_t body[4] = {9};
    struct packed all[] = {block_frame(body, sizeof(body)), head_frame(),
                           text_frame("fog-1", "the disk is full")};
    for (size_t i = 0; i < TIERED_COUNT(all); i++) {
        for (size_t at = 0; at < all[i].size; at++) {
            uint8_t old = all[i].bytes[at];
            for (unsigned flip = 1; flip < 256; flip++) {
                struct tiered_frame frame;
                all[i].bytes[at] = (uint8_t)(old ^ flip);
                if (tiered_frame_unpack(all[i].bytes, all[i].size, &frame, NULL) == 0) {
                    assert_true(frame.body_size <= all[i].size);
                    tiered_frame_finish(&frame);
                }
            }
            all[i].bytes[at] = old;
        }
        free(all[i].bytes);
    }
}

/* The same fields in another order are the same frame, and the data is not copied. */
static void data_in_any_place(void **state)
{
    (void)state;
    static const uint8_t first[] = "\x7a\x03xyz\x12\x05"
                                   "fog-1\x20\x05";
    static const uint8_t middle[] = "\x12\x05"
                                    "fog-1\x7a\x03xyz\x20\x05";
    static const uint8_t last[] = "\x12\x05"
                                  "fog-1\x20\x05\x7a\x03xyz";
    const struct {
        const uint8_t *bytes;
        size_t at;
    } rows[] = {{first, 2}, {middle, 9}, {last, 11}};
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct tiered_frame frame;
        struct tiered_error err = {0};
        assert_int_equal(
            tiered_frame_unpack(rows[i].bytes, sizeof(last) - 1, &frame, &err), 0);
        assert_ptr_equal(frame.body_data, rows[i].bytes + rows[i].at);
        assert_int_equal(frame.body_size, 3);
        assert_memory_equal(frame.body_data, "xyz", 3);
        assert_string_equal(frame.pb->node, "fog-1");
        assert_int_equal(frame.pb->generation, 5);
        tiered_frame_finish(&frame);
    }
}

static void unknown_fields_are_skipped(void **state)
{
    (void)state;
    /* fields 100 (varint), 101 (8 bytes), 102 (bytes), 103 (4 bytes) */
    static const uint8_t bytes[] = "\xa0\x06\x07\xa9\x06"
                                   "12345678\xb2\x06\x02hi\xbd\x06"
                                   "1234\x12\x05"
                                   "fog-1";
    struct tiered_frame frame;
    struct tiered_error err = {0};
    assert_int_equal(tiered_frame_unpack(bytes, sizeof(bytes) - 1, &frame, &err), 0);
    assert_string_equal(frame.pb->node, "fog-1");
    tiered_frame_finish(&frame);
}

static void malformed(void **state)
{
    (void)state;
#define ROW(bytes, text)                                                               \
    {                                                                                  \
        bytes, sizeof(bytes) - 1, text                                                 \
    }
    static const struct {
        const char *bytes;
        size_t size;
        const char *text;
    } rows[] = {
        ROW("\x7a\x01x\x7a\x01y", "Frame.data stands there twice"),
        ROW("\x78\x01", "Frame.data has wire type 0, not 2"),
        ROW("\x10\x05", "Frame.node has wire type 0, not 2"),
        ROW("\x22\x01x", "Frame.generation has wire type 2, not 0"),
        ROW("\x12\x01x\x12\x01y", "Frame.node stands there twice"),
        ROW("\x72\x00\x72\x00", "Frame has more than one body"),
        ROW("\x72\x00\x6a\x00", "Frame has more than one body"),
        ROW("\xa3\x06", "frame: wire type 3 is not used"),
        ROW("\x00\x01", "frame: no such field number"),
        ROW("\xff\xff\xff\xff\x7f\x01", "frame: no such field number"),
        ROW("\x12\x05"
            "fog",
            "frame: it ends inside a field"),
        ROW("\x12\xff\xff\xff\xff\x0f", "frame: it ends inside a field"),
        ROW("\x12\xff\xff\xff\xff\xff\x01", "frame: it ends inside a number"),
        ROW("\x20\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            "frame: it ends inside a number"),
        ROW("\x20", "frame: it ends inside a number"),
        ROW("\x12\x02"
            "a\0",
            "Frame.node is not UTF-8 text"),
        ROW("\x12\x02\xc0\x80", "Frame.node is not UTF-8 text"),
        ROW("\x12\x03\xed\xa0\x80", "Frame.node is not UTF-8 text"),
        ROW("\x12\x01\xe2", "Frame.node is not UTF-8 text"),
        ROW("\x1a\x02\x01\x80", "frame: it ends inside a number"),
        ROW("\x1a\x02\x01\x00", "Frame.path: rounds count from 1"),
        ROW("\x18\x00", "Frame.path: rounds count from 1"),
        ROW("\x4a\x05\x12\x03"
            "abc",
            "Order.model has 3 bytes; a digest has 32"),
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        expect_refusal(rows[i].bytes, rows[i].size, TIERED_EPEER, rows[i].text);
    }
}

static void any_message_by_itself(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    ProtobufCMessage *message;
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    uint8_t bytes[64];
    head.n_blocks = 4;
    size_t n = tiered__v1__head__pack(&head, bytes);
    assert_int_equal(
        tiered_wire_unpack(&tiered__v1__head__descriptor, bytes, n, &message, &err), 0);
    assert_int_equal(((Tiered__V1__Head *)message)->n_blocks, 4);
    protobuf_c_message_free_unpacked(message, NULL);
    assert_int_equal(
        tiered_wire_unpack(&tiered__v1__head__descriptor, "\x18", 1, &message, &err),
        -1);
}

static void layout_round_trip(void **state)
{
    (void)state;
    const uint64_t shape[] = {784, 200};
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    assert_int_equal(
        tiered_layout_add(b, "w1", TIERED_F32, TIERED_PARAMETER, 2, shape, &err), 0);
    assert_int_equal(
        tiered_layout_add(b, "n", TIERED_I64, TIERED_BUFFER, 0, NULL, &err), 0);
    struct tiered_layout *layout = tiered_layout_seal(b, &err), *back;
    assert_non_null(layout);
    Tiered__V1__Frame pb = TIERED__V1__FRAME__INIT;
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    struct tiered_frame frame;
    assert_int_equal(tiered_wire_tensors(layout, &head.tensors, &head.n_tensors, &err),
                     0);
    pb.body_case = TIERED__V1__FRAME__BODY_HEAD;
    pb.head = &head;
    struct packed p = pack(&pb, NULL, 0);
    assert_int_equal(tiered_frame_unpack(p.bytes, p.size, &frame, &err), 0);
    assert_int_equal(tiered_wire_layout(frame.pb->head, &back, &err), 0);
    assert_int_equal(tiered_layout_match(layout, back, &err), 0);
    assert_true(tiered_digest_equal(&layout->digest, &back->digest));
    tiered_layout_unref(back);
    static const struct {
        uint32_t dtype, role;
        const char *text;
    } rows[] = {{TIERED_N_DTYPES, 0, "tensor 'n': unknown dtype 13"},
                {0, TIERED_N_ROLES, "tensor 'n': unknown role 4"}};
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        frame.pb->head->tensors[1]->dtype = rows[i].dtype;
        frame.pb->head->tensors[1]->role = rows[i].role;
        assert_int_equal(tiered_wire_layout(frame.pb->head, &back, &err), -1);
        assert_string_equal(err.text, rows[i].text);
        assert_int_equal(err.code, TIERED_EPEER);
    }
    tiered_frame_finish(&frame);
    free(p.bytes);
    tiered_wire_free_tensors(head.tensors, head.n_tensors);
    tiered_layout_unref(layout);
}

static void metrics_and_digests(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_metrics got;
    struct tiered_digest digest;
    Tiered__V1__Metric metric = TIERED__V1__METRIC__INIT, *many[20];
    /* 30 bytes, then a two-byte character that does not fit before the NUL */
    metric.name = (char *)"aaaaaaaaaabbbbbbbbbbcccccccccc\xc3\xa4z";
    metric.value = 2.5;
    for (size_t i = 0; i < TIERED_COUNT(many); i++) {
        many[i] = &metric;
    }
    tiered_wire_metrics(many, TIERED_COUNT(many), &got);
    assert_int_equal(got.n, TIERED_MAX_METRICS);
    assert_string_equal(got.items[15].name, "aaaaaaaaaabbbbbbbbbbcccccccccc");
    assert_true(got.items[15].value == 2.5);
    tiered_wire_metrics(NULL, 0, &got);
    assert_int_equal(got.n, 0);

    ProtobufCBinaryData field = {32, digest_bytes};
    assert_int_equal(tiered_wire_digest(&field, &digest, &err), 0);
    assert_memory_equal(digest.bytes, digest_bytes, 32);
    field = (ProtobufCBinaryData){0, NULL};
    assert_int_equal(tiered_wire_digest(&field, &digest, &err), 0);
    assert_int_equal(digest.bytes[0], 0);
    field = (ProtobufCBinaryData){31, digest_bytes};
    assert_int_equal(tiered_wire_digest(&field, &digest, &err), -1);
    assert_string_equal(err.text, "a digest of 31 bytes; it has 32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_round_trip),
        cmocka_unit_test(head_round_trip),
        cmocka_unit_test(empty_body_and_empty_frame),
        cmocka_unit_test(truncations),
        cmocka_unit_test(flips),
        cmocka_unit_test(data_in_any_place),
        cmocka_unit_test(unknown_fields_are_skipped),
        cmocka_unit_test(malformed),
        cmocka_unit_test(any_message_by_itself),
        cmocka_unit_test(layout_round_trip),
        cmocka_unit_test(metrics_and_digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
