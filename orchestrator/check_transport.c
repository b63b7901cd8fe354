/* SPDX-License-Identifier: Apache-2.0 */
/* The essential part of what a transport must do, over loopback or a Unix socket: every
   kind of stream, messages up to the limit, half-close, cancel, nobody there. The whole
   is tests/unit/test_transport.c. */
#include "orchestrator/check_stream.h"

#include <string.h>
#include <unistd.h>

#define N_MESSAGES 200

static int echo_once(struct pair *p, enum tiered_stream_kind kind, uint8_t *buffer,
                     struct tiered_error *err)
{
    char who[128] = "?";
    if (pair_open(p, kind, err) < 0 || pair_send(p, buffer, 0, 100, err) < 0) {
        return -1;
    }
    check_step(p->check, "an echo on a stream of kind %d", (int)kind);
    if (!stream_wait(NULL, &p->client.n_messages, 1) ||
        !stream_wait(NULL, &p->client.n_done, 1)) {
        return stream_missed("a message does not come back", err);
    }
    if (p->kind != kind) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a stream of kind %d is accepted as one of kind %d",
                           (int)kind, (int)p->kind);
    }
    if (p->ops->peer(p->server.stream, who, sizeof(who), NULL) < 0 ||
        !memchr(who, 0, sizeof(who))) {
        return tiered_fail(err, TIERED_EINVAL, "peer does not name the peer");
    }
    if (p->ops->half_close(p->client.stream, NULL) < 0) {
        return tiered_fail(err, TIERED_EINVAL, "half_close of an open stream fails");
    }
    if (!stream_wait(&p->client.closed, NULL, 1) ||
        !stream_wait(&p->server.closed, NULL, 1)) {
        return stream_missed("a stream half-closed by both sides does not end", err);
    }
    if (end_check(&p->client, "the child's", TIERED_END_CLEAN, err) < 0 ||
        end_check(&p->server, "the parent's", TIERED_END_CLEAN, err) < 0) {
        return -1;
    }
    p->ops->release(p->client.stream);
    p->ops->release(p->server.stream);
    return 0;
}

