/* SPDX-License-Identifier: Apache-2.0 */
/* The grpc transport's ops: streams as bidirectional gRPC calls, between hosts. */
#include "inside.h"

#define STACK_BYTES (1u << 20) /* gRPC's own code runs on it, TLS too */
#define TIME_LEAST  100
#define TIME_MOST   86400000
#define OPTION_TIME(member, fallback, text)                                            \
    TIERED_OPTION_ROW(TIERED_DURATION, struct config, member, fallback, .help = text)

static const struct tiered_option options[] = {
    OPTION_TIME(keepalive_time, "10s",
                "a connection on which nothing came for so long is asked for a sign"),
    OPTION_TIME(keepalive_timeout, "5s",
                "a peer that gives no sign for so long is gone"),
    OPTION_TIME(connect_timeout, "10s", "an attempt to connect takes at most so long"),
};

void state_unref(struct state *st)
{
    if (atomic_fetch_sub(&st->refs, 1) == 1) {
        pthread_mutex_destroy(&st->lock);
        free(st);
    }
}

struct tiered_stream *stream_create(struct state *st, enum tiered_stream_kind kind)
{
    struct tiered_stream *s = calloc(1, sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->state = st;
    s->kind = kind;
    s->due_ms = NEVER;
    s->on_meta = (struct tag){TAG_META, s};
    s->on_receive = (struct tag){TAG_RECEIVE, s};
    s->on_send = (struct tag){TAG_SEND, s};
    s->on_end = (struct tag){TAG_END, s};
    s->details = grpc_empty_slice();
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    items_init(&s->queue);
    items_init(&s->sending);
    atomic_init(&s->refs, 2); /* the host's and the thread's */
    atomic_fetch_add(&st->refs, 1);
    pthread_mutex_lock(&st->lock);
    s->all_next = st->all;
    s->all_prev = &st->all;
    if (st->all) {
        st->all->all_prev = &s->all_next;
    }
    st->all = s;
    pthread_mutex_unlock(&st->lock);
    return s;
}

void stream_unref(struct tiered_stream *s)
{
    if (atomic_fetch_sub(&s->refs, 1) == 1) {
        state_unref(s->state);
        free(s);
    }
}

void stream_release(struct tiered_stream *s)
{
    struct state *st = s->state;
    pthread_mutex_lock(&st->lock);
    *s->all_prev = s->all_next;
    if (s->all_next) {
        s->all_next->all_prev = s->all_prev;
    }
    pthread_mutex_unlock(&st->lock);
    stream_unref(s);
}

bool stream_mark(struct tiered_stream *s)
{
    struct state *st = s->state;
    if (s->dirty || s->closed) {
        return false;
    }
    s->dirty = true;
    s->dirty_next = NULL;
    *st->dirty_last = s;
    st->dirty_last = &s->dirty_next;
    atomic_fetch_add(&s->refs, 1);
    return state_wants_wake(st);
}

/* Take the lock's work to the thread. */
static void unlock_and_wake(struct state *st, bool wake)
{
    pthread_mutex_unlock(&st->lock);
    if (wake) {
        state_wake(st);
    }
}

static int check_config(const struct config *c, struct tiered_error *err)
{
    const uint64_t times[] = {c->keepalive_time, c->keepalive_timeout,
                              c->connect_timeout};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (times[i] < TIME_LEAST || times[i] > TIME_MOST) {
            return tiered_fail(err, TIERED_ERANGE,
                               "option '%s' of transport 'grpc' must be 100ms to 24h",
                               options[i].name);
        }
    }
    return 0;
}

static int start_thread(struct state *st, struct tiered_error *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int rc = pthread_create(&st->thread, &attr, thread_main, st);
    pthread_attr_destroy(&attr);
    return rc == 0 ? 0
                   : tiered_fail(err, TIERED_EIO, "cannot start a thread: %s",
                                 strerror(rc));
}

