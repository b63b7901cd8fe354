/* SPDX-License-Identifier: Apache-2.0 */
/* Groups in a plan: which cannot be, and where that is said. */
#include "topology_kit.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, set_up, kit_teardown);
}
