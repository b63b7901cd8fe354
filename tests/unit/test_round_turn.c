/* SPDX-License-Identifier: Apache-2.0 */
/* Turns: repeated, newer and older orders, restarts from a record, the initial
   model, phases and the end of the run, with exact action lists. */
#include "round_case.h"

static void test_same_start_again(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    begin_ready(&config);
    start("2", 'A');
    IS(start("2", 'A'), "");
    IS(start("1", 'A'), ""); /* older */
    update(0, "2.1", 'A', 1, 4);
    IS(start("2", 'A'), "");
    aggregated('B');
    committed();
    IS(start("2", 'A'), "DELIVER 2 B n=4 loss=1");
    delivered("2");
    IS(start("2", 'A'), "DELIVER 2 B n=4 loss=1");
    IS(start("1", 'A'), "");
    IS(start("3", 'C'), "ORDER 0 3.1 C"); /* goes on without being settled */
}

/* Local steps add up over the rounds of a turn, like examples; a round without a result
   has none, and the next turn begins at 0. */
static void test_steps_of_a_turn(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    config.rounds_per_parent = 3;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 4);
    FEED(.kind = TIERED_ON_AGGREGATED, .base = case_model('B'), .local_steps = 2.5);
    committed();
    update(0, "1.2", 'B', 2, 4);
    not_aggregated();
    committed();
    update(0, "1.3", 'B', 3, 4);
    FEED(.kind = TIERED_ON_AGGREGATED, .base = case_model('C'), .local_steps = 3);
    committed();
    IS(start("1", 'A'), "DELIVER 1 C n=8 steps=5.5 loss=3");
    delivered("1");
    start("2", 'C');
    for (uint64_t i = 1; i <= 3; i++) {
        const char *const paths[] = {"2.1", "2.2", "2.3"};
        update(0, paths[i - 1], i == 1 ? 'C' : 'D', 3 + i, 1);
        FEED(.kind = TIERED_ON_AGGREGATED, .base = case_model('D'), .local_steps = 1);
        committed();
    }
    IS(start("2", 'C'), "DELIVER 2 D n=3 steps=3 loss=6");
}

static void test_newer_start_abandons(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.rounds_per_parent = 2;
    config.deadline_ms = 100;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 4);
    update(1, "1.1", 'A', 2, 3);
    aggregated('B');
    committed();
    update(0, "1.2", 'B', 3, 5);
    IS(start("2", 'C'),
       "WARN (the turn 1 is abandoned after 1 of 2 rounds, a newer one was ordered: 12 "
       "examples are lost); CLEAR half; CLEAR deadline; DROP 3 (its round was "
       "abandoned); SETTLE 0 1.2 not (its round was abandoned); SET half 50; SET "
       "deadline 100; ORDER 0 2.1 C; ORDER 1 2.1 C");
    IS(offer(1, "1.2", 'B'),
       "WARN (an update of child 1 is dropped: late: round 1.2 is closed); SETTLE 1 "
       "1.2 not (late: round 1.2 is closed)");
    update(0, "2.1", 'C', 4, 1);
    IS(update(1, "2.1", 'C', 5, 1),
       "CLEAR half; CLEAR deadline; AGGREGATE 2.1 C [0:4 1:5]");
    IS(aggregated('D'), "COMMIT 2.1 D n=2 [0:4 1:5]"); /* of this turn alone */
}

static void test_newer_start_waits_for_the_driver(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    config.rounds_per_parent = 2;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 4);
    IS(start("3", 'C'), "");
    IS(start("2", 'X'), ""); /* older than the one that waits */
    IS(aggregated('B'), "COMMIT 1.1 B n=4 [0:1]");
    IS(start("3", 'C'), "");
    IS(committed(), "SETTLE 0 1.1 counted; COMMITTED 1.1 B n=4 [0:1] loss=1; WARN (the "
                    "turn 1 is abandoned after 1 of 2 rounds, a newer one was ordered: "
                    "4 examples are lost); ORDER 0 3.1 C");
}

static void test_newer_start_after_a_failed_aggregation(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 4);
    IS(start("2", 'C'), "");
    IS(unusable(0, "1.1", 1),
       "DROP 1 (a checksum is wrong); SETTLE 0 1.1 not (a checksum is wrong); WARN "
       "(child 0 counts as missing in round 1.1: a checksum is wrong); FAIL '1' (round "
       "1.1 cannot reach its quorum: 0 of 1 updates are in, 0 more may come, 1 are "
       "needed; bad: child 0); ORDER 0 2.1 C");
}

