/* SPDX-License-Identifier: Apache-2.0 */
/* Columns that depend on the order of the rows: the last one wins. */
#include "minimal.h"

static int columns_f32(void *state, const float *const *rows, const double *weights,
                       size_t n_rows, size_t n, float *out, struct tiered_error *err)
{
    (void)state, (void)weights, (void)err;
    for (size_t i = 0; i < n; i++) {
        out[i] = rows[n_rows - 1][i];
    }
    return 0;
}

static int columns_f64(void *state, const double *const *rows, const double *weights,
                       size_t n_rows, size_t n, double *out, struct tiered_error *err)
{
    (void)state, (void)weights, (void)err;
    for (size_t i = 0; i < n; i++) {
        out[i] = rows[n_rows - 1][i];
    }
    return 0;
}

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops),
                                                 .acts_on =
                                                     TIERED_ROLE_BIT(TIERED_PARAMETER),
                                                 MINIMAL_OPS,
                                                 .columns_f32 = columns_f32,
                                                 .columns_f64 = columns_f64};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "last-row", .version = "1.0",
                     .summary = "a test", .ops = &ops);
