/* SPDX-License-Identifier: Apache-2.0 */
/* The transport's thread. gRPC reads and writes its sockets, and notices a silent peer,
   only while a thread waits on the queue: this one always does, so that the host's
   handlers must not block. */
#include <grpc/support/time.h>
#include <time.h>

#include "inside.h"

#define LET_GO_MS 20000 /* at the end, for everything that gRPC still holds */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void due_at(struct state *st, uint64_t *due, uint64_t after_ms)
{
    *due = now_ms() + after_ms;
    if (*due < st->next_due_ms) {
        st->next_due_ms = *due;
    }
}

bool state_wants_wake(struct state *st)
{
    bool wants = !st->woken && !st->dead;
    st->woken = st->woken || wants;
    return wants;
}

/* An empty batch ends at once. At most one is under way; see `woken`. */
void state_wake(struct state *st)
{
    grpc_call_start_batch(st->wake_call, NULL, 0, &st->on_wake, NULL);
}

static void handle(struct state *st, const grpc_event *event)
{
    const struct tag *tag = event->tag;
    pthread_mutex_lock(&st->lock); /* so all that led to the event is seen, too */
    bool wake = tag == &st->on_wake;
    st->woken = st->woken && !wake;
    pthread_mutex_unlock(&st->lock);
    if (wake) {
        return;
    }
    if (tag->kind == TAG_CALL || tag->kind == TAG_SHUTDOWN) {
        listener_event(tag->owner, tag->kind, event->success);
    } else {
        stream_event(tag->owner, tag->kind, event->success);
    }
}

static void run_finished(struct state *st)
{
    struct items finished;
    struct item *item;
    items_init(&finished);
    pthread_mutex_lock(&st->lock);
    items_move(&finished, &st->finished);
    pthread_mutex_unlock(&st->lock);
    while ((item = items_pop(&finished))) {
        item_finish(item);
    }
}

static void run_dirty(struct state *st)
{
    pthread_mutex_lock(&st->lock);
    struct tiered_stream *s = st->dirty;
    st->dirty = NULL;
    st->dirty_last = &st->dirty;
    pthread_mutex_unlock(&st->lock);
    while (s) {
        struct tiered_stream *next = s->dirty_next;
        stream_dirty(s);
        stream_unref(s);
        s = next;
    }
}

static void run_due(struct state *st)
{
    uint64_t now = st->next_due_ms == NEVER ? 0 : now_ms();
    if (now < st->next_due_ms) {
        return;
    }
    st->next_due_ms = NEVER;
    for (struct tiered_stream *s = st->live; s; s = s->live_next) {
        if (s->due_ms <= now) {
            stream_overdue(s);
        } else if (s->due_ms < st->next_due_ms) {
            st->next_due_ms = s->due_ms;
        }
    }
}

static gpr_timespec deadline(uint64_t due_ms)
{
    if (due_ms == NEVER) {
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    }
    return gpr_time_from_millis((int64_t)due_ms, GPR_CLOCK_MONOTONIC);
}

/* Wait until something happens, and do it. */
static void turn(struct state *st, uint64_t until_ms)
{
    uint64_t due = st->next_due_ms < until_ms ? st->next_due_ms : until_ms;
    grpc_event event = grpc_completion_queue_next(st->cq, deadline(due), NULL);
    if (event.type == GRPC_OP_COMPLETE) {
        handle(st, &event);
    }
    run_dirty(st);
    run_finished(st);
    run_due(st);
}

static bool stopping(struct state *st)
{
    pthread_mutex_lock(&st->lock);
    bool stop = st->stop;
    pthread_mutex_unlock(&st->lock);
    return stop;
}

static struct listener *retire_one(struct state *st)
{
    pthread_mutex_lock(&st->lock);
    struct listener *l = st->listeners;
    while (l && l->retired) {
        l = l->next;
    }
    if (l) {
        l->retired = true;
    }
    pthread_mutex_unlock(&st->lock);
    return l;
}

/* open() and listen() are over by now, so the list does not grow. */
static void close_everything(struct state *st)
{
    struct listener *l;
    while ((l = retire_one(st))) {
        listener_shut(l);
    }
    run_dirty(st); /* those that were just opened too */
    for (struct tiered_stream *s = st->live, *next; s; s = next) {
        next = s->live_next; /* ending one stream ends no other */
        if (s->phase != PHASE_CLOSED) {
            stream_close(s, TIERED_END_CANCELLED, NULL);
        }
    }
    for (l = st->listeners; l; l = l->next) {
        grpc_server_cancel_all_calls(l->server); /* and the connections with them */
    }
}

/* Nothing is left that gRPC might come back to. The last wake-up may be under way. */
static bool is_over(struct state *st)
{
    pthread_mutex_lock(&st->lock);
    bool over = !st->live && !st->listeners && st->n_items == 0 && !st->dirty;
    st->dead = st->dead || over;
    over = over && !st->woken;
    pthread_mutex_unlock(&st->lock);
    return over;
}

static void give_up(struct state *st)
{
    st->abandoned = true;
    pthread_mutex_lock(&st->lock);
    st->dead = true;
    pthread_mutex_unlock(&st->lock);
    st->host->log(
        st->host, TIERED_LOG_WARN,
        "gRPC has not let go of some streams or messages; they are left to it");
}

void *thread_main(void *arg)
{
    struct state *st = arg;
    while (!stopping(st)) {
        turn(st, NEVER);
    }
    close_everything(st);
    uint64_t until_ms = now_ms() + LET_GO_MS;
    while (!is_over(st) && !st->abandoned) {
        if (now_ms() >= until_ms) {
            give_up(st);
        } else {
            turn(st, until_ms);
        }
    }
    return NULL;
}
