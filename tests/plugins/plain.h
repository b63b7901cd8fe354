/* SPDX-License-Identifier: Apache-2.0 */
/* A filter that changes nothing, for filters that are right or wrong in one point. */
#ifndef TIERED_TESTS_PLAIN_H
#define TIERED_TESTS_PLAIN_H

#include <string.h>

#include "tiered/filter.h"

static inline int plain_init(const struct tiered_host *host, const void *config,
                             const struct tiered_manifest *manifest, void **ret_state,
                             struct tiered_error *err)
{
    (void)host, (void)config, (void)manifest, (void)err;
    *ret_state = NULL;
    return 0;
}

static inline void plain_destroy(void *state)
{
    (void)state;
}

static inline size_t plain_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

static inline int plain_copy(void *state, const struct tiered_block *block,
                             const void *in, size_t in_size, void *out, size_t capacity,
                             size_t *ret_size, struct tiered_error *err)
{
    (void)state, (void)block;
    if (in_size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "no room");
    }
    memcpy(out, in, in_size);
    *ret_size = in_size;
    return 0;
}

/* To be followed by .bound, .forward and .inverse: plain_… or the filter's own. */
#define PLAIN_OPS .init = plain_init, .destroy = plain_destroy

#endif
