/* SPDX-License-Identifier: Apache-2.0 */
/* What comes in on a stream: messages, made contiguous, as many as the window lets
   through, then the peer's half-close. */
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>

#include "inside.h"

static void release_message(struct tiered_message *m)
{
    struct message *message = (struct message *)m;
    struct tiered_stream *s = message->stream;
    struct state *st = s->state;
    pthread_mutex_lock(&st->lock);
    s->held--;
    bool wake = s->held == TIERED_STREAM_WINDOW - 1 && stream_mark(s);
    pthread_mutex_unlock(&st->lock);
    if (wake) {
        state_wake(st);
    }
    free(message);
    stream_unref(s);
}

static void copy_out(grpc_byte_buffer *buffer, uint8_t *out)
{
    grpc_byte_buffer_reader reader;
    grpc_slice *slice;
    grpc_byte_buffer_reader_init(&reader, buffer);
    while (grpc_byte_buffer_reader_peek(&reader, &slice)) {
        memcpy(out, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
        out += GRPC_SLICE_LENGTH(*slice);
    }
    grpc_byte_buffer_reader_destroy(&reader);
}

static struct message *make_message(struct tiered_stream *s, size_t size,
                                    struct tiered_error *err)
{
    /* gRPC has bounded it; a peer's compressed bytes are not expanded */
    if (s->received->data.raw.compression != GRPC_COMPRESS_NONE) {
        tiered_fail(err, TIERED_EPEER, "the peer sent a compressed message");
        return NULL;
    }
    if (s->in_ended) {
        tiered_fail(err, TIERED_EPEER, "the peer sent more after its end");
        return NULL;
    }
    struct message *message = malloc(sizeof(*message) + size);
    if (!message) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    message->stream = s;
    message->m = (struct tiered_message){message->bytes, size, release_message};
    copy_out(s->received, message->bytes);
    return message;
}

static void deliver(struct tiered_stream *s, struct message *message)
{
    pthread_mutex_lock(&s->state->lock);
    bool cancelled = s->cancelled;
    s->held += !cancelled;
    pthread_mutex_unlock(&s->state->lock);
    if (cancelled) {
        free(message);
        return;
    }
    atomic_fetch_add(&s->refs, 1);
    s->handler->on_message(s->user, &message->m);
}

/* A batch of its own: joined to another it let a frozen peer block the whole call. */
void stream_receive(struct tiered_stream *s)
{
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
                        .data.recv_message.recv_message = &s->received};
    pthread_mutex_lock(&s->state->lock);
    bool full = s->held >= TIERED_STREAM_WINDOW;
    pthread_mutex_unlock(&s->state->lock);
    if (full || s->receive_busy || s->in_closed) {
        return;
    }
    s->receive_busy =
        grpc_call_start_batch(s->call, &op, 1, &s->on_receive, NULL) == GRPC_CALL_OK;
    s->batches += s->receive_busy;
}

void stream_in_ended(struct tiered_stream *s)
{
    if (!s->in_ended) {
        s->in_ended = true;
        s->handler->on_half_closed(s->user);
    }
}

/* The peer's half-close and its death look alike but for what gRPC says when asked. Of
   one who opened the stream only the status of the call tells. */
static void messages_ended(struct tiered_stream *s, bool ok)
{
    s->in_closed = true;
    if (s->accepted && ok && !grpc_call_failed_before_recv_message(s->call)) {
        stream_in_ended(s);
    }
}

int stream_received(struct tiered_stream *s, bool ok, struct tiered_error *err)
{
    if (!s->received) {
        messages_ended(s, ok);
        return 0;
    }
    size_t size = grpc_byte_buffer_length(s->received);
    struct message *message = NULL;
    if (size == 0) {
        stream_in_ended(s); /* the peer's mark */
    } else {
        message = make_message(s, size, err);
    }
    grpc_byte_buffer_destroy(s->received);
    s->received = NULL;
    if (size > 0 && !message) {
        return -1;
    }
    if (message) {
        deliver(s, message);
    }
    stream_receive(s);
    return 0;
}
