/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Whether a dictionary would pay in the next pass, and which: judged on blocks that it
 * was not trained on, against what it costs to send.
 */
#ifndef TIERED_ZSTD_TRAIN_H
#define TIERED_ZSTD_TRAIN_H

#include "dictionary.h"
#include "samples.h"

/** One frame, made with the dictionary (NULL: without). An error as zstd tells it. */
static inline size_t press(ZSTD_CCtx *context, const struct dictionary *d,
                           const void *in, size_t in_size, void *out, size_t capacity)
{
    ZSTD_CCtx_reset(context, ZSTD_reset_session_only); /* one may have failed */
    ZSTD_CCtx_refCDict(context, d ? d->writer : NULL);
    return ZSTD_compress2(context, out, capacity, in, in_size);
}

/** What to send with the next pass, from the settled samples of this one: *d stays, or
    another takes its place, or none, where none pays. `context` is as the pass used
    it. */
int dictionary_choose(struct dictionary *d, const struct samples *samples,
                      ZSTD_CCtx *context, int level, struct tiered_error *err);

#endif
