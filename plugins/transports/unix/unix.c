/* SPDX-License-Identifier: Apache-2.0 */
/* The unix transport's ops: streams over Unix sockets, within one host. */
#include "unix.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG     4096
#define STACK_BYTES (128u << 10) /* the handlers only post */

static void state_unref(struct state *st)
{
    if (atomic_fetch_sub(&st->refs, 1) == 1) {
        pthread_mutex_destroy(&st->lock);
        free(st);
    }
}

void state_wake(struct state *st)
{
    uint64_t one = 1;
    ssize_t n = write(st->event, &one, sizeof(one));
    (void)n; /* a full counter wakes just as well */
}

struct tiered_stream *stream_create(struct state *st)
{
    struct tiered_stream *s = calloc(1, sizeof(*s));
    if (!s) {
        return NULL;
    }
    s->source = SOURCE_STREAM;
    s->state = st;
    s->fd = -1;
    s->due_ms = NEVER;
    items_init(&s->queue);
    items_init(&s->sending);
    atomic_init(&s->refs, 2); /* the host's and the thread's */
    atomic_fetch_add(&st->refs, 1);
    pthread_mutex_lock(&st->lock);
    s->all_next = st->all;
    s->all_prev = &st->all;
    if (st->all) {
        st->all->all_prev = &s->all_next;
    }
    st->all = s;
    pthread_mutex_unlock(&st->lock);
    return s;
}

void stream_unref(struct tiered_stream *s)
{
    if (atomic_fetch_sub(&s->refs, 1) == 1) {
        state_unref(s->state);
        free(s);
    }
}

void stream_release(struct tiered_stream *s)
{
    struct state *st = s->state;
    pthread_mutex_lock(&st->lock);
    *s->all_prev = s->all_next;
    if (s->all_next) {
        s->all_next->all_prev = s->all_prev;
    }
    pthread_mutex_unlock(&st->lock);
    stream_unref(s);
}

void stream_mark(struct tiered_stream *s)
{
    struct state *st = s->state;
    if (s->dirty || s->closed) {
        return;
    }
    bool first = !st->dirty;
    s->dirty = true;
    s->dirty_next = NULL;
    *st->dirty_last = s;
    st->dirty_last = &s->dirty_next;
    atomic_fetch_add(&s->refs, 1);
    if (first) {
        state_wake(st);
    }
}

int check_peer(int fd, struct tiered_error *err)
{
    struct ucred who;
    socklen_t size = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot tell who the peer is: %s",
                           strerror(errno));
    }
    if (who.uid != geteuid() && who.uid != 0) {
        return tiered_fail(err, TIERED_EPEER,
                           "the peer runs as user %u; only one's own and root are "
                           "trusted",
                           (unsigned)who.uid);
    }
    return 0;
}

static int parse_address(const char *address, char path[PATH_SIZE],
                         struct tiered_error *err)
{
    if (strncmp(address, "unix:", 5) != 0 || address[5] == '\0') {
        return tiered_fail(err, TIERED_EINVAL,
                           "address '%.100s' is not of the form unix:/path/to.sock",
                           address);
    }
    size_t n = strlen(address + 5);
    if (n >= PATH_SIZE) {
        return tiered_fail(err, TIERED_EINVAL,
                           "address '%.100s…': its path has %zu bytes, and a unix "
                           "socket's at most %d; use a shorter folder",
                           address, n, PATH_SIZE - 1);
    }
    memset(path, 0, PATH_SIZE);
    memcpy(path, address + 5, n);
    return 0;
}

static int unix_init(const struct tiered_host *host, const void *config,
                     const struct tiered_credentials *credentials, void **ret_state,
                     struct tiered_error *err)
{
    (void)config;
    (void)credentials; /* the socket's file mode and the peer's user decide */
    struct state *st = calloc(1, sizeof(*st));
    if (!st) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    st->source = SOURCE_WAKE;
    st->host = host;
    st->dirty_last = &st->dirty;
    st->next_due_ms = NEVER;
    st->epoll = st->event = -1;
    atomic_init(&st->refs, 1);
    pthread_mutex_init(&st->lock, NULL);
    *ret_state = st;
    return 0;
}

static void close_both(struct state *st)
{
    if (st->epoll >= 0) {
        close(st->epoll);
    }
    if (st->event >= 0) {
        close(st->event);
    }
    st->epoll = st->event = -1;
}

static int make_thread(struct state *st)
{
    pthread_attr_t attr;
    sigset_t every, old;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&every); /* signals are the program's */
    pthread_sigmask(SIG_SETMASK, &every, &old);
    int error = pthread_create(&st->thread, &attr, thread_main, st);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return error;
}

