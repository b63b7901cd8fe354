/* SPDX-License-Identifier: Apache-2.0 */
/* What the transports' tests share: ends of streams that record what they are told, and
   waits on what is recorded. One mutex guards every record; no transport is called with
   it held. */
#ifndef TIERED_TEST_TRANSPORT_KIT_H
#define TIERED_TEST_TRANSPORT_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/base/base.h"
#include "core/options/options.h"
#include "tiered/transport.h"

#define KIT_WAIT_SECONDS 60
#define KIT_MAX_ENDS     2100
#define KIT_MAX_HELD     16

static pthread_mutex_t kit_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t kit_changed = PTHREAD_COND_INITIALIZER;

/** Wait, with a bound, until `expression` of recorded values holds. */
#define WAIT_FOR(expression)                                                           \
    do {                                                                               \
        struct timespec until_;                                                        \
        clock_gettime(CLOCK_REALTIME, &until_);                                        \
        until_.tv_sec += KIT_WAIT_SECONDS;                                             \
        pthread_mutex_lock(&kit_lock);                                                 \
        while (!(expression) &&                                                        \
               pthread_cond_timedwait(&kit_changed, &kit_lock, &until_) == 0) {        \
        }                                                                              \
        bool held_ = (expression);                                                     \
        pthread_mutex_unlock(&kit_lock);                                               \
        if (!held_) {                                                                  \
            fail_msg("waited in vain for " #expression);                               \
        }                                                                              \
    } while (0)

/** A recorded value as of now. */
#define READ(expression)                                                               \
    ({                                                                                 \
        pthread_mutex_lock(&kit_lock);                                                 \
        __auto_type read_ = (expression);                                              \
        pthread_mutex_unlock(&kit_lock);                                               \
        read_;                                                                         \
    })

enum kit_mode {
    KIT_DROP,   /* release at once */
    KIT_KEEP,   /* hold until kit_let_go() */
    KIT_ECHO,   /* send it back, zero copy */
    KIT_ANSWER, /* at the peer's half-close: three messages, then half-close */
    KIT_CANCEL, /* cancel at the first message */
    KIT_REFUSE, /* servers: on_accept is -1 */
};

struct kit_end {
    const struct tiered_transport_ops *ops;
    struct tiered_stream *stream;
    enum tiered_stream_kind kind;
    enum kit_mode mode;
    bool release_when_closed;
    atomic_int busy; /* handler calls must not overlap */

    size_t n_messages, n_wrong, n_held;
    uint64_t n_bytes;
    struct tiered_message *held[KIT_MAX_HELD];
    unsigned half_closed, closed, broken_rules;
    enum tiered_stream_end end;
    struct tiered_error err;
    size_t sent, done;
};

struct kit_server {
    const struct tiered_transport_ops *ops;
    enum kit_mode mode;
    size_t n_ends;
    struct kit_end *ends[KIT_MAX_ENDS];
};

/* Test messages: their index, then bytes that follow from it. */
static inline size_t kit_fill(uint8_t *out, uint64_t index, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        out[i] = i < 8 ? (uint8_t)(index >> (8 * i)) : (uint8_t)(index * 31 + i);
    }
    return size;
}

static inline bool kit_is(const uint8_t *data, size_t size, uint64_t index)
{
    for (size_t i = 0; i<size; i += size> 65536 && i > 64 ? 4093 : 1) {
        if (data[i] !=
            (i < 8 ? (uint8_t)(index >> (8 * i)) : (uint8_t)(index * 31 + i))) {
            return false;
        }
    }
    return true;
}

static inline void kit_enter(struct kit_end *e)
{
    bool overlaps = atomic_exchange(&e->busy, 1) != 0;
    pthread_mutex_lock(&kit_lock);
    e->broken_rules += overlaps + (e->closed > 0);
}

static inline void kit_leave(struct kit_end *e)
{
    pthread_cond_broadcast(&kit_changed);
    atomic_store(&e->busy, 0);
    pthread_mutex_unlock(&kit_lock);
}

static inline void kit_done(void *opaque)
{
    struct kit_end *e = opaque;
    pthread_mutex_lock(&kit_lock);
    e->done++;
    pthread_cond_broadcast(&kit_changed);
    pthread_mutex_unlock(&kit_lock);
}

static inline void kit_echoed(void *opaque)
{
    struct tiered_message *m = opaque;
    m->release(m);
}

static inline int kit_send(struct kit_end *e, const void *head, size_t head_size,
                           const void *body, size_t body_size, struct tiered_error *err)
{
    const struct tiered_outgoing message = {head,      head_size, body,
                                            body_size, kit_done,  e};
    int rc = e->ops->send(e->stream, &message, err);
    pthread_mutex_lock(&kit_lock);
    e->sent += rc == 0;
    pthread_mutex_unlock(&kit_lock);
    return rc;
}

