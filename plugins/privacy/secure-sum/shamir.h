/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Shamir's secret sharing, byte by byte over GF(2^8) with the AES polynomial. What
 * depends on secrets is computed without branches and tables. Source: Shamir 1979.
 */
#ifndef SECURE_SUM_SHAMIR_H
#define SECURE_SUM_SHAMIR_H

#include <stddef.h>
#include <stdint.h>

#define SS_SECRET_BYTES 32u
#define SS_MOST_HOLDERS 255u

/** The share of holder `x`, 1..255: any `threshold` of them make the secret.
    `coefficients` are (threshold - 1) * SS_SECRET_BYTES random bytes, the same for all
    holders of one secret. */
void ss_share(const uint8_t secret[SS_SECRET_BYTES], const uint8_t *coefficients,
              uint32_t threshold, uint8_t x, uint8_t out[SS_SECRET_BYTES]);

/** The secret from n shares of the different holders x[i]: n at least the threshold. */
void ss_combine(const uint8_t *x, const uint8_t (*shares)[SS_SECRET_BYTES], uint32_t n,
                uint8_t out[SS_SECRET_BYTES]);

#endif
