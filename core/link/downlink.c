/* SPDX-License-Identifier: Apache-2.0 */
/* The children's sessions: who is there, what they say, when they fell silent. */
#include "core/link/inside.h"

#include "core/base/log.h"

struct tiered_frame_context link_context(const struct tiered_downlink *downlink,
                                         const char *node,
                                         const struct tiered_path *path)
{
    struct tiered_frame_context context = {
        .run = downlink->server->config.run,
        .node = node[0] == '@' ? "" : node,
        .generation = downlink->server->config.generation,
    };
    if (path) {
        context.path = *path;
    }
    return context;
}

static uint32_t index_of(const struct link_child *child)
{
    return (uint32_t)(child - child->downlink->children);
}

static void end_session(struct link_child *child, const char *why)
{
    struct tiered_downlink *d = child->downlink;
    if (!child->session) {
        return;
    }
    tiered_conn_close(child->session);
    child->session = NULL;
    child->ready = false;
    link_pushes_cut(child);
    link_pulls_cut(child);
    d->owner->ready(d->user, index_of(child), false, why);
}

static void session_message(void *user, struct tiered_message *message)
{
    struct link_child *child = user;
    struct tiered_downlink *d = child->downlink;
    struct tiered_error err;
    struct tiered_frame frame;
    if (link_unpack(d->server, message, &frame, &err) < 0) {
        message->release(message);
        tiered_downlink_drop(d, index_of(child), err.code, err.text);
        return;
    }
    child->last_seen_ms = tiered_now_ms();
    switch (frame.pb->body_case) {
    case TIERED__V1__FRAME__BODY_HELLO:
        tiered_downlink_drop(d, index_of(child), TIERED_EPEER,
                             "hello was said already");
        break;
    case TIERED__V1__FRAME__BODY_READY:
        child->ready = frame.pb->ready->ready;
        d->owner->ready(d->user, index_of(child), child->ready,
                        frame.pb->ready->missing);
        break;
    case TIERED__V1__FRAME__BODY_HEARTBEAT:
        if (d->owner->heartbeat) {
            d->owner->heartbeat(d->user, index_of(child), &frame);
        }
        break;
    default:
        d->owner->frame(d->user, index_of(child), &frame);
        break;
    }
    tiered_frame_finish(&frame);
    message->release(message);
}

static void session_half_closed(void *user)
{
    end_session(user, "it closed its session");
}

static void session_closed(void *user, enum tiered_stream_end end,
                           const struct tiered_error *err)
{
    (void)end;
    end_session(user, err && err->text[0] ? err->text : "its session ended");
}

static const struct tiered_conn_handler session_handler = {
    .on_message = session_message,
    .on_half_closed = session_half_closed,
    .on_closed = session_closed,
};

void link_session_begin(struct link_child *child, struct tiered_conn *conn)
{
    struct tiered_downlink *d = child->downlink;
    end_session(child, "it began a new session"); /* the newer one is the living one */
    child->session = conn;
    child->last_seen_ms = tiered_now_ms();
    child->peer[0] = '\0';
    tiered_conn_peer(conn, child->peer, sizeof(child->peer), NULL);
    tiered_conn_set_handler(conn, &session_handler, child);
    Tiered__V1__Welcome welcome = TIERED__V1__WELCOME__INIT;
    welcome.protocol = TIERED_PROTOCOL;
    welcome.heartbeat_ms = d->server->config.heartbeat_ms;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_WELCOME;
    frame.welcome = &welcome;
    tiered_downlink_send(d, index_of(child), NULL, &frame, NULL);
    if (child->name[0] == '@') { /* an agent itself is ready by being there */
        child->ready = true;
        d->owner->ready(d->user, index_of(child), true, "");
    }
}

/* Say something to every child now and then, so that they can tell a frozen parent; and
   let go of those that say nothing. */
static void beat(void *arg)
{
    struct tiered_downlink *d = arg;
    const struct tiered_server_config *config = &d->server->config;
    tiered_loop_timer(config->loop, &d->beat, config->heartbeat_ms, beat, d);
    link_pushes_tick(d);
    uint64_t now = tiered_now_ms();
    for (uint32_t i = 0; i < d->n_children; i++) {
        if (!d->children[i].session) {
            continue;
        }
        if (now - d->children[i].last_seen_ms > config->silence_ms) {
            end_session(&d->children[i], "it has been silent for too long");
            continue;
        }
        Tiered__V1__Heartbeat heartbeat = TIERED__V1__HEARTBEAT__INIT;
        Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
        frame.body_case = TIERED__V1__FRAME__BODY_HEARTBEAT;
        frame.heartbeat = &heartbeat;
        tiered_downlink_send(d, i, NULL, &frame, NULL);
    }
}

static int copy_names(struct tiered_downlink *d, const char *const *children,
                      uint32_t n, struct tiered_error *err)
{
    size_t bytes = 1;
    for (uint32_t i = 0; i < n; i++) {
        bytes += strlen(children[i]) + 1;
    }
    d->children = calloc(n ? n : 1, sizeof(*d->children));
    d->names = malloc(bytes);
    if (!d->children || !d->names) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    d->n_children = n;
    char *at = d->names;
    for (uint32_t i = 0; i < n; i++) {
        size_t len = strlen(children[i]) + 1;
        memcpy(at, children[i], len);
        d->children[i].name = at;
        d->children[i].downlink = d;
        at += len;
    }
    return 0;
}

