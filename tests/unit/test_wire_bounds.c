/* SPDX-License-Identifier: Apache-2.0 */
/* The bounds of frames: each is taken at its limit and refused beyond. */
#include "wire_kit.h"

static uint8_t digest_bytes[32] = {1, 2, 3};

/* What pack() refuses is also refused when a peer sends it all the same. */
static void bounds(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    uint8_t *head, big[2000];
    size_t head_size;
    char name[65], reason[1026];
    uint32_t path[17];
    memset(name, 'n', sizeof(name));
    memset(reason, 'r', sizeof(reason));
    name[63] = reason[1024] = '\0';
    Tiered__V1__Frame pb = TIERED__V1__FRAME__INIT;
    Tiered__V1__Failed failed = TIERED__V1__FAILED__INIT;
    failed.reason = reason;
    pb.node = name;
    pb.body_case = TIERED__V1__FRAME__BODY_FAILED;
    pb.failed = &failed;
    struct packed p = pack(&pb, NULL, 0); /* the longest that are taken */
    free(p.bytes);

    name[63] = 'n';
    name[64] = '\0';
    pb.node = name;
    assert_int_equal(tiered_frame_pack(&pb, 0, &head, &head_size, &err), -1);
    assert_string_equal(err.text, "Frame.node has 64 bytes; at most 63 are taken");
    assert_int_equal(err.code, TIERED_EINVAL);
    expect_refusal(big, tiered__v1__frame__pack(&pb, big), TIERED_EPEER, err.text);

    Tiered__V1__Refusal refusal = TIERED__V1__REFUSAL__INIT;
    reason[1024] = 'r';
    reason[1025] = '\0';
    refusal.reason = reason;
    pb.node = (char *)"";
    pb.body_case = TIERED__V1__FRAME__BODY_REFUSAL;
    pb.refusal = &refusal;
    expect_refusal(big, tiered__v1__frame__pack(&pb, big), TIERED_EPEER,
                   "Refusal.reason has 1025 bytes; at most 1024 are taken");

    pb.body_case = TIERED__V1__FRAME__BODY__NOT_SET;
    for (uint32_t i = 0; i < 17; i++) {
        path[i] = i + 1;
    }
    pb.path = path;
    pb.n_path = 17;
    expect_refusal(big, tiered__v1__frame__pack(&pb, big), TIERED_EPEER,
                   "Frame.path has more than 16 values");
    pb.n_path = 16;
    assert_int_equal(tiered_frame_pack(&pb, 0, &head, &head_size, &err), 0);
    free(head);
    pb.data = (ProtobufCBinaryData){1, big};
    assert_int_equal(tiered_frame_pack(&pb, 0, &head, &head_size, &err), -1);
    assert_string_equal(err.text, "frame: the data travels as the body");
}

static void unpacked_repeated_numbers_count_too(void **state)
{
    (void)state;
    uint8_t bytes[34];
    for (size_t i = 0; i < sizeof(bytes); i += 2) {
        bytes[i] = 0x18; /* path, one value a field */
        bytes[i + 1] = 1;
    }
    struct tiered_frame frame;
    assert_int_equal(tiered_frame_unpack(bytes, 32, &frame, NULL), 0);
    assert_int_equal(frame.pb->n_path, 16);
    tiered_frame_finish(&frame);
    expect_refusal(bytes, 34, TIERED_EPEER, "Frame.path has more than 16 values");
}

static void the_whole_frame_is_bounded(void **state)
{
    (void)state;
    Tiered__V1__Frame pb = TIERED__V1__FRAME__INIT;
    struct tiered_error err = {0};
    struct tiered_frame frame;
    uint8_t *head;
    size_t head_size, n = TIERED_MESSAGE_MAX - 4; /* tag and three bytes of length */
    uint8_t *body = calloc(1, n);
    struct packed p = pack(&pb, body, n);
    assert_int_equal(p.size, TIERED_MESSAGE_MAX);
    assert_int_equal(tiered_frame_unpack(p.bytes, p.size, &frame, &err), 0);
    assert_int_equal(frame.body_size, n);
    tiered_frame_finish(&frame);
    free(p.bytes);
    free(body);
    assert_int_equal(tiered_frame_pack(&pb, n + 1, &head, &head_size, &err), -1);
    assert_string_equal(err.text,
                        "a frame of 1114113 bytes does not fit the limit of 1114112");
    assert_int_equal(err.code, TIERED_ENOMEM);
    assert_int_equal(tiered_frame_pack(&pb, SIZE_MAX, &head, &head_size, &err), -1);
    uint8_t *over = calloc(1, TIERED_MESSAGE_MAX + 1);
    expect_refusal(over, TIERED_MESSAGE_MAX + 1, TIERED_EPEER,
                   "frame of 1114113 bytes; at most 1114112 are taken");
    free(over);
}

