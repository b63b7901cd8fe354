/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A worker pool: filters, aggregation and training run here, never on the event loop.
 * Threads start when there is work for them and live as long as the pool.
 *
 * Threads: every call from any thread.
 */
#ifndef TIERED_CORE_POOL_H
#define TIERED_CORE_POOL_H

#include "core/base/base.h"

struct tiered_pool;
/** n_threads 0: one a processor. */
int tiered_pool_create(unsigned n_threads, struct tiered_pool **ret,
                       struct tiered_error *err);
/** Runs what is queued, then joins. */
void tiered_pool_destroy(struct tiered_pool *pool);
unsigned tiered_pool_threads(const struct tiered_pool *pool);
/** Queue fn(arg). First in, first out. */
int tiered_pool_submit(struct tiered_pool *pool, void (*fn)(void *arg), void *arg,
                       struct tiered_error *err);
/**
 * Run fn(user, i, worker) for i in 0..n-1 on the pool and the calling thread, and
 * return when all are done. `worker` < tiered_pool_threads() + 1 names the running
 * slot, for scratch. The first failure stops the rest and is the result. May be called
 * from inside a job of the same pool. pool NULL: on this thread, in order, worker 0.
 */
int tiered_pool_for(struct tiered_pool *pool, size_t n,
                    int (*fn)(void *user, size_t i, unsigned worker,
                              struct tiered_error *err),
                    void *user, struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_pool, tiered_pool_destroy)

#endif
