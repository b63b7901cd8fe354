/* SPDX-License-Identifier: Apache-2.0 */
/* libcrypto's primitives in the shape that the protocol needs. */
#include "crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <stdlib.h>
#include <string.h>

static int fail_library(const char *what, struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ENOMEM, "libcrypto cannot %s", what);
}

void ss_wipe(void *data, size_t n)
{
    OPENSSL_cleanse(data, n);
}

size_t ss_label(const struct ss_use *use, uint8_t out[SS_LABEL_BYTES])
{
    size_t n = (size_t)snprintf((char *)out, 32, "secure-sum 1 %s", use->purpose) + 1;
    memcpy(out + n, use->session, SS_SESSION_BYTES);
    n += SS_SESSION_BYTES;
    for (int i = 0; i < 4; i++) {
        out[n + (size_t)i] = (uint8_t)(use->from >> (8 * i));
        out[n + 4 + (size_t)i] = (uint8_t)(use->to >> (8 * i));
    }
    return n + 8;
}

int ss_public_key(const uint8_t secret[SS_KEY_BYTES], uint8_t out[SS_KEY_BYTES],
                  struct tiered_error *err)
{
    size_t n = SS_KEY_BYTES;
    EVP_PKEY *key =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, SS_KEY_BYTES);
    int ok = key && EVP_PKEY_get_raw_public_key(key, out, &n) == 1;
    EVP_PKEY_free(key);
    return ok ? 0 : fail_library("make an X25519 key", err);
}

/* A peer may send anything: a point of low order makes the shared secret zero, which
   libcrypto refuses. */
static int exchange(const uint8_t secret[SS_KEY_BYTES],
                    const uint8_t peer[SS_KEY_BYTES], uint8_t out[SS_KEY_BYTES])
{
    size_t n = SS_KEY_BYTES;
    EVP_PKEY *ours =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, SS_KEY_BYTES);
    EVP_PKEY *theirs =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, peer, SS_KEY_BYTES);
    EVP_PKEY_CTX *context = ours && theirs ? EVP_PKEY_CTX_new(ours, NULL) : NULL;
    int ok = context && EVP_PKEY_derive_init(context) == 1 &&
             EVP_PKEY_derive_set_peer(context, theirs) == 1 &&
             EVP_PKEY_derive(context, out, &n) == 1 && n == SS_KEY_BYTES;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(theirs);
    EVP_PKEY_free(ours);
    return ok ? 0 : -1;
}

static int derive(const uint8_t shared[SS_KEY_BYTES], const struct ss_use *use,
                  uint8_t out[SS_KEY_BYTES])
{
    uint8_t label[SS_LABEL_BYTES];
    size_t n = SS_KEY_BYTES;
    int label_size = (int)ss_label(use, label);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    int ok =
        context && EVP_PKEY_derive_init(context) == 1 &&
        EVP_PKEY_CTX_set_hkdf_md(context, EVP_sha256()) == 1 &&
        EVP_PKEY_CTX_set1_hkdf_salt(context, use->session, SS_SESSION_BYTES) == 1 &&
        EVP_PKEY_CTX_set1_hkdf_key(context, shared, SS_KEY_BYTES) == 1 &&
        EVP_PKEY_CTX_add1_hkdf_info(context, label, label_size) == 1 &&
        EVP_PKEY_derive(context, out, &n) == 1;
    EVP_PKEY_CTX_free(context);
    return ok ? 0 : -1;
}

int ss_agree(const uint8_t secret[SS_KEY_BYTES], const uint8_t peer[SS_KEY_BYTES],
             const struct ss_use *use, uint8_t out[SS_KEY_BYTES],
             struct tiered_error *err)
{
    uint8_t shared[SS_KEY_BYTES];
    int result = exchange(secret, peer, shared);
    if (result < 0) {
        tiered_fail(err, TIERED_EPEER, "not a usable public key");
    } else {
        result = derive(shared, use, out);
        if (result < 0) {
            fail_library("derive a key", err);
        }
    }
    ss_wipe(shared, sizeof(shared));
    return result;
}

/* The key is used for one message: the nonce may be zero. */
static const uint8_t nonce[12];

