/* SPDX-License-Identifier: Apache-2.0 */
/* Children and strangers that break the rules of a link: each is told exactly why, and
   nobody else notices. */
#include "link_hand.h"

#define N_BLOCKS 4

/* One push of "a" with this head: `blocks` of `e`, then whatever `spoil` sends. */
static void spoiled(struct fixture *f, const Tiered__V1__Head *head,
                    const struct tiered_encoded *e, uint32_t blocks,
                    void (*spoil)(struct peer *p, const struct tiered_encoded *e),
                    enum tiered_code code, const char *reason)
{
    struct peer session, p;
    peer_session(f, &session);
    peer_open(f, &p, TIERED_PUSH);
    peer_begin(&p, head);
    for (uint32_t i = 0; i < blocks; i++) {
        peer_block(&p, e, i); /* not waiting for PushReady is allowed */
    }
    if (spoil) {
        spoil(&p, e);
    }
    EXPECT_REFUSAL(f, &p, code, reason);
    peer_close(&session);
    WAIT(f, !tiered_downlink_connected(f->downlink, A));
    assert_int_equal(f->n_discarded, f->n_stored - f->seen[B].n_received);
    assert_int_equal(f->seen[A].n_received, 0);
    good_child_works(f);
}

static void skip_one(struct peer *p, const struct tiered_encoded *e)
{
    peer_block(p, e, 2);
}

static void once_more(struct peer *p, const struct tiered_encoded *e)
{
    peer_block(p, e, 0);
}

static void damaged(struct peer *p, const struct tiered_encoded *e)
{
    peer_block_as(p, e, 1, 1, 1);
}

static void no_such_index(struct peer *p, const struct tiered_encoded *e)
{
    peer_block_as(p, e, 1, UINT32_MAX, 0);
}

static void no_block(struct peer *p, const struct tiered_encoded *e)
{
    (void)e;
    peer_heartbeat(p);
}

static void begin_again(struct peer *p, const struct tiered_encoded *e)
{
    peer_begin(p, tiered_encoded_head(e));
}

static void of_another_run(struct peer *p, const struct tiered_encoded *e)
{
    p->context.run = "run-2";
    peer_block(p, e, 1);
}

static void garbage(struct peer *p, const struct tiered_encoded *e)
{
    (void)e;
    const struct tiered_outgoing out = {.head = "\xff\xff\xff\xff\xff\xff\xff",
                                        .head_size = 7};
    assert_int_equal(tiered_conn_send(p->conn, &out, NULL), 0);
}

static void blocks_that_break_the_rules(void **state)
{
    static const struct {
        uint32_t blocks;
        void (*spoil)(struct peer *p, const struct tiered_encoded *e);
        enum tiered_code code;
        const char *reason;
    } cases[] = {
        {1, skip_one, TIERED_EPEER, "block 2 arrived, expected 1 of 4"},
        {0, skip_one, TIERED_EPEER, "block 2 arrived, expected 0 of 4"},
        {2, once_more, TIERED_EPEER, "block 0 arrived, expected 2 of 4"},
        {1, damaged, TIERED_ECORRUPT, "block 1 has a wrong checksum"},
        {1, no_such_index, TIERED_EPEER, "block 4294967295 arrived, expected 1 of 4"},
        {1, no_block, TIERED_EPEER, "expected a block of the update"},
        {1, begin_again, TIERED_EPEER, "expected a block of the update"},
        {1, of_another_run, TIERED_EPEER, "frame for another run"},
        {1, garbage, TIERED_EPEER, "frame: it ends inside a number"},
    };
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0);
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        spoiled(f, tiered_encoded_head(e), e, cases[i].blocks, cases[i].spoil,
                cases[i].code, cases[i].reason);
    }
    tiered_encoded_unref(e);
}

static void one_block_too_many(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0);
    struct peer session, p;
    f->verdict = HOLD;
    peer_session(f, &session);
    peer_push(f, &p, tiered_encoded_head(e));
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        peer_block(&p, e, i);
    }
    WAIT(f, f->held);
    peer_block(&p, e, N_BLOCKS - 1);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "the update was complete already");
    struct tiered_path path = tiered_push_path(f->held); /* it is still the owner's */
    assert_int_equal(path.depth, 0);
    assert_int_equal(tiered_push_child(f->held), A);
    tiered_push_done(TIERED_STEAL(f->held), true, TIERED_OK, "");
    peer_close(&session);
    f->verdict = ACCEPT;
    good_child_works(f);
    tiered_encoded_unref(e);
}

