/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice is a radix select over the bits of |p| as f64, which order as the numbers
 * do: sixteen bits a step, the first while the blocks come in, the others over the
 * buffer. So it is exact, and takes no memory beside the bins.
 */
#include "residual.h"

#include <stdlib.h>

#define STEP_BITS 16

int residual_init(struct residual *r, const struct tiered_manifest *manifest,
                  struct tiered_error *err)
{
    *r = (struct residual){.n_tensors = manifest->n_tensors};
    r->tensors = calloc(r->n_tensors + 1, sizeof(*r->tensors));
    if (!r->tensors) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct tiered_tensor *t = &manifest->tensors[i];
        const struct tiered_block block = {.dtype = t->dtype, .role = t->role};
        uint64_t n = codec_acts_on(&block) ? t->n_elements : 0;
        bool wide = t->dtype == TIERED_F64;
        if (n && wide) {
            r->size = (r->size + 7) / 8 * 8;
        }
        r->tensors[i] = (struct residual_tensor){.dtype = t->dtype,
                                                 .n = n,
                                                 .n_elements = t->n_elements,
                                                 .offset = r->size,
                                                 .rank = r->n_values};
        r->n_values += n;
        r->size += n * (wide ? sizeof(double) : sizeof(float));
    }
    return 0;
}

void residual_finish(struct residual *r)
{
    free(r->tensors);
    free(r->kept);
    free(r->pass);
    free(r->bins);
}

int residual_begin(struct residual *r, struct tiered_error *err)
{
    if (!r->pass) {
        r->pass = malloc(r->size + 1);
    }
    if (!r->bins) {
        r->bins = malloc(RESIDUAL_BINS * sizeof(*r->bins));
    }
    if (!r->pass || !r->bins) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for %llu values",
                           (unsigned long long)r->n_values);
    }
    memset(r->pass, 0, r->size);
    memset(r->bins, 0, RESIDUAL_BINS * sizeof(*r->bins));
    r->chosen = false;
    return 0;
}

/* A block's values are contiguous in the buffers: between its tensors, which share a
   dtype and a role, only empty ones may lie. */
static int locate(const struct residual *r, const struct tiered_block *block,
                  uint64_t *ret_offset, uint64_t *ret_rank, struct tiered_error *err)
{
    const struct residual_tensor *t =
        block->first_tensor < r->n_tensors ? &r->tensors[block->first_tensor] : NULL;
    uint64_t first = block->first_element;
    size_t width = block->dtype == TIERED_F64 ? sizeof(double) : sizeof(float);
    if (!t || t->dtype != block->dtype || first > t->n ||
        t->rank + first + block->n_elements > r->n_values) {
        return tiered_fail(err, TIERED_ESHAPE, "block %u is not of this model",
                           block->index);
    }
    *ret_offset = t->offset + first * width;
    *ret_rank = t->rank + first;
    return 0;
}

static uint64_t key_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits & (UINT64_MAX >> 1);
}

static void add_f32(const float *in, const float *kept, size_t n, float *out,
                    uint64_t *bins)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = kept ? in[i] + kept[i] : in[i];
    }
    for (size_t i = 0; i < n; i++) {
        bins[key_of((double)out[i]) >> (63 - STEP_BITS)]++;
    }
}

static void add_f64(const double *in, const double *kept, size_t n, double *out,
                    uint64_t *bins)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = kept ? in[i] + kept[i] : in[i];
        bins[key_of(out[i]) >> (63 - STEP_BITS)]++;
    }
}

static int add_tile(struct residual *r, const struct tiered_block *block,
                    uint64_t offset, const void *in, size_t at, size_t n,
                    struct tiered_error *err)
{
    float values[CODEC_TILE], *out = (float *)(r->pass + offset) + at;
    const float *from = values, *kept = NULL;
    if (codec_is_half(block->dtype)) {
        codec_load(block->dtype, (const uint16_t *)in + at, n, values);
    } else {
        from = (const float *)in + at;
    }
    if (r->kept) {
        kept = (const float *)(r->kept + offset) + at;
    }
    add_f32(from, kept, n, out, r->bins);
    return codec_largest_bits(out, n) > CODEC_FINITE ? codec_not_finite(block, err) : 0;
}

