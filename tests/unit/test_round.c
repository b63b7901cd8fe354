/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of a round, one by one, with exact action lists: orders, offers, closing,
   lateness, commits. Turns and evaluations are in test_round_turn.c. */
#include "round_case.h"

#include <math.h>

static void test_one_round(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin(&config);
    IS(why(), "0 of 2 children are ready, 2 are needed; waits for child 0 (lost), "
              "child 1 (lost)");
    IS(ready(0), "");
    IS(ready(1), "READY");
    IS(why(), "");
    IS(start("3", 'A'), "ORDER 0 3.1 A; ORDER 1 3.1 A");
    struct tiered_path open = tiered_round_open_path(machine);
    struct tiered_path expected = case_path("3.1");
    assert_true(tiered_path_equal(&open, &expected));
    assert_string_equal(tiered_round_state(machine), "collecting");
    IS(why(), "0 of 2 updates; waits for child 0 (at work), child 1 (at work)");
    IS(offer(1, "3.1", 'A'), "RECEIVE 1 3.1");
    IS(update(1, "3.1", 'A', 2, 30), "");
    IS(why(), "1 of 2 updates; waits for child 0 (at work)");
    IS(offer(0, "3.1", 'A'), "RECEIVE 0 3.1");
    /* canonical order, not that of arrival */
    IS(update(0, "3.1", 'A', 1, 10), "AGGREGATE 3.1 A [0:1 1:2]");
    IS(why(), "2 of 2 updates; waits for their aggregation");
    IS(aggregated('B'), "COMMIT 3.1 B n=40 [0:1 1:2]");
    IS(why(), "waits for its record to be written");
    /* loss = (10 * 1 + 30 * 2) / 40 */
    IS(committed(), "SETTLE 0 3.1 counted; SETTLE 1 3.1 counted; COMMITTED 3.1 B n=40 "
                    "[0:1 1:2] loss=1.75; DELIVER 3 B n=40 loss=1.75");
    IS(why(), "waits for the parent to settle its update");
    IS(delivered("2"), "");
    IS(delivered("3"), "");
    assert_string_equal(tiered_round_state(machine), "idle");
    assert_int_equal(tiered_round_open_path(machine).depth, 0);
}

static void test_root_paths(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    config.rounds_per_parent = 2;
    begin_ready(&config);
    IS(start("", 'A'), "ORDER 0 1 A");
    IS(update(0, "1", 'A', 1, 1), "AGGREGATE 1 A [0:1]");
    IS(aggregated('B'), "COMMIT 1 B n=1 [0:1]");
    IS(committed(), "SETTLE 0 1 counted; COMMITTED 1 B n=1 [0:1] loss=1; ORDER 0 2 B");
    IS(update(0, "2", 'B', 2, 3), "AGGREGATE 2 B [0:2]");
    IS(aggregated('C'), "COMMIT 2 C n=4 [0:2]");
    IS(committed(),
       "SETTLE 0 2 counted; COMMITTED 2 C n=3 [0:2] loss=2; DELIVER  C n=4 loss=2");
    IS(start("", 'A'), "DELIVER  C n=4 loss=2"); /* the caller asks again */
}

static void test_order_again_when_ready(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin(&config);
    ready(0);
    IS(start("1", 'A'), "ORDER 0 1.1 A; WARN (round 1.1 opens: 0 of 2 updates; waits "
                        "for child 0 (at work), child 1 (lost))");
    IS(ready(1), "ORDER 1 1.1 A; READY");
    IS(lost(0), "WARN (child 0 is lost: its link is down)");
    IS(lost(0), "");
    IS(ready(0), "ORDER 0 1.1 A");
    update(0, "1.1", 'A', 1, 1);
    IS(lost(0), ""); /* its update is here */
    IS(ready(0), "");
}

static void test_settled_again_when_back(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    config.rounds_per_parent = 2;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    lost(0);
    aggregated('B');
    committed();
    IS(ready(0), "SETTLE 0 1.1 counted; ORDER 0 1.2 B");
    IS(offer(0, "1.1", 'A'), "SETTLE 0 1.1 counted");
}

