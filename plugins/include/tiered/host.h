/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The host as a plugin sees it: the only way from a plugin back into Tiered.
 *
 * A plugin never prints, never exits and calls no symbol of the program; it uses these
 * function pointers. The struct begins with its size and only grows at its end: a
 * member is there when `size` reaches past it (TIERED_HAS).
 *
 * Randomness. Whatever the run's seed decides comes from seed(): 32 bytes that are
 * HMAC-SHA256(run.seed, purpose, node, round path), the same on every replay. Keys and
 * privacy noise come from secret(), the operating system's generator.
 *
 * Threads: every member may be called from any thread that runs a plugin call.
 */
#ifndef TIERED_HOST_H
#define TIERED_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define TIERED_HAS(object, member)                                                     \
    ((object)->size >=                                                                 \
     offsetof(__typeof__(*(object)), member) + sizeof((object)->member))

enum tiered_level {
    TIERED_LOG_ERROR, /* cannot go on */
    TIERED_LOG_WARN,  /* went on anyway; the text says so */
    TIERED_LOG_INFO,  /* few per round */
    TIERED_LOG_DEBUG,
};

struct tiered_host {
    size_t size;
    void *opaque;     /* the host's own */
    const char *node; /* the node that this call serves; "" outside a run */
    const char *path; /* round path, "3.2"; "" outside a round */

    /** One line, lower case, no newline. The host adds round, tier and node. */
    void (*log)(const struct tiered_host *host, enum tiered_level level,
                const char *text);
    /** 32 bytes decided by the run's seed, `purpose`, this node and this round. A
        purpose that begins with "run:" is seeded with an empty node and path: the same
        on every node and in every round, for what all nodes must decide alike. */
    void (*seed)(const struct tiered_host *host, const char *purpose, uint8_t out[32]);
    /** `n` bytes of the operating system's generator. Returns 0, or -1 with *err. */
    int (*secret)(const struct tiered_host *host, void *out, size_t n,
                  struct tiered_error *err);
    /** How much of the call is done, 0..1. Cheap; call it about once a batch. */
    void (*progress)(const struct tiered_host *host, double fraction);
    /** True once the call should stop: return -1 with TIERED_ECANCELED soon. */
    bool (*cancelled)(const struct tiered_host *host);
};

#endif
