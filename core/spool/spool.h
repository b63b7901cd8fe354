/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The spool of one inner node: where arriving updates are kept in their encoded form,
 * in memory up to a budget, then in files of a folder. And the outbox of one node:
 * where an update stands, with the state that making it advanced, until its parent's
 * round is committed.
 *
 * What is lost with the process (memory, spool files) is sent again from the outboxes:
 * opening a spool empties its folder. Outbox files are written under a
 * temporary name and renamed, so a killed process loses nothing; those with a state,
 * which must not be advanced twice, are fsynced and outlive the machine too. An
 * unreadable one is removed with a warning, for the update can be made again.
 *
 * Threads: one owner (the event loop); the encoded objects themselves may be read by
 * all.
 */
#ifndef TIERED_CORE_SPOOL_H
#define TIERED_CORE_SPOOL_H

#include "core/spool/encoded.h"

struct tiered_spool;
int tiered_spool_open(const char *folder, uint64_t memory_bytes,
                      struct tiered_spool **ret, struct tiered_error *err);
void tiered_spool_close(struct tiered_spool *spool);
/** Room for an update with this head: in memory while the budget lasts. The spool
   counts it until tiered_spool_release(). The reference in *ret is the spool's, which
   that call drops: take another for what may outlive it. */
int tiered_spool_receive(struct tiered_spool *spool, const Tiered__V1__Head *head,
                         struct tiered_encoded **ret, struct tiered_error *err);
/** Give the budget back and drop the spool's reference. */
void tiered_spool_release(struct tiered_spool *spool, struct tiered_encoded *e);
uint64_t tiered_spool_memory(const struct tiered_spool *spool); /* bytes in memory */

struct tiered_outbox;
int tiered_outbox_open(const char *folder, struct tiered_outbox **ret,
                       struct tiered_error *err);
void tiered_outbox_close(struct tiered_outbox *outbox);
/** Start the update for `path`: a file under a temporary name. */
int tiered_outbox_begin(struct tiered_outbox *outbox, const struct tiered_path *path,
                        const Tiered__V1__Head *head, struct tiered_encoded **ret,
                        struct tiered_error *err);
/** Seal it and make it stand, together with `state` (may be NULL), atomically: one
    rename. Older entries of this node are superseded. The outbox takes its own
    reference. */
int tiered_outbox_commit(struct tiered_outbox *outbox, const struct tiered_path *path,
                         struct tiered_encoded *e, const void *state, size_t state_size,
                         struct tiered_error *err);
/** The entry for `path`, with a reference; NULL when there is none. */
struct tiered_encoded *tiered_outbox_get(struct tiered_outbox *outbox,
                                         const struct tiered_path *path);
/** The state saved with the newest entry; kept when the entry is cleared. With `path`,
    the newest of those before it: what an update for `path` goes on from, also one that
    was made before and is made again. Empty when none was ever saved. */
int tiered_outbox_state(struct tiered_outbox *outbox, const struct tiered_path *path,
                        struct tiered_bytes *ret, struct tiered_error *err);
/** The parent has settled `path`. Nothing happens when no such entry stands. */
int tiered_outbox_clear(struct tiered_outbox *outbox, const struct tiered_path *path,
                        struct tiered_error *err);
TIERED_DEFINE_FREE(struct tiered_spool, tiered_spool_close)
TIERED_DEFINE_FREE(struct tiered_outbox, tiered_outbox_close)

#endif
