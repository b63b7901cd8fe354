/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions between a parent and its children: who gets in, who is turned away and why,
   silence, restarts on both sides. */
#include "link_hand.h"

static void a_child_comes_ready_and_goes(void **state)
{
    struct fixture *f = *state;
    struct child a;
    child_start(f, &a, "a");
    assert_false(tiered_uplink_connected(a.uplink));
    WAIT(f, a.n_connected == 1);
    assert_true(tiered_uplink_connected(a.uplink));
    assert_true(tiered_downlink_connected(f->downlink, A));
    assert_false(tiered_downlink_connected(f->downlink, B));
    assert_int_equal(f->seen[A].n_ready, 0);
    tiered_uplink_ready(a.uplink, false, "its data is being loaded");
    WAIT(f, f->seen[A].n_lost == 1);
    assert_string_equal(f->seen[A].missing, "its data is being loaded");
    tiered_uplink_ready(a.uplink, true, "");
    WAIT(f, f->seen[A].ready);
    child_stop(&a);
    WAIT(f, !f->seen[A].ready);
    assert_int_equal(f->seen[A].n_ready, 1);
    assert_false(tiered_downlink_connected(f->downlink, A));
    assert_string_equal(tiered_downlink_child(f->downlink, A), "a");
}

static void frames_go_both_ways(void **state)
{
    struct fixture *f = *state;
    const struct tiered_path path = {2, {4, 2}};
    struct tiered_error err;
    struct child a;
    Tiered__V1__Evaluation evaluation = TIERED__V1__EVALUATION__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_EVALUATION;
    frame.evaluation = &evaluation;
    assert_int_equal(tiered_downlink_order(f->downlink, A,
                                           TIERED__V1__ORDER__KIND__TRAIN, &path, NULL),
                     -1);
    assert_int_equal(tiered_downlink_send(f->downlink, A, &path, &frame, &err), -1);
    assert_string_equal(err.text, "'a' is not connected");
    child_start(f, &a, "a");
    assert_int_equal(tiered_uplink_send(a.uplink, &path, &frame, &err), -1);
    assert_string_equal(err.text, "the parent is not connected");
    WAIT(f, a.n_connected == 1);
    assert_int_equal(tiered_uplink_send(a.uplink, &path, &frame, NULL), 0);
    WAIT(f, f->seen[A].n_frames == 1);
    assert_int_equal(f->seen[A].last_frame, TIERED__V1__FRAME__BODY_EVALUATION);
    assert_int_equal(tiered_downlink_order(f->downlink, A,
                                           TIERED__V1__ORDER__KIND__TRAIN, &path, NULL),
                     0);
    WAIT(f, a.n_frames == 1);
    assert_int_equal(a.last_frame, TIERED__V1__FRAME__BODY_ORDER);
    assert_int_equal(tiered_downlink_settle(f->downlink, A, &path, true, ""), 0);
    WAIT(f, a.n_frames == 2);
    assert_int_equal(a.last_frame, TIERED__V1__FRAME__BODY_SETTLED);
    child_stop(&a);
}

/* Reasons are cut to what may travel, and made text, rather than lost. */
static void long_and_broken_reasons_arrive(void **state)
{
    struct fixture *f = *state;
    struct child a;
    char text[2000];
    memset(text, 'x', sizeof(text));
    memcpy(text, "bad \xff", 5);
    text[sizeof(text) - 1] = '\0';
    child_start(f, &a, "a");
    tiered_uplink_ready(a.uplink, false, text);
    WAIT(f, f->seen[A].n_lost == 1);
    assert_memory_equal(f->seen[A].missing, "bad ?xxx", 8);
    char out[TIERED_LINK_TEXT + 1];
    memset(text, 'x', 1022);
    memcpy(text + 1022, "\xc3\xa9\xc3\xa9", 5); /* the second does not fit any more */
    tiered_link_text(text, out);
    assert_int_equal(strlen(out), 1024);
    assert_memory_equal(out + 1022, "\xc3\xa9", 2);
    text[1023] = '\0'; /* a character cut in half */
    tiered_link_text(text, out);
    assert_string_equal(out + 1021, "x?");
    child_stop(&a);
}

