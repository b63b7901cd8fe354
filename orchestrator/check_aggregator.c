/* SPDX-License-Identifier: Apache-2.0 */
/* What every aggregator must do: a life, the numbers of children it may meet, and the
   properties that hold of every rule (an order of children that does not matter, one
   child, equal children, excluded ones). */
#include "orchestrator/check_aggregator.h"

#include <math.h>
#include <string.h>

static int aggregator_open(struct check *check, const void *config, void **ret_state,
                           struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    return ops->init(&check->hosting.host, config, ret_state, err);
}

static void aggregator_close(struct check *check, void *state)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    ops->destroy(state);
}

bool check_has_rows(const struct check *check)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    return ops->weigh != NULL;
}

int check_ordinary_round(struct check *check, void *state, size_t dim,
                         struct made_round *ret_round, struct made_result *ret_result,
                         struct tiered_error *err)
{
    static const size_t sizes[] = {7, 25, 100};
    for (size_t i = 0; i < TIERED_COUNT(sizes); i++) {
        *ret_round = made_round(sizes[i], dim, 1);
        if (made_round_run(check, state, ret_round, ret_result, err) < 0) {
            made_round_finish(ret_round);
            made_result_finish(ret_result);
            return -1;
        }
        if (!ret_result->refused) {
            return 0;
        }
        made_round_finish(ret_round);
    }
    return tiered_fail(err, TIERED_EINVAL,
                       "refuses a round of 100 ordinary updates: %.180s",
                       ret_result->why.text);
}

static int aggregator_use(struct check *check, void *state, struct tiered_error *err)
{
    struct made_round round;
    struct made_result result;
    if (!check_has_rows(check)) {
        return 0;
    }
    if (check_ordinary_round(check, state, 64, &round, &result, err) < 0) {
        return -1;
    }
    made_round_finish(&round);
    made_result_finish(&result);
    return 0;
}

int check_with_state(struct check *check,
                     int (*body)(struct check *, void *, struct tiered_error *),
                     struct tiered_error *err)
{
    void *state;
    if (!check_has_rows(check)) {
        return check_skip(check, "takes whole blobs, not rows");
    }
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    int result = body(check, state, err);
    check_close(check, state);
    return result;
}

int check_same(const double *want, const double *got, size_t n, double tolerance,
               const char *what, struct tiered_error *err)
{
    double most = 1;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(want[i]));
    }
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(want[i] - got[i]) <= tolerance * most)) {
            return tiered_fail(err, TIERED_EINVAL, "%s: element %zu is %.9g, not %.9g",
                               what, i, got[i], want[i]);
        }
    }
    return 0;
}

static double sum_of(const double *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += values[i];
    }
    return sum;
}

/* ---- numbers of children ---- */

static int few_and_many(struct check *check, void *state, struct tiered_error *err)
{
    static const size_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 100};
    for (size_t i = 0; i < TIERED_COUNT(sizes); i++) {
        struct made_round round = made_round(sizes[i], 33, 10 + sizes[i]);
        struct made_result result;
        int failed = made_round_run(check, state, &round, &result, err) < 0;
        made_round_finish(&round);
        made_result_finish(&result);
        if (failed) {
            return -1;
        }
    }
    return aggregator_use(check, state, err);
}

/* A rule may shrink what one child says, but not turn, drop or blow it up. */
static int one_child(struct check *check, void *state, struct tiered_error *err)
{
    struct made_round round = made_round(1, 50, 2);
    struct made_result result;
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    int failed = made_round_run(check, state, &round, &result, err);
    if (failed == 0 && !result.refused) {
        double weight = result.weights[0];
        if (ops->columns_f64) {
            failed = check_same(round.rows, result.out, round.dim, 1e-12,
                                "one child's row does not come out as it is", err);
        } else if (!(weight > 0 && weight <= 1 + 1e-12)) {
            failed =
                tiered_fail(err, TIERED_EINVAL, "one child has the weight %g", weight);
        }
    }
    bool refused = result.refused;
    made_round_finish(&round);
    made_result_finish(&result);
    return failed == 0 && refused ? check_skip(check, "refuses a round of one child")
                                  : failed;
}

static int same_children(struct check *check, void *state, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct made_round round, same;
    struct made_result result;
    size_t order[100] = {0};
    if (check_ordinary_round(check, state, 50, &round, &result, err) < 0) {
        return -1;
    }
    made_result_finish(&result);
    same = made_round_pick(&round, order, round.n);
    int failed = made_round_run(check, state, &same, &result, err);
    if (failed == 0 && !result.refused) {
        double sum = sum_of(result.weights, same.n);
        if (ops->columns_f64) {
            failed = check_same(same.rows, result.out, same.dim, 1e-12,
                                "equal rows do not make that row", err);
        } else if (!(sum > 0 && sum <= 1 + 1e-9)) {
            failed = tiered_fail(err, TIERED_EINVAL,
                                 "the weights of %zu equal children add up to %.9g",
                                 same.n, sum);
        }
    }
    made_round_finish(&round);
    made_round_finish(&same);
    made_result_finish(&result);
    return failed;
}

/* ---- order ---- */

