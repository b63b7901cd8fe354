/* SPDX-License-Identifier: Apache-2.0 */
/* The Gaussian mechanism: noise of standard deviation noise_multiplier * C on every
   parameter. A pass draws one key from the operating system and expands it by ChaCha20,
   so that any element's noise can be made at any time and on any thread. */
#include "tiered/filter.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "normal.h"
#include "through.h"
#include "values.h"

#define KEY_BYTES 32
#define TILE      1024u /* values at a time: whole groups, all in the first cache */

struct config {
    double noise_multiplier, delta;
    int64_t insecure_seed;
    bool seeded;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, noise_multiplier, NULL, 0, INFINITY,
                         "the noise's standard deviation, as a multiple of what one "
                         "contribution can change",
                         .flags = TIERED_REQUIRED | TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_DOUBLE(struct config, delta, "1e-5", 0, 1,
                         "the delta at which epsilon is told",
                         .flags = TIERED_EXCLUSIVE_MIN | TIERED_EXCLUSIVE_MAX),
    TIERED_OPTION_INTEGER(struct config, insecure_seed, NULL, 0, 0x1p53,
                          "for tests: noise from this number, which hides nothing from "
                          "those who know it. If absent, from the operating system",
                          .given_offset = offsetof(struct config, seeded)),
};

struct state {
    const struct config *config;
    const struct values_ops *values;
    normal_add_fn add;
    EVP_CIPHER *cipher; /* looked up once, not for every context */
    double deviation;   /* of the noise */
    uint8_t key[KEY_BYTES];
    bool plain_parts; /* the model has tensors that get no noise */
    uint64_t released;
};

static bool is_private(const struct tiered_tensor *t)
{
    const struct tiered_block like = {.dtype = t->dtype, .role = t->role};
    return values_are_private(&like);
}

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    (void)host;
    struct state *s = calloc(1, sizeof(*s));
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->cipher = EVP_CIPHER_fetch(NULL, "ChaCha20", NULL);
    if (!s->cipher) {
        free(s);
        return tiered_fail(err, TIERED_EIO, "OpenSSL has no ChaCha20");
    }
    s->config = config;
    s->values = values_ops(tiered_vector_level());
    s->add = normal_add(tiered_vector_level());
    s->deviation = s->config->noise_multiplier;
    for (uint32_t i = 0; i < manifest->n_tensors; i++) {
        const struct tiered_tensor *t = &manifest->tensors[i];
        s->plain_parts = s->plain_parts || (t->n_elements && !is_private(t));
    }
    *ret_state = s;
    return 0;
}

static void filter_destroy(void *state)
{
    struct state *s = state;
    OPENSSL_cleanse(s->key, sizeof(s->key));
    EVP_CIPHER_free(s->cipher);
    free(s);
}

/* Without a bound the noise is measured in units of 1: there is no epsilon then. */
static int filter_sensitivity(void *state, double norm, struct tiered_error *err)
{
    struct state *s = state;
    double deviation = s->config->noise_multiplier * (norm > 0 ? norm : 1);
    if (!isfinite(deviation)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "a noise_multiplier of %g times a norm of %g is no number",
                           s->config->noise_multiplier, norm);
    }
    s->deviation = deviation;
    return 0;
}

/* Another key in each round of each node, from the seed as written. */
static int seeded_key(struct state *s, const struct tiered_host *host,
                      struct tiered_error *err)
{
    uint8_t text[KEY_BYTES + 8];
    uint64_t seed = (uint64_t)s->config->insecure_seed;
    host->seed(host, "gaussian", text);
    for (int i = 0; i < 8; i++) {
        text[KEY_BYTES + i] = (uint8_t)(seed >> (8 * i));
    }
    return EVP_Digest(text, sizeof(text), s->key, NULL, EVP_sha256(), NULL) == 1
               ? 0
               : tiered_fail(err, TIERED_EIO, "OpenSSL has no SHA-256");
}

static int filter_begin(void *state, const struct tiered_host *host,
                        struct tiered_error *err)
{
    struct state *s = state;
    if (s->released == 0 && s->plain_parts) {
        host->log(host, TIERED_LOG_WARN,
                  "tensors that are no float parameters get no noise: epsilon says "
                  "nothing of them");
    }
    if (!s->config->seeded) {
        return host->secret(host, s->key, sizeof(s->key), err);
    }
    if (s->released == 0) {
        host->log(host, TIERED_LOG_WARN,
                  "noise is drawn from insecure_seed: it protects nobody");
    }
    return seeded_key(s, host, err);
}

/* ---- noise ---- */

/* ChaCha20's stream of a block, 8 bytes for each element, and one context for all that
   is asked for at once. */
struct stream {
    EVP_CIPHER_CTX *cipher;
    uint64_t words[TILE];
};

static int stream_fail(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_EIO, "OpenSSL's ChaCha20 failed");
}

/* From an element on: `at` is a multiple of 64. */
static int stream_open(const struct state *s, uint32_t block, uint64_t at,
                       struct stream *ret, struct tiered_error *err)
{
    uint64_t counter = at / 8; /* in units of 64 bytes */
    uint8_t iv[16] = {0};
    for (int i = 0; i < 4; i++) {
        iv[i] = (uint8_t)(counter >> (8 * i));
        iv[8 + i] = (uint8_t)(block >> (8 * i));
    }
    ret->cipher = EVP_CIPHER_CTX_new();
    return ret->cipher &&
                   EVP_EncryptInit_ex2(ret->cipher, s->cipher, s->key, iv, NULL) == 1
               ? 0
               : stream_fail(err);
}