static int echo(struct pair *p, struct tiered_error *err)
{
    uint8_t buffer[100];
    if (pair_listen(p, err) < 0) {
        return -1;
    }
    for (int kind = TIERED_SESSION; kind <= TIERED_PULL; kind++) {
        if (echo_once(p, (enum tiered_stream_kind)kind, buffer, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static int order(struct pair *p, struct tiered_error *err)
{
    static uint8_t buffer[N_MESSAGES][1500];
    size_t bytes = 0;
    if (pair_listen(p, err) < 0 || pair_open(p, TIERED_PUSH, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < N_MESSAGES; i++) {
        size_t size = 5 + (size_t)i * 7919 % 1490;
        bytes += size;
        if (pair_send(p, buffer[i], i, size, err) < 0) {
            return -1;
        }
    }
    check_step(p->check, "%d messages and their echoes", N_MESSAGES);
    if (!stream_wait(NULL, &p->client.n_messages, N_MESSAGES)) {
        return stream_missed("not all messages come back", err);
    }
    return p->client.n_wrong == 0 && p->client.n_bytes == bytes
               ? 0
               : tiered_fail(err, TIERED_ECORRUPT,
                             "messages come back changed or out of order");
}

static int limit(struct pair *p, struct tiered_error *err)
{
    static uint8_t buffer[TIERED_MESSAGE_MAX + 1];
    struct tiered_error why = {0};
    if (pair_listen(p, err) < 0 || pair_open(p, TIERED_PUSH, err) < 0 ||
        pair_send(p, buffer, 0, TIERED_MESSAGE_MAX, err) < 0) {
        return -1;
    }
    check_step(p->check, "an echo of %u bytes", TIERED_MESSAGE_MAX);
    if (!stream_wait(NULL, &p->client.n_messages, 1)) {
        return stream_missed("a message of TIERED_MESSAGE_MAX bytes does not come back",
                             err);
    }
    const struct tiered_outgoing large = {.body = buffer, .body_size = sizeof(buffer)};
    const struct tiered_outgoing empty = {.body = buffer};
    if (p->ops->send(p->client.stream, &large, &why) == 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "send takes more than TIERED_MESSAGE_MAX bytes");
    }
    if (check_refusal("send", &why, err) < 0) {
        return -1;
    }
    if (p->ops->send(p->client.stream, &empty, NULL) == 0) {
        return tiered_fail(err, TIERED_EINVAL, "send takes an empty message");
    }
    return p->client.n_wrong == 0
               ? 0
               : tiered_fail(err, TIERED_ECORRUPT, "a large message comes changed");
}

static int half_closed(struct pair *p, struct tiered_error *err)
{
    uint8_t buffer[64];
    struct tiered_error why = {0};
    p->echo = false;
    if (pair_listen(p, err) < 0 || pair_open(p, TIERED_PULL, err) < 0 ||
        pair_send(p, buffer, 0, sizeof(buffer), err) < 0) {
        return -1;
    }
    p->ops->half_close(p->client.stream, NULL);
    check_step(p->check, "half-close by the child");
    if (!stream_wait(NULL, &p->n_accepted, 1) ||
        !stream_wait(&p->server.half_closed, NULL, 1)) {
        return stream_missed("the parent does not hear of the child's half-close", err);
    }
    if (p->server.n_messages != 1) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a half-close overtakes the message before it");
    }
    const struct tiered_outgoing late = {.head = buffer, .head_size = 1};
    if (p->ops->send(p->client.stream, &late, &why) == 0) {
        return tiered_fail(err, TIERED_ESTATE, "send works after half_close");
    }
    stream_fill(buffer, 0, sizeof(buffer)); /* the other side still may */
    const struct tiered_outgoing answer = {.head = buffer, .head_size = sizeof(buffer)};
    if (p->ops->send(p->server.stream, &answer, &why) < 0) {
        return check_call_failed("send to a child that half-closed", &why, err);
    }
    p->ops->half_close(p->server.stream, NULL);
    if (!stream_wait(&p->client.closed, NULL, 1)) {
        return stream_missed("a stream half-closed by both sides does not end", err);
    }
    if (p->client.n_messages != 1) {
        return tiered_fail(err, TIERED_EINVAL,
                           "the answer to a half-closed child is lost");
    }
    return end_check(&p->client, "the child's", TIERED_END_CLEAN, err);
}

static int cancelled(struct pair *p, struct tiered_error *err)
{
    uint8_t buffer[64];
    if (pair_listen(p, err) < 0 || pair_open(p, TIERED_SESSION, err) < 0 ||
        pair_send(p, buffer, 0, sizeof(buffer), err) < 0) {
        return -1;
    }
    if (!stream_wait(NULL, &p->client.n_messages, 1)) {
        return stream_missed("a message does not come back", err);
    }
    check_step(p->check, "cancel by the child, twice");
    p->ops->cancel(p->client.stream);
    p->ops->cancel(p->client.stream);
    if (!stream_wait(&p->client.closed, NULL, 1) ||
        !stream_wait(&p->server.closed, NULL, 1)) {
        return stream_missed("a cancelled stream does not end", err);
    }
    return end_check(&p->client, "the child's", TIERED_END_CANCELLED, err) < 0
               ? -1
               : end_check(&p->server, "the parent's", TIERED_END_BROKEN, err);
}

/* A reader that keeps its messages is sent no more than the window. */
static int backpressure(struct pair *p, struct tiered_error *err)
{
    enum { N = 24 };
    static uint8_t buffer[N][1 << 18];
    p->holds = true;
    p->echo = false;
    if (pair_listen(p, err) < 0 || pair_open(p, TIERED_PUSH, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < N; i++) {
        if (pair_send(p, buffer[i], i, sizeof(buffer[i]), err) < 0) {
            return -1;
        }
    }
    check_step(p->check, "a reader that holds its messages");
    if (!stream_wait(NULL, &p->n_accepted, 1) ||
        !stream_wait(NULL, &p->server.n_messages, TIERED_STREAM_WINDOW)) {
        return stream_missed("a window of messages does not come", err);
    }
    usleep(100000); /* the time in which one too many would come */
    pthread_mutex_lock(&stream_lock);
    size_t n_held = p->server.n_held;
    p->server.holds = false;
    pthread_mutex_unlock(&stream_lock);
    for (size_t i = 0; i < n_held; i++) {
        p->server.held[i]->release(p->server.held[i]);
    }
    if (n_held > TIERED_STREAM_WINDOW) {
        return tiered_fail(err, TIERED_EINVAL,
                           "more than TIERED_STREAM_WINDOW messages come to a reader "
                           "that holds them");
    }
    return stream_wait(NULL, &p->server.n_messages, N) &&
                   stream_wait(NULL, &p->client.n_done, N)
               ? 0
               : stream_missed("not all messages come after the reader let go", err);
}

static int nobody(struct pair *p, struct tiered_error *err)
{
    check_step(p->check, "open where nobody listens");
    if (pair_open(p, TIERED_SESSION, err) < 0) {
        return -1;
    }
    if (!stream_wait(&p->client.closed, NULL, 1)) {
        return stream_missed("a stream to nobody does not end", err);
    }
    if (end_check(&p->client, "the child's", TIERED_END_BROKEN, err) < 0) {
        return -1;
    }
    p->refuses = true;
    if (pair_listen(p, err) < 0 || pair_open(p, TIERED_SESSION, err) < 0) {
        return -1;
    }
    check_step(p->check, "a parent that refuses the stream");
    if (!stream_wait(&p->client.closed, NULL, 1)) {
        return stream_missed("a refused stream does not end", err);
    }
    return end_check(&p->client, "the child's", TIERED_END_BROKEN, err);
}

static int addresses(struct pair *p, struct tiered_error *err)
{
    struct tiered_error why = {0};
    if (pair_listen(p, err) < 0) {
        return -1;
    }
    check_step(p->check, "listen where somebody listens");
    if (p->ops->listen(p->client_state, p->address, &stream_listener, p, &why) == 0) {
        return tiered_fail(err, TIERED_EINVAL, "two may listen on one address");
    }
    if (check_refusal("listen", &why, err) < 0) {
        return -1;
    }
    why = (struct tiered_error){0};
    check_step(p->check, "listen on nonsense");
    if (p->ops->listen(p->client_state, "\001nonsense", &stream_listener, p, &why) ==
        0) {
        return tiered_fail(err, TIERED_EINVAL, "an address of nonsense is taken");
    }
    if (check_refusal("listen", &why, err) < 0) {
        return -1;
    }
    check_step(p->check, "unlisten, and listen again");
    return p->ops->unlisten(p->server_state, p->address, &why) < 0
               ? check_call_failed("unlisten", &why, err)
               : pair_listen(p, err);
}

/* destroy() is the end of everything that is still open. */
static int destroyed(struct pair *p, struct tiered_error *err)
{
    uint8_t buffer[64];
    if (pair_listen(p, err) < 0 || pair_open(p, TIERED_SESSION, err) < 0 ||
        pair_send(p, buffer, 0, sizeof(buffer), err) < 0) {
        return -1;
    }
    if (!stream_wait(NULL, &p->client.n_messages, 1)) {
        return stream_missed("a message does not come back", err);
    }
    check_step(p->check, "destroy with an open stream");
    p->ops->destroy(p->client_state);
    p->client_state = NULL;
    if (end_check(&p->client, "the child's", TIERED_END_CANCELLED, err) < 0) {
        return -1;
    }
    return stream_wait(&p->server.closed, NULL, 1)
               ? end_check(&p->server, "the parent's", TIERED_END_BROKEN, err)
               : stream_missed("the parent does not hear that the child is gone", err);
}

#define WITH_PAIR(name)                                                                \
    static int name##_case(struct check *check, struct tiered_error *err)              \
    {                                                                                  \
        return with_pair(check, name, err);                                            \
    }
WITH_PAIR(echo)
WITH_PAIR(order)
WITH_PAIR(limit)
WITH_PAIR(half_closed)
WITH_PAIR(cancelled)
WITH_PAIR(backpressure)
WITH_PAIR(nobody)
WITH_PAIR(addresses)
WITH_PAIR(destroyed)

static const struct check_case cases[] = {
    {"echo", echo_case},
    {"order of messages", order_case},
    {"largest message", limit_case},
    {"half-close", half_closed_case},
    {"cancel", cancelled_case},
    {"backpressure", backpressure_case},
    {"nobody there", nobody_case},
    {"addresses", addresses_case},
    {"destroy while open", destroyed_case},
};

const struct check_kind check_transport = {
    .open = transport_open,
    .close = transport_close,
    .cases = cases,
    .n_cases = TIERED_COUNT(cases),
};
