/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds an update's L2 norm: D <- D min(1, C / ||D||), over all of its parameters. C
   is given, or is the parent's, which follows a quantile of its children's norms
   (Andrew et al. 2021, arXiv:1905.03871); then one byte says whether D was within C. */
#include "tiered/filter.h"

#include <math.h>
#include <stdlib.h>

#include "values.h"

struct config {
    double norm;
    double initial, quantile, lr;
    bool adaptive, norm_given;
};

static const struct tiered_option adaptive_rows[] = {
    TIERED_OPTION_DOUBLE(struct config, initial, "0.1", 0, INFINITY,
                         "the bound of the first round", .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_DOUBLE(struct config, quantile, "0.5", 0, 1,
                         "the share of updates that the bound should let through "
                         "unclipped"),
    TIERED_OPTION_DOUBLE(struct config, lr, "0.2", 0, 10,
                         "how fast the bound follows: one round changes it by at most "
                         "a factor of e to this",
                         .flags = TIERED_EXCLUSIVE_MIN),
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, norm, NULL, 0, INFINITY,
                         "the largest L2 norm of an update. Either this or 'adaptive' "
                         "is written",
                         .flags = TIERED_EXCLUSIVE_MIN,
                         .given_offset = offsetof(struct config, norm_given)),
    {.name = "adaptive",
     .type = TIERED_SECTION,
     .help = "a bound that follows a quantile of the norms of all children of the "
             "parent, from round to round",
     .offset = offsetof(struct config, adaptive),
     .nested = adaptive_rows,
     .n_nested = sizeof(adaptive_rows) / sizeof(adaptive_rows[0])},
};

struct state {
    const struct config *config;
    double bound;   /* C */
    double squares; /* of the blocks scanned */
    double factor;  /* of the pass, at most 1; NaN before header() */
    uint8_t within; /* the pass's update was not clipped */
};

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    const struct config *c = config;
    (void)host;
    (void)manifest;
    if (c->norm_given == c->adaptive) {
        return tiered_fail(err, TIERED_EINVAL,
                           "clip needs either norm or adaptive, such as {norm: 1.0}");
    }
    struct state *s = calloc(1, sizeof(*s));
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->config = c;
    s->bound = c->adaptive ? c->initial : c->norm;
    *ret_state = s;
    return 0;
}

static void filter_destroy(void *state)
{
    free(state);
}

static int filter_begin(void *state, const struct tiered_host *host,
                        struct tiered_error *err)
{
    struct state *s = state;
    (void)host;
    (void)err;
    s->squares = 0;
    s->factor = NAN;
    return 0;
}

static int check_raw(const struct tiered_block *block, size_t in_size,
                     struct tiered_error *err)
{
    return in_size == block->size_bytes
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "a block of %zu bytes where %llu are raw: clip works on "
                             "values, so it stands before the codecs",
                             in_size, (unsigned long long)block->size_bytes);
}

static int filter_scan(void *state, const struct tiered_block *block, const void *in,
                       size_t in_size, struct tiered_error *err)
{
    struct state *s = state;
    double tile[VALUES_TILE];
    size_t width = tiered_dtype_size(block->dtype);
    if (check_raw(block, in_size, err) < 0) {
        return -1;
    }
    if (!values_are_private(block)) {
        return 0;
    }
    for (uint64_t at = 0; at < block->n_elements; at += VALUES_TILE) {
        uint64_t left = block->n_elements - at;
        size_t n = left < VALUES_TILE ? (size_t)left : VALUES_TILE;
        double sum = 0;
        values_load(block->dtype, (const uint8_t *)in + at * width, n, tile);
        for (size_t i = 0; i < n; i++) {
            sum += tile[i] * tile[i];
        }
        s->squares += sum;
    }
    return isfinite(s->squares)
               ? 0
               : tiered_fail(err, TIERED_ERANGE,
                             "the update has no finite norm, so it cannot be clipped");
}

/* The scan is over here. Only the parent of a bound that follows is told how it went.
 */
