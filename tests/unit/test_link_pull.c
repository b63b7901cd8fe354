/* SPDX-License-Identifier: Apache-2.0 */
/* Models from parent to child: served, waited for, refused, resumed; and observers. */
#include "link_hand.h"

static void publish(struct fixture *f, struct tiered_encoded *e, enum model_mode mode)
{
    tiered_encoded_unref(f->model);
    f->model = e;
    f->serve = mode;
    tiered_digest_of("model", 5, &f->model_digest);
}

static void a_model_at_hand(void **state)
{
    struct fixture *f = *state;
    struct child a;
    publish(f, make(6, 0), SERVED);
    child_start(f, &a, "a");
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL); /* the order repeated */
    WAIT(f, a.n_pulled == 1);
    assert_string_equal(a.reason, "");
    assert_true(tiered_digest_equal(&a.pulled_digest, &f->model_digest));
    assert_true(same(a.pulled, f->model));
    assert_true(tiered_encoded_in_memory(a.pulled));
    assert_int_equal(child_got(&a), 6 * BLOCK);
    child_stop(&a);
}

static void a_model_in_the_making(void **state)
{
    struct fixture *f = *state;
    struct child a, b;
    publish(f, make(6, 0), MAKING);
    child_start(f, &a, "a");
    child_start(f, &b, "b");
    WAIT(f, a.n_connected && b.n_connected);
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    tiered_uplink_pull(b.uplink, &f->model_digest, NULL);
    WAIT(f, f->n_models >= 2);
    struct tiered_digest other;
    tiered_digest_of("other", 5, &other);
    tiered_downlink_model(f->downlink, &other, NULL);
    assert_int_equal(child_got(&a), 0);
    f->serve = SERVED;
    tiered_downlink_model(f->downlink, &f->model_digest, NULL);
    tiered_downlink_model(f->downlink, &f->model_digest, NULL); /* no more */
    WAIT(f, a.n_pulled == 1 && b.n_pulled == 1);
    assert_true(same(a.pulled, f->model));
    assert_true(same(b.pulled, f->model));
    child_stop(&a);
    child_stop(&b);
}

static void a_model_that_cannot_be_made(void **state)
{
    struct fixture *f = *state;
    struct child a;
    publish(f, make(6, 0), MAKING);
    child_start(f, &a, "a");
    WAIT(f, a.n_connected);
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    WAIT(f, f->n_models == 1);
    tiered_downlink_model(f->downlink, &f->model_digest, "the disk is full");
    WAIT(f, a.n_pulled == 1);
    assert_null(a.pulled);
    assert_string_equal(a.reason, "the disk is full");
    child_stop(&a);
}

static void a_model_nobody_has(void **state)
{
    struct fixture *f = *state;
    struct child a;
    publish(f, make(6, 0), UNKNOWN);
    child_start(f, &a, "a");
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    WAIT(f, a.n_pulled == 1);
    assert_null(a.pulled);
    assert_string_equal(a.reason, "no such model here");
    f->serve = SERVED; /* a refusal is the end of that pull, not of pulls */
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    WAIT(f, a.n_pulled == 2);
    assert_true(same(a.pulled, f->model));
    child_stop(&a);
}

static void another_model_replaces_the_pull(void **state)
{
    struct fixture *f = *state;
    struct tiered_digest other;
    struct child a;
    publish(f, make(6, 0), SERVED);
    tiered_digest_of("other", 5, &other);
    child_start(f, &a, "a");
    tiered_uplink_pull(a.uplink, &other, NULL);
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    WAIT(f, a.n_pulled == 1);
    assert_true(same(a.pulled, f->model));
    child_stop(&a);
}

static void a_model_without_blocks(void **state)
{
    struct fixture *f = *state;
    struct child a;
    publish(f, make(0, 0), SERVED);
    child_start(f, &a, "a");
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    WAIT(f, a.n_pulled == 1);
    assert_true(same(a.pulled, f->model));
    child_stop(&a);
}

static void from_the_block_that_is_missing(void **state)
{
    struct fixture *f = *state;
    struct peer session, p;
    publish(f, make(6, 0), SERVED);
    peer_session(f, &session);
    peer_pull(f, &p, "a", TOKEN, &f->model_digest, 4);
    WAIT(f, p.half_closed);
    assert_int_equal(p.first, TIERED__V1__FRAME__BODY_HEAD);
    assert_int_equal(p.n_blocks, 2);
    assert_int_equal(p.first_block, 4);
    peer_close(&p);
    peer_pull(f, &p, "a", TOKEN, &f->model_digest, 6); /* all of it */
    WAIT(f, p.half_closed);
    assert_int_equal(p.n_frames, 1);
    peer_close(&p);
    peer_pull(f, &p, "a", TOKEN, &f->model_digest, 7);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "no such block in this model");
    peer_close(&session);
}

static void pulls_that_are_turned_away(void **state)
{
    struct fixture *f = *state;
    struct peer session, p;
    publish(f, make(6, 0), SERVED);
    peer_pull(f, &p, "a", TOKEN, &f->model_digest, 0);
    EXPECT_REFUSAL(f, &p, TIERED_ESTATE, "node 'a' has no session here");
    peer_session(f, &session);
    peer_pull(f, &p, "a", "wrong", &f->model_digest, 0);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "wrong join token");
    peer_pull(f, &p, "b", TOKEN, &f->model_digest, 0);
    EXPECT_REFUSAL(f, &p, TIERED_ESTATE, "node 'b' has no session here");
    peer_pull(f, &p, "zebra", TOKEN, &f->model_digest, 0);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "node 'zebra' is not expected here");
    peer_pull(f, &p, "a", TOKEN, NULL, 0);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "a pull must say what it wants");
    assert_int_equal(f->n_models, 0);
    peer_close(&session);
    good_child_works(f);
}

