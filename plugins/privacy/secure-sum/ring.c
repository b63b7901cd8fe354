/* SPDX-License-Identifier: Apache-2.0 */
/* Fixed point in a ring, and masks. Plain loops over tiles that stay in the first
   cache, which the compiler makes wide. */
#include "ring.h"

#include <math.h>
#include <string.h>

#define TILE      2048u
#define MIN_STEPS 256.0 /* of a weight of 1, from 0 to the clip */

int ss_ring_fit(struct ss_ring *ring, uint32_t n, struct tiered_error *err)
{
    /* n * (max_weight * clip * 2^e + 1) < 2^(bits - 1); the 1 is the rounding's. */
    double room = ldexp(1, (int)ring->word_bytes * 8 - 1) / (n ? n : 1) - 2;
    double most = (double)ring->max_weight * ring->clip;
    if (room <= 0 || ldexp(ring->clip, (int)floor(log2(room / most))) < MIN_STEPS) {
        return tiered_fail(err, TIERED_ERANGE,
                           "the sum of %u updates of +-%g and weights up to %llu does "
                           "not fit words of %u bits; %slower max_weight or clip_range",
                           n, ring->clip, (unsigned long long)ring->max_weight,
                           ring->word_bytes * 8,
                           ring->word_bytes == 4 ? "set bits: 64, or " : "");
    }
    ring->exponent = (int)floor(log2(room / most));
    return 0;
}

struct encoder {
    double clip, scale;
    uint64_t *clipped;
};

/* One number to a signed step count. */
static inline int64_t to_steps(const struct encoder *e, double value, uint32_t coin)
{
    double v = value > e->clip ? e->clip : value < -e->clip ? -e->clip : value;
    *e->clipped += v != value;
    double y = v * e->scale;
    int64_t low = (int64_t)y;
    low -= y < (double)low;
    return low + ((double)coin * 0x1p-32 < y - (double)low);
}

static int check_finite(const double *values, size_t n, struct tiered_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) {
            return tiered_fail(err, TIERED_ERANGE, "a value is %s",
                               isnan(values[i]) ? "nan" : "infinite");
        }
    }
    return 0;
}

int ss_ring_encode(const struct ss_ring *ring, const double *values, size_t n,
                   uint64_t weight, struct ss_stream *coins, void *out,
                   uint64_t *ret_clipped, struct tiered_error *err)
{
    uint32_t coin[TILE];
    uint64_t clipped = 0;
    const struct encoder e = {ring->clip, ldexp((double)weight, ring->exponent),
                              &clipped};
    if (check_finite(values, n, err) < 0) {
        return -1;
    }
    for (size_t at = 0; at < n; at += TILE) {
        size_t m = n - at < TILE ? n - at : TILE;
        if (ss_stream_read(coins, coin, m * sizeof(*coin), err) < 0) {
            return -1;
        }
        for (size_t i = 0; i < m; i++) {
            int64_t steps = to_steps(&e, values[at + i], coin[i]);
            if (ring->word_bytes == 4) {
                ((uint32_t *)out)[at + i] = (uint32_t)steps;
            } else {
                ((uint64_t *)out)[at + i] = (uint64_t)steps;
            }
        }
    }
    *ret_clipped += clipped;
    return 0;
}

static void add32(uint32_t *words, const uint32_t *mask, size_t n, int sign)
{
    for (size_t i = 0; i < n; i++) {
        words[i] = sign > 0 ? words[i] + mask[i] : words[i] - mask[i];
    }
}

static void add64(uint64_t *words, const uint64_t *mask, size_t n, int sign)
{
    for (size_t i = 0; i < n; i++) {
        words[i] = sign > 0 ? words[i] + mask[i] : words[i] - mask[i];
    }
}

int ss_ring_mask(uint32_t word_bytes, void *words, size_t n, int sign,
                 struct ss_stream *stream, struct tiered_error *err)
{
    uint64_t mask[TILE];
    size_t most = sizeof(mask) / word_bytes;
    for (size_t at = 0; at < n; at += most) {
        size_t m = n - at < most ? n - at : most;
        uint8_t *to = (uint8_t *)words + at * word_bytes;
        if (ss_stream_read(stream, mask, m * word_bytes, err) < 0) {
            return -1;
        }
        if (word_bytes == 4) {
            add32((uint32_t *)to, (const uint32_t *)mask, m, sign);
        } else {
            add64((uint64_t *)to, mask, m, sign);
        }
    }
    return 0;
}

void ss_ring_decode(const struct ss_ring *ring, const void *words, size_t n,
                    uint64_t total_weight, double *out)
{
    double step = ldexp(1, -ring->exponent), total = (double)total_weight;
    for (size_t i = 0; i < n; i++) {
        double steps = ring->word_bytes == 4
                           ? (double)(int32_t)((const uint32_t *)words)[i]
                           : (double)(int64_t)((const uint64_t *)words)[i];
        out[i] = steps * step / total;
    }
}
