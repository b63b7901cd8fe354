/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The bits of f16 and bf16. Internal to core/model. Rounding is to nearest even;
 * subnormals are kept, what is too large becomes infinite, and a NaN stays one with the
 * bits of its payload that fit. The same on every machine, with half-precision
 * instructions or without.
 */
#ifndef TIERED_CORE_HALF_H
#define TIERED_CORE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static inline float float_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    if (rest >= 0x7c00u << 13) { /* infinite or NaN */
        return float_from_bits(sign | 0x7f800000u | rest);
    }
    if (rest < 0x0400u << 13) { /* zero or subnormal: the value is h * 2^-24, exactly */
        float f = (float)(h & 0x7fff) * 0x1p-24f;
        return float_from_bits(sign | float_bits(f));
    }
    return float_from_bits(sign | (rest + ((127u - 15u) << 23)));
}

static inline uint16_t half_from_float(float f)
{
    uint32_t bits = float_bits(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000u) {
        uint32_t payload = rest >> 13 & 0x03ff;
        return (uint16_t)(sign | 0x7c00 | (payload ? payload : 0x0200));
    }
    if (rest >= 0x477ff000u) { /* 65520, half way past the largest */
        return (uint16_t)(sign | 0x7c00);
    }
    if (rest < 0x38800000u) { /* below 2^-14: adding 0.5 rounds to units of 2^-24 */
        float shifted = float_from_bits(rest) + 0.5f;
        return (uint16_t)(sign | (float_bits(shifted) - float_bits(0.5f)));
    }
    uint32_t odd = rest >> 13 & 1;
    return (uint16_t)(sign | ((rest - ((127u - 15u) << 23) + 0x0fff + odd) >> 13));
}

static inline float bfloat_to_float(uint16_t b)
{
    return float_from_bits((uint32_t)b << 16);
}

static inline uint16_t bfloat_from_float(float f)
{
    uint32_t bits = float_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000u) {
        uint32_t top = bits >> 16;
        return (uint16_t)(top & 0x7f ? top : top | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
