/* SPDX-License-Identifier: Apache-2.0 */
/* Momentum on the aggregated delta, at the server.
   Source: Hsu et al. 2019, section 4.3 (arXiv:1909.06335). */
#include <math.h>
#include <stdlib.h>

#include "schedule.h"
#include "tiered/optimizer.h"

struct config {
    struct tiered_schedule schedule; /* first: its rows count on it */
    double lr, momentum;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, lr, "1", 0, INFINITY,
                         "the server's learning rate", .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_DOUBLE(struct config, momentum, "0", 0, 1,
                         "share of the last velocity that is kept",
                         .flags = TIERED_EXCLUSIVE_MAX),
    TIERED_SCHEDULE_OPTIONS,
};

static const char *const slot_names[] = {"v"};

struct fedavgm {
    const struct config *config;
    double lr; /* of this step */
};

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host;
    struct fedavgm *self = calloc(1, sizeof(*self));
    if (!self) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    self->config = config;
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
    struct fedavgm *self = state;
    self->lr = self->config->lr * tiered_schedule_factor(&self->config->schedule, step);
    if (step == 1) {
        ret_slot_initial[0] = 0; /* so that the first velocity is the delta */
    }
    return 0;
}

static void step(const void *state, size_t n, const double *x, double *delta,
                 double *const *slots)
{
    (void)x;
    const struct fedavgm *self = state;
    double lr = self->lr, momentum = self->config->momentum;
    double *restrict v = slots[0];
    for (size_t i = 0; i < n; i++) {
        v[i] = momentum * v[i] + delta[i];
        delta[i] = lr * v[i];
    }
}

static const struct tiered_optimizer_ops ops = {
    .size = sizeof(ops),
    .n_slots = 1,
    .slot_names = slot_names,
    .init = init,
    .destroy = destroy,
    .begin = begin,
    .step = step,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_OPTIMIZER, .name = "fedavgm", .version = "1.0",
        .summary =
            "momentum on the aggregated delta; its velocity belongs at the root: at an "
            "inner tier it runs, but equals nothing published",
        .traits = TIERED_CONCURRENT, TIERED_OPTIONS(options, struct config),
        .ops = &ops);
