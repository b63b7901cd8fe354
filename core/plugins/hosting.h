/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The host side of struct tiered_host: what a plugin call may log, seed, report and be
 * cancelled by. One hosting object a call (or a plugin state); cheap to fill.
 *
 * Threads: the flags and the progress are atomics; the rest is immutable while used.
 */
#ifndef TIERED_CORE_HOSTING_H
#define TIERED_CORE_HOSTING_H

#include <stdatomic.h>

#include "core/base/base.h"
#include "tiered/host.h"

struct tiered_hosting {
    struct tiered_host host; /* give &hosting->host to the plugin */
    uint64_t run_seed;
    char node[64], path[192], tier[64];
    char tag[40]; /* the plugin's name: the log's tag */
    atomic_bool cancel;
    _Atomic uint32_t progress_ppm; /* 0..1000000 */
};

/** Names are copied; NULL counts as "". Does not allocate. The host points into
    `hosting`, which therefore must not move. */
void tiered_hosting_init(struct tiered_hosting *hosting, uint64_t run_seed,
                         const char *tag, const char *tier, const char *node,
                         const char *path);

#endif