static void test_contribution_counts_once(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 10);
    IS(offer(0, "1.1", 'A'), "ACCEPT 0 1.1");
    IS(update(0, "1.1", 'A', 2, 10),
       "DROP 2 (duplicate); WARN (an update of child 0 is dropped: duplicate)");
    IS(update(1, "1.1", 'A', 3, 5), "AGGREGATE 1.1 A [0:1 1:3]");
    IS(offer(0, "1.1", 'A'), "ACCEPT 0 1.1");
    aggregated('B');
    IS(offer(0, "1.1", 'A'), "ACCEPT 0 1.1");
    committed();
    IS(offer(0, "1.1", 'A'), "SETTLE 0 1.1 counted");
    IS(update(0, "1.1", 'A', 4, 10), "DROP 4 (counted already); SETTLE 0 1.1 counted");
    IS(bad(0, "1.1"), "SETTLE 0 1.1 counted");
}

static void test_refusals(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin_ready(&config);
    start("2", 'A');
    IS(FEED(.kind = TIERED_ON_OFFER, .path = case_path("2.1"), .base = case_model('A'),
            .generation = 2),
       "REFUSE 0 2.1 (generation 2 is not this plan's, which is 1)");
    IS(FEED(.kind = TIERED_ON_UPDATE, .path = case_path("2.1"), .base = case_model('A'),
            .generation = 2, .update = 9),
       "DROP 9 (of another generation)");
    IS(offer(0, "2.1", 'Z'), "REFUSE 0 2.1 (its base is not the model of round 2.1)");
    IS(offer(0, "2.2", 'A'), "REFUSE 0 2.2 (round '2.2' is unknown)");
    IS(offer(0, "2", 'A'), "REFUSE 0 2 (round '2' is unknown)");
    IS(offer(0, "", 'A'), "REFUSE 0  (round '' is unknown)");
    IS(update(0, "2.1", 'Z', 1, 1),
       "DROP 1 (its base is not the model of round 2.1); SETTLE 0 2.1 not (its base is "
       "not the model of round 2.1); WARN (an update of child 0 is dropped: its base "
       "is not the model of round 2.1)");
    /* an update without a base stands on that of its offer */
    offer(1, "2.1", 'A');
    IS(update(1, "2.1", 0, 2, 1), "");
    IS(why(), "1 of 2 updates; waits for child 0 (at work)");
}

static void test_callers_mistakes(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    struct tiered_error err;
    const struct tiered_round_action *actions;
    size_t n;
    begin(&config);
    struct tiered_round_event event = {.kind = TIERED_ON_CHILD_READY, .child = 2};
    assert_int_equal(tiered_round_step(machine, &event, &actions, &n, &err), -1);
    assert_string_equal(err.text, "node 'fog-0' has 2 children: no child 2");
    event = (struct tiered_round_event){.kind = TIERED_ON_START, .path = {.depth = 17}};
    assert_int_equal(tiered_round_step(machine, &event, &actions, &n, &err), -1);
    assert_string_equal(err.text, "a round path has at most 16 numbers");

    struct tiered_round *other = NULL;
    config.quorum = 1.5;
    assert_int_equal(tiered_round_create(&config, &other, &err), -1);
    assert_string_equal(err.text, "node 'fog-0': sample and quorum must be in (0, 1]");
    config = case_config(0);
    assert_int_equal(tiered_round_create(&config, &other, &err), -1);
    assert_string_equal(
        err.text, "node 'fog-0' has 0 children: it needs one, and no child 0 of them");
    config = case_config(1);
    config.rounds_per_parent = 0;
    assert_int_equal(tiered_round_create(&config, &other, &err), -1);
    assert_string_equal(err.text, "node 'fog-0' must run a round at least");
    config = case_config(1);
    config.post.steps = 1;
    assert_int_equal(tiered_round_create(&config, &other, &err), -1);
    assert_string_equal(err.text,
                        "node 'fog-0': the post phase's quorum must be in (0, 1]");
    assert_null(other);
}

