/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Trainers: what a leaf does. Given a model, train it on local data and say on how many
 * examples; given a model, evaluate it.
 *
 *   init load manifest ( initial | train | evaluate )* destroy
 *
 * Models are buffers laid out by the manifest (tiered/model.h), owned by the host. Each
 * call gets its own host: host->seed() then depends on the round, so a train() that is
 * repeated after a crash gives the same bits. Calls are long: report host->progress()
 * and look at host->cancelled() at least once a batch.
 */
#ifndef TIERED_TRAINER_H
#define TIERED_TRAINER_H

#include "plugin.h"

/** Where this leaf stands in its tier; fixed when the run starts. */
struct tiered_place {
    size_t size;
    const char *node;
    uint32_t index, count; /* 0-based index among `count` leaves of the tier */
    uint32_t model_only;   /* 1: no data will be asked for, only manifest and initial */
};

struct tiered_train_result {
    size_t size;
    uint64_t num_examples; /* examples in the data trained or evaluated on */
    uint64_t local_steps;  /* optimizer steps taken */
    struct tiered_metrics metrics;
    double a_norm; /* FedNova's ||a||_1: how far local_steps steps go along a gradient
                      that stays the same, in units of the learning rate. 0: as far as
                      their number, as plain SGD */
};

struct tiered_trainer_ops {
    size_t size;

    int (*init)(const struct tiered_host *host, const void *config,
                const struct tiered_place *place, void **ret_state,
                struct tiered_error *err);
    void (*destroy)(void *state);
    /** Read the data. Long; refuses what is missing, truncated or malformed by name. */
    int (*load)(void *state, const struct tiered_host *host, struct tiered_error *err);
    /** The model's shape, valid until destroy(). After load(). */
    int (*manifest)(void *state, const struct tiered_manifest **ret_manifest,
                    struct tiered_error *err);
    /** Write the initial model. */
    int (*initial)(void *state, const struct tiered_host *host, void *out,
                   struct tiered_error *err);
    /** Train from `model`; write the trained parameters to `out` (they do not alias).
        Non-finite losses and weights are the host's to refuse: write them as they are.
     */
    int (*train)(void *state, const struct tiered_host *host, const void *model,
                 void *out, struct tiered_train_result *result,
                 struct tiered_error *err);
    /** result->num_examples 0: this leaf has nothing to evaluate on. */
    int (*evaluate)(void *state, const struct tiered_host *host, const void *model,
                    struct tiered_train_result *result, struct tiered_error *err);
    struct tiered_saved_state saved;
};

#endif
