/* SPDX-License-Identifier: Apache-2.0 */
/* An arena of chunks; large things get a chunk of their own. */
#include "core/value/arena.h"

#include <string.h>

#define CHUNK_BYTES (64u << 10)
#define UNIT        _Alignof(max_align_t)

struct tiered_arena_chunk {
    struct tiered_arena_chunk *next;
    size_t used, capacity;
    _Alignas(max_align_t) unsigned char data[];
};

/* A chunk larger than usual goes behind the first, whose rest stays in use. */
static struct tiered_arena_chunk *add_chunk(struct tiered_arena *arena, size_t need)
{
    size_t capacity = need > CHUNK_BYTES ? need : CHUNK_BYTES;
    struct tiered_arena_chunk *chunk = calloc(1, sizeof(*chunk) + capacity);
    if (!chunk) {
        return NULL;
    }
    chunk->capacity = capacity;
    if (need > CHUNK_BYTES && arena->chunks) {
        chunk->next = arena->chunks->next;
        arena->chunks->next = chunk;
    } else {
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    return chunk;
}

void *tiered_arena_alloc(struct tiered_arena *arena, size_t n, size_t size)
{
    uint64_t need;
    if (!tiered_mul(n, size, &need) || need > SIZE_MAX / 2) {
        return NULL;
    }
    need = (need + UNIT - 1) / UNIT * UNIT;
    struct tiered_arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->capacity - chunk->used < need) {
        chunk = add_chunk(arena, (size_t)need);
    }
    if (!chunk) {
        return NULL;
    }
    void *p = chunk->data + chunk->used;
    chunk->used += (size_t)need;
    return p;
}

char *tiered_arena_copy(struct tiered_arena *arena, const void *text, size_t n)
{
    char *copy = n < SIZE_MAX ? tiered_arena_alloc(arena, n + 1, 1) : NULL;
    if (copy && n) {
        memcpy(copy, text, n);
    }
    return copy;
}

void tiered_arena_finish(struct tiered_arena *arena)
{
    while (arena->chunks) {
        struct tiered_arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
}
