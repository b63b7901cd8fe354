/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the sender of top-k remembers, and the choice of a pass: p = update + residual,
 * the k largest |p| of the whole model, and p without them as the next residual.
 *
 * Values are kept as f32, those of f64 tensors as f64, in the model's order. A pass
 * writes to a second buffer; residual_commit makes it the residual, and before that the
 * old one is whole: a pass that fails or is dropped changes nothing.
 *
 * Threads: after residual_choose spans may be read by many.
 */
#ifndef TIERED_TOP_K_RESIDUAL_H
#define TIERED_TOP_K_RESIDUAL_H

#include "../common/codec.h"

#define RESIDUAL_BINS 65536

/* A tensor's values in the buffers; none where the filter does not act on it. */
struct residual_tensor {
    enum tiered_dtype dtype;
    uint64_t n, n_elements;
    uint64_t offset; /* bytes */
    uint64_t rank;   /* of its first value among all */
};

struct residual {
    size_t n_tensors;
    struct residual_tensor *tensors;
    uint64_t n_values, size; /* of all, and of a buffer in bytes */
    uint8_t *kept;           /* the residual; NULL: zeros */
    uint8_t *pass;           /* p; NULL outside a pass */
    uint64_t *bins;          /* |p| by the first bits of an f64 */
    bool chosen;
    double above; /* larger |p| are sent */
    bool ties;    /* … and equal ones, up to this rank */
    uint64_t last_tie;
};

/** p of a block: its values, f32 or f64, and the first one's rank. */
struct residual_span {
    uint8_t *values;
    uint64_t rank;
    size_t n;
    bool wide; /* f64 */
};

int residual_init(struct residual *r, const struct tiered_manifest *manifest,
                  struct tiered_error *err);
void residual_finish(struct residual *r);

/** Begin a pass; one that was begun is dropped. */
int residual_begin(struct residual *r, struct tiered_error *err);
/** Take in a block's values. -1: one of them, or its p, is not finite. */
int residual_add(struct residual *r, const struct tiered_block *block, const void *in,
                 struct tiered_error *err);
/** After all blocks: which k values are sent. Ties go to the lower index, and zeros are
    never sent. */
void residual_choose(struct residual *r, uint64_t k);

/** p of a block. -1: not a block of this model, or nothing was chosen yet. */
int residual_span(const struct residual *r, const struct tiered_block *block,
                  struct residual_span *ret, struct tiered_error *err);
/** The indices in `span` of those of its values from..from+n-1 that are sent into out,
    which has room for n. Returns how many. */
size_t residual_sent(const struct residual *r, const struct residual_span *span,
                     size_t from, size_t n, uint32_t *out);

/** p without what was sent, as it reads at the receiver, becomes the residual. */
void residual_commit(struct residual *r);

#endif
