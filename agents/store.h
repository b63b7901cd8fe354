/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What an inner node remembers across a crash, in its state folder: models by digest,
 * the optimizer's state by round, and `commit.json`, the one record that says which of
 * them hold. A commit first writes what it names, then replaces the record in one
 * rename: a crash leaves the old round or the new one.
 *
 * Threads: pure functions on files; one commit of a folder at a time.
 */
#ifndef TIERED_AGENTS_STORE_H
#define TIERED_AGENTS_STORE_H

#include "core/aggregate/strategy.h"
#include "core/model/model.h"
#include "core/round/round.h"

/** Names are children's, so that a record holds whatever their order. */
struct store_commit {
    const char *folder, *run;
    const struct tiered_round_record *record;
    const struct tiered_model *turn_base, *model;
    const struct tiered_strategy *strategy;
};
int store_commit(const struct store_commit *commit, struct tiered_error *err);

/** The folder's last commit of this run: 1 and the record (its contributions are
   malloc'd; free with store_record_finish), 0 when there is none. */
int store_load(const char *folder, const char *run, struct tiered_round_record *ret,
               struct tiered_error *err);
void store_record_finish(struct tiered_round_record *record);
int store_model(const char *folder, const struct tiered_digest *digest,
                struct tiered_model **ret, struct tiered_error *err);
/** malloc'd path of the optimizer's state at this round. */
char *store_optimizer_path(const char *folder, uint32_t total_rounds);
/** Remove what `record` (NULL: nothing) does not name. */
void store_sweep(const char *folder, const struct tiered_round_record *record);

#endif
