/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What fedadagrad, fedadam and fedyogi share: all but how the second moment goes on.
 *
 * They are one algorithm with three updates of v (Reddi et al. 2021, Algorithm 2,
 * arXiv:2003.00295): m <- beta1 m + (1 - beta1) D, x <- x + lr m / (sqrt(v) + tau).
 */
#ifndef TIERED_OPTIMIZERS_ADAPTIVE_H
#define TIERED_OPTIMIZERS_ADAPTIVE_H

#include "schedule.h"
#include "tiered/optimizer.h"

/** A prefix of each of the three configs. fedadagrad has no beta2. */
struct tiered_adaptive_config {
    struct tiered_schedule schedule; /* first: its rows count on it */
    double lr, beta1, beta2, tau;
};

enum {
    TIERED_SLOT_M,
    TIERED_SLOT_V,
    TIERED_N_MOMENTS,
};
extern const char *const tiered_adaptive_slots[TIERED_N_MOMENTS];

struct tiered_adaptive {
    const struct tiered_adaptive_config *config;
    double lr; /* of this step */
};

/* The ops of an optimizer whose state is a struct tiered_adaptive. The second moment
   starts at tau^2, the least that the paper allows. */
int tiered_adaptive_init(const struct tiered_host *host, const void *config,
                         void **ret_state, struct tiered_error *err);
void tiered_adaptive_destroy(void *state);
int tiered_adaptive_begin(void *state, uint64_t step, double *ret_slot_initial,
                          struct tiered_error *err);

/* tau is bounded so that its square is at home in an f32 slot. */
#define TIERED_ADAPTIVE_OPTIONS(lr_, beta1_)                                           \
    TIERED_OPTION_DOUBLE(struct tiered_adaptive_config, lr, lr_, 0, INFINITY,          \
                         "the server's learning rate", .flags = TIERED_EXCLUSIVE_MIN), \
        TIERED_OPTION_DOUBLE(struct tiered_adaptive_config, beta1, beta1_, 0, 1,       \
                             "decay of the first moment",                              \
                             .flags = TIERED_EXCLUSIVE_MAX),                           \
        TIERED_OPTION_DOUBLE(struct tiered_adaptive_config, tau, "1e-3", 0, 1e9,       \
                             "added to sqrt(v), so that no step divides by 0",         \
                             .flags = TIERED_EXCLUSIVE_MIN)
#define TIERED_ADAPTIVE_BETA2                                                          \
    TIERED_OPTION_DOUBLE(struct tiered_adaptive_config, beta2, "0.99", 0, 1,           \
                         "decay of the second moment", .flags = TIERED_EXCLUSIVE_MAX)

#endif