static void stream_close(struct stream *stream)
{
    EVP_CIPHER_CTX_free(stream->cipher);
    OPENSSL_cleanse(stream->words, sizeof(stream->words));
}

/* The next n of a block's elements: whole groups, but at the end. There a group is made
   as well, and what is left of its noise is nobody's. */
static int stream_add(const struct state *s, struct stream *stream, size_t n,
                      double *values, struct tiered_error *err)
{
    size_t whole = n / NORMAL_GROUP, rest = n % NORMAL_GROUP;
    int size = (int)((whole + (rest > 0)) * NORMAL_GROUP * sizeof(uint64_t)), made = 0;
    memset(stream->words, 0, (size_t)size);
    if (EVP_EncryptUpdate(stream->cipher, (uint8_t *)stream->words, &made,
                          (const uint8_t *)stream->words, size) != 1 ||
        made != size) {
        return stream_fail(err);
    }
    s->add(stream->words, whole, s->deviation, values);
    if (rest) {
        double group[NORMAL_GROUP] = {0};
        values += whole * NORMAL_GROUP;
        memcpy(group, values, rest * sizeof(*group));
        s->add(stream->words + whole * NORMAL_GROUP, 1, s->deviation, group);
        memcpy(values, group, rest * sizeof(*group));
    }
    return 0;
}

static int filter_add(void *state, const struct tiered_block *block, uint64_t at,
                      size_t n, double *values, struct tiered_error *err)
{
    const struct state *s = state;
    struct stream stream;
    int result = stream_open(s, block->index, at, &stream, err);
    for (size_t done = 0; done < n && result == 0; done += TILE) {
        result = stream_add(s, &stream, n - done < TILE ? n - done : TILE,
                            values + done, err);
    }
    stream_close(&stream);
    return result;
}

/* ---- in a pipe ---- */

static int add_to_block(const struct state *s, const struct tiered_block *block,
                        const uint8_t *in, struct stream *stream, uint8_t *out,
                        struct tiered_error *err)
{
    double tile[TILE];
    size_t width = tiered_dtype_size(block->dtype), n = (size_t)block->n_elements;
    for (size_t at = 0; at < n; at += TILE) {
        size_t m = n - at < TILE ? n - at : TILE;
        if (!s->values->load(block->dtype, in + at * width, m, tile)) {
            return tiered_fail(err, TIERED_ERANGE,
                               "a value that is not finite: noise does not hide it");
        }
        if (stream_add(s, stream, m, tile, err) < 0) {
            return -1;
        }
        s->values->store(block->dtype, tile, m, out + at * width);
    }
    return 0;
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    struct stream stream;
    if (through_check("gaussian", block, in_size, err) < 0) {
        return -1;
    }
    if (!values_are_private(block)) {
        return through_copy(in, in_size, out, capacity, ret_size, err);
    }
    if (through_room(in_size, capacity, err) < 0) {
        return -1;
    }
    int result = stream_open(s, block->index, 0, &stream, err);
    if (result == 0) {
        result = add_to_block(s, block, in, &stream, out, err);
    }
    stream_close(&stream);
    if (result == 0) {
        *ret_size = in_size;
    }
    return result;
}

static int filter_end(void *state, struct tiered_error *err)
{
    struct state *s = state;
    (void)err;
    s->released++;
    return 0;
}

static int filter_save(void *state, void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err)
{
    const struct state *s = state;
    *ret_size = sizeof(s->released);
    if (capacity >= *ret_size) {
        memcpy(out, &s->released, *ret_size);
    } else if (capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "no room for the state");
    }
    return 0;
}

static int filter_load(void *state, uint32_t version, const void *in, size_t size,
                       struct tiered_error *err)
{
    struct state *s = state;
    if (version != 1 || size != sizeof(s->released)) {
        return tiered_fail(err, TIERED_ECORRUPT, "a state of another gaussian");
    }
    memcpy(&s->released, in, size);
    return 0;
}

static void filter_noise(const void *config, struct tiered_noise *ret)
{
    const struct config *c = config;
    ret->noise_multiplier = c->noise_multiplier;
    ret->delta = c->delta;
    ret->insecure = c->seeded;
}

static uint64_t filter_released(const void *state)
{
    return ((const struct state *)state)->released;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .begin = filter_begin,
    .bound = through_bound,
    .forward = filter_forward,
    .end = filter_end,
    .inverse = through_inverse,
    .saved = {.version = 1, .save = filter_save, .load = filter_load},
    .noise = filter_noise,
    .sensitivity = filter_sensitivity,
    .add = filter_add,
    .released = filter_released,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "gaussian", .version = "1.0",
                     .summary = "Gaussian noise for differential privacy: on what a "
                                "node sends up, or last in 'aggregate' on a tier's "
                                "mean",
                     .traits = TIERED_PRIVACY | TIERED_LOSSY | TIERED_NEEDS_VALUES |
                               TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
