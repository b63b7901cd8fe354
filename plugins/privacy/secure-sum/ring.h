/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Numbers in the ring of integers modulo 2^32 or 2^64: a value clipped to +-clip, times
 * its member's weight, in steps of 2^-exponent, rounded up or down at random so that
 * the mean is right. A sum is read as a signed number.
 */
#ifndef SECURE_SUM_RING_H
#define SECURE_SUM_RING_H

#include "crypto.h"

struct ss_ring {
    uint32_t word_bytes; /* 4 or 8 */
    double clip;
    uint64_t max_weight;
    int exponent;
};

/** The finest steps with which n members cannot wrap the ring. -1 TIERED_ERANGE: a
    weight of 1 would have less than 8 bits a side. */
int ss_ring_fit(struct ss_ring *ring, uint32_t n, struct tiered_error *err);

/** n values, each times `weight`. `coins` decides the rounding: at the place of the
    first value. -1 TIERED_ERANGE: not finite. */
int ss_ring_encode(const struct ss_ring *ring, const double *values, size_t n,
                   uint64_t weight, struct ss_stream *coins, void *out,
                   uint64_t *ret_clipped, struct tiered_error *err);

/** words += or -= a keystream that has begun at their place. */
int ss_ring_mask(uint32_t word_bytes, void *words, size_t n, int sign,
                 struct ss_stream *stream, struct tiered_error *err);

/** Sums of n words to sum / total_weight. */
void ss_ring_decode(const struct ss_ring *ring, const void *words, size_t n,
                    uint64_t total_weight, double *out);

#endif
