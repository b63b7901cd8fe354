/* SPDX-License-Identifier: Apache-2.0 */
/* Group protocols: their life, and whole rounds of a small group. */
#include "orchestrator/check.h"

#include <math.h>
#include <string.h>

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

/* ---- a round of a small group ---- */

#define MEMBERS  6u
#define N_VALUES 500u
#define NOBODY   UINT32_MAX

struct made_group {
    const struct tiered_group_ops *ops;
    void *aggregator, *members[MEMBERS];
    uint32_t word_bytes, silent, from; /* who goes silent, from which step on */
    uint8_t *in, *out, *words[MEMBERS];
    uint64_t tail[MEMBERS][2];
    uint32_t damage; /* of messages: 0 none; else which bytes change */
};

static double value_of(uint32_t member, size_t i)
{
    return (double)((member * 37 + i * 11) % 101) / 101 - 0.5;
}

static void made_group_finish(struct check *check, struct made_group *g)
{
    for (uint32_t i = 0; i < MEMBERS; i++) {
        if (g->members[i]) {
            check_close(check, g->members[i]);
        }
        free(g->words[i]);
    }
    if (g->aggregator) {
        check_close(check, g->aggregator);
    }
    free(g->in);
    free(g->out);
}

static int made_group_open(struct check *check, struct made_group *g,
                           struct tiered_error *err)
{
    g->ops = check->loaded.plugin.ops;
    g->in = check_must(malloc(TIERED_GROUP_MESSAGE_MAX));
    g->out = check_must(malloc(TIERED_GROUP_MESSAGE_MAX));
    if (check_open(check, &g->aggregator, err) < 0) {
        return -1;
    }
    g->word_bytes = g->ops->word_bytes(g->aggregator);
    if (g->word_bytes != 4 && g->word_bytes != 8) {
        return tiered_fail(err, TIERED_EINVAL, "words of %u bytes, not 4 or 8",
                           g->word_bytes);
    }
    for (uint32_t i = 0; i < MEMBERS; i++) {
        g->words[i] = check_must(calloc(N_VALUES, 8));
        if (check_open(check, &g->members[i], err) < 0) {
            return -1;
        }
    }
    return 0;
}

static bool is_silent(const struct made_group *g, uint32_t member, uint32_t step)
{
    return member == g->silent && step >= g->from;
}

static void damage(const struct made_group *g, uint8_t *data, size_t size,
                   uint32_t member)
{
    if (g->damage && size && member % 2) {
        data[(g->damage * 7919u) % size] ^= (uint8_t)(1u << (g->damage % 8));
    }
}

/* Damaged messages may be refused, with a reason. */
static int passed(const struct made_group *g, int result, const char *what,
                  const struct tiered_error *why, struct tiered_error *err)
{
    if (result == 0) {
        return 0;
    }
    return g->damage ? check_refusal(what, why, err)
                     : check_call_failed(what, why, err);
}

static int one_step(struct check *check, struct made_group *g, uint32_t step,
                    struct tiered_error *err)
{
    struct tiered_error why = {0};
    for (uint32_t i = 0; i < MEMBERS; i++) {
        size_t asked = 0, answered = 0;
        if (is_silent(g, i, step)) {
            continue;
        }
        check_step(check, "step %u with member %u", step, i);
        int result = g->ops->aggregator_step(g->aggregator, step, i, g->in,
                                             TIERED_GROUP_MESSAGE_MAX, &asked, &why);
        if (result < 0) {
            if (passed(g, result, "aggregator_step", &why, err) < 0) {
                return -1;
            }
            continue;
        }
        damage(g, g->in, asked, i);
        result = g->ops->member_step(g->members[i], step, g->in, asked, g->out,
                                     TIERED_GROUP_MESSAGE_MAX, &answered, &why);
        if (result == 0) {
            damage(g, g->out, answered, i + g->damage / 2);
            result = g->ops->aggregator_receive(g->aggregator, step, i, g->out,
                                                answered, &why);
        }
        if (passed(g, result, "a member's step", &why, err) < 0) {
            return -1;
        }
    }
    int result = g->ops->aggregator_close(g->aggregator, step, &why);
    return passed(g, result, "aggregator_close", &why, err) < 0 ? -1
           : result < 0                                         ? 1
                                                                : 0;
}

