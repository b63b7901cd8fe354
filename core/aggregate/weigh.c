/* SPDX-License-Identifier: Apache-2.0 */
/* The coefficients of a round's rows: what the aggregator says, checked. */
#include "core/aggregate/internal.h"

#include <float.h>
#include <math.h>

static int check_weights(const struct strategy_work *work,
                         struct strategy_weights *weights, struct tiered_error *err)
{
    const struct tiered_strategy_run *run = work->run;
    double sum = 0;
    for (size_t i = 0; i < run->n_rows; i++) {
        double *w = &weights->w[i];
        if (run->rows[i].contribution.excluded) {
            *w = 0;
        }
        if (!isfinite(*w)) {
            return tiered_fail(err, TIERED_ERANGE,
                               "aggregator '%s' gave '%s' a coefficient that is not "
                               "finite",
                               work->strategy->stage.loaded->plugin.name,
                               run->rows[i].contribution.node);
        }
        if (*w != 0) {
            weights->active[weights->n_active++] = i;
        }
        sum += *w;
    }
    /* Within the rounding of n quotients a sum of 1 is meant. */
    weights->rest = 1 - sum;
    if (fabs(weights->rest) <= (double)run->n_rows * DBL_EPSILON) {
        weights->rest = 0;
    }
    return 0;
}

/** Tensors that the rule does not act on. Without examples there is no such mean. */
static int weigh_by_examples(struct strategy_work *work, struct tiered_error *err)
{
    const struct tiered_strategy_run *run = work->run;
    double total = 0;
    for (size_t i = 0; i < run->n_rows; i++) {
        const struct tiered_contribution *c = &run->rows[i].contribution;
        work->by_examples.w[i] = c->excluded ? 0 : (double)c->num_examples;
        total += work->by_examples.w[i];
    }
    for (size_t i = 0; i < run->n_rows && total > 0; i++) {
        work->by_examples.w[i] /= total;
    }
    return check_weights(work, &work->by_examples, err);
}

static int check_rules(const struct strategy_work *work, struct tiered_error *err)
{
    const struct tiered_layout *layout = work->layout;
    bool needs_base = work->rule.rest != 0 && !work->run->rows_are_deltas;
    for (uint32_t b = 0; b < layout->n_blocks; b++) {
        const struct tiered_block *block = &layout->blocks[b];
        const struct strategy_weights *weights =
            tiered_strategy_weights_of(work, block);
        if (weights == &work->by_examples && weights->n_active == 0) {
            return tiered_fail(err, TIERED_ERANGE,
                               "tensor '%.100s' is averaged by examples, and the %zu "
                               "updates have none",
                               layout->m.tensors[block->first_tensor].name,
                               work->run->n_rows);
        }
        bool columns = tiered_strategy_has_columns(work, block);
        if (columns && weights->n_active == 0) {
            return tiered_fail(err, TIERED_ERANGE,
                               "aggregator '%s' left no update to aggregate",
                               work->strategy->stage.loaded->plugin.name);
        }
        if (weights == &work->rule && !columns && needs_base && !work->run->base) {
            return tiered_fail(err, TIERED_EINVAL,
                               "the coefficients of aggregator '%s' sum to %.17g, so "
                               "it needs the model before the round",
                               work->strategy->stage.loaded->plugin.name,
                               1 - work->rule.rest);
        }
    }
    return 0;
}

/** The mean local_steps of the rows by their examples; NAN where one does not say. */
static double mean_steps(const struct tiered_strategy_run *run)
{
    double examples = 0, steps = 0;
    for (size_t i = 0; i < run->n_rows; i++) {
        const struct tiered_contribution *c = &run->rows[i].contribution;
        if (!c->excluded && c->num_examples > 0) {
            examples += (double)c->num_examples;
            steps += (double)c->num_examples * c->local_steps;
        }
    }
    return examples > 0 ? steps / examples : NAN;
}

static int call_weigh(struct strategy_work *work, const double *gram,
                      struct tiered_error *err)
{
    const struct tiered_strategy_run *run = work->run;
    TIERED_FREE const struct tiered_contribution **contributions =
        calloc(run->n_rows, sizeof(contributions[0]));
    if (!contributions) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates",
                           run->n_rows);
    }
    for (size_t i = 0; i < run->n_rows; i++) {
        contributions[i] = &run->rows[i].contribution;
    }
    struct tiered_round_view view = {sizeof(view), run->n_rows, contributions, gram};
    struct tiered_strategy *s = work->strategy;
    if (s->ops.weigh(s->stage.state, &view, work->rule.w, err) != 0) {
        return -1;
    }
    s->local_steps = s->ops.local_steps ? s->ops.local_steps(s->stage.state, &view)
                                        : mean_steps(run);
    return 0;
}

/** What the rule needs; *ret is NULL for nothing. */
static int measure(struct strategy_work *work, double **ret, struct tiered_error *err)
{
    enum tiered_needs needs = work->strategy->ops.needs;
    const struct tiered_strategy_run *run = work->run;
    size_t n = run->n_rows;
    if (needs == TIERED_NEEDS_NOTHING) {
        return 0;
    }
    if ((needs == TIERED_NEEDS_NORMS || needs == TIERED_NEEDS_GRAM) && !run->base &&
        !run->rows_are_deltas) {
        return tiered_fail(err, TIERED_EINVAL,
                           "aggregator '%s' measures how far the updates moved, so it "
                           "needs the model before the round",
                           work->strategy->stage.loaded->plugin.name);
    }
    *ret = calloc(needs == TIERED_NEEDS_NORMS ? 1 : n, n * sizeof((*ret)[0]));
    if (!*ret) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "no memory for the distances of %zu updates", n);
    }
    if (tiered_strategy_measure(work, err) != 0) {
        return -1;
    }
    switch (needs) {
    case TIERED_NEEDS_NORMS:
        return tiered_strategy_norms(work, *ret, err);
    case TIERED_NEEDS_DISTANCES:
        return tiered_strategy_distances(work, *ret, err);
    case TIERED_NEEDS_CENTRED:
        return tiered_strategy_centred(work, *ret, err);
    default:
        return tiered_strategy_gram(work, STRATEGY_CENTRE_BASE, *ret, err);
    }
}

/* Then there is noise alone. */
static bool nothing_counts(const struct strategy_work *work)
{
    bool counts = false;
    for (size_t i = 0; i < work->run->n_rows; i++) {
        counts = counts || !work->run->rows[i].contribution.excluded;
    }
    return !counts;
}

int tiered_strategy_weigh(struct strategy_work *work, struct tiered_error *err)
{
    TIERED_FREE double *gram = NULL;
    if (nothing_counts(work)) {
        return 0;
    }
    if (measure(work, &gram, err) != 0 || call_weigh(work, gram, err) != 0 ||
        check_weights(work, &work->rule, err) != 0 ||
        weigh_by_examples(work, err) != 0) {
        return -1;
    }
    return check_rules(work, err);
}
