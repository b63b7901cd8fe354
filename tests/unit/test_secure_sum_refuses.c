/* SPDX-License-Identifier: Apache-2.0 */
/* secure-sum: what each side refuses of a peer that is broken or lies. */
#include "group_kit.h"

/* Cut off anywhere, or longer than it should be. */
static void expect_exact_size(struct group *g, uint32_t step, uint32_t member,
                              const struct group_message *m)
{
    for (size_t size = 0; size <= m->size + 1; size += size + 40 < m->size ? 7 : 1) {
        struct group_message bad = {malloc(m->size + 2), size};
        memcpy(bad.data, m->data, m->size);
        bad.data[m->size] = 0;
        if (size != m->size) {
            expect_refused(g, step, member, &bad, "");
            assert_true(g->err.text[0]);
        }
        free(bad.data);
    }
}

static void test_member_refuses(void **state)
{
    (void)state;
    struct group g, old;
    uint32_t who[GROUP_MOST];
    struct group_message m = {0}, bad;
    group_begin(&g, 6, 100, NULL);
    group_begin(&old, 6, 100, NULL);
    double out[100];
    struct tiered_group_weight sums;
    assert_int_equal(run_round(&old, out, &sums), 0); /* another attempt's messages */
    assert_int_equal(group_open(&g), 0);

    group_ask(&g, 1, 0, &m);
    expect_exact_size(&g, 1, 0, &m);
    bad = changed(&m, 0, 1);
    expect_refused(&g, 1, 0, &bad, "not a message of this secure-sum");
    free(bad.data);
    bad = changed(&m, 4, 3);
    expect_refused(&g, 1, 0, &bad, "step 2 stands for one of step 1");
    free(bad.data);
    bad = changed(&m, 24, 4); /* n: 6 -> 2 */
    expect_refused(&g, 1, 0, &bad, "min_group");
    free(bad.data);
    bad = changed(&m, 6, 8); /* self: 0 -> 8 */
    expect_refused(&g, 1, 0, &bad, "member 8 of 6");
    free(bad.data);
    bad = changed(&m, 36, 1); /* threshold */
    expect_refused(&g, 1, 0, &bad, "options of secure-sum are not this node's");
    free(bad.data);
    assert_int_equal(group_step(&g, 1), 0);

    group_ask(&g, 2, 0, &m);
    expect_refused(&g, 3, 0, &m, "step 3 does not follow step 1");
    expect_refused(&g, 2, 0, &old.asked[2][0], "another attempt");
    expect_refused(&g, 2, 1, &m, "a message for member 0");
    expect_exact_size(&g, 2, 0, &m);
    bad = changed(&m, 24, 1); /* the set: this node is out */
    expect_refused(&g, 2, 0, &bad, "this node is not in the group");
    free(bad.data);
    bad = changed(&m, 24, 0x38); /* 3 of 6 are left */
    expect_refused(&g, 2, 0, &bad, "3 of 6 members are left; 4 are needed");
    free(bad.data);
    bad = changed(&m, 24, 0x80); /* a member past the end */
    expect_refused(&g, 2, 0, &bad, "malformed");
    free(bad.data);
    bad = changed(&m, 25, 0);
    memset(bad.data + 25, 0, 32); /* a key of low order */
    expect_refused(&g, 2, 0, &bad, "member 1: not a usable public key");
    free(bad.data);
    assert_int_equal(group_step(&g, 2), 0);

    group_ask(&g, 3, 0, &m);
    expect_exact_size(&g, 3, 0, &m);
    expect_refused(&g, 3, 0, &old.asked[3][0], "another attempt");
    bad = changed(&m, 25 + 80 + 5, 1);
    expect_refused(&g, 3, 0, &bad, "member 2: its sealed shares are forged");
    free(bad.data);
    bad = changed(&m, 25, 0); /* replayed: member 2's stand for member 1's */
    memcpy(bad.data + 25, bad.data + 25 + 80, 80);
    expect_refused(&g, 3, 0, &bad, "member 1: its sealed shares are forged");
    free(bad.data);
    assert_int_equal(group_step(&g, 3), 0);

    uint32_t n = group_survivors(&g, who);
    for (uint32_t i = 1; i < n; i++) {
        assert_int_equal(group_mask(&g, i), 0);
    }
    assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who + 1, n - 1, &g.err),
                     0);
    group_ask(&g, 4, 1, &m);
    struct group_message for_zero = changed(&m, 24, 1); /* as if it had sent one */
    for_zero.data[6] = 0;
    expect_refused(&g, 4, 0, &for_zero, "before the masked update is made");
    free(for_zero.data);
    expect_exact_size(&g, 4, 1, &m);
    bad = changed(&m, 24, 0x1c); /* too few survivors: it would open up the rest */
    expect_refused(&g, 4, 1, &bad, "2 of 6 members are left; 4 are needed");
    free(bad.data);
    bad = changed(&m, 24, 2);
    expect_refused(&g, 4, 1, &bad, "this node is not in the group");
    free(bad.data);
    group_forget(&m);
    group_finish(&old);
    group_finish(&g);
}

