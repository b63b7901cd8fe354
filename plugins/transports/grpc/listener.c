/* SPDX-License-Identifier: Apache-2.0 */
/* Listening: a gRPC server for each address. One request for the next call is always
   under way, for any method: gRPC 1.51 lets a call of a method that nobody asked for
   hang until its deadline. */
#include "inside.h"

#define HANDSHAKE_MS   10000 /* a connection that has not said who it is goes */
#define STREAMS_MOST   16384 /* of one connection */
#define ADDRESSES_MOST 8
/* gRPC looks at a message's size only once all of it is there. So what the peers of an
   address may fill together with messages that are not whole is bounded, and who fills
   most of it is cut off. The windows of four updates at a time are a quarter of it. */
#define UNREAD_BYTES (64u << 20)

static grpc_server *server_create(const struct state *st)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("tiered");
    grpc_resource_quota_resize(quota, UNREAD_BYTES);
    grpc_arg list[] = {
        {.type = GRPC_ARG_POINTER,
         .key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA,
         .value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}},
        integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, st->config.keepalive_time),
        integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, st->config.keepalive_timeout),
        integer_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        integer_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        /* children may ping as often as they are told to: never "too_many_pings" */
        integer_arg(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0),
        integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, TIERED_MESSAGE_MAX),
        integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        integer_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS),
        integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_MOST),
        /* or two could listen on one address, each getting some of the peers */
        integer_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
        integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        integer_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
        integer_arg(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, WINDOW_BYTES),
    };
    const grpc_channel_args args = {sizeof(list) / sizeof(list[0]), list};
    grpc_server *server = grpc_server_create(&args, NULL);
    grpc_resource_quota_unref(quota);
    grpc_server_register_completion_queue(server, st->cq, NULL);
    return server;
}

static int add_ports(struct listener *l, const struct place places[], size_t n,
                     struct tiered_error *err)
{
    for (size_t i = 0; i < n; i++) {
        bool v6 = strchr(places[i].host, ':');
        char text[TARGET_SIZE];
        snprintf(text, sizeof(text), v6 ? "[%s]:%u" : "%s:%u", places[i].host,
                 places[i].port);
        if (!grpc_server_add_http2_port(l->server, text,
                                        l->state->server_credentials)) {
            return tiered_fail(err, TIERED_EIO, "cannot listen on '%s'", text);
        }
    }
    return 0;
}

/* It fails for a queue that is not the server's alone. The caller sets `requested`. */
static void request_call(struct listener *l)
{
    (void)grpc_server_request_call(l->server, &l->call, &l->details, &l->metadata,
                                   l->state->cq, l->state->cq, &l->on_call);
}

/* With the lock, so that the thread sees all of it. */
static void listener_add(struct listener *l, bool good)
{
    struct state *st = l->state;
    pthread_mutex_lock(&st->lock);
    l->requested = good;
    l->retired = !good;
    l->next = st->listeners;
    st->listeners = l;
    pthread_mutex_unlock(&st->lock);
}

static struct listener *listener_create(struct state *st, const struct place *place,
                                        const struct tiered_listen_handler *handler,
                                        void *user)
{
    struct listener *l = calloc(1, sizeof(*l));
    if (l) {
        l->state = st;
        l->place = *place;
        l->handler = handler;
        l->user = user;
        l->on_call = (struct tag){TAG_CALL, l};
        l->on_shutdown = (struct tag){TAG_SHUTDOWN, l};
        l->server = server_create(st);
        grpc_call_details_init(&l->details);
        grpc_metadata_array_init(&l->metadata);
    }
    return l;
}

int listener_start(struct state *st, const struct place *place,
                   const struct tiered_listen_handler *handler, void *user,
                   struct tiered_error *err)
{
    struct place places[ADDRESSES_MOST];
    size_t n;
    if (place_listen(place, places, ADDRESSES_MOST, &n, err) < 0) {
        return -1;
    }
    struct listener *l = listener_create(st, place, handler, user);
    if (!l) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (add_ports(l, places, n, err) < 0) {
        listener_add(l, false);
        listener_shut(l); /* as a server must be before it goes; the thread frees it */
        return -1;
    }
    grpc_server_start(l->server);
    listener_add(l, true);
    request_call(l);
    return 0;
}

void listener_shut(struct listener *l)
{
    grpc_server_shutdown_and_notify(l->server, l->state->cq, &l->on_shutdown);
}

static void remove_when_over(struct listener *l)
{
    struct state *st = l->state;
    if (!l->shut || l->requested) {
        return;
    }
    pthread_mutex_lock(&st->lock);
    struct listener **at = &st->listeners;
    while (*at != l) {
        at = &(*at)->next;
    }
    *at = l->next;
    pthread_mutex_unlock(&st->lock);
    grpc_server_destroy(l->server);
    grpc_call_details_destroy(&l->details);
    grpc_metadata_array_destroy(&l->metadata);
    free(l);
}

static bool is_retired(struct listener *l)
{
    pthread_mutex_lock(&l->state->lock);
    bool retired = l->retired;
    pthread_mutex_unlock(&l->state->lock);
    return retired;
}

static bool kind_of(grpc_slice method, enum tiered_stream_kind *ret)
{
    static const struct {
        const char *method;
        enum tiered_stream_kind kind;
    } rows[] = {{METHOD_SESSION, TIERED_SESSION},
                {METHOD_PUSH, TIERED_PUSH},
                {METHOD_PULL, TIERED_PULL}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (grpc_slice_str_cmp(method, rows[i].method) == 0) {
            *ret = rows[i].kind;
            return true;
        }
    }
    return false;
}

static void accept_call(struct listener *l, bool retired)
{
    struct state *st = l->state;
    enum tiered_stream_kind kind;
    grpc_call *call = l->call;
    bool known = kind_of(l->details.method, &kind);
    grpc_call_details_destroy(&l->details);
    grpc_metadata_array_destroy(&l->metadata);
    grpc_call_details_init(&l->details);
    grpc_metadata_array_init(&l->metadata);
    if (!known) {
        stream_refuse(st, call, GRPC_STATUS_UNIMPLEMENTED, "no such method");
    } else if (retired) {
        stream_refuse(st, call, GRPC_STATUS_UNAVAILABLE, "nobody listens any more");
    } else {
        stream_accept(st, l, call, kind);
    }
}

void listener_event(struct listener *l, enum tag_kind kind, bool ok)
{
    bool retired = is_retired(l);
    if (kind == TAG_SHUTDOWN) {
        l->shut = true;
    } else {
        l->requested = false;
        if (ok) {
            accept_call(l, retired);
            l->requested = true;
            request_call(l);
        }
    }
    remove_when_over(l);
}
