/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Filters: one stage of a pipe. Codecs make an update smaller, privacy filters bound or
 * blur it. A pipe runs its filters in order on the sender and their inverses in reverse
 * order on the receiver, block by block in bounded memory.
 *
 * Sender:    init ( refer begin scan(block)* header forward(block)* end )* destroy
 * Receiver:  init ( refer inverse_begin inverse(block)* inverse_end )* destroy
 *
 * scan() is called only with TIERED_NEEDS_SCAN, for every block, before the first
 * forward(). header() gives the bytes that travel once, ahead of the blocks. begin()
 * after an unfinished pass discards that pass.
 *
 * The first filter's input is a block's raw bytes: block->n_elements of block->dtype.
 * A later one's is whatever the filter before it made: `in_size` bytes.
 * With TIERED_CONCURRENT, forward() and inverse() of different blocks may overlap.
 * Where a later filter needs a scan, forward() is called for every block once for the
 * scan and once to write: within one pass the same input gives the same output.
 *
 * Privacy filters (TIERED_PRIVACY) may say two things of themselves from their config
 * alone, so that a plan can tell what a run will spend before it spends it: the norm
 * that they bound updates to, and the noise that they add. The host tells one that adds
 * noise the norm that the filters before it have bounded. A bound may also follow the
 * updates' norms (first_norm). As the last entry of
 * `aggregate:` such a filter sees no blocks: the host calls sensitivity, begin, then
 * add for the aggregated delta, then end.
 */
#ifndef TIERED_FILTER_H
#define TIERED_FILTER_H

#include "plugin.h"

#define TIERED_FILTER_HEADER_MAX (64u << 10)

/** What noise a filter adds. */
struct tiered_noise {
    size_t size;
    double noise_multiplier; /* standard deviation / sensitivity */
    double delta;            /* at which its epsilon is told, (0, 1) */
    uint32_t insecure;       /* 1: from a seed that others may know */
};

struct tiered_filter_ops {
    size_t size;

    int (*init)(const struct tiered_host *host, const void *config,
                const struct tiered_manifest *manifest, void **ret_state,
                struct tiered_error *err);
    void (*destroy)(void *state);

    /** The host's node and path name the pass: seeds depend on them. NULL: nothing. */
    int (*begin)(void *state, const struct tiered_host *host, struct tiered_error *err);
    int (*scan)(void *state, const struct tiered_block *block, const void *in,
                size_t in_size, struct tiered_error *err);
    int (*header)(void *state, void *out, size_t capacity, size_t *ret_size,
                  struct tiered_error *err);
    /** The most bytes that forward() may make of in_size. */
    size_t (*bound)(void *state, size_t in_size);
    int (*forward)(void *state, const struct tiered_block *block, const void *in,
                   size_t in_size, void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err);
    /** The pass is written: what producing it advanced may be saved now. NULL: nothing.
     */
    int (*end)(void *state, struct tiered_error *err);

    int (*inverse_begin)(void *state, const void *header, size_t header_size,
                         struct tiered_error *err);
    /** `capacity` is the largest output that the caller accepts: make no more. The
        input comes from the network: trust nothing in it. */
    int (*inverse)(void *state, const struct tiered_block *block, const void *in,
                   size_t in_size, void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err);
    int (*inverse_end)(void *state, struct tiered_error *err);
    struct tiered_saved_state saved; /* error feedback and the like */
    /** Before begin() and inverse_begin(): a model that both ends have, laid out by the
        manifest, and its digest (32 bytes). Borrowed until the pass is over. Both NULL:
        none, and what was told before is void. The two ends may be told of different
        ones, so a pass that refers to one says in its header to which. A filter without
        this member (NULL) is never told. */
    int (*refer)(void *state, const void *model, const uint8_t *digest,
                 struct tiered_error *err);
    /** The L2 norm over the parameters (floats of role parameter) that no update is
        above behind this filter; 0: no such norm is fixed. NULL: it bounds none. */
    double (*norm)(const void *config);
    /** Gaussian noise on the parameters. NULL: it adds none; then the next three are
        not called either. */
    void (*noise)(const void *config, struct tiered_noise *ret);
    /** Before begin(): how far one contribution can move what the noise is added to.
        0: nothing bounds it. */
    int (*sensitivity)(void *state, double norm, struct tiered_error *err);
    /** Add the pass's noise to the elements at..at + n of a block, in f64 and in place;
        `at` is a multiple of 64. Different elements may be asked for at once. The host
        may ask for one block more, behind the model's last, of one f64 parameter: for
        what a round publishes beside the model. */
    int (*add)(void *state, const struct tiered_block *block, uint64_t at, size_t n,
               double *values, struct tiered_error *err);
    /** How often noise was let out: passes that came to their end, those before a
        load() included. */
    uint64_t (*released)(const void *state);
    /** A bound that follows the norms of those whom it bounds (Andrew et al. 2021,
        arXiv:1905.03871). Their parent has it, tells it with each order to train, and
        moves it after the round by the share of updates that were within it. Without a
        parent it stays the first one. NULL: the filter has no such bound; then the next
        three are not called either. first_norm: of the first round; 0: with these
        options it does not follow. */
    double (*first_norm)(const void *config);
    /** Before begin(): the parent's norm, finite and above 0. */
    int (*bound_to)(void *state, double norm, struct tiered_error *err);
    /** 1: the pass's update was within its norm; 0: it was clipped. The sender's after
        header(), the receiver's after inverse_begin(). */
    int (*within)(const void *state);
    /** The next round's norm: finite, above 0. `share` of the updates were within this
        one; noise may have moved it out of [0, 1]. */
    double (*next_norm)(const void *config, double norm, double share);
};

#endif
