/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of filters' checks share: check_filter.c has round trips, sizes and
 * threads, check_filter_bad.c what a peer or a small buffer can do,
 * check_filter_state.c passes that are repeated and states that are saved,
 * check_filter_privacy.c what privacy filters say of themselves.
 */
#ifndef TIERED_ORCHESTRATOR_CHECK_FILTER_H
#define TIERED_ORCHESTRATOR_CHECK_FILTER_H

#include "orchestrator/check_pass.h"

bool filter_has(const struct check *check, enum tiered_trait trait);
void filter_close(struct check *check, void *state);
struct made_pass filter_mixed(const struct check *check, enum made_values values);
/** A pass of the mixed model that has its header, on a new state. Finish both on
    success. */
int filter_mixed_begun(struct check *check, void **ret_state, struct made_pass *ret,
                       struct tiered_error *err);

/* check_filter_bad.c */
int check_small_outputs(struct check *check, struct tiered_error *err);
int check_damaged_blocks(struct check *check, struct tiered_error *err);
int check_damaged_headers(struct check *check, struct tiered_error *err);
int check_nonfinite(struct check *check, struct tiered_error *err);

/* check_filter_state.c */
int check_same_pass(struct check *check, struct tiered_error *err);
int check_dropped_pass(struct check *check, struct tiered_error *err);
int check_saved_state(struct check *check, struct tiered_error *err);

/* check_filter_privacy.c */
int check_norm(struct check *check, struct tiered_error *err);
int check_noise(struct check *check, struct tiered_error *err);

#endif
