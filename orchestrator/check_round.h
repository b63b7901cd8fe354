/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A made-up round for the checks of aggregators: children, their deltas, and what the
 * host would make of them by the plugin's ops. Values are such that f32 holds them
 * exactly, so that both precisions see the same rows.
 */
#ifndef TIERED_ORCHESTRATOR_CHECK_ROUND_H
#define TIERED_ORCHESTRATOR_CHECK_ROUND_H

#include "orchestrator/check.h"
#include "tiered/aggregator.h"

struct made_round {
    size_t n, dim;
    double *rows; /* n of dim: the deltas */
    struct tiered_contribution *children;
    char (*names)[32];
};

/** Independent normal rows, children with 10..109 examples and 1..5 local steps. The
    same arguments give the same round. Out of memory ends the check. */
struct made_round made_round(size_t n, size_t dim, uint64_t seed);
/** Child i of the new round is child order[i] of the old one. */
struct made_round made_round_pick(const struct made_round *round, const size_t *order,
                                  size_t n);
void made_round_finish(struct made_round *round);

/** What a round comes to. */
struct made_result {
    bool refused; /* weigh said no; `why` says why */
    struct tiered_error why;
    double *weights; /* n, 0 where excluded */
    double *out;     /* dim, as a delta */
};
/** The round as the host runs it. 0 also when refused; -1 where the plugin breaks a
    promise. Finish *ret in either case. */
int made_round_run(struct check *check, void *state, const struct made_round *round,
                   struct made_result *ret, struct tiered_error *err);
void made_result_finish(struct made_result *result);
/** What the rule says of the steps behind a round that it has just weighed. */
double made_local_steps(struct check *check, void *state,
                        const struct made_round *round);
/** Only weigh. */
int made_round_weigh(struct check *check, void *state, const struct made_round *round,
                     struct made_result *ret, struct tiered_error *err);

/** columns_f64 and columns_f32 on the rows of non-zero weight, elements from..from+n of
    each, in guarded buffers. */
int made_columns_f64(struct check *check, void *state, const struct made_round *round,
                     const double *weights, size_t from, size_t n, double *out,
                     struct tiered_error *err);
int made_columns_f32(struct check *check, void *state, const struct made_round *round,
                     const double *weights, size_t from, size_t n, float *out,
                     struct tiered_error *err);

#endif
