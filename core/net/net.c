/* SPDX-License-Identifier: Apache-2.0 */
/* What a transport's threads report, brought to the loop's thread: each connection
   keeps what has not been told yet (its window bounds that), stands once in the list of
   ready ones, and an eventfd that the loop watches wakes it. Nothing is allocated to
   tell.

   net->lock guards the lists and what the structs say below; no op of the transport and
   no callback is called with it held. */
#include "core/net/net.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/plugins/hosting.h"

/* A message whose sender wants to know that it is gone. */
struct sent {
    struct sent *next;
    struct tiered_net *net;
    void (*done)(void *opaque);
    void *opaque;
};

/* Kept until the net goes: the transport may still be calling it. */
struct listener {
    struct listener *next;
    struct tiered_net *net;
    tiered_net_accept_fn *on_accept;
    void *user;
    char *address;
    bool gone;
};

struct tiered_conn {
    struct tiered_net *net;
    struct tiered_stream *stream;
    enum tiered_stream_kind kind;

    /* the loop's thread */
    const struct tiered_conn_handler *handler;
    void *user;
    bool running; /* a callback of it is under way, or about to be */

    /* under net->lock */
    struct tiered_conn *next, **prev; /* of all */
    struct tiered_conn *ready_next;
    bool ready;
    struct listener *accepted; /* to be told to this one */
    struct tiered_message *messages[TIERED_STREAM_WINDOW];
    size_t n_messages;
    bool half_closed, half_closed_told, closed, closed_told;
    bool detached; /* by tiered_conn_close() */
    enum tiered_stream_end end;
    struct tiered_error err;
};

struct tiered_net {
    const struct tiered_transport_ops *ops;
    void *state;
    struct tiered_hosting hosting;
    struct tiered_loop *loop;
    int event;
    bool dead; /* the state is gone; the loop's thread */
    struct listener *listeners;

    pthread_mutex_t lock;
    bool closing; /* under lock, as is all below: accept no more */
    struct tiered_conn *conns;
    struct tiered_conn *ready, **ready_last;
    struct sent *sent, **sent_last;
};

static void wake(struct tiered_net *net)
{
    uint64_t one = 1;
    ssize_t n = write(net->event, &one, sizeof(one));
    (void)n; /* a full counter wakes just as well */
}

/* With the lock held. */
static void make_ready(struct tiered_conn *conn)
{
    struct tiered_net *net = conn->net;
    if (conn->ready) {
        return;
    }
    conn->ready = true;
    conn->ready_next = NULL;
    bool first = !net->ready;
    *net->ready_last = conn;
    net->ready_last = &conn->ready_next;
    if (first) {
        wake(net);
    }
}

static struct tiered_conn *conn_create(struct tiered_net *net,
                                       enum tiered_stream_kind kind)
{
    struct tiered_conn *conn = calloc(1, sizeof(*conn));
    if (!conn) {
        return NULL;
    }
    conn->net = net;
    conn->kind = kind;
    pthread_mutex_lock(&net->lock);
    bool closing = net->closing;
    if (!closing) {
        conn->next = net->conns;
        conn->prev = &net->conns;
        if (net->conns) {
            net->conns->prev = &conn->next;
        }
        net->conns = conn;
    }
    pthread_mutex_unlock(&net->lock);
    if (closing) {
        free(conn);
        return NULL;
    }
    return conn;
}

static void conn_free(struct tiered_conn *conn)
{
    struct tiered_net *net = conn->net;
    pthread_mutex_lock(&net->lock);
    *conn->prev = conn->next;
    if (conn->next) {
        conn->next->prev = conn->prev;
    }
    pthread_mutex_unlock(&net->lock);
    if (conn->stream && !net->dead) {
        net->ops->release(conn->stream);
    }
    free(conn);
}

/* The transport's threads. */

static void heard_message(void *user, struct tiered_message *message)
{
    struct tiered_conn *conn = user;
    pthread_mutex_lock(&conn->net->lock);
    bool detached = conn->detached;
    bool keep = !detached && conn->n_messages < TIERED_STREAM_WINDOW;
    if (keep) {
        conn->messages[conn->n_messages++] = message;
        make_ready(conn);
    }
    pthread_mutex_unlock(&conn->net->lock);
    if (!keep) {
        message->release(message);
    }
    if (!keep && !detached) { /* a transport without a window: better cut than lose */
        conn->net->ops->cancel(conn->stream);
    }
}

