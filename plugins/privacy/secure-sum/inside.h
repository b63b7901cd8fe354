/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The two sides of secure-sum, shared by the files of this folder. Bonawitz et al. 2017
 * (CCS): each member masks its update with a stream of its own (seed b) and one stream
 * a neighbour (from a key pair s), and hands shares of b and of s's secret to its
 * neighbours and itself. Of a survivor b is revealed, of a dropout s: never both.
 *
 *   1 pre   hello      -> keys      public keys for sealing (c) and for masks (s)
 *   2 pre   roster     -> shares    sealed shares, and commitments to them
 *   3 pre   delivery   -> ready     whoever misses this may still be unmasked
 *           masked update
 *   4 post  survivors  -> reveal    one share a neighbour
 */
#ifndef SECURE_SUM_INSIDE_H
#define SECURE_SUM_INSIDE_H

#include <stdbool.h>

#include "crypto.h"
#include "graph.h"
#include "message.h"
#include "ring.h"
#include "shamir.h"
#include "tiered/group.h"

#define SS_PRE_STEPS    3u
#define SS_POST_STEPS   1u
#define SS_MOST_MEMBERS 65536u
#define SS_MOST_WORTH   (1ull << 43) /* num_examples of one member */
#define SS_SEALED_BYTES (2 * SS_SECRET_BYTES + SS_TAG_BYTES)
#define SS_COMMIT_BYTES (2 * SS_KEY_BYTES)
#define SS_REVEAL_BYTES (1 + SS_SECRET_BYTES)

enum ss_step { SS_HELLO = 1, SS_ROSTER, SS_DELIVERY, SS_SURVIVORS };
enum ss_kind { SS_SEED = 1, SS_SECRET = 2 };   /* what a share is of: b or s */
enum ss_region { SS_VALUES = 0, SS_TAIL = 1 }; /* of a mask's stream */

/** What both sides must agree on. */
struct ss_rules {
    double threshold;
    uint32_t min_group, neighbours;
    struct ss_ring ring;
    uint32_t least; /* of members in a sum, as the host has it; 0: no matter */
};

/** The share of `n` that must be there: more than half. */
uint32_t ss_threshold(const struct ss_rules *rules, uint32_t n);
/** … and of a group also min_group: so many must reveal. */
uint32_t ss_enough(const struct ss_rules *rules, uint32_t n);
/** … and of a sum also as many as the host asks for. */
uint32_t ss_needed(const struct ss_rules *rules, uint32_t n);
/** The options, and what the host asks for in this round. */
struct ss_rules ss_round_rules(const struct ss_rules *rules,
                               const struct tiered_group_round *round);
/** Can such a group be? Sets the ring's steps. */
int ss_check_group(struct ss_rules *rules, uint32_t n, struct tiered_error *err);

/** A share's commitment. */
int ss_commit(enum ss_kind kind, const uint8_t *session, uint32_t owner,
              uint32_t holder, const uint8_t share[SS_SECRET_BYTES],
              uint8_t out[SS_KEY_BYTES], struct tiered_error *err);
/** The holder's number among an owner's neighbours and itself, from 0; its Shamir x is
    one more. */
uint32_t ss_rank(const uint32_t *neighbours, uint32_t n, uint32_t owner,
                 uint32_t holder);

/* ---- a member ---- */

struct ss_neighbour {
    uint32_t member;
    uint8_t public_c[SS_KEY_BYTES], public_s[SS_KEY_BYTES];
    bool sharing;                      /* its shares came: masks and reveals count it */
    uint8_t share[2][SS_SECRET_BYTES]; /* of its b and its s */
    uint8_t mask[SS_KEY_BYTES];
};