/* 500,000 empty tensors in 1 MB would unpack to 50 MB. */
static void blow_up_is_refused(void **state)
{
    (void)state;
    const size_t inner = 1000000;
    uint8_t *bytes = calloc(1, inner + 8), *at = bytes;
    *at++ = 0x82; /* field 16, Head */
    *at++ = 0x01;
    for (size_t n = inner; n > 0; n >>= 7) {
        *at++ = (uint8_t)((n & 0x7f) | (n >= 0x80 ? 0x80 : 0));
    }
    for (size_t i = 0; i < inner; i += 2) {
        at[i] = 0x0a; /* tensors, length 0 */
    }
    expect_refusal(bytes, (size_t)(at - bytes) + inner, TIERED_ENOMEM,
                   "frame: too many small fields");
    free(bytes);
}

/* Nesting in bytes that no field of ours names is never walked into. */
static void deep_nesting(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    struct tiered_frame frame;
    size_t n = 0;
    for (size_t i = 0; i < 1000; i++) {
        bytes[n++] = 0xa3; /* start a group */
        bytes[n++] = 0x06;
    }
    expect_refusal(bytes, n, TIERED_EPEER, "frame: wire type 3 is not used");
    /* Each level's bytes are the next level: push_begin.head.tensors, then unknown. */
    for (n = 0; n + 2 < 127; n += 2) {
        bytes[n] = 0x0a;
        bytes[n + 1] = (uint8_t)(125 - n - 2);
    }
    bytes[0] = 0x92;
    bytes[1] = 0x01;
    bytes[2] = 122;
    if (tiered_frame_unpack(bytes, 125, &frame, NULL) == 0) {
        tiered_frame_finish(&frame);
    }
}

/* The largest real frames: a table of many small tensors, an agent of many nodes. */
static void dense_frames_fit_the_budget(void **state)
{
    (void)state;
    enum { N = 20000, NODES = 1500 };
    static Tiered__V1__Tensor tensors[N], *tensor_list[N];
    static Tiered__V1__NodeAssignment nodes[NODES], *node_list[NODES];
    static char names[N][12];
    uint64_t shape[] = {3, 3, 64, 64};
    struct tiered_error err = {0};
    struct tiered_frame frame;
    Tiered__V1__Frame pb = TIERED__V1__FRAME__INIT;
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    for (size_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "l%zu", i);
        tiered__v1__tensor__init(&tensors[i]);
        tensors[i].name = names[i];
        tensors[i].n_shape = 4;
        tensors[i].shape = shape;
        tensor_list[i] = &tensors[i];
    }
    head.n_tensors = N;
    head.tensors = tensor_list;
    pb.body_case = TIERED__V1__FRAME__BODY_HEAD;
    pb.head = &head;
    struct packed p = pack(&pb, NULL, 0);
    if (tiered_frame_unpack(p.bytes, p.size, &frame, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(frame.pb->head->n_tensors, N);
    tiered_frame_finish(&frame);
    free(p.bytes);

    Tiered__V1__Assignment assignment = TIERED__V1__ASSIGNMENT__INIT;
    Tiered__V1__RoundRules rules = TIERED__V1__ROUND_RULES__INIT;
    Tiered__V1__PluginUse use = TIERED__V1__PLUGIN_USE__INIT;
    Tiered__V1__PluginUse *uses[] = {&use, &use};
    use.name = (char *)"zstd";
    use.digest = (ProtobufCBinaryData){32, digest_bytes};
    rules.rounds_per_parent = 1;
    for (size_t i = 0; i < NODES; i++) {
        Tiered__V1__NodeAssignment *n = &nodes[i];
        tiered__v1__node_assignment__init(n);
        n->node = (char *)"edge-1";
        n->tier = (char *)"edge";
        n->depth = 2;
        n->index = n->count = (uint32_t)i + 1;
        n->parent = (char *)"fog-1";
        n->parent_address = (char *)"unix:/run/fog-1.sock";
        n->rules = &rules;
        n->trainer = &use;
        n->uplink = n->downlink = uses;
        n->n_uplink = n->n_downlink = 2;
        n->transport = &use;
        n->memory_bytes = 1 << 29;
        node_list[i] = n;
    }
    assignment.n_nodes = NODES;
    assignment.nodes = node_list;
    pb.body_case = TIERED__V1__FRAME__BODY_ASSIGNMENT;
    pb.assignment = &assignment;
    p = pack(&pb, NULL, 0);
    if (tiered_frame_unpack(p.bytes, p.size, &frame, &err) < 0) {
        fail_msg("%zu bytes: %s", p.size, err.text);
    }
    assert_int_equal(frame.pb->assignment->n_nodes, NODES);
    tiered_frame_finish(&frame);
    free(p.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds),
        cmocka_unit_test(unpacked_repeated_numbers_count_too),
        cmocka_unit_test(the_whole_frame_is_bounded),
        cmocka_unit_test(blow_up_is_refused),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(dense_frames_fit_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
