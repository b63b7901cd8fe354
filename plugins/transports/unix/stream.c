/* SPDX-License-Identifier: Apache-2.0 */
/* One stream on the transport's thread: connecting, reading, writing, its end. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "unix.h"

#define TURN_BYTES  (2u << 20) /* a stream reads and writes at most this in its turn */
#define MAX_IOV     32
#define BACKOFF_MIN 1
#define BACKOFF_MAX 64

void items_init(struct items *items)
{
    items->first = NULL;
    items->last = &items->first;
}

void items_move(struct items *to, struct items *from)
{
    if (from->first) {
        *to->last = from->first;
        to->last = from->last;
        items_init(from);
    }
}

/* Take the first off and say so. */
static void finish_first(struct tiered_stream *s)
{
    struct item *item = s->sending.first;
    s->sending.first = item->next;
    if (!item->next) {
        s->sending.last = &s->sending.first;
    }
    if (item->done) {
        item->done(item->opaque);
    }
    free(item);
}

static void finish_all(struct tiered_stream *s)
{
    while (s->sending.first) {
        finish_first(s);
    }
    s->sent = 0;
}

void stream_live(struct tiered_stream *s)
{
    struct state *st = s->state;
    s->live_next = st->live;
    s->live_prev = &st->live;
    if (st->live) {
        st->live->live_prev = &s->live_next;
    }
    st->live = s;
}

static void leave_live(struct tiered_stream *s)
{
    *s->live_prev = s->live_next;
    if (s->live_next) {
        s->live_next->live_prev = s->live_prev;
    }
}

/* A process that was just forked may hold the descriptor until it executes: close()
   alone would neither take it off epoll nor tell the peer. */
static void close_socket(struct state *st, int fd, bool watched)
{
    if (watched) {
        epoll_ctl(st->epoll, EPOLL_CTL_DEL, fd, NULL);
    }
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

/* A stream that the host never accepted ends without its knowing. */
void stream_close(struct tiered_stream *s, enum tiered_stream_end end,
                  const struct tiered_error *err)
{
    static const struct tiered_error none;
    struct state *st = s->state;
    s->phase = PHASE_CLOSED;
    s->due_ms = NEVER;
    pthread_mutex_lock(&st->lock);
    s->closed = true;
    items_move(&s->sending, &s->queue);
    pthread_mutex_unlock(&st->lock);
    if (s->fd >= 0) {
        close_socket(st, s->fd, s->events != 0);
        s->fd = -1;
    }
    free(s->incoming);
    s->incoming = NULL;
    leave_live(s);
    finish_all(s);
    if (s->handler) {
        s->handler->on_closed(s->user, end, err ? err : &none);
    } else {
        stream_release(s);
    }
    stream_unref(s);
}

/* Not registered at all while there is nothing to wait for: a hang-up cannot be masked
   and would spin. */
static void watch(struct tiered_stream *s)
{
    uint32_t want = (s->paused ? 0 : EPOLLIN) | (s->sending.first ? EPOLLOUT : 0);
    if (want == s->events) {
        return;
    }
    struct epoll_event ev = {.events = want, .data.ptr = s};
    int op = want == 0 ? EPOLL_CTL_DEL : s->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(s->state->epoll, op, s->fd, &ev) < 0) {
        struct tiered_error err;
        tiered_fail(&err, TIERED_EIO, "cannot watch a socket: %s", strerror(errno));
        stream_close(s, TIERED_END_BROKEN, &err);
        return;
    }
    s->events = want;
}

static size_t gather(const struct tiered_stream *s, struct iovec *iov, int *ret_n)
{
    size_t skip = s->sent, total = 0;
    int n = 0;
    for (struct item *i = s->sending.first; i && n + 2 <= MAX_IOV && total < TURN_BYTES;
         i = i->next) {
        if (skip < i->head_size) {
            iov[n++] = (struct iovec){i->head + skip, i->head_size - skip};
            total += i->head_size - skip;
            skip = i->head_size;
        }
        if (i->body_size > 0) {
            size_t from = skip - i->head_size;
            iov[n++] = (struct iovec){(uint8_t *)(uintptr_t)i->body + from,
                                      i->body_size - from};
            total += i->body_size - from;
        }
        skip = 0; /* only the first is under way */
    }
    *ret_n = n;
    return total;
}

static void count_sent(struct tiered_stream *s, size_t n)
{
    s->sent += n;
    for (struct item *i = s->sending.first; i; i = s->sending.first) {
        size_t size = i->head_size + i->body_size;
        if (s->sent < size) {
            return;
        }
        s->sent -= size;
        s->out_ended = s->out_ended || i->ends;
        finish_first(s);
    }
}

