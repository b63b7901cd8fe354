/* SPDX-License-Identifier: Apache-2.0 */
/* Filters for the tests of pipes: one that scans, one that grows, one of a wrong kind.
   Each state counts its calls. */
#ifndef TIERED_TESTS_PIPE_FILTERS_H
#define TIERED_TESTS_PIPE_FILTERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/pipe/pipe.h"
#include "tiered/filter.h"

struct calls {
    int begins, scans, headers, forwards, ends, inverse_ends;
    uint8_t key; /* of `mask`: the sum of all that it scanned */
};
static struct calls last; /* of the state that was destroyed last */

static int t_init(const struct tiered_host *host, const void *config,
                  const struct tiered_manifest *manifest, void **ret_state,
                  struct tiered_error *err)
{
    (void)host;
    (void)config;
    (void)manifest;
    *ret_state = calloc(1, sizeof(struct calls));
    return *ret_state ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

static void t_destroy(void *state)
{
    last = *(struct calls *)state;
    free(state);
}

static int t_begin(void *state, const struct tiered_host *host,
                   struct tiered_error *err)
{
    struct calls *c = state;
    (void)host;
    (void)err;
    c->begins++;
    c->key = 0;
    return 0;
}

static int t_end(void *state, struct tiered_error *err)
{
    (void)err;
    ((struct calls *)state)->ends++;
    return 0;
}

static int t_inverse_end(void *state, struct tiered_error *err)
{
    (void)err;
    ((struct calls *)state)->inverse_ends++;
    return 0;
}

static size_t same_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

static size_t double_bound(void *state, size_t in_size)
{
    (void)state;
    return 2 * in_size;
}

/* mask: scans all bytes for a key that travels in its header, and xors with it. */
static int mask_scan(void *state, const struct tiered_block *block, const void *in,
                     size_t in_size, struct tiered_error *err)
{
    struct calls *c = state;
    (void)block;
    (void)err;
    c->scans++;
    for (size_t i = 0; i < in_size; i++) {
        c->key = (uint8_t)(c->key + ((const uint8_t *)in)[i]);
    }
    return 0;
}

static int mask_header(void *state, void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err)
{
    struct calls *c = state;
    (void)err;
    assert_true(capacity >= 1);
    c->headers++;
    *(uint8_t *)out = c->key;
    *ret_size = 1;
    return 0;
}

static int mask_forward(void *state, const struct tiered_block *block, const void *in,
                        size_t in_size, void *out, size_t capacity, size_t *ret_size,
                        struct tiered_error *err)
{
    struct calls *c = state;
    (void)block;
    c->forwards++;
    if (capacity < in_size) {
        return tiered_fail(err, TIERED_ECORRUPT, "too large");
    }
    for (size_t i = 0; i < in_size; i++) {
        ((uint8_t *)out)[i] = ((const uint8_t *)in)[i] ^ c->key;
    }
    *ret_size = in_size;
    return 0;
}

static int mask_inverse_begin(void *state, const void *header, size_t header_size,
                              struct tiered_error *err)
{
    struct calls *c = state;
    if (header_size != 1) {
        return tiered_fail(err, TIERED_ECORRUPT, "a header of %zu bytes", header_size);
    }
    c->key = *(const uint8_t *)header;
    return 0;
}

static const struct tiered_filter_ops mask_ops = {
    .size = sizeof(mask_ops),
    .init = t_init,
    .destroy = t_destroy,
    .begin = t_begin,
    .scan = mask_scan,
    .header = mask_header,
    .bound = same_bound,
    .forward = mask_forward,
    .end = t_end,
    .inverse_begin = mask_inverse_begin,
    .inverse = mask_forward,
    .inverse_end = t_inverse_end,
};

/* twice: writes every byte two times. */
static int twice_forward(void *state, const struct tiered_block *block, const void *in,
                         size_t in_size, void *out, size_t capacity, size_t *ret_size,
                         struct tiered_error *err)
{
    (void)state;
    (void)block;
    (void)err;
    assert_true(capacity >= 2 * in_size);
    for (size_t i = 0; i < in_size; i++) {
        ((uint8_t *)out)[2 * i] = ((uint8_t *)out)[2 * i + 1] =
            ((const uint8_t *)in)[i];
    }
    *ret_size = 2 * in_size;
    return 0;
}

static int twice_inverse(void *state, const struct tiered_block *block, const void *in,
                         size_t in_size, void *out, size_t capacity, size_t *ret_size,
                         struct tiered_error *err)
{
    (void)state;
    (void)block;
    if (in_size / 2 > capacity || in_size % 2) {
        return tiered_fail(err, TIERED_ECORRUPT, "%zu bytes", in_size);
    }
    for (size_t i = 0; i < in_size / 2; i++) {
        ((uint8_t *)out)[i] = ((const uint8_t *)in)[2 * i];
    }
    *ret_size = in_size / 2;
    return 0;
}

static const struct tiered_filter_ops twice_ops = {
    .size = sizeof(twice_ops),
    .init = t_init,
    .destroy = t_destroy,
    .bound = double_bound,
    .forward = twice_forward,
    .inverse = twice_inverse,
};

/* turns: xors with the number of the pass, which it remembers. */
static int turns_header(void *state, void *out, size_t capacity, size_t *ret_size,
                        struct tiered_error *err)
{
    struct calls *c = state;
    c->key = (uint8_t)(c->ends + 1);
    return mask_header(state, out, capacity, ret_size, err);
}

static int turns_save(void *state, void *out, size_t capacity, size_t *ret_size,
                      struct tiered_error *err)
{
    const struct calls *c = state;
    (void)err;
    *ret_size = sizeof(c->ends);
    if (capacity >= sizeof(c->ends)) {
        memcpy(out, &c->ends, sizeof(c->ends));
    }
    return 0;
}

static int turns_load(void *state, uint32_t version, const void *in, size_t size,
                      struct tiered_error *err)
{
    struct calls *c = state;
    if (version != 3 || size != sizeof(c->ends)) {
        return tiered_fail(err, TIERED_ECORRUPT, "not a number of passes");
    }
    memcpy(&c->ends, in, size);
    return 0;
}

static const struct tiered_filter_ops turns_ops = {
    .size = sizeof(turns_ops),
    .init = t_init,
    .destroy = t_destroy,
    .begin = t_begin,
    .header = turns_header,
    .bound = same_bound,
    .forward = mask_forward,
    .end = t_end,
    .inverse_begin = mask_inverse_begin,
    .inverse = mask_forward,
    .saved = {.version = 3, .save = turns_save, .load = turns_load},
};

static struct tiered_loaded turns_loaded = {
    .plugin = {.kind = TIERED_FILTER, .name = "turns", .ops = &turns_ops}};
static struct tiered_loaded mask_loaded = {
    .plugin = {.kind = TIERED_FILTER, .name = "mask", .ops = &mask_ops}};
static struct tiered_loaded twice_loaded = {
    .plugin = {.kind = TIERED_FILTER, .name = "twice", .ops = &twice_ops}};
static struct tiered_loaded group_loaded = {
    .plugin = {.kind = TIERED_GROUP, .name = "secure-sum", .ops = &mask_ops}};

#define MASK  ((struct tiered_use){&mask_loaded, NULL})
#define TURNS ((struct tiered_use){&turns_loaded, NULL})
#define TWICE ((struct tiered_use){&twice_loaded, "{}"})

#endif