static void test_deadline_with_quorum(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(4);
    config.quorum = 0.5;
    config.deadline_ms = 1001;
    begin_ready(&config);
    IS(start("1", 'A'), "SET half 500; SET deadline 1001; ORDER 0 1.1 A; ORDER 1 1.1 "
                        "A; ORDER 2 1.1 A; ORDER 3 1.1 A");
    update(0, "1.1", 'A', 1, 1);
    IS(timer(TIERED_TIMER_HALF),
       "WARN (round 1.1, half of its deadline has passed: 1 of 4 updates; waits for "
       "child 1 (at work), child 2 (at work), child 3 (at work))");
    IS(update(2, "1.1", 'A', 2, 1), ""); /* the quorum waits for the deadline */
    IS(why(), "2 of 4 updates; waits for child 1 (at work), child 3 (at work), or for "
              "the deadline");
    lost(1);
    IS(lost(3), "WARN (child 3 is lost: its link is down)");
    IS(timer(TIERED_TIMER_DEADLINE),
       "WARN (round 1.1 closes without child 1, child 3); AGGREGATE 1.1 A [0:1 2:2]");
    IS(timer(TIERED_TIMER_DEADLINE), "");
}

static void test_deadline_before_quorum(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(3);
    config.quorum = 0.6; /* 2 of 3 */
    config.deadline_ms = 100;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    IS(timer(TIERED_TIMER_DEADLINE),
       "WARN (round 1.1, its deadline has passed: 1 of 3 updates; waits for child 1 "
       "(at work), child 2 (at work); the deadline has passed, the quorum is 2)");
    IS(update(2, "1.1", 'A', 2, 1),
       "CLEAR half; WARN (round 1.1 closes without child 1); AGGREGATE 1.1 A [0:1 "
       "2:2]");
}

static void test_stale_timers(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(1);
    config.rounds_per_parent = 2;
    config.deadline_ms = 100;
    begin_ready(&config);
    start("1", 'A');
    uint64_t first = case_timers[TIERED_TIMER_DEADLINE];
    update(0, "1.1", 'A', 1, 1);
    aggregated('B');
    committed();
    assert_int_not_equal(first, case_timers[TIERED_TIMER_DEADLINE]);
    IS(FEED(.kind = TIERED_ON_TIMER, .timer = TIERED_TIMER_DEADLINE, .timer_id = first),
       "");
    IS(FEED(.kind = TIERED_ON_TIMER, .timer = 9, .timer_id = 1), "");
    IS(update(0, "1.2", 'B', 2, 1),
       "CLEAR half; CLEAR deadline; AGGREGATE 1.2 B [0:2]");
}

static void test_quorum_without_deadline(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(3);
    config.quorum = 0.5; /* 2 of 3 */
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    IS(update(1, "1.1", 'A', 2, 1), ""); /* child 2 is at work: waited for */
    IS(lost(2), "WARN (child 2 is lost: its link is down); WARN (round 1.1 closes "
                "without child 2); AGGREGATE 1.1 A [0:1 1:2]");
}

static void test_full_quorum_waits_for_lost(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    IS(lost(1), "WARN (child 1 is lost: its link is down)");
    IS(why(), "1 of 2 updates; waits for child 1 (lost)");
    IS(gone(1), "WARN (child 1 is gone); DROP 1 (its round failed); SETTLE 0 1.1 not "
                "(its round failed); FAIL '1' (round 1.1 cannot reach its quorum: 1 of "
                "2 updates are in, 0 more may come, 2 are needed; gone: child 1)");
    IS(why(), "failed: round 1.1 cannot reach its quorum: 1 of 2 updates are in, 0 "
              "more may come, 2 are needed; gone: child 1");
    assert_string_equal(tiered_round_state(machine), "failed");
    /* the same order again: the round is tried with who is left */
    IS(start("1", 'A'), "ORDER 0 1.1 A");
    IS(update(0, "1.1", 'A', 2, 1), "AGGREGATE 1.1 A [0:2]");
}