static void test_restart_in_a_turn(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.rounds_per_parent = 2;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 4);
    update(1, "1.1", 'A', 2, 4);
    save("B");
    restart(&config);
    /* the children send again before the parent has spoken */
    IS(ready(0), "SETTLE 0 1.1 counted");
    IS(offer(0, "1.1", 'A'), "SETTLE 0 1.1 counted");
    IS(offer(0, "1.2", 'B'), "RECEIVE 0 1.2");
    IS(update(0, "1.2", 'B', 3, 4), "");
    IS(offer(0, "1.2", 'B'), "ACCEPT 0 1.2");
    IS(ready(1), "SETTLE 1 1.1 counted; READY");
    IS(offer(1, "1.2", 'X'), "RECEIVE 1 1.2");
    IS(update(1, "1.2", 'X', 4, 4), "");
    IS(start("1", 'A'),
       "COMMITTED 1.1 B n=8 [0:0 1:0] loss=1.5; DROP 4 (its base is not the model of "
       "round 1.2); SETTLE 1 1.2 not (its base is not the model of round 1.2); WARN "
       "(an update of child 1 is dropped: its base is not the model of round 1.2); "
       "ORDER 1 1.2 B");
    IS(update(1, "1.2", 'B', 5, 4), "AGGREGATE 1.2 B [0:3 1:5]");
    IS(aggregated('C'), "COMMIT 1.2 C n=16 [0:3 1:5]");
}

static void test_restart_after_a_turn(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 4);
    save("B");
    restart(&config);
    ready(0);
    /* ordered before the crash, in a turn that the record does not know */
    IS(offer(0, "2.1", 'D'), "RECEIVE 0 2.1");
    update(0, "2.1", 'D', 2, 4);
    IS(start("1", 'A'), "COMMITTED 1.1 B n=4 [0:0] loss=1; DELIVER 1 B n=4 loss=1");
    IS(start("2", 'D'), "AGGREGATE 2.1 D [0:2]");
}

static void test_restart_into_a_newer_turn(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    config.rounds_per_parent = 2;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 4);
    save("B");
    restart(&config);
    ready(0);
    IS(start("2", 'C'),
       "WARN (the turn 1 is abandoned after 1 of 2 rounds, a newer one was ordered: 4 "
       "examples are lost); COMMITTED 1.1 B n=4 [0:0] loss=1; ORDER 0 2.1 C");
}

static void test_bad_records(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    struct tiered_error err;
    begin(&config);
    struct tiered_round_record record = {.generation = 2};
    assert_int_equal(tiered_round_restore(machine, &record, &err), -1);
    assert_string_equal(err.text, "the record is of generation 2, the plan of 1");
    record = (struct tiered_round_record){.generation = 1, .n_contributions = 2};
    assert_int_equal(tiered_round_restore(machine, &record, &err), -1);
    assert_string_equal(err.text, "the record of node 'fog-0' does not fit its plan");
    record = (struct tiered_round_record){.turn = {.depth = 16}};
    assert_int_equal(tiered_round_restore(machine, &record, &err), -1);
    struct tiered_counted wrong = {.child = 1};
    record =
        (struct tiered_round_record){.n_contributions = 1, .contributions = &wrong};
    assert_int_equal(tiered_round_restore(machine, &record, &err), -1);
    assert_string_equal(err.text, "the record of node 'fog-0' counts child 1 of 1");
    /* nothing of a refused record stays */
    IS(start("1", 'A'),
       "WARN (round 1.1 opens: 0 of 1 updates; waits for child 0 (lost))");
}

static void test_initial_model(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.initial_child = 1;
    begin(&config);
    ready(0);
    IS(initial(""), "");
    IS(why(), "waits for the initial model of child 1 (lost)");
    IS(ready(1), "INITIAL 1 ''; READY");
    IS(initial(""), "INITIAL 1 ''");
    IS(lost(1),
       "WARN (child 1 is lost: its link is down); UNREADY (waits for child 1)");
    IS(ready(1), "INITIAL 1 ''; READY");
    IS(offer(0, "", 0), "REFUSE 0  (round '' is unknown)");
    IS(offer(1, "", 0), "RECEIVE 1 ");
    IS(update(1, "", 0, 5, 0), "DELIVER_INITIAL 1 '' 5; SETTLE 1  counted");
    IS(offer(1, "", 0), "REFUSE 1  (round '' is unknown)");
    IS(initial("4"), "INITIAL 1 '4'"); /* asked again: made again */
    IS(bad(1, "4"), "SETTLE 1 4 not (its update is bad); FAIL '4' (no initial model "
                    "from child 1: it is bad)");
    initial("4");
    IS(gone(1),
       "WARN (child 1 is gone); FAIL '4' (no initial model from child 1: it is gone)");
    IS(initial("4"), "FAIL '4' (no initial model from child 1: it is gone)");
}