int tiered_downlink_create(struct tiered_server *server, const char *const *children,
                           uint32_t n_children,
                           const struct tiered_downlink_owner *owner, void *user,
                           struct tiered_downlink **ret, struct tiered_error *err)
{
    struct tiered_downlink *d = calloc(1, sizeof(*d));
    if (!d) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    d->server = server;
    d->owner = owner;
    d->user = user;
    if (copy_names(d, children, n_children, err) < 0) {
        free(d->children);
        free(d->names);
        free(d);
        return -1;
    }
    d->next = server->downlinks;
    server->downlinks = d;
    tiered_loop_timer(server->config.loop, &d->beat, server->config.heartbeat_ms, beat,
                      d);
    *ret = d;
    return 0;
}

void tiered_downlink_destroy(struct tiered_downlink *d)
{
    if (!d) {
        return;
    }
    tiered_loop_cancel(d->server->config.loop, &d->beat);
    for (uint32_t i = 0; i < d->n_children; i++) {
        tiered_conn_close(d->children[i].session);
    }
    link_pushes_forget(d);
    for (uint32_t i = 0; i < d->n_children; i++) {
        link_partial_discard(&d->children[i]);
    }
    link_pulls_forget(d);
    struct tiered_downlink **at = &d->server->downlinks;
    while (*at != d) {
        at = &(*at)->next;
    }
    *at = d->next;
    free(d->children);
    free(d->names);
    free(d);
}

int tiered_downlink_send(struct tiered_downlink *d, uint32_t child,
                         const struct tiered_path *path, Tiered__V1__Frame *frame,
                         struct tiered_error *err)
{
    struct link_child *c = &d->children[child];
    if (!c->session) {
        return tiered_fail(err, TIERED_ESTATE, "'%s' is not connected", c->name);
    }
    struct tiered_frame_context context = link_context(d, c->name, path);
    return tiered_link_send(c->session, &context, frame, err);
}

static int send_order(struct tiered_downlink *d, uint32_t child,
                      Tiered__V1__Order__Kind kind, const struct tiered_path *path,
                      const struct tiered_digest *model, double norm)
{
    Tiered__V1__Order order = TIERED__V1__ORDER__INIT;
    order.kind = kind;
    order.norm = norm;
    if (model && !tiered_digest_is_none(model)) {
        order.model.data = (uint8_t *)model->bytes;
        order.model.len = sizeof(model->bytes);
    }
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_ORDER;
    frame.order = &order;
    return tiered_downlink_send(d, child, path, &frame, NULL);
}

int tiered_downlink_order(struct tiered_downlink *d, uint32_t child,
                          Tiered__V1__Order__Kind kind, const struct tiered_path *path,
                          const struct tiered_digest *model)
{
    return send_order(d, child, kind, path, model, 0);
}

int tiered_downlink_train(struct tiered_downlink *d, uint32_t child,
                          const struct tiered_path *path,
                          const struct tiered_digest *model, double norm)
{
    return send_order(d, child, TIERED__V1__ORDER__KIND__TRAIN, path, model, norm);
}

int tiered_downlink_settle(struct tiered_downlink *d, uint32_t child,
                           const struct tiered_path *path, bool counted,
                           const char *reason)
{
    Tiered__V1__Settled settled = TIERED__V1__SETTLED__INIT;
    settled.counted = counted;
    char text[TIERED_LINK_TEXT + 1];
    tiered_link_text(reason, text);
    settled.reason = text;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_SETTLED;
    frame.settled = &settled;
    return tiered_downlink_send(d, child, path, &frame, NULL);
}

void tiered_downlink_drop(struct tiered_downlink *d, uint32_t child,
                          enum tiered_code code, const char *reason)
{
    struct link_child *c = &d->children[child];
    struct tiered_conn *conn = c->session;
    if (!conn) {
        return;
    }
    c->session = NULL;
    c->ready = false;
    link_pushes_cut(c);
    link_partial_discard(c);
    link_pulls_cut(c);
    link_turn_away(d->server, conn, c->name[0] == '@' ? "" : c->name, code, reason);
    d->owner->ready(d->user, child, false, reason);
}

const char *tiered_downlink_child(const struct tiered_downlink *d, uint32_t child)
{
    return d->children[child].name;
}

bool tiered_downlink_connected(const struct tiered_downlink *d, uint32_t child)
{
    return d->children[child].session != NULL;
}

uint64_t tiered_downlink_last_seen(const struct tiered_downlink *d, uint32_t child)
{
    return d->children[child].last_seen_ms;
}

void tiered_downlink_bytes(const struct tiered_downlink *d, uint64_t *ret_up,
                           uint64_t *ret_down)
{
    *ret_up = d->bytes_up;
    *ret_down = d->bytes_down;
}