static int filter_header(void *state, void *out, size_t capacity, size_t *ret_size,
                         struct tiered_error *err)
{
    struct state *s = state;
    double norm = sqrt(s->squares);
    size_t size = s->config->adaptive ? sizeof(s->within) : 0;
    if (capacity < size) {
        return tiered_fail(err, TIERED_ENOMEM, "no room for the header");
    }
    s->factor = norm > s->bound ? s->bound / norm : 1;
    s->within = s->factor == 1;
    if (size) {
        memcpy(out, &s->within, size);
    }
    *ret_size = size;
    return 0;
}

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

static int copy(const void *in, size_t in_size, void *out, size_t capacity,
                size_t *ret_size, struct tiered_error *err)
{
    if (in_size > capacity) {
        return tiered_fail(err, TIERED_ECORRUPT, "no room for %zu bytes", in_size);
    }
    if (in_size) {
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
    double tile[VALUES_TILE];
    size_t width = tiered_dtype_size(block->dtype);
    if (check_raw(block, in_size, err) < 0) {
        return -1;
    }
    if (s->factor == 1 || !values_are_private(block)) {
        return copy(in, in_size, out, capacity, ret_size, err);
    }
    if (in_size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "no room for %zu bytes", in_size);
    }
    for (uint64_t at = 0; at < block->n_elements; at += VALUES_TILE) {
        uint64_t left = block->n_elements - at;
        size_t n = left < VALUES_TILE ? (size_t)left : VALUES_TILE;
        values_load(block->dtype, (const uint8_t *)in + at * width, n, tile);
        for (size_t i = 0; i < n; i++) {
            tile[i] *= s->factor;
        }
        values_store_cut(block->dtype, tile, n, (uint8_t *)out + at * width);
    }
    *ret_size = in_size;
    return 0;
}

static int filter_inverse_begin(void *state, const void *header, size_t header_size,
                                struct tiered_error *err)
{
    struct state *s = state;
    const uint8_t *within = header;
    if (header_size != (s->config->adaptive ? 1 : 0) || (header_size && *within > 1)) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "a header of %zu bytes that is none of this clip's",
                           header_size);
    }
    s->within = header_size ? *within : 0;
    return 0;
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    (void)state;
    if (in_size != block->size_bytes) {
        return tiered_fail(err, TIERED_ECORRUPT, "a block of %zu bytes, not %llu",
                           in_size, (unsigned long long)block->size_bytes);
    }
    return copy(in, in_size, out, capacity, ret_size, err);
}

static double filter_norm(const void *config)
{
    const struct config *c = config;
    return c->adaptive ? 0 : c->norm;
}

static double filter_first_norm(const void *config)
{
    const struct config *c = config;
    return c->adaptive ? c->initial : 0;
}

static int filter_bound_to(void *state, double norm, struct tiered_error *err)
{
    struct state *s = state;
    if (!(norm > 0) || !isfinite(norm)) {
        return tiered_fail(err, TIERED_ERANGE, "a bound of %g; it must be above 0",
                           norm);
    }
    s->bound = norm;
    return 0;
}

static int filter_within(const void *state)
{
    return ((const struct state *)state)->within;
}

/* C <- C exp(-lr (b - quantile)), b the share of updates that were within C: the
   paper's sign, so that a bound which clips too much grows. */
static double filter_next_norm(const void *config, double norm, double share)
{
    const struct config *c = config;
    double next = norm * exp(-c->lr * (share - c->quantile));
    return isnormal(next) ? next : norm;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .begin = filter_begin,
    .scan = filter_scan,
    .header = filter_header,
    .bound = filter_bound,
    .forward = filter_forward,
    .inverse_begin = filter_inverse_begin,
    .inverse = filter_inverse,
    .norm = filter_norm,
    .first_norm = filter_first_norm,
    .bound_to = filter_bound_to,
    .within = filter_within,
    .next_norm = filter_next_norm,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "clip", .version = "1.0",
                     .summary = "bounds the L2 norm of an update; at an inner tier, of "
                                "the whole group's",
                     .traits = TIERED_PRIVACY | TIERED_LOSSY | TIERED_NEEDS_VALUES |
                               TIERED_NEEDS_SCAN | TIERED_CONCURRENT |
                               TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
