/* SPDX-License-Identifier: Apache-2.0 */
/* One stream on the transport's thread: its call, its sending, its end.

   A stream's half-close in the direction of the call is gRPC's own. In the other one
   gRPC knows only the status, which ends both directions. So the accepting side says
   that it will send no more by an empty message, which is no Tiered message, unless the
   peer was first; the status follows when the peer is through too. */
#include "inside.h"

#define LET_GO_MS 5000

static void stream_live(struct tiered_stream *s)
{
    struct state *st = s->state;
    s->live_next = st->live;
    s->live_prev = &st->live;
    if (st->live) {
        st->live->live_prev = &s->live_next;
    }
    st->live = s;
}

/* The thread's reference goes when nothing of the call will come any more. */
static void reap(struct tiered_stream *s)
{
    if (s->batches > 0) {
        return;
    }
    *s->live_prev = s->live_next;
    if (s->live_next) {
        s->live_next->live_prev = s->live_prev;
    }
    if (s->call) {
        grpc_call_unref(s->call);
    }
    if (s->channel) {
        channel_unref(s->channel);
    }
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->details);
    stream_unref(s);
}

static void finish_queued(struct tiered_stream *s)
{
    struct item *item;
    while ((item = items_pop(&s->sending))) {
        item_finish(item);
    }
}

/* The host hears of it now, whatever gRPC still has to do: a frozen peer may keep it
   from letting go. The batches under way end in stream_event() or, if gRPC never lets
   go, not at all: then the stream's memory stays, which gRPC may still touch. */
void stream_close(struct tiered_stream *s, enum tiered_stream_end end,
                  const struct tiered_error *err)
{
    static const struct tiered_error none;
    struct state *st = s->state;
    s->phase = PHASE_CLOSED;
    pthread_mutex_lock(&st->lock);
    s->closed = true;
    items_move(&s->sending, &s->queue);
    pthread_mutex_unlock(&st->lock);
    finish_queued(s);
    if (s->call && !s->call_ended) {
        grpc_call_cancel(s->call, NULL);
    }
    if (s->batches > 0) {
        due_at(st, &s->due_ms, LET_GO_MS);
    }
    if (s->handler) {
        s->handler->on_closed(s->user, end, err ? err : &none);
    }
    reap(s);
}

void stream_overdue(struct tiered_stream *s)
{
    struct state *st = s->state;
    char text[TARGET_SIZE + 128];
    s->due_ms = NEVER;
    snprintf(text, sizeof(text),
             "a stream %s has not ended within %d ms; its connection is given up",
             s->channel ? s->channel->target : "of a peer", LET_GO_MS);
    st->host->log(st->host, TIERED_LOG_WARN, text);
    if (s->channel) {
        channel_forget(s->channel);
    }
}

/* A call that takes no batch has failed already, and its end says why. */
static bool start(struct tiered_stream *s, const grpc_op *ops, size_t n,
                  struct tag *tag)
{
    bool started = grpc_call_start_batch(s->call, ops, n, tag, NULL) == GRPC_CALL_OK;
    s->batches += started;
    return started;
}

static void begin(struct tiered_stream *s)
{
    const grpc_op send = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    const grpc_op meta = {.op = GRPC_OP_RECV_INITIAL_METADATA,
                          .data.recv_initial_metadata = {&s->initial}};
    const grpc_op status = {
        .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
        .data.recv_status_on_client = {.trailing_metadata = &s->trailing,
                                       .status = &s->status,
                                       .status_details = &s->details}};
    const grpc_op closed = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                            .data.recv_close_on_server = {&s->peer_cancelled}};
    s->phase = PHASE_OPEN;
    start(s, s->accepted ? &closed : &status, 1, &s->on_end);
    s->send_busy = start(s, &send, 1, &s->on_send);
    if (!s->accepted) {
        start(s, &meta, 1, &s->on_meta);
    }
}

