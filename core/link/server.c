/* SPDX-License-Identifier: Apache-2.0 */
/* The listener: waits for each stream's first frame, checks who speaks, hands over. */
#include "core/link/inside.h"

#include "core/base/log.h"

#define FIRST_FRAME_MS 10000 /* a stream that says nothing for so long is closed */

struct incoming {
    struct incoming *next;
    struct tiered_server *server;
    struct tiered_conn *conn;
    struct tiered_timer timer;
};

/* A stream let go: kept until its last frame has left, then closed. */
static void refused_closed(void *user, enum tiered_stream_end end,
                           const struct tiered_error *err)
{
    (void)end;
    (void)err;
    struct incoming *in = user;
    struct incoming **at = &in->server->incoming;
    while (*at != in) {
        at = &(*at)->next;
    }
    *at = in->next;
    tiered_loop_cancel(in->server->config.loop, &in->timer);
    tiered_conn_close(in->conn);
    free(in);
}

static const struct tiered_conn_handler refused_handler = {.on_closed = refused_closed};

static void first_frame_timeout(void *arg)
{
    struct incoming *in = arg;
    refused_closed(in, TIERED_END_BROKEN, NULL);
}

static struct incoming *incoming_add(struct tiered_server *server,
                                     struct tiered_conn *conn)
{
    struct incoming *in = calloc(1, sizeof(*in));
    if (in) {
        in->server = server;
        in->conn = conn;
        in->next = server->incoming;
        server->incoming = in;
        tiered_loop_timer(server->config.loop, &in->timer, FIRST_FRAME_MS,
                          first_frame_timeout, in);
    }
    return in;
}

static void incoming_remove(struct incoming *in)
{
    struct incoming **at = &in->server->incoming;
    while (*at != in) {
        at = &(*at)->next;
    }
    *at = in->next;
    tiered_loop_cancel(in->server->config.loop, &in->timer);
    free(in);
}

static bool let_go(struct tiered_server *server, struct tiered_conn *conn)
{
    struct incoming *in = incoming_add(server, conn);
    if (!in) {
        tiered_conn_close(conn);
        return false;
    }
    tiered_conn_set_handler(conn, &refused_handler, in);
    return true;
}

void link_let_go(struct tiered_server *server, struct tiered_conn *conn)
{
    if (let_go(server, conn)) {
        tiered_conn_half_close(conn, NULL);
    }
}

void link_turn_away(struct tiered_server *server, struct tiered_conn *conn,
                    const char *node, enum tiered_code code, const char *reason)
{
    const struct tiered_log_context where = {.node = node};
    tiered_log(TIERED_LOG_WARN, "link", &where, "refused a peer: %s", reason);
    struct tiered_frame_context context = {.run = server->config.run,
                                           .node = node ? node : "",
                                           .generation = server->config.generation};
    if (let_go(server, conn)) {
        tiered_link_refuse(conn, &context, code, reason);
    }
}

int link_unpack(struct tiered_server *server, struct tiered_message *message,
                struct tiered_frame *ret, struct tiered_error *err)
{
    if (tiered_frame_unpack(message->data, message->size, ret, err) < 0) {
        return -1;
    }
    /* an agent that has no assignment yet does not know the run */
    bool unknown = ret->pb->run[0] == '\0' && ret->pb->node[0] == '\0';
    if (!unknown && strcmp(ret->pb->run, server->config.run) != 0) {
        tiered_frame_finish(ret);
        return tiered_fail(err, TIERED_EPEER, "frame for another run");
    }
    return 0;
}

