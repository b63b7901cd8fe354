/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The int8 filter: a byte a value, q = round(v / scale) with scale = largest |v| / 127
 * of the tensor, or of each of its rows (channels).
 *
 * A block: the scales of the tensors or channels that it touches, in order (f32; f64
 * for f64 values), then its values. Which these are follows from the model's shape, so
 * both sides know; a block that would not be smaller so travels as it is. No header.
 *
 * The scan finds the largest values; forward only reads them, so blocks may overlap.
 */
#include <stdlib.h>

#include "../common/codec.h"

enum per { TENSOR, CHANNEL };

struct config {
    int32_t per;
};

static const struct tiered_option scopes[] = {
    [TENSOR] = {.name = "tensor", .help = "one scale a tensor"},
    [CHANNEL] = {.name = "channel",
                 .help =
                     "one scale for each index of a tensor's first dimension, where "
                     "it has two or more"},
};

static const struct tiered_option options[] = {
    TIERED_OPTION_CHOICE(struct config, per, "tensor", scopes, "what shares a scale"),
};

struct extent {
    uint64_t n_elements, row; /* values that share a scale */
    size_t first;             /* of its scales */
};

struct state {
    size_t n_tensors;
    struct extent *tensors;
    size_t n_scales;
    double *largest; /* of this pass: |v| by scale; NULL at a receiver */
};

static int lay_out(struct state *s, const struct tiered_manifest *manifest,
                   enum per per, struct tiered_error *err)
{
    s->n_tensors = manifest->n_tensors;
    s->tensors = calloc(s->n_tensors + 1, sizeof(*s->tensors));
    if (!s->tensors) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct tiered_tensor *t = &manifest->tensors[i];
        bool rows = per == CHANNEL && t->rank >= 2 && t->n_elements;
        uint64_t n = rows ? t->shape[0] : 1;
        s->tensors[i] = (struct extent){t->n_elements, t->n_elements / n, s->n_scales};
        s->n_scales += t->dtype <= TIERED_BF16 ? (size_t)n : 0;
    }
    return 0;
}

static void filter_destroy(void *state)
{
    struct state *s = state;
    if (s) {
        free(s->tensors);
        free(s->largest);
        free(s);
    }
}

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    const struct config *c = config;
    struct state *s = calloc(1, sizeof(*s));
    (void)host;
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (lay_out(s, manifest, (enum per)c->per, err) < 0) {
        filter_destroy(s);
        return -1;
    }
    *ret_state = s;
    return 0;
}

static int filter_begin(void *state, const struct tiered_host *host,
                        struct tiered_error *err)
{
    struct state *s = state;
    (void)host;
    if (!s->largest) {
        s->largest = malloc((s->n_scales + 1) * sizeof(*s->largest));
    }
    if (!s->largest) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memset(s->largest, 0, s->n_scales * sizeof(*s->largest));
    return 0;
}

/* A block's values in runs that share a scale. */
struct run {
    const struct state *state;
    size_t tensor;
    uint64_t element;  /* of the tensor, where the run begins */
    size_t at, n, end; /* in the block: run, its length; the block's */
    size_t scale;
};

static struct run first_run(const struct state *s, const struct tiered_block *block)
{
    return (struct run){.state = s,
                        .tensor = block->first_tensor,
                        .element = block->first_element,
                        .end = (size_t)block->n_elements};
}

static bool next_run(struct run *r)
{
    const struct extent *t;
    r->at += r->n;
    r->element += r->n;
    r->n = 0;
    if (r->at == r->end) {
        return false;
    }
    while (r->tensor < r->state->n_tensors &&
           r->element >= r->state->tensors[r->tensor].n_elements) {
        r->element -= r->state->tensors[r->tensor++].n_elements;
    }
    if (r->tensor == r->state->n_tensors) {
        return false; /* not a block of this model */
    }
    t = &r->state->tensors[r->tensor];
    uint64_t left = t->row - r->element % t->row;
    r->scale = t->first + (size_t)(r->element / t->row);
    r->n = left < r->end - r->at ? (size_t)left : r->end - r->at;
    return true;
}