/* With the lock held. Late, so that an agent that uses no sockets has no thread. */
static int start(struct state *st, struct tiered_error *err)
{
    if (st->stop) {
        return tiered_fail(err, TIERED_ESTATE, "the transport is being destroyed");
    }
    if (st->started) {
        return 0;
    }
    st->epoll = epoll_create1(EPOLL_CLOEXEC);
    st->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = st};
    int error = 0;
    if (st->epoll < 0 || st->event < 0 ||
        epoll_ctl(st->epoll, EPOLL_CTL_ADD, st->event, &ev) < 0) {
        error = errno;
    } else {
        error = make_thread(st);
    }
    if (error) {
        close_both(st);
        return tiered_fail(err, TIERED_EIO, "cannot start the unix transport: %s",
                           strerror(error));
    }
    st->started = true;
    return 0;
}

static int start_once(struct state *st, struct tiered_error *err)
{
    pthread_mutex_lock(&st->lock);
    int rc = start(st, err);
    pthread_mutex_unlock(&st->lock);
    return rc;
}

static void unix_destroy(void *state)
{
    struct state *st = state;
    pthread_mutex_lock(&st->lock);
    st->stop = true;
    bool started = st->started;
    pthread_mutex_unlock(&st->lock);
    if (started) {
        state_wake(st);
        pthread_join(st->thread, NULL);
    }
    while (st->all) {
        stream_release(st->all);
    }
    close_both(st);
    state_unref(st);
}

static void remove_socket(const struct listener *l)
{
    struct stat now;
    if (lstat(l->path, &now) == 0 && now.st_dev == l->dev && now.st_ino == l->ino) {
        unlink(l->path);
    }
}

void listener_destroy(struct listener *l)
{
    remove_socket(l);
    close(l->fd);
    free(l);
}

/* A file that a process which died left behind, and nothing else, may be removed. */
static int clear_stale(const struct sockaddr_un *address, struct tiered_error *err)
{
    struct stat info;
    const char *path = address->sun_path;
    if (lstat(path, &info) == 0 && !S_ISSOCK(info.st_mode)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "cannot listen on 'unix:%s': the file is not a socket",
                           path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot make a socket: %s",
                           strerror(errno));
    }
    int rc = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    bool dead = rc < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!dead) {
        return tiered_fail(err, TIERED_EINVAL,
                           "cannot listen on 'unix:%s': another process does", path);
    }
    unlink(path);
    return 0;
}

static int bind_to(int fd, const char path[PATH_SIZE], struct tiered_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, PATH_SIZE);
    fchmod(fd, 0600); /* before bind: the file never has another mode */
    int rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (rc < 0 && errno == EADDRINUSE) {
        if (clear_stale(&address, err) < 0) {
            return -1;
        }
        rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
    }
    if (rc < 0 || listen(fd, BACKLOG) < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot listen on 'unix:%s': %s", path,
                           strerror(errno));
    }
    return 0;
}

static int open_listener(struct listener *l, struct tiered_error *err)
{
    struct stat info;
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot make a socket: %s",
                           strerror(errno));
    }
    if (bind_to(l->fd, l->path, err) < 0) {
        close(l->fd);
        return -1;
    }
    if (lstat(l->path, &info) == 0) {
        l->dev = info.st_dev;
        l->ino = info.st_ino;
    }
    return 0;
}

static int unix_listen(void *state, const char *address,
                       const struct tiered_listen_handler *handler, void *user,
                       struct tiered_error *err)
{
    struct state *st = state;
    struct listener *l = calloc(1, sizeof(*l));
    if (!l) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    l->source = SOURCE_LISTENER;
    l->handler = handler;
    l->user = user;
    l->due_ms = NEVER;
    if (parse_address(address, l->path, err) < 0 || start_once(st, err) < 0 ||
        open_listener(l, err) < 0) {
        free(l);
        return -1;
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = l};
    pthread_mutex_lock(&st->lock);
    int rc = epoll_ctl(st->epoll, EPOLL_CTL_ADD, l->fd, &ev);
    int error = errno;
    if (rc == 0) {
        l->next = st->listeners;
        st->listeners = l;
    }
    pthread_mutex_unlock(&st->lock);
    if (rc < 0) {
        listener_destroy(l);
        return tiered_fail(err, TIERED_EIO, "cannot watch a socket: %s",
                           strerror(error));
    }
    return 0;
}

static int unix_unlisten(void *state, const char *address, struct tiered_error *err)
{
    struct state *st = state;
    char path[PATH_SIZE];
    bool found = false;
    if (parse_address(address, path, err) < 0) {
        return -1;
    }
    pthread_mutex_lock(&st->lock);
    for (struct listener **at = &st->listeners; *at; at = &(*at)->next) {
        struct listener *l = *at;
        if (strcmp(l->path, path) == 0) {
            remove_socket(l); /* now: the address may be listened on again at once */
            *at = l->next;
            l->next = st->retired;
            l->retired = true;
            st->retired = l;
            found = true;
            break;
        }
    }
    pthread_mutex_unlock(&st->lock);
    if (!found) {
        return tiered_fail(err, TIERED_ENOENT, "nothing listens on '%.100s'", address);
    }
    state_wake(st);
    return 0;
}