/* Verdict and block cross on the way: no harm. */
static void one_block_too_many_for_an_answered_push(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0);
    struct peer session, p;
    f->offer = REFUSE;
    peer_session(f, &session);
    peer_push(f, &p, tiered_encoded_head(e));
    peer_block(&p, e, 0);
    WAIT(f, p.half_closed);
    assert_true(p.done);
    assert_int_equal(p.n_frames, 1);
    assert_string_equal(p.reason, "no round is open");
    peer_close(&p);
    peer_close(&session);
    f->offer = TAKE;
    good_child_works(f);
    tiered_encoded_unref(e);
}

/* Every head here is well formed and untrue. */
static void heads_that_lie(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0), *other = make(N_BLOCKS, 1);
    const Tiered__V1__Head *good = tiered_encoded_head(e);
    Tiered__V1__Head head = *good;

    head.n_blocks = 5;
    spoiled(f, &head, e, 0, NULL, TIERED_EPEER,
            "the head promises 5 blocks; its tensors make 4");
    head.n_blocks = UINT32_MAX;
    spoiled(f, &head, e, 0, NULL, TIERED_EPEER,
            "the head promises 4294967295 blocks; its tensors make 4");

    head = *good;
    head.encoded_bytes = 1ull << 60;
    spoiled(f, &head, e, 0, NULL, TIERED_EPEER,
            "the head promises 1152921504606846976 bytes; its tensors allow 4440064");
    head.encoded_bytes = 3 * BLOCK;
    spoiled(f, &head, e, 4, NULL, TIERED_EPEER,
            "block 3 goes over the 3000 bytes that were promised");
    head.encoded_bytes = 5 * BLOCK;
    spoiled(f, &head, e, 4, NULL, TIERED_ECORRUPT,
            "the blocks are not those that the head's digest names");

    head = *good;
    head.encoded = tiered_encoded_head(other)->encoded;
    spoiled(f, &head, e, 4, NULL, TIERED_ECORRUPT,
            "the blocks are not those that the head's digest names");
    head.encoded = (ProtobufCBinaryData){0};
    spoiled(f, &head, e, 0, NULL, TIERED_EPEER, "the head has no digest of its blocks");

    Tiered__V1__Tensor tensor = *good->tensors[0], *tensors[] = {&tensor, &tensor};
    uint64_t huge[] = {UINT64_MAX, UINT64_MAX};
    head = *good;
    head.tensors = tensors;
    head.n_tensors = 2;
    spoiled(f, &head, e, 0, NULL, TIERED_EINVAL, "two tensors are named 'w'");
    head.n_tensors = 1;
    tensor.dtype = 77;
    spoiled(f, &head, e, 0, NULL, TIERED_EPEER, "tensor 'w': unknown dtype 77");
    tensor.dtype = TIERED_F32;
    tensor.n_shape = 2;
    tensor.shape = huge;
    spoiled(f, &head, e, 0, NULL, TIERED_EINVAL,
            "tensor 'w': the shape's product overflows");
    tiered_encoded_unref(e);
    tiered_encoded_unref(other);
}

static void no_room_for_an_update(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0);
    struct peer session, p;
    f->no_room = true;
    peer_session(f, &session);
    peer_push(f, &p, tiered_encoded_head(e));
    EXPECT_REFUSAL(f, &p, TIERED_ENOMEM, "the spool is full");
    peer_close(&session);
    f->no_room = false;
    good_child_works(f);
    tiered_encoded_unref(e);
}

/* A child that does not know what the parent has of its update already. */
static void from_the_start_where_the_middle_is_missing(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0);
    struct peer session, p;
    peer_session(f, &session);
    peer_push(f, &p, tiered_encoded_head(e));
    peer_block(&p, e, 0);
    WAIT(f, parent_got(f) == BLOCK);
    peer_close(&p);
    peer_push(f, &p, tiered_encoded_head(e));
    assert_int_equal(p.next_block, 1);
    peer_block(&p, e, 0);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "block 0 arrived, expected 1 of 4");
    peer_push(f, &p, tiered_encoded_head(e)); /* nothing of it is believed any more */
    assert_int_equal(p.next_block, 0);
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
}