/* The orchestrator is nobody's child, but has the token. */
static void an_observer(void **state)
{
    struct fixture *f = *state;
    struct tiered_digest other;
    struct peer p;
    publish(f, make(6, 0), SERVED);
    tiered_digest_of("other", 5, &other);
    peer_pull(f, &p, "", "wrong", &f->model_digest, 0);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "wrong join token");
    peer_pull(f, &p, "", "", &f->model_digest, 0);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "wrong join token");
    assert_int_equal(f->n_models, 0);
    peer_pull(f, &p, "", TOKEN, &other, 0);
    EXPECT_REFUSAL(f, &p, TIERED_ENOENT, "no such model here");
    peer_pull(f, &p, "", TOKEN, &f->model_digest, 0);
    WAIT(f, p.half_closed);
    assert_int_equal(p.n_blocks, 6);
    peer_close(&p);
}

struct observer {
    struct tiered_pull *pull;
    struct tiered_encoded *encoded;
    unsigned n;
    char reason[64];
};

static void observed(void *user, struct tiered_encoded *encoded, const char *reason)
{
    struct observer *o = user;
    o->n++;
    o->encoded = encoded;
    snprintf(o->reason, sizeof(o->reason), "%s", reason ? reason : "");
    tiered_pull_stop(TIERED_STEAL(o->pull));
}

/* A pull on its own outlasts a parent that is not there yet. */
static void an_observer_that_waits(void **state)
{
    struct fixture *f = *state;
    struct observer o = {0};
    publish(f, make(6, 0), SERVED);
    const struct tiered_pull_config config = {
        .loop = f->loop,
        .net = f->child_net,
        .address = f->address,
        .token = TOKEN,
        .context = {.run = RUN, .node = "", .generation = GENERATION},
        .model = f->model_digest,
    };
    parent_stop(f);
    assert_int_equal(tiered_pull_start(&config, observed, &o, &o.pull, NULL), 0);
    tiered_pull_hurry(o.pull);
    parent_start(f);
    WAIT(f, o.n == 1);
    assert_string_equal(o.reason, "");
    assert_true(same(o.encoded, f->model));
    tiered_encoded_unref(o.encoded);
    assert_int_equal(tiered_pull_start(&config, observed, &o, &o.pull, NULL), 0);
    tiered_pull_stop(TIERED_STEAL(o.pull)); /* before it begins: done() never comes */
    assert_int_equal(o.n, 1);
}

static void pulls_end_with_the_session(void **state)
{
    struct fixture *f = *state;
    struct peer session, first, second;
    publish(f, make(6, 0), MAKING);
    peer_session(f, &session);
    peer_pull(f, &first, "a", TOKEN, &f->model_digest, 0);
    WAIT(f, f->n_models == 1);
    peer_pull(f, &second, "a", TOKEN, &f->model_digest, 0); /* one at a time */
    WAIT(f, first.closed);
    peer_close(&first);
    peer_close(&session);
    WAIT(f, second.closed);
    peer_close(&second);
    tiered_downlink_model(f->downlink, &f->model_digest, NULL);
    good_child_works(f);
}

/* A parent that goes away in the middle of serving. */
static void destroyed_while_serving(void **state)
{
    struct fixture *f = *state;
    struct child a;
    publish(f, make_sized(40, 1u << 20, 0, NULL), SERVED);
    child_start(f, &a, "a");
    tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
    WAIT(f, child_got(&a) >= 5u << 20);
    assert_int_equal(a.n_pulled, 0);
    parent_stop(f);
    WAIT(f, a.n_lost == 1);
    parent_start(f);
    WAIT(f, a.n_pulled == 1);
    assert_true(same(a.pulled, f->model));
    assert_int_equal(child_got(&a), 40u << 20); /* no byte twice */
    child_stop(&a);
}

/* What is to be decoded waits in a file; what is the model itself, in its memory. */
static void large_models(void **state)
{
    struct fixture *f = *state;
    static char zstd[] = "zstd";
    char *filters[] = {zstd, NULL};
    for (int i = 0; i < 2; i++) {
        char path[128];
        struct child a;
        snprintf(path, sizeof(path), "%s/model", folder);
        publish(f, make_through(filters[i], 40, 1u << 20, 0, path), SERVED);
        child_start(f, &a, "a");
        tiered_uplink_pull(a.uplink, &f->model_digest, NULL);
        WAIT(f, a.n_pulled == 1);
        assert_int_equal(tiered_encoded_in_memory(a.pulled), filters[i] == NULL);
        assert_true(same(a.pulled, f->model));
        child_stop(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_model_at_hand),
        TEST(a_model_in_the_making),
        TEST(a_model_that_cannot_be_made),
        TEST(a_model_nobody_has),
        TEST(another_model_replaces_the_pull),
        TEST(a_model_without_blocks),
        TEST(from_the_block_that_is_missing),
        TEST(pulls_that_are_turned_away),
        TEST(an_observer),
        TEST(an_observer_that_waits),
        TEST(pulls_end_with_the_session),
        TEST(destroyed_while_serving),
        TEST(large_models),
    };
    if (link_tests_begin() < 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + link_tests_end();
}
