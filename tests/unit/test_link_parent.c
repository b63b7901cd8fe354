/* SPDX-License-Identifier: Apache-2.0 */
/* Parents that are frozen, broken or dishonest: what the child's side makes of them.
   The parent is played by hand. */
#include "link_hand.h"

static const struct tiered_path round_one = {2, {1, 1}};

static void send_order(struct peer *p)
{
    Tiered__V1__Order order = TIERED__V1__ORDER__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    order.kind = TIERED__V1__ORDER__KIND__TRAIN;
    frame.body_case = TIERED__V1__FRAME__BODY_ORDER;
    frame.order = &order;
    peer_send(p, &frame);
}

static void send_garbage(struct peer *p)
{
    const struct tiered_outgoing out = {.head = "\xff\xff\xff\xff\xff\xff\xff",
                                        .head_size = 7};
    assert_int_equal(tiered_conn_send(p->conn, &out, NULL), 0);
}

static void send_push_ready(struct peer *p, uint32_t next_block)
{
    Tiered__V1__PushReady ready = TIERED__V1__PUSH_READY__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    ready.next_block = next_block;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_READY;
    frame.push_ready = &ready;
    peer_send(p, &frame);
}

static void send_push_done(struct peer *p)
{
    Tiered__V1__PushDone done = TIERED__V1__PUSH_DONE__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    done.accepted = true;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_DONE;
    frame.push_done = &done;
    peer_send(p, &frame);
}

static void send_head(struct peer *p, const Tiered__V1__Head *head)
{
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_HEAD;
    frame.head = (Tiered__V1__Head *)head;
    peer_send(p, &frame);
}

/* ---- sessions ---- */

/* Its kernel accepts; nobody answers. */
static void frozen_before_the_welcome(void **state)
{
    struct fixture *f = *state;
    struct tiered_uplink_config config = child_config(f, "a");
    struct child a;
    f->no_welcome = true;
    config.silence_ms = 100;
    child_start_as(&a, &config);
    WAIT(f, f->n_hand[TIERED_SESSION] >= 2);
    assert_int_equal(a.n_connected + a.n_lost, 0);
    f->no_welcome = false;
    f->heartbeat_ms = 60000;
    WAIT(f, a.n_connected == 1);
    child_stop(&a);
}

static void frozen_later(void **state)
{
    struct fixture *f = *state;
    struct tiered_uplink_config config = child_config(f, "a");
    struct child a;
    config.silence_ms = 200;
    child_start_as(&a, &config);
    WAIT(f, a.n_lost == 1);
    assert_int_equal(a.n_connected, 1);
    assert_string_equal(a.lost, "the parent has been silent for too long");
    WAIT(f, a.n_connected == 2);
    child_stop(&a);
}

static void orders_before_the_welcome(void **state)
{
    struct fixture *f = *state;
    struct tiered_uplink_config config = child_config(f, "a");
    struct child a;
    f->no_welcome = true;
    config.silence_ms = 1000;
    child_start_as(&a, &config);
    WAIT(f, f->n_hand[TIERED_SESSION] == 1);
    send_order(f->hand[TIERED_SESSION]);
    WAIT(f, f->n_hand[TIERED_SESSION] >= 2);
    assert_int_equal(a.n_frames, 0);
    f->no_welcome = false;
    WAIT(f, a.n_connected == 1);
    send_order(f->hand[TIERED_SESSION]);
    WAIT(f, a.n_frames == 1);
    child_stop(&a);
}

static void welcomed_twice(void **state)
{
    struct fixture *f = *state;
    struct child a;
    child_start(f, &a, "a");
    WAIT(f, a.n_connected == 1);
    peer_welcome(f->hand[TIERED_SESSION]);
    send_order(f->hand[TIERED_SESSION]);
    WAIT(f, a.n_frames == 1);
    assert_int_equal(a.n_connected, 1);
    child_stop(&a);
}

static void nonsense_on_the_session(void **state)
{
    struct fixture *f = *state;
    struct child a;
    child_start(f, &a, "a");
    WAIT(f, a.n_connected == 1);
    send_garbage(f->hand[TIERED_SESSION]);
    WAIT(f, a.n_lost == 1);
    assert_string_equal(a.lost, "frame: it ends inside a number");
    WAIT(f, a.n_connected == 2);
    child_stop(&a);
}

/* ---- pushes ---- */

