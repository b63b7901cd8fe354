/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Inside the grpc transport. One thread for each state (thread.c) polls the completion
 * queue of everything, starts every batch and makes every call into the host; the ops
 * (grpc.c) leave what they want in the stream, put it on the list of dirty streams and
 * wake the thread, by an empty batch on a call that serves nothing else.
 *
 * state->lock guards what the structs say below, and neither gRPC nor the host is
 * called with it held. A stream is counted: by the host until release(), by the thread
 * until on_closed came and gRPC has let go of the call, by each message that the host
 * holds, by its place in the dirty list. The state is counted by its owner and by each
 * stream.
 *
 * A sent message (struct item) is never copied: gRPC reads it where it lies, and it is
 * finished when gRPC has dropped the last slice of it, which may be on any thread and
 * long after the stream has ended.
 */
#ifndef TIERED_PLUGIN_GRPC_H
#define TIERED_PLUGIN_GRPC_H

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tiered/transport.h"

#define METHOD_SESSION "/tiered.v1.Tiered/Session"
#define METHOD_PUSH    "/tiered.v1.Tiered/Push"
#define METHOD_PULL    "/tiered.v1.Tiered/Pull"

#define HOST_SIZE     254
#define TARGET_SCHEME "dns:///"
#define TARGET_SIZE   (HOST_SIZE + 20) /* "dns:///[" HOST "]:65535" */
#define PEER_SIZE     512
#define NEVER         UINT64_MAX
/* A stream's flow control: as much as the host takes of it. gRPC's own estimate of the
   link grew the windows, and an aggregator's memory by 200 MiB with 20 children. */
#define WINDOW_BYTES (TIERED_STREAM_WINDOW << 20)

struct config {
    uint64_t keepalive_time, keepalive_timeout, connect_timeout; /* ms */
};

static inline grpc_arg integer_arg(const char *key, uint64_t value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER,
                      .key = (char *)(uintptr_t)key,
                      .value.integer = (int)value};
}

/** An address, taken apart. */
struct place {
    char host[HOST_SIZE]; /* "": every address of this host */
    uint16_t port;
};

enum tag_kind {
    TAG_CALL = 1, /* a listener's: a peer opened a stream */
    TAG_SHUTDOWN, /* a listener's: its server is gone */
    TAG_META,     /* a stream's, as are the rest */
    TAG_RECEIVE,
    TAG_SEND,
    TAG_END,
};

/** What an event of the completion queue points at. */
struct tag {
    enum tag_kind kind;
    void *owner;
};

/** A queued message; or, with `ends`, the mark of this side's half-close. */
struct item {
    struct item *next;
    struct state *state;
    const uint8_t *body;
    size_t body_size;
    void (*done)(void *opaque);
    void *opaque;
    bool ends;
    atomic_uint refs; /* slices */
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

/** A connection, shared by the streams to one address. The thread's alone. */
struct channel {
    struct channel *next;
    struct state *state;
    unsigned refs; /* streams */
    bool listed;   /* new streams may use it */
    grpc_channel *grpc;
    char target[TARGET_SIZE];
};

struct listener {
    struct listener *next;
    struct state *state;
    const struct tiered_listen_handler *handler;
    void *user;
    struct place place;
    bool retired; /* under state->lock */

    /* the thread's, once it has started */
    grpc_server *server;
    struct tag on_call, on_shutdown;
    bool requested, shut;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
};

enum phase {
    PHASE_NEW,    /* opened, not yet seen by the thread */
    PHASE_OPEN,   /* it has a call */
    PHASE_CLOSED, /* on_closed has come; batches may still be under way */
};

struct tiered_stream {
    struct state *state;
    atomic_uint refs;
    enum tiered_stream_kind kind;
    bool accepted;            /* by a listener of ours; else opened here */
    char target[TARGET_SIZE]; /* of one opened here */

    /* under state->lock */
    struct tiered_stream *all_next, **all_prev; /* not released by the host */
    struct tiered_stream *dirty_next;
    struct items queue;
    unsigned held; /* messages that the host has not released */
    bool dirty, half_closed, cancelled, closed;
    char peer[PEER_SIZE];

    /* the thread's */
    struct tiered_stream *live_next, **live_prev;
    const struct tiered_stream_handler *handler; /* NULL: the host did not want it */
    void *user;
    enum phase phase;
    struct channel *channel;
    grpc_call *call;
    unsigned batches; /* under way: gRPC may write to what follows until they end */
    struct tag on_meta, on_receive, on_send, on_end;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *received;
    grpc_status_code status;
    grpc_slice details;
    int peer_cancelled;
    struct items sending;
    bool send_busy, receive_busy, out_failed;
    bool out_ended;   /* our half-close has its turn or had it */
    bool status_sent; /* … and the call's status is sent, of an accepted one */
    bool in_ended;    /* the peer's half-close has come */
    bool in_closed;   /* gRPC will hand over no more messages */
    bool call_ended;  /* status, peer_cancelled are there */
    uint64_t due_ms;  /* of a closed one: gRPC should have let go by then */
};

struct state {
    const struct tiered_host *host;
    struct config config;
    bool plaintext;
    grpc_channel_credentials *channel_credentials;
    grpc_server_credentials *server_credentials;
    grpc_completion_queue *cq;
    grpc_channel *wake_channel;
    grpc_call *wake_call;
    struct tag on_wake; /* says only that there is something to do */
    atomic_uint refs;
    pthread_t thread;
    pthread_mutex_t lock;

