/* SPDX-License-Identifier: Apache-2.0 */
/* The transport's thread: epoll, accepting, due times, shutdown. Streams end only where
   nothing of the batch of events at hand points at them any more: in their own event,
   or after all events. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "unix.h"

#define N_EVENTS         64
#define ACCEPTS_A_TURN   64
#define ACCEPT_PAUSE_MS  200
#define PREAMBLE_TIME_MS 10000

uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void due_at(struct state *st, uint64_t *due, uint64_t at_ms)
{
    *due = at_ms;
    if (at_ms < st->next_due_ms) {
        st->next_due_ms = at_ms;
    }
}

static void begin_accepted(struct state *st, struct listener *l, int fd)
{
    struct tiered_error err;
    struct tiered_stream *s = check_peer(fd, &err) < 0 ? NULL : stream_create(st);
    if (!s) {
        close(fd);
        return;
    }
    s->fd = fd;
    s->phase = PHASE_PREAMBLE;
    s->listener = l;
    stream_live(s);
    due_at(st, &s->due_ms, now_ms() + PREAMBLE_TIME_MS);
    stream_event(s, EPOLLIN); /* it mostly has come with the connection */
}

/* Out of descriptors or memory: those that wait stay in the backlog for a while. */
static void pause_listener(struct state *st, struct listener *l, int error)
{
    char text[256];
    snprintf(text, sizeof(text),
             "cannot accept on 'unix:%s': %s; trying again in %d ms", l->path,
             strerror(error), ACCEPT_PAUSE_MS);
    st->host->log(st->host, TIERED_LOG_WARN, text);
    epoll_ctl(st->epoll, EPOLL_CTL_DEL, l->fd, NULL);
    due_at(st, &l->due_ms, now_ms() + ACCEPT_PAUSE_MS);
}

static bool is_retired(struct state *st, const struct listener *l)
{
    pthread_mutex_lock(&st->lock);
    bool retired = l->retired;
    pthread_mutex_unlock(&st->lock);
    return retired;
}

static void accept_some(struct state *st, struct listener *l)
{
    for (int i = 0; i < ACCEPTS_A_TURN && !is_retired(st, l); i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            begin_accepted(st, l, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
                   errno == ENOBUFS) {
            pause_listener(st, l, errno);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void handle(struct state *st, const struct epoll_event *ev)
{
    enum source source = *(const enum source *)ev->data.ptr;
    if (source == SOURCE_LISTENER) {
        accept_some(st, ev->data.ptr);
    } else if (source == SOURCE_STREAM) {
        stream_event(ev->data.ptr, ev->events);
    } else {
        uint64_t count;
        ssize_t n = read(st->event, &count, sizeof(count));
        (void)n;
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

/* Nobody answers those of a listener's that have not yet said what they want. */
static void close_waiting(struct state *st, const struct listener *l)
{
    for (struct tiered_stream *s = st->live, *next; s; s = next) {
        next = s->live_next;
        if (s->listener == l) {
            stream_close(s, TIERED_END_CANCELLED, NULL);
        }
    }
}

static void run_retired(struct state *st)
{
    pthread_mutex_lock(&st->lock);
    struct listener *l = st->retired;
    st->retired = NULL;
    pthread_mutex_unlock(&st->lock);
    while (l) {
        struct listener *next = l->next;
        close_waiting(st, l);
        epoll_ctl(st->epoll, EPOLL_CTL_DEL, l->fd, NULL); /* see close_socket() */
        listener_destroy(l);
        l = next;
    }
}

static void resume_listeners(struct state *st, uint64_t now)
{
    pthread_mutex_lock(&st->lock);
    for (struct listener *l = st->listeners; l; l = l->next) {
        if (l->due_ms <= now) {
            struct epoll_event ev = {.events = EPOLLIN, .data.ptr = l};
            bool again = epoll_ctl(st->epoll, EPOLL_CTL_ADD, l->fd, &ev) < 0;
            l->due_ms = again ? now + ACCEPT_PAUSE_MS : NEVER;
        }
        st->next_due_ms = l->due_ms < st->next_due_ms ? l->due_ms : st->next_due_ms;
    }
    pthread_mutex_unlock(&st->lock);
}

static void run_due(struct state *st)
{
    uint64_t now = now_ms();
    if (now < st->next_due_ms) {
        return;
    }
    st->next_due_ms = NEVER;
    for (struct tiered_stream *s = st->live, *next; s; s = next) {
        next = s->live_next; /* ending one stream ends no other */
        if (s->due_ms <= now) {
            stream_due(s);
        } else if (s->due_ms < st->next_due_ms) {
            st->next_due_ms = s->due_ms;
        }
    }
    resume_listeners(st, now);
}

static int wait_ms(const struct state *st)
{
    if (st->next_due_ms == NEVER) {
        return -1;
    }
    uint64_t now = now_ms();
    return st->next_due_ms <= now ? 0 : (int)(st->next_due_ms - now);
}

static bool stopping(struct state *st)
{
    pthread_mutex_lock(&st->lock);
    bool stop = st->stop;
    if (stop) { /* every listener is retired */
        while (st->listeners) {
            struct listener *l = st->listeners;
            st->listeners = l->next;
            l->next = st->retired;
            l->retired = true;
            st->retired = l;
        }
    }
    pthread_mutex_unlock(&st->lock);
    return stop;
}

static bool have_dirty(struct state *st)
{
    pthread_mutex_lock(&st->lock);
    bool have = st->dirty != NULL;
    pthread_mutex_unlock(&st->lock);
    return have;
}

/* open() is refused by now, so this ends. */
static void shut_down(struct state *st)
{
    run_retired(st);
    do {
        run_dirty(st);
        while (st->live) {
            stream_close(st->live, TIERED_END_CANCELLED, NULL);
        }
    } while (have_dirty(st));
}

void *thread_main(void *arg)
{
    struct state *st = arg;
    while (!stopping(st)) {
        struct epoll_event events[N_EVENTS];
        int n = epoll_wait(st->epoll, events, N_EVENTS, wait_ms(st));
        for (int i = 0; i < n; i++) {
            handle(st, &events[i]);
        }
        run_dirty(st);
        run_retired(st);
        run_due(st);
    }
    shut_down(st);
    return NULL;
}