static void pushes_for_others(void **state)
{
    static const struct {
        const char *run, *node;
        uint64_t generation;
        enum tiered_code code;
        const char *reason;
    } cases[] = {
        {RUN, "b", GENERATION, TIERED_ESTATE, "node 'b' has no session here"},
        {RUN, "zebra", GENERATION, TIERED_EPEER, "node 'zebra' is not expected here"},
        {RUN, "@agent-1", GENERATION, TIERED_EPEER,
         "node '@agent-1' is not expected here"},
        {RUN, "", GENERATION, TIERED_EPEER, "node '' is not expected here"},
        {"run-2", "a", GENERATION, TIERED_EPEER, "frame for another run"},
        {RUN, "a", 2, TIERED_EPEER, "generation 2 is over (this is 3)"},
    };
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0);
    struct peer session, p;
    peer_session(f, &session);
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        peer_open(f, &p, TIERED_PUSH);
        p.context.run = cases[i].run;
        p.context.node = cases[i].node;
        p.context.generation = cases[i].generation;
        peer_begin(&p, tiered_encoded_head(e));
        EXPECT_REFUSAL(f, &p, cases[i].code, cases[i].reason);
    }
    peer_open(f, &p, TIERED_PUSH);
    peer_begin_as(&p, "", tiered_encoded_head(e));
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "wrong join token");
    peer_close(&session);
    WAIT(f, !tiered_downlink_connected(f->downlink, A));
    peer_open(f, &p, TIERED_PUSH);
    peer_begin(&p, tiered_encoded_head(e));
    EXPECT_REFUSAL(f, &p, TIERED_ESTATE, "node 'a' has no session here");
    assert_int_equal(f->seen[A].n_offers, 0);
    good_child_works(f);
    tiered_encoded_unref(e);
}

static void a_push_that_begins_wrongly(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(N_BLOCKS, 0);
    struct peer session, p;
    peer_session(f, &session);
    peer_open(f, &p, TIERED_PUSH);
    peer_block(&p, e, 0);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "a push must begin with its head");
    peer_open(f, &p, TIERED_PUSH);
    peer_begin(&p, NULL);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "a push must begin with its head");
    peer_close(&session);
    good_child_works(f);
    tiered_encoded_unref(e);
}

static void garbage_on_every_kind(void **state)
{
    static const enum tiered_stream_kind kinds[] = {TIERED_SESSION, TIERED_PUSH,
                                                    TIERED_PULL};
    struct fixture *f = *state;
    for (size_t i = 0; i < TIERED_COUNT(kinds); i++) {
        struct peer p;
        peer_open(f, &p, kinds[i]);
        garbage(&p, NULL);
        EXPECT_REFUSAL(f, &p, TIERED_EPEER, "frame: it ends inside a number");
    }
    struct peer p;
    peer_session(f, &p);
    garbage(&p, NULL);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "frame: it ends inside a number");
    assert_string_equal(f->seen[A].missing, "frame: it ends inside a number");
    good_child_works(f);
}

/* Streams that say nothing, or leave in the middle of everything. */
static void streams_that_just_go(void **state)
{
    struct fixture *f = *state;
    struct peer p, session;
    peer_open(f, &p, TIERED_SESSION);
    tiered_conn_half_close(p.conn, NULL);
    peer_close(&p);
    peer_open(f, &p, TIERED_PUSH);
    peer_close(&p);
    peer_session(f, &session);
    tiered_conn_half_close(session.conn, NULL);
    WAIT(f, f->seen[A].n_lost == 1);
    assert_string_equal(f->seen[A].missing, "it closed its session");
    peer_close(&session);
    good_child_works(f);
}

/* ---- below the frames: bytes on a socket ---- */

static int dial_raw(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s",
             f->address + strlen("unix:"));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Whatever the parent still says, it hangs up. */
static bool hung_up(int fd)
{
    char bytes[256];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
    }
    return n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void bytes_that_are_no_frames(void **state)
{
#define SESSION "TRD1\x01\x01\x00\x00"
    static const struct {
        size_t size;
        const char *bytes;
    } cases[] = {
        {8, "GET / HT"},
        {8, "TRD1\x02\x01\x00\x00"},          /* another version */
        {8, "TRD1\x01\x09\x00\x00"},          /* no such kind */
        {12, SESSION "\xff\xff\xff\xff"},     /* 4 GiB announced */
        {12, SESSION "\x01\x00\x11\x00"},     /* one byte over the limit */
        {14, SESSION "\x02\x00\x00\x00\x0a"}, /* cut within the string */
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        int fd = dial_raw(f);
        assert_int_equal(send(fd, cases[i].bytes, cases[i].size, MSG_NOSIGNAL),
                         (ssize_t)cases[i].size);
        if (i + 1 == TIERED_COUNT(cases)) {
            shutdown(fd, SHUT_WR); /* a refusal, and nobody to read it */
        }
        WAIT(f, hung_up(fd));
        close(fd);
    }
    good_child_works(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(blocks_that_break_the_rules),
        TEST(one_block_too_many),
        TEST(one_block_too_many_for_an_answered_push),
        TEST(heads_that_lie),
        TEST(no_room_for_an_update),
        TEST(from_the_start_where_the_middle_is_missing),
        TEST(pushes_for_others),
        TEST(a_push_that_begins_wrongly),
        TEST(garbage_on_every_kind),
        TEST(streams_that_just_go),
        TEST(bytes_that_are_no_frames),
    };
    if (link_tests_begin() < 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + link_tests_end();
}