/* `head` and then the body; the length that counts is in front of both. */
static struct item *make_item(uint32_t length, const struct tiered_outgoing *message)
{
    struct item *item = malloc(sizeof(*item) + LENGTH_SIZE + message->head_size);
    if (!item) {
        return NULL;
    }
    *item = (struct item){.body = message->body,
                          .body_size = message->body_size,
                          .done = message->done,
                          .opaque = message->opaque,
                          .ends = length == 0,
                          .head_size = LENGTH_SIZE + message->head_size};
    for (int i = 0; i < LENGTH_SIZE; i++) {
        item->head[i] = (uint8_t)(length >> (8 * i));
    }
    if (message->head_size > 0) {
        memcpy(item->head + LENGTH_SIZE, message->head, message->head_size);
    }
    return item;
}

/* The preamble travels as an item too: "TRD1" is its first four bytes. */
static struct item *make_preamble(enum tiered_stream_kind kind)
{
    const uint8_t rest[PREAMBLE_SIZE - LENGTH_SIZE] = {1, (uint8_t)kind};
    const struct tiered_outgoing message = {.head = rest, .head_size = sizeof(rest)};
    return make_item('T' | 'R' << 8 | 'D' << 16 | '1' << 24, &message);
}

static int unix_open(void *state, const char *address, enum tiered_stream_kind kind,
                     const struct tiered_stream_handler *handler, void *user,
                     struct tiered_stream **ret_stream, struct tiered_error *err)
{
    struct state *st = state;
    char path[PATH_SIZE];
    if (kind < TIERED_SESSION || kind > TIERED_PULL) {
        return tiered_fail(err, TIERED_EINVAL, "no stream of kind %d", kind);
    }
    if (parse_address(address, path, err) < 0 || start_once(st, err) < 0) {
        return -1;
    }
    struct item *preamble = make_preamble(kind);
    struct tiered_stream *s = preamble ? stream_create(st) : NULL;
    if (!s) {
        free(preamble);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(s->path, path, sizeof(path));
    s->handler = handler;
    s->user = user;
    s->queue.first = preamble;
    s->queue.last = &preamble->next;
    *ret_stream = s; /* before the thread's first call */
    pthread_mutex_lock(&st->lock);
    stream_mark(s);
    pthread_mutex_unlock(&st->lock);
    return 0;
}

/* Consumes the item. */
static int enqueue(struct tiered_stream *s, struct item *item, struct tiered_error *err)
{
    const char *why = NULL;
    if (!item) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    pthread_mutex_lock(&s->state->lock);
    if (s->closed || s->cancelled) {
        why = "the stream has ended";
    } else if (s->half_closed) {
        why = "this side of the stream is closed";
    } else {
        s->half_closed = item->ends;
        *s->queue.last = item;
        s->queue.last = &item->next;
        stream_mark(s);
    }
    pthread_mutex_unlock(&s->state->lock);
    if (why) {
        free(item);
        return tiered_fail(err, TIERED_ESTATE, "%s", why);
    }
    return 0;
}

static int unix_send(struct tiered_stream *s, const struct tiered_outgoing *message,
                     struct tiered_error *err)
{
    size_t head = message->head_size, body = message->body_size;
    if (head > TIERED_MESSAGE_MAX || body > TIERED_MESSAGE_MAX - head) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a message of %zu and %zu bytes; at most %u are sent", head,
                           body, TIERED_MESSAGE_MAX);
    }
    if (head + body == 0) {
        return tiered_fail(err, TIERED_EINVAL, "an empty message");
    }
    return enqueue(s, make_item((uint32_t)(head + body), message), err);
}

static int unix_half_close(struct tiered_stream *s, struct tiered_error *err)
{
    return enqueue(s, make_item(0, &(struct tiered_outgoing){0}), err);
}

static void unix_cancel(struct tiered_stream *s)
{
    pthread_mutex_lock(&s->state->lock);
    s->cancelled = true;
    stream_mark(s);
    pthread_mutex_unlock(&s->state->lock);
}

/* A user is not an agent: nothing proves which one the peer is. */
static int unix_peer(struct tiered_stream *s, char *out, size_t capacity,
                     struct tiered_error *err)
{
    (void)s;
    if (capacity == 0) {
        return tiered_fail(err, TIERED_EINVAL, "no room for the peer's identity");
    }
    out[0] = '\0';
    return 0;
}

static const struct tiered_transport_ops ops = {
    .size = sizeof(ops),
    .init = unix_init,
    .destroy = unix_destroy,
    .listen = unix_listen,
    .unlisten = unix_unlisten,
    .open = unix_open,
    .send = unix_send,
    .half_close = unix_half_close,
    .cancel = unix_cancel,
    .release = stream_release,
    .peer = unix_peer,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_TRANSPORT, .name = "unix", .version = "1.0",
                     .summary = "streams over Unix sockets, between processes of one "
                                "user on one host",
                     .traits = TIERED_LOCAL_ONLY | TIERED_CONCURRENT, .ops = &ops);