/* A peer that closed may have said why first: a failure to write ends the writing, and
   the stream when all that it sent is read. */
static void write_out(struct tiered_stream *s)
{
    size_t left = TURN_BYTES;
    while (s->sending.first && left > 0 && !s->out_failed) {
        struct iovec iov[MAX_IOV];
        int n_iov;
        size_t total = gather(s, iov, &n_iov);
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n_iov};
        ssize_t n = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            s->out_failed = errno != EAGAIN && errno != EWOULDBLOCK;
            break;
        }
        count_sent(s, (size_t)n);
        left = (size_t)n < left ? left - (size_t)n : 0;
        if ((size_t)n < total) {
            break;
        }
    }
    if (s->out_failed) {
        finish_all(s);
    }
}

static void release_message(struct tiered_message *m)
{
    struct message *message = (struct message *)m;
    struct tiered_stream *s = message->stream;
    pthread_mutex_lock(&s->state->lock);
    s->held--;
    if (s->paused) {
        stream_mark(s);
    }
    pthread_mutex_unlock(&s->state->lock);
    free(message);
    stream_unref(s);
}

static void deliver(struct tiered_stream *s)
{
    struct message *message = s->incoming;
    s->incoming = NULL;
    pthread_mutex_lock(&s->state->lock);
    bool cancelled = s->cancelled;
    if (!cancelled) {
        s->held++;
        s->paused = s->held >= TIERED_STREAM_WINDOW;
    }
    pthread_mutex_unlock(&s->state->lock);
    if (cancelled) {
        free(message);
        return;
    }
    atomic_fetch_add(&s->refs, 1);
    s->handler->on_message(s->user, &message->m);
}

static int begin_message(struct tiered_stream *s, struct tiered_error *err)
{
    const uint8_t *h = s->header;
    uint32_t size =
        h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
    s->header_have = 0;
    if (size == 0) {
        s->in_ended = true;
        s->handler->on_half_closed(s->user);
        return 0;
    }
    if (size > TIERED_MESSAGE_MAX) {
        return tiered_fail(err, TIERED_EPEER,
                           "the peer announced a message of %u bytes; at most %u are "
                           "taken",
                           size, TIERED_MESSAGE_MAX);
    }
    s->incoming = malloc(sizeof(*s->incoming) + size);
    if (!s->incoming) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->got = 0;
    s->incoming->stream = s;
    s->incoming->m = (struct tiered_message){s->incoming->bytes, size, release_message};
    return 0;
}

static int take_preamble(struct tiered_stream *s, struct tiered_error *err)
{
    const uint8_t *h = s->header;
    enum tiered_stream_kind kind = h[5];
    if (memcmp(h, "TRD1", 4) != 0) {
        return tiered_fail(err, TIERED_EPEER, "a peer that does not speak Tiered");
    }
    if (h[4] != 1) {
        return tiered_fail(err, TIERED_EPEER, "a peer of version %u; this is 1", h[4]);
    }
    if (kind < TIERED_SESSION || kind > TIERED_PULL) {
        return tiered_fail(err, TIERED_EPEER, "a peer asks for a stream of kind %d",
                           kind);
    }
    struct listener *l = s->listener;
    const struct tiered_stream_handler *handler = NULL;
    void *user = NULL;
    s->header_have = 0;
    s->due_ms = NEVER;
    s->phase = PHASE_OPEN;
    s->listener = NULL;
    if (l->handler->on_accept(l->user, s, kind, &handler, &user) < 0) {
        return tiered_fail(err, TIERED_ECANCELED, "not accepted");
    }
    s->handler = handler;
    s->user = user;
    return 0;
}

static int take_header(struct tiered_stream *s, struct tiered_error *err)
{
    if (s->phase == PHASE_PREAMBLE) {
        return s->header_have < PREAMBLE_SIZE ? 0 : take_preamble(s, err);
    }
    return s->header_have < LENGTH_SIZE ? 0 : begin_message(s, err);
}

/* What is still missing of the message at hand, and of the header behind it. */
static ssize_t receive(struct tiered_stream *s)
{
    struct iovec iov[2];
    struct msghdr msg = {.msg_iov = iov};
    size_t rest = 0;
    size_t header = s->phase == PHASE_PREAMBLE ? PREAMBLE_SIZE : LENGTH_SIZE;
    if (s->incoming) {
        rest = s->incoming->m.size - s->got;
        iov[msg.msg_iovlen++] = (struct iovec){s->incoming->bytes + s->got, rest};
    }
    iov[msg.msg_iovlen++] =
        (struct iovec){s->header + s->header_have, header - s->header_have};
    ssize_t n = recvmsg(s->fd, &msg, MSG_DONTWAIT);
    if (n > 0) {
        size_t body = (size_t)n < rest ? (size_t)n : rest;
        s->got += body;
        s->header_have += (size_t)n - body;
    }
    return n;
}

