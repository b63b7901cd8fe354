/* SPDX-License-Identifier: Apache-2.0 */
/* The session with the parent. Pulls are in pull_in.c, pushes in push_out.c. */
#include "core/link/outside.h"

#include "core/base/log.h"

#define RETRY_MS   50
#define RETRY_MOST 2000

static void dial(void *arg);

static void hang_up(struct tiered_uplink *u, const char *why)
{
    bool was = u->welcome;
    tiered_conn_close(TIERED_STEAL(u->session));
    tiered_loop_cancel(u->config.loop, &u->beat);
    u->welcome = false;
    tiered_loop_timer(u->config.loop, &u->retry, u->retry_ms, dial, u);
    u->retry_ms = u->retry_ms * 2 > RETRY_MOST ? RETRY_MOST : u->retry_ms * 2;
    if (was && u->owner->lost) {
        u->owner->lost(u->user, why);
    }
}

static void send_ready(struct tiered_uplink *u)
{
    Tiered__V1__Ready ready = TIERED__V1__READY__INIT;
    ready.ready = u->ready;
    char text[TIERED_LINK_TEXT + 1];
    tiered_link_text(u->missing ? u->missing : "", text);
    ready.missing = text;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_READY;
    frame.ready = &ready;
    tiered_uplink_send(u, NULL, &frame, NULL);
}

static void beat(void *arg)
{
    struct tiered_uplink *u = arg;
    if (tiered_now_ms() - u->last_seen_ms > u->config.silence_ms) {
        hang_up(u, "the parent has been silent for too long");
        return;
    }
    tiered_loop_timer(u->config.loop, &u->beat, u->heartbeat_ms, beat, u);
    Tiered__V1__Heartbeat heartbeat = TIERED__V1__HEARTBEAT__INIT;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_HEARTBEAT;
    frame.heartbeat = &heartbeat;
    if (u->owner->heartbeat) {
        u->owner->heartbeat(u->user, &heartbeat);
    }
    tiered_uplink_send(u, NULL, &frame, NULL);
}

/* A parent that is frozen has a kernel that answers for it. */
static void unanswered(void *arg)
{
    hang_up(arg, "the parent does not answer");
}

static void be_welcome(struct tiered_uplink *u, const Tiered__V1__Welcome *welcome)
{
    if (u->welcome) {
        return;
    }
    uint64_t ms = welcome->heartbeat_ms;
    u->heartbeat_ms = ms < 50 ? 50 : ms > 60000 ? 60000 : ms;
    u->welcome = true;
    u->retry_ms = RETRY_MS;
    tiered_loop_timer(u->config.loop, &u->beat, u->heartbeat_ms, beat, u);
    if (u->config.node[0] && (u->ready || u->missing)) {
        send_ready(u);
    }
    link_push_hurry(u);
    tiered_pull_hurry(u->pull);
    if (u->owner->connected) {
        u->owner->connected(u->user);
    }
}

static void on_message(void *user, struct tiered_message *message)
{
    struct tiered_uplink *u = user;
    struct tiered_error err;
    struct tiered_frame frame;
    int result = tiered_frame_unpack(message->data, message->size, &frame, &err);
    if (result < 0) {
        message->release(message);
        hang_up(u, err.text);
        return;
    }
    u->last_seen_ms = tiered_now_ms();
    switch (frame.pb->body_case) {
    case TIERED__V1__FRAME__BODY_WELCOME:
        be_welcome(u, frame.pb->welcome);
        break;
    case TIERED__V1__FRAME__BODY_HEARTBEAT:
        break;
    case TIERED__V1__FRAME__BODY_REFUSAL:
        if (u->owner->refused) {
            u->owner->refused(u->user, (enum tiered_code)frame.pb->refusal->code,
                              frame.pb->refusal->reason);
        }
        break; /* the stream ends next */
    default:
        if (u->welcome) {
            u->owner->frame(u->user, &frame);
        } else {
            hang_up(u, "the parent did not begin with a welcome");
        }
        break;
    }
    tiered_frame_finish(&frame);
    message->release(message);
}

static void on_half_closed(void *user)
{
    hang_up(user, "the parent closed the session");
}

static void on_closed(void *user, enum tiered_stream_end end,
                      const struct tiered_error *err)
{
    (void)end;
    hang_up(user, err && err->text[0] ? err->text : "the session ended");
}

static const struct tiered_conn_handler handler = {
    .on_message = on_message, .on_half_closed = on_half_closed, .on_closed = on_closed};

static void dial(void *arg)
{
    struct tiered_uplink *u = arg;
    u->last_seen_ms = tiered_now_ms();
    if (tiered_net_open(u->config.net, u->config.address, TIERED_SESSION, &handler, u,
                        &u->session, NULL) < 0) {
        hang_up(u, "cannot dial");
        return;
    }
    Tiered__V1__Hello hello = TIERED__V1__HELLO__INIT;
    hello.protocol = TIERED_PROTOCOL;
    hello.agent = (char *)u->config.agent;
    hello.token = (char *)u->config.token;
    hello.version = (char *)TIERED_VERSION;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_HELLO;
    frame.hello = &hello;
    if (tiered_uplink_send(u, NULL, &frame, NULL) < 0) {
        hang_up(u, "cannot say hello");
        return;
    }
    tiered_loop_timer(u->config.loop, &u->beat, u->config.silence_ms, unanswered, u);
}