/* A push of 4 blocks whose first stream the parent spoils; the second one works. */
static void push_over(struct fixture *f, void (*spoil)(struct peer *p))
{
    struct tiered_encoded *e = make(4, 0);
    struct child a;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    spoil(HAND(f, TIERED_PUSH, 1));
    struct peer *p = HAND(f, TIERED_PUSH, 2);
    assert_int_equal(a.n_pushed, 0);
    send_push_ready(p, 1);
    WAIT(f, p->n_blocks == 3);
    assert_int_equal(p->first_block, 1);
    send_push_done(p);
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    child_stop(&a);
    tiered_encoded_unref(e);
}

static void spoil_wrong_block(struct peer *p)
{
    send_push_ready(p, 5);
}

static void spoil_ready_twice(struct peer *p)
{
    send_push_ready(p, 3);
    send_push_ready(p, 0);
}

static void spoil_other_frame(struct peer *p)
{
    send_order(p);
}

static void spoil_half_close(struct peer *p)
{
    send_push_ready(p, 4);
    tiered_conn_half_close(p->conn, NULL);
}

static void spoil_close(struct peer *p)
{
    peer_close(p);
}

static void pushes_over_parents_that_spoil_them(void **state)
{
    static void (*const spoils[])(struct peer *) = {
        spoil_wrong_block, spoil_ready_twice, spoil_other_frame,
        send_garbage,      spoil_half_close,  spoil_close};
    struct fixture *f = *state;
    for (size_t i = 0; i < TIERED_COUNT(spoils); i++) {
        memset(f->n_hand, 0, sizeof(f->n_hand));
        push_over(f, spoils[i]);
    }
}

/* What the parent refused is not thrown at it again at once. */
static void a_refused_push_takes_its_time(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(4, 0);
    struct child a;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    struct peer *p = HAND(f, TIERED_PUSH, 1);
    send_push_ready(p, 0);
    WAIT(f, p->n_blocks == 4);
    tiered_link_refuse(p->conn, &p->context, TIERED_ECORRUPT, "a wrong digest");
    uint64_t began = tiered_now_ms();
    HAND(f, TIERED_PUSH, 2);
    assert_true(tiered_now_ms() - began >= 1000);
    assert_int_equal(a.n_pushed, 0);
    child_stop(&a);
    tiered_encoded_unref(e);
}

/* A block of the outbox that the disk has lost must not leave both ends waiting. */
static void a_block_that_cannot_be_read(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct child a;
    snprintf(path, sizeof(path), "%s/out", folder);
    struct tiered_encoded *e = make_sized(4, BLOCK, 0, path);
    assert_int_equal(truncate(path, 2500), 0); /* 8 + 2 * (8 + 1000) are whole */
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    struct peer *p = HAND(f, TIERED_PUSH, 1);
    send_push_ready(p, 0);
    WAIT(f, p->half_closed);
    assert_int_equal(p->n_blocks, 2);
    peer_close(p);
    HAND(f, TIERED_PUSH, 2);
    child_stop(&a);
    tiered_encoded_unref(e);
}

/* ---- pulls ---- */

struct pulling {
    struct fixture *f;
    struct child a;
    struct tiered_encoded *e;
    struct tiered_digest model;
};

static void pull_begin(struct fixture *f, struct pulling *t)
{
    *t = (struct pulling){.f = f, .e = make(6, 0)};
    tiered_digest_of("model", 5, &t->model);
    child_start(f, &t->a, "a");
    tiered_uplink_pull(t->a.uplink, &t->model, NULL);
}

/* The next stream begins at `first`, and what follows is all that is missing. */
static void pull_end(struct pulling *t, unsigned n, uint32_t first)
{
    struct peer *p = HAND(t->f, TIERED_PULL, n);
    assert_int_equal(p->next_block, first);
    assert_int_equal(t->a.n_pulled, 0);
    send_head(p, tiered_encoded_head(t->e));
    for (uint32_t i = first; i < 6; i++) {
        peer_block(p, t->e, i);
    }
    WAIT(t->f, t->a.n_pulled == 1);
    assert_string_equal(t->a.reason, "");
    assert_true(same(t->a.pulled, t->e));
    child_stop(&t->a);
    tiered_encoded_unref(t->e);
}

/* The first stream: the head and the first `blocks`. */
static struct peer *pull_some(struct pulling *t, uint32_t blocks)
{
    struct peer *p = HAND(t->f, TIERED_PULL, 1);
    assert_int_equal(p->next_block, 0);
    WAIT(t->f, p->half_closed); /* the child says nothing more */
    send_head(p, tiered_encoded_head(t->e));
    for (uint32_t i = 0; i < blocks; i++) {
        peer_block(p, t->e, i);
    }
    WAIT(t->f, child_got(&t->a) == blocks * BLOCK);
    return p;
}

