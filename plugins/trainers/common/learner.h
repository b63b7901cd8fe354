/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer behind both plugins; they differ in hidden layers and tensor names. */
#ifndef TIERED_TRAINERS_LEARNER_H
#define TIERED_TRAINERS_LEARNER_H

#include "config.h"

/** `numbered`: tensors fc1.weight, fc1.bias, fc2.weight …; else fc.weight, fc.bias. */
int tiered_learner_create(const struct tiered_trainer_config *config,
                          const struct tiered_place *place, bool numbered,
                          void **ret_state, struct tiered_error *err);
void tiered_learner_destroy(void *state);
int tiered_learner_load(void *state, const struct tiered_host *host,
                        struct tiered_error *err);
int tiered_learner_manifest(void *state, const struct tiered_manifest **ret_manifest,
                            struct tiered_error *err);
int tiered_learner_initial(void *state, const struct tiered_host *host, void *out,
                           struct tiered_error *err);
int tiered_learner_train(void *state, const struct tiered_host *host, const void *model,
                         void *out, struct tiered_train_result *result,
                         struct tiered_error *err);
int tiered_learner_evaluate(void *state, const struct tiered_host *host,
                            const void *model, struct tiered_train_result *result,
                            struct tiered_error *err);

/** What it trains on, once loaded. */
struct tiered_dataset;
struct tiered_dataset *tiered_learner_dataset(void *state);

#define TIERED_LEARNER_OPS(init_)                                                      \
    {                                                                                  \
        .size = sizeof(struct tiered_trainer_ops), .init = (init_),                    \
        .destroy = tiered_learner_destroy, .load = tiered_learner_load,                \
        .manifest = tiered_learner_manifest, .initial = tiered_learner_initial,        \
        .train = tiered_learner_train, .evaluate = tiered_learner_evaluate             \
    }

#endif
