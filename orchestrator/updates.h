/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Update files as rows of a strategy: safetensors files that are read block by block
 * and matched by tensor name, whatever order their tensors come in.
 *
 *     updates_open ( updates_base )? ( updates_screen ( updates_check )? )?
 *         … updates_close
 *
 * The first file leads (or the model before the round, where there is one): its order
 * of tensors is that of the rows. Roles come from the leader's metadata, else from the
 * first update's. Whole models are not matched: each row has its file's own layout.
 */
#ifndef TIERED_ORCHESTRATOR_UPDATES_H
#define TIERED_ORCHESTRATOR_UPDATES_H

#include "core/aggregate/strategy.h"
#include "core/model/safetensors.h"

struct updates {
    struct tiered_layout *layout; /* of all rows; NULL for whole models */
    struct tiered_row *rows;
    size_t n, n_excluded;
    struct updates_file *files; /* one a row, then the base's */
    uint64_t num_examples;      /* of the updates not excluded */
};

/** base may be NULL. `paths` are borrowed: they name the rows. Zeroed is closed. */
int updates_open(const char *const *paths, size_t n, const char *base, bool whole,
                 struct updates *ret, struct tiered_error *err);
void updates_close(struct updates *updates);
/** The model before the round, in the rows' layout; finite unless allow_bad. */
int updates_base(const struct updates *updates, bool allow_bad,
                 struct tiered_model **ret, struct tiered_error *err);
/** Read all updates for values that are not finite. Such updates are an error, or with
    `exclude` marked and given to warn() in order. */
int updates_screen(struct updates *updates, bool exclude, struct tiered_pool *pool,
                   void (*warn)(const struct tiered_error *why),
                   struct tiered_error *err);
/** Whole models: what the strategy says of each, alone and against the base (may be
    NULL). One that it refuses is an error, or with `exclude` marked as above. */
int updates_check(struct updates *updates, struct tiered_strategy *strategy,
                  const struct tiered_model *base, bool exclude,
                  void (*warn)(const struct tiered_error *why),
                  struct tiered_error *err);
/** The sum of num_examples over the updates not excluded. */
int updates_count(struct updates *updates, struct tiered_error *err);

#endif