int residual_add(struct residual *r, const struct tiered_block *block, const void *in,
                 struct tiered_error *err)
{
    uint64_t offset = 0, rank = 0;
    size_t n = (size_t)block->n_elements;
    if (locate(r, block, &offset, &rank, err) < 0) {
        return -1;
    }
    if (block->dtype == TIERED_F64) {
        double *out = (double *)(r->pass + offset);
        add_f64(in, r->kept ? (double *)(r->kept + offset) : NULL, n, out, r->bins);
        return codec_largest_f64(out, n) > DBL_MAX ? codec_not_finite(block, err) : 0;
    }
    for (size_t at = 0; at < n; at += CODEC_TILE) {
        size_t m = n - at < CODEC_TILE ? n - at : CODEC_TILE;
        if (add_tile(r, block, offset, in, at, m, err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- the choice ---- */

static double value_at(const struct residual *r, const struct residual_tensor *t,
                       uint64_t i)
{
    const uint8_t *values = r->pass + t->offset;
    return t->dtype == TIERED_F64 ? ((const double *)values)[i]
                                  : (double)((const float *)values)[i];
}

/* The next bits of those values whose first ones are `prefix`. */
static void count_bins(const struct residual *r, uint64_t prefix, unsigned shift,
                       unsigned bits)
{
    uint64_t mask = (1u << bits) - 1;
    memset(r->bins, 0, RESIDUAL_BINS * sizeof(*r->bins));
    for (size_t k = 0; k < r->n_tensors; k++) {
        const struct residual_tensor *t = &r->tensors[k];
        for (uint64_t i = 0; i < t->n; i++) {
            uint64_t key = key_of(value_at(r, t, i));
            if (key >> (shift + bits) == prefix) {
                r->bins[key >> shift & mask]++;
            }
        }
    }
}

/* The bin in which the k-th largest lies; *k becomes its place there. */
static uint64_t find_bin(const uint64_t *bins, uint64_t *k)
{
    uint64_t bin = RESIDUAL_BINS - 1;
    while (bin && bins[bin] < *k) {
        *k -= bins[bin--];
    }
    return bin;
}

static uint64_t rank_of_tie(const struct residual *r, uint64_t key, uint64_t k)
{
    for (size_t j = 0; j < r->n_tensors; j++) {
        const struct residual_tensor *t = &r->tensors[j];
        for (uint64_t i = 0; i < t->n; i++) {
            if (key_of(value_at(r, t, i)) == key && --k == 0) {
                return t->rank + i;
            }
        }
    }
    return r->n_values;
}

static void set_above(struct residual *r, uint64_t key)
{
    memcpy(&r->above, &key, sizeof(r->above));
}

void residual_choose(struct residual *r, uint64_t k)
{
    r->chosen = true;
    r->above = 0;
    r->ties = false;
    if (k >= r->n_values || k == 0) {
        r->above = k ? 0 : INFINITY;
        return;
    }
    unsigned shift = 63 - STEP_BITS;
    uint64_t prefix = find_bin(r->bins, &k), here = r->bins[prefix];
    while (shift && here > k) {
        unsigned bits = shift < STEP_BITS ? shift : STEP_BITS;
        shift -= bits;
        count_bins(r, prefix, shift, bits);
        uint64_t bin = find_bin(r->bins, &k);
        here = r->bins[bin];
        prefix = prefix << bits | bin;
    }
    prefix <<= shift;
    if (here == k) { /* all from here on */
        set_above(r, prefix ? prefix - 1 : 0);
        return;
    }
    set_above(r, prefix);
    r->ties = prefix != 0;
    r->last_tie = r->ties ? rank_of_tie(r, prefix, k) : 0;
}

/* ---- after the choice ---- */

int residual_span(const struct residual *r, const struct tiered_block *block,
                  struct residual_span *ret, struct tiered_error *err)
{
    uint64_t offset = 0, rank = 0;
    if (!r->pass || !r->chosen) {
        return tiered_fail(err, TIERED_ESTATE, "no pass was scanned");
    }
    if (locate(r, block, &offset, &rank, err) < 0) {
        return -1;
    }
    *ret = (struct residual_span){.values = r->pass + offset,
                                  .rank = rank,
                                  .n = (size_t)block->n_elements,
                                  .wide = block->dtype == TIERED_F64};
    return 0;
}

/* The largest f32 that is not above x: an f32 is above the one where it is above the
   other. */
static float floor_f32(double x)
{
    float f = x > (double)FLT_MAX ? FLT_MAX : (float)x;
    return (double)f > x ? nextafterf(f, 0) : f;
}

static size_t sent_f32(const struct residual *r, const float *in, uint64_t rank,
                       size_t from, size_t n, uint32_t *out)
{
    float above = floor_f32(r->above);
    bool ties = r->ties && (double)above == r->above && r->last_tie >= rank + from;
    size_t count = 0;
    for (size_t i = from; i < from + n; i++) {
        float size = fabsf(in[i]);
        out[count] = (uint32_t)i;
        count += size > above || (ties && size == above && rank + i <= r->last_tie);
    }
    return count;
}

static size_t sent_f64(const struct residual *r, const double *in, uint64_t rank,
                       size_t from, size_t n, uint32_t *out)
{
    size_t count = 0;
    for (size_t i = from; i < from + n; i++) {
        double size = fabs(in[i]);
        out[count] = (uint32_t)i;
        count +=
            size > r->above || (r->ties && size == r->above && rank + i <= r->last_tie);
    }
    return count;
}

size_t residual_sent(const struct residual *r, const struct residual_span *span,
                     size_t from, size_t n, uint32_t *out)
{
    return span->wide
               ? sent_f64(r, (const double *)span->values, span->rank, from, n, out)
               : sent_f32(r, (const float *)span->values, span->rank, from, n, out);
}

/* What is left of p where it was sent: nothing, or what 16 bits could not say. */
static float left_of(enum tiered_dtype dtype, float p)
{
    uint16_t half;
    float sent = p;
    if (codec_is_half(dtype)) {
        codec_store(dtype, &p, 1, &half);
        codec_load(dtype, &half, 1, &sent);
    }
    return p - sent;
}

static void commit_tile(const struct residual_tensor *t,
                        const struct residual_span *span, const uint32_t *sent,
                        size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (span->wide) {
            ((double *)span->values)[sent[i]] = 0;
        } else {
            float *p = (float *)span->values + sent[i];
            *p = left_of(t->dtype, *p);
        }
    }
}

void residual_commit(struct residual *r)
{
    uint32_t sent[CODEC_TILE];
    if (!r->pass || !r->chosen) {
        return;
    }
    for (size_t k = 0; k < r->n_tensors; k++) {
        const struct residual_tensor *t = &r->tensors[k];
        const struct residual_span span = {.values = r->pass + t->offset,
                                           .rank = t->rank,
                                           .n = CODEC_TILE,
                                           .wide = t->dtype == TIERED_F64};
        size_t width = span.wide ? sizeof(double) : sizeof(float);
        for (uint64_t at = 0; at < t->n; at += CODEC_TILE) {
            struct residual_span tile = span;
            size_t m = t->n - at < CODEC_TILE ? (size_t)(t->n - at) : CODEC_TILE;
            tile.values += at * width;
            tile.rank += at;
            commit_tile(t, &tile, sent, residual_sent(r, &tile, 0, m, sent));
        }
    }
    uint8_t *old = r->kept;
    r->kept = r->pass;
    r->pass = old;
    r->chosen = false;
}
