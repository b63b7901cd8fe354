/* SPDX-License-Identifier: Apache-2.0 */
/* Adagrad on the aggregated delta, at the server.
   Source: Reddi et al. 2021, Algorithm 2 (arXiv:2003.00295). */
#include <math.h>

#include "adaptive.h"

static const struct tiered_option options[] = {
    TIERED_ADAPTIVE_OPTIONS("0.1", "0"),
    TIERED_SCHEDULE_OPTIONS,
};

static void step(const void *state, size_t n, const double *x, double *delta,
                 double *const *slots)
{
    (void)x;
    const struct tiered_adaptive *self = state;
    const struct tiered_adaptive_config c = *self->config;
    double *restrict m = slots[TIERED_SLOT_M], *restrict v = slots[TIERED_SLOT_V];
    for (size_t i = 0; i < n; i++) {
        double d = delta[i];
        m[i] = c.beta1 * m[i] + (1 - c.beta1) * d;
        v[i] += d * d;
        delta[i] = self->lr * m[i] / (sqrt(v[i]) + c.tau);
    }
}

static const struct tiered_optimizer_ops ops = {
    .size = sizeof(ops),
    .n_slots = TIERED_N_MOMENTS,
    .slot_names = tiered_adaptive_slots,
    .init = tiered_adaptive_init,
    .destroy = tiered_adaptive_destroy,
    .begin = tiered_adaptive_begin,
    .step = step,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_OPTIMIZER, .name = "fedadagrad", .version = "1.0",
        .summary =
            "Adagrad on the aggregated delta; its moments belong at the root: at an "
            "inner tier it runs, but equals nothing published",
        .traits = TIERED_CONCURRENT,
        TIERED_OPTIONS(options, struct tiered_adaptive_config), .ops = &ops);