    /* under lock */
    bool stop;
    bool woken; /* an event that says so is under way */
    bool dead;  /* the thread takes nothing any more */
    struct tiered_stream *all;
    struct tiered_stream *dirty, **dirty_last;
    struct listener *listeners;
    struct items finished; /* gRPC is done with them */
    size_t n_items;        /* not finished */

    /* the thread's */
    struct tiered_stream *live;
    struct channel *channels;
    uint64_t next_due_ms;
    bool abandoned; /* gRPC holds on to something: it keeps what it may still touch */
};

/* grpc.c */
struct tiered_stream *stream_create(struct state *st, enum tiered_stream_kind kind);
void stream_unref(struct tiered_stream *s);
/** Forget the host's reference; what release() does. */
void stream_release(struct tiered_stream *s);
/** With the lock held: have the thread look at it; true: state_wake() after that. */
bool stream_mark(struct tiered_stream *s);
void state_unref(struct state *st);

/* item.c */
struct item *item_create(struct state *st, const struct tiered_outgoing *message);
void items_init(struct items *items);
void items_push(struct items *items, struct item *item);
struct item *items_pop(struct items *items);
void items_move(struct items *to, struct items *from);
/** For gRPC to send: the item is finished when gRPC has let go of it. */
grpc_byte_buffer *item_buffer(struct item *item);
/** Say that it is done, and free it. The thread's. */
void item_finish(struct item *item);
/** Free one that was never queued: nobody is told. */
void item_discard(struct item *item);

/* thread.c */
void *thread_main(void *arg);
/** With the lock held: is the thread to be woken, by state_wake() after unlocking? */
bool state_wants_wake(struct state *st);
void state_wake(struct state *st);
void due_at(struct state *st, uint64_t *due, uint64_t after_ms);

/* stream.c: the thread's alone */
void stream_dirty(struct tiered_stream *s);
void stream_event(struct tiered_stream *s, enum tag_kind kind, bool ok);
void stream_accept(struct state *st, struct listener *l, grpc_call *call,
                   enum tiered_stream_kind kind);
/** Answer a call that is none of ours. */
void stream_refuse(struct state *st, grpc_call *call, grpc_status_code code,
                   const char *why);
void stream_close(struct tiered_stream *s, enum tiered_stream_end end,
                  const struct tiered_error *err);
/** A closed one that gRPC has not let go of at due_ms. */
void stream_overdue(struct tiered_stream *s);

/* receive.c: the thread's alone */
void stream_receive(struct tiered_stream *s);
/** The outcome of it: a message, or the end of them. */
int stream_received(struct tiered_stream *s, bool ok, struct tiered_error *err);
void stream_in_ended(struct tiered_stream *s);

/* channel.c: the thread's alone */
struct channel *channel_for(struct state *st, const char *target);
void channel_unref(struct channel *c);
/** New streams shall not use it. */
void channel_forget(struct channel *c);

/* listener.c */
int listener_start(struct state *st, const struct place *place,
                   const struct tiered_listen_handler *handler, void *user,
                   struct tiered_error *err);
/** The first half of stopping: no new peers. From any thread, once. */
void listener_shut(struct listener *l);
void listener_event(struct listener *l, enum tag_kind kind, bool ok);

/* address.c */
/** "[grpc://]HOST:PORT", "[grpc://]:PORT", "[grpc://][IPV6]:PORT". */
int place_parse(const char *address, struct place *ret, struct tiered_error *err);
bool place_equal(const struct place *a, const struct place *b);
/** What gRPC dials. */
void place_target(const struct place *place, char target[TARGET_SIZE]);
/** What gRPC listens on: the numeric addresses of the place, each of which was free to
    listen on just now. gRPC itself would only say that it failed. */
int place_listen(const struct place *place, struct place ret[], size_t capacity,
                 size_t *ret_n, struct tiered_error *err);

/* credentials.c */
int credentials_load(struct state *st, const struct tiered_credentials *credentials,
                     struct tiered_error *err);
void credentials_finish(struct state *st);
/** The identity in the certificate of the call's peer; "" where there is none. */
void read_peer(grpc_call *call, char out[PEER_SIZE]);

/* library.c: gRPC itself, shared by every state of the process */
/** gRPC's own log lines go to the log of one of the hosts that are in. */
int library_enter(const struct tiered_host *host, struct tiered_error *err);
/** `keep`: gRPC still has work of ours under way and must not be shut down. */
void library_leave(const struct tiered_host *host, bool keep);

#endif
