/* SPDX-License-Identifier: Apache-2.0 */
/**
 * One loaded transport on an event loop: its streams as connections whose callbacks
 * all run on the loop's thread, in order.
 *
 *     tiered_net_create … (tiered_net_listen | tiered_net_open)* … tiered_net_destroy
 *
 * Life of a connection: it begins in tiered_net_open() or in on_accept, and lasts until
 * tiered_conn_close(), which its owner calls exactly once: to cut it off, or after
 * on_closed to free it. After tiered_conn_close() returns no callback of that
 * connection comes any more, but the done() of a message still queued always does:
 * the body is borrowed until then.
 *
 * Threads: every call on the loop's thread (or before the loop runs). All of them may
 * be made from inside a callback, except tiered_net_destroy().
 */
#ifndef TIERED_CORE_NET_H
#define TIERED_CORE_NET_H

#include "core/base/base.h"
#include "core/loop/loop.h"
#include "core/plugins/plugins.h"
#include "tiered/transport.h"

struct tiered_net;
struct tiered_conn;

/** What a connection's owner is told. Any member may be NULL. */
struct tiered_conn_handler {
    /** A message arrived. It is the owner's until message->release(message), from any
        thread; while TIERED_STREAM_WINDOW are held no more come. NULL: released at
        once. A message may be kept beyond tiered_conn_close(), not beyond
        tiered_net_destroy(). */
    void (*on_message)(void *user, struct tiered_message *message);
    /** The peer will send no more; this side still may. */
    void (*on_half_closed)(void *user);
    /** Last call: `err` says why when `end` is TIERED_END_BROKEN (code 0 otherwise).
        The connection is still to be closed, here or later. */
    void (*on_closed)(void *user, enum tiered_stream_end end,
                      const struct tiered_error *err);
};

/** A peer opened a stream. Call tiered_conn_set_handler() before returning, or
    tiered_conn_close() to turn it away. */
typedef void tiered_net_accept_fn(void *user, struct tiered_conn *conn,
                                  enum tiered_stream_kind kind);

/** `config` is the transport's filled options struct (NULL for a plugin without
    options); it, `credentials` (may be NULL) and `transport` outlive the net. */
int tiered_net_create(const struct tiered_loaded *transport, const void *config,
                      struct tiered_loop *loop,
                      const struct tiered_credentials *credentials,
                      struct tiered_net **ret, struct tiered_error *err);
/** Stops listening, cuts every connection off and waits for the transport's threads.
    Queued done() calls are made before it returns; no other callback is. Connections
    not closed are freed. */
void tiered_net_destroy(struct tiered_net *net);

int tiered_net_listen(struct tiered_net *net, const char *address,
                      tiered_net_accept_fn *on_accept, void *user,
                      struct tiered_error *err);
/** No on_accept of that address comes after it. Connections stay. */
int tiered_net_unlisten(struct tiered_net *net, const char *address,
                        struct tiered_error *err);

/** Returns at once; a failure to connect comes as on_closed(TIERED_END_BROKEN).
    `handler` is borrowed while the connection lives. */
int tiered_net_open(struct tiered_net *net, const char *address,
                    enum tiered_stream_kind kind,
                    const struct tiered_conn_handler *handler, void *user,
                    struct tiered_conn **ret, struct tiered_error *err);

/** Also to hand a connection over to another owner: what comes next goes there. */
void tiered_conn_set_handler(struct tiered_conn *conn,
                             const struct tiered_conn_handler *handler, void *user);
enum tiered_stream_kind tiered_conn_kind(const struct tiered_conn *conn);
/** The peer's proven identity; "" when it proved none. */
int tiered_conn_peer(struct tiered_conn *conn, char *out, size_t capacity,
                     struct tiered_error *err);

/** Queue a message: the head is copied, the body borrowed until done(), which runs on
    the loop's thread, never inside this call. done(), if any, comes exactly once when
    this returned 0. */
int tiered_conn_send(struct tiered_conn *conn, const struct tiered_outgoing *message,
                     struct tiered_error *err);
int tiered_conn_half_close(struct tiered_conn *conn, struct tiered_error *err);
/** Cut off if still open, and free. NULL does nothing. */
void tiered_conn_close(struct tiered_conn *conn);

TIERED_DEFINE_FREE(struct tiered_net, tiered_net_destroy)
TIERED_DEFINE_FREE(struct tiered_conn, tiered_conn_close)

#endif
