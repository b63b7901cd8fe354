/* SPDX-License-Identifier: Apache-2.0 */
/* Updates from child to parent: delivered, answered, cut off and resumed. */
#include "link_hand.h"

static const struct tiered_path round_one = {2, {1, 1}};

static const Tiered__V1__Head *head_of(const struct tiered_encoded *e)
{
    return tiered_encoded_head(e);
}

static void an_update_is_delivered(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(5, 0);
    struct child a;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e); /* it waits for the session */
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    assert_false(a.settled);
    assert_string_equal(a.reason, "");
    assert_true(tiered_path_equal(&a.path, &round_one));
    assert_true(tiered_path_equal(&f->seen[A].path, &round_one));
    assert_true(same(f->received, e));
    assert_int_equal(parent_got(f), 5 * BLOCK);
    assert_int_equal(child_sent(&a), 5 * BLOCK);
    assert_int_equal(f->n_stored, 1);
    assert_int_equal(f->n_discarded, 0);
    child_stop(&a);
    tiered_encoded_unref(e);
}

static void refused_at_the_offer(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(5, 0);
    struct child a;
    f->offer = REFUSE;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_pushed == 1);
    assert_false(a.accepted);
    assert_string_equal(a.reason, "no round is open");
    assert_int_equal(child_sent(&a), 0);
    assert_int_equal(f->n_stored, 0);
    child_stop(&a);
    tiered_encoded_unref(e);
}

static void refused_when_judged(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(5, 0);
    struct child a;
    f->verdict = REJECT;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_pushed == 1);
    assert_false(a.accepted);
    assert_string_equal(a.reason, "a value is not finite");
    child_stop(&a);
    tiered_encoded_unref(e);
}

static void settled_already(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(5, 0);
    struct child a;
    f->offer = SETTLED;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    assert_true(a.settled);
    assert_int_equal(child_sent(&a), 0);
    child_stop(&a);
    tiered_encoded_unref(e);
}

static void an_update_without_blocks(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(0, 0);
    struct child a;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    assert_int_equal(f->seen[A].n_received, 1);
    child_stop(&a);
    tiered_encoded_unref(e);
}

/* The verdict comes when the owner has made up its mind. */
static void a_verdict_takes_its_time(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(5, 0);
    struct child a;
    f->verdict = HOLD;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, f->held);
    assert_int_equal(tiered_push_child(f->held), A);
    assert_int_equal(a.n_pushed, 0);
    tiered_uplink_push(a.uplink, &round_one, e); /* the order repeated: no matter */
    tiered_push_done(TIERED_STEAL(f->held), true, TIERED_OK, "");
    WAIT(f, a.n_pushed == 1);
    assert_int_equal(f->seen[A].n_offers, 1);
    child_stop(&a);
    tiered_encoded_unref(e);
}

/* The child is gone when the verdict comes; then it asks again. */
static void a_verdict_for_nobody(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(5, 0);
    struct child a;
    f->verdict = HOLD;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, f->held);
    child_stop(&a);
    WAIT(f, !tiered_downlink_connected(f->downlink, A));
    tiered_push_done(TIERED_STEAL(f->held), true, TIERED_OK, "");
    f->offer = SETTLED;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_pushed == 1);
    assert_true(a.settled);
    child_stop(&a);
    tiered_encoded_unref(e);
}

static void a_newer_update_replaces_an_older(void **state)
{
    struct fixture *f = *state;
    const struct tiered_path second = {2, {1, 2}};
    struct tiered_encoded *one = make(5, 0), *two = make(5, 1);
    struct child a;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, one);
    tiered_uplink_push(a.uplink, &second, two);
    WAIT(f, a.n_pushed == 1);
    assert_true(tiered_path_equal(&a.path, &second));
    assert_true(same(f->received, two));
    tiered_uplink_push(a.uplink, &round_one, one);
    tiered_uplink_cancel_push(a.uplink);
    tiered_uplink_push(a.uplink, &second, one);
    WAIT(f, a.n_pushed == 2);
    assert_true(same(f->received, one));
    child_stop(&a);
    tiered_encoded_unref(one);
    tiered_encoded_unref(two);
}

