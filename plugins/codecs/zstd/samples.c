/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks are appended as they come, also those that came before; at twice the allowed
 * bytes or number the list is settled: sorted by rank, without twins, and cut off where
 * it no longer fits. What is cut off only ever moves down, so that the last settling
 * leaves what one of all blocks at once would.
 */
#include "samples.h"

#include <stdlib.h>
#include <string.h>

/* An odd factor near 2^32 / phi: no two indices have one rank, and near ones have
   distant ranks. */
static uint32_t rank_of(uint32_t index)
{
    return index * 2654435769u;
}

void samples_init(struct samples *s)
{
    *s = (struct samples){.end = UINT64_MAX};
    pthread_mutex_init(&s->lock, NULL);
}

void samples_clear(struct samples *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->items[i].data);
    }
    s->n = s->bytes = 0;
    s->end = UINT64_MAX;
}

void samples_finish(struct samples *s)
{
    samples_clear(s);
    free(s->items);
    pthread_mutex_destroy(&s->lock);
}

static int by_rank(const void *a, const void *b)
{
    const struct sample *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

void samples_settle(struct samples *s)
{
    size_t n = 0, bytes = 0;
    if (s->n > 1) {
        qsort(s->items, s->n, sizeof(*s->items), by_rank);
    }
    for (size_t i = 0; i < s->n; i++) {
        struct sample one = s->items[i];
        bool twin = n > 0 && s->items[n - 1].rank == one.rank;
        bool fits = bytes + one.size <= SAMPLES_BYTES && n < SAMPLES_COUNT;
        if (!twin && !fits && one.rank < s->end) {
            s->end = one.rank;
        }
        if (twin || one.rank >= s->end) {
            free(one.data);
        } else {
            s->items[n++] = one;
            bytes += one.size;
        }
    }
    s->n = n;
    s->bytes = bytes;
}

static bool make_room(struct samples *s)
{
    if (s->n < s->room) {
        return true;
    }
    size_t room = s->room ? 2 * s->room : 64;
    struct sample *items = realloc(s->items, room * sizeof(*items));
    if (items) {
        s->items = items;
        s->room = room;
    }
    return items;
}

int samples_add(struct samples *s, uint32_t index, const void *data, size_t size,
                struct tiered_error *err)
{
    if (size < SAMPLE_LEAST || size > SAMPLE_MOST) {
        return 0;
    }
    struct sample one = {rank_of(index), (uint32_t)size, malloc(size)};
    if (!one.data) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(one.data, data, size);
    pthread_mutex_lock(&s->lock);
    bool wanted = one.rank < s->end, kept = wanted && make_room(s);
    if (kept) {
        s->items[s->n++] = one;
        s->bytes += size;
    }
    if (s->bytes > 2 * (size_t)SAMPLES_BYTES || s->n > 2 * (size_t)SAMPLES_COUNT) {
        samples_settle(s);
    }
    pthread_mutex_unlock(&s->lock);
    if (!kept) {
        free(one.data);
    }
    return wanted && !kept ? tiered_fail(err, TIERED_ENOMEM, "out of memory") : 0;
}