static size_t scale_width(const struct tiered_block *block)
{
    return block->dtype == TIERED_F64 ? sizeof(double) : sizeof(float);
}

/* The block's bytes as int8, or 0: it travels as it is. */
static size_t small_size(const struct state *s, const struct tiered_block *block,
                         size_t *ret_head)
{
    struct run run = first_run(s, block);
    size_t n = 0;
    if (!codec_acts_on(block)) {
        return 0;
    }
    while (next_run(&run)) {
        n++;
    }
    *ret_head = n * scale_width(block);
    size_t size = *ret_head + (size_t)block->n_elements;
    return size < block->size_bytes && run.at == run.end ? size : 0;
}

/* ---- scan ---- */

static double largest_of(const struct tiered_block *block, const void *in, size_t at,
                         size_t n)
{
    uint32_t largest = 0;
    if (block->dtype == TIERED_F64) {
        return codec_largest_f64((const double *)in + at, n);
    }
    for (size_t k = 0; k < n; k += CODEC_TILE) {
        float values[CODEC_TILE];
        size_t m = n - k < CODEC_TILE ? n - k : CODEC_TILE;
        const float *from = (const float *)in + at + k;
        if (codec_is_half(block->dtype)) {
            codec_load(block->dtype, (const uint16_t *)in + at + k, m, values);
            from = values;
        }
        uint32_t bits = codec_largest_bits(from, m);
        largest = bits > largest ? bits : largest;
    }
    return largest > CODEC_FINITE ? INFINITY : (double)codec_float(largest);
}

static int filter_scan(void *state, const struct tiered_block *block, const void *in,
                       size_t in_size, struct tiered_error *err)
{
    struct state *s = state;
    struct run run = first_run(s, block);
    size_t head;
    if (!small_size(s, block, &head)) {
        return 0;
    }
    if (codec_check_values(block, in_size, err) < 0) {
        return -1;
    }
    while (next_run(&run)) {
        double largest = largest_of(block, in, run.at, run.n);
        if (largest > DBL_MAX) {
            return codec_not_finite(block, err);
        }
        if (largest > s->largest[run.scale]) {
            s->largest[run.scale] = largest;
        }
    }
    return 0;
}

/* ---- forward ---- */

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

/* Never so small that the largest value would be over 127, and never so large that 127
   of them are infinite. All zero: 1. */
static float scale_f32(double largest)
{
    float most = (float)largest, scale = most / 127.0f;
    if (most == 0) {
        return 1.0f;
    }
    if (scale * 127.0f < most) {
        scale = nextafterf(scale, INFINITY);
    }
    return isfinite(scale * 127.0f) ? scale : nextafterf(scale, 0);
}

static double scale_f64(double largest)
{
    double scale = largest / 127;
    if (largest == 0) {
        return 1;
    }
    if (scale * 127 < largest) {
        scale = nextafter(scale, INFINITY);
    }
    return isfinite(scale * 127) ? scale : nextafter(scale, 0);
}

/* Adding 1.5 * 2^23 leaves a whole number, rounded to even, in the low digits. */
static void round_f32(const float *in, size_t n, float scale, int8_t *out)
{
    const float magic = 0x1.8p23f;
    for (size_t i = 0; i < n; i++) {
        float q = in[i] / scale;
        q = q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q;
        q = (q + magic) - magic;
        out[i] = (int8_t)(int32_t)q;
    }
}

static void round_f64(const double *in, size_t n, double scale, int8_t *out)
{
    const double magic = 0x1.8p52;
    for (size_t i = 0; i < n; i++) {
        double q = in[i] / scale;
        q = q < -127 ? -127 : q > 127 ? 127 : q;
        q = (q + magic) - magic;
        out[i] = (int8_t)(int32_t)q;
    }
}

