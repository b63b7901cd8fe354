/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Group protocols (secure-sum): the last stage of an uplink. The members of one round
 * exchange opaque messages with the aggregator in the round's pre and post phases, send
 * updates masked in a ring, and the host adds them; only the sum can be unmasked.
 *
 * Member:      init ( begin  pre…  mask(block)*  post… )* destroy
 * Aggregator:  init ( begin  pre…  (the host adds)  post…  unmask(block)* )* destroy
 *
 * A phase is a number of steps. In each the aggregator side makes one message for each
 * member (aggregator_step), the member answers it (member_step).
 */
#ifndef TIERED_GROUP_H
#define TIERED_GROUP_H

#include "plugin.h"

struct tiered_group_ops {
    size_t size;
    uint32_t pre_steps, post_steps;
    uint32_t word_bytes; /* of the ring: 4 or 8; 0 when an option decides */

    int (*init)(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err);
    void (*destroy)(void *state);
    int (*begin)(void *state, const struct tiered_host *host, uint32_t n_members,
                 uint32_t self, struct tiered_error *err);
    int (*member_step)(void *state, uint32_t step, const void *in, size_t in_size,
                       void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err);
    int (*aggregator_receive)(void *state, uint32_t step, uint32_t member,
                              const void *in, size_t in_size, struct tiered_error *err);
    int (*aggregator_step)(void *state, uint32_t step, uint32_t member, void *out,
                           size_t capacity, size_t *ret_size, struct tiered_error *err);
    int (*mask)(void *state, const struct tiered_block *block, double weight,
                const void *in, size_t in_size, void *out, size_t capacity,
                size_t *ret_size, struct tiered_error *err);
    int (*unmask)(void *state, const struct tiered_block *block, const void *sum,
                  size_t sum_size, double *out, struct tiered_error *err);
    struct tiered_saved_state saved;
};

#endif
