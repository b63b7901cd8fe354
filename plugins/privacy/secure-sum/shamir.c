/* SPDX-License-Identifier: Apache-2.0 */
/* Polynomials over GF(2^8): x^8 + x^4 + x^3 + x + 1. */
#include "shamir.h"

#include <string.h>

/* a * b; the time depends on neither. */
static uint8_t multiply(uint8_t a, uint8_t b)
{
    uint8_t product = 0;
    for (int i = 0; i < 8; i++) {
        product ^= (uint8_t)(a & -(b & 1));
        b >>= 1;
        a = (uint8_t)((a << 1) ^ (0x1b & -(a >> 7)));
    }
    return product;
}

/* a^254 = 1 / a. Of holders' numbers, which are public. */
static uint8_t invert(uint8_t a)
{
    uint8_t result = 1;
    for (int i = 0; i < 7; i++) {
        a = multiply(a, a);
        result = multiply(result, a);
    }
    return result;
}

void ss_share(const uint8_t secret[SS_SECRET_BYTES], const uint8_t *coefficients,
              uint32_t threshold, uint8_t x, uint8_t out[SS_SECRET_BYTES])
{
    uint8_t value[SS_SECRET_BYTES] = {0};
    for (uint32_t power = threshold; power-- > 0;) { /* Horner, highest first */
        const uint8_t *c =
            power ? coefficients + (size_t)(power - 1) * SS_SECRET_BYTES : secret;
        for (size_t i = 0; i < SS_SECRET_BYTES; i++) {
            value[i] = multiply(value[i], x) ^ c[i];
        }
    }
    memcpy(out, value, sizeof(value));
}

void ss_combine(const uint8_t *x, const uint8_t (*shares)[SS_SECRET_BYTES], uint32_t n,
                uint8_t out[SS_SECRET_BYTES])
{
    uint8_t secret[SS_SECRET_BYTES] = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint8_t over = 1, under = 1; /* Lagrange's coefficient at 0 */
        for (uint32_t j = 0; j < n; j++) {
            if (j != i) {
                over = multiply(over, x[j]);
                under = multiply(under, x[i] ^ x[j]);
            }
        }
        uint8_t weight = multiply(over, invert(under));
        for (size_t k = 0; k < SS_SECRET_BYTES; k++) {
            secret[k] ^= multiply(shares[i][k], weight);
        }
    }
    memcpy(out, secret, sizeof(secret));
}
