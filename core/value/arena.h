/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An arena: many small things that are freed in one call. Memory comes zeroed and
 * aligned for any type. Threads: one owner.
 */
#ifndef TIERED_CORE_ARENA_H
#define TIERED_CORE_ARENA_H

#include "core/base/base.h"

/** Zeroed is empty. */
struct tiered_arena {
    struct tiered_arena_chunk *chunks;
};

/** n * size zeroed bytes; NULL on overflow or when there is no memory. */
void *tiered_arena_alloc(struct tiered_arena *arena, size_t n, size_t size);
char *tiered_arena_copy(struct tiered_arena *arena, const void *text, size_t n);
void tiered_arena_finish(struct tiered_arena *arena);

#endif