static void test_all_gone(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    const char *const names[] = {"press-1", "press-2"};
    config.children = names;
    begin_ready(&config);
    IS(lost(0), "UNREADY (waits for press-1)");
    IS(gone(0), "WARN (press-1 is gone); READY");
    IS(gone(0), "");
    IS(lost(0), "");
    IS(gone(1), "WARN (press-2 is gone)"); /* ready: to say that it cannot */
    IS(why(), "all 2 children are gone");
    IS(start("1", 'A'), "FAIL '1' (round 1.1 has no child to ask: all 2 are gone)");
    IS(ready(1), ""); /* given up too early */
    IS(start("1", 'A'), "ORDER 1 1.1 A");
}

static void test_gone_child_comes_back(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(3);
    config.quorum = 0.5;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    IS(gone(2), "WARN (child 2 is gone)");
    IS(ready(2), "ORDER 2 1.1 A");
    update(2, "1.1", 'A', 2, 1);
    IS(update(1, "1.1", 'A', 3, 1), "AGGREGATE 1.1 A [0:1 1:3 2:2]");
}

static void test_bad_update_is_missing(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(3);
    config.quorum = 0.6; /* 2 of 3 */
    begin_ready(&config);
    start("1", 'A');
    IS(bad(1, "1.1"), "SETTLE 1 1.1 not (its update is bad); WARN (child 1 counts as "
                      "missing in round 1.1: its update is bad)");
    IS(offer(1, "1.1", 'A'), "SETTLE 1 1.1 not (its update of round 1.1 was bad)");
    IS(ready(1), ""); /* not ordered again */
    update(0, "1.1", 'A', 1, 1);
    IS(bad(0, "1.1"), ""); /* a second copy: the first stands */
    IS(bad(2, "1.1"),
       "SETTLE 2 1.1 not (its update is bad); WARN (child 2 counts as missing in round "
       "1.1: its update is bad); DROP 1 (its round failed); SETTLE 0 1.1 not (its "
       "round failed); FAIL '1' (round 1.1 cannot reach its quorum: 1 of 3 updates are "
       "in, 0 more may come, 2 are needed; bad: child 1, child 2)");
}

static void test_too_many_examples(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(3);
    config.quorum = 0.3;
    begin_ready(&config);
    start("1", 'A');
    IS(update(0, "1.1", 'A', 1, (1ull << 53) + 1),
       "DROP 1 (with its 9007199254740993 examples the sum is above 2^53); "
       "SETTLE 0 1.1 not (with its 9007199254740993 examples the sum is above 2^53); "
       "WARN (child 0 counts as missing in round 1.1: with its 9007199254740993 "
       "examples the sum is above 2^53)");
    update(1, "1.1", 'A', 2, 1ull << 53);
    IS(update(2, "1.1", 'A', 3, 1),
       "DROP 3 (with its 1 examples the sum is above 2^53); "
       "SETTLE 2 1.1 not (with its 1 examples the sum is above 2^53); "
       "WARN (child 2 counts as missing in round 1.1: with its 1 examples the sum is "
       "above 2^53); "
       "AGGREGATE 1.1 A [1:2]");
}

static void test_bad_while_aggregating(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(3);
    config.quorum = 0.6;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 1);
    update(1, "1.1", 'A', 2, 2);
    update(2, "1.1", 'A', 3, 4);
    IS(bad(1, "1.1"), ""); /* a second copy */
    IS(unusable(1, "1.1", 2),
       "DROP 2 (a checksum is wrong); SETTLE 1 1.1 not (a checksum is wrong); WARN "
       "(child 1 counts as missing in round 1.1: a checksum is wrong); AGGREGATE 1.1 A "
       "[0:1 2:3]");
    IS(aggregated('B'), "COMMIT 1.1 B n=5 [0:1 2:3]");
    IS(unusable(0, "1.1", 1), ""); /* too late to say so */
}