static void an_agent_itself(void **state)
{
    struct fixture *f = *state;
    struct child agent;
    struct tiered_uplink_config config = child_config(f, "");
    config.run = ""; /* it knows neither run nor generation yet */
    config.generation = 0;
    child_start_as(&agent, &config);
    WAIT(f, f->seen[AGENT].ready);
    WAIT(f, agent.n_connected == 1);
    child_stop(&agent);
    WAIT(f, !f->seen[AGENT].ready);
}

static void who_is_turned_away(void **state)
{
    static const struct {
        const char *run, *node, *token;
        uint64_t generation;
        uint32_t protocol;
        enum tiered_code code;
        const char *reason;
    } cases[] = {
        {RUN, "a", "wrong", GENERATION, 1, TIERED_EPEER, "wrong join token"},
        {RUN, "a", "", GENERATION, 1, TIERED_EPEER, "wrong join token"},
        {RUN, "a", TOKEN, GENERATION, 2, TIERED_ENOTSUP,
         "protocol 2 is not spoken here (1 is)"},
        {RUN, "zebra", TOKEN, GENERATION, 1, TIERED_EPEER,
         "node 'zebra' is not expected here"},
        {RUN, "@agent-1", TOKEN, GENERATION, 1, TIERED_EPEER,
         "node '@agent-1' is not expected here"},
        {"run-2", "a", TOKEN, GENERATION, 1, TIERED_EPEER, "frame for another run"},
        {"", "a", TOKEN, GENERATION, 1, TIERED_EPEER, "frame for another run"},
        {RUN, "a", TOKEN, 2, 1, TIERED_EPEER, "generation 2 is over (this is 3)"},
        {RUN, "a", TOKEN, 4, 1, TIERED_EPEER, "generation 4 is over (this is 3)"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct peer p;
        peer_open(f, &p, TIERED_SESSION);
        p.context.run = cases[i].run;
        p.context.node = cases[i].node;
        p.context.generation = cases[i].generation;
        peer_hello_as(&p, cases[i].protocol, cases[i].token);
        EXPECT_REFUSAL(f, &p, cases[i].code, cases[i].reason);
        assert_int_equal(p.n_frames, 1);
    }
    assert_false(tiered_downlink_connected(f->downlink, A));
    good_child_works(f);
}

static void an_unknown_agent(void **state)
{
    struct fixture *f = *state;
    struct child agent;
    struct tiered_uplink_config config = child_config(f, "");
    config.agent = "agent-2";
    child_start_as(&agent, &config);
    WAIT(f, agent.n_refused >= 2); /* it dials again all the same */
    assert_string_equal(agent.refused, "agent 'agent-2' is not expected here");
    assert_int_equal(agent.code, TIERED_EPEER);
    assert_int_equal(agent.n_connected, 0);
    assert_int_equal(agent.n_lost, 0);
    child_stop(&agent);
    good_child_works(f);
}

static void the_first_frame_must_fit_its_stream(void **state)
{
    static const struct {
        enum tiered_stream_kind kind;
        const char *reason;
    } cases[] = {
        {TIERED_SESSION, "a session must begin with hello"},
        {TIERED_PUSH, "a push must begin with its head"},
        {TIERED_PULL, "a pull must say what it wants"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct peer p;
        peer_open(f, &p, cases[i].kind);
        peer_heartbeat(&p);
        EXPECT_REFUSAL(f, &p, TIERED_EPEER, cases[i].reason);
    }
    good_child_works(f);
}

static void hello_is_said_once(void **state)
{
    struct fixture *f = *state;
    struct peer p;
    peer_session(f, &p);
    peer_hello_as(&p, TIERED_PROTOCOL, TOKEN);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "hello was said already");
    assert_int_equal(f->seen[A].n_lost, 1);
    assert_string_equal(f->seen[A].missing, "hello was said already");
    good_child_works(f);
}

static void another_run_in_the_middle(void **state)
{
    struct fixture *f = *state;
    struct peer p;
    peer_session(f, &p);
    p.context.run = "run-2";
    peer_heartbeat(&p);
    EXPECT_REFUSAL(f, &p, TIERED_EPEER, "frame for another run");
    assert_string_equal(f->seen[A].missing, "frame for another run");
    assert_false(tiered_downlink_connected(f->downlink, A));
    good_child_works(f);
}

static void a_silent_child_is_lost(void **state)
{
    struct fixture *f = *state;
    struct peer p;
    struct child b;
    parent_stop(f);
    f->silence_ms = 300;
    parent_start(f);
    child_start(f, &b, "b"); /* beats, and so it stays */
    WAIT(f, b.n_connected == 1);
    uint64_t began = tiered_now_ms(); /* it cannot have been heard before */
    peer_session(f, &p);
    WAIT(f, f->seen[A].n_lost == 1);
    assert_true(tiered_now_ms() - began >= 300);
    assert_string_equal(f->seen[A].missing, "it has been silent for too long");
    WAIT(f, p.closed);
    assert_true(f->seen[B].n_beats > 0);
    assert_int_equal(f->seen[B].n_lost, 0);
    assert_int_equal(b.n_lost, 0);
    assert_true(tiered_downlink_last_seen(f->downlink, A) >= began);
    peer_close(&p);
    child_stop(&b);
}

static void the_newer_session_is_the_living_one(void **state)
{
    struct fixture *f = *state;
    struct peer old;
    struct child a;
    peer_session(f, &old);
    child_start(f, &a, "a");
    tiered_uplink_ready(a.uplink, true, "");
    WAIT(f, f->seen[A].ready);
    assert_int_equal(f->seen[A].n_lost, 1);
    assert_string_equal(f->seen[A].missing, "");
    WAIT(f, old.closed);
    peer_close(&old);
    assert_true(tiered_downlink_connected(f->downlink, A));
    assert_int_equal(a.n_lost, 0);
    child_stop(&a);
}

static void a_parent_that_was_restarted(void **state)
{
    struct fixture *f = *state;
    struct child a;
    child_start(f, &a, "a");
    tiered_uplink_ready(a.uplink, true, "");
    WAIT(f, f->seen[A].n_ready == 1);
    parent_stop(f);
    WAIT(f, a.n_lost == 1);
    assert_false(tiered_uplink_connected(a.uplink));
    parent_start(f);
    WAIT(f, f->seen[A].n_ready == 2);
    assert_int_equal(a.n_connected, 2);
    child_stop(&a);
}

static void dropped_by_the_owner(void **state)
{
    struct fixture *f = *state;
    struct child a;
    child_start(f, &a, "a");
    WAIT(f, a.n_connected == 1);
    tiered_downlink_drop(f->downlink, A, TIERED_ESTATE, "it has moved");
    assert_string_equal(f->seen[A].missing, "it has moved");
    tiered_downlink_drop(f->downlink, A, TIERED_ESTATE, "again"); /* nothing to drop */
    assert_string_equal(f->seen[A].missing, "it has moved");
    WAIT(f, a.n_refused == 1 && a.n_lost == 1);
    assert_string_equal(a.refused, "it has moved");
    assert_int_equal(a.code, TIERED_ESTATE);
    assert_string_equal(a.lost, "the parent closed the session");
    WAIT(f, a.n_connected == 2); /* it may come back */
    child_stop(&a);
}

/* A second server on an address must not take the first one's listener with it. */
static void two_servers_on_one_address(void **state)
{
    struct fixture *f = *state;
    struct tiered_server *second = NULL;
    struct tiered_error err;
    const struct tiered_server_config config = {.loop = f->loop,
                                                .net = f->parent_net,
                                                .address = f->address,
                                                .run = RUN,
                                                .token = TOKEN,
                                                .heartbeat_ms = 100,
                                                .silence_ms = 1000};
    char expected[256];
    snprintf(expected, sizeof(expected), "cannot listen on '%s': another process does",
             f->address);
    assert_int_equal(tiered_server_create(&config, &second, &err), -1);
    assert_string_equal(err.text, expected);
    assert_null(second);
    good_child_works(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_child_comes_ready_and_goes),
        TEST(frames_go_both_ways),
        TEST(long_and_broken_reasons_arrive),
        TEST(an_agent_itself),
        TEST(who_is_turned_away),
        TEST(an_unknown_agent),
        TEST(the_first_frame_must_fit_its_stream),
        TEST(hello_is_said_once),
        TEST(another_run_in_the_middle),
        TEST(a_silent_child_is_lost),
        TEST(the_newer_session_is_the_living_one),
        TEST(a_parent_that_was_restarted),
        TEST(dropped_by_the_owner),
        TEST(two_servers_on_one_address),
    };
    if (link_tests_begin() < 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + link_tests_end();
}
