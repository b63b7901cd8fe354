/* SPDX-License-Identifier: Apache-2.0 */
/* Delivering an update: begin, send what the parent has not got, wait for the verdict;
   after a cut begin again. Only the verdict ends it. */
#include "core/link/outside.h"

#include "core/base/log.h"

#define RETRY_MS   50
#define RETRY_MOST 2000
#define STALL_MS   60000 /* no answer for so long: dial again */

static void dial(void *arg);

static void again(struct tiered_uplink *u)
{
    tiered_sender_stop(TIERED_STEAL(u->sender));
    tiered_conn_close(TIERED_STEAL(u->push_conn));
    tiered_loop_timer(u->config.loop, &u->push_retry, u->push_retry_ms, dial, u);
    u->push_retry_ms =
        u->push_retry_ms * 2 > RETRY_MOST ? RETRY_MOST : u->push_retry_ms * 2;
}

static void stalled(void *arg)
{
    again(arg);
}

static void expect_answer(struct tiered_uplink *u)
{
    tiered_loop_timer(u->config.loop, &u->push_retry, STALL_MS, stalled, u);
}

void tiered_uplink_cancel_push(struct tiered_uplink *u)
{
    tiered_loop_cancel(u->config.loop, &u->push_retry);
    tiered_sender_stop(TIERED_STEAL(u->sender));
    tiered_conn_close(TIERED_STEAL(u->push_conn));
    tiered_encoded_unref(TIERED_STEAL(u->push));
}

static void verdict(struct tiered_uplink *u, bool accepted, bool settled,
                    const char *reason)
{
    struct tiered_path path = u->push_path;
    tiered_uplink_cancel_push(u);
    u->owner->pushed(u->user, &path, accepted, settled, reason);
}

static void count_bytes(void *user, size_t bytes)
{
    struct tiered_uplink *u = user;
    u->bytes_up += bytes;
    u->push_retry_ms = RETRY_MS; /* only what gets on is retried quickly … */
    expect_answer(u);            /* … and a slow link is no stall */
}

/* The parent takes it: blocks from next_block on. */
static int start_blocks(struct tiered_uplink *u, const Tiered__V1__PushReady *ready,
                        struct tiered_error *err)
{
    if (u->sender || ready->next_block > tiered_encoded_head(u->push)->n_blocks) {
        return tiered_fail(err, TIERED_EPEER, "the parent asks for a wrong block");
    }
    struct tiered_frame_context context = link_up_context(u, &u->push_path);
    return tiered_sender_start(u->push_conn, u->push, ready->next_block, &context,
                               false, count_bytes, u, &u->sender, err);
}

static int take_frame(struct tiered_uplink *u, const struct tiered_frame *frame,
                      struct tiered_error *err)
{
    switch (frame->pb->body_case) {
    case TIERED__V1__FRAME__BODY_PUSH_READY:
        if (!frame->pb->push_ready->settled) {
            return start_blocks(u, frame->pb->push_ready, err);
        }
        verdict(u, true, true, "");
        return 0;
    case TIERED__V1__FRAME__BODY_PUSH_ACK:
        return 0;
    case TIERED__V1__FRAME__BODY_PUSH_DONE:
        verdict(u, frame->pb->push_done->accepted, false, frame->pb->push_done->reason);
        return 0;
    case TIERED__V1__FRAME__BODY_REFUSAL:
        if (frame->pb->refusal->code != TIERED_ESTATE) {
            u->push_retry_ms = RETRY_MOST; /* it will hardly like it better at once */
        }
        return tiered_fail(err, (enum tiered_code)frame->pb->refusal->code, "%s",
                           frame->pb->refusal->reason);
    default:
        return tiered_fail(err, TIERED_EPEER, "an answer that fits no push");
    }
}

static void on_message(void *user, struct tiered_message *message)
{
    struct tiered_uplink *u = user;
    struct tiered_error err;
    struct tiered_frame frame;
    struct tiered_conn *conn = u->push_conn;
    int result = tiered_frame_unpack(message->data, message->size, &frame, &err);
    if (result == 0) {
        result = take_frame(u, &frame, &err);
        tiered_frame_finish(&frame);
    }
    message->release(message);
    if (result < 0) {
        /* ESTATE: the parent has not seen our new session yet; that needs no word */
        const struct tiered_log_context where = {.node = u->config.node};
        tiered_log(err.code == TIERED_ESTATE ? TIERED_LOG_DEBUG : TIERED_LOG_WARN,
                   "link", &where, "a push was cut off: %s", err.text);
        again(u);
    } else if (u->push && u->push_conn == conn) {
        expect_answer(u);
    }
}

/* No verdict will come here. */
static void on_half_closed(void *user)
{
    again(user);
}

static void on_closed(void *user, enum tiered_stream_end end,
                      const struct tiered_error *err)
{
    (void)end;
    (void)err;
    again(user);
}

static const struct tiered_conn_handler handler = {
    .on_message = on_message, .on_half_closed = on_half_closed, .on_closed = on_closed};

static void dial(void *arg)
{
    struct tiered_uplink *u = arg;
    if (!u->welcome) { /* the parent takes pushes of those alone who have a session */
        again(u);
        return;
    }
    if (tiered_net_open(u->config.net, u->config.address, TIERED_PUSH, &handler, u,
                        &u->push_conn, NULL) < 0) {
        again(u);
        return;
    }
    Tiered__V1__PushBegin begin = TIERED__V1__PUSH_BEGIN__INIT;
    begin.head = (Tiered__V1__Head *)tiered_encoded_head(u->push);
    begin.token = (char *)u->config.token;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_BEGIN;
    frame.push_begin = &begin;
    struct tiered_frame_context context = link_up_context(u, &u->push_path);
    if (tiered_link_send(u->push_conn, &context, &frame, NULL) < 0) {
        again(u);
        return;
    }
    expect_answer(u);
}

void link_push_hurry(struct tiered_uplink *u)
{
    if (u->push && !u->push_conn) {
        u->push_retry_ms = RETRY_MS;
        tiered_loop_timer(u->config.loop, &u->push_retry, 0, dial, u);
    }
}

void tiered_uplink_push(struct tiered_uplink *u, const struct tiered_path *path,
                        struct tiered_encoded *encoded)
{
    if (u->push && tiered_path_equal(path, &u->push_path) &&
        tiered_head_equal(tiered_encoded_head(u->push), tiered_encoded_head(encoded))) {
        return; /* the order was repeated: it is on its way */
    }
    tiered_encoded_ref(encoded);
    tiered_uplink_cancel_push(u);
    u->push = encoded;
    u->push_path = *path;
    u->push_retry_ms = RETRY_MS;
    tiered_loop_timer(u->config.loop, &u->push_retry, 0, dial, u);
}
