/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers whose ends cannot be crossed unseen: data ends at a page without access, and
   the signal's handler turns the crash into a reason. */
#include "orchestrator/check.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_GUARDS 512
#define FORBIDDEN_BYTES                                                                \
    (4u << 20) /* behind a buffer: also a long copy starts in it                       \
                */

/* Written by the one thread that makes buffers; the handler reads. */
static struct guard watched[MAX_GUARDS];
static struct check_report *report_to;

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Only calls that a signal handler may make. */
void check_end(const char *how, const char *what)
{
    size_t at = 0;
    const char *parts[] = {how, what, " (", report_to->step, ")"};
    for (size_t i = 0; i < TIERED_COUNT(parts); i++) {
        for (const char *c = parts[i]; *c && at + 1 < sizeof(report_to->text); c++) {
            report_to->text[at++] = *c;
        }
    }
    report_to->text[at] = 0;
    report_to->verdict = CHECK_FAILED;
    report_to->finished = 1;
    _exit(0);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    const uint8_t *at = info->si_addr;
    for (size_t i = 0; i < MAX_GUARDS; i++) {
        const struct guard *g = &watched[i];
        if (g->map && at >= g->map && at < g->map + g->room) {
            check_end("writes to ", g->what);
        }
        if (g->map && at >= g->map + g->room &&
            at < g->map + g->room + FORBIDDEN_BYTES) {
            check_end("goes past the end of ", g->what);
        }
    }
    signal(number, SIG_DFL); /* not ours: it happens again, and counts as a crash */
}

void guard_watch(struct check_report *report)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    report_to = report;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

void *check_must(void *p)
{
    if (!p) {
        check_end("the kit has no memory for ", "this check");
    }
    return p;
}

static struct guard *find_watched(const uint8_t *map)
{
    for (size_t i = 0; i < MAX_GUARDS; i++) {
        if (watched[i].map == map) {
            return &watched[i];
        }
    }
    check_end("the kit has too many buffers for ", "this check");
}

struct guard guard_make(const char *what, size_t size)
{
    size_t page = page_bytes();
    size_t room = (size / page + 2) * page; /* at least a page in front */
    void *map = mmap(NULL, room + FORBIDDEN_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        check_end("the kit has no memory for ", what);
    }
    mprotect((uint8_t *)map + room, FORBIDDEN_BYTES, PROT_NONE);
    struct guard guard = {.what = what, .map = map, .room = room};
    memset(guard.map, GUARD_FILL, room);
    guard_fit(&guard, size);
    *find_watched(NULL) = guard;
    return guard;
}

static void check_front(const struct guard *guard)
{
    const uint8_t *from = guard->data - 64;
    for (size_t i = 0; i < 64; i++) {
        if (from[i] != GUARD_FILL) {
            check_end("writes in front of ", guard->what);
        }
    }
}

void guard_fit(struct guard *guard, size_t size)
{
    if (guard->data) {
        check_front(guard);
        memset(guard->data, GUARD_FILL, guard->size);
    }
    guard->data = guard->map + guard->room - size;
    guard->size = size;
}

void guard_freeze(struct guard *guard)
{
    mprotect(guard->map, guard->room, PROT_READ);
}

void guard_thaw(struct guard *guard)
{
    mprotect(guard->map, guard->room, PROT_READ | PROT_WRITE);
}

void guard_free(struct guard *guard)
{
    if (guard->map) {
        check_front(guard);
        *find_watched(guard->map) = (struct guard){0};
        munmap(guard->map, guard->room + FORBIDDEN_BYTES);
        *guard = (struct guard){0};
    }
}
