/* SPDX-License-Identifier: Apache-2.0 */
/**
 * QSGD's arithmetic (Alistarh et al., NeurIPS 2017): a bucket's values as signed levels
 * in -s..s of its norm, rounded at random so that the mean is the value; and back.
 */
#ifndef TIERED_QSGD_QUANTISE_H
#define TIERED_QSGD_QUANTISE_H

#include "../common/codec.h"

#define QSGD_MOST_LEVELS 32767
#define QSGD_LANES       16

/**
 * QSGD_LANES generators side by side, xoshiro128+ each (Blackman and Vigna,
 * arXiv:1805.01407), whose upper 24 bits are used. Lane i gives the numbers i, i +
 * QSGD_LANES, … of a block, whatever the machine's vectors are.
 */
struct qsgd_rng {
    uint32_t s[4][QSGD_LANES];
};

/** A block's own sequence: the pass's key and the block's index decide it. */
void qsgd_rng_init(struct qsgd_rng *rng, const uint8_t key[32], uint32_t block);
/** n numbers below 2^24 into out, which has room for n rounded up to QSGD_LANES. */
void qsgd_rng_fill(struct qsgd_rng *rng, size_t n, uint32_t *out);

enum qsgd_norm { QSGD_L2, QSGD_LINF };

/**
 * The norm that travels for a bucket, never below the exact one: an f32, or an f64 for
 * f64 values. -1: a value is not finite, or the norm is too large for its type.
 */
int qsgd_norm_f32(enum qsgd_norm norm, const float *in, size_t n, float *ret);
int qsgd_norm_f64(enum qsgd_norm norm, const double *in, size_t n, double *ret);

/** n <= CODEC_TILE values of a bucket as levels. norm > 0. */
void qsgd_quantise(const float *in, size_t n, float norm, unsigned levels,
                   struct qsgd_rng *rng, int16_t *out);
/** f64 values over their norm, so that qsgd_quantise with norm 1 takes them. */
void qsgd_normalise(const double *in, size_t n, double norm, float *out);

#endif