static void a_pull_that_is_cut_goes_on(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    peer_close(pull_some(&t, 2));
    pull_end(&t, 2, 2);
}

static void a_pull_half_closed_early(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    tiered_conn_half_close(pull_some(&t, 3)->conn, NULL);
    pull_end(&t, 2, 3);
}

static void a_damaged_block(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    peer_block_as(pull_some(&t, 3), t.e, 3, 3, 1);
    pull_end(&t, 2, 3);
}

static void a_block_out_of_order(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    peer_block(pull_some(&t, 1), t.e, 2);
    pull_end(&t, 2, 1);
}

static void two_heads(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    send_head(pull_some(&t, 1), tiered_encoded_head(t.e));
    pull_end(&t, 2, 1);
}

static void a_block_before_the_head(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    peer_block(HAND(f, TIERED_PULL, 1), t.e, 0);
    pull_end(&t, 2, 0);
}

static void heads_that_lie(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    Tiered__V1__Head head = *tiered_encoded_head(t.e);
    head.n_blocks = 7;
    send_head(HAND(f, TIERED_PULL, 1), &head);
    head.n_blocks = 6;
    head.encoded_bytes = 1ull << 60;
    send_head(HAND(f, TIERED_PULL, 2), &head);
    head.encoded = (ProtobufCBinaryData){0};
    send_head(HAND(f, TIERED_PULL, 3), &head);
    pull_end(&t, 4, 0);
}

/* The parent was restarted and encodes the model anew: what we have does not fit. */
static void encoded_anew(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *anew = make(6, 1);
    struct pulling t;
    pull_begin(f, &t);
    peer_close(pull_some(&t, 2));
    struct peer *p = HAND(f, TIERED_PULL, 2);
    assert_int_equal(p->next_block, 2);
    send_head(p, tiered_encoded_head(anew));
    tiered_encoded_unref(t.e);
    t.e = anew;
    pull_end(&t, 3, 0);
}

/* All of it arrived, and it is not what the head names: again, but not at once. */
static void a_wrong_digest_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *other = make(6, 1);
    struct pulling t;
    pull_begin(f, &t);
    struct peer *p = HAND(f, TIERED_PULL, 1);
    Tiered__V1__Head head = *tiered_encoded_head(t.e);
    head.encoded = tiered_encoded_head(other)->encoded;
    send_head(p, &head);
    for (uint32_t i = 0; i < 6; i++) {
        peer_block(p, t.e, i);
    }
    uint64_t began = tiered_now_ms();
    pull_end(&t, 2, 0);
    assert_true(tiered_now_ms() - began >= 1000);
    tiered_encoded_unref(other);
}

static void asked_to_come_again(void **state)
{
    struct fixture *f = *state;
    struct pulling t;
    pull_begin(f, &t);
    struct peer *p = HAND(f, TIERED_PULL, 1);
    tiered_link_refuse(p->conn, &p->context, TIERED_ESTATE, "no session yet");
    p = HAND(f, TIERED_PULL, 2);
    assert_int_equal(t.a.n_pulled, 0);
    tiered_link_refuse(p->conn, &p->context, TIERED_ENOENT, "no such model here");
    WAIT(f, t.a.n_pulled == 1);
    assert_null(t.a.pulled);
    assert_string_equal(t.a.reason, "no such model here");
    assert_int_equal(f->n_hand[TIERED_PULL], 2);
    child_stop(&t.a);
    tiered_encoded_unref(t.e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HAND_TEST(frozen_before_the_welcome),
        HAND_TEST(frozen_later),
        HAND_TEST(orders_before_the_welcome),
        HAND_TEST(welcomed_twice),
        HAND_TEST(nonsense_on_the_session),
        HAND_TEST(pushes_over_parents_that_spoil_them),
        HAND_TEST(a_refused_push_takes_its_time),
        HAND_TEST(a_block_that_cannot_be_read),
        HAND_TEST(a_pull_that_is_cut_goes_on),
        HAND_TEST(a_pull_half_closed_early),
        HAND_TEST(a_damaged_block),
        HAND_TEST(a_block_out_of_order),
        HAND_TEST(two_heads),
        HAND_TEST(a_block_before_the_head),
        HAND_TEST(heads_that_lie),
        HAND_TEST(encoded_anew),
        HAND_TEST(a_wrong_digest_at_the_end),
        HAND_TEST(asked_to_come_again),
    };
    if (link_tests_begin() < 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + link_tests_end();
}