/* `n` blocks of `e` by hand, then a cut. */
static void push_and_cut(struct fixture *f, const struct tiered_encoded *e, uint32_t n)
{
    struct peer p;
    uint64_t before = parent_got(f);
    peer_push(f, &p, head_of(e));
    assert_true(p.ready);
    assert_int_equal(p.next_block, 0);
    for (uint32_t i = 0; i < n; i++) {
        peer_block(&p, e, i);
    }
    WAIT(f, parent_got(f) == before + n * BLOCK);
    peer_close(&p);
}

static void resumed_at_the_first_missing_block(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(8, 0);
    struct peer session, p;
    peer_session(f, &session);
    push_and_cut(f, e, 3);
    peer_push(f, &p, head_of(e));
    assert_true(p.ready);
    assert_int_equal(p.next_block, 3);
    for (uint32_t i = 3; i < 8; i++) {
        peer_block(&p, e, i);
    }
    WAIT(f, p.done);
    assert_true(p.accepted);
    assert_true(same(f->received, e));
    assert_int_equal(parent_got(f), 8 * BLOCK); /* no byte twice */
    assert_int_equal(f->n_stored, 1);
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
}

/* The child's process died and came back: a new session, the same update. */
static void resumed_over_a_new_session(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(8, 0);
    struct peer session;
    struct child a;
    peer_session(f, &session);
    push_and_cut(f, e, 5);
    peer_close(&session);
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    assert_int_equal(child_sent(&a), 3 * BLOCK);
    assert_int_equal(parent_got(f), 8 * BLOCK);
    assert_true(same(f->received, e));
    child_stop(&a);
    tiered_encoded_unref(e);
}

/* A second stream before the first was seen to die. */
static void two_streams_at_once(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(8, 0);
    struct peer session, first, second;
    peer_session(f, &session);
    peer_push(f, &first, head_of(e));
    peer_block(&first, e, 0);
    peer_block(&first, e, 1);
    WAIT(f, parent_got(f) == 2 * BLOCK);
    peer_push(f, &second, head_of(e));
    assert_int_equal(second.next_block, 2);
    WAIT(f, first.closed);
    peer_close(&first);
    peer_close(&second);
    peer_close(&session);
    tiered_encoded_unref(e);
}

static void other_bytes_begin_anew(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(8, 0), *other = make(8, 1);
    struct peer session, p;
    peer_session(f, &session);
    push_and_cut(f, e, 3);
    peer_push(f, &p, head_of(other));
    assert_int_equal(p.next_block, 0);
    assert_int_equal(f->n_discarded, 1);
    for (uint32_t i = 0; i < 8; i++) {
        peer_block(&p, other, i);
    }
    WAIT(f, p.done);
    assert_true(same(f->received, other));
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
    tiered_encoded_unref(other);
}

/* The same bytes are another update when they are of other examples or another base. */
static void another_head_begins_anew(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(8, 0);
    Tiered__V1__Head head = *head_of(e);
    struct peer session, p;
    peer_session(f, &session);
    push_and_cut(f, e, 3);
    head.num_examples = 8;
    peer_push(f, &p, &head);
    assert_int_equal(p.next_block, 0);
    for (uint32_t i = 0; i < 8; i++) {
        peer_block(&p, e, i);
    }
    WAIT(f, p.done);
    assert_int_equal(tiered_encoded_head(f->received)->num_examples, 8);
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
}

/* What a cut left is given back when it has no use any more. */
static void nothing_is_kept_of_what_is_settled(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(8, 0);
    struct peer session, p;
    peer_session(f, &session);
    push_and_cut(f, e, 3);
    f->offer = SETTLED;
    peer_push(f, &p, head_of(e));
    assert_true(p.settled);
    assert_int_equal(f->n_discarded, 1);
    WAIT(f, p.half_closed);
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
}

static void acks_tell_how_far_it_is(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(40, 0);
    struct peer session, p;
    peer_session(f, &session);
    peer_push(f, &p, head_of(e));
    for (uint32_t i = 0; i < 35; i++) {
        peer_block(&p, e, i);
    }
    WAIT(f, p.n_acks == 2);
    assert_int_equal(p.next_block, 32);
    for (uint32_t i = 35; i < 40; i++) {
        peer_block(&p, e, i);
    }
    WAIT(f, p.done);
    assert_int_equal(p.n_acks, 2);
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
}

/* A peer that says it will send no more has cut itself off; one that has sent all of it
   may. */
