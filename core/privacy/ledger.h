/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The ledger of a plan: which tiers add noise, and what that spends.
 *
 * A line is one kind of noise at one tier. Local noise is in the tier's uplink: each
 * contribution of a node is a step of its own line, with q = 1, and what is protected
 * is that node's part. Distributed noise is local noise in front of a group whose
 * parent sees sums alone: the steps are the same, each against the noise of all that a
 * sum has at least. Central noise ends the tier's `aggregate`: each round of a node is
 * a step, and what is protected is one child of it; q is the chance of `sample:
 * {poisson: …}`, and 1 for every other sampling. Nodes of a tier have disjoint
 * children, so the tier spends what its busiest node spends.
 *
 * A path of round numbers is released at most once by a node, so a run of R rounds
 * takes at most R * per_round steps; the ledger counts every node as asked each time.
 *
 * Threads: immutable once made.
 */
#ifndef TIERED_CORE_PRIVACY_LEDGER_H
#define TIERED_CORE_PRIVACY_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/base.h"
#include "core/privacy/accountant.h"
#include "core/privacy/distributed.h"

struct tiered_plan;
struct tiered_arena;

struct tiered_ledger_line {
    uint32_t tier;
    bool central;
    bool bounded;  /* a clip fixes what one contribution can change: else no epsilon */
    bool insecure; /* the noise is drawn from a seed that others may know */
    bool
        unproven; /* q = 1 although a round asks a share: its sampling amplifies nothing
                   */
    double noise_multiplier, delta, q;
    double share; /* local noise: the multiplier that a node itself adds */
    struct tiered_distributed group; /* local noise: whose adds up with it */
    uint64_t per_round;              /* steps in one round of the root, at most */
    uint32_t node;                   /* the first of those whose line it is */
    struct tiered_accountant step;
};

struct tiered_ledger {
    size_t n;
    struct tiered_ledger_line *lines;
    /* By node and place of the noise: the number of its line, or UINT32_MAX. NULL
       without lines. */
    uint32_t *local, *central;
};

/** "local", "distributed" or "central". */
const char *tiered_ledger_kind(const struct tiered_ledger_line *line);
/** Of all nodes of the plan, in `arena`. */
int tiered_ledger_make(const struct tiered_plan *plan, struct tiered_arena *arena,
                       struct tiered_ledger *ret, struct tiered_error *err);
/** `central`: the line of its aggregate's noise, else of its uplink's. NULL: this node
    adds none. */
const struct tiered_ledger_line *
tiered_ledger_line_of(const struct tiered_ledger *ledger, uint32_t node, bool central);
/** What `steps` steps spend, at the line's delta; INFINITY when it is not bounded. */
double tiered_ledger_epsilon(const struct tiered_ledger_line *line, uint64_t steps);
/** The most rounds of the root, up to `most`, in which no bounded line spends more than
    `epsilon`. */
uint32_t tiered_ledger_rounds(const struct tiered_ledger *ledger, double epsilon,
                              uint32_t most);

#endif
