/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A node as a member of its parent's group: it answers the messages of the phases and
 * masks what goes up. Its keys live in memory alone: a node that was started again has
 * no part in the attempt that was open. That it revealed shares of a round is written
 * down before they leave, so that it never joins another attempt at that round.
 *
 * Threads: answered on the event loop, masks on a worker; a mutex guards the plugin's
 * state. No other call is made with it held.
 */
#ifndef TIERED_AGENTS_MEMBER_H
#define TIERED_AGENTS_MEMBER_H

#include "agents/node.h"

struct member;

/** `use` is the group of the node's uplink, borrowed. uniform: every update counts
    once. */
int member_create(struct node *node, const struct tiered_use *use, bool uniform,
                  struct member **ret, struct tiered_error *err);
void member_destroy(struct member *member);

/** A frame of a phase from the parent: it is answered. *ret_fresh: another attempt at
    this path has begun, and what was made for an older one has no use. */
void member_answer(struct member *member, const struct tiered_path *path,
                   const struct tiered_frame *frame, bool *ret_fresh);

/** Ordered to train for this round: does it have the keys to mask with? If not, the
    parent is told. */
bool member_ready(struct member *member, const struct tiered_path *path);

/** The attempt that is open, or was last: a number of this process. 0: none was. */
uint64_t member_attempt(struct member *member);

/** A delta, a model's buffer, masked into the outbox. */
struct member_update {
    uint64_t attempt; /* of when it was made: with another one open it is void */
    struct tiered_model *delta;
    double within; /* its bound, where that follows norms: 1, 0; else NAN */
    const struct tiered_path *path;
    const struct tiered_digest *base;
    uint64_t num_examples;
};
int member_mask(struct member *member, const struct member_update *update,
                struct tiered_encoded **ret, struct tiered_error *err);

#endif