static struct tiered_round_config phased(uint32_t n_children)
{
    struct tiered_round_config config = case_config(n_children);
    config.quorum = 0.5;
    config.pre = (struct tiered_phase_rules){2, 0.5, 100};
    config.post = (struct tiered_phase_rules){1, 0.5, 0};
    return config;
}

static void test_phases(void **state)
{
    (void)state;
    struct tiered_round_config config = phased(3);
    begin_ready(&config);
    IS(start("1", 'A'),
       "SET half 50; SET phase 100; PHASE 0 1.1 1.1; PHASE 1 1.1 1.1; PHASE 2 1.1 1.1");
    assert_string_equal(tiered_round_state(machine), "pre phase");
    message(0, "1.1", 1, 1);
    IS(message(0, "1.1", 1, 1), "");
    IS(message(1, "1.1", 1, 2), ""); /* not asked yet */
    IS(message(1, "1.1", 2, 1), "");
    IS(message(1, "1.2", 1, 1), "");
    IS(why(), "pre phase, step 1 of 2: 1 of 3 messages; waits for child 1 (at work), "
              "child 2 (at work)");
    IS(timer(TIERED_TIMER_HALF),
       "WARN (round 1.1, half of its deadline has passed: pre phase, step 1 of 2: 1 of "
       "3 messages; waits for child 1 (at work), child 2 (at work))");
    IS(message(1, "1.1", 1, 1), "");
    lost(2);
    IS(timer(TIERED_TIMER_PHASE),
       "WARN (child 2 missed step 1 of the pre phase); CLOSED 1.1 [0:0 1:0]; SET half "
       "50; SET phase 100; PHASE 0 1.1 1.2; PHASE 1 1.1 1.2");
    IS(ready(2), ""); /* out of the round */
    IS(offer(2, "1.1", 'A'),
       "REFUSE 2 1.1 (out of round 1.1: its pre phase went on without this node)");
    lost(1);
    IS(ready(1), "PHASE 1 1.1 1.2");
    message(1, "1.1", 1, 2);
    IS(message(0, "1.1", 1, 2),
       "CLEAR half; CLEAR phase; CLOSED 1.2 [0:0 1:0]; ORDER 0 1.1 A; ORDER 1 1.1 A");
    update(0, "1.1", 'A', 1, 1);
    IS(update(1, "1.1", 'A', 2, 1), "PHASE 0 1.1 2.1; PHASE 1 1.1 2.1");
    assert_string_equal(tiered_round_state(machine), "post phase");
    IS(lost(1), "WARN (child 1 is lost: its link is down)");
    IS(message(0, "1.1", 2, 1), ""); /* 1 of 3 is below the quorum */
    IS(why(), "post phase, step 1 of 1: 1 of 3 messages; waits for child 1 (lost)");
    IS(ready(1), "PHASE 1 1.1 2.1");
    IS(message(1, "1.1", 2, 1), "CLOSED 2.1 [0:1 1:2]; AGGREGATE 1.1 A [0:1 1:2]");
}

static void test_post_dropout_stays_in_the_sum(void **state)
{
    (void)state;
    struct tiered_round_config config = phased(3);
    config.pre.steps = 0;
    config.post.steps = 2;
    begin_ready(&config);
    IS(start("1", 'A'), "ORDER 0 1.1 A; ORDER 1 1.1 A; ORDER 2 1.1 A");
    for (uint32_t i = 0; i < 3; i++) {
        update(i, "1.1", 'A', i + 1, 1);
    }
    message(0, "1.1", 2, 1);
    message(1, "1.1", 2, 1);
    IS(gone(2), "WARN (child 2 is gone); WARN (child 2 missed step 1 of the post "
                "phase); CLOSED 2.1 [0:1 1:2]; PHASE 0 1.1 2.2; PHASE 1 1.1 2.2");
    message(0, "1.1", 2, 2);
    IS(message(1, "1.1", 2, 2), "CLOSED 2.2 [0:1 1:2]; AGGREGATE 1.1 A [0:1 1:2 2:3]");
    IS(aggregated('B'), "COMMIT 1.1 B n=3 [0:1 1:2 2:3]");
}