static void heard_half_closed(void *user)
{
    struct tiered_conn *conn = user;
    pthread_mutex_lock(&conn->net->lock);
    conn->half_closed = true;
    make_ready(conn);
    pthread_mutex_unlock(&conn->net->lock);
}

static void heard_closed(void *user, enum tiered_stream_end end,
                         const struct tiered_error *err)
{
    struct tiered_conn *conn = user;
    pthread_mutex_lock(&conn->net->lock);
    conn->closed = true;
    conn->end = end;
    if (err) {
        conn->err = *err;
    }
    make_ready(conn);
    pthread_mutex_unlock(&conn->net->lock);
}

static const struct tiered_stream_handler stream_handler = {
    .size = sizeof(stream_handler),
    .on_message = heard_message,
    .on_half_closed = heard_half_closed,
    .on_closed = heard_closed,
};

static int heard_accept(void *user, struct tiered_stream *stream,
                        enum tiered_stream_kind kind,
                        const struct tiered_stream_handler **ret_handler,
                        void **ret_user)
{
    struct listener *l = user;
    struct tiered_conn *conn = conn_create(l->net, kind);
    if (!conn) {
        return -1;
    }
    conn->stream = stream;
    *ret_handler = &stream_handler;
    *ret_user = conn;
    pthread_mutex_lock(&l->net->lock);
    conn->accepted = l;
    make_ready(conn);
    pthread_mutex_unlock(&l->net->lock);
    return 0;
}

static const struct tiered_listen_handler listen_handler = {
    .size = sizeof(listen_handler),
    .on_accept = heard_accept,
};

static void heard_done(void *opaque)
{
    struct sent *sent = opaque;
    struct tiered_net *net = sent->net;
    pthread_mutex_lock(&net->lock);
    bool first = !net->sent;
    *net->sent_last = sent;
    net->sent_last = &sent->next;
    if (first) {
        wake(net);
    }
    pthread_mutex_unlock(&net->lock);
}

/* The loop's thread. */

enum what { NOTHING, ACCEPTED, MESSAGE, HALF_CLOSED, CLOSED };

/* The next thing to tell, in the order in which it happened. */
static enum what take_next(struct tiered_conn *conn, struct listener **ret_listener,
                           struct tiered_message **ret_message)
{
    enum what what = NOTHING;
    pthread_mutex_lock(&conn->net->lock);
    if (conn->detached) {
        what = NOTHING;
    } else if (conn->accepted) {
        *ret_listener = conn->accepted;
        conn->accepted = NULL;
        what = ACCEPTED;
    } else if (conn->n_messages > 0) {
        *ret_message = conn->messages[0];
        conn->n_messages--;
        memmove(conn->messages, conn->messages + 1,
                conn->n_messages * sizeof(conn->messages[0]));
        what = MESSAGE;
    } else if (conn->half_closed && !conn->half_closed_told) {
        conn->half_closed_told = true;
        what = HALF_CLOSED;
    } else if (conn->closed && !conn->closed_told) {
        conn->closed_told = true;
        what = CLOSED;
    }
    pthread_mutex_unlock(&conn->net->lock);
    return what;
}

static void tell_accepted(struct tiered_conn *conn, const struct listener *l)
{
    if (!l->gone) {
        l->on_accept(l->user, conn, conn->kind);
    }
    if (!conn->handler) { /* nobody wants it, or it is closed already */
        tiered_conn_close(conn);
    }
}

static void tell_message(struct tiered_conn *conn, struct tiered_message *message)
{
    if (conn->handler->on_message) {
        conn->handler->on_message(conn->user, message);
    } else {
        message->release(message);
    }
}

