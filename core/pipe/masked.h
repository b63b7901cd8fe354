/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A masked update as an encoded object: the model's tensors as words of a ring, each
 * under its own name, behind them a tensor of what else is summed (if anything is), and
 * one with the tail of the group protocol. So it travels, is spooled and is sent again
 * like any other. Its head names the group as its one filter, whose header is what the
 * protocol says in the clear.
 *
 * Threads: immutable once made.
 */
#ifndef TIERED_CORE_MASKED_H
#define TIERED_CORE_MASKED_H

#include "core/model/model.h"
#include "core/spool/encoded.h"

#define TIERED_MASKED_TAIL   "tiered:group" /* no trainer has such tensors */
#define TIERED_MASKED_EXTRAS "tiered:extras"
#define TIERED_MASKED_MOST   4 /* extras */

/** The values of a layout in manifest order, then the extras, and their words. */
struct tiered_masked {
    struct tiered_layout *plain, *words; /* referenced */
    uint32_t word_bytes;
    uint64_t n_values; /* n_extras of them behind the layout's */
    uint32_t n_extras;
    uint64_t *plain_first, *words_first; /* of each block: its first value */
    uint32_t n_word_blocks;              /* those of values; the tail's is the next */
};

/** TIERED_ENOTSUP names a tensor that cannot be summed: u8, bool. */
int tiered_masked_create(struct tiered_layout *plain, uint32_t word_bytes,
                         uint32_t n_extras, struct tiered_masked **ret,
                         struct tiered_error *err);
void tiered_masked_destroy(struct tiered_masked *masked);

/** What is masked, or unmasked. */
struct tiered_summand {
    uint8_t *delta; /* a buffer as a model of `plain` lies */
    double extras[TIERED_MASKED_MOST];
};
/** n of its values from `first` on. */
void tiered_masked_values(const struct tiered_masked *masked,
                          const struct tiered_summand *from, uint64_t first, size_t n,
                          double *out);
/** The other way, rounded to each tensor's dtype. Different values may be stored at
    once. */
void tiered_masked_store(const struct tiered_masked *masked, struct tiered_summand *to,
                         uint64_t first, size_t n, const double *values);
/** Does this received object hold the words of such an update? */
int tiered_masked_check(const struct tiered_masked *masked,
                        const struct tiered_encoded *encoded, struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_masked, tiered_masked_destroy)

#endif
