/* SPDX-License-Identifier: Apache-2.0 */
/* Norms, random numbers and levels of QSGD. */
#include "quantise.h"

#include "tiered/random.h"

#define SUMS 8 /* running side by side: the same sum whatever the vectors are */

static uint64_t mix(uint64_t x) /* the finaliser of splitmix64 */
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void qsgd_rng_init(struct qsgd_rng *rng, const uint8_t key[32], uint32_t block)
{
    struct tiered_rng seeds;
    tiered_rng_init(&seeds, key);
    for (uint64_t i = 0; i < 4; i++) {
        seeds.s[i] = mix(seeds.s[i] + (4 * (uint64_t)block + i) * 0x9e3779b97f4a7c15u);
    }
    seeds.s[0] |= 1; /* never all zero */
    for (size_t lane = 0; lane < QSGD_LANES; lane++) {
        uint64_t a = tiered_rng_u64(&seeds), b = tiered_rng_u64(&seeds);
        rng->s[0][lane] = (uint32_t)a | 1; /* never all zero */
        rng->s[1][lane] = (uint32_t)(a >> 32);
        rng->s[2][lane] = (uint32_t)b;
        rng->s[3][lane] = (uint32_t)(b >> 32);
    }
}

void qsgd_rng_fill(struct qsgd_rng *rng, size_t n, uint32_t *out)
{
    struct qsgd_rng r = *rng;
    for (size_t at = 0; at < n; at += QSGD_LANES) {
        for (size_t i = 0; i < QSGD_LANES; i++) {
            uint32_t t = r.s[1][i] << 9;
            out[at + i] = (r.s[0][i] + r.s[3][i]) >> 8;
            r.s[2][i] ^= r.s[0][i];
            r.s[3][i] ^= r.s[1][i];
            r.s[1][i] ^= r.s[2][i];
            r.s[0][i] ^= r.s[3][i];
            r.s[2][i] ^= t;
            r.s[3][i] = r.s[3][i] << 11 | r.s[3][i] >> 21;
        }
    }
    *rng = r;
}

static double sum_of_squares(const float *in, size_t n)
{
    double sums[SUMS] = {0};
    size_t i = 0;
    for (; i + SUMS <= n; i += SUMS) {
        for (size_t k = 0; k < SUMS; k++) {
            double x = (double)in[i + k];
            sums[k] += x * x;
        }
    }
    for (; i < n; i++) {
        sums[0] += (double)in[i] * (double)in[i];
    }
    for (size_t k = 1; k < SUMS; k++) {
        sums[0] += sums[k];
    }
    return sums[0];
}

int qsgd_norm_f32(enum qsgd_norm norm, const float *in, size_t n, float *ret)
{
    uint32_t largest = codec_largest_bits(in, n);
    if (largest > CODEC_FINITE) {
        return -1;
    }
    *ret = codec_float(largest);
    if (norm == QSGD_L2) {
        double exact = sqrt(sum_of_squares(in, n));
        *ret = (float)exact;
        if ((double)*ret < exact) {
            *ret = nextafterf(*ret, INFINITY);
        }
    }
    return isfinite(*ret) ? 0 : -1;
}

/* Over the largest value, so that squares neither overflow nor vanish. */
int qsgd_norm_f64(enum qsgd_norm norm, const double *in, size_t n, double *ret)
{
    double largest = codec_largest_f64(in, n), sum = 0;
    if (largest > DBL_MAX) {
        return -1;
    }
    *ret = largest;
    if (norm == QSGD_L2 && largest > 0) {
        for (size_t i = 0; i < n; i++) {
            double x = in[i] / largest;
            sum += x * x;
        }
        *ret = largest * sqrt(sum);
    }
    return *ret <= DBL_MAX / 2 ? 0 : -1;
}

/* l = floor(r) + Bernoulli(r - floor(r)) with r = s |v| / norm. Very small and very
   large norms are brought near 1 by a power of two, so that s / norm keeps its digits.
 */
void qsgd_quantise(const float *in, size_t n, float norm, unsigned levels,
                   struct qsgd_rng *rng, int16_t *out)
{
    uint32_t random[CODEC_TILE];
    float shift = norm < 0x1p-60f ? 0x1p100f : norm > 0x1p60f ? 0x1p-64f : 1.0f;
    float most = (float)levels, factor = most / (norm * shift);
    qsgd_rng_fill(rng, n, random);
    for (size_t i = 0; i < n; i++) {
        float r = fabsf(in[i]) * shift * factor;
        r = r < most ? r : most;
        int32_t level = (int32_t)r;
        float rest = r - (float)level, u = (float)(int32_t)random[i] * 0x1p-24f;
        level += u < rest;
        out[i] = (int16_t)(in[i] < 0 ? -level : level);
    }
}

void qsgd_normalise(const double *in, size_t n, double norm, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)(in[i] / norm);
    }
}
