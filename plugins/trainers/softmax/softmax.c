/* SPDX-License-Identifier: Apache-2.0 */
/* softmax: multinomial logistic regression, the smallest trainer. */
#include "common/learner.h"

static const struct tiered_option options[] = {TIERED_TRAINER_OPTIONS};

static int softmax_init(const struct tiered_host *host, const void *config,
                        const struct tiered_place *place, void **ret_state,
                        struct tiered_error *err)
{
    (void)host;
    return tiered_learner_create(config, place, false, ret_state, err);
}

static const struct tiered_trainer_ops ops = TIERED_LEARNER_OPS(softmax_init);

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_TRAINER, .name = "softmax", .version = "1.0",
        .summary = "logistic regression over classes, by SGD with momentum",
        TIERED_OPTIONS(options, struct tiered_trainer_config), .ops = &ops);
