/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Two states of one transport and a stream between them, for the checks of transports.
 * The handlers record what they are told; one mutex guards the records, and no op is
 * called with it held.
 */
#ifndef TIERED_ORCHESTRATOR_CHECK_STREAM_H
#define TIERED_ORCHESTRATOR_CHECK_STREAM_H

#include <pthread.h>

#include "orchestrator/check.h"
#include "tiered/transport.h"

#define STREAM_WAIT_SECONDS 10

/* One end of one stream. */
struct end {
    const struct tiered_transport_ops *ops;
    struct tiered_stream *stream;
    bool echo;  /* sends back what it gets, and half-closes after its peer */
    bool holds; /* keeps what it gets */
    struct tiered_message *held[TIERED_STREAM_WINDOW + 1];
    size_t n_held;
    size_t n_messages, n_bytes, n_done, n_wrong;
    unsigned half_closed, closed;
    bool after_end; /* something came after on_closed */
    enum tiered_stream_end how;
    struct tiered_error why;
};

/* Two states of the transport, a listener, and the ends of one stream. */
struct pair {
    struct check *check;
    const struct tiered_transport_ops *ops;
    void *server_state, *client_state;
    char address[160], folder[64];
    bool refuses, echo, holds;
    struct end server, client;
    size_t n_accepted;
    enum tiered_stream_kind kind;
};

extern pthread_mutex_t stream_lock;
extern const struct tiered_listen_handler stream_listener; /* its user is a pair */

int transport_open(struct check *check, const void *config, void **ret_state,
                   struct tiered_error *err);
void transport_close(struct check *check, void *state);

/** Wait, with a bound, until a record (the one that is not NULL) is at least so much.
 */
bool stream_wait(const unsigned *a, const size_t *b, size_t at_least);
/** "what within 10 seconds". Always -1. */
int stream_missed(const char *what, struct tiered_error *err);
/** Message i: its bytes follow from i. */
void stream_fill(uint8_t *out, uint32_t i, size_t size);

/** Run the body on a pair with a fresh address; skipped for brokers. */
int with_pair(struct check *check, int (*body)(struct pair *, struct tiered_error *),
              struct tiered_error *err);
int pair_listen(struct pair *p, struct tiered_error *err);
/** The client opens a stream; the record of both ends starts anew. */
int pair_open(struct pair *p, enum tiered_stream_kind kind, struct tiered_error *err);
/** The client sends message i; the buffer is borrowed. */
int pair_send(struct pair *p, uint8_t *buffer, uint32_t i, size_t size,
              struct tiered_error *err);
/** It ended once, last, in this way, and all that came was right. */
int end_check(const struct end *e, const char *whose, enum tiered_stream_end how,
              struct tiered_error *err);

#endif
