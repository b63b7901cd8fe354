/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qsgd filter: parameters as a few levels of their bucket's norm, rounded at random
 * without bias (Alistarh et al., NeurIPS 2017).
 *
 * Header: u8 version, u32 levels, u32 bucket; little endian. A block: u8 packing (0
 * fixed, 1 Elias), the norms of its buckets (f32; f64 for f64 values), the levels.
 *
 * A block's random numbers depend on the pass's key and its index alone: blocks may be
 * made in parallel and again, and are the same bytes.
 */
#include <stdlib.h>

#include "pack.h"
#include "quantise.h"

#define VERSION     1
#define HEADER_SIZE 9

enum packing { FIXED, ELIAS };

struct config {
    int64_t levels, bucket;
    int32_t norm, packing;
};

static const struct tiered_option norm_names[] = {
    [QSGD_L2] = {.name = "l2", .help = "the bucket's Euclidean norm, as published"},
    [QSGD_LINF] = {.name = "linf",
                   .help = "its largest value: less noise, fewer zeros"},
};

static const struct tiered_option packing_names[] = {
    [FIXED] = {.name = "fixed", .help = "every level in as many bits"},
    [ELIAS] = {.name = "elias",
               .help = "short codes for small levels and runs of zeros"},
};

static const struct tiered_option options[] = {
    TIERED_OPTION_INTEGER(struct config, levels, "127", 1, QSGD_MOST_LEVELS,
                          "steps from zero to the norm: 127 takes 8 bits a value, 7 "
                          "takes 4, 1 takes 2"),
    TIERED_OPTION_INTEGER(struct config, bucket, "512", 16, 1 << 20,
                          "values that share a norm", .unit = "values"),
    TIERED_OPTION_CHOICE(struct config, norm, "l2", norm_names,
                         "what a bucket's levels are parts of"),
    TIERED_OPTION_CHOICE(struct config, packing, "fixed", packing_names,
                         "how levels become bits"),
};

struct shape {
    unsigned levels;
    size_t bucket;
};

struct state {
    enum qsgd_norm norm;
    enum packing packing;
    struct shape own, theirs; /* as configured; as the header that came says */
    uint8_t key[32];          /* of the pass */
};

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    const struct config *c = config;
    struct state *s = calloc(1, sizeof(*s));
    (void)manifest;
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->norm = (enum qsgd_norm)c->norm;
    s->packing = (enum packing)c->packing;
    s->own = s->theirs = (struct shape){(unsigned)c->levels, (size_t)c->bucket};
    host->seed(host, "qsgd", s->key);
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
    (void)err;
    host->seed(host, "qsgd", s->key);
    return 0;
}

static int filter_header(void *state, void *out, size_t capacity, size_t *ret_size,
                         struct tiered_error *err)
{
    const struct state *s = state;
    uint8_t *to = out;
    const uint32_t numbers[] = {s->own.levels, (uint32_t)s->own.bucket};
    if (codec_check_room(HEADER_SIZE, capacity, err) < 0) {
        return -1;
    }
    to[0] = VERSION;
    memcpy(to + 1, numbers, sizeof(numbers));
    *ret_size = HEADER_SIZE;
    return 0;
}

static int filter_inverse_begin(void *state, const void *header, size_t header_size,
                                struct tiered_error *err)
{
    struct state *s = state;
    const uint8_t *from = header;
    uint32_t numbers[2];
    if (header_size != HEADER_SIZE || from[0] != VERSION) {
        return tiered_fail(err, TIERED_ECORRUPT, "not a header of qsgd, version %d",
                           VERSION);
    }
    memcpy(numbers, from + 1, sizeof(numbers));
    if (numbers[0] < 1 || numbers[0] > QSGD_MOST_LEVELS || numbers[1] < 16 ||
        numbers[1] > 1 << 20) {
        return tiered_fail(err, TIERED_ECORRUPT, "%u levels and buckets of %u values",
                           numbers[0], numbers[1]);
    }
    s->theirs = (struct shape){numbers[0], numbers[1]};
    return 0;
}

static size_t n_buckets(const struct shape *shape, size_t n)
{
    return (n + shape->bucket - 1) / shape->bucket;
}

static size_t norm_width(const struct tiered_block *block)
{
    return block->dtype == TIERED_F64 ? sizeof(double) : sizeof(float);
}

/* Of the levels, in fixed packing. */
static size_t fixed_size(const struct shape *shape, size_t n)
{
    unsigned bits = pack_bits(shape->levels);
    return n / shape->bucket * pack_size(shape->bucket, bits) +
           pack_size(n % shape->bucket, bits);
}

