/* SPDX-License-Identifier: Apache-2.0 */
/* Events that wait for the orchestrator's word. */
#include "agents/events.h"

#include <stdlib.h>

#include "core/base/log.h"

#define MOST_EVENTS                                                                    \
    100000 /* kept while the orchestrator is away; then the oldest go                  \
            */

struct event {
    struct event *next;
    uint64_t serial;
    char *json;
};

int events_init(struct events *events, struct tiered_error *err)
{
    uint32_t process; /* an agent that was started again counts from 1 */
    *events = (struct events){.last = &events->first};
    if (tiered_secret(&process, sizeof(process), err) < 0) {
        return -1;
    }
    events->serial = (uint64_t)(process | 1) << 32;
    return 0;
}

static void pop(struct events *events)
{
    struct event *first = events->first;
    events->first = first->next;
    if (!events->first) {
        events->last = &events->first;
    }
    if (events->unsent == first) {
        events->unsent = first->next;
    }
    events->n--;
    free(first->json);
    free(first);
}

void events_finish(struct events *events)
{
    while (events->first) {
        pop(events);
    }
}

static void send_unsent(struct events *events)
{
    while (events->unsent && tiered_uplink_connected(events->session)) {
        struct tiered_error err;
        Tiered__V1__Event pb = TIERED__V1__EVENT__INIT;
        pb.json = events->unsent->json;
        pb.serial = events->unsent->serial;
        Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
        frame.body_case = TIERED__V1__FRAME__BODY_EVENT;
        frame.event = &pb;
        if (tiered_uplink_send(events->session, NULL, &frame, &err) < 0) {
            if (err.code == TIERED_ESTATE) {
                return; /* not connected any more: later */
            }
            tiered_log(TIERED_LOG_ERROR, "agent", NULL, "an event was lost: %s",
                       err.text);
        }
        events->unsent = events->unsent->next;
    }
}

void events_add(struct events *events, char *json)
{
    struct event *event = calloc(1, sizeof(*event));
    if (!event) {
        abort();
    }
    event->serial = ++events->serial;
    event->json = json;
    *events->last = event;
    events->last = &event->next;
    if (!events->unsent) {
        events->unsent = event;
    }
    if (++events->n > MOST_EVENTS) {
        pop(events);
    }
    send_unsent(events);
}

void events_resend(struct events *events)
{
    events->unsent = events->first;
    send_unsent(events);
}

void events_acknowledged(struct events *events, uint64_t serial)
{
    if (serial >> 32 != events->serial >> 32) {
        return; /* for an earlier process */
    }
    while (events->first && events->first != events->unsent &&
           events->first->serial <= serial) {
        pop(events);
    }
}
