/* SPDX-License-Identifier: Apache-2.0 */
/* Each block's bits against those of the model that the receiver has already: what did
   not change becomes zeros, for shuffle and zstd behind it. XOR, because subtraction of
   floats cannot be undone to the bit. */
#include "tiered/filter.h"

#include <stdlib.h>

#define DIGEST_SIZE 32

struct state {
    const uint8_t *model; /* the host's; NULL: nothing to refer to */
    uint8_t digest[DIGEST_SIZE];
    const uint8_t *from; /* the model of the pass being read */
};

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    (void)host;
    (void)config;
    (void)manifest;
    *ret_state = calloc(1, sizeof(struct state));
    return *ret_state ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

static void filter_destroy(void *state)
{
    free(state);
}

static int filter_refer(void *state, const void *model, const uint8_t *digest,
                        struct tiered_error *err)
{
    struct state *s = state;
    (void)err;
    s->model = model;
    s->from = NULL;
    if (model) {
        memcpy(s->digest, digest, DIGEST_SIZE);
    }
    return 0;
}

/* The digest of the model referred to; nothing when there is none. */
static int filter_header(void *state, void *out, size_t capacity, size_t *ret_size,
                         struct tiered_error *err)
{
    const struct state *s = state;
    *ret_size = s->model ? DIGEST_SIZE : 0;
    if (*ret_size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "no room for a digest");
    }
    if (s->model) {
        memcpy(out, s->digest, DIGEST_SIZE);
    }
    return 0;
}

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

static void combine(const uint8_t *restrict a, const uint8_t *restrict b, size_t n,
                    uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] ^ b[i];
    }
}

/* There and back are the same. */
static int apply(const uint8_t *model, const struct tiered_block *block, const void *in,
                 size_t in_size, void *out, size_t capacity, size_t *ret_size,
                 struct tiered_error *err)
{
    if (in_size != block->size_bytes) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a block of %zu bytes where %llu are raw: delta must be the "
                           "first filter",
                           in_size, (unsigned long long)block->size_bytes);
    }
    if (in_size > capacity) {
        return tiered_fail(err, TIERED_ECORRUPT, "no room for %zu bytes", in_size);
    }
    if (model) {
        combine(in, model + block->offset_bytes, in_size, out);
    } else if (in_size) {
        memcpy(out, in, in_size);
    }
    *ret_size = in_size;
    return 0;
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    return apply(s->model, block, in, in_size, out, capacity, ret_size, err);
}

static int filter_inverse_begin(void *state, const void *header, size_t header_size,
                                struct tiered_error *err)
{
    struct state *s = state;
    s->from = NULL;
    if (header_size == 0) {
        return 0;
    }
    if (header_size != DIGEST_SIZE) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "a header of %zu bytes; it has 0 or %d", header_size,
                           DIGEST_SIZE);
    }
    if (!s->model || memcmp(header, s->digest, DIGEST_SIZE) != 0) {
        return tiered_fail(err, TIERED_ESTATE,
                           "it refers to a model that is not at hand here");
    }
    s->from = s->model;
    return 0;
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    return apply(s->from, block, in, in_size, out, capacity, ret_size, err);
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .header = filter_header,
    .bound = filter_bound,
    .forward = filter_forward,
    .inverse_begin = filter_inverse_begin,
    .inverse = filter_inverse,
    .refer = filter_refer,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "delta", .version = "1.0",
                     .summary = "a model's bits against the one before it, which "
                                "compress better; for downlinks, at every tier",
                     .traits = TIERED_NEEDS_VALUES | TIERED_CONCURRENT |
                               TIERED_ACCEPTS_BLOBS,
                     .ops = &ops);