static int turned_round(struct check *check, void *state,
                        const struct made_round *round,
                        const struct made_result *straight, const size_t *order,
                        struct tiered_error *err)
{
    struct made_result other;
    struct made_round turned = made_round_pick(round, order, round->n);
    int failed = made_round_run(check, state, &turned, &other, err);
    if (failed == 0 && other.refused) {
        failed = tiered_fail(err, TIERED_EINVAL,
                             "refuses a round when its children come in another order");
    } else if (failed == 0) {
        failed = check_same(straight->out, other.out, round->dim, 1e-9,
                            "the result depends on the order of the children", err);
    }
    made_round_finish(&turned);
    made_result_finish(&other);
    return failed;
}

/* Back to front, and each one place further: between them no child keeps its place. */
static int permutation(struct check *check, void *state, struct tiered_error *err)
{
    struct made_round round;
    struct made_result straight;
    size_t order[100];
    if (check_ordinary_round(check, state, 200, &round, &straight, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < round.n; i++) {
        order[i] = round.n - 1 - i;
    }
    int failed = turned_round(check, state, &round, &straight, order, err);
    for (size_t i = 0; i < round.n; i++) {
        order[i] = (i + 1) % round.n;
    }
    failed = failed == 0 ? turned_round(check, state, &round, &straight, order, err)
                         : failed;
    made_round_finish(&round);
    made_result_finish(&straight);
    return failed;
}

/* ---- children that count for less ---- */

/* With zero deltas no rule has a reason to shrink: where the weights of n children add
   up to 1, so must those of the ones that are left. */
static int compare_sums(const struct made_result *all, const struct made_result *rest,
                        size_t n, struct tiered_error *err)
{
    double before = sum_of(all->weights, n), after = sum_of(rest->weights, n);
    if (fabs(before - 1) < 1e-9 && fabs(after - 1) > 1e-9) {
        return tiered_fail(err, TIERED_EINVAL,
                           "with one child excluded the weights of the others add up "
                           "to %.9g, not 1: it still takes part",
                           after);
    }
    return 0;
}

static int excluded_child(struct check *check, void *state, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct made_round round;
    struct made_result all, rest = {0};
    if (check_ordinary_round(check, state, 50, &round, &all, err) < 0) {
        return -1;
    }
    made_result_finish(&all);
    memset(round.rows, 0, round.n * round.dim * sizeof(double));
    int failed = made_round_run(check, state, &round, &all, err);
    round.children[1].excluded = 1;
    failed = failed == 0 ? made_round_run(check, state, &round, &rest, err) : failed;
    if (failed == 0 && !all.refused && !rest.refused && !ops->columns_f64) {
        failed = compare_sums(&all, &rest, round.n, err);
    }
    made_result_finish(&all);
    made_result_finish(&rest);
    for (size_t i = 0; i < round.n; i++) {
        round.children[i].excluded = 1; /* the host would not ask; it must not crash */
    }
    check_step(check, "every child is excluded");
    failed = failed == 0 ? made_round_weigh(check, state, &round, &rest, err) : failed;
    made_round_finish(&round);
    made_result_finish(&rest);
    return failed;
}

static int odd_counts(struct check *check, void *state, struct tiered_error *err)
{
    struct made_round round = made_round(7, 10, 3);
    for (int variant = 0; variant < 4; variant++) {
        struct made_result result;
        for (size_t i = 0; i < round.n; i++) {
            struct tiered_contribution *c = &round.children[i];
            c->num_examples = variant == 0 ? 0 : variant == 1 ? 1ull << 53 : i == 2;
            c->local_steps = variant == 3 ? 0 : NAN;
            c->a_norm = variant == 3 ? 0 : NAN;
            c->staleness = variant == 2 ? UINT32_MAX : 0;
        }
        int failed = made_round_run(check, state, &round, &result, err);
        made_result_finish(&result);
        if (failed < 0) {
            made_round_finish(&round);
            static const char *const names[] = {
                "no examples at all: ", "2^53 examples each: ",
                "stale updates, all but one without examples: ", "no local steps: "};
            return tiered_error_prefix(err, "%s", names[variant]);
        }
    }
    made_round_finish(&round);
    return 0;
}

#define WITH_STATE(name)                                                               \
    static int name##_case(struct check *check, struct tiered_error *err)              \
    {                                                                                  \
        return check_with_state(check, name, err);                                     \
    }
WITH_STATE(few_and_many)
WITH_STATE(one_child)
WITH_STATE(same_children)
WITH_STATE(permutation)
WITH_STATE(excluded_child)
WITH_STATE(odd_counts)

static const struct check_case cases[] = {
    {"1 to 100 children", few_and_many_case},
    {"one child", one_child_case},
    {"equal children", same_children_case},
    {"order of children", permutation_case},
    {"doubled children", check_replication},
    {"excluded child", excluded_child_case},
    {"odd counts", odd_counts_case},
    {"scaling", check_scaling},
    {"translation", check_translation},
    {"groups", check_composition},
    {"tensors", check_measures},
    {"f32 and f64", check_precisions},
    {"pieces", check_pieces},
    {"extreme values", check_extremes},
    {"threads", check_columns_threads},
    {"blobs", check_blobs},
};

const struct check_kind check_aggregator = {
    .open = aggregator_open,
    .close = aggregator_close,
    .use = aggregator_use,
    .cases = cases,
    .n_cases = TIERED_COUNT(cases),
};