static void half_closed_by_the_child(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(4, 0);
    struct peer session, p;
    f->verdict = HOLD;
    peer_session(f, &session);
    peer_push(f, &p, head_of(e));
    peer_block(&p, e, 0);
    tiered_conn_half_close(p.conn, NULL);
    WAIT(f, p.closed);
    peer_close(&p);
    peer_push(f, &p, head_of(e));
    assert_int_equal(p.next_block, 1);
    for (uint32_t i = 1; i < 4; i++) {
        peer_block(&p, e, i);
    }
    tiered_conn_half_close(p.conn, NULL);
    WAIT(f, f->held);
    tiered_push_done(TIERED_STEAL(f->held), true, TIERED_OK, "");
    WAIT(f, p.done && p.closed);
    assert_true(p.accepted);
    assert_int_equal(p.end.code, TIERED_OK);
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
}

/* The session's end is the end of its transfers, with what has arrived kept. */
static void transfers_end_with_the_session(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(4, 0);
    struct peer session, p;
    peer_session(f, &session);
    peer_push(f, &p, head_of(e));
    peer_block(&p, e, 0);
    WAIT(f, parent_got(f) == BLOCK);
    peer_close(&session);
    WAIT(f, p.closed);
    peer_close(&p);
    peer_session(f, &session);
    peer_push(f, &p, head_of(e));
    assert_int_equal(p.next_block, 1);
    tiered_downlink_drop(f->downlink, A, TIERED_EPEER, "dropped");
    WAIT(f, p.closed && session.half_closed);
    assert_string_equal(session.reason, "dropped");
    assert_int_equal(f->n_discarded, 1);
    peer_close(&p);
    peer_close(&session);
    tiered_encoded_unref(e);
}

static void dropped_from_inside_the_offer(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(4, 0);
    struct child a;
    f->drop_at_offer = true;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_refused == 1 && a.n_lost == 1);
    assert_string_equal(a.refused, "dropped");
    f->drop_at_offer = false;
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    child_stop(&a);
    tiered_encoded_unref(e);
}

/* The parent's process dies in the middle of a push: the next one gets all of it. */
static void a_parent_restarted_during_a_push(void **state)
{
    struct fixture *f = *state;
    struct tiered_encoded *e = make(8, 0);
    struct child a;
    f->verdict = HOLD;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, f->held);
    parent_stop(f); /* frees the push that is held, too */
    f->verdict = ACCEPT;
    WAIT(f, a.n_lost == 1);
    parent_start(f);
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    assert_int_equal(child_sent(&a), 16 * BLOCK);
    child_stop(&a);
    tiered_encoded_unref(e);
}

/* 40 MiB through files on both sides, in the memory of a few blocks. */
static void large_updates_through_files(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct child a;
    snprintf(path, sizeof(path), "%s/out", folder);
    struct tiered_encoded *e = make_sized(40, 1u << 20, 0, path);
    assert_false(tiered_encoded_in_memory(e));
    f->store_folder = folder;
    child_start(f, &a, "a");
    tiered_uplink_push(a.uplink, &round_one, e);
    WAIT(f, a.n_pushed == 1);
    assert_true(a.accepted);
    assert_false(tiered_encoded_in_memory(f->received));
    assert_true(same(f->received, e));
    assert_int_equal(parent_got(f), 40u << 20);
    child_stop(&a);
    tiered_encoded_unref(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_update_is_delivered),
        TEST(refused_at_the_offer),
        TEST(refused_when_judged),
        TEST(settled_already),
        TEST(an_update_without_blocks),
        TEST(a_verdict_takes_its_time),
        TEST(a_verdict_for_nobody),
        TEST(a_newer_update_replaces_an_older),
        TEST(resumed_at_the_first_missing_block),
        TEST(resumed_over_a_new_session),
        TEST(two_streams_at_once),
        TEST(other_bytes_begin_anew),
        TEST(another_head_begins_anew),
        TEST(nothing_is_kept_of_what_is_settled),
        TEST(acks_tell_how_far_it_is),
        TEST(half_closed_by_the_child),
        TEST(transfers_end_with_the_session),
        TEST(dropped_from_inside_the_offer),
        TEST(a_parent_restarted_during_a_push),
        TEST(large_updates_through_files),
    };
    if (link_tests_begin() < 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + link_tests_end();
}