static void test_late_is_dropped(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.rounds_per_parent = 2;
    config.quorum = 0.5;
    begin_ready(&config);
    start("1", 'A');
    IS(offer(1, "1.1", 'A'), "RECEIVE 1 1.1");
    lost(1);
    update(0, "1.1", 'A', 1, 1);
    const char *dropped =
        "DROP 2 (late: round 1.1 is closed); SETTLE 1 1.1 not (late: round 1.1 is "
        "closed); WARN (an update of child 1 is dropped: late: round 1.1 is closed)";
    IS(update(1, "1.1", 'A', 2, 1), dropped); /* closed, not committed */
    aggregated('B');
    committed();
    IS(update(1, "1.1", 'A', 2, 1), dropped);
    IS(offer(1, "1.1", 'A'),
       "WARN (an update of child 1 is dropped: late: round 1.1 is closed); SETTLE 1 "
       "1.1 not (late: round 1.1 is closed)");
    /* older than the last record: it cannot tell any more */
    update(0, "1.2", 'B', 3, 1);
    aggregated('C');
    committed();
    IS(offer(1, "1.1", 'A'),
       "WARN (an update of child 1 is dropped: late: round 1.1 is closed); SETTLE 1 "
       "1.1 not (late: round 1.1 is closed)");
}

static void test_late_is_kept(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.rounds_per_parent = 3;
    config.quorum = 0.5;
    config.keep_late = true;
    begin_ready(&config);
    start("1", 'A');
    offer(1, "1.1", 'A');
    lost(1);
    update(0, "1.1", 'A', 1, 1);
    IS(update(1, "1.1", 'A', 2, 8), ""); /* kept */
    IS(offer(1, "1.1", 'A'), "ACCEPT 1 1.1");
    ready(1);
    IS(aggregated('A'), "COMMIT 1.1 A n=1 [0:1]"); /* the model did not change */
    IS(committed(),
       "SETTLE 0 1.1 counted; COMMITTED 1.1 A n=1 [0:1] loss=1; WARN (the late update "
       "of child 1 to round 1.1 counts in round 1.2); ORDER 0 1.2 A");
    IS(offer(1, "1.2", 'A'), "SETTLE 1 1.2 not (its late update counts in round 1.2)");
    IS(update(0, "1.2", 'A', 3, 1), "AGGREGATE 1.2 A [0:3 1:2]");
    IS(aggregated('B'), "COMMIT 1.2 B n=10 [0:3 1:2]");
    IS(committed(), "SETTLE 0 1.2 counted; SETTLE 1 1.1 counted; COMMITTED 1.2 B n=9 "
                    "[0:3 1:2] loss=2.11111; ORDER 0 1.3 B; ORDER 1 1.3 B");
    /* an update to 1.2 is late, but the model has changed */
    IS(offer(1, "1.2", 'A'),
       "WARN (an update of child 1 is dropped: late: round 1.2 is closed); SETTLE 1 "
       "1.2 not (late: round 1.2 is closed)");
}

static void test_late_is_kept_for_nothing(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.rounds_per_parent = 2;
    config.quorum = 0.5;
    config.keep_late = true;
    begin_ready(&config);
    start("1", 'A');
    lost(1);
    update(0, "1.1", 'A', 1, 1);
    update(1, "1.1", 'A', 2, 8);
    aggregated('B');
    IS(committed(),
       "SETTLE 0 1.1 counted; COMMITTED 1.1 B n=1 [0:1] loss=1; DROP 2 (late: round "
       "1.1 is closed); SETTLE 1 1.1 not (late: round 1.1 is closed); WARN (an update "
       "of child 1 is dropped: late: round 1.1 is closed); ORDER 0 1.2 B; WARN (round "
       "1.2 opens: 0 of 2 updates; waits for child 0 (at work), child 1 (lost))");
}