static inline void kit_react(struct kit_end *e, struct tiered_message *m)
{
    const struct tiered_outgoing back = {
        .body = m->data, .body_size = m->size, .done = kit_echoed, .opaque = m};
    if (e->mode == KIT_CANCEL) {
        e->ops->cancel(e->stream);
    }
    if (e->mode == KIT_KEEP ||
        (e->mode == KIT_ECHO && e->ops->send(e->stream, &back, NULL) == 0)) {
        return;
    }
    m->release(m);
}

static inline void kit_on_message(void *user, struct tiered_message *m)
{
    struct kit_end *e = user;
    kit_enter(e);
    e->n_wrong += !kit_is(m->data, m->size, e->n_messages);
    e->n_messages++;
    e->n_bytes += m->size;
    enum kit_mode mode = e->mode;
    if (mode == KIT_KEEP) {
        e->broken_rules += e->n_held >= TIERED_STREAM_WINDOW;
        if (e->n_held < KIT_MAX_HELD) {
            e->held[e->n_held++] = m;
        }
    }
    kit_leave(e);
    if (mode != KIT_KEEP) {
        kit_react(e, m);
    }
}

static inline void kit_on_half_closed(void *user)
{
    struct kit_end *e = user;
    kit_enter(e);
    e->half_closed++;
    kit_leave(e);
    if (e->mode == KIT_ANSWER) {
        for (uint64_t i = 0; i < 3; i++) {
            uint8_t answer[16];
            kit_send(e, answer, kit_fill(answer, i, sizeof(answer)), NULL, 0, NULL);
        }
    }
    if (e->mode == KIT_ANSWER || e->mode == KIT_ECHO) {
        e->ops->half_close(e->stream, NULL);
    }
}

static inline void kit_on_closed(void *user, enum tiered_stream_end end,
                                 const struct tiered_error *err)
{
    struct kit_end *e = user;
    kit_enter(e);
    e->end = end;
    e->err = *err;
    bool release = e->release_when_closed;
    struct tiered_stream *stream = e->stream;
    e->stream = release ? NULL : e->stream;
    e->closed++;
    kit_leave(e);
    if (release) {
        e->ops->release(stream);
    }
}

static const struct tiered_stream_handler kit_handler = {
    sizeof(struct tiered_stream_handler), kit_on_message, kit_on_half_closed,
    kit_on_closed};

static inline int kit_on_accept(void *user, struct tiered_stream *stream,
                                enum tiered_stream_kind kind,
                                const struct tiered_stream_handler **ret_handler,
                                void **ret_user)
{
    struct kit_server *server = user;
    struct kit_end *e = calloc(1, sizeof(*e));
    pthread_mutex_lock(&kit_lock);
    bool refuse = !e || server->mode == KIT_REFUSE || server->n_ends == KIT_MAX_ENDS;
    if (!refuse) {
        e->ops = server->ops;
        e->stream = stream;
        e->kind = kind;
        e->mode = server->mode;
        server->ends[server->n_ends++] = e;
        *ret_handler = &kit_handler;
        *ret_user = e;
    }
    pthread_cond_broadcast(&kit_changed);
    pthread_mutex_unlock(&kit_lock);
    if (refuse) {
        free(e);
        return -1;
    }
    return 0;
}

static const struct tiered_listen_handler kit_listener = {
    sizeof(struct tiered_listen_handler), kit_on_accept};

/** Release the oldest held message; false when none is. */
static inline bool kit_let_go(struct kit_end *e)
{
    struct tiered_message *m = NULL;
    pthread_mutex_lock(&kit_lock);
    if (e->n_held > 0) {
        m = e->held[0];
        memmove(e->held, e->held + 1, --e->n_held * sizeof(e->held[0]));
    }
    pthread_mutex_unlock(&kit_lock);
    if (m) {
        m->release(m);
    }
    return m != NULL;
}

static inline void kit_set_mode(struct kit_end *e, enum kit_mode mode)
{
    pthread_mutex_lock(&kit_lock);
    e->mode = mode;
    pthread_mutex_unlock(&kit_lock);
    while (kit_let_go(e)) {
    }
}

/* The host that the transport sees. */
static char kit_log_text[256];
static unsigned kit_log_count;

static inline void kit_host_log(const struct tiered_host *host, enum tiered_level level,
                                const char *text)
{
    (void)host;
    (void)level;
    pthread_mutex_lock(&kit_lock);
    snprintf(kit_log_text, sizeof(kit_log_text), "%s", text);
    kit_log_count++;
    pthread_cond_broadcast(&kit_changed);
    pthread_mutex_unlock(&kit_lock);
}

