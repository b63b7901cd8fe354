/* SPDX-License-Identifier: Apache-2.0 */
/* mlp: a classifier of dense layers with ReLU between them. */
#include "common/learner.h"

static const struct tiered_option options[] = {
    TIERED_TRAINER_OPTIONS,
    {.name = "hidden",
     .type = TIERED_INTEGERS,
     .fallback = "[128]",
     .min = 1,
     .max = 65536,
     .unit = "neurons",
     .offset = offsetof(struct tiered_trainer_config, hidden),
     .help = "sizes of the hidden layers, 16 at most"},
};

static int mlp_init(const struct tiered_host *host, const void *config,
                    const struct tiered_place *place, void **ret_state,
                    struct tiered_error *err)
{
    (void)host;
    return tiered_learner_create(config, place, true, ret_state, err);
}

static const struct tiered_trainer_ops ops = TIERED_LEARNER_OPS(mlp_init);

TIERED_PLUGIN_DEFINE(.kind = TIERED_TRAINER, .name = "mlp", .version = "1.0",
                     .summary = "dense layers with ReLU, by SGD with momentum",
                     TIERED_OPTIONS(options, struct tiered_trainer_config),
                     .ops = &ops);
