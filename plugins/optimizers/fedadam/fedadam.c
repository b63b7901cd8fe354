/* SPDX-License-Identifier: Apache-2.0 */
/* Adam on the aggregated delta, at the server.
   Source: Reddi et al. 2021, Algorithm 2 (arXiv:2003.00295). */
#include <math.h>

#include "adaptive.h"

enum bias_correction {
    BIAS_NONE,
    BIAS_ADAM,
    BIAS_FLOWER,
};

struct config {
    struct tiered_adaptive_config adaptive; /* first */
    int32_t bias_correction;
};

static const struct tiered_option corrections[] = {
    [BIAS_NONE] = {.name = "none", .help = "as the paper: v starts at tau^2"},
    [BIAS_ADAM] = {.name = "adam",
                   .help = "lr sqrt(1-beta2^t)/(1-beta1^t) in step t; v starts at 0"},
    [BIAS_FLOWER] = {.name = "flower",
                     .help = "as Flower does: adam's with t+1 for t; v starts at 0"},
};

static const struct tiered_option options[] = {
    TIERED_ADAPTIVE_OPTIONS("0.1", "0.9"),
    TIERED_ADAPTIVE_BETA2,
    TIERED_OPTION_CHOICE(struct config, bias_correction, "none", corrections,
                         "how the first steps make up for moments that start low"),
    TIERED_SCHEDULE_OPTIONS,
};

static int begin(void *state, uint64_t step, double *ret_slot_initial,
                 struct tiered_error *err)
{
    struct tiered_adaptive *self = state;
    const struct tiered_adaptive_config *c = self->config;
    int32_t correction = ((const struct config *)c)->bias_correction;
    if (tiered_adaptive_begin(state, step, ret_slot_initial, err) != 0) {
        return -1;
    }
    if (correction == BIAS_NONE) {
        return 0;
    }
    uint64_t t = step + (correction == BIAS_FLOWER);
    self->lr *= sqrt(1 - tiered_power(c->beta2, t)) / (1 - tiered_power(c->beta1, t));
    if (step == 1) {
        ret_slot_initial[TIERED_SLOT_V] = 0;
    }
    return 0;
}

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
        v[i] = c.beta2 * v[i] + (1 - c.beta2) * d * d;
        delta[i] = self->lr * m[i] / (sqrt(v[i]) + c.tau);
    }
}

static const struct tiered_optimizer_ops ops = {
    .size = sizeof(ops),
    .n_slots = TIERED_N_MOMENTS,
    .slot_names = tiered_adaptive_slots,
    .init = tiered_adaptive_init,
    .destroy = tiered_adaptive_destroy,
    .begin = begin,
    .step = step,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_OPTIMIZER, .name = "fedadam", .version = "1.0",
        .summary =
            "Adam on the aggregated delta; its moments belong at the root: at an "
            "inner tier it runs, but equals nothing published",
        .traits = TIERED_CONCURRENT, TIERED_OPTIONS(options, struct config),
        .ops = &ops);
