/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What clip and gaussian do alike: they change values in place of others, so bytes stay
 * as many as they are, blocks that are not theirs go through, and there is nothing to
 * undo.
 */
#ifndef TIERED_PRIVACY_THROUGH_H
#define TIERED_PRIVACY_THROUGH_H

#include "tiered/filter.h"

/** The op `bound` of both. */
size_t through_bound(void *state, size_t in_size);

/** -1 TIERED_EINVAL: a filter before this one, which is called `name`, made bytes of
   the values. */
int through_check(const char *name, const struct tiered_block *block, size_t in_size,
                  struct tiered_error *err);
/** -1 TIERED_ENOMEM: the output has no room. */
int through_room(size_t in_size, size_t capacity, struct tiered_error *err);
/** The block as it is. */
int through_copy(const void *in, size_t in_size, void *out, size_t capacity,
                 size_t *ret_size, struct tiered_error *err);

/** The op `inverse` of both. */
int through_inverse(void *state, const struct tiered_block *block, const void *in,
                    size_t in_size, void *out, size_t capacity, size_t *ret_size,
                    struct tiered_error *err);

#endif
