/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A made-up model and its way through one filter and back, for the checks of filters.
 * Every buffer that the filter gets is guarded, and no larger than the host's would be.
 */
#ifndef TIERED_ORCHESTRATOR_CHECK_PASS_H
#define TIERED_ORCHESTRATOR_CHECK_PASS_H

#include "core/model/model.h"
#include "orchestrator/check.h"
#include "tiered/filter.h"

enum made_values {
    MADE_NORMAL, /* small normal values; integers from -100 to 100 */
    MADE_ZERO,
    MADE_BYTES, /* any bits: NaN of every payload, infinities, -0 */
};

struct made_block {
    uint8_t *data;
    size_t size;
};

/** A model, and what a pass made of it. Zeroed is empty. */
struct made_pass {
    struct tiered_layout *layout;
    uint8_t *data; /* the model's bytes */
    struct made_block header, *blocks;
};

/** Every dtype (u8 where `blobs`), an empty tensor, one element, odd sizes, f32 tensors
    of more than a block, and many small blocks. */
struct tiered_layout *made_layout_mixed(bool blobs);
/** One f32 tensor of n elements. */
struct tiered_layout *made_layout_flat(uint64_t n);
/** Takes the layout. */
struct made_pass made_pass(struct tiered_layout *layout, enum made_values values);
void made_pass_finish(struct made_pass *pass);

int filter_open(struct check *check, const struct tiered_layout *layout,
                void **ret_state, struct tiered_error *err);
/** The sender's calls: begin, scans and header; forwards; end; all of them. They fill
    header and blocks. */
int made_pass_begin(struct check *check, void *state, struct made_pass *pass,
                    struct tiered_error *err);
int made_pass_forward(struct check *check, void *state, struct made_pass *pass,
                      struct tiered_error *err);
int made_pass_end(struct check *check, void *state, struct tiered_error *err);
int made_pass_encode(struct check *check, void *state, struct made_pass *pass,
                     struct tiered_error *err);
/** The receiver's, on a state of its own: inverse_begin, inverses, inverse_end; `out`
 * has the model's size. */
int made_pass_decode(struct check *check, void *state, const struct made_pass *pass,
                     uint8_t *out, struct tiered_error *err);

/** One call in guarded buffers of exactly those sizes. *ret is new, at most `capacity`
    bytes. -1: the filter refused, with *why; what it must not do ends the check. */
int made_forward(struct check *check, void *state, const struct tiered_block *block,
                 const void *in, size_t in_size, size_t capacity,
                 struct made_block *ret, struct tiered_error *why);
int made_inverse(struct check *check, void *state, const struct tiered_block *block,
                 const void *in, size_t in_size, size_t capacity,
                 struct made_block *ret, struct tiered_error *why);
int made_inverse_begin(struct check *check, void *state, const void *header,
                       size_t size, struct tiered_error *why);
/** Same headers and blocks: 0, or -1 with `what` and where they differ. */
int made_pass_compare(const struct made_pass *a, const struct made_pass *b,
                      const char *what, struct tiered_error *err);

#endif
