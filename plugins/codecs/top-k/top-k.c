/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The top-k filter: the k largest values of an update with what earlier rounds kept
 * back, k = ceil(ratio * values of the model); the rest is kept for the next round
 * (Stich et al., 2018; Karimireddy et al., 2019).
 *
 * The scan adds up p = update + residual, header() makes the choice, and forward only
 * reads: blocks may overlap and be made again. end() turns p without what was sent into
 * the residual; until then the old one stands. See residual.h and sparse.h.
 */
#include <stdlib.h>

#include "sparse.h"

#define VERSION 1

struct config {
    double ratio;
    bool error_feedback;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, ratio, "0.01", 0, 1,
                         "share of the model's values that is sent",
                         .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_BOOLEAN(struct config, error_feedback, "true",
                          "keep what is not sent, and add it to the next update"),
};

struct state {
    double ratio;
    bool feedback;
    struct residual residual;
};

static void filter_destroy(void *state)
{
    struct state *s = state;
    if (s) {
        residual_finish(&s->residual);
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
    s->ratio = c->ratio;
    s->feedback = c->error_feedback;
    if (residual_init(&s->residual, manifest, err) < 0) {
        filter_destroy(s);
        return -1;
    }
    *ret_state = s;
    return 0;
}

static int filter_begin(void *state, const struct tiered_host *host,
                        struct tiered_error *err)
{
    (void)host;
    return residual_begin(&((struct state *)state)->residual, err);
}

static int filter_scan(void *state, const struct tiered_block *block, const void *in,
                       size_t in_size, struct tiered_error *err)
{
    struct state *s = state;
    if (!codec_acts_on(block)) {
        return 0;
    }
    return codec_check_values(block, in_size, err) < 0
               ? -1
               : residual_add(&s->residual, block, in, err);
}

/* ceil(ratio * n), where a product that is a whole number but for its last digits is
   that number: 0.07 of 100 is 7. */
static uint64_t count_of(double ratio, uint64_t n)
{
    double k = ceil(ratio * (double)n * (1 - 0x1p-48));
    return k < 1 ? n > 0 : k < (double)n ? (uint64_t)k : n;
}

static int filter_header(void *state, void *out, size_t capacity, size_t *ret_size,
                         struct tiered_error *err)
{
    struct state *s = state;
    if (codec_check_room(1, capacity, err) < 0) {
        return -1;
    }
    residual_choose(&s->residual, count_of(s->ratio, s->residual.n_values));
    *(uint8_t *)out = VERSION;
    *ret_size = 1;
    return 0;
}

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size + SPARSE_OVERHEAD;
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    const struct state *s = state;
    struct residual_span span;
    if (!codec_acts_on(block)) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    return codec_check_values(block, in_size, err) < 0 ||
                   residual_span(&s->residual, block, &span, err) < 0 ||
                   sparse_write(&s->residual, &span, block->dtype, out, capacity,
                                ret_size, err) < 0
               ? -1
               : 0;
}

static int filter_end(void *state, struct tiered_error *err)
{
    struct state *s = state;
    (void)err;
    if (s->feedback) {
        residual_commit(&s->residual);
    }
    return 0;
}

static int filter_inverse_begin(void *state, const void *header, size_t header_size,
                                struct tiered_error *err)
{
    (void)state;
    if (header_size != 1 || *(const uint8_t *)header != VERSION) {
        return tiered_fail(err, TIERED_ECORRUPT, "not a header of top-k, version %d",
                           VERSION);
    }
    return 0;
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    size_t n = (size_t)block->n_elements, size = n * tiered_dtype_size(block->dtype);
    (void)state;
    if (!codec_acts_on(block)) {
        return codec_copy(block, in, in_size, out, capacity, ret_size, err);
    }
    if (codec_check_room(size, capacity, err) < 0 ||
        sparse_read(in, in_size, n, block->dtype, out, err) < 0) {
        return -1;
    }
    *ret_size = size;
    return 0;
}

/* ---- saved state: the residual's bytes; none before the first pass ---- */

static int filter_save(void *state, void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err)
{
    const struct residual *r = &((struct state *)state)->residual;
    size_t size = r->kept ? (size_t)r->size : 0;
    *ret_size = size;
    if (capacity == 0) {
        return 0;
    }
    if (codec_check_room(size, capacity, err) < 0) {
        return -1;
    }
    if (size) {
        memcpy(out, r->kept, size);
    }
    return 0;
}

static bool all_finite(const struct residual *r, const uint8_t *bytes)
{
    bool finite = true;
    for (size_t k = 0; k < r->n_tensors && finite; k++) {
        const struct residual_tensor *t = &r->tensors[k];
        const uint8_t *values = bytes + t->offset;
        finite = t->dtype == TIERED_F64
                     ? codec_largest_f64((const double *)values, t->n) <= DBL_MAX
                     : codec_largest_bits((const float *)values, t->n) <= CODEC_FINITE;
    }
    return finite;
}

static int filter_load(void *state, uint32_t version, const void *in, size_t size,
                       struct tiered_error *err)
{
    struct state *s = state;
    struct residual *r = &s->residual;
    if (version != VERSION) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "a residual of version %u; this is version %d", version,
                           VERSION);
    }
    if (size != 0 && size != r->size) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "the residual has %zu bytes; this model's has %llu", size,
                           (unsigned long long)r->size);
    }
    bool wanted = size && s->feedback; /* switched off since: forget it */
    uint8_t *kept = wanted ? malloc(size) : NULL;
    if (wanted && !kept) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (kept) {
        memcpy(kept, in, size);
    }
    if (kept && !all_finite(r, kept)) {
        free(kept);
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the residual has a value that is not a finite number");
    }
    free(r->kept);
    r->kept = kept;
    return 0;
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
    .end = filter_end,
    .inverse_begin = filter_inverse_begin,
    .inverse = filter_inverse,
    .saved = {.version = VERSION, .save = filter_save, .load = filter_load},
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "top-k", .version = "1.0",
                     .summary = "the largest values of an update, the others later; an "
                                "inner tier chooses anew from its aggregate",
                     .traits = TIERED_LOSSY | TIERED_NEEDS_VALUES | TIERED_NEEDS_SCAN |
                               TIERED_CHANGES_ONLY | TIERED_CONCURRENT |
                               TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
