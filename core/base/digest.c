/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256, the run's seeds (HMAC-SHA256) and the operating system's generator. */
#include "core/base/base.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

struct tiered_hash {
    EVP_MD_CTX *context;
};

/* SHA-256 is in every provider, so failure means a broken installation or no memory.
   Going on with a wrong digest would be worse than stopping. */
static void must(bool ok)
{
    if (!ok) {
        abort();
    }
}

struct tiered_hash *tiered_hash_create(void)
{
    struct tiered_hash *hash = calloc(1, sizeof(*hash));
    if (!hash) {
        return NULL;
    }
    hash->context = EVP_MD_CTX_new();
    if (!hash->context || EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1) {
        tiered_hash_destroy(hash);
        return NULL;
    }
    return hash;
}

void tiered_hash_update(struct tiered_hash *hash, const void *data, size_t n)
{
    must(EVP_DigestUpdate(hash->context, data, n) == 1);
}

void tiered_hash_final(struct tiered_hash *hash, struct tiered_digest *ret)
{
    must(EVP_DigestFinal_ex(hash->context, ret->bytes, NULL) == 1);
}

void tiered_hash_destroy(struct tiered_hash *hash)
{
    if (hash) {
        EVP_MD_CTX_free(hash->context);
        free(hash);
    }
}

void tiered_digest_of(const void *data, size_t n, struct tiered_digest *ret)
{
    must(EVP_Digest(data, n, ret->bytes, NULL, EVP_sha256(), NULL) == 1);
}

bool tiered_digest_equal(const struct tiered_digest *a, const struct tiered_digest *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool tiered_digest_is_none(const struct tiered_digest *d)
{
    static const struct tiered_digest none;
    return tiered_digest_equal(d, &none);
}

void tiered_digest_hex(const struct tiered_digest *d, char out[65])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof(d->bytes); i++) {
        out[2 * i] = digits[d->bytes[i] >> 4];
        out[2 * i + 1] = digits[d->bytes[i] & 15];
    }
    out[64] = 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool tiered_digest_parse(const char *hex, struct tiered_digest *ret)
{
    struct tiered_digest d;
    if (!hex || strlen(hex) != 2 * sizeof(d.bytes)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(d.bytes); i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        d.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *ret = d;
    return true;
}

/* Key: the run's seed, 8 bytes little endian. Message: the three strings, each with
   its final NUL, so that no two different triples give the same bytes. */
void tiered_seed(uint64_t run_seed, const char *purpose, const char *node,
                 const char *path, uint8_t out[32])
{
    uint8_t key[8];
    for (int i = 0; i < 8; i++) {
        key[i] = (uint8_t)(run_seed >> (8 * i));
    }
    const char *const parts[] = {purpose, node, path};
    struct tiered_bytes message = {0};
    for (size_t i = 0; i < TIERED_COUNT(parts); i++) {
        const char *text = parts[i] ? parts[i] : "";
        must(tiered_bytes_append(&message, text, strlen(text) + 1, NULL) == 0);
    }
    must(HMAC(EVP_sha256(), key, sizeof(key), message.data, message.size, out, NULL) !=
         NULL);
    tiered_bytes_finish(&message);
}

int tiered_secret(void *out, size_t n, struct tiered_error *err)
{
    uint8_t *at = out;
    while (n) {
        ssize_t got = getrandom(at, n < 256 ? n : 256, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return tiered_fail(err, TIERED_EIO,
                               "the system's random generator failed: %s",
                               strerror(errno));
        }
        at += got;
        n -= (size_t)got;
    }
    return 0;
}
