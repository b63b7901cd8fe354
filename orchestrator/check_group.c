/* SPDX-License-Identifier: Apache-2.0 */
/* Group protocols: their life, and whole rounds of a small group. */
#include "orchestrator/check.h"
#include "tiered/group.h"

static int group_open(struct check *check, const void *config, void **ret_state,
                      struct tiered_error *err)
{
    const struct tiered_group_ops *ops = check->loaded.plugin.ops;
    return ops->init(&check->hosting.host, config, ret_state, err);
}

static void group_close(struct check *check, void *state)
{
    const struct tiered_group_ops *ops = check->loaded.plugin.ops;
    ops->destroy(state);
}

/* No group is that small: it works or says why not. */
static int small_groups(struct check *check, struct tiered_error *err)
{
    const struct tiered_group_ops *ops = check->loaded.plugin.ops;
    void *state;
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    int result = 0;
    for (uint32_t n = 0; n <= 2 && result == 0; n++) {
        const struct tiered_group_round round = {.size = sizeof(round),
                                                 .host = &check->hosting.host,
                                                 .n_members = n,
                                                 .n_values = 1};
        struct tiered_error why = {0};
        check_step(check, "aggregator_begin of a group of %u", n);
        result = ops->aggregator_begin(state, &round, &why) < 0
                     ? check_refusal("aggregator_begin", &why, err)
                     : 0;
    }
    check_close(check, state);
    return result;
}

static const struct check_case cases[] = {{"small groups", small_groups}};

const struct check_kind check_group = {
    .open = group_open,
    .close = group_close,
    .cases = cases,
    .n_cases = TIERED_COUNT(cases),
};