static char *copy(const char *text)
{
    return strdup(text ? text : "");
}

int tiered_uplink_create(const struct tiered_uplink_config *config,
                         const struct tiered_uplink_owner *owner, void *user,
                         struct tiered_uplink **ret, struct tiered_error *err)
{
    struct tiered_uplink *u = calloc(1, sizeof(*u));
    if (!u) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    u->config = *config;
    const char **strings[] = {&u->config.address, &u->config.run,   &u->config.node,
                              &u->config.agent,   &u->config.token, &u->config.folder};
    bool ok = true;
    for (size_t i = 0; i < TIERED_COUNT(strings); i++) {
        *strings[i] = copy(*strings[i]);
        ok = ok && *strings[i];
    }
    u->owner = owner;
    u->user = user;
    u->retry_ms = u->push_retry_ms = RETRY_MS;
    if (!ok) {
        tiered_uplink_destroy(u);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered_loop_timer(config->loop, &u->retry, 0, dial, u);
    *ret = u;
    return 0;
}

void tiered_uplink_destroy(struct tiered_uplink *u)
{
    if (!u) {
        return;
    }
    tiered_loop_cancel(u->config.loop, &u->retry);
    tiered_loop_cancel(u->config.loop, &u->beat);
    tiered_uplink_cancel_push(u);
    tiered_pull_stop(u->pull);
    tiered_conn_close(u->session);
    free(u->missing);
    free((char *)u->config.address);
    free((char *)u->config.run);
    free((char *)u->config.node);
    free((char *)u->config.agent);
    free((char *)u->config.token);
    free((char *)u->config.folder);
    free(u);
}

bool tiered_uplink_connected(const struct tiered_uplink *u)
{
    return u->welcome;
}

struct tiered_frame_context link_up_context(const struct tiered_uplink *u,
                                            const struct tiered_path *path)
{
    struct tiered_frame_context context = {.run = u->config.run,
                                           .node = u->config.node,
                                           .generation = u->config.generation};
    if (path) {
        context.path = *path;
    }
    return context;
}

int tiered_uplink_send(struct tiered_uplink *u, const struct tiered_path *path,
                       Tiered__V1__Frame *frame, struct tiered_error *err)
{
    if (!u->session) {
        return tiered_fail(err, TIERED_ESTATE, "the parent is not connected");
    }
    struct tiered_frame_context context = link_up_context(u, path);
    return tiered_link_send(u->session, &context, frame, err);
}

void tiered_uplink_ready(struct tiered_uplink *u, bool ready, const char *missing)
{
    free(u->missing);
    u->missing = copy(missing);
    u->ready = ready;
    if (u->welcome) {
        send_ready(u);
    }
}

static void stop_pull(struct tiered_uplink *u)
{
    if (u->pull) {
        u->bytes_down += tiered_pull_bytes(u->pull);
        tiered_pull_stop(TIERED_STEAL(u->pull));
    }
}

static void pull_done(void *user, struct tiered_encoded *encoded, const char *reason)
{
    struct tiered_uplink *u = user;
    struct tiered_digest model = u->pull_model;
    stop_pull(u);
    u->owner->pulled(u->user, &model, encoded, reason);
}

static void pull_broken(void *user, const struct tiered_error *err)
{
    struct tiered_uplink *u = user;
    if (u->owner->broken) {
        u->owner->broken(u->user, err);
    }
}

void tiered_uplink_pull(struct tiered_uplink *u, const struct tiered_digest *model,
                        const struct tiered_digest *have)
{
    if (u->pull && tiered_digest_equal(&u->pull_model, model)) {
        return;
    }
    stop_pull(u);
    u->pull_model = *model;
    const struct tiered_pull_config config = {
        .loop = u->config.loop,
        .net = u->config.net,
        .address = u->config.address,
        .folder = u->config.folder[0] ? u->config.folder : NULL,
        .token = u->config.token,
        .context = link_up_context(u, NULL),
        .model = *model,
        .have = have ? *have : (struct tiered_digest){{0}},
        .broken = pull_broken,
    };
    struct tiered_error err;
    if (tiered_pull_start(&config, pull_done, u, &u->pull, &err) < 0) {
        u->owner->pulled(u->user, model, NULL, err.text);
    }
}

void tiered_uplink_bytes(const struct tiered_uplink *u, uint64_t *ret_up,
                         uint64_t *ret_down)
{
    *ret_up = u->bytes_up;
    *ret_down = u->bytes_down + (u->pull ? tiered_pull_bytes(u->pull) : 0);
}
