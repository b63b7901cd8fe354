/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluations, a node's own and its parent's, and the stop condition that they decide,
   with exact action lists. */
#include "round_case.h"

static struct tiered_round_config evaluating(uint32_t n_children)
{
    struct tiered_round_config config = case_config(n_children);
    config.rounds_per_parent = 3;
    config.evaluate_every = 1;
    snprintf(config.stop_metric, sizeof(config.stop_metric), "accuracy");
    config.stop_at = 0.9;
    config.stop_sign = 1;
    return config;
}

static void test_evaluation_and_stop(void **state)
{
    (void)state;
    struct tiered_round_config config = evaluating(2);
    config.evaluate_every = 2;
    begin_ready(&config);
    start("", 'A');
    update(0, "1", 'A', 1, 1);
    update(1, "1", 'A', 2, 1);
    aggregated('B');
    IS(committed(), "SETTLE 0 1 counted; SETTLE 1 1 counted; COMMITTED 1 B n=2 [0:1 "
                    "1:2] loss=1.5; ORDER 0 2 B; ORDER 1 2 B");
    update(0, "2", 'B', 1, 1);
    update(1, "2", 'B', 2, 1);
    aggregated('C');
    IS(committed(),
       "SETTLE 0 2 counted; SETTLE 1 2 counted; EVALUATE 0 2 C; EVALUATE 1 2 C");
    assert_string_equal(tiered_round_state(machine), "evaluating");
    IS(evaluation(0, "2", 'B', 10, 0), ""); /* of another model */
    IS(evaluation(0, "1", 'C', 10, 0), "");
    IS(evaluation(0, "2", 'C', 30, 1.0), "");
    IS(evaluation(0, "2", 'C', 30, 0.0), ""); /* once */
    IS(why(), "evaluation of round 2: 1 of 2 answers; waits for child 1 (at work)");
    /* accuracy = (30 * 1 + 10 * 0.6) / 40 = 0.9: met */
    IS(evaluation(1, "2", 'C', 10, 0.6),
       "COMMITTED 2 C n=2 [0:1 1:2] loss=1.5 accuracy=0.9; DELIVER  C n=4 loss=1.5");
    IS(start("", 'A'), "DELIVER  C n=4 loss=1.5");
}

static void test_stop_at_most(void **state)
{
    (void)state;
    struct tiered_round_config config = evaluating(1);
    config.stop_sign = -1;
    config.stop_at = 0.5;
    begin_ready(&config);
    start("", 'A');
    update(0, "1", 'A', 1, 1);
    aggregated('B');
    committed();
    IS(evaluation(0, "1", 'B', 1, 0.6),
       "COMMITTED 1 B n=1 [0:1] loss=1 accuracy=0.6; ORDER 0 2 B");
    update(0, "2", 'B', 1, 1);
    aggregated('C');
    committed();
    /* who cannot evaluate has answered */
    IS(evaluation(0, "2", 'C', 0, 0.1),
       "COMMITTED 2 C n=1 [0:1] loss=1; WARN (the evaluation has no 'accuracy', which "
       "the run would stop by); ORDER 0 3 C");
    update(0, "3", 'C', 1, 1);
    aggregated('D');
    committed();
    IS(evaluation(0, "3", 'D', 1, 0.5),
       "COMMITTED 3 D n=1 [0:1] loss=1 accuracy=0.5; DELIVER  D n=3 loss=1");
}

static void test_evaluation_waits_for_lost(void **state)
{
    (void)state;
    struct tiered_round_config config = evaluating(2);
    begin_ready(&config);
    start("", 'A');
    update(0, "1", 'A', 1, 1);
    update(1, "1", 'A', 2, 1);
    lost(1);
    aggregated('B');
    IS(committed(),
       "SETTLE 0 1 counted; SETTLE 1 1 counted; EVALUATE 0 1 B; WARN (evaluation of "
       "round 1: 0 of 2 answers; waits for child 0 (at work), child 1 (lost))");
    IS(evaluation(0, "1", 'B', 1, 0.5), "");
    IS(ready(1), "SETTLE 1 1 counted; EVALUATE 1 1 B");
    lost(1);
    IS(gone(1), "WARN (child 1 is gone); COMMITTED 1 B n=2 [0:1 1:2] loss=1.5 "
                "accuracy=0.5; ORDER 0 2 B");
}

