/* SPDX-License-Identifier: Apache-2.0 */
/* The worker pool. The mutex guards the queue and the counts of threads; jobs run
   without it. Threads are started as work arrives, so that an idle agent has none. */
#include "core/loop/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#ifdef TIERED_SANITIZED
#define WORKER_STACK (4u << 20) /* frames grow several times over */
#else
#define WORKER_STACK (512u << 10)
#endif

struct job {
    struct job *next;
    void (*fn)(void *);
    void *arg;
};

struct tiered_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct job *first, **last;
    unsigned most, started, idle;
    bool closing;
    pthread_t *threads;
};

int tiered_pool_create(unsigned n_threads, struct tiered_pool **ret,
                       struct tiered_error *err)
{
    if (n_threads == 0) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        n_threads = n < 1 ? 1 : n > 256 ? 256 : (unsigned)n;
    }
    struct tiered_pool *pool = calloc(1, sizeof(*pool));
    pthread_t *threads = calloc(n_threads, sizeof(*threads));
    if (!pool || !threads) {
        free(pool);
        free(threads);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pool->last = &pool->first;
    pool->most = n_threads;
    pool->threads = threads;
    *ret = pool;
    return 0;
}

void tiered_pool_destroy(struct tiered_pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool->threads);
    free(pool);
}

unsigned tiered_pool_threads(const struct tiered_pool *pool)
{
    return pool->most;
}

static void *worker(void *arg)
{
    struct tiered_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->first && !pool->closing) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
        }
        struct job *job = pool->first;
        if (!job) {
            break; /* closing, and nothing left */
        }
        pool->first = job->next;
        if (!pool->first) {
            pool->last = &pool->first;
        }
        pthread_mutex_unlock(&pool->lock);
        job->fn(job->arg);
        free(job);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* With the lock held. A pool that cannot start a further thread works with what it has;
   only the first one must come up. */
static int start_thread(struct tiered_pool *pool, struct tiered_error *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, WORKER_STACK);
    int failed = pthread_create(&pool->threads[pool->started], &attr, worker, pool);
    pthread_attr_destroy(&attr);
    if (failed && pool->started == 0) {
        return tiered_fail(err, TIERED_ENOMEM, "cannot start a worker: %s",
                           strerror(failed));
    }
    pool->started += failed ? 0 : 1;
    return 0;
}

int tiered_pool_submit(struct tiered_pool *pool, void (*fn)(void *), void *arg,
                       struct tiered_error *err)
{
    struct job *job = malloc(sizeof(*job));
    if (!job) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *job = (struct job){.fn = fn, .arg = arg};
    pthread_mutex_lock(&pool->lock);
    bool queued = pool->first != NULL;
    int result = 0;
    if ((pool->idle == 0 || queued) && pool->started < pool->most) {
        result = start_thread(pool, err);
    }
    if (result == 0) {
        *pool->last = job;
        pool->last = &job->next;
        pthread_cond_signal(&pool->work);
    } else {
        free(job);
    }
    pthread_mutex_unlock(&pool->lock);
    return result;
}

/* A parallel loop. The caller works too, so that it ends even when every worker is busy
   with something else (or is itself waiting here); helpers that come late find nothing
   left. The last one out frees it. */
struct spread {
    int (*fn)(void *user, size_t i, unsigned worker, struct tiered_error *err);
    void *user;
    size_t n;
    atomic_size_t next;
    atomic_uint slots, refs;
    pthread_mutex_t lock; /* guards running, failed, err */
    pthread_cond_t done;
    unsigned running;
    bool failed;
    struct tiered_error err;
};

static void spread_unref(struct spread *s)
{
    if (atomic_fetch_sub(&s->refs, 1) == 1) {
        pthread_cond_destroy(&s->done);
        pthread_mutex_destroy(&s->lock);
        free(s);
    }
}

static void spread_work(struct spread *s)
{
    pthread_mutex_lock(&s->lock);
    s->running++;
    pthread_mutex_unlock(&s->lock);
    unsigned slot = atomic_fetch_add(&s->slots, 1);
    for (;;) {
        size_t i = atomic_fetch_add(&s->next, 1);
        if (i >= s->n) {
            break;
        }
        struct tiered_error err;
        memset(&err, 0, sizeof(err));
        if (s->fn(s->user, i, slot, &err) < 0) {
            pthread_mutex_lock(&s->lock);
            if (!s->failed) {
                s->failed = true;
                s->err = err;
            }
            pthread_mutex_unlock(&s->lock);
            atomic_store(&s->next, s->n);
            break;
        }
    }
    pthread_mutex_lock(&s->lock);
    if (--s->running == 0) {
        pthread_cond_broadcast(&s->done);
    }
    pthread_mutex_unlock(&s->lock);
}

static void spread_help(void *arg)
{
    struct spread *s = arg;
    if (atomic_load(&s->next) < s->n) {
        spread_work(s);
    }
    spread_unref(s);
}

static int run_serial(size_t n,
                      int (*fn)(void *, size_t, unsigned, struct tiered_error *),
                      void *user, struct tiered_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (fn(user, i, 0, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static void call_helpers(struct tiered_pool *pool, struct spread *s)
{
    size_t most = s->n - 1 < pool->most ? s->n - 1 : pool->most;
    for (size_t i = 0; i < most; i++) {
        atomic_fetch_add(&s->refs, 1);
        if (tiered_pool_submit(pool, spread_help, s, NULL) < 0) {
            atomic_fetch_sub(&s->refs, 1); /* fewer hands, same work */
            return;
        }
    }
}

int tiered_pool_for(struct tiered_pool *pool, size_t n,
                    int (*fn)(void *, size_t, unsigned, struct tiered_error *),
                    void *user, struct tiered_error *err)
{
    if (!pool || pool->most < 2 || n < 2) {
        return run_serial(n, fn, user, err);
    }
    struct spread *s = calloc(1, sizeof(*s));
    if (!s) {
        return run_serial(n, fn, user, err);
    }
    s->fn = fn;
    s->user = user;
    s->n = n;
    atomic_init(&s->next, 0);
    atomic_init(&s->slots, 0);
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->done, NULL);
    call_helpers(pool, s);
    spread_work(s);
    pthread_mutex_lock(&s->lock);
    while (s->running > 0) {
        pthread_cond_wait(&s->done, &s->lock);
    }
    int result = s->failed ? -1 : 0;
    if (result < 0 && err) {
        *err = s->err;
    }
    pthread_mutex_unlock(&s->lock);
    spread_unref(s);
    return result;
}