/* Of any dtype: most values and most norms have 16-bit floats. */
static size_t filter_bound(void *state, size_t in_size)
{
    const struct state *s = state;
    size_t n = in_size / 2 + 1;
    size_t most = 1 + n_buckets(&s->own, n) * sizeof(double) + fixed_size(&s->own, n);
    return most > in_size ? most : in_size;
}

/* ---- forward ---- */

struct writing {
    const struct state *state;
    const struct tiered_block *block;
    const void *in;
    uint8_t *norms, *levels;
    size_t levels_size;
    bool elias;
    struct qsgd_rng rng;
    struct pack_writer writer;
};

static int fail_norm(const struct tiered_block *block, struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ERANGE,
                       "block %u has a value that is not finite, or a bucket whose "
                       "norm is not",
                       block->index);
}

static void write_levels(struct writing *w, const int16_t *levels, size_t n)
{
    unsigned s = w->state->own.levels;
    if (w->elias) {
        pack_elias(&w->writer, levels, n);
    } else {
        pack_fixed(levels, n, s, w->levels + w->levels_size);
        w->levels_size += pack_size(n, pack_bits(s));
    }
}

/* One tile of a bucket as f32, and the norm by which they are divided. */
static float tile_of(const struct writing *w, size_t at, size_t n, double norm,
                     float *out)
{
    const struct tiered_block *block = w->block;
    if (block->dtype == TIERED_F64) {
        qsgd_normalise((const double *)w->in + at, n, norm, out);
        return 1.0f;
    }
    codec_load(block->dtype,
               (const uint8_t *)w->in + at * tiered_dtype_size(block->dtype), n, out);
    return (float)norm;
}

/* A bucket's norm; 16-bit floats go tile by tile, their largest value first. */
static int norm_of(const struct writing *w, size_t at, size_t n, float *scratch,
                   double *ret)
{
    enum qsgd_norm kind = w->state->norm;
    float norm;
    if (w->block->dtype == TIERED_F64) {
        return qsgd_norm_f64(kind, (const double *)w->in + at, n, ret);
    }
    const float *values = (const float *)w->in + at;
    if (codec_is_half(w->block->dtype)) {
        codec_load(w->block->dtype, (const uint16_t *)w->in + at, n, scratch);
        values = scratch;
    }
    if (qsgd_norm_f32(kind, values, n, &norm) < 0) {
        return -1;
    }
    *ret = (double)norm;
    return 0;
}

static int write_bucket(struct writing *w, size_t at, size_t n, float *scratch,
                        struct tiered_error *err)
{
    float values[CODEC_TILE];
    int16_t levels[CODEC_TILE];
    double norm = 0;
    if (norm_of(w, at, n, scratch, &norm) < 0) {
        return fail_norm(w->block, err);
    }
    float narrow = (float)norm;
    size_t width = norm_width(w->block);
    memcpy(w->norms, width == sizeof(double) ? (void *)&norm : (void *)&narrow, width);
    w->norms += width;
    for (size_t k = 0; k < n; k += CODEC_TILE) {
        size_t m = n - k < CODEC_TILE ? n - k : CODEC_TILE;
        if (norm > 0) {
            float over = tile_of(w, at + k, m, norm, values);
            qsgd_quantise(values, m, over, w->state->own.levels, &w->rng, levels);
        } else {
            memset(levels, 0, m * sizeof(*levels));
        }
        write_levels(w, levels, m);
    }
    return 0;
}

/* All buckets in one packing. *ret_fits is false where Elias codes would be longer. */
static int write_block(const struct state *s, const struct tiered_block *block,
                       const void *in, bool elias, float *scratch, uint8_t *out,
                       size_t *ret_size, bool *ret_fits, struct tiered_error *err)
{
    size_t n = (size_t)block->n_elements, fixed = fixed_size(&s->own, n);
    size_t head = 1 + n_buckets(&s->own, n) * norm_width(block);
    struct writing w = {.state = s,
                        .block = block,
                        .in = in,
                        .norms = out + 1,
                        .levels = out + head,
                        .elias = elias};
    qsgd_rng_init(&w.rng, s->key, block->index);
    pack_elias_begin(&w.writer, w.levels, fixed);
    out[0] = elias ? ELIAS : FIXED;
    for (size_t at = 0; at < n; at += s->own.bucket) {
        size_t m = n - at < s->own.bucket ? n - at : s->own.bucket;
        if (write_bucket(&w, at, m, scratch, err) < 0) {
            return -1;
        }
    }
    size_t size = w.levels_size;
    *ret_fits = !elias || pack_elias_end(&w.writer, &size);
    *ret_size = head + size;
    return 0;
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    size_t n = (size_t)block->n_elements;
    if (!codec_acts_on(block)) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    size_t most =
        1 + n_buckets(&s->own, n) * norm_width(block) + fixed_size(&s->own, n);
    if (codec_check_values(block, in_size, err) < 0 ||
        codec_check_room(most, capacity, err) < 0) {
        return -1;
    }
    size_t scratch_n = n < s->own.bucket ? n : s->own.bucket;
    float *scratch =
        codec_is_half(block->dtype) ? malloc((scratch_n + 1) * sizeof(float)) : NULL;
    if (codec_is_half(block->dtype) && !scratch) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    bool fits = false;
    int result = 0;
    if (s->packing == ELIAS) {
        result = write_block(s, block, in, true, scratch, out, ret_size, &fits, err);
    }
    if (result == 0 && !fits) {
        result = write_block(s, block, in, false, scratch, out, ret_size, &fits, err);
    }
    free(scratch);
    return result;
}