static void test_evaluation_with_quorum_or_deadline(void **state)
{
    (void)state;
    struct tiered_round_config config = evaluating(2);
    config.quorum = 0.5;
    begin_ready(&config);
    start("", 'A');
    update(0, "1", 'A', 1, 1);
    update(1, "1", 'A', 2, 1);
    aggregated('B');
    committed();
    evaluation(0, "1", 'B', 1, 0.5);
    IS(lost(1), "WARN (child 1 is lost: its link is down); COMMITTED 1 B n=2 [0:1 1:2] "
                "loss=1.5 accuracy=0.5; ORDER 0 2 B; WARN (round 2 opens: 0 of 2 "
                "updates; waits for child 0 (at work), child 1 (lost))");

    config = evaluating(2);
    config.deadline_ms = 100;
    begin_ready(&config);
    start("", 'A');
    update(0, "1", 'A', 1, 1);
    update(1, "1", 'A', 2, 1);
    aggregated('B');
    IS(committed(), "SETTLE 0 1 counted; SETTLE 1 1 counted; SET half 50; SET deadline "
                    "100; EVALUATE 0 1 B; EVALUATE 1 1 B");
    lost(1);
    IS(timer(TIERED_TIMER_DEADLINE),
       "WARN (round 1, its deadline has passed: evaluation of round 1: 0 of 2 answers; "
       "waits for child 0 (at work), child 1 (lost))");
    IS(evaluation(0, "1", 'B', 1, 0.5),
       "CLEAR half; COMMITTED 1 B n=2 [0:1 1:2] loss=1.5 accuracy=0.5; SET half 50; "
       "SET deadline 100; ORDER 0 2 B; WARN (round 2 opens: 0 of 2 updates; waits for "
       "child 0 (at work), child 1 (lost))");
}

static void test_restart_evaluates_again(void **state)
{
    (void)state;
    struct tiered_round_config config = evaluating(1);
    begin_ready(&config);
    start("", 'A');
    update(0, "1", 'A', 1, 1);
    save("B");
    assert_int_equal(saved.evaluation_due, 1);
    restart(&config);
    ready(0);
    /* round 2 was open already when the node died */
    IS(start("", 'A'), "EVALUATE 0 1 B");
    IS(offer(0, "2", 'B'), "RECEIVE 0 2");
    update(0, "2", 'B', 2, 1);
    IS(evaluation(0, "1", 'B', 1, 0.5),
       "COMMITTED 1 B n=1 [0:0] loss=1 accuracy=0.5; AGGREGATE 2 B [0:2]");
    save("C");
    restart(&config);
    ready(0);
    start("", 'A');
    IS(evaluation(0, "2", 'C', 1, 0.95),
       "COMMITTED 2 C n=1 [0:0] loss=2 accuracy=0.95; DELIVER  C n=2 loss=2");
}

static void test_newer_start_ends_own_evaluation(void **state)
{
    (void)state;
    struct tiered_round_config config = evaluating(1);
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    aggregated('B');
    committed();
    IS(start("2", 'C'),
       "WARN (the turn 1 is abandoned after 1 of 3 rounds, a newer one was ordered: 1 "
       "examples are lost); COMMITTED 1.1 B n=1 [0:1] loss=1; ORDER 0 2.1 C");
    IS(evaluation(0, "1.1", 'B', 1, 0.95), "");
}

static void test_relayed_evaluation(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin_ready(&config);
    IS(evaluate("1", 'B'), "EVALUATE 0 1 B; EVALUATE 1 1 B");
    assert_string_equal(tiered_round_state(machine), "evaluating");
    IS(evaluate("1", 'B'), "");
    evaluation(0, "1", 'B', 1, 0.5);
    IS(evaluation(1, "1", 'B', 3, 0.7), "DELIVER_EVALUATION 1 B n=4 accuracy=0.65");
    assert_string_equal(tiered_round_state(machine), "idle");
    /* the parent missed the answer */
    IS(evaluate("1", 'B'), "DELIVER_EVALUATION 1 B n=4 accuracy=0.65");
    IS(evaluate("2", 'C'), "EVALUATE 0 2 C; EVALUATE 1 2 C");
    IS(evaluate("2", 'D'), "EVALUATE 0 2 D; EVALUATE 1 2 D"); /* the newest stands */
    IS(evaluate("1", 'X'), "");                               /* an old one, late */
    IS(evaluation(0, "2", 'C', 1, 0.5), "");
    IS(start("3", 'E'), "ORDER 0 3.1 E; ORDER 1 3.1 E");
    IS(evaluation(0, "2", 'D', 1, 0.5), "");
}