static int received(struct tiered_stream *s, struct tiered_error *err)
{
    if (s->in_ended) {
        return tiered_fail(err, TIERED_EPEER, "the peer sent more after its end");
    }
    if (s->incoming && s->got == s->incoming->m.size) {
        deliver(s);
    }
    /* At once, also when it is not this stream's turn any more: the bytes of a header
       that was read make no descriptor readable. */
    return s->incoming ? 0 : take_header(s, err);
}

/* From here on the peer may close without being missed. */
static bool ended(const struct tiered_stream *s)
{
    return s->in_ended && s->out_ended;
}

static int read_in(struct tiered_stream *s, struct tiered_error *err)
{
    size_t left = TURN_BYTES;
    while (left > 0 && !s->paused && !ended(s)) {
        ssize_t n = receive(s);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return 0;
        }
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            bool within = s->incoming || s->header_have > 0;
            return tiered_fail(err, TIERED_EPEER, "the peer closed the connection%s",
                               within ? " within a message" : "");
        }
        if (n < 0) {
            return tiered_fail(err, TIERED_EIO, "cannot read: %s", strerror(errno));
        }
        if (received(s, err) < 0) {
            return -1;
        }
        left = (size_t)n < left ? left - (size_t)n : 0;
    }
    return 0;
}

static void turn(struct tiered_stream *s, bool read, bool write)
{
    struct tiered_error err;
    if (write) {
        write_out(s);
    }
    if (read && read_in(s, &err) < 0) {
        stream_close(s, TIERED_END_BROKEN, &err);
    } else if (ended(s)) {
        stream_close(s, TIERED_END_CLEAN, NULL);
    } else {
        watch(s);
    }
}

void stream_event(struct tiered_stream *s, uint32_t events)
{
    bool gone = events & (EPOLLHUP | EPOLLERR);
    turn(s, gone || events & EPOLLIN, gone || events & EPOLLOUT);
}

static int dial(struct tiered_stream *s, bool *ret_again, struct tiered_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, s->path, sizeof(s->path));
    *ret_again = false;
    if (s->fd < 0) {
        s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (s->fd < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot make a socket: %s",
                           strerror(errno));
    }
    if (connect(s->fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        return check_peer(s->fd, err);
    }
    if (errno == EAGAIN) { /* the listener's backlog is full */
        *ret_again = true;
        return 0;
    }
    return tiered_fail(err, TIERED_EIO, "cannot connect to 'unix:%s': %s", s->path,
                       strerror(errno));
}

void stream_connect(struct tiered_stream *s)
{
    struct tiered_error err;
    bool again;
    if (dial(s, &again, &err) < 0) {
        stream_close(s, TIERED_END_BROKEN, &err);
    } else if (again) {
        s->phase = PHASE_CONNECT;
        s->backoff_ms = s->backoff_ms == 0 ? BACKOFF_MIN : s->backoff_ms * 2;
        s->backoff_ms = s->backoff_ms > BACKOFF_MAX ? BACKOFF_MAX : s->backoff_ms;
        due_at(s->state, &s->due_ms, now_ms() + s->backoff_ms);
    } else {
        s->phase = PHASE_OPEN;
        s->due_ms = NEVER;
        turn(s, false, true);
    }
}

void stream_due(struct tiered_stream *s)
{
    struct tiered_error err;
    if (s->phase == PHASE_CONNECT) {
        stream_connect(s);
    } else {
        tiered_fail(&err, TIERED_ETIMEDOUT, "a peer that does not say what it wants");
        stream_close(s, TIERED_END_BROKEN, &err);
    }
}

/* What the ops left: messages, a cancel, room in the window. */
void stream_dirty(struct tiered_stream *s)
{
    struct state *st = s->state;
    pthread_mutex_lock(&st->lock);
    s->dirty = false;
    bool cancelled = s->cancelled,
         resumed = s->paused && s->held < TIERED_STREAM_WINDOW;
    s->paused = s->paused && !resumed;
    items_move(&s->sending, &s->queue);
    pthread_mutex_unlock(&st->lock);
    if (s->phase == PHASE_NEW) {
        stream_live(s);
    }
    if (s->phase == PHASE_CLOSED) {
        return;
    }
    if (cancelled) {
        stream_close(s, TIERED_END_CANCELLED, NULL);
    } else if (s->phase == PHASE_NEW) {
        stream_connect(s);
    } else if (s->phase == PHASE_OPEN) {
        turn(s, resumed, true);
    }
}