struct ss_member {
    const struct tiered_host *host;
    uint64_t n_values;
    bool spent;
    uint32_t step; /* the last one answered; 0: none */
    uint8_t session[SS_SESSION_BYTES];
    uint32_t n, self;
    struct ss_rules rules;
    uint8_t secret_c[SS_KEY_BYTES], secret_s[SS_KEY_BYTES], seed[SS_KEY_BYTES];
    uint8_t public_c[SS_KEY_BYTES], public_s[SS_KEY_BYTES];
    uint8_t own_share[SS_SECRET_BYTES]; /* of b */
    uint8_t *advertised, *shared;       /* sets of members: answered steps 1 and 2 */
    uint32_t n_neighbours;
    struct ss_neighbour *neighbours; /* ascending */
    bool opened;
    uint64_t weight, next; /* of the masked update */
    uint8_t coins[SS_KEY_BYTES];
    uint8_t last_in[SS_KEY_BYTES]; /* digest of the last message … */
    uint8_t *last_out;             /* … and the answer to it */
    size_t last_size;
};

void ss_member_finish(struct ss_member *m);
int ss_member_begin(struct ss_member *m, const struct ss_rules *rules,
                    const struct tiered_group_round *round, struct tiered_error *err);
int ss_member_step(struct ss_member *m, uint32_t step, const void *in, size_t in_size,
                   void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err);
int ss_member_open(struct ss_member *m, const struct tiered_group_weight *weight,
                   uint64_t n_values, uint8_t open[TIERED_GROUP_OPEN],
                   uint8_t tail[TIERED_GROUP_TAIL], struct tiered_error *err);
int ss_member_mask(struct ss_member *m, uint64_t first, size_t n, const double *values,
                   void *out, uint64_t *ret_clipped, struct tiered_error *err);

/* ---- the aggregator ---- */

struct ss_peer {
    bool answered; /* the open step */
    bool advertised, shared, survived, revealed;
    uint8_t public_c[SS_KEY_BYTES], public_s[SS_KEY_BYTES];
    uint32_t n_neighbours, *neighbours; /* ascending */
    uint8_t *sealed;                    /* for each neighbour */
    uint8_t *commits;                   /* for each holder: its neighbours and itself */
    uint8_t *reveals; /* of each owner whose share it holds, by ss_rank of them */
};

struct ss_mask {
    uint8_t key[SS_KEY_BYTES];
    int sign; /* that takes it out of the sum */
};

struct ss_aggregator {
    bool running;
    uint32_t step;   /* the open one; 0: none */
    uint32_t closed; /* the last one closed */
    uint8_t session[SS_SESSION_BYTES];
    struct ss_rules rules;
    const char *const *names;
    uint32_t n, n_survivors;
    uint64_t n_values;
    struct ss_peer *peers;
    struct ss_mask *masks;
    size_t n_masks;
    bool unmaskable;
    uint64_t total_weight; /* once summed; 0: not yet */
};

void ss_aggregator_finish(struct ss_aggregator *a);
int ss_aggregator_begin(struct ss_aggregator *a, const struct ss_rules *rules,
                        const struct tiered_group_round *round,
                        struct tiered_error *err);
int ss_aggregator_step(struct ss_aggregator *a, uint32_t step, uint32_t member,
                       void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err);
int ss_aggregator_receive(struct ss_aggregator *a, uint32_t step, uint32_t member,
                          const void *in, size_t in_size, struct tiered_error *err);
int ss_aggregator_close(struct ss_aggregator *a, uint32_t step,
                        struct tiered_error *err);
int ss_aggregator_check(struct ss_aggregator *a, uint32_t member, const uint8_t *open,
                        struct tiered_error *err);
int ss_aggregator_survivors(struct ss_aggregator *a, const uint32_t *members,
                            uint32_t n, struct tiered_error *err);
const char *ss_name(const struct ss_aggregator *a, uint32_t member, char out[32]);

/** A node's: whichever side it is. */
struct ss_state {
    struct ss_rules rules;
    struct ss_member member;
    struct ss_aggregator aggregator;
};

/* reveal.c: what the post phase makes of it. */
int ss_take_reveal(struct ss_aggregator *a, uint32_t member, struct ss_reader *r,
                   struct tiered_error *err);
int ss_reconstruct(struct ss_aggregator *a, struct tiered_error *err);
int ss_aggregator_sums(struct ss_aggregator *a, const uint8_t tail[TIERED_GROUP_TAIL],
                       struct tiered_group_weight *ret, struct tiered_error *err);
int ss_aggregator_unmask(struct ss_aggregator *a, uint64_t first, size_t n, void *words,
                         double *out, struct tiered_error *err);

#endif