/* Ask one member for both kinds of share of one peer, in every way there is. */
static void test_never_both_kinds(void **state)
{
    (void)state;
    struct group g;
    uint32_t who[GROUP_MOST];
    struct group_message m = {0}, first = {0}, again = {0};
    group_begin(&g, 6, 50, NULL);
    assert_int_equal(group_open(&g), 0);
    assert_int_equal(group_pre(&g), 0);
    uint32_t n = group_survivors(&g, who);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(group_mask(&g, i), 0);
    }
    assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who, n, &g.err), 0);
    group_ask(&g, 4, 0, &m);
    assert_int_equal(group_answer(&g, 4, 0, &m, &first), 0);
    assert_int_equal(group_answer(&g, 4, 0, &m, &again), 0); /* asked again: the same */
    assert_int_equal(first.size, again.size);
    assert_memory_equal(first.data, again.data, first.size);
    struct group_message other =
        changed(&m, 24, 0x20); /* member 5 is no survivor now */
    expect_refused(&g, 4, 0, &other, "step 4 does not follow step 4");
    /* another attempt at the same round, in this process … */
    struct tiered_group_round round = group_round(&g, 6);
    assert_int_equal(g.ops->aggregator_begin(g.aggregator, &round, &g.err), 0);
    group_ask(&g, 1, 0, &m);
    expect_refused(&g, 1, 0, &m, "shares of this round were revealed");
    expect_refused(&g, 4, 0, &other, ""); /* … nor has it forgotten */
    /* … and in one that was started again and told so */
    round = group_round(&g, 0);
    round.spent = true;
    assert_int_equal(g.ops->member_begin(g.members[0], &round, &g.err), 0);
    expect_refused(&g, 1, 0, &m, "shares of this round were revealed");
    expect_refused(&g, 4, 0, &other, "");
    /* the next round is another matter */
    round.spent = false;
    assert_int_equal(g.ops->member_begin(g.members[0], &round, &g.err), 0);
    assert_int_equal(group_answer(&g, 1, 0, &m, &again), 0);
    group_forget(&again);
    group_forget(&first);
    group_forget(&other);
    group_forget(&m);
    group_finish(&g);
}

static void expect_untold(struct group *g, uint32_t step, uint32_t member,
                          const struct group_message *m, const char *text)
{
    memset(&g->err, 0, sizeof(g->err));
    assert_int_equal(group_tell(g, step, member, m), -1);
    if (!strstr(g->err.text, text)) {
        fail_msg("step %u: \"%s\" does not say \"%s\"", step, g->err.text, text);
    }
}

