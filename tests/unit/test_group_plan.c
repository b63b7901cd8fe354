/* SPDX-License-Identifier: Apache-2.0 */
/* Groups in a plan: which cannot be, and where that is said; and noise in front of one.
 */
#include "topology_kit.h"

#include <math.h>

static int set_up(void **state)
{
    static const char *const more[] = {"clip", "gaussian", "secure-sum"};
    if (kit_setup(state) < 0) {
        return -1;
    }
    for (size_t i = 0; i < TIERED_COUNT(more); i++) {
        kit_link("TIERED_PLUGINS", more[i]);
    }
    tiered_plugins_destroy(kit.plugins);
    kit.plugins = tiered_plugins_create(kit.folder, NULL);
    return kit.plugins ? 0 : -1;
}

#define TREE                                                                           \
    "tiered: 1\nrun: {seed: 3, rounds: 20}\ntiers:\n"                                  \
    "  - {name: c, aggregate: [%s]%s}\n"                                               \
    "  - {name: e, fan_out: %u, uplink: [%s],\n"                                       \
    "     trainer: {softmax: {data: d}}}\n"

struct group_case {
    const char *aggregate, *more; /* of the parent; more of its keys */
    uint32_t fan_out;
    const char *uplink;
    const char *want; /* all that is said */
};

static void check(const struct group_case *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        TIERED_FREE char *text = NULL;
        assert_true(asprintf(&text, TREE, rows[i].aggregate, rows[i].more,
                             rows[i].fan_out, rows[i].uplink) > 0);
        TIERED_FREE char *problems = kit_problems_of(text, NULL, 0);
        if (strcmp(problems, rows[i].want) != 0) {
            fail_msg("%s\nsays\n%s\nnot\n%s", text, problems, rows[i].want);
        }
    }
}

static void test_groups_that_cannot_be(void **state)
{
    (void)state;
    static const struct group_case rows[] = {
        {"fedavg", "", 6, "secure-sum", "ok"},
        {"fedavg", "", 6, "{secure-sum: {bits: 64}}", "ok"},
        {"fedavg", "", 6, "{secure-sum: {bits: \"64\"}}", "ok"},
        {"fedavg", "", 6, "{secure-sum: {bits: 48}}",
         "5:56: group 'secure-sum' of tier 'e': option 'bits' must be one of 32, 64, "
         "not '48'"},
        {"fedavg", "", 6, "{clip: {norm: 1}}, {secure-sum: {bits: 640}}",
         "5:75: group 'secure-sum' of tier 'e': option 'bits' must be one of 32, 64, "
         "not '640'; did you mean '64'?"},
        {"fedavg", "", 2, "secure-sum",
         "5:36: tier 'e': 'secure-sum' cannot serve 'c-0', whose rounds ask 2 of its 2 "
         "children: a group of 2, and min_group asks for 3 members; lower min_group or "
         "give it more children"},
        {"fedavg", ", rounds: {sample: 50%}", 8, "{secure-sum: {min_group: 5}}",
         "5:37: tier 'e': 'secure-sum' cannot serve 'c-0', whose rounds ask 4 of its 8 "
         "children: a group of 4, and min_group asks for 5 members; lower min_group or "
         "give it more children"},
        {"fedavg", "", 60, "{secure-sum: {max_weight: 16777216}}",
         "5:38: tier 'e': 'secure-sum' cannot serve 'c-0', whose rounds ask 60 of its "
         "60 children: the sum of 60 updates of +-8 and weights up to 16777216 does "
         "not fit words of 32 bits; set bits: 64, or lower max_weight or clip_range"},
        {"fedavg", "", 60, "{secure-sum: {max_weight: 16777216, bits: 64}}", "ok"},
        {"fedavg", "", 65537, "{secure-sum: {bits: 64}}",
         "5:41: tier 'e': 'secure-sum' cannot serve 'c-0', whose rounds ask 65537 of "
         "its 65537 children: a group of 65537 with 98 neighbours each; at most 65536 "
         "members and 254 neighbours can be: more parents make smaller groups"},
        {"fedavg", ", rounds: {quorum: 50%}", 6, "secure-sum",
         "4:45: warning: tier 'c': a round that closes at its quorum of 3 fails: "
         "'secure-sum' needs 4 of 6 members"},
        {"fedavg", "", 2, "test-group", "ok"}, /* it says nothing of itself */
    };
    check(rows, TIERED_COUNT(rows));
}

#define AGGREGATE_NOISE ", {gaussian: {noise_multiplier: 1}}"
#define ONCE            "{fedavg: {weighted_by: uniform}}"
#define CLIP            "{clip: {norm: 2}}, "
#define NOISE           "{gaussian: {noise_multiplier: 0.5}}, "
#define ALONE                                                                          \
    "5:57: warning: tier 'e': 'gaussian' counts as if 'secure-sum' hid no update: "

