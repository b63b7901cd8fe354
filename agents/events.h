/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What happened, on its way to the orchestrator: kept until it has said that it has it,
 * and sent again on each new session. Neither a lost session nor an orchestrator that
 * was away can lose an event; only this process's death can.
 *
 * Threads: the event loop's alone.
 */
#ifndef TIERED_AGENTS_EVENTS_H
#define TIERED_AGENTS_EVENTS_H

#include "core/link/uplink.h"

struct event;
struct events {
    struct tiered_uplink *session; /* borrowed; set once it is there */
    struct event *first, **last;   /* that the orchestrator may not have */
    struct event *unsent;          /* the first one not sent on this session */
    size_t n;
    uint64_t serial; /* of the newest: high half a process, low half a count from 1 */
};

int events_init(struct events *events, struct tiered_error *err);
void events_finish(struct events *events);
/** `json` (malloc'd) is taken over. */
void events_add(struct events *events, char *json);
/** A new session: everything again that is not known to be there. */
void events_resend(struct events *events);
/** The orchestrator has all up to this one. */
void events_acknowledged(struct events *events, uint64_t serial);

#endif