static void test_phase_without_quorum_fails(void **state)
{
    (void)state;
    struct tiered_round_config config = phased(3);
    begin_ready(&config);
    start("1", 'A');
    message(0, "1.1", 1, 1);
    IS(timer(TIERED_TIMER_PHASE),
       "WARN (round 1.1, its deadline has passed: pre phase, step 1 of 2: 1 of 3 "
       "messages; waits for child 1 (at work), child 2 (at work); the deadline has "
       "passed, the quorum is 2)");
    gone(1);
    IS(gone(2), "WARN (child 2 is gone); CLEAR half; FAIL '1' (round 1.1 cannot reach "
                "its quorum: 1 of 3 messages are in, 0 more may come, 2 are needed; "
                "gone: child 1, child 2)");
}

static void test_bad_messages(void **state)
{
    (void)state;
    struct tiered_round_config config = phased(4);
    config.post.quorum = 1;
    begin_ready(&config);
    start("1", 'A');
    IS(bad_message(3, "1.1", 1, 2), ""); /* of a step that is not open */
    IS(bad_message(3, "1.2", 1, 1), "");
    message(0, "1.1", 1, 1);
    IS(bad_message(0, "1.1", 1, 1), ""); /* it has answered */
    IS(bad_message(3, "1.1", 1, 1),
       "WARN (child 3 is out of step 1 of the pre phase: forged)");
    message(1, "1.1", 1, 1);
    IS(message(2, "1.1", 1, 1),
       "CLEAR half; CLEAR phase; CLOSED 1.1 [0:0 1:0 2:0]; SET half 50; SET phase 100; "
       "PHASE 0 1.1 1.2; PHASE 1 1.1 1.2; PHASE 2 1.1 1.2");
    for (uint32_t i = 0; i < 3; i++) {
        message(i, "1.1", 1, 2);
    }
    for (uint32_t i = 0; i < 3; i++) {
        update(i, "1.1", 'A', i + 1, 1);
    }
    message(0, "1.1", 2, 1);
    message(1, "1.1", 2, 1);
    /* below the post phase's quorum: it closes all the same */
    IS(bad_message(2, "1.1", 2, 1), "WARN (child 2 is out of step 1 of the post phase: "
                                    "forged); CLOSED 2.1 [0:1 1:2]; "
                                    "AGGREGATE 1.1 A [0:1 1:2 2:3]");
}

static void test_phases_that_cannot_go_on(void **state)
{
    (void)state;
    struct tiered_round_config config = phased(3);
    begin_ready(&config);
    start("1", 'A');
    IS(phase_failed("1.2"), "");
    IS(phase_failed("1.1"), "CLEAR half; CLEAR phase; FAIL '1' (too few)");
    IS(start("1", 'A'),
       "SET half 50; SET phase 100; PHASE 0 1.1 1.1; PHASE 1 1.1 1.1; PHASE 2 1.1 1.1");
}

static void test_a_round_that_cannot_be_repeated(void **state)
{
    (void)state;
    struct tiered_round_config config = phased(3);
    begin_ready(&config);
    start("1", 'A');
    IS(not_aggregated_early("1.2"), "");
    IS(not_aggregated(), ""); /* nothing is being aggregated */
    IS(not_aggregated_early("1.1"),
       "CLEAR half; CLEAR phase; WARN (round 1.1 has no result: the model stays as it "
       "is); COMMIT 1.1 A n=0 []");
}

