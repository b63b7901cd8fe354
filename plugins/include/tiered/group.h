/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Group protocols (secure-sum): the last stage of an uplink. The members of one round
 * exchange opaque messages with the aggregator in the round's pre and post phases, send
 * updates masked in a ring, and the host adds them; only the sum can be unmasked.
 *
 * Member:      init ( member_begin  member_step(pre)…  open  mask*  member_step(post)…
 *              )* destroy
 * Aggregator:  init ( aggregator_begin  ( aggregator_step*  aggregator_receive*
 *              aggregator_close )(pre)…  (the host adds)  aggregator_survivors
 *              ( … )(post)…  sums  unmask* )* destroy
 *
 * Steps are numbered through both phases from 1: first pre_steps, then post_steps. In
 * each the aggregator's side makes one message for each member (aggregator_step, which
 * may be repeated and then makes the same bytes), the member answers it (member_step),
 * and the host closes the step with those that did. A member that misses a step before
 * the updates is out; one that misses a later one is a dropout, whose update stays.
 *
 * Masked updates. The update is a row of n_values numbers, the elements of all tensors
 * in manifest order; mask() turns each into one ring word. In front of it stand the
 * TIERED_GROUP_OPEN bytes of open(): they name this attempt, so that what was masked
 * for another cannot be added. Behind it stand TIERED_GROUP_TAIL bytes, two words of 64
 * bits: the masked weight and num_examples. The host adds words of word_bytes() and the
 * tail's, modulo their size, and gives the sums to sums() and unmask().
 *
 * Attempts. Every message carries what names the attempt. A member that gets the first
 * message of another attempt starts over with new keys, until it has answered in the
 * post phase: from then on it takes part in no other attempt of the same round path.
 * The host makes that answer's having been given durable before it sends it, and says
 * so in `spent` when it begins the same path again after a restart.
 *
 * All messages and masked updates come from peers: every call checks them before it
 * uses them and names the member at fault. A failed call has no effect, except that a
 * failed aggregator_close(), aggregator_survivors() or sums() ends the attempt.
 *
 * Threads: unmask() calls for different ranges may overlap; all else never overlaps on
 * one state.
 */
#ifndef TIERED_GROUP_H
#define TIERED_GROUP_H

#include "plugin.h"

#define TIERED_GROUP_MESSAGE_MAX (1u << 20) /* no message is larger */
#define TIERED_GROUP_OPEN        16u
#define TIERED_GROUP_TAIL        16u

/** One round of one group. */
struct tiered_group_round {
    size_t size;
    const struct tiered_host *host; /* node and path; borrowed until the next begin */
    uint32_t n_members;             /* sampled; they are 0..n-1. A member's: 0 */
    const char *const *names;       /* of members, for reasons; borrowed like host.
                                       NULL: they are numbers */
    uint64_t n_values; /* the aggregator's; a member's comes with its update */
    bool spent;     /* a member's: it has answered in this path's post phase before */
    uint32_t least; /* no sum of fewer members may be opened, however many there are:
                       noise is counted by it. 0: the options say how many */
};

/** What a member's update counts by. */
struct tiered_group_weight {
    uint64_t weight;       /* the values' coefficient; larger ones count as the most
                              that the options allow */
    uint64_t num_examples; /* added up exactly; at most 2^43 */
};

/** What the options make of a group of so many members. */
struct tiered_group_terms {
    size_t size;
    uint32_t needed; /* no sum of fewer members' updates is ever opened */
    double range;    /* values are clipped to +- this */
    double step;     /* rounding moves a value of weight 1 by less than this */
};

struct tiered_group_ops {
    size_t size;
    uint32_t pre_steps, post_steps;

    int (*init)(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err);
    void (*destroy)(void *state);
    /** Bytes of a ring word: 4 or 8. */
    uint32_t (*word_bytes)(void *state);

    /** Discards an unfinished attempt. */
    int (*member_begin)(void *state, const struct tiered_group_round *round,
                        struct tiered_error *err);
    /** Answer a message; *ret_size at most capacity. The same message again gets the
        same answer. */
    int (*member_step)(void *state, uint32_t step, const void *in, size_t in_size,
                       void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err);
    /** Begin this attempt's masked update, of n_values: once, after the pre phase.
        `open` is in the clear, `tail` masked. */
    int (*open)(void *state, const struct tiered_group_weight *weight,
                uint64_t n_values, uint8_t open[TIERED_GROUP_OPEN],
                uint8_t tail[TIERED_GROUP_TAIL], struct tiered_error *err);
    /** Values first..first+n-1 to ring words; ranges come in order, each once. Refuses
        what is not finite; clips to the range of the options, adding to *ret_clipped
        how many it clipped. */
    int (*mask)(void *state, uint64_t first, size_t n, const double *values, void *out,
                uint64_t *ret_clipped, struct tiered_error *err);

    /** Refuses a group that the options cannot serve. */
    int (*aggregator_begin)(void *state, const struct tiered_group_round *round,
                            struct tiered_error *err);
    int (*aggregator_step)(void *state, uint32_t step, uint32_t member, void *out,
                           size_t capacity, size_t *ret_size, struct tiered_error *err);
    int (*aggregator_receive)(void *state, uint32_t step, uint32_t member,
                              const void *in, size_t in_size, struct tiered_error *err);
    /** Those who have not answered are out. -1: too few are left. */
    int (*aggregator_close)(void *state, uint32_t step, struct tiered_error *err);
    /** Is this member's masked update of this attempt? */
    int (*aggregator_check)(void *state, uint32_t member,
                            const uint8_t open[TIERED_GROUP_OPEN],
                            struct tiered_error *err);
    /** Whose updates are added: frozen from here on. Ascending. */
    int (*aggregator_survivors)(void *state, const uint32_t *members, uint32_t n,
                                struct tiered_error *err);
    /** After the post phase: the sum of the tails to the sums that they hide. */
    int (*sums)(void *state, const uint8_t tail[TIERED_GROUP_TAIL],
                struct tiered_group_weight *ret, struct tiered_error *err);
    /** The summed words of a range, which it overwrites, to the weighted mean. The sum
        of weights must not be 0. */
    int (*unmask)(void *state, uint64_t first, size_t n, void *words, double *out,
                  struct tiered_error *err);

    /** Before any state, from the config alone: the terms of a group of n_members, or
        why there can be none and what would help, so that a plan can tell. It says the
        same as aggregator_begin(). NULL: that is known when a round opens. */
    int (*terms)(const void *config, uint32_t n_members, struct tiered_group_terms *ret,
                 struct tiered_error *err);
};

#endif