static void write_run(const struct tiered_block *block, const void *in,
                      const struct run *run, uint8_t *scales, int8_t *out)
{
    double largest = run->state->largest[run->scale];
    if (block->dtype == TIERED_F64) {
        double scale = scale_f64(largest);
        memcpy(scales, &scale, sizeof(scale));
        round_f64((const double *)in + run->at, run->n, scale, out + run->at);
        return;
    }
    float scale = scale_f32(largest), values[CODEC_TILE];
    memcpy(scales, &scale, sizeof(scale));
    if (block->dtype == TIERED_F32) {
        round_f32((const float *)in + run->at, run->n, scale, out + run->at);
        return;
    }
    for (size_t k = 0; k < run->n; k += CODEC_TILE) {
        size_t m = run->n - k < CODEC_TILE ? run->n - k : CODEC_TILE, at = run->at + k;
        codec_load(block->dtype, (const uint16_t *)in + at, m, values);
        round_f32(values, m, scale, out + at);
    }
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    size_t head, size = small_size(s, block, &head);
    if (!size) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    if (codec_check_values(block, in_size, err) < 0 ||
        codec_check_room(size, capacity, err) < 0) {
        return -1;
    }
    uint8_t *scales = out;
    int8_t *values = (int8_t *)out + head;
    for (struct run run = first_run(s, block); next_run(&run);) {
        if (largest_of(block, in, run.at, run.n) > s->largest[run.scale]) {
            return tiered_fail(err, TIERED_ESTATE,
                               "block %u is not the one that was scanned",
                               block->index);
        }
        write_run(block, in, &run, scales, values);
        scales += scale_width(block);
    }
    *ret_size = size;
    return 0;
}

/* ---- inverse ---- */

static void read_f32(const int8_t *in, size_t n, float scale, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)in[i] * scale;
    }
}

static bool has_lowest(const int8_t *in, size_t n) /* -128, which forward never makes */
{
    int8_t lowest = 0;
    for (size_t i = 0; i < n; i++) {
        lowest = in[i] < lowest ? in[i] : lowest;
    }
    return lowest == INT8_MIN;
}

static bool read_run(const struct tiered_block *block, const struct run *run,
                     const uint8_t *scales, const int8_t *values, void *out)
{
    const int8_t *in = values + run->at;
    float narrow, tile[CODEC_TILE];
    if (block->dtype == TIERED_F64) {
        double scale, *to = (double *)out + run->at;
        memcpy(&scale, scales, sizeof(scale));
        for (size_t i = 0; i < run->n; i++) {
            to[i] = (double)in[i] * scale;
        }
        return scale > 0 && scale * 127 <= DBL_MAX && !has_lowest(in, run->n);
    }
    memcpy(&narrow, scales, sizeof(narrow));
    if (!(narrow > 0 && narrow * 127.0f <= FLT_MAX) || has_lowest(in, run->n)) {
        return false;
    }
    if (block->dtype == TIERED_F32) {
        read_f32(in, run->n, narrow, (float *)out + run->at);
        return true;
    }
    for (size_t k = 0; k < run->n; k += CODEC_TILE) {
        size_t m = run->n - k < CODEC_TILE ? run->n - k : CODEC_TILE;
        read_f32(in + k, m, narrow, tile);
        codec_store(block->dtype, tile, m, (uint16_t *)out + run->at + k);
    }
    return true;
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    size_t head, size = small_size(s, block, &head), raw = (size_t)block->size_bytes;
    if (!size) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    if (codec_check_size(in_size, size, err) < 0 ||
        codec_check_room(raw, capacity, err) < 0) {
        return -1;
    }
    const uint8_t *scales = in;
    const int8_t *values = (const int8_t *)in + head;
    for (struct run run = first_run(s, block); next_run(&run);) {
        if (!read_run(block, &run, scales, values, out)) {
            return tiered_fail(err, TIERED_ECORRUPT, "a scale or a value is damaged");
        }
        scales += scale_width(block);
    }
    *ret_size = raw;
    return 0;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .begin = filter_begin,
    .scan = filter_scan,
    .bound = filter_bound,
    .forward = filter_forward,
    .inverse = filter_inverse,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "int8", .version = "1.0",
                     .summary =
                         "a byte a value, by the largest of a tensor or channel; "
                         "rounds anew at every tier",
                     .traits = TIERED_LOSSY | TIERED_NEEDS_VALUES | TIERED_NEEDS_SCAN |
                               TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