static void open_call(struct tiered_stream *s)
{
    static const char *const methods[] = {[TIERED_SESSION] = METHOD_SESSION,
                                          [TIERED_PUSH] = METHOD_PUSH,
                                          [TIERED_PULL] = METHOD_PULL};
    struct state *st = s->state;
    struct tiered_error err;
    s->channel = channel_for(st, s->target);
    if (!s->channel) {
        tiered_fail(&err, TIERED_ENOMEM, "out of memory");
        stream_close(s, TIERED_END_BROKEN, &err);
        return;
    }
    s->call = grpc_channel_create_call(s->channel->grpc, NULL, GRPC_PROPAGATE_DEFAULTS,
                                       st->cq,
                                       grpc_slice_from_static_string(methods[s->kind]),
                                       NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    begin(s);
    stream_receive(s);
}

/* Not a stream for the host: it ends by itself once the peer was told. */
static void refuse(struct tiered_stream *s, grpc_status_code code, const char *why)
{
    grpc_slice details = grpc_slice_from_static_string(why);
    const grpc_op answer[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
         .data.send_status_from_server = {.status = code, .status_details = &details}}};
    const grpc_op closed = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                            .data.recv_close_on_server = {&s->peer_cancelled}};
    s->phase = PHASE_CLOSED;
    start(s, &closed, 1, &s->on_end);
    start(s, answer, 2, &s->on_send);
    due_at(s->state, &s->due_ms, LET_GO_MS);
    pthread_mutex_lock(&s->state->lock);
    s->closed = true;
    pthread_mutex_unlock(&s->state->lock);
    finish_queued(s);
    reap(s);
    stream_release(s);
}

static struct tiered_stream *take_call(struct state *st, grpc_call *call,
                                       enum tiered_stream_kind kind)
{
    struct tiered_stream *s = stream_create(st, kind);
    if (!s) {
        grpc_call_cancel_with_status(call, GRPC_STATUS_RESOURCE_EXHAUSTED,
                                     "out of memory", NULL);
        grpc_call_unref(call);
        return NULL;
    }
    s->accepted = true;
    s->call = call;
    stream_live(s);
    return s;
}

void stream_refuse(struct state *st, grpc_call *call, grpc_status_code code,
                   const char *why)
{
    struct tiered_stream *s = take_call(st, call, TIERED_SESSION);
    if (s) {
        refuse(s, code, why);
    }
}

void stream_accept(struct state *st, struct listener *l, grpc_call *call,
                   enum tiered_stream_kind kind)
{
    struct tiered_stream *s = take_call(st, call, kind);
    const struct tiered_stream_handler *handler = NULL;
    if (!s) {
        return;
    }
    read_peer(call, s->peer);
    if (l->handler->on_accept(l->user, s, kind, &handler, &s->user) < 0) {
        refuse(s, GRPC_STATUS_PERMISSION_DENIED, "not accepted");
        return;
    }
    s->handler = handler;
    begin(s);
    stream_receive(s);
}

static void send_message(struct tiered_stream *s, grpc_byte_buffer *buffer)
{
    const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE,
                        .data.send_message.send_message = buffer};
    s->send_busy = start(s, &op, 1, &s->on_send);
    s->out_failed = !s->send_busy;
    grpc_byte_buffer_destroy(buffer); /* its slices are gRPC's now */
}

static void send_status(struct tiered_stream *s)
{
    const grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                        .data.send_status_from_server = {.status = GRPC_STATUS_OK}};
    s->status_sent = true;
    s->send_busy = start(s, &op, 1, &s->on_send);
    s->out_failed = !s->send_busy;
}

static void end_out(struct tiered_stream *s)
{
    const grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    s->out_ended = true;
    if (!s->accepted) {
        s->send_busy = start(s, &op, 1, &s->on_send);
        s->out_failed = !s->send_busy;
    } else if (!s->in_ended) {
        send_message(s, grpc_raw_byte_buffer_create(NULL, 0));
    }
}

