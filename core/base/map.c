/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large buffers: pages of the kernel's own, huge ones where they are large. Most of
 * what a fresh buffer costs is that the kernel clears its pages, and a round needs the
 * same few sizes again and again; so freed large buffers wait here for the next one of
 * their size, until tidy() finds that none came. A new one of another size drives out
 * as much, so that those in use and those that wait are never more than were once in
 * use.
 *
 * The mutex guards the list; nothing is called with it held.
 */
#include "core/base/base.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES (2u << 20)
#define KEPT       64           /* buffers */
#define KEPT_FROM  (256u << 10) /* bytes; smaller ones are not worth a list */
#define KEPT_STEP  (64u << 10)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept {
    void *data;
    size_t size;
    uint64_t since_ms;
} kept[KEPT]; /* oldest first */
static size_t n_kept;

/* Kept sizes in steps, so that nearly equal ones serve each other. */
static size_t round_up(size_t n)
{
    size_t step = n >= 4 * HUGE_BYTES ? HUGE_BYTES
                  : n >= KEPT_FROM    ? KEPT_STEP
                                      : (size_t)sysconf(_SC_PAGESIZE);
    n += n == 0;
    return n > SIZE_MAX - step ? 0 : (n + step - 1) / step * step;
}

static void *map(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Older kernels place a mapping anywhere: ask for more and cut both ends off. */
static void *map_huge(size_t n)
{
    uint8_t *wide = n > SIZE_MAX - HUGE_BYTES ? NULL : map(n + HUGE_BYTES);
    if (!wide) {
        return NULL;
    }
    size_t before = (HUGE_BYTES - (uintptr_t)wide % HUGE_BYTES) % HUGE_BYTES;
    if (before) {
        munmap(wide, before);
    }
    munmap(wide + before + n, HUGE_BYTES - before);
    madvise(wide + before, n, MADV_HUGEPAGE); /* a kernel without them refuses: fine */
    return wide + before;
}

static void *take_kept(size_t n)
{
    void *found = NULL;
    pthread_mutex_lock(&lock);
    for (size_t i = n_kept; i-- > 0 && !found;) { /* the last one is the warmest */
        if (kept[i].size == n) {
            found = kept[i].data;
            memmove(&kept[i], &kept[i + 1], (--n_kept - i) * sizeof(kept[0]));
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* Give the oldest back, if it waits since `before_ms` or longer; its size, or 0. */
static size_t drop_oldest(uint64_t before_ms)
{
    struct kept oldest = {0};
    pthread_mutex_lock(&lock);
    if (n_kept && kept[0].since_ms <= before_ms) {
        oldest = kept[0];
        memmove(kept, kept + 1, --n_kept * sizeof(kept[0]));
    }
    pthread_mutex_unlock(&lock);
    if (oldest.data) {
        munmap(oldest.data, oldest.size);
    }
    return oldest.size;
}

static void drive_out(size_t n)
{
    for (size_t freed = 0, one; freed < n; freed += one) {
        one = drop_oldest(UINT64_MAX);
        if (!one) {
            return;
        }
    }
}

void tiered_map_tidy(uint64_t waiting_ms)
{
    uint64_t now = tiered_now_ms();
    while (now >= waiting_ms && drop_oldest(now - waiting_ms)) {
    }
}

static bool keep(void *p, size_t n)
{
    uint64_t now = tiered_now_ms();
    pthread_mutex_lock(&lock);
    bool room = n_kept < KEPT;
    if (room) {
        kept[n_kept++] = (struct kept){p, n, now};
    }
    pthread_mutex_unlock(&lock);
    return room;
}

void *tiered_map_any(size_t n)
{
    n = round_up(n);
    if (n < KEPT_FROM) {
        return n ? map(n) : NULL;
    }
    void *p = take_kept(n);
    if (!p) {
        drive_out(n);
        p = n < HUGE_BYTES ? NULL : map_huge(n);
    }
    return p ? p : map(n);
}

void *tiered_map(size_t n)
{
    void *p = n < KEPT_FROM ? NULL : take_kept(round_up(n));
    return p ? memset(p, 0, n) : tiered_map_any(n);
}

void tiered_map_cut(void *p, size_t n, size_t used)
{
    size_t all = round_up(n), rest = round_up(used);
    if (rest < all) {
        munmap((uint8_t *)p + rest, all - rest);
    }
}

void tiered_unmap(void *p, size_t n)
{
    n = round_up(n);
    if (p && !(n >= KEPT_FROM && keep(p, n))) {
        munmap(p, n);
    }
}
