/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: epoll, an eventfd for posts, a list of timers in order of their due
   time, a signalfd.

   The mutex guards the queue of posted calls and the stop flag, nothing else; no call
   is made with it held. */
#include "core/loop/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct post {
    struct post *next;
    void (*fn)(void *);
    void *arg;
};

struct watch {
    struct watch *next;
    int fd; /* -1 once removed: freed after the events at hand */
    void (*fn)(void *);
    void *arg;
};

struct tiered_loop {
    int epoll, event, signals;
    pthread_mutex_t lock;
    struct post *first, **last;
    bool stop;
    struct tiered_timer *timers;
    struct watch *watches, *removed;
    void (*on_signal)(void *, int);
    void *signal_arg;
};

static void drain_posts(void *arg);

int tiered_loop_create(struct tiered_loop **ret, struct tiered_error *err)
{
    struct tiered_loop *loop = calloc(1, sizeof(*loop));
    if (!loop) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    loop->signals = -1;
    loop->last = &loop->first;
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll < 0 || loop->event < 0) {
        tiered_fail(err, TIERED_EIO, "cannot make an event loop: %s", strerror(errno));
        tiered_loop_destroy(loop);
        return -1;
    }
    if (tiered_loop_watch(loop, loop->event, drain_posts, loop, err) < 0) {
        tiered_loop_destroy(loop);
        return -1;
    }
    *ret = loop;
    return 0;
}

static void free_watches(struct watch *w)
{
    while (w) {
        struct watch *next = w->next;
        free(w);
        w = next;
    }
}

void tiered_loop_destroy(struct tiered_loop *loop)
{
    if (!loop) {
        return;
    }
    for (struct post *p = loop->first; p;) {
        struct post *next = p->next;
        free(p);
        p = next;
    }
    free_watches(loop->watches);
    free_watches(loop->removed);
    int fds[] = {loop->epoll, loop->event, loop->signals};
    for (size_t i = 0; i < TIERED_COUNT(fds); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

static void wake(struct tiered_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->event, &one, sizeof(one));
    (void)n; /* a full counter wakes just as well */
}

int tiered_loop_post(struct tiered_loop *loop, void (*fn)(void *), void *arg)
{
    struct post *p = malloc(sizeof(*p));
    if (!p) {
        return -1;
    }
    *p = (struct post){.fn = fn, .arg = arg};
    pthread_mutex_lock(&loop->lock);
    bool first = !loop->first;
    *loop->last = p;
    loop->last = &p->next;
    pthread_mutex_unlock(&loop->lock);
    if (first) {
        wake(loop);
    }
    return 0;
}

void tiered_loop_stop(struct tiered_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->stop = true;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
}

static bool stopped(struct tiered_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool stop = loop->stop;
    loop->stop = false; /* each stop ends one run */
    pthread_mutex_unlock(&loop->lock);
    return stop;
}

/* Takes the whole queue once: what a call posts runs on the next turn, so that timers
   and descriptors have theirs. */
static void drain_posts(void *arg)
{
    struct tiered_loop *loop = arg;
    uint64_t count;
    ssize_t n = read(loop->event, &count, sizeof(count));
    (void)n;
    pthread_mutex_lock(&loop->lock);
    struct post *p = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    pthread_mutex_unlock(&loop->lock);
    while (p) {
        struct post *next = p->next;
        p->fn(p->arg);
        free(p);
        p = next;
    }
}

void tiered_loop_timer(struct tiered_loop *loop, struct tiered_timer *timer,
                       uint64_t after_ms, void (*fn)(void *), void *arg)
{
    tiered_loop_cancel(loop, timer);
    uint64_t now = tiered_now_ms();
    timer->due_ms = after_ms > UINT64_MAX - now ? UINT64_MAX : now + after_ms;
    timer->fn = fn;
    timer->arg = arg;
    timer->set = true;
    struct tiered_timer **at = &loop->timers;
    while (*at && (*at)->due_ms <= timer->due_ms) {
        at = &(*at)->next;
    }
    timer->next = *at;
    *at = timer;
}

void tiered_loop_cancel(struct tiered_loop *loop, struct tiered_timer *timer)
{
    if (!timer->set) {
        return;
    }
    for (struct tiered_timer **at = &loop->timers; *at; at = &(*at)->next) {
        if (*at == timer) {
            *at = timer->next;
            break;
        }
    }
    timer->set = false;
}

static int timeout_of(const struct tiered_loop *loop)
{
    if (!loop->timers) {
        return -1;
    }
    uint64_t now = tiered_now_ms(), due = loop->timers->due_ms;
    if (due <= now) {
        return 0;
    }
    return due - now > 60000 ? 60000 : (int)(due - now);
}

static void run_timers(struct tiered_loop *loop)
{
    uint64_t now = tiered_now_ms();
    while (loop->timers && loop->timers->due_ms <= now) {
        struct tiered_timer *t = loop->timers;
        loop->timers = t->next;
        t->set = false;
        t->fn(t->arg);
    }
}

int tiered_loop_watch(struct tiered_loop *loop, int fd, void (*fn)(void *), void *arg,
                      struct tiered_error *err)
{
    struct watch *w = calloc(1, sizeof(*w));
    if (!w) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *w = (struct watch){.fd = fd, .fn = fn, .arg = arg, .next = loop->watches};
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = w};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
        free(w);
        return tiered_fail(err, TIERED_EIO, "cannot watch a descriptor: %s",
                           strerror(errno));
    }
    loop->watches = w;
    return 0;
}

void tiered_loop_unwatch(struct tiered_loop *loop, int fd)
{
    for (struct watch **at = &loop->watches; *at; at = &(*at)->next) {
        if ((*at)->fd == fd) {
            struct watch *w = *at;
            *at = w->next;
            epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd, NULL);
            w->fd = -1; /* an event at hand may still point here */
            w->next = loop->removed;
            loop->removed = w;
            return;
        }
    }
}

static void read_signal(void *arg)
{
    struct tiered_loop *loop = arg;
    struct signalfd_siginfo info;
    while (read(loop->signals, &info, sizeof(info)) == sizeof(info)) {
        loop->on_signal(loop->signal_arg, (int)info.ssi_signo);
    }
}

int tiered_loop_signals(struct tiered_loop *loop, bool children,
                        void (*fn)(void *, int), void *arg, struct tiered_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (children) {
        sigaddset(&set, SIGCHLD);
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    loop->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (loop->signals < 0) {
        return tiered_fail(err, TIERED_EIO, "signalfd: %s", strerror(errno));
    }
    loop->on_signal = fn;
    loop->signal_arg = arg;
    return tiered_loop_watch(loop, loop->signals, read_signal, loop, err);
}

int tiered_loop_run(struct tiered_loop *loop, struct tiered_error *err)
{
    while (!stopped(loop)) {
        struct epoll_event events[32];
        int n = epoll_wait(loop->epoll, events, 32, timeout_of(loop));
        if (n < 0 && errno != EINTR) {
            return tiered_fail(err, TIERED_EIO, "epoll: %s", strerror(errno));
        }
        for (int i = 0; i < n; i++) {
            struct watch *w = events[i].data.ptr;
            if (w->fd >= 0) {
                w->fn(w->arg);
            }
        }
        free_watches(loop->removed);
        loop->removed = NULL;
        run_timers(loop);
    }
    return 0;
}
