/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Inside the unix transport: one thread (thread.c) owns every socket and makes every
 * handler call; the ops (unix.c) leave what they want in the stream, put it on the list
 * of dirty streams and wake the thread.
 *
 * state->lock guards what the structs say below, and nothing is called with it held.
 * A stream is counted: by the host until release(), by the thread until on_closed, by
 * each message that the host holds, by its place in the dirty list.
 */
#ifndef TIERED_PLUGIN_UNIX_H
#define TIERED_PLUGIN_UNIX_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "tiered/transport.h"

#define PREAMBLE_SIZE 8 /* "TRD1", version, kind, 0, 0 */
#define LENGTH_SIZE   4
#define PATH_SIZE     108 /* sun_path */
#define NEVER         UINT64_MAX

enum source {
    SOURCE_WAKE = 1,
    SOURCE_LISTENER,
    SOURCE_STREAM,
};

/** A queued message: its length and head, then the borrowed body. */
struct item {
    struct item *next;
    const uint8_t *body;
    size_t body_size;
    void (*done)(void *opaque);
    void *opaque;
    bool ends; /* the half-close mark */
    size_t head_size;
    uint8_t head[];
};

struct items {
    struct item *first, **last;
};

struct message {
    struct tiered_message m;
    struct tiered_stream *stream;
    uint8_t bytes[];
};

enum phase {
    PHASE_NEW,      /* opened, not yet seen by the thread */
    PHASE_CONNECT,  /* the listener's backlog is full: again at due_ms */
    PHASE_PREAMBLE, /* accepted, until due_ms: who is it? */
    PHASE_OPEN,
    PHASE_CLOSED,
};

struct tiered_stream {
    enum source source; /* first: what epoll points at */
    struct state *state;
    atomic_uint refs;
    char path[PATH_SIZE]; /* to connect to */

    /* under state->lock */
    struct tiered_stream *all_next, **all_prev; /* not released by the host */
    struct tiered_stream *dirty_next;
    struct items queue;
    unsigned held; /* messages that the host has not released */
    bool dirty, half_closed, cancelled, closed;
    bool paused; /* written by the thread alone: it reads no more until one is */

    /* the thread's */
    struct tiered_stream *live_next, **live_prev;
    const struct tiered_stream_handler *handler; /* NULL until accepted */
    void *user;
    struct listener *listener; /* in PHASE_PREAMBLE */
    int fd;
    uint32_t events; /* registered with epoll; 0: not at all */
    enum phase phase;
    uint64_t due_ms;
    unsigned backoff_ms;
    struct items sending;
    size_t sent; /* of the first of them */
    bool in_ended, out_ended, out_failed;
    uint8_t header[PREAMBLE_SIZE];
    size_t header_have;
    struct message *incoming;
    size_t got;
};

struct listener {
    enum source source;
    struct listener *next;
    int fd;
    char path[PATH_SIZE];
    dev_t dev; /* of our socket file: another's is not ours to remove */
    ino_t ino;
    const struct tiered_listen_handler *handler;
    void *user;
    bool retired;    /* under state->lock */
    uint64_t due_ms; /* the thread's: accepts again then; NEVER: accepts */
};

struct state {
    enum source source; /* the eventfd's */
    const struct tiered_host *host;
    atomic_uint refs;
    int epoll, event;
    pthread_t thread;
    pthread_mutex_t lock;

    /* under lock */
    bool started, stop;
    struct tiered_stream *all;
    struct tiered_stream *dirty, **dirty_last;
    struct listener *listeners, *retired;

    /* the thread's */
    struct tiered_stream *live;
    uint64_t next_due_ms;
};

/* unix.c */
struct tiered_stream *stream_create(struct state *st);
void stream_unref(struct tiered_stream *s);
/** With the lock held: have the thread look at it. */
void stream_mark(struct tiered_stream *s);
void state_wake(struct state *st);
/** Forget the host's reference; what release() does. */
void stream_release(struct tiered_stream *s);
/** Close and free; the thread's, or after it. */
void listener_destroy(struct listener *l);
/** The peer's user is ours or root. */
int check_peer(int fd, struct tiered_error *err);

/* stream.c: the thread's alone */
void items_init(struct items *items);
void items_move(struct items *to, struct items *from);
void stream_live(struct tiered_stream *s);
void stream_connect(struct tiered_stream *s);
void stream_dirty(struct tiered_stream *s);
void stream_event(struct tiered_stream *s, uint32_t events);
void stream_due(struct tiered_stream *s);
void stream_close(struct tiered_stream *s, enum tiered_stream_end end,
                  const struct tiered_error *err);

/* thread.c */
void *thread_main(void *arg);
uint64_t now_ms(void);
void due_at(struct state *st, uint64_t *due, uint64_t at_ms);

#endif