/* Norm 2 and deviation 1: the noise reaches as far as 11. */
static void test_noise_that_does_not_add_up(void **state)
{
    (void)state;
    static const struct group_case rows[] = {
        {ONCE, "", 10, CLIP NOISE "{secure-sum: {clip_range: 11}}", "ok"},
        {"median", "", 10, CLIP "{gaussian: {noise_multiplier: 0.5}}", "ok"},
        /* the parent's own noise, on a sum whose rounding is known */
        {ONCE AGGREGATE_NOISE, "", 10, CLIP "secure-sum", "ok"},
        {ONCE AGGREGATE_NOISE, "", 10, CLIP "test-group",
         "4:62: tier 'c': 'gaussian' has no epsilon over 'test-group' in the uplink of "
         "tier 'e', which does not say how far it rounds updates; put 'gaussian' into "
         "that uplink, before 'test-group'"},
        {ONCE AGGREGATE_NOISE, "", 20, "{clip: {adaptive: {}}}, secure-sum",
         "4:62: tier 'c': a noise_multiplier of 1 over the adaptive 'clip' of tier 'e' "
         "needs more than 20 children asked a round, and 'c-0' asks 20; give 'clip' a "
         "norm, or lower the noise_multiplier"},
        {ONCE AGGREGATE_NOISE, "", 21, "{clip: {adaptive: {}}}, secure-sum", "ok"},
        {"fedavg", "", 10, "{clip: {adaptive: {}}}, {secure-sum: {clip_range: 0.5}}",
         "5:62: tier 'e': 'secure-sum' sums with an update whether an adaptive clip "
         "cut "
         "it, as 0 or 1, and has steps of 3.8147e-06 up to +-0.5; a range of +-1 or "
         "more in steps of 1 or finer works"},
        {"fedavg", "", 200,
         "{clip: {adaptive: {}}}, {secure-sum: {clip_range: 512, max_weight: 30000}}",
         "5:63: tier 'e': 'secure-sum' sums with an update whether an adaptive clip "
         "cut "
         "it, as 0 or 1, and has steps of 2 up to +-512; a range of +-1 or more in "
         "steps of 1 or finer works"},
        {ONCE AGGREGATE_NOISE, ", rounds: {sample: {poisson: 90%}}", 10,
         CLIP "secure-sum",
         "4:106: tier 'c': sample by poisson may ask fewer children than 'secure-sum' "
         "in "
         "the uplink of tier 'e' can sum; a share such as 50% asks as many in each "
         "round"},
        {"fedavg", "", 10, CLIP NOISE "{secure-sum: {clip_range: 11}}",
         ALONE "'fedavg' above counts some updates for more than others; give it "
               "weighted_by: uniform"},
        {ONCE, "", 10, CLIP NOISE "secure-sum",
         ALONE "'secure-sum' would cut the noise at +-8; a range of +-11 or more does "
               "not"},
        {ONCE, "", 10, CLIP NOISE "{clip: {norm: 3}}, {secure-sum: {clip_range: 11}}",
         ALONE "'clip' stands between the noise and 'secure-sum'; put it first"},
        /* 2^31 / (10 * 5e5) is 429, so the steps are 1 / 32 and 1 / 8 */
        {ONCE, "", 10, CLIP NOISE "{secure-sum: {clip_range: 11, max_weight: 500000}}",
         "ok"},
        {ONCE, "", 10, CLIP NOISE "{secure-sum: {clip_range: 32, max_weight: 500000}}",
         ALONE "the steps of 'secure-sum', 0.125, are coarse for noise of 1; steps "
               "below 0.0625 are not"},
        {ONCE, "", 10, CLIP NOISE "test-group",
         "5:57: warning: tier 'e': 'gaussian' counts as if 'test-group' hid no update: "
         "'test-group' does not say how few updates it opens a sum of"},
        /* no clip, no epsilon: nothing to add up */
        {ONCE, "", 10, NOISE "secure-sum",
         "5:38: warning: tier 'e': 'gaussian' without a clip before it has no epsilon, "
         "for nothing bounds an update; put {clip: {norm: 1.0}} before it"},
    };
    check(rows, TIERED_COUNT(rows));
}

static double epsilon(double z, double steps, double delta)
{
    struct tiered_accountant spent = {0};
    tiered_accountant_add(&spent, 1, z, steps);
    return tiered_accountant_epsilon(&spent, delta);
}

static void load(struct kit_result *r, const char *aggregate, const char *more,
                 uint32_t fan_out, const char *uplink)
{
    TIERED_FREE char *text = NULL;
    assert_true(asprintf(&text, TREE, aggregate, more, fan_out, uplink) > 0);
    kit_write(text, strlen(text));
    kit_load(NULL, 0, r);
    if (!r->plan) {
        TIERED_FREE char *problems = kit_problems(r);
        fail_msg("%s", problems);
    }
}

