/* SPDX-License-Identifier: Apache-2.0 */
/* The life of fedadagrad, fedadam and fedyogi. */
#include "adaptive.h"

#include <stdlib.h>

const char *const tiered_adaptive_slots[TIERED_N_MOMENTS] = {"m", "v"};

int tiered_adaptive_init(const struct tiered_host *host, const void *config,
                         void **ret_state, struct tiered_error *err)
{
    (void)host;
    struct tiered_adaptive *self = calloc(1, sizeof(*self));
    if (!self) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    self->config = config;
    *ret_state = self;
    return 0;
}

void tiered_adaptive_destroy(void *state)
{
    free(state);
}

int tiered_adaptive_begin(void *state, uint64_t step, double *ret_slot_initial,
                          struct tiered_error *err)
{
    (void)err;
    struct tiered_adaptive *self = state;
    const struct tiered_adaptive_config *c = self->config;
    self->lr = c->lr * tiered_schedule_factor(&c->schedule, step);
    if (step == 1) {
        ret_slot_initial[TIERED_SLOT_M] = 0;
        ret_slot_initial[TIERED_SLOT_V] = c->tau * c->tau;
    }
    return 0;
}