static inline int kit_host_secret(const struct tiered_host *host, void *out, size_t n,
                                  struct tiered_error *err)
{
    (void)host;
    return tiered_secret(out, n, err);
}

static const struct tiered_host kit_host = {.size = sizeof(struct tiered_host),
                                            .node = "",
                                            .path = "",
                                            .log = kit_host_log,
                                            .secret = kit_host_secret};

/* Of the plugin in use: its defaults, or what a test has put there. */
static struct tiered_config kit_config;
static struct tiered_credentials kit_credentials = {.size = sizeof(kit_credentials),
                                                    .insecure = 1};

static inline void kit_configure(const struct tiered_plugin *plugin, const char *json)
{
    struct tiered_error err;
    tiered_config_finish(&kit_config);
    if (tiered_config_from_json(plugin, json, &kit_config, &err) < 0) {
        fprintf(stderr, "%s: %s\n", plugin->name, err.text);
        exit(1);
    }
}

static inline const struct tiered_plugin *kit_plugin(const char *name)
{
    char path[512];
    const char *folder = getenv("TIERED_PLUGINS");
    snprintf(path, sizeof(path), "%s/%s.so", folder ? folder : "build/lib/tiered",
             name);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    const struct tiered_plugin *plugin = dlsym(handle, "tiered_plugin");
    kit_configure(plugin, NULL);
    return plugin;
}

/** A server and a client, each with a transport state of its own. */
struct kit_pair {
    const struct tiered_transport_ops *ops;
    void *server_state, *client_state;
    struct kit_server server;
    char address[256];
    size_t n_clients;
    struct kit_end *clients[KIT_MAX_ENDS];
};

static inline void *kit_init(const struct tiered_transport_ops *ops)
{
    struct tiered_error err = {0};
    void *state = NULL;
    if (ops->init(&kit_host, kit_config.data, &kit_credentials, &state, &err) < 0) {
        fail_msg("init: %s", err.text);
    }
    return state;
}

static inline void kit_listen(struct kit_pair *p, enum kit_mode mode)
{
    struct tiered_error err = {0};
    p->server.ops = p->ops;
    p->server.mode = mode;
    if (p->ops->listen(p->server_state, p->address, &kit_listener, &p->server, &err) <
        0) {
        fail_msg("listen: %s", err.text);
    }
}

static inline struct kit_end *kit_open(struct kit_pair *p, enum tiered_stream_kind kind,
                                       enum kit_mode mode)
{
    struct tiered_error err = {0};
    struct kit_end *e = calloc(1, sizeof(*e));
    assert_non_null(e);
    e->ops = p->ops;
    e->kind = kind;
    e->mode = mode;
    p->clients[p->n_clients++] = e;
    if (p->ops->open(p->client_state, p->address, kind, &kit_handler, e, &e->stream,
                     &err) < 0) {
        fail_msg("open: %s", err.text);
    }
    return e;
}

/** The server's end of the nth stream that it accepted. */
static inline struct kit_end *kit_accepted(struct kit_pair *p, size_t n)
{
    WAIT_FOR(p->server.n_ends > n);
    return READ(p->server.ends[n]);
}

static inline void kit_check_end(struct kit_end *e)
{
    while (kit_let_go(e)) {
    }
    assert_int_equal(e->closed, 1);
    assert_int_equal(e->broken_rules, 0);
    assert_int_equal(e->n_wrong, 0);
    assert_int_equal(e->done, e->sent);
    free(e);
}

static inline void kit_stop_server(struct kit_pair *p)
{
    if (p->server_state) {
        p->ops->destroy(p->server_state);
    }
    p->server_state = NULL;
    for (size_t i = 0; i < p->server.n_ends; i++) {
        kit_check_end(p->server.ends[i]);
    }
    p->server.n_ends = 0;
}

/** Every end has been told of its end exactly once when both states are gone. */
static inline void kit_finish(struct kit_pair *p)
{
    p->ops->destroy(p->client_state);
    kit_stop_server(p);
    for (size_t i = 0; i < p->n_clients; i++) {
        kit_check_end(p->clients[i]);
    }
    free(p);
}

/** An address on this host whose port is free. Below the ports that the kernel gives to
    those who dial, which may be anybody's at any moment. */
static inline void kit_tcp_address(const char *scheme, char *out, size_t size)
{
    static unsigned next;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int rc = -1;
    next = next ? next : (unsigned)getpid() * 37;
    while (rc < 0) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        a.sin_port = htons((uint16_t)(20000 + next++ % 10000));
        rc = bind(fd, (const struct sockaddr *)&a, sizeof(a));
        close(fd);
    }
    snprintf(out, size, "%s127.0.0.1:%u", scheme, ntohs(a.sin_port));
}

static inline void kit_allow_descriptors(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
    setrlimit(RLIMIT_NOFILE, &limit);
}

#endif
