/* SPDX-License-Identifier: Apache-2.0 */
/* Shares of a round by examples or alike. */
#include "shares.h"

const struct tiered_option shares_choices[2] = {
    [SHARES_BY_EXAMPLES] = {.name = "num_examples",
                            .help = "an update counts as the examples behind it"},
    [SHARES_BY_NOTHING] = {.name = "uniform", .help = "every update counts once"},
};

int shares_fill(const struct tiered_round_view *view, enum shares_by by, double *shares,
                struct tiered_error *err)
{
    double total = 0;
    size_t n = 0;
    for (size_t i = 0; i < view->n; i++) {
        if (shares[i] != 0) {
            shares[i] = by == SHARES_BY_EXAMPLES
                            ? (double)view->contributions[i]->num_examples
                            : 1;
            total += shares[i];
            n++;
        }
    }
    if (!(total > 0)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "the %zu updates that count have no examples between them, "
                           "so there is no mean; the model stays",
                           n);
    }
    for (size_t i = 0; i < view->n; i++) {
        shares[i] /= total;
    }
    return 0;
}
