/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What updates count by, where a rule lets the user choose. A count is the child's own
 * word: by nothing, all count alike and nobody gains by a large one.
 */
#ifndef TIERED_PLUGIN_SHARES_H
#define TIERED_PLUGIN_SHARES_H

#include "tiered/aggregator.h"

enum shares_by {
    SHARES_BY_EXAMPLES,
    SHARES_BY_NOTHING,
};

/** The alternatives of an option weighted_by. */
extern const struct tiered_option shares_choices[2];

/** shares[i] is 0 for rows that take no part and anything else for those that do;
    afterwards these have their share, and all add up to 1. TIERED_ERANGE when there is
    nothing to share by. */
int shares_fill(const struct tiered_round_view *view, enum shares_by by, double *shares,
                struct tiered_error *err);

#endif