int ss_seal(const uint8_t key[SS_KEY_BYTES], const struct ss_use *use,
            const uint8_t *in, size_t n, uint8_t *out, struct tiered_error *err)
{
    uint8_t label[SS_LABEL_BYTES];
    int made = 0, label_size = (int)ss_label(use, label);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int ok = context &&
             EVP_EncryptInit_ex(context, EVP_chacha20_poly1305(), NULL, key, nonce) &&
             EVP_EncryptUpdate(context, NULL, &made, label, label_size) &&
             EVP_EncryptUpdate(context, out, &made, in, (int)n) &&
             EVP_EncryptFinal_ex(context, out + made, &made) &&
             EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, SS_TAG_BYTES, out + n);
    EVP_CIPHER_CTX_free(context);
    return ok ? 0 : fail_library("seal a share", err);
}

int ss_unseal(const uint8_t key[SS_KEY_BYTES], const struct ss_use *use,
              const uint8_t *in, size_t n, uint8_t *out, struct tiered_error *err)
{
    uint8_t label[SS_LABEL_BYTES];
    uint8_t tag[SS_TAG_BYTES];
    int made = 0, label_size = (int)ss_label(use, label);
    memcpy(tag, in + n, sizeof(tag));
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int ok = context &&
             EVP_DecryptInit_ex(context, EVP_chacha20_poly1305(), NULL, key, nonce) &&
             EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, SS_TAG_BYTES, tag) &&
             EVP_DecryptUpdate(context, NULL, &made, label, label_size) &&
             EVP_DecryptUpdate(context, out, &made, in, (int)n) &&
             EVP_DecryptFinal_ex(context, out + made, &made);
    EVP_CIPHER_CTX_free(context);
    return ok ? 0
              : tiered_fail(err, TIERED_EPEER,
                            "its sealed shares are forged or of another attempt");
}

int ss_digest(const struct ss_use *use, const void *data, size_t n,
              uint8_t out[SS_KEY_BYTES], struct tiered_error *err)
{
    uint8_t label[SS_LABEL_BYTES];
    size_t label_size = ss_label(use, label);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
             EVP_DigestUpdate(context, label, label_size) &&
             EVP_DigestUpdate(context, data, n) &&
             EVP_DigestFinal_ex(context, out, NULL);
    EVP_MD_CTX_free(context);
    return ok ? 0 : fail_library("hash", err);
}

/* ---- keystreams ---- */

struct ss_stream {
    EVP_CIPHER_CTX *context;
    EVP_CIPHER *cipher;
};

struct ss_stream *ss_stream_create(void)
{
    struct ss_stream *stream = calloc(1, sizeof(*stream));
    if (!stream) {
        return NULL;
    }
    stream->context = EVP_CIPHER_CTX_new();
    stream->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
    if (!stream->context || !stream->cipher) {
        ss_stream_destroy(stream);
        return NULL;
    }
    return stream;
}

void ss_stream_destroy(struct ss_stream *stream)
{
    if (stream) {
        EVP_CIPHER_CTX_free(stream->context);
        EVP_CIPHER_free(stream->cipher);
        free(stream);
    }
}

int ss_stream_begin(struct ss_stream *stream, const uint8_t key[SS_KEY_BYTES],
                    uint8_t region, uint64_t offset, struct tiered_error *err)
{
    uint8_t counter[16] = {region};
    uint8_t skipped[16];
    for (int i = 0; i < 8; i++) { /* big endian, as CTR counts */
        counter[15 - i] = (uint8_t)(offset / 16 >> (8 * i));
    }
    return EVP_EncryptInit_ex2(stream->context, stream->cipher, key, counter, NULL)
               ? ss_stream_read(stream, skipped, (size_t)(offset % 16), err)
               : fail_library("begin a keystream", err);
}

int ss_stream_read(struct ss_stream *stream, void *out, size_t n,
                   struct tiered_error *err)
{
    int made;
    memset(out, 0, n);
    return EVP_EncryptUpdate(stream->context, out, &made, out, (int)n)
               ? 0
               : fail_library("make a keystream", err);
}
