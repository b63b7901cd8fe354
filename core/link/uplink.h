/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The child's side of a link: a session with the parent that is dialled again until it
 * stands, one pull and one push at a time, both resumed after any cut. It knows nothing
 * of rounds. An agent's own session with the orchestrator is an uplink too.
 *
 * Threads: the event loop's alone. Every function may be called from inside a callback,
 * except tiered_uplink_destroy.
 */
#ifndef TIERED_CORE_UPLINK_H
#define TIERED_CORE_UPLINK_H

#include "core/link/blocks.h"

struct tiered_uplink;
struct tiered_uplink_config {
    struct tiered_loop *loop;
    struct tiered_net *net;
    const char *address, *run, *node, *agent, *token, *folder; /* copied; node "": the
        agent itself; folder: where a large model is put while it is pulled */
    uint64_t generation;
    uint64_t silence_ms; /* a parent that was silent for so long is lost */
};

struct tiered_uplink_owner {
    void (*connected)(void *user);
    void (*lost)(void *user, const char *why);
    /** The parent turned our session away. It is dialled again all the same. */
    void (*refused)(void *user, enum tiered_code code, const char *reason);
    /** A session frame other than Welcome, Refusal and Heartbeat. */
    void (*frame)(void *user, const struct tiered_frame *frame);
    /** Fill a heartbeat's nodes; may be NULL. Everything is borrowed until it returns.
     */
    void (*heartbeat)(void *user, Tiered__V1__Heartbeat *heartbeat);
    /** The pulled model, verified against its head and sealed; the owner takes it over.
        NULL: refused for good, and why. */
    void (*pulled)(void *user, const struct tiered_digest *model,
                   struct tiered_encoded *encoded, const char *reason);
    /** A pulled model cannot be stored here: a disk that is full, say. It is pulled
        again all the same. May be NULL. */
    void (*broken)(void *user, const struct tiered_error *err);
    /** The push's verdict. */
    void (*pushed)(void *user, const struct tiered_path *path, bool accepted,
                   bool settled, const char *reason);
};

int tiered_uplink_create(const struct tiered_uplink_config *config,
                         const struct tiered_uplink_owner *owner, void *user,
                         struct tiered_uplink **ret, struct tiered_error *err);
void tiered_uplink_destroy(struct tiered_uplink *uplink);
bool tiered_uplink_connected(const struct tiered_uplink *uplink);

/** -1 when there is no session: say it again from connected(). */
int tiered_uplink_send(struct tiered_uplink *uplink, const struct tiered_path *path,
                       Tiered__V1__Frame *frame, struct tiered_error *err);
/** Remembered, and said again at each connection. */
void tiered_uplink_ready(struct tiered_uplink *uplink, bool ready, const char *missing);
/** Fetch a model. A second call replaces the first. `have`: the content of a model at
    hand, which the link's filters may refer to; NULL: none. */
void tiered_uplink_pull(struct tiered_uplink *uplink, const struct tiered_digest *model,
                        const struct tiered_digest *have);
/** Deliver an update (referenced). A second call replaces the first, and changes
   nothing when it is of the same update. */
void tiered_uplink_push(struct tiered_uplink *uplink, const struct tiered_path *path,
                        struct tiered_encoded *encoded);
void tiered_uplink_cancel_push(struct tiered_uplink *uplink);
/** Encoded bytes sent and received since the beginning. */
void tiered_uplink_bytes(const struct tiered_uplink *uplink, uint64_t *ret_up,
                         uint64_t *ret_down);

TIERED_DEFINE_FREE(struct tiered_uplink, tiered_uplink_destroy)

/** A pull on its own: how the orchestrator fetches models. Retried until it succeeds or
    is refused; `done` is called once, unless stopped before. */
struct tiered_pull;
struct tiered_pull_config {
    struct tiered_loop *loop;
    struct tiered_net *net;
    const char *address, *folder, *token; /* borrowed */
    struct tiered_frame_context context;  /* strings borrowed */
    struct tiered_digest model, have;     /* have: a model at hand, or none */
    bool plain;                           /* without the link's filters */
    void (*broken)(void *user, const struct tiered_error *err); /* as an uplink's */
};
int tiered_pull_start(const struct tiered_pull_config *config,
                      void (*done)(void *user, struct tiered_encoded *encoded,
                                   const char *reason),
                      void *user, struct tiered_pull **ret, struct tiered_error *err);
void tiered_pull_stop(struct tiered_pull *pull);
/** When it waits to be retried: now. */
void tiered_pull_hurry(struct tiered_pull *pull);
uint64_t tiered_pull_bytes(const struct tiered_pull *pull);

#endif
