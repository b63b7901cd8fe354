/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of aggregators' checks share: check_aggregator.c has the life and what
 * holds of every round, check_properties.c what some rules promise of whole rounds,
 * check_columns.c what holds of columns, tensors and blobs.
 */
#ifndef TIERED_ORCHESTRATOR_CHECK_AGGREGATOR_H
#define TIERED_ORCHESTRATOR_CHECK_AGGREGATOR_H

#include "orchestrator/check_round.h"

bool check_has_rows(const struct check *check);
/** A round of the fewest of 7, 25 and 100 children that the rule takes, and its result.
    Finish both on success. */
int check_ordinary_round(struct check *check, void *state, size_t dim,
                         struct made_round *ret_round, struct made_result *ret_result,
                         struct tiered_error *err);
/** Run the body on a state of its own; skipped for rules of blobs. */
int check_with_state(struct check *check,
                     int (*body)(struct check *, void *, struct tiered_error *),
                     struct tiered_error *err);
/** Equal within `tolerance` of the largest magnitude (at least 1). */
int check_same(const double *want, const double *got, size_t n, double tolerance,
               const char *what, struct tiered_error *err);

/* check_properties.c */
int check_replication(struct check *check, struct tiered_error *err);
int check_scaling(struct check *check, struct tiered_error *err);
int check_translation(struct check *check, struct tiered_error *err);
int check_composition(struct check *check, struct tiered_error *err);

/* check_columns.c */
int check_moved_columns(struct check *check, struct tiered_error *err);
int check_precisions(struct check *check, struct tiered_error *err);
int check_pieces(struct check *check, struct tiered_error *err);
int check_extremes(struct check *check, struct tiered_error *err);
int check_columns_threads(struct check *check, struct tiered_error *err);
int check_blobs(struct check *check, struct tiered_error *err);
int check_measures(struct check *check, struct tiered_error *err);

#endif