/* Who was started again has no keys: the round goes on without it, or begins anew. */
static void test_lost_keys(void **state)
{
    (void)state;
    struct tiered_round_config config = phased(3);
    config.pre = (struct tiered_phase_rules){1, 0.6, 0};
    config.quorum = 0.6;
    begin_ready(&config);
    IS(start("1", 'A'), "PHASE 0 1.1 1.1; PHASE 1 1.1 1.1; PHASE 2 1.1 1.1");
    message(0, "1.1", 1, 1);
    message(1, "1.1", 1, 1);
    IS(lost_keys(2, "1.1"),
       "WARN (child 2 is out of the open attempt: it was started again); CLOSED 1.1 "
       "[0:0 1:0]; ORDER 0 1.1 A; ORDER 1 1.1 A");
    update(0, "1.1", 'A', 1, 1);
    IS(lost_keys(2, "1.1"), "");
    IS(lost_keys(0, "1.1"), ""); /* its update is here */
    IS(lost_keys(1, "1.1"),
       "WARN (child 1 is out of the open attempt: it was started again); WARN (round "
       "1.1 begins anew: it was started again); DROP 1 (its round begins anew); SETTLE "
       "0 1.1 not (its round begins anew); PHASE 0 1.1 1.1; PHASE 1 1.1 1.1; PHASE 2 "
       "1.1 "
       "1.1");
    for (uint32_t i = 0; i < 3; i++) {
        message(i, "1.1", 1, 1);
    }
    for (uint32_t i = 0; i < 3; i++) {
        update(i, "1.1", 'A', i + 2, 1);
    }
    IS(lost_keys(1, "1.1"),
       "WARN (child 1 is out of the open attempt: it was started again)");
    message(0, "1.1", 2, 1);
    IS(message(2, "1.1", 2, 1), "CLOSED 2.1 [0:2 2:4]; AGGREGATE 1.1 A [0:2 1:3 2:4]");
}

static void test_examples_of_a_group(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.rounds_per_parent = 2;
    begin_ready(&config);
    start("1", 'A');
    FEED(.kind = TIERED_ON_UPDATE, .child = 0, .path = case_path("1.1"),
         .base = case_model('A'), .update = 1);
    FEED(.kind = TIERED_ON_UPDATE, .child = 1, .path = case_path("1.1"),
         .base = case_model('A'), .update = 2);
    IS(aggregated_group('B', 90), "COMMIT 1.1 B n=90 [0:1 1:2]");
    assert_non_null(strstr(committed(), "n=90"));
}

static void test_readiness(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(3);
    config.quorum = 0.6; /* 2 of 3 */
    begin(&config);
    ready(0);
    IS(ready(2), "READY");
    IS(ready(1), "");
    IS(lost(0), "");
    IS(lost(2), "UNREADY (waits for child 0, child 2)");
    IS(ready(0), "READY");
    start("1", 'A');
    lost(0);
    IS(lost(1), "WARN (child 1 is lost: its link is down)"); /* the turn's business */
    ready(0);
    ready(1);
    update(0, "1.1", 'A', 1, 1);
    update(1, "1.1", 'A', 2, 1);
    ready(2);
    update(2, "1.1", 'A', 3, 1);
    aggregated('B');
    committed();
    lost(0);
    IS(lost(1), "");
    IS(delivered("1"), "UNREADY (waits for child 0, child 1)");
}

static void test_stop(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin(&config);
    ready(0);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    IS(stop(), "DROP 1 (the run is over); SETTLE 0 1.1 not (the run is over); STOP 0");
    assert_string_equal(tiered_round_state(machine), "stopped");
    IS(stop(), "");
    IS(why(), "");
    IS(ready(1), "STOP 1");
    IS(lost(1), "");
    IS(gone(1), "");
    IS(start("2", 'A'), "");
    IS(initial("2"), "");
    IS(evaluate("2", 'A'), "");
    IS(offer(0, "1.1", 'A'), "REFUSE 0 1.1 (the run is over)");
    IS(aggregated('B'), "");
    IS(committed(), "");
    IS(bad(0, "1.1"), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_start_again),
        cmocka_unit_test(test_steps_of_a_turn),
        cmocka_unit_test(test_newer_start_abandons),
        cmocka_unit_test(test_newer_start_waits_for_the_driver),
        cmocka_unit_test(test_newer_start_after_a_failed_aggregation),
        cmocka_unit_test(test_restart_in_a_turn),
        cmocka_unit_test(test_restart_after_a_turn),
        cmocka_unit_test(test_restart_into_a_newer_turn),
        cmocka_unit_test(test_bad_records),
        cmocka_unit_test(test_initial_model),
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_post_dropout_stays_in_the_sum),
        cmocka_unit_test(test_phase_without_quorum_fails),
        cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_phases_that_cannot_go_on),
        cmocka_unit_test(test_a_round_that_cannot_be_repeated),
        cmocka_unit_test(test_lost_keys),
        cmocka_unit_test(test_examples_of_a_group),
        cmocka_unit_test(test_readiness),
        cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, case_teardown);
}
