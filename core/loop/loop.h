/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The event loop of a program: one thread owns all of its state; everything else posts
 * to it. Timers, posted calls and readable descriptors, on epoll.
 *
 * Threads: tiered_loop_post and tiered_loop_stop from any thread (and stop from a
 * signal handler's post, never from the handler itself); all else on the loop's own
 * thread.
 */
#ifndef TIERED_CORE_LOOP_H
#define TIERED_CORE_LOOP_H

#include "core/base/base.h"

struct tiered_loop;
int tiered_loop_create(struct tiered_loop **ret, struct tiered_error *err);
/** Drops what is still posted, without calling it. */
void tiered_loop_destroy(struct tiered_loop *loop);
/** Runs until tiered_loop_stop(), called before or meanwhile; may run again after. */
int tiered_loop_run(struct tiered_loop *loop, struct tiered_error *err);
void tiered_loop_stop(struct tiered_loop *loop);
/** Call fn(arg) on the loop's thread, after what was posted before. -1: out of memory.
 */
int tiered_loop_post(struct tiered_loop *loop, void (*fn)(void *arg), void *arg);

/** A timer, embedded in its owner; zeroed is idle. Setting it again moves it. */
struct tiered_timer {
    struct tiered_timer *next; /* in the loop's list, by due time */
    uint64_t due_ms;
    bool set;
    void (*fn)(void *arg);
    void *arg;
};
void tiered_loop_timer(struct tiered_loop *loop, struct tiered_timer *timer,
                       uint64_t after_ms, void (*fn)(void *arg), void *arg);
void tiered_loop_cancel(struct tiered_loop *loop, struct tiered_timer *timer);

/** Call fn(arg) whenever fd can be read (or hung up), until removed. */
int tiered_loop_watch(struct tiered_loop *loop, int fd, void (*fn)(void *arg),
                      void *arg, struct tiered_error *err);
void tiered_loop_unwatch(struct tiered_loop *loop, int fd);

/** SIGINT, SIGTERM (and SIGCHLD with `children`) become calls of fn(arg, signal) on the
    loop's thread. Blocks them: call before any thread starts. */
int tiered_loop_signals(struct tiered_loop *loop, bool children,
                        void (*fn)(void *arg, int signal), void *arg,
                        struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_loop, tiered_loop_destroy)

#endif
