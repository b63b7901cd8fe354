/* SPDX-License-Identifier: Apache-2.0 */
/* Adam on the aggregated delta, at the server.
   Source: Reddi et al. 2021, Algorithm 2 (arXiv:2003.00295). */
#include "tiered/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum bias_correction {
    BIAS_NONE,
    BIAS_ADAM,
    BIAS_FLOWER,
};

struct config {
    double lr, beta1, beta2, tau;
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
    TIERED_OPTION_DOUBLE(struct config, lr, "0.1", 0, INFINITY,
                         "the server's learning rate", .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_DOUBLE(struct config, beta1, "0.9", 0, 1, "decay of the first moment",
                         .flags = TIERED_EXCLUSIVE_MAX),
    TIERED_OPTION_DOUBLE(struct config, beta2, "0.99", 0, 1,
                         "decay of the second moment", .flags = TIERED_EXCLUSIVE_MAX),
    TIERED_OPTION_DOUBLE(struct config, tau, "1e-3", 0, INFINITY,
                         "added to sqrt(v), so that no step divides by 0",
                         .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_CHOICE(struct config, bias_correction, "none", corrections,
                         "how the first steps make up for moments that start low"),
};

enum {
    SLOT_M,
    SLOT_V,
    N_SLOTS,
};
static const char *const slot_names[N_SLOTS] = {"m", "v"};

struct fedadam {
    struct config config;
    double lr; /* of this step, bias correction included */
};

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host;
    struct fedadam *self = calloc(1, sizeof(*self));
    if (!self) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    self->config = *(const struct config *)config;
    *ret_state = self;
    return 0;
}

static void destroy(void *state)
{
    free(state);
}

static int begin(void *state, uint64_t step, double *ret_slot_initial,
                 struct tiered_error *err)
{
    (void)err;
    struct fedadam *self = state;
    const struct config *c = &self->config;
    self->lr = c->lr;
    if (c->bias_correction != BIAS_NONE) {
        double t = (double)step + (c->bias_correction == BIAS_FLOWER ? 1 : 0);
        self->lr *= sqrt(1 - pow(c->beta2, t)) / (1 - pow(c->beta1, t));
    }
    if (step == 1) {
        ret_slot_initial[SLOT_M] = 0;
        ret_slot_initial[SLOT_V] =
            c->bias_correction == BIAS_NONE ? c->tau * c->tau : 0;
    }
    return 0;
}

static void step(const void *state, size_t n, const double *x, double *delta,
                 double *const *slots)
{
    (void)x;
    const struct fedadam *self = state;
    const struct config c = self->config;
    double *restrict m = slots[SLOT_M], *restrict v = slots[SLOT_V];
    for (size_t i = 0; i < n; i++) {
        double d = delta[i];
        m[i] = c.beta1 * m[i] + (1 - c.beta1) * d;
        v[i] = c.beta2 * v[i] + (1 - c.beta2) * d * d;
        delta[i] = self->lr * m[i] / (sqrt(v[i]) + c.tau);
    }
}

static const struct tiered_optimizer_ops ops = {
    .size = sizeof(ops),
    .n_slots = N_SLOTS,
    .slot_names = slot_names,
    .init = init,
    .destroy = destroy,
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
