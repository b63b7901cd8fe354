/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of a stream, and what they record. */
#include "orchestrator/check_stream.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

pthread_mutex_t stream_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

bool stream_wait(const unsigned *a, const size_t *b, size_t at_least)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STREAM_WAIT_SECONDS;
    pthread_mutex_lock(&stream_lock);
    int rc = 0;
    while ((a ? *a : *b) < at_least && rc == 0) {
        rc = pthread_cond_timedwait(&changed, &stream_lock, &until);
    }
    bool held = (a ? *a : *b) >= at_least;
    pthread_mutex_unlock(&stream_lock);
    return held;
}

static void on_done(void *opaque)
{
    struct end *e = opaque;
    pthread_mutex_lock(&stream_lock);
    e->n_done++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&stream_lock);
}

static void release_message(void *opaque)
{
    struct tiered_message *message = opaque;
    message->release(message);
}

/* Message i is 4 bytes of i and then bytes that follow from it. */
void stream_fill(uint8_t *out, uint32_t i, size_t size)
{
    for (size_t k = 0; k < size; k++) {
        out[k] = k < 4 ? (uint8_t)(i >> (8 * k)) : (uint8_t)(i * 31 + k);
    }
}

static bool is_message(const uint8_t *data, uint32_t i, size_t size)
{
    for (size_t k = 0; k < size; k++) {
        if (data[k] != (k < 4 ? (uint8_t)(i >> (8 * k)) : (uint8_t)(i * 31 + k))) {
            return false;
        }
    }
    return true;
}

static void on_message(void *user, struct tiered_message *message)
{
    struct end *e = user;
    bool right = is_message(message->data, (uint32_t)e->n_messages, message->size);
    pthread_mutex_lock(&stream_lock);
    e->after_end = e->after_end || e->closed;
    e->n_wrong += !right;
    e->n_messages++;
    e->n_bytes += message->size;
    bool echo = e->echo, keep = e->holds && e->n_held < TIERED_COUNT(e->held);
    if (keep) {
        e->held[e->n_held++] = message;
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&stream_lock);
    const struct tiered_outgoing back = {.body = message->data,
                                         .body_size = message->size,
                                         .done = release_message,
                                         .opaque = message};
    if (!keep && !(echo && e->ops->send(e->stream, &back, NULL) == 0)) {
        message->release(message);
    }
}

static void on_half_closed(void *user)
{
    struct end *e = user;
    pthread_mutex_lock(&stream_lock);
    e->half_closed++;
    bool echo = e->echo;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&stream_lock);
    if (echo) {
        e->ops->half_close(e->stream, NULL);
    }
}

static void on_closed(void *user, enum tiered_stream_end how,
                      const struct tiered_error *why)
{
    struct end *e = user;
    pthread_mutex_lock(&stream_lock);
    e->how = how;
    e->why = why ? *why : (struct tiered_error){0};
    e->closed++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&stream_lock);
}

static const struct tiered_stream_handler handler = {sizeof(handler), on_message,
                                                     on_half_closed, on_closed};

static int on_accept(void *user, struct tiered_stream *stream,
                     enum tiered_stream_kind kind,
                     const struct tiered_stream_handler **ret_handler, void **ret_user)
{
    struct pair *p = user;
    pthread_mutex_lock(&stream_lock);
    bool take = !p->refuses && p->n_accepted == 0;
    if (take) {
        p->server = (struct end){
            .ops = p->ops, .stream = stream, .echo = p->echo, .holds = p->holds};
        p->kind = kind;
        p->n_accepted++;
        *ret_handler = &handler;
        *ret_user = &p->server;
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&stream_lock);
    return take ? 0 : -1;
}

const struct tiered_listen_handler stream_listener = {sizeof(stream_listener),
                                                      on_accept};

/* ---- life ---- */

int transport_open(struct check *check, const void *config, void **ret_state,
                   struct tiered_error *err)
{
    static const struct tiered_credentials plain = {.size = sizeof(plain),
                                                    .insecure = 1};
    const struct tiered_transport_ops *ops = check->loaded.plugin.ops;
    return ops->init(&check->hosting.host, config, &plain, ret_state, err);
}

void transport_close(struct check *check, void *state)
{
    const struct tiered_transport_ops *ops = check->loaded.plugin.ops;
    ops->destroy(state);
}

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = -1;
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &size) == 0) {
        port = ntohs(address.sin_port);
    }
    close(fd);
    return port;
}