/* ---- inverse ---- */

/* v = norm * l / s */
static void values_of(const struct tiered_block *block, const int16_t *levels, size_t n,
                      double step, void *out, size_t at)
{
    float values[CODEC_TILE];
    if (block->dtype == TIERED_F64) {
        for (size_t i = 0; i < n; i++) {
            ((double *)out)[at + i] = step * (double)levels[i];
        }
        return;
    }
    bool half = codec_is_half(block->dtype);
    float *to = half ? values : (float *)out + at;
    for (size_t i = 0; i < n; i++) {
        to[i] = (float)(step * (double)levels[i]);
    }
    if (half) {
        codec_store(block->dtype, values, n, (uint16_t *)out + at);
    }
}

static bool read_norm(const struct tiered_block *block, const uint8_t **at, double *ret)
{
    float narrow;
    if (block->dtype == TIERED_F64) {
        memcpy(ret, *at, sizeof(*ret));
        *at += sizeof(*ret);
        return *ret >= 0 && *ret <= DBL_MAX / 2;
    }
    memcpy(&narrow, *at, sizeof(narrow));
    *at += sizeof(narrow);
    *ret = (double)narrow;
    return narrow >= 0 && narrow <= FLT_MAX;
}

static int fail_block(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ECORRUPT, "the block's norms or levels are damaged");
}

static int read_block(const struct shape *shape, const struct tiered_block *block,
                      const uint8_t *in, size_t in_size, void *out,
                      struct tiered_error *err)
{
    size_t n = (size_t)block->n_elements;
    const uint8_t *norms = in + 1;
    const uint8_t *fixed = norms + n_buckets(shape, n) * norm_width(block);
    bool elias = in[0] == ELIAS;
    struct pack_reader reader;
    int16_t levels[CODEC_TILE];
    if (elias) {
        unpack_elias_begin(&reader, fixed, in_size - (size_t)(fixed - in),
                           shape->levels, n);
    }
    for (size_t at = 0; at < n; at += shape->bucket) {
        size_t end = n - at < shape->bucket ? n : at + shape->bucket;
        double norm;
        if (!read_norm(block, &norms, &norm)) {
            return fail_block(err);
        }
        double step = norm / (double)shape->levels;
        for (size_t k = at; k < end; k += CODEC_TILE) {
            size_t m = end - k < CODEC_TILE ? end - k : CODEC_TILE;
            bool good = elias ? unpack_elias(&reader, levels, m)
                              : unpack_fixed(fixed, m, shape->levels, levels);
            if (!good) {
                return fail_block(err);
            }
            fixed += elias ? 0 : pack_size(m, pack_bits(shape->levels));
            values_of(block, levels, m, step, out, k);
        }
    }
    return elias && !unpack_elias_end(&reader) ? fail_block(err) : 0;
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    const uint8_t *from = in;
    if (!codec_acts_on(block)) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    size_t n = (size_t)block->n_elements;
    size_t size = n * tiered_dtype_size(block->dtype);
    size_t head = 1 + n_buckets(&s->theirs, n) * norm_width(block);
    if (in_size < head || from[0] > ELIAS) {
        return fail_block(err);
    }
    if ((from[0] == FIXED &&
         codec_check_size(in_size, head + fixed_size(&s->theirs, n), err) < 0) ||
        codec_check_room(size, capacity, err) < 0 ||
        read_block(&s->theirs, block, from, in_size, out, err) < 0) {
        return -1;
    }
    *ret_size = size;
    return 0;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .begin = filter_begin,
    .header = filter_header,
    .bound = filter_bound,
    .forward = filter_forward,
    .inverse_begin = filter_inverse_begin,
    .inverse = filter_inverse,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "qsgd", .version = "1.0",
                     .summary = "a few levels a value, rounded at random without bias; "
                                "anew at every tier",
                     .traits = TIERED_LOSSY | TIERED_NEEDS_VALUES |
                               TIERED_CHANGES_ONLY | TIERED_CONCURRENT |
                               TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
