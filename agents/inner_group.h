/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An inner node as the aggregator of its children's group: it carries the messages of
 * the phases, and sums masked updates. Its keys live in memory alone. Before the first
 * survivor is asked for shares, the round's path is written down: a process that finds
 * its round so named cannot repeat it, and commits it without a result.
 *
 * Threads: the event loop; inner_group_sum() on a worker, while the machine aggregates
 * and the loop leaves the group alone.
 */
#ifndef TIERED_AGENTS_INNER_GROUP_H
#define TIERED_AGENTS_INNER_GROUP_H

#include "agents/inner.h"

struct inner_group;

/** The group at the end of the children's uplink, or NULL in *ret. */
int inner_group_create(struct inner *inner, struct inner_group **ret,
                       struct tiered_error *err);
void inner_group_destroy(struct inner_group *group);
/** Its phases, in the machine's words. */
void inner_group_rules(const struct inner_group *group, uint32_t *ret_pre,
                       uint32_t *ret_post);

/** TIERED_DO_PHASE, TIERED_DO_PHASE_CLOSED. */
void inner_group_ask(struct inner_group *group, const struct tiered_round_action *a);
void inner_group_closed(struct inner_group *group, const struct tiered_round_action *a);
/** The round is over, whatever became of it. */
void inner_group_end(struct inner_group *group);
/** A child's frame of a phase. */
void inner_group_frame(struct inner_group *group, uint32_t child,
                       const struct tiered_path *path,
                       const struct tiered_frame *frame);

/** May this masked update be received? -1: it was masked for another attempt.
 *ret_waited: the open round waits for this child's. */
int inner_group_offer(const struct inner_group *group, uint32_t child,
                      const struct tiered_path *path, const Tiered__V1__Head *head,
                      bool *ret_waited, struct tiered_error *err);
/** Its tensors and the sizes of its blocks. */
int inner_group_check(const struct inner_group *group,
                      const struct tiered_encoded *encoded, struct tiered_error *err);

/** What a group's survivors come to. */
struct inner_sum {
    struct tiered_model *mean; /* of their deltas, weighted; as a model's bytes */
    uint64_t weight, num_examples;
    double within; /* the share within a bound that follows norms, weighted likewise;
                      NAN: none does */
    double step;   /* rounding moved a value of weight 1 by less than this; 0: the group
                      does not say */
};
/** ret->mean is the caller's. */
int inner_group_sum(struct inner_group *group, struct inner_update *const *updates,
                    uint32_t n, struct inner_sum *ret, struct tiered_error *err);

#endif