static void test_no_result(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.keep_late = true;
    begin_ready(&config);
    start("1", 'A');
    update(0, "1.1", 'A', 1, 0);
    update(1, "1.1", 'A', 2, 0);
    IS(not_aggregated(),
       "WARN (round 1.1 has no result: the model stays as it is); DROP 1 (its round "
       "has no result); DROP 2 (its round has no result); COMMIT 1.1 A n=0 []");
    IS(committed(), "SETTLE 0 1.1 not (its round has no result); SETTLE 1 1.1 not (its "
                    "round has no result); COMMITTED 1.1 A n=0 []; DELIVER 1 A n=0");
    /* child 0 missed the answer: its update is not late, though its base still fits */
    IS(offer(0, "1.1", 'A'), "SETTLE 0 1.1 not (its round has no result)");
    IS(start("2", 'A'), "ORDER 0 2.1 A; ORDER 1 2.1 A");
    IS(offer(0, "1.1", 'A'), "SETTLE 0 1.1 not (its round has no result)");
}

/* Which of the children 0..4 were ordered, as bits. */
static unsigned ordered(const char *actions)
{
    unsigned bits = 0;
    for (unsigned i = 0; i < 5; i++) {
        char order[16];
        snprintf(order, sizeof(order), "ORDER %u", i);
        bits |= strstr(actions, order) ? 1u << i : 0;
    }
    return bits;
}

static void test_sampling(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(5);
    config.sample = 0.5; /* 2.5: half up, 3 */
    begin_ready(&config);
    unsigned first = ordered(start("1", 'A')), seen = first;
    bool differs = false;
    assert_int_equal(__builtin_popcount(first), 3);
    for (int i = 2; i < 12; i++) {
        char path[16];
        snprintf(path, sizeof(path), "%d", i);
        unsigned bits = ordered(start(path, 'A'));
        assert_int_equal(__builtin_popcount(bits), 3);
        differs |= bits != first;
        seen |= bits;
    }
    assert_true(differs);
    assert_int_equal(seen, 31);

    begin_ready(&config); /* by seed, node and path alone */
    assert_int_equal(ordered(start("1", 'A')), first);
    begin_ready(&config); /* who is gone moves nobody else out */
    uint32_t out = (uint32_t)__builtin_ctz(~first & 31);
    gone(out);
    unsigned left = ordered(start("1", 'A')); /* half of 4 */
    assert_int_equal(__builtin_popcount(left), 2);
    assert_int_equal(left & first, left);
}

/* Each child by itself: the counts are binomial, and a round may ask nobody. */
static void test_poisson(void **state)
{
    (void)state;
    enum { CHILDREN = 5, ROUNDS = 400 };
    struct tiered_round_config config = case_config(CHILDREN);
    config.sample = 0.25;
    config.poisson = true;
    config.rounds_per_parent = 1;
    begin_ready(&config);
    unsigned counts[CHILDREN + 1] = {0}, asked = 0;
    for (int i = 1; i <= ROUNDS; i++) {
        char path[16], expected[64];
        snprintf(path, sizeof(path), "%d", i);
        const char *told = start(path, 'A');
        unsigned bits = ordered(told);
        if (bits == 0) {
            snprintf(expected, sizeof(expected), "AGGREGATE %d.1 A", i);
            assert_non_null(strstr(told, expected));
            assert_non_null(strstr(not_aggregated(), "COMMIT"));
            assert_non_null(strstr(committed(), "DELIVER"));
            delivered(path);
        }
        asked += (unsigned)__builtin_popcount(bits);
        counts[__builtin_popcount(bits)]++;
    }
    /* 4 standard deviations of the mean, and of how often nobody is asked */
    double mean = (double)asked / (ROUNDS * CHILDREN), nobody = pow(0.75, CHILDREN);
    assert_true(fabs(mean - 0.25) < 4 * sqrt(0.25 * 0.75 / (ROUNDS * CHILDREN)));
    assert_true(fabs((double)counts[0] / ROUNDS - nobody) <
                4 * sqrt(nobody * (1 - nobody) / ROUNDS));

    begin_ready(&config); /* by seed, node and path alone, and the child's own draw */
    unsigned all = ordered(start("1", 'A'));
    for (uint32_t i = 0; i < CHILDREN; i++) {
        begin_ready(&config);
        gone(i);
        assert_int_equal(ordered(start("1", 'A')), all & ~(1u << i));
    }
}