static int make_address(struct pair *p, struct tiered_error *err)
{
    if (p->check->loaded.plugin.traits & TIERED_LOCAL_ONLY) {
        strcpy(p->folder, "/tmp/tiered-check-XXXXXX");
        if (!mkdtemp(p->folder)) {
            return tiered_fail(err, TIERED_EIO, "the kit cannot make a folder in /tmp");
        }
        snprintf(p->address, sizeof(p->address), "%s:%s/s",
                 p->check->loaded.plugin.name, p->folder);
        return 0;
    }
    int port = free_port();
    snprintf(p->address, sizeof(p->address), "127.0.0.1:%d", port);
    return port > 0 ? 0 : tiered_fail(err, TIERED_EIO, "the kit finds no free port");
}

int pair_listen(struct pair *p, struct tiered_error *err)
{
    struct tiered_error why = {0};
    check_step(p->check, "listen on %s", p->address);
    return p->ops->listen(p->server_state, p->address, &stream_listener, p, &why) < 0
               ? check_call_failed("listen", &why, err)
               : 0;
}

int pair_open(struct pair *p, enum tiered_stream_kind kind, struct tiered_error *err)
{
    struct tiered_error why = {0};
    p->n_accepted = 0;
    p->client = (struct end){.ops = p->ops};
    check_step(p->check, "open of a stream to %s", p->address);
    return p->ops->open(p->client_state, p->address, kind, &handler, &p->client,
                        &p->client.stream, &why) < 0
               ? check_call_failed("open", &why, err)
               : 0;
}

int pair_send(struct pair *p, uint8_t *buffer, uint32_t i, size_t size,
              struct tiered_error *err)
{
    struct tiered_error why = {0};
    size_t head = size / 3;
    stream_fill(buffer, i, size);
    const struct tiered_outgoing message = {buffer,      head,    buffer + head,
                                            size - head, on_done, &p->client};
    return p->ops->send(p->client.stream, &message, &why) < 0
               ? check_call_failed("send", &why, err)
               : 0;
}

int stream_missed(const char *what, struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ETIMEDOUT, "%s within %d seconds", what,
                       STREAM_WAIT_SECONDS);
}

int end_check(const struct end *e, const char *whose, enum tiered_stream_end how,
              struct tiered_error *err)
{
    static const char *const names[] = {"CLEAN", "BROKEN", "CANCELLED"};
    if (e->closed != 1 || e->after_end) {
        return tiered_fail(err, TIERED_EINVAL,
                           "%s on_closed comes %u times, or not last", whose,
                           e->closed);
    }
    if (e->how != how) {
        return tiered_fail(err, TIERED_EINVAL, "%s stream ends %s, not %s: %.120s",
                           whose, (unsigned)e->how < 3 ? names[e->how] : "unknown",
                           names[how], e->why.text);
    }
    if (how == TIERED_END_BROKEN && !e->why.text[0]) {
        return tiered_fail(err, TIERED_EINVAL, "%s stream breaks without saying why",
                           whose);
    }
    return e->n_wrong == 0
               ? 0
               : tiered_fail(err, TIERED_ECORRUPT,
                             "%s messages come changed or out of order", whose);
}

static void pair_finish(struct pair *p)
{
    check_step(p->check, "destroy");
    if (p->client_state) {
        p->ops->destroy(p->client_state);
    }
    if (p->server_state) {
        p->ops->destroy(p->server_state);
    }
}

static void remove_folder(const struct pair *p)
{
    if (p->folder[0]) {
        char path[96];
        snprintf(path, sizeof(path), "%s/s", p->folder);
        unlink(path);
        rmdir(p->folder);
    }
}

int with_pair(struct check *check, int (*body)(struct pair *, struct tiered_error *),
              struct tiered_error *err)
{
    static struct pair p; /* handlers may refer to it until the end */
    p = (struct pair){.check = check, .ops = check->loaded.plugin.ops, .echo = true};
    if (check->loaded.plugin.traits & TIERED_BROKERED) {
        return check_skip(check, "goes through a broker, which the kit has none of");
    }
    if (make_address(&p, err) < 0) {
        return -1;
    }
    int result = check_open(check, &p.server_state, err) < 0 ||
                         check_open(check, &p.client_state, err) < 0
                     ? -1
                     : body(&p, err);
    if (result == 0) { /* a transport that failed may also hang: the process ends it */
        pair_finish(&p);
    }
    remove_folder(&p);
    return result;
}
