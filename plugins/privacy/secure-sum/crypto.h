/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What secure-sum takes from libcrypto: X25519, HKDF-SHA256, SHA-256, ChaCha20-Poly1305
 * for shares, AES-256-CTR for masks. Threads: pure functions; one stream, one thread.
 */
#ifndef SECURE_SUM_CRYPTO_H
#define SECURE_SUM_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#include "tiered/error.h"

#define SS_KEY_BYTES     32u
#define SS_TAG_BYTES     16u
#define SS_SESSION_BYTES 16u
#define SS_LABEL_BYTES   64u

int ss_public_key(const uint8_t secret[SS_KEY_BYTES], uint8_t out[SS_KEY_BYTES],
                  struct tiered_error *err);

/** What a derived key is for: two parties that derive one for the same purpose, attempt
    and direction get the same, and no other key is like it. */
struct ss_use {
    const char *purpose;
    const uint8_t *session;
    uint32_t from, to;
};

/** The key that two parties agree on. -1 TIERED_EPEER: not a usable public key. */
int ss_agree(const uint8_t secret[SS_KEY_BYTES], const uint8_t peer[SS_KEY_BYTES],
             const struct ss_use *use, uint8_t out[SS_KEY_BYTES],
             struct tiered_error *err);

/** The label of a use, as keys, associated data and commitments carry it. */
size_t ss_label(const struct ss_use *use, uint8_t out[SS_LABEL_BYTES]);

/** n bytes and their tag; the key seals one message in its life. */
int ss_seal(const uint8_t key[SS_KEY_BYTES], const struct ss_use *use,
            const uint8_t *in, size_t n, uint8_t *out, struct tiered_error *err);
int ss_unseal(const uint8_t key[SS_KEY_BYTES], const struct ss_use *use,
              const uint8_t *in, size_t n, uint8_t *out, struct tiered_error *err);

/** SHA-256 of a use's label and n bytes. */
int ss_digest(const struct ss_use *use, const void *data, size_t n,
              uint8_t out[SS_KEY_BYTES], struct tiered_error *err);

/** A keystream that can be read from any byte on. `region` keeps several apart. */
struct ss_stream;
struct ss_stream *ss_stream_create(void); /* NULL: out of memory */
void ss_stream_destroy(struct ss_stream *stream);
int ss_stream_begin(struct ss_stream *stream, const uint8_t key[SS_KEY_BYTES],
                    uint8_t region, uint64_t offset, struct tiered_error *err);
int ss_stream_read(struct ss_stream *stream, void *out, size_t n,
                   struct tiered_error *err);

void ss_wipe(void *data, size_t n);

#endif
