/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that speak the wire by hand, to misbehave: children of a real parent, and
   parents of a real child. */
#ifndef TIERED_TEST_LINK_HAND_H
#define TIERED_TEST_LINK_HAND_H

#include "link_fixture.h"

static inline void note_refusal(struct peer *p, uint32_t code, const char *reason)
{
    p->code = code;
    snprintf(p->reason, sizeof(p->reason), "%s", reason);
}

static inline void peer_send(struct peer *p, Tiered__V1__Frame *frame)
{
    assert_int_equal(tiered_link_send(p->conn, &p->context, frame, NULL), 0);
}

static inline void peer_welcome(struct peer *p)
{
    Tiered__V1__Welcome welcome = TIERED__V1__WELCOME__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    welcome.protocol = TIERED_PROTOCOL;
    welcome.heartbeat_ms = p->f->heartbeat_ms;
    frame.body_case = TIERED__V1__FRAME__BODY_WELCOME;
    frame.welcome = &welcome;
    peer_send(p, &frame);
}

static inline void peer_message(void *user, struct tiered_message *message)
{
    struct peer *p = user;
    struct tiered_frame frame;
    assert_int_equal(tiered_frame_unpack(message->data, message->size, &frame, NULL),
                     0);
    const Tiered__V1__Frame *pb = frame.pb;
    p->last = (int)pb->body_case;
    p->first = p->n_frames++ == 0 ? p->last : p->first;
    if (p->last == TIERED__V1__FRAME__BODY_REFUSAL) {
        note_refusal(p, pb->refusal->code, pb->refusal->reason);
    } else if (p->last == TIERED__V1__FRAME__BODY_PUSH_READY) {
        p->ready = true;
        p->next_block = pb->push_ready->next_block;
        p->settled = pb->push_ready->settled;
    } else if (p->last == TIERED__V1__FRAME__BODY_PUSH_ACK) {
        p->n_acks++;
        p->next_block = pb->push_ack->next_block;
    } else if (p->last == TIERED__V1__FRAME__BODY_PUSH_DONE) {
        p->done = true;
        p->accepted = pb->push_done->accepted;
        note_refusal(p, pb->push_done->code, pb->push_done->reason);
    } else if (p->last == TIERED__V1__FRAME__BODY_WELCOME) {
        p->welcome = true;
    } else if (p->last == TIERED__V1__FRAME__BODY_BLOCK) {
        p->first_block = p->n_blocks++ == 0 ? pb->block->index : p->first_block;
    } else if (p->last == TIERED__V1__FRAME__BODY_PULL) {
        p->begun = true;
        p->next_block = pb->pull->next_block;
    } else if (p->last == TIERED__V1__FRAME__BODY_PUSH_BEGIN) {
        p->begun = true;
    } else if (p->last == TIERED__V1__FRAME__BODY_HELLO && !p->f->no_welcome) {
        peer_welcome(p);
    }
    tiered_frame_finish(&frame);
    message->release(message);
}

static inline void peer_half_closed(void *user)
{
    ((struct peer *)user)->half_closed++;
}

static inline void peer_closed(void *user, enum tiered_stream_end end,
                               const struct tiered_error *err)
{
    struct peer *p = user;
    (void)end;
    p->closed++;
    p->end = *err;
}

static const struct tiered_conn_handler peer_handler = {peer_message, peer_half_closed,
                                                        peer_closed};

static inline void peer_open(struct fixture *f, struct peer *p,
                             enum tiered_stream_kind kind)
{
    *p = (struct peer){.f = f,
                       .context = {.run = RUN, .node = "a", .generation = GENERATION}};
    assert_int_equal(tiered_net_open(f->child_net, f->address, kind, &peer_handler, p,
                                     &p->conn, NULL),
                     0);
}

static inline void hand_accept(void *user, struct tiered_conn *conn,
                               enum tiered_stream_kind kind)
{
    struct fixture *f = user;
    struct peer *p = calloc(1, sizeof(*p));
    *p = (struct peer){.f = f,
                       .conn = conn,
                       .context = {.run = RUN, .node = "a", .generation = GENERATION},
                       .next = f->hands};
    f->hands = f->hand[kind] = p;
    f->n_hand[kind]++;
    tiered_conn_set_handler(conn, &peer_handler, p);
}

static inline int set_up_hand(void **state)
{
    struct fixture *f;
    set_up_nets(state);
    f = *state;
    return tiered_net_listen(f->parent_net, f->address, hand_accept, f, NULL);
}

/** The `n`th stream of this kind, once the child has said what it wants. */
#define HAND(f, kind, n)                                                               \
    ({                                                                                 \
        WAIT(f, (f)->n_hand[kind] >= (n) && (f)->hand[kind]->begun);                   \
        (f)->hand[kind];                                                               \
    })

static inline void peer_close(struct peer *p)
{
    tiered_conn_close(TIERED_STEAL(p->conn));
}