static void test_unsampled_is_refused(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(2);
    config.sample = 0.5;
    begin_ready(&config);
    uint32_t out = strcmp(start("1", 'A'), "ORDER 0 1.1 A") == 0 ? 1 : 0;
    char expected[64];
    snprintf(expected, sizeof(expected), "REFUSE %u 1.1 (not sampled in round 1.1)",
             out);
    IS(offer(out, "1.1", 'A'), expected);
    /* the quorum is of the sampled */
    snprintf(expected, sizeof(expected), "AGGREGATE 1.1 A [%u:1]", 1 - out);
    IS(update(1 - out, "1.1", 'A', 1, 1), expected);
}

static void test_quorum_rounds_up_exactly(void **state)
{
    (void)state;
    struct tiered_round_config config = case_config(100);
    config.quorum = 0.07; /* 0.07 * 100 is 7.000000000000001 in binary */
    config.deadline_ms = 10;
    begin_ready(&config);
    start("1", 'A');
    timer(TIERED_TIMER_DEADLINE);
    for (uint32_t i = 0; i < 6; i++) {
        IS(update(i, "1.1", 'A', i + 1, 1), "");
    }
    assert_non_null(strstr(update(6, "1.1", 'A', 7, 1), "AGGREGATE 1.1 A"));
}

static void test_paths(void **state)
{
    (void)state;
    struct tiered_path a = case_path("3.2"), b;
    char text[192];
    tiered_path_text(&a, text);
    assert_string_equal(text, "3.2");
    assert_false(tiered_path_parse("3.", &b));
    assert_false(tiered_path_parse(".3", &b));
    assert_false(tiered_path_parse("0", &b));
    assert_false(tiered_path_parse("03", &b));
    assert_false(tiered_path_parse("+3", &b));
    assert_false(tiered_path_parse("4294967296", &b));
    assert_false(tiered_path_parse("1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1", &b));
    assert_true(tiered_path_parse("4294967295", &b));
    b = case_path("3");
    assert_int_equal(tiered_path_compare(&b, &a), -1);
    assert_int_equal(tiered_path_compare(&a, &b), 1);
    b = case_path("3.10");
    assert_int_equal(tiered_path_compare(&a, &b), -1);
    assert_true(tiered_path_child(&b, 4, &a));
    tiered_path_text(&a, text);
    assert_string_equal(text, "3.10.4");
    a.depth = TIERED_MAX_DEPTH;
    assert_false(tiered_path_child(&a, 1, &b));
    for (int i = 0; i < TIERED_MAX_DEPTH; i++) {
        a.n[i] = UINT32_MAX;
    }
    tiered_path_text(&a, text);
    assert_int_equal(strlen(text), 16 * 11 - 1);
    assert_true(tiered_path_parse(text, &b));
    assert_true(tiered_path_equal(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_round),
        cmocka_unit_test(test_root_paths),
        cmocka_unit_test(test_order_again_when_ready),
        cmocka_unit_test(test_settled_again_when_back),
        cmocka_unit_test(test_contribution_counts_once),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_callers_mistakes),
        cmocka_unit_test(test_deadline_with_quorum),
        cmocka_unit_test(test_deadline_before_quorum),
        cmocka_unit_test(test_stale_timers),
        cmocka_unit_test(test_quorum_without_deadline),
        cmocka_unit_test(test_full_quorum_waits_for_lost),
        cmocka_unit_test(test_all_gone),
        cmocka_unit_test(test_gone_child_comes_back),
        cmocka_unit_test(test_bad_update_is_missing),
        cmocka_unit_test(test_too_many_examples),
        cmocka_unit_test(test_bad_while_aggregating),
        cmocka_unit_test(test_late_is_dropped),
        cmocka_unit_test(test_late_is_kept),
        cmocka_unit_test(test_late_is_kept_for_nothing),
        cmocka_unit_test(test_no_result),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_poisson),
        cmocka_unit_test(test_unsampled_is_refused),
        cmocka_unit_test(test_quorum_rounds_up_exactly),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, case_teardown);
}
