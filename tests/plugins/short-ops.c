/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that end after what is required: accepted, the rest reads as NULL. */
#include "minimal.h"

/* columns_f32 lies past the end that `size` gives and must not be seen. */
static int never(void *state, const float *const *rows, const double *weights,
                 size_t n_rows, size_t n, float *out, struct tiered_error *err)
{
    (void)state, (void)rows, (void)weights, (void)n_rows, (void)n, (void)out;
    return tiered_fail(err, TIERED_ESTATE, "called past the end of the ops");
}

static const struct tiered_aggregator_ops ops = {
    .size = offsetof(struct tiered_aggregator_ops, columns_f32),
    MINIMAL_OPS,
    .columns_f32 = never};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "short-ops", .version = "1.0",
                     .summary = "a test", .ops = &ops);
