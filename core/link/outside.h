/* SPDX-License-Identifier: Apache-2.0 */
/* What uplink.c and push_out.c share; nobody else's business. */
#ifndef TIERED_CORE_LINK_OUTSIDE_H
#define TIERED_CORE_LINK_OUTSIDE_H

#include "core/base/version.h"
#include "core/link/uplink.h"

struct tiered_uplink {
    struct tiered_uplink_config config; /* strings owned */
    const struct tiered_uplink_owner *owner;
    void *user;

    struct tiered_conn *session;
    bool welcome, ready;
    char *missing;
    uint64_t heartbeat_ms, last_seen_ms, retry_ms;
    struct tiered_timer retry, beat;

    struct tiered_pull *pull;
    struct tiered_digest pull_model;

    struct tiered_encoded *push; /* NULL: nothing to deliver */
    struct tiered_path push_path;
    struct tiered_conn *push_conn;
    struct tiered_sender *sender;
    struct tiered_timer push_retry;
    uint64_t push_retry_ms;

    uint64_t bytes_up, bytes_down;
};

/* Retry a push that waits for the session, now. */
void link_push_hurry(struct tiered_uplink *uplink);
struct tiered_frame_context link_up_context(const struct tiered_uplink *uplink,
                                            const struct tiered_path *path);

#endif