/* Told everything; freed here when its owner has closed it. */
static void tell(struct tiered_conn *conn)
{
    struct listener *listener;
    struct tiered_message *message;
    enum what what;
    pthread_mutex_lock(&conn->net->lock);
    conn->ready = false;
    pthread_mutex_unlock(&conn->net->lock);
    conn->running = true;
    while ((what = take_next(conn, &listener, &message)) != NOTHING) {
        if (what == ACCEPTED) {
            tell_accepted(conn, listener);
        } else if (what == MESSAGE) {
            tell_message(conn, message);
        } else if (what == HALF_CLOSED && conn->handler->on_half_closed) {
            conn->handler->on_half_closed(conn->user);
        } else if (what == CLOSED && conn->handler->on_closed) {
            conn->handler->on_closed(conn->user, conn->end, &conn->err);
        }
    }
    conn->running = false;
    pthread_mutex_lock(&conn->net->lock);
    bool over = conn->detached && conn->closed && !conn->ready;
    pthread_mutex_unlock(&conn->net->lock);
    if (over) {
        conn_free(conn);
    }
}

static void run_sent(struct tiered_net *net)
{
    pthread_mutex_lock(&net->lock);
    struct sent *sent = net->sent;
    net->sent = NULL;
    net->sent_last = &net->sent;
    pthread_mutex_unlock(&net->lock);
    while (sent) {
        struct sent *next = sent->next;
        sent->done(sent->opaque);
        free(sent);
        sent = next;
    }
}

/* What comes while this runs is told on the loop's next turn. */
static void run(void *arg)
{
    struct tiered_net *net = arg;
    uint64_t count;
    ssize_t n = read(net->event, &count, sizeof(count));
    (void)n;
    pthread_mutex_lock(&net->lock);
    struct tiered_conn *conn = net->ready;
    net->ready = NULL;
    net->ready_last = &net->ready;
    pthread_mutex_unlock(&net->lock);
    run_sent(net);
    while (conn) {
        struct tiered_conn *next = conn->ready_next;
        tell(conn);
        conn = next;
    }
}

/* What was not told is dropped. */
static void detach(struct tiered_conn *conn, bool *ret_closed, bool *ret_ready)
{
    struct tiered_message *messages[TIERED_STREAM_WINDOW];
    pthread_mutex_lock(&conn->net->lock);
    size_t n = conn->n_messages;
    memcpy(messages, conn->messages, n * sizeof(messages[0]));
    conn->n_messages = 0;
    conn->accepted = NULL;
    conn->detached = true;
    *ret_closed = conn->closed;
    *ret_ready = conn->ready;
    pthread_mutex_unlock(&conn->net->lock);
    for (size_t i = 0; i < n; i++) {
        messages[i]->release(messages[i]);
    }
}

void tiered_conn_close(struct tiered_conn *conn)
{
    bool closed, ready;
    if (!conn || conn->detached) { /* written on this thread alone */
        return;
    }
    detach(conn, &closed, &ready);
    if (!closed) {
        conn->net->ops->cancel(conn->stream); /* freed when that is heard of */
    } else if (!ready && !conn->running) {
        conn_free(conn);
    }
}

void tiered_conn_set_handler(struct tiered_conn *conn,
                             const struct tiered_conn_handler *handler, void *user)
{
    conn->handler = handler;
    conn->user = user;
}

enum tiered_stream_kind tiered_conn_kind(const struct tiered_conn *conn)
{
    return conn->kind;
}

/* In the last done() calls of tiered_net_destroy(). */
static int gone(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ESTATE, "the transport is gone");
}

int tiered_conn_peer(struct tiered_conn *conn, char *out, size_t capacity,
                     struct tiered_error *err)
{
    return conn->net->dead ? gone(err)
                           : conn->net->ops->peer(conn->stream, out, capacity, err);
}