/* gRPC takes one message of a stream at a time. */
static void pump(struct tiered_stream *s)
{
    struct item *item = NULL;
    if (s->send_busy) {
        return;
    }
    if (s->out_failed) {
        finish_queued(s);
        return;
    }
    if (!s->out_ended && (item = items_pop(&s->sending))) {
        if (item->ends) {
            item_finish(item);
            end_out(s);
        } else {
            send_message(s, item_buffer(item));
        }
    }
    if (s->accepted && s->out_ended && s->in_ended && !s->status_sent &&
        !s->send_busy) {
        send_status(s);
    }
}

static void learn_peer(struct tiered_stream *s)
{
    char peer[PEER_SIZE];
    if (s->accepted) {
        return;
    }
    read_peer(s->call, peer);
    pthread_mutex_lock(&s->state->lock);
    memcpy(s->peer, peer, sizeof(peer));
    pthread_mutex_unlock(&s->state->lock);
}

static void fill_reason(const struct tiered_stream *s, struct tiered_error *err)
{
    size_t n = GRPC_SLICE_LENGTH(s->details);
    bool ours = s->status == GRPC_STATUS_UNAVAILABLE;
    if (s->accepted) {
        tiered_fail(err, TIERED_EPEER, "the peer cancelled the stream or is gone");
    } else if (s->status == GRPC_STATUS_OK) {
        tiered_fail(err, TIERED_EPEER, "the peer ended the stream in the middle of it");
    } else {
        tiered_fail(err, ours ? TIERED_EIO : TIERED_EPEER, "'%s': %.*s (status %d)",
                    s->target + strlen(TARGET_SCHEME), n > 160 ? 160 : (int)n,
                    (const char *)GRPC_SLICE_START_PTR(s->details), (int)s->status);
    }
    for (char *c = err->text; *c; c++) { /* a peer's words may be anything */
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    }
}

static void call_ended(struct tiered_stream *s)
{
    struct tiered_error err;
    bool clean = s->accepted ? !s->peer_cancelled && s->status_sent
                             : s->status == GRPC_STATUS_OK && s->out_ended;
    if (!clean) {
        fill_reason(s, &err);
        stream_close(s, TIERED_END_BROKEN, &err);
    } else if (!s->receive_busy) { /* the last message has been handed over */
        stream_in_ended(s);
        stream_close(s, TIERED_END_CLEAN, NULL);
    }
}

static void event_of_open(struct tiered_stream *s, enum tag_kind kind, bool ok)
{
    struct tiered_error err;
    if (kind == TAG_META) {
        learn_peer(s);
    }
    if (kind == TAG_RECEIVE && stream_received(s, ok, &err) < 0) {
        stream_close(s, TIERED_END_BROKEN, &err);
    } else if (s->call_ended) {
        call_ended(s);
    } else {
        pump(s);
    }
}

void stream_event(struct tiered_stream *s, enum tag_kind kind, bool ok)
{
    s->batches--;
    s->send_busy = s->send_busy && kind != TAG_SEND;
    s->out_failed = s->out_failed || (kind == TAG_SEND && !ok);
    s->receive_busy = s->receive_busy && kind != TAG_RECEIVE;
    s->call_ended = s->call_ended || kind == TAG_END;
    if (s->phase == PHASE_OPEN) {
        event_of_open(s, kind, ok);
        return;
    }
    if (s->received && !s->receive_busy) {
        grpc_byte_buffer_destroy(s->received);
        s->received = NULL;
    }
    reap(s);
}

void stream_dirty(struct tiered_stream *s)
{
    struct state *st = s->state;
    pthread_mutex_lock(&st->lock);
    s->dirty = false;
    bool cancelled = s->cancelled;
    items_move(&s->sending, &s->queue);
    pthread_mutex_unlock(&st->lock);
    if (s->phase == PHASE_CLOSED) {
        return;
    }
    if (s->phase == PHASE_NEW) {
        stream_live(s);
    }
    if (cancelled) {
        stream_close(s, TIERED_END_CANCELLED, NULL);
        return;
    }
    if (s->phase == PHASE_NEW) {
        open_call(s);
    } else {
        pump(s);
        stream_receive(s);
    }
}
