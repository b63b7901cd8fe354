/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The small blocks of one pass from which a dictionary may be trained: at most a fixed
 * number of bytes of them, the same ones in whatever order and however often they come.
 *
 * Each block has a rank that its index decides, spread evenly; those of the lowest
 * ranks that fit are kept. So a block that once did not fit never comes back.
 *
 * Threads: samples_add may be called by many; the others by one, while nobody adds.
 */
#ifndef TIERED_ZSTD_SAMPLES_H
#define TIERED_ZSTD_SAMPLES_H

#include <pthread.h>

#include "tiered/filter.h"

/* Where a dictionary is of use. A larger block has room for tables of its own, and a
   frame of eight bytes cannot become shorter. */
#define SAMPLE_LEAST 9u
#define SAMPLE_MOST  (16u << 10)

#define SAMPLES_BYTES (256u << 10)
#define SAMPLES_COUNT 4096u

struct sample {
    uint32_t rank;
    uint32_t size;
    uint8_t *data;
};

struct samples {
    pthread_mutex_t lock; /* guards what follows; nothing is called with it held */
    size_t n, room, bytes;
    struct sample *items; /* since samples_settle by rank, without twins */
    uint64_t end;         /* ranks from here on did not fit */
};

void samples_init(struct samples *s);
void samples_finish(struct samples *s);
/** Forget all: a pass begins. */
void samples_clear(struct samples *s);
/** What zstd gets as block `index`. One that is too large or too small is left out. */
int samples_add(struct samples *s, uint32_t index, const void *data, size_t size,
                struct tiered_error *err);
/** The choice, by rank. */
void samples_settle(struct samples *s);

#endif
