/* SPDX-License-Identifier: Apache-2.0 */
/* Metamorphic properties of whole rounds: what must become of the result when every
   child comes twice, all rows are scaled or moved, or the children stand in groups.
   Which of them a rule has it says by its traits, or by what it is given. */
#include "orchestrator/check_aggregator.h"

#include <math.h>
#include <string.h>

static bool has_trait(const struct check *check, uint32_t trait)
{
    return (check->loaded.plugin.traits & trait) != 0;
}

/* The changed round must make `factor` times the old result plus `shift`. */
static int compare(struct check *check, void *state, const struct made_round *changed,
                   const struct made_result *old, double factor, double shift,
                   double tolerance, const char *what, struct tiered_error *err)
{
    struct made_result result;
    int failed = made_round_run(check, state, changed, &result, err);
    if (failed == 0 && result.refused) {
        failed = tiered_fail(err, TIERED_EINVAL, "%s: the round is refused: %.150s",
                             what, result.why.text);
    }
    for (size_t k = 0; k < changed->dim && failed == 0; k++) {
        result.out[k] = (result.out[k] - shift) / factor;
    }
    if (failed == 0) {
        failed = check_same(old->out, result.out, changed->dim, tolerance, what, err);
    }
    made_result_finish(&result);
    return failed;
}

/* ---- every child twice ---- */

static int replication(struct check *check, void *state, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct made_round round, twice;
    struct made_result once;
    size_t order[200];
    bool counts_alone = ops->needs == TIERED_NEEDS_NOTHING && !ops->columns_f64;
    if (!counts_alone && !has_trait(check, TIERED_REPLICATES)) {
        return check_skip(check, "is not TIERED_REPLICATES");
    }
    if (check_ordinary_round(check, state, 50, &round, &once, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < 2 * round.n; i++) {
        order[i] = i / 2;
    }
    twice = made_round_pick(&round, order, 2 * round.n);
    int failed = compare(check, state, &twice, &once, 1, 0, 1e-9,
                         "every child twice makes another result", err);
    made_round_finish(&round);
    made_round_finish(&twice);
    made_result_finish(&once);
    return failed;
}

/* ---- scaled and moved rows ---- */

static int scaling(struct check *check, void *state, struct tiered_error *err)
{
    static const double factors[] = {4, 1.0 / 1024, -1};
    struct made_round round;
    struct made_result once;
    int failed = 0;
    if (!has_trait(check, TIERED_SCALES)) {
        return check_skip(check, "is not TIERED_SCALES");
    }
    if (check_ordinary_round(check, state, 50, &round, &once, err) < 0) {
        return -1;
    }
    for (size_t f = 0; f < TIERED_COUNT(factors) && failed == 0; f++) {
        struct made_round scaled = made_round(round.n, round.dim, 1);
        for (size_t i = 0; i < round.n * round.dim; i++) {
            scaled.rows[i] *= factors[f];
        }
        char what[80];
        snprintf(what, sizeof(what), "rows times %g do not make the result times it",
                 factors[f]);
        failed = compare(check, state, &scaled, &once, factors[f], 0, 1e-9, what, err);
        made_round_finish(&scaled);
    }
    made_round_finish(&round);
    made_result_finish(&once);
    return failed;
}

/* Rules of distances see nothing of where the rows lie. */
static int moved_rows(struct check *check, void *state, struct tiered_error *err)
{
    const double shift = 3.5;
    struct made_round round;
    struct made_result once;
    if (check_ordinary_round(check, state, 50, &round, &once, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < round.n * round.dim; i++) {
        round.rows[i] += shift;
    }
    int failed = compare(check, state, &round, &once, 1, shift, 1e-7,
                         "3.5 added to every row does not add 3.5 to the result", err);
    made_round_finish(&round);
    made_result_finish(&once);
    return failed;
}

static int translation(struct check *check, void *state, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    bool apart =
        ops->needs == TIERED_NEEDS_DISTANCES || ops->needs == TIERED_NEEDS_CENTRED;
    if (!apart && !ops->columns_f64) {
        return check_skip(check, ops->needs == TIERED_NEEDS_NOTHING
                                     ? "the host makes the sum, from counts alone"
                                     : "measures from the model before the round");
    }
    if (apart && moved_rows(check, state, err) < 0) {
        return -1;
    }
    return ops->columns_f64 ? check_moved_columns(check, err) : 0;
}

/* ---- groups ---- */

/* Children from..from+n as one child of the tier above. */
static int fold_group(struct check *check, void *state, const struct made_round *round,
                      size_t from, size_t n, struct made_round *above, size_t at,
                      struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct made_result result;
    size_t order[100];
    for (size_t i = 0; i < n; i++) {
        order[i] = from + i;
    }
    struct made_round group = made_round_pick(round, order, n);
    struct tiered_contribution *child = &above->children[at];
    int failed = made_round_run(check, state, &group, &result, err);
    if (failed == 0 && result.refused) {
        failed = tiered_fail(err, TIERED_EINVAL, "refuses a group of %zu: %.180s", n,
                             result.why.text);
    }
    if (failed == 0) {
        double examples = 0, steps = 0;
        for (size_t i = 0; i < n; i++) {
            examples += (double)group.children[i].num_examples;
            steps +=
                (double)group.children[i].num_examples * group.children[i].local_steps;
        }
        child->num_examples = (uint64_t)examples;
        child->local_steps = TIERED_HAS(ops, local_steps) && ops->local_steps
                                 ? made_local_steps(check, state, &group)
                                 : steps / examples;
        child->a_norm = NAN;
        memcpy(above->rows + at * round->dim, result.out, round->dim * sizeof(double));
    }
    made_result_finish(&result);
    made_round_finish(&group);
    return failed;
}

static int composition(struct check *check, void *state, struct tiered_error *err)
{
    static const size_t sizes[] = {1, 4, 2};
    struct made_round round = made_round(7, 50, 6), above = made_round(3, 50, 7);
    struct made_result flat = {0};
    size_t from = 0;
    int failed = 0;
    if (!has_trait(check, TIERED_COMPOSES_EXACTLY) || check->options) {
        made_round_finish(&round);
        made_round_finish(&above);
        return check->options ? check_skip(check, "promised with default options alone")
                              : check_skip(check, "is not TIERED_COMPOSES_EXACTLY");
    }
    failed = made_round_run(check, state, &round, &flat, err);
    if (failed == 0 && flat.refused) {
        failed = tiered_fail(err, TIERED_EINVAL, "refuses 7 children: %.180s",
                             flat.why.text);
    }
    for (size_t i = 0; i < TIERED_COUNT(sizes) && failed == 0; i++) {
        failed = fold_group(check, state, &round, from, sizes[i], &above, i, err);
        from += sizes[i];
    }
    if (failed == 0) {
        failed = compare(check, state, &above, &flat, 1, 0, 1e-9,
                         "three groups make another result than their children", err);
    }
    made_result_finish(&flat);
    made_round_finish(&round);
    made_round_finish(&above);
    return failed;
}

int check_replication(struct check *check, struct tiered_error *err)
{
    return check_with_state(check, replication, err);
}

int check_scaling(struct check *check, struct tiered_error *err)
{
    return check_with_state(check, scaling, err);
}

int check_translation(struct check *check, struct tiered_error *err)
{
    return check_with_state(check, translation, err);
}

int check_composition(struct check *check, struct tiered_error *err)
{
    return check_with_state(check, composition, err);
}