/* A call that is never made: its empty batches wake the thread. */
static void open_queue(struct state *st)
{
    st->cq = grpc_completion_queue_create_for_next(NULL);
    st->wake_channel = grpc_lame_client_channel_create("wake", GRPC_STATUS_UNAVAILABLE,
                                                       "never called");
    st->wake_call =
        grpc_channel_create_call(st->wake_channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                 st->cq, grpc_slice_from_static_string("/wake"), NULL,
                                 gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
}

static void close_queue(struct state *st)
{
    grpc_call_unref(st->wake_call);
    grpc_channel_destroy(st->wake_channel);
    grpc_completion_queue_shutdown(st->cq);
    while (grpc_completion_queue_next(st->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL)
               .type != GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_completion_queue_destroy(st->cq);
}

static struct state *state_create(const struct tiered_host *host,
                                  const struct config *config)
{
    struct state *st = calloc(1, sizeof(*st));
    if (st) {
        st->host = host;
        st->config = *config;
        st->next_due_ms = NEVER;
        st->dirty_last = &st->dirty;
        items_init(&st->finished);
        atomic_init(&st->refs, 1);
        pthread_mutex_init(&st->lock, NULL);
    }
    return st;
}

static int grpc_transport_init(const struct tiered_host *host, const void *config,
                               const struct tiered_credentials *credentials,
                               void **ret_state, struct tiered_error *err)
{
    if (check_config(config, err) < 0) {
        return -1;
    }
    struct state *st = state_create(host, config);
    if (!st) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (library_enter(host, err) < 0) {
        goto fail_state;
    }
    if (credentials_load(st, credentials, err) < 0) {
        goto fail_library;
    }
    open_queue(st);
    if (start_thread(st, err) < 0) {
        goto fail_queue;
    }
    if (st->plaintext) {
        host->log(host, TIERED_LOG_WARN,
                  "grpc speaks plaintext, as 'insecure: true' says: anyone on the "
                  "network can read and change what it sends");
    }
    *ret_state = st;
    return 0;
fail_queue:
    close_queue(st);
    credentials_finish(st);
fail_library:
    library_leave(host, false);
fail_state:
    state_unref(st);
    return -1;
}

static void grpc_transport_destroy(void *state)
{
    struct state *st = state;
    if (!st) {
        return;
    }
    pthread_mutex_lock(&st->lock);
    st->stop = true;
    unlock_and_wake(st, state_wants_wake(st));
    pthread_join(st->thread, NULL);
    while (st->all) {
        stream_release(st->all);
    }
    if (st->abandoned) { /* what gRPC may still touch stays, for good */
        library_leave(st->host, true);
        return;
    }
    close_queue(st);
    credentials_finish(st);
    library_leave(st->host, false);
    state_unref(st);
}

static int grpc_listen(void *state, const char *address,
                       const struct tiered_listen_handler *handler, void *user,
                       struct tiered_error *err)
{
    struct place place;
    if (place_parse(address, &place, err) < 0) {
        return -1;
    }
    return listener_start(state, &place, handler, user, err);
}

static int grpc_unlisten(void *state, const char *address, struct tiered_error *err)
{
    struct state *st = state;
    struct place place;
    if (place_parse(address, &place, err) < 0) {
        return -1;
    }
    pthread_mutex_lock(&st->lock);
    struct listener *l = st->listeners;
    while (l && (l->retired || !place_equal(&l->place, &place))) {
        l = l->next;
    }
    if (l) {
        l->retired = true;
    }
    pthread_mutex_unlock(&st->lock);
    if (!l) {
        return tiered_fail(err, TIERED_ENOENT, "nothing listens on '%.100s'", address);
    }
    listener_shut(l);
    return 0;
}

static int grpc_open(void *state, const char *address, enum tiered_stream_kind kind,
                     const struct tiered_stream_handler *handler, void *user,
                     struct tiered_stream **ret_stream, struct tiered_error *err)
{
    struct state *st = state;
    struct place place;
    if (kind < TIERED_SESSION || kind > TIERED_PULL) {
        return tiered_fail(err, TIERED_EINVAL, "no stream of kind %d", kind);
    }
    if (place_parse(address, &place, err) < 0) {
        return -1;
    }
    if (!place.host[0]) {
        return tiered_fail(err, TIERED_EINVAL,
                           "address '%.100s' has no host to connect to", address);
    }
    struct tiered_stream *s = stream_create(st, kind);
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    place_target(&place, s->target);
    s->handler = handler;
    s->user = user;
    *ret_stream = s; /* before the thread's first call */
    pthread_mutex_lock(&st->lock);
    unlock_and_wake(st, stream_mark(s));
    return 0;
}

/* Consumes the item. */
static int enqueue(struct tiered_stream *s, struct item *item, struct tiered_error *err)
{
    const char *why = NULL;
    bool wake = false;
    if (!item) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    pthread_mutex_lock(&s->state->lock);
    if (s->closed || s->cancelled) {
        why = "the stream has ended";
    } else if (s->half_closed) {
        why = "this side of the stream is closed";
    } else {
        s->half_closed = item->ends;
        items_push(&s->queue, item);
        wake = stream_mark(s);
    }
    unlock_and_wake(s->state, wake);
    if (why) {
        item_discard(item);
        return tiered_fail(err, TIERED_ESTATE, "%s", why);
    }
    return 0;
}

static int grpc_send(struct tiered_stream *s, const struct tiered_outgoing *message,
                     struct tiered_error *err)
{
    size_t head = message->head_size, body = message->body_size;
    if (head > TIERED_MESSAGE_MAX || body > TIERED_MESSAGE_MAX - head) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a message of %zu and %zu bytes; at most %u are sent", head,
                           body, TIERED_MESSAGE_MAX);
    }
    if (head + body == 0) {
        return tiered_fail(err, TIERED_EINVAL, "an empty message");
    }
    return enqueue(s, item_create(s->state, message), err);
}

static int grpc_half_close(struct tiered_stream *s, struct tiered_error *err)
{
    return enqueue(s, item_create(s->state, NULL), err);
}

static void grpc_cancel(struct tiered_stream *s)
{
    pthread_mutex_lock(&s->state->lock);
    s->cancelled = true;
    unlock_and_wake(s->state, stream_mark(s));
}

static int grpc_peer(struct tiered_stream *s, char *out, size_t capacity,
                     struct tiered_error *err)
{
    pthread_mutex_lock(&s->state->lock);
    size_t n = strlen(s->peer) + 1;
    if (n <= capacity) {
        memcpy(out, s->peer, n);
    }
    pthread_mutex_unlock(&s->state->lock);
    return n <= capacity
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "no room for the peer's identity of %zu bytes", n - 1);
}

static const struct tiered_transport_ops ops = {
    .size = sizeof(ops),
    .init = grpc_transport_init,
    .destroy = grpc_transport_destroy,
    .listen = grpc_listen,
    .unlisten = grpc_unlisten,
    .open = grpc_open,
    .send = grpc_send,
    .half_close = grpc_half_close,
    .cancel = grpc_cancel,
    .release = stream_release,
    .peer = grpc_peer,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_TRANSPORT, .name = "grpc", .version = "1.0",
                     .summary = "streams as gRPC calls over mutual TLS, between hosts",
                     .traits = TIERED_CONCURRENT,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
