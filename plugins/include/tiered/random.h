/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A keyed generator for what the run's seed decides: xoshiro256** (Blackman and Vigna,
 * arXiv:1805.01407) started from the 32 bytes of tiered_host.seed. Not for keys or
 * privacy noise: those come from tiered_host.secret.
 *
 * The same key gives the same sequence on every machine. One generator is used by one
 * thread at a time.
 */
#ifndef TIERED_RANDOM_H
#define TIERED_RANDOM_H

#include <math.h>
#include <stdint.h>
#include <string.h>

struct tiered_rng {
    uint64_t s[4];
};

static inline void tiered_rng_init(struct tiered_rng *rng, const uint8_t key[32])
{
    for (int i = 0; i < 4; i++) {
        rng->s[i] = 0;
        for (int b = 0; b < 8; b++) { /* little endian on every machine */
            rng->s[i] |= (uint64_t)key[i * 8 + b] << (8 * b);
        }
    }
    if (!(rng->s[0] | rng->s[1] | rng->s[2] | rng->s[3])) {
        rng->s[0] = 1; /* the all-zero state is the one fixed point */
    }
}

static inline uint64_t tiered_rng_u64(struct tiered_rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t x = s[1] * 5, result = ((x << 7) | (x >> 57)) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/** Uniform in [0, 1), 53 bits. */
static inline double tiered_rng_uniform(struct tiered_rng *rng)
{
    return (double)(tiered_rng_u64(rng) >> 11) * 0x1.0p-53;
}

/** Uniform in [0, n), without bias. n > 0. */
static inline uint64_t tiered_rng_below(struct tiered_rng *rng, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do {
        x = tiered_rng_u64(rng);
    } while (x >= limit);
    return x % n;
}

/** Standard normal (Box and Muller; the second value is not kept). */
static inline double tiered_rng_normal(struct tiered_rng *rng)
{
    double u = 1.0 - tiered_rng_uniform(rng), v = tiered_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

/** Fisher and Yates shuffle of n indices. */
static inline void tiered_rng_shuffle(struct tiered_rng *rng, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)tiered_rng_below(rng, i);
        uint32_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}

#endif