static void test_aggregator_refuses(void **state)
{
    (void)state;
    static const char *const names[] = {"leaf-0", "leaf-1", "leaf-2",
                                        "leaf-3", "leaf-4", "leaf-5"};
    struct group g, old;
    uint32_t who[GROUP_MOST];
    struct group_message bad, m = {0}, answers[6] = {{0}};
    double out[20];
    struct tiered_group_weight sums;
    group_begin(&g, 6, 20, NULL);
    group_begin(&old, 6, 20, NULL);
    assert_int_equal(run_round(&old, out, &sums), 0);
    assert_int_equal(group_open(&g), 0);
    struct tiered_group_round round = group_round(&g, 6);
    round.names = names;
    assert_int_equal(g.ops->aggregator_begin(g.aggregator, &round, &g.err), 0);
    for (uint32_t step = 1; step <= 4; step++) {
        for (uint32_t i = 0; i < 6; i++) {
            group_ask(&g, step, i, &m);
            assert_int_equal(group_answer(&g, step, i, &m, &answers[i]), 0);
        }
        expect_untold(&g, step % 4 + 1, 2, &answers[2], "is not open");
        expect_untold(&g, step, 6, &answers[2], "nobody has no part");
        expect_untold(&g, step, 2, &old.view[step][2], "leaf-2: its message is of an");
        for (size_t size = 0; size <= answers[2].size + 1; size++) {
            bad = changed(&answers[2], 0, 0);
            bad.size = size;
            if (size != answers[2].size) {
                expect_untold(&g, step, 2, &bad, "leaf-2: ");
            }
            free(bad.data);
        }
        if (step == 4) { /* shares: forged, of the wrong kind, another member's */
            bad = changed(&answers[2], 24 + 33 + 7, 1);
            expect_untold(&g, 4, 2, &bad, "leaf-2: its share of leaf-1 is not the one");
            free(bad.data);
            bad = changed(&answers[2], 24 + 33, 3);
            expect_untold(&g, 4, 2, &bad,
                          "leaf-2: its share of leaf-1 is of the wrong");
            free(bad.data);
            expect_untold(&g, 4, 2, &answers[3],
                          "leaf-2: its message is another member's");
            bad = changed(&answers[3], 6, 3 ^ 2);
            expect_untold(&g, 4, 2, &bad, "leaf-2: its share of leaf-0 is not");
            free(bad.data);
        }
        for (uint32_t i = 0; i < 6; i++) {
            assert_int_equal(group_tell(&g, step, i, &answers[i]), 0);
        }
        expect_untold(&g, step, 2, &answers[2], "has answered step");
        assert_int_equal(g.ops->aggregator_close(g.aggregator, step, &g.err), 0);
        if (step == 3) {
            for (uint32_t i = 0; i < 6; i++) {
                who[i] = i;
                assert_int_equal(group_mask(&g, i), 0);
            }
            const uint32_t twice[] = {0, 1, 1, 2, 3};
            const uint32_t none[] = {0, 1, 2, 9};
            assert_int_equal(
                g.ops->aggregator_survivors(g.aggregator, twice, 5, &g.err), -1);
            assert_int_equal(g.ops->aggregator_survivors(g.aggregator, none, 4, &g.err),
                             -1);
            assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who, 6, &g.err),
                             0);
            /* frozen */
            assert_int_equal(g.ops->aggregator_survivors(g.aggregator, who, 5, &g.err),
                             -1);
        }
    }
    uint64_t tail[2] = {1ull << 60, 0};
    assert_int_equal(g.ops->sums(g.aggregator, (uint8_t *)tail, &sums, &g.err), -1);
    assert_non_null(strstr(g.err.text, "cannot be"));
    for (uint32_t i = 0; i < 6; i++) {
        group_forget(&answers[i]);
    }
    group_forget(&m);
    group_finish(&old);
    group_finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_refuses),
        cmocka_unit_test(test_never_both_kinds),
        cmocka_unit_test(test_aggregator_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