static int mask_all(struct check *check, struct made_group *g, struct tiered_error *err)
{
    double values[N_VALUES];
    for (uint32_t i = 0; i < MEMBERS; i++) {
        const struct tiered_group_weight weight = {i + 1, 10 * i};
        uint8_t open[TIERED_GROUP_OPEN];
        uint64_t clipped = 0;
        struct tiered_error why = {0};
        if (is_silent(g, i, g->ops->pre_steps + 1)) {
            continue;
        }
        for (size_t k = 0; k < N_VALUES; k++) {
            values[k] = value_of(i, k);
        }
        check_step(check, "the update of member %u", i);
        int result = g->ops->open(g->members[i], &weight, N_VALUES, open,
                                  (uint8_t *)g->tail[i], &why) < 0 ||
                             g->ops->mask(g->members[i], 0, N_VALUES, values,
                                          g->words[i], &clipped, &why) < 0 ||
                             g->ops->aggregator_check(g->aggregator, i, open, &why) < 0
                         ? -1
                         : 0;
        if (passed(g, result, "a masked update", &why, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static void add_words(const struct made_group *g, uint32_t member, uint8_t *sum)
{
    for (size_t k = 0; k < N_VALUES; k++) {
        if (g->word_bytes == 4) {
            ((uint32_t *)sum)[k] += ((const uint32_t *)g->words[member])[k];
        } else {
            ((uint64_t *)sum)[k] += ((const uint64_t *)g->words[member])[k];
        }
    }
}

static int check_mean(const struct made_group *g, const double *mean,
                      const struct tiered_group_weight *sums, uint32_t after_pre,
                      struct tiered_error *err)
{
    uint64_t weight = 0, examples = 0;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        weight += is_silent(g, i, after_pre) ? 0 : i + 1;
        examples += is_silent(g, i, after_pre) ? 0 : 10 * i;
    }
    if (sums->weight != weight || sums->num_examples != examples) {
        return tiered_fail(
            err, TIERED_EINVAL, "sums of %llu and %llu examples, not %llu and %llu",
            (unsigned long long)sums->weight, (unsigned long long)sums->num_examples,
            (unsigned long long)weight, (unsigned long long)examples);
    }
    for (size_t k = 0; k < N_VALUES; k++) {
        double want = 0;
        for (uint32_t i = 0; i < MEMBERS; i++) {
            want += is_silent(g, i, after_pre) ? 0 : (i + 1) * value_of(i, k);
        }
        want /= (double)weight;
        if (!(fabs(mean[k] - want) < 0.01)) {
            return tiered_fail(err, TIERED_EINVAL,
                               "the mean of value %zu is %g, not %g", k, mean[k], want);
        }
    }
    return 0;
}

static int add_and_unmask(struct check *check, struct made_group *g,
                          struct tiered_error *err)
{
    const struct tiered_group_ops *ops = g->ops;
    uint32_t who[MEMBERS], n = 0, after = ops->pre_steps + 1;
    uint64_t tail[2] = {0};
    double mean[N_VALUES];
    struct tiered_group_weight sums = {0};
    struct tiered_error why = {0};
    TIERED_FREE uint8_t *sum = check_must(calloc(N_VALUES, 8));
    for (uint32_t i = 0; i < MEMBERS; i++) {
        if (!is_silent(g, i, after)) {
            who[n++] = i;
            add_words(g, i, sum);
            tail[0] += g->tail[i][0];
            tail[1] += g->tail[i][1];
        }
    }
    check_step(check, "the sum");
    int result = ops->aggregator_survivors(g->aggregator, who, n, &why);
    for (uint32_t s = 1; result == 0 && s <= ops->post_steps; s++) {
        int step = one_step(check, g, ops->pre_steps + s, err);
        if (step != 0) {
            return step < 0 ? -1 : 0;
        }
    }
    if (result == 0) {
        result = ops->sums(g->aggregator, (const uint8_t *)tail, &sums, &why) < 0 ||
                         ops->unmask(g->aggregator, 0, N_VALUES, sum, mean, &why) < 0
                     ? -1
                     : 0;
    }
    if (result < 0) {
        return passed(g, result, "the sum", &why, err);
    }
    return g->damage ? 0 : check_mean(g, mean, &sums, after, err);
}

static int one_round(struct check *check, struct made_group *g,
                     struct tiered_error *err)
{
    struct tiered_error why = {0};
    struct tiered_group_round round = {.size = sizeof(round),
                                       .host = &check->hosting.host,
                                       .n_members = MEMBERS,
                                       .n_values = N_VALUES};
    if (g->ops->aggregator_begin(g->aggregator, &round, &why) < 0) {
        return check_call_failed("aggregator_begin", &why, err);
    }
    round.n_members = 0;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        if (g->ops->member_begin(g->members[i], &round, &why) < 0) {
            return check_call_failed("member_begin", &why, err);
        }
    }
    for (uint32_t step = 1; step <= g->ops->pre_steps; step++) {
        int result = one_step(check, g, step, err);
        if (result != 0) {
            return result < 0 ? -1 : 0;
        }
    }
    return mask_all(check, g, err) < 0 ? -1 : add_and_unmask(check, g, err);
}

static int group_round(struct check *check, uint32_t silent, uint32_t from,
                       uint32_t damaged, struct tiered_error *err)
{
    struct made_group g = {.silent = silent, .from = from, .damage = damaged};
    int result = made_group_open(check, &g, err) < 0 ? -1 : one_round(check, &g, err);
    made_group_finish(check, &g);
    return result;
}

static int whole_rounds(struct check *check, struct tiered_error *err)
{
    return group_round(check, NOBODY, 0, 0, err);
}

/* Silent from each step on, but the first: its masks may be in the others'. */
static int dropouts(struct check *check, struct tiered_error *err)
{
    const struct tiered_group_ops *ops = check->loaded.plugin.ops;
    for (uint32_t from = 2; from <= ops->pre_steps + 1; from++) {
        if (group_round(check, 2, from, 0, err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The same update under two members' masks, and under one's in two rounds. */
static int masked_apart(struct check *check, struct tiered_error *err)
{
    struct made_group a = {.silent = NOBODY}, b = {.silent = NOBODY};
    int result = made_group_open(check, &a, err) < 0 ||
                         made_group_open(check, &b, err) < 0 ||
                         one_round(check, &a, err) < 0 || one_round(check, &b, err) < 0
                     ? -1
                     : 0;
    size_t same = 0, size = (size_t)N_VALUES * a.word_bytes;
    for (size_t i = 0; result == 0 && i < size; i++) {
        same += a.words[0][i] == b.words[0][i];
    }
    if (same > size / 16) { /* of random bytes, one in 256 */
        result = tiered_fail(err, TIERED_EINVAL,
                             "%zu of %zu bytes of a masked update are the same in "
                             "another round",
                             same, size);
    }
    made_group_finish(check, &a);
    made_group_finish(check, &b);
    return result;
}

static int damaged_messages(struct check *check, struct tiered_error *err)
{
    for (uint32_t d = 1; d <= 60; d++) {
        if (group_round(check, NOBODY, 0, d, err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* What a plan is told of a group of n, and what its round then does: the same. */
static int check_terms(struct check *check, uint32_t n, bool begun,
                       struct tiered_error *err)
{
    const struct tiered_group_ops *ops = check->loaded.plugin.ops;
    struct tiered_group_terms terms = {.size = sizeof(terms)};
    struct tiered_error why = {0};
    if (!TIERED_HAS(ops, terms) || !ops->terms) {
        return 0;
    }
    check_step(check, "terms of a group of %u", n);
    bool told = ops->terms(check->config.data, n, &terms, &why) == 0;
    if (told != begun) {
        return tiered_fail(err, TIERED_EINVAL,
                           "terms %s a group of %u, and aggregator_begin %s it",
                           told ? "takes" : "refuses", n, begun ? "takes" : "refuses");
    }
    if (!told) {
        return check_refusal("terms", &why, err);
    }
    return terms.needed >= 1 && terms.needed <= n && terms.range > 0 && terms.step > 0
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "the terms of a group of %u: needed %u, range %g, step %g",
                             n, terms.needed, terms.range, terms.step);
}

/* Some are too small: they work or it is said why not, to a plan as to a round. */
static int group_sizes(struct check *check, struct tiered_error *err)
{
    static const uint32_t sizes[] = {0, 1, 2, 3, 10, 1000};
    const struct tiered_group_ops *ops = check->loaded.plugin.ops;
    void *state;
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    int result = 0;
    for (size_t i = 0; i < TIERED_COUNT(sizes) && result == 0; i++) {
        const struct tiered_group_round round = {.size = sizeof(round),
                                                 .host = &check->hosting.host,
                                                 .n_members = sizes[i],
                                                 .n_values = 1};
        struct tiered_error why = {0};
        check_step(check, "aggregator_begin of a group of %u", sizes[i]);
        bool begun = ops->aggregator_begin(state, &round, &why) == 0;
        result = !begun && check_refusal("aggregator_begin", &why, err) < 0
                     ? -1
                     : check_terms(check, sizes[i], begun, err);
    }
    check_close(check, state);
    return result;
}

static const struct check_case cases[] = {{"whole rounds", whole_rounds},
                                          {"dropouts", dropouts},
                                          {"masks differ", masked_apart},
                                          {"damaged messages", damaged_messages},
                                          {"sizes of groups", group_sizes}};

const struct check_kind check_group = {
    .open = group_open,
    .close = group_close,
    .cases = cases,
    .n_cases = TIERED_COUNT(cases),
};