/* The noise of as many as every sum has: never the quorum's, which the parent keeps. */
static void test_noise_of_all(void **state)
{
    (void)state;
    static const struct {
        const char *rounds, *group;
        uint32_t fan_out, members;
    } rows[] = {
        {"", "{secure-sum: {clip_range: 11}}", 9, 6},
        {"", "{secure-sum: {clip_range: 11}}", 10, 7},
        {", rounds: {quorum: 100%}", "{secure-sum: {clip_range: 11}}", 10, 7},
        {"", "{secure-sum: {clip_range: 11, threshold: 1}}", 10, 10},
        {"", "{secure-sum: {clip_range: 11, threshold: 0.51}}", 10, 6},
        {"", "{secure-sum: {clip_range: 11, min_group: 9}}", 10, 9},
        {", rounds: {sample: 50%}", "{secure-sum: {clip_range: 11}}", 20, 7},
        {"", "{secure-sum: {clip_range: 11}}", 300, 200},
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct kit_result r;
        char uplink[160];
        snprintf(uplink, sizeof(uplink), CLIP NOISE "%s", rows[i].group);
        load(&r, ONCE, rows[i].rounds, rows[i].fan_out, uplink);
        const struct tiered_ledger *ledger = &r.plan->ledger;
        assert_int_equal(ledger->n, 1);
        const struct tiered_ledger_line *line = tiered_ledger_line_of(ledger, 1, false);
        assert_ptr_equal(tiered_ledger_line_of(ledger, rows[i].fan_out, false), line);
        assert_string_equal(tiered_ledger_kind(line), "distributed");
        assert_int_equal(line->group.members, rows[i].members);
        double z = 0.5 * sqrt(rows[i].members);
        assert_true(line->share == 0.5 && line->q == 1 && line->per_round == 1);
        assert_true(fabs(line->noise_multiplier - z) < 1e-12);
        assert_true(fabs(tiered_ledger_epsilon(line, 20) - epsilon(z, 20, 1e-5)) <
                    1e-9);
        kit_finish(&r);
    }
}

/* A sum of 10 and one of 4 have not the same noise; nor has one that counts alone. */
static void test_groups_have_lines_of_their_own(void **state)
{
    (void)state;
    struct kit_result r;
    static const char text[] =
        "tiered: 1\nrun: {rounds: 5, seed: 3, stop_when: {epsilon: 30}}\n"
        "tiers:\n"
        "  - {name: c, aggregate: [fedavg]}\n"
        "  - {name: f, fan_out: 3, aggregate: [" ONCE
        "], rounds: {per_parent_round: 2}}\n"
        "  - {name: e, fan_out: 10, trainer: {softmax: {data: d}}, uplink: [" CLIP NOISE
        "{secure-sum: {clip_range: 11}}]}\n"
        "nodes:\n"
        "  f-1: {rounds: {sample: 40%}}\n"
        "  f-2: {aggregate: [fedavg]}\n";
    kit_write(text, strlen(text));
    kit_load(NULL, 0, &r);
    TIERED_FREE char *problems = kit_problems(&r);
    assert_non_null(r.plan);
    assert_string_equal(
        problems,
        "6:88: warning: tier 'e': 'gaussian' counts as if 'secure-sum' hid no update: "
        "'fedavg' above counts some updates for more than others; give it weighted_by: "
        "uniform");
    const struct tiered_ledger *ledger = &r.plan->ledger;
    assert_int_equal(ledger->n, 3);
    const uint32_t members[] = {7, 3, 0};
    double most = 0;
    for (uint32_t fog = 0; fog < 3; fog++) {
        for (uint32_t k = 0; k < 10; k++) {
            const struct tiered_ledger_line *line =
                tiered_ledger_line_of(ledger, 4 + 10 * fog + k, false);
            assert_ptr_equal(line, &ledger->lines[fog]);
            assert_int_equal(line->group.members, members[fog]);
            assert_int_equal(line->per_round, 2);
            assert_string_equal(tiered_ledger_kind(line),
                                fog < 2 ? "distributed" : "local");
            most = fmax(most, tiered_ledger_epsilon(line, 2 * r.plan->rounds));
        }
    }
    /* the budget is the local line's: it spends the most */
    assert_true(r.plan->rounds < 5 && most <= 30);
    assert_true(epsilon(0.5, 2 * r.plan->rounds, 1e-5) == most);
    assert_true(epsilon(0.5, 2 * r.plan->rounds + 2, 1e-5) > 30);
    kit_finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_that_cannot_be),
        cmocka_unit_test(test_noise_that_does_not_add_up),
        cmocka_unit_test(test_noise_of_all),
        cmocka_unit_test(test_groups_have_lines_of_their_own),
    };
    return cmocka_run_group_tests(tests, set_up, kit_teardown);
}
