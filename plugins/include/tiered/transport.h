/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Transports: streams of messages between two nodes. A message is opaque bytes, at most
 * TIERED_MESSAGE_MAX; the host makes and reads them (core/wire/tiered.proto). The child
 * dials. A stream is a session (orders, small, long-lived), a push (child to parent) or
 * a pull (parent to child).
 *
 * Threads. The transport has threads of its own and calls the handler from them; the
 * host's handler only posts to its event loop. Every op may be called from any thread,
 * also from inside a handler call, and never blocks on the network. For one stream,
 * handler calls never overlap and come in order; on_closed is the last.
 *
 * Backpressure. Receiving: a message handed to on_message belongs to the host until it
 * calls message->release; while TIERED_STREAM_WINDOW messages of a stream are held the
 * transport reads no more from that stream (and holds back nobody else). Sending:
 * send() queues and calls done() when the bytes have left the host's buffers, or when
 * the stream ended; the host keeps few messages queued. done() says nothing about
 * delivery: only the peer's answer does.
 *
 * Life of a stream: open() or on_accept … on_closed, then the host calls release() once
 * and the stream is gone. cancel() makes on_closed come soon, exactly once.
 */
#ifndef TIERED_TRANSPORT_H
#define TIERED_TRANSPORT_H

#include "plugin.h"

#define TIERED_MESSAGE_MAX   ((1u << 20) + (1u << 16)) /* a block and its header */
#define TIERED_STREAM_WINDOW 4

enum tiered_stream_kind {
    TIERED_SESSION = 1,
    TIERED_PUSH = 2,
    TIERED_PULL = 3,
};

enum tiered_stream_end {
    TIERED_END_CLEAN = 0,     /* both sides half-closed */
    TIERED_END_BROKEN = 1,    /* the peer died, vanished or sent nonsense */
    TIERED_END_CANCELLED = 2, /* cancel() here */
};

struct tiered_stream; /* the transport's own */

/** A received message. The host owns it until it calls release(message). */
struct tiered_message {
    const uint8_t *data;
    size_t size;
    void (*release)(struct tiered_message *message);
};

struct tiered_stream_handler {
    size_t size;
    void (*on_message)(void *user, struct tiered_message *message);
    /** The peer will send no more; this side still may. */
    void (*on_half_closed)(void *user);
    /** Last call. `err` says why for TIERED_END_BROKEN. */
    void (*on_closed)(void *user, enum tiered_stream_end end,
                      const struct tiered_error *err);
};

struct tiered_listen_handler {
    size_t size;
    /** A peer opened a stream. Set *ret_handler (borrowed while the stream lives) and
     *ret_user, or return -1 to refuse it. */
    int (*on_accept)(void *user, struct tiered_stream *stream,
                     enum tiered_stream_kind kind,
                     const struct tiered_stream_handler **ret_handler, void **ret_user);
};

/** Who we are and whom we trust. NULL members: none. */
struct tiered_credentials {
    size_t size;
    const char *certificate_pem, *key_pem, *ca_pem;
    uint32_t insecure; /* 1: plaintext on a network was asked for in the topology */
};

/** Bytes to send: a head that the transport copies, and a body that it borrows. */
struct tiered_outgoing {
    const void *head;
    size_t head_size;
    const void *body; /* NULL: none; untouched until done() */
    size_t body_size;
    void (*done)(void *opaque); /* NULL allowed; called exactly once if send() was 0 */
    void *opaque;
};

struct tiered_transport_ops {
    size_t size;

    int (*init)(const struct tiered_host *host, const void *config,
                const struct tiered_credentials *credentials, void **ret_state,
                struct tiered_error *err);
    /** Stops listening, cancels every stream and waits until its threads are gone.
       Every stream has had on_closed when it returns; streams not released are freed.
     */
    void (*destroy)(void *state);

    /** Addresses are the transport's own ("unix:/run/x.sock", "host:7400"). One
       listener per call; it lasts until destroy() or unlisten(). */
    int (*listen)(void *state, const char *address,
                  const struct tiered_listen_handler *handler, void *user,
                  struct tiered_error *err);
    int (*unlisten)(void *state, const char *address, struct tiered_error *err);
    /** Returns at once; a failure to connect arrives as on_closed(BROKEN). */
    int (*open)(void *state, const char *address, enum tiered_stream_kind kind,
                const struct tiered_stream_handler *handler, void *user,
                struct tiered_stream **ret_stream, struct tiered_error *err);
    int (*send)(struct tiered_stream *stream, const struct tiered_outgoing *message,
                struct tiered_error *err);
    int (*half_close)(struct tiered_stream *stream, struct tiered_error *err);
    void (*cancel)(struct tiered_stream *stream);
    void (*release)(struct tiered_stream *stream);
    /** The peer's proven identity ("tiered://plant/agent-1"), "" when it proved none.
     */
    int (*peer)(struct tiered_stream *stream, char *out, size_t capacity,
                struct tiered_error *err);
};

#endif
