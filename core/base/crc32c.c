/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C: the processor's instruction where it has one, else tables, eight bytes a
 * step ("slicing by 8"). Polynomial 0x1EDC6F41, reflected 0x82F63B78.
 *
 * The instruction's result comes three cycles after it starts, and one starts every
 * cycle: three stretches are read at once and put together afterwards. A checksum moves
 * over the zeros that another stretch takes by a linear map, which is four look-ups.
 */
#include "core/base/base.h"

#include <pthread.h>
#include <string.h>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define FAR  8192u /* bytes of a stretch: powers of two */
#define NEAR 256u

/* table[k][b]: the CRC of byte b followed by k zero bytes. over_*[k][b]: what byte k of
   a checksum, b, becomes over that many zero bytes. Written once. */
static uint32_t table[8][256], over_far[4][256], over_near[4][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

/** The map's image of a checksum; map[i] is that of bit i. */
static uint32_t image(const uint32_t map[32], uint32_t crc)
{
    uint32_t result = 0;
    for (int bit = 0; bit < 32; bit++) {
        result ^= crc >> bit & 1 ? map[bit] : 0;
    }
    return result;
}

/** From the map over one zero byte, squared. */
static void fill_over(uint32_t over[4][256], size_t n_bytes)
{
    uint32_t map[32], twice[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        map[bit] = crc >> 8 ^ table[0][crc & 255];
    }
    for (; n_bytes > 1; n_bytes /= 2) {
        for (int bit = 0; bit < 32; bit++) {
            twice[bit] = image(map, map[bit]);
        }
        memcpy(map, twice, sizeof(map));
    }
    for (uint32_t b = 0; b < 256; b++) {
        for (int k = 0; k < 4; k++) {
            over[k][b] = image(map, b << 8 * k);
        }
    }
}

static void fill_table(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
        }
        table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int b = 0; b < 256; b++) {
            table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 255];
        }
    }
    fill_over(over_far, FAR);
    fill_over(over_near, NEAR);
}

static uint32_t load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

uint32_t tiered_crc32c_portable(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    pthread_once(&table_once, fill_table);
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t low = crc ^ load_le32(p), high = load_le32(p + 4);
        crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^
              table[5][low >> 16 & 255] ^ table[4][low >> 24] ^ table[3][high & 255] ^
              table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^
              table[0][high >> 24];
    }
    for (; n; n--, p++) {
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 255];
    }
    return ~crc;
}

#if defined(__x86_64__)
#define HAS_HARDWARE 1
#define TARGET       __attribute__((target("sse4.2")))
#define CRC64(crc, word)                                                               \
    ((crc) = (uint32_t)__builtin_ia32_crc32di((uint32_t)(crc), (word)))
#define CRC8(crc, byte) ((crc) = __builtin_ia32_crc32qi((crc), (byte)))

static bool has_hardware(void)
{
    return __builtin_cpu_supports("sse4.2");
}
#elif defined(__aarch64__) && defined(__BYTE_ORDER__) &&                               \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define HAS_HARDWARE 1
#define TARGET
/* By assembly: gcc and clang name the builtins differently and hide them unless the
   whole file is compiled for the extension. */
#define CRC64(crc, word)                                                               \
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word))
#define CRC8(crc, byte)                                                                \
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1"                             \
            : "+r"(crc)                                                                \
            : "r"((uint32_t)(byte)))

static bool has_hardware(void)
{
    return getauxval(AT_HWCAP) & HWCAP_CRC32;
}
#endif

#ifdef HAS_HARDWARE
static uint32_t over(uint32_t (*map)[256], uint32_t crc)
{
    return map[0][crc & 255] ^ map[1][crc >> 8 & 255] ^ map[2][crc >> 16 & 255] ^
           map[3][crc >> 24];
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return word;
}

/** Three stretches of `stretch` bytes at p. */
TARGET static uint32_t three(uint32_t crc, const uint8_t *p, size_t stretch,
                             uint32_t (*map)[256])
{
    uint32_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < stretch; i += 8) {
        CRC64(a, load64(p + i));
        CRC64(b, load64(p + i + stretch));
        CRC64(c, load64(p + i + 2 * stretch));
    }
    return over(map, over(map, a) ^ b) ^ c;
}

TARGET static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    pthread_once(&table_once, fill_table);
    for (; n >= 3 * FAR; n -= 3 * FAR, p += 3 * FAR) {
        crc = three(crc, p, FAR, over_far);
    }
    for (; n >= 3 * NEAR; n -= 3 * NEAR, p += 3 * NEAR) {
        crc = three(crc, p, NEAR, over_near);
    }
    for (; n >= 8; n -= 8, p += 8) {
        CRC64(crc, load64(p));
    }
    for (; n; n--, p++) {
        CRC8(crc, *p);
    }
    return ~crc;
}
#else
#define crc32c_hardware tiered_crc32c_portable

static bool has_hardware(void)
{
    return false;
}
#endif

uint32_t tiered_crc32c(uint32_t crc, const void *data, size_t n)
{
    return has_hardware() ? crc32c_hardware(crc, data, n)
                          : tiered_crc32c_portable(crc, data, n);
}