static void test_evaluation_while_delivering(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    aggregated('B');
    committed();
    IS(evaluate("1", 'C'), "EVALUATE 0 1 C");
    IS(start("1", 'A'), "DELIVER 1 B n=1 loss=1"); /* and goes on evaluating */
    IS(delivered("1"), "");
    IS(evaluation(0, "1", 'C', 1, 0.5), "DELIVER_EVALUATION 1 C n=1 accuracy=0.5");
}

static void test_evaluation_closes_the_parents_round(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin_ready(&config);
    start("2.1", 'A');
    update(0, "2.1.1", 'A', 1, 7);
    IS(evaluate("2", 'B'),
       "WARN (the turn 2.1 is abandoned after 0 of 1 rounds, the parent's round is "
       "closed: 7 examples are lost); DROP 1 (its round was abandoned); SETTLE 0 2.1.1 "
       "not (its round was abandoned); EVALUATE 0 2 B; EVALUATE 1 2 B");
    IS(start("2.1", 'A'), ""); /* older than the evaluation */
    IS(start("3.1", 'B'), "ORDER 0 3.1.1 B; ORDER 1 3.1.1 B");
    /* while the driver works, it waits */
    update(0, "3.1.1", 'B', 2, 7);
    update(1, "3.1.1", 'B', 3, 7);
    IS(evaluate("3", 'D'), "");
    aggregated('C');
    IS(committed(), "SETTLE 0 3.1.1 counted; SETTLE 1 3.1.1 counted; COMMITTED 3.1.1 C "
                    "n=14 [0:2 1:3] loss=2.5; WARN (the turn 3.1 is abandoned after 1 "
                    "of 1 rounds, the parent's round is closed: 14 examples are lost); "
                    "EVALUATE 0 3 D; EVALUATE 1 3 D");
}

/* A parent that restarted does its last evaluation again, and wants our turn still. */
static void test_older_evaluation_waits_for_the_turn(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    begin_ready(&config);
    start("3", 'A');
    IS(evaluate("2", 'A'), "");
    update(0, "3.1", 'A', 1, 1);
    aggregated('B');
    IS(committed(), "SETTLE 0 3.1 counted; COMMITTED 3.1 B n=1 [0:1] loss=1; DELIVER 3 "
                    "B n=1 loss=1; EVALUATE 0 2 A");
    IS(evaluation(0, "2", 'A', 1, 0.5), "DELIVER_EVALUATION 2 A n=1 accuracy=0.5");
    /* … unless a newer turn is ordered: the parent does not wait for it any more */
    start("4", 'C');
    IS(evaluate("3", 'C'), "");
    IS(start("5", 'D'),
       "WARN (the turn 4 is abandoned after 0 of 1 rounds, a newer one "
       "was ordered: 0 examples are lost); ORDER 0 5.1 D");
    update(0, "5.1", 'D', 2, 1);
    aggregated('E');
    IS(committed(), "SETTLE 0 5.1 counted; COMMITTED 5.1 E n=1 [0:2] loss=2; DELIVER 5 "
                    "E n=1 loss=2");
}

static void test_failed_turn_is_retried_during_an_older_evaluation(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin_ready(&config);
    start("3", 'A');
    evaluate("2", 'A');
    IS(gone(1),
       "WARN (child 1 is gone); FAIL '3' (round 3.1 cannot reach its quorum: 0 of 2 "
       "updates are in, 1 more may come, 2 are needed; gone: child 1); EVALUATE 0 2 A");
    IS(start("3", 'A'), "ORDER 0 3.1 A");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evaluation_and_stop),
        cmocka_unit_test(test_stop_at_most),
        cmocka_unit_test(test_evaluation_waits_for_lost),
        cmocka_unit_test(test_evaluation_with_quorum_or_deadline),
        cmocka_unit_test(test_restart_evaluates_again),
        cmocka_unit_test(test_newer_start_ends_own_evaluation),
        cmocka_unit_test(test_relayed_evaluation),
        cmocka_unit_test(test_evaluation_while_delivering),
        cmocka_unit_test(test_evaluation_closes_the_parents_round),
        cmocka_unit_test(test_older_evaluation_waits_for_the_turn),
        cmocka_unit_test(test_failed_turn_is_retried_during_an_older_evaluation),
    };
    return cmocka_run_group_tests(tests, NULL, case_teardown);
}