static inline void peer_hello_as(struct peer *p, uint32_t protocol, const char *token)
{
    Tiered__V1__Hello hello = TIERED__V1__HELLO__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    hello.protocol = protocol;
    hello.token = (char *)token;
    hello.agent = (char *)"agent-1";
    frame.body_case = TIERED__V1__FRAME__BODY_HELLO;
    frame.hello = &hello;
    peer_send(p, &frame);
}

/** A session of "a" that stands. */
static inline void peer_session(struct fixture *f, struct peer *p)
{
    peer_open(f, p, TIERED_SESSION);
    peer_hello_as(p, TIERED_PROTOCOL, TOKEN);
    WAIT(f, p->welcome);
}

static inline void peer_begin_as(struct peer *p, const char *token,
                                 const Tiered__V1__Head *head)
{
    Tiered__V1__PushBegin begin = TIERED__V1__PUSH_BEGIN__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    begin.head = (Tiered__V1__Head *)head;
    begin.token = (char *)token;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_BEGIN;
    frame.push_begin = &begin;
    peer_send(p, &frame);
}

static inline void peer_begin(struct peer *p, const Tiered__V1__Head *head)
{
    peer_begin_as(p, TOKEN, head);
}

static inline void peer_heartbeat(struct peer *p)
{
    Tiered__V1__Heartbeat heartbeat = TIERED__V1__HEARTBEAT__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_HEARTBEAT;
    frame.heartbeat = &heartbeat;
    peer_send(p, &frame);
}

/** A push of "a" with this head, up to the parent's first answer. */
static inline void peer_push(struct fixture *f, struct peer *p,
                             const Tiered__V1__Head *head)
{
    peer_open(f, p, TIERED_PUSH);
    peer_begin(p, head);
    WAIT(f, p->n_frames > 0);
}

static inline void free_body(void *body)
{
    free(body);
}

static inline void peer_block_as(struct peer *p, const struct tiered_encoded *e,
                                 uint32_t index, uint32_t as, uint32_t crc_change)
{
    Tiered__V1__Block block = TIERED__V1__BLOCK__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    size_t size, head_size;
    uint8_t *head;
    tiered_encoded_block(e, index, &size, &block.crc32c);
    void *body = malloc(size);
    assert_int_equal(tiered_encoded_read(e, index, body, size, NULL), 0);
    block.index = as;
    block.crc32c ^= crc_change;
    frame.run = (char *)p->context.run;
    frame.node = (char *)p->context.node;
    frame.generation = p->context.generation;
    frame.body_case = TIERED__V1__FRAME__BODY_BLOCK;
    frame.block = &block;
    assert_int_equal(tiered_frame_pack(&frame, size, &head, &head_size, NULL), 0);
    const struct tiered_outgoing out = {head, head_size, body, size, free_body, body};
    assert_int_equal(tiered_conn_send(p->conn, &out, NULL), 0);
    free(head);
}

static inline void peer_block(struct peer *p, const struct tiered_encoded *e,
                              uint32_t index)
{
    peer_block_as(p, e, index, index, 0);
}

static inline void peer_pull(struct fixture *f, struct peer *p, const char *node,
                             const char *token, const struct tiered_digest *model,
                             uint32_t next_block)
{
    Tiered__V1__Pull pull = TIERED__V1__PULL__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    peer_open(f, p, TIERED_PULL);
    p->context.node = node;
    if (model) {
        pull.model.data = (uint8_t *)model->bytes;
        pull.model.len = sizeof(model->bytes);
    }
    pull.next_block = next_block;
    pull.token = (char *)token;
    frame.body_case = TIERED__V1__FRAME__BODY_PULL;
    frame.pull = &pull;
    peer_send(p, &frame);
}

/** The parent turned it away for exactly this reason, and ended its side. */
#define EXPECT_REFUSAL(f, p, expected_code, expected)                                  \
    do {                                                                               \
        WAIT(f, (p)->half_closed || (p)->closed);                                      \
        assert_string_equal((p)->reason, expected);                                    \
        assert_int_equal((p)->code, expected_code);                                    \
        assert_int_equal((p)->last, TIERED__V1__FRAME__BODY_REFUSAL);                  \
        peer_close(p);                                                                 \
    } while (0)

/** The round is unharmed: the child "b" can begin, pull and push. */
static inline void good_child_works(struct fixture *f)
{
    const struct tiered_path path = {2, {1, f->seen[B].n_received + 1}};
    struct tiered_encoded *e = make(3, f->seen[B].n_received);
    struct child b;
    unsigned n = f->seen[B].n_received;
    child_start(f, &b, "b");
    tiered_uplink_ready(b.uplink, true, "");
    WAIT(f, f->seen[B].ready);
    tiered_uplink_push(b.uplink, &path, e);
    WAIT(f, b.n_pushed == 1);
    assert_true(b.accepted);
    assert_int_equal(f->seen[B].n_received, n + 1);
    assert_true(same(f->received, e));
    child_stop(&b);
    tiered_encoded_unref(e);
    WAIT(f, !f->seen[B].ready);
}

#define HAND_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_hand, tear_down)

#endif