static struct link_child *find_in(struct tiered_downlink *d, const char *name)
{
    uint32_t low = 0, high = d->n_children;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int order = strcmp(name, d->children[mid].name);
        if (order == 0) {
            return &d->children[mid];
        }
        if (order < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

static struct link_child *find_child(struct tiered_server *server, const char *name)
{
    for (struct tiered_downlink *d = server->downlinks; d; d = d->next) {
        struct link_child *child = find_in(d, name);
        if (child) {
            return child;
        }
    }
    return NULL;
}

static bool token_ok(const struct tiered_server *server, const char *token)
{
    /* compared without a hint of how far it matched */
    struct tiered_digest a, b;
    tiered_digest_of(token, strlen(token), &a);
    tiered_digest_of(server->config.token, strlen(server->config.token), &b);
    return tiered_digest_equal(&a, &b);
}

/* The fence: nothing of another plan gets in. */
static int check_generation(const struct tiered_server *server,
                            const struct tiered_frame *frame, struct tiered_error *err)
{
    if (frame->pb->generation == server->config.generation) {
        return 0;
    }
    return tiered_fail(err, TIERED_EPEER, "generation %llu is over (this is %llu)",
                       (unsigned long long)frame->pb->generation,
                       (unsigned long long)server->config.generation);
}

/* Who opens a session: checks everything that Hello says. */
static struct link_child *check_hello(struct tiered_server *server,
                                      const struct tiered_frame *frame,
                                      struct tiered_error *err)
{
    if (frame->pb->body_case != TIERED__V1__FRAME__BODY_HELLO) {
        tiered_fail(err, TIERED_EPEER, "a session must begin with hello");
        return NULL;
    }
    const Tiered__V1__Hello *hello = frame->pb->hello;
    if (hello->protocol != TIERED_PROTOCOL) {
        tiered_fail(err, TIERED_ENOTSUP, "protocol %u is not spoken here (%u is)",
                    hello->protocol, TIERED_PROTOCOL);
        return NULL;
    }
    if (!token_ok(server, hello->token)) {
        tiered_fail(err, TIERED_EPEER, "wrong join token");
        return NULL;
    }
    char name[80];
    bool agent = frame->pb->node[0] == '\0';
    snprintf(name, sizeof(name), "%s%s", agent ? "@" : "",
             agent ? hello->agent : frame->pb->node);
    struct link_child *child =
        frame->pb->node[0] == '@' ? NULL : find_child(server, name);
    if (!child) {
        tiered_fail(err, TIERED_EPEER, "%s '%s' is not expected here",
                    agent ? "agent" : "node", agent ? hello->agent : frame->pb->node);
        return NULL;
    }
    return agent || check_generation(server, frame, err) == 0 ? child : NULL;
}

/* A push or pull speaks for a child that has a session of the same peer. Not every
   transport proves who a peer is: so it has the token, too. */
static struct link_child *check_transfer(struct tiered_server *server,
                                         struct tiered_conn *conn,
                                         const struct tiered_frame *frame,
                                         const char *token, struct tiered_error *err)
{
    const char *node = frame->pb->node;
    struct link_child *child = node[0] == '@' ? NULL : find_child(server, node);
    if (!child) {
        tiered_fail(err, TIERED_EPEER, "node '%s' is not expected here", node);
        return NULL;
    }
    if (check_generation(server, frame, err) < 0) {
        return NULL;
    }
    if (!token_ok(server, token)) {
        tiered_fail(err, TIERED_EPEER, "wrong join token");
        return NULL;
    }
    char peer[128] = "";
    tiered_conn_peer(conn, peer, sizeof(peer), NULL);
    if (!child->session || strcmp(peer, child->peer) != 0) {
        tiered_fail(err, TIERED_ESTATE, "node '%s' has no session here", node);
        return NULL;
    }
    return child;
}

/* An observer may pull what any downlink of this server has, with the token. */
static struct tiered_downlink *observed(struct tiered_server *server,
                                        const Tiered__V1__Pull *pull,
                                        struct tiered_error *err)
{
    const struct tiered_wanted wanted = link_wanted(pull);
    if (!token_ok(server, pull->token)) {
        tiered_fail(err, TIERED_EPEER, "wrong join token");
        return NULL;
    }
    for (struct tiered_downlink *d = server->downlinks; d; d = d->next) {
        struct tiered_encoded *encoded = NULL;
        int has = d->owner->model(d->user, &wanted, &encoded);
        tiered_encoded_unref(encoded);
        if (has >= 0) {
            return d;
        }
    }
    tiered_fail(err, TIERED_ENOENT, "no such model here");
    return NULL;
}

static int dispatch(struct tiered_server *server, struct tiered_conn *conn,
                    const struct tiered_frame *frame, struct tiered_error *err)
{
    struct link_child *child;
    switch (tiered_conn_kind(conn)) {
    case TIERED_SESSION:
        child = check_hello(server, frame, err);
        if (!child) {
            return -1;
        }
        link_session_begin(child, conn);
        return 0;
    case TIERED_PUSH:
        if (frame->pb->body_case != TIERED__V1__FRAME__BODY_PUSH_BEGIN ||
            !frame->pb->push_begin->head) {
            return tiered_fail(err, TIERED_EPEER, "a push must begin with its head");
        }
        child = check_transfer(server, conn, frame, frame->pb->push_begin->token, err);
        if (!child) {
            return -1;
        }
        link_push_begin(child, conn, frame);
        return 0;
    case TIERED_PULL:
        if (frame->pb->body_case != TIERED__V1__FRAME__BODY_PULL ||
            frame->pb->pull->model.len == 0) {
            return tiered_fail(err, TIERED_EPEER, "a pull must say what it wants");
        }
        if (frame->pb->node[0] == '\0') {
            struct tiered_downlink *d = observed(server, frame->pb->pull, err);
            if (!d) {
                return -1;
            }
            link_pull_begin(d, "", conn, frame);
            return 0;
        }
        child = check_transfer(server, conn, frame, frame->pb->pull->token, err);
        if (!child) {
            return -1;
        }
        link_pulls_cut(child); /* one at a time */
        link_pull_begin(child->downlink, child->name, conn, frame);
        return 0;
    }
    return tiered_fail(err, TIERED_EPEER, "unknown kind of stream");
}

static void first_message(void *user, struct tiered_message *message)
{
    struct incoming *in = user;
    struct tiered_server *server = in->server;
    struct tiered_conn *conn = in->conn;
    incoming_remove(in);
    struct tiered_error err;
    struct tiered_frame frame;
    if (link_unpack(server, message, &frame, &err) < 0) {
        link_turn_away(server, conn, NULL, err.code, err.text);
    } else {
        if (dispatch(server, conn, &frame, &err) < 0) {
            link_turn_away(server, conn, frame.pb->node, err.code, err.text);
        }
        tiered_frame_finish(&frame);
    }
    message->release(message);
}

static const struct tiered_conn_handler first_handler = {.on_message = first_message,
                                                         .on_closed = refused_closed};

static void on_accept(void *user, struct tiered_conn *conn,
                      enum tiered_stream_kind kind)
{
    (void)kind;
    struct incoming *in = incoming_add(user, conn);
    if (!in) {
        tiered_conn_close(conn);
        return;
    }
    tiered_conn_set_handler(conn, &first_handler, in);
}

int tiered_server_create(const struct tiered_server_config *config,
                         struct tiered_server **ret, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_server_destroyp)
    struct tiered_server *server = calloc(1, sizeof(*server));
    if (!server) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    server->config = *config;
    server->config.address = strdup(config->address);
    server->config.run = strdup(config->run);
    server->config.token = strdup(config->token);
    if (!server->config.address || !server->config.run || !server->config.token) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (tiered_net_listen(config->net, config->address, on_accept, server, err) < 0) {
        return -1;
    }
    server->listening = true;
    *ret = TIERED_STEAL(server);
    return 0;
}

void tiered_server_destroy(struct tiered_server *server)
{
    if (!server) {
        return;
    }
    if (server->listening) { /* the address may be another server's */
        tiered_net_unlisten(server->config.net, server->config.address, NULL);
    }
    while (server->incoming) {
        refused_closed(server->incoming, TIERED_END_CANCELLED, NULL);
    }
    free((char *)server->config.address);
    free((char *)server->config.run);
    free((char *)server->config.token);
    free(server);
}