int tiered_conn_send(struct tiered_conn *conn, const struct tiered_outgoing *message,
                     struct tiered_error *err)
{
    struct tiered_outgoing out = *message;
    struct sent *sent = NULL;
    if (conn->net->dead) {
        return gone(err);
    }
    if (message->done) {
        sent = malloc(sizeof(*sent));
        if (!sent) {
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        *sent = (struct sent){NULL, conn->net, message->done, message->opaque};
        out.done = heard_done;
        out.opaque = sent;
    }
    if (conn->net->ops->send(conn->stream, &out, err) < 0) {
        free(sent);
        return -1;
    }
    return 0;
}

int tiered_conn_half_close(struct tiered_conn *conn, struct tiered_error *err)
{
    return conn->net->dead ? gone(err) : conn->net->ops->half_close(conn->stream, err);
}

int tiered_net_create(const struct tiered_loaded *transport, const void *config,
                      struct tiered_loop *loop,
                      const struct tiered_credentials *credentials,
                      struct tiered_net **ret, struct tiered_error *err)
{
    static const struct tiered_credentials none = {.size = sizeof(none)};
    struct tiered_net *net = calloc(1, sizeof(*net));
    if (!net) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    net->ops = transport->plugin.ops;
    net->loop = loop;
    net->ready_last = &net->ready;
    net->sent_last = &net->sent;
    net->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (net->event < 0) {
        tiered_fail(err, TIERED_EIO, "cannot make an event descriptor: %s",
                    strerror(errno));
        goto fail_alloc;
    }
    if (tiered_loop_watch(loop, net->event, run, net, err) < 0) {
        goto fail_event;
    }
    tiered_hosting_init(&net->hosting, 0, transport->plugin.name, NULL, NULL, NULL);
    pthread_mutex_init(&net->lock, NULL);
    if (net->ops->init(&net->hosting.host, config, credentials ? credentials : &none,
                       &net->state, err) < 0) {
        goto fail_watch;
    }
    *ret = net;
    return 0;
fail_watch:
    pthread_mutex_destroy(&net->lock);
    tiered_loop_unwatch(loop, net->event);
fail_event:
    close(net->event);
fail_alloc:
    free(net);
    return -1;
}

/* No connection is told anything any more, and the transport gets its messages back. */
static void detach_all(struct tiered_net *net)
{
    pthread_mutex_lock(&net->lock);
    net->closing = true;
    struct tiered_conn *conn = net->conns;
    pthread_mutex_unlock(&net->lock);
    for (; conn; conn = conn->next) {
        bool closed, ready;
        detach(conn, &closed, &ready);
    }
}

void tiered_net_destroy(struct tiered_net *net)
{
    if (!net) {
        return;
    }
    tiered_loop_unwatch(net->loop, net->event);
    detach_all(net);
    net->ops->destroy(net->state);
    net->dead = true;
    while (net->sent) {
        run_sent(net);
    }
    while (net->conns) {
        conn_free(net->conns);
    }
    while (net->listeners) {
        struct listener *l = net->listeners;
        net->listeners = l->next;
        free(l->address);
        free(l);
    }
    close(net->event);
    pthread_mutex_destroy(&net->lock);
    free(net);
}

int tiered_net_listen(struct tiered_net *net, const char *address,
                      tiered_net_accept_fn *on_accept, void *user,
                      struct tiered_error *err)
{
    struct listener *l = calloc(1, sizeof(*l));
    char *copy = strdup(address);
    if (!l || !copy) {
        free(l);
        free(copy);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *l = (struct listener){
        .net = net, .on_accept = on_accept, .user = user, .address = copy};
    if (net->ops->listen(net->state, address, &listen_handler, l, err) < 0) {
        free(copy);
        free(l);
        return -1;
    }
    l->next = net->listeners;
    net->listeners = l;
    return 0;
}

int tiered_net_unlisten(struct tiered_net *net, const char *address,
                        struct tiered_error *err)
{
    if (net->ops->unlisten(net->state, address, err) < 0) {
        return -1;
    }
    for (struct listener *l = net->listeners; l; l = l->next) {
        l->gone = l->gone || strcmp(l->address, address) == 0;
    }
    return 0;
}

int tiered_net_open(struct tiered_net *net, const char *address,
                    enum tiered_stream_kind kind,
                    const struct tiered_conn_handler *handler, void *user,
                    struct tiered_conn **ret, struct tiered_error *err)
{
    if (net->dead) {
        return gone(err);
    }
    struct tiered_conn *conn = conn_create(net, kind);
    if (!conn) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    conn->handler = handler;
    conn->user = user;
    if (net->ops->open(net->state, address, kind, &stream_handler, conn, &conn->stream,
                       err) < 0) {
        conn->stream = NULL;
        conn_free(conn);
        return -1;
    }
    *ret = conn;
    return 0;
}
