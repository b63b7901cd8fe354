/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The parent's side of links. A server listens for one agent (or the orchestrator) and
 * hands each stream to the downlink whose child it names; a downlink keeps the
 * children's sessions, takes their pushes and serves their pulls. It knows nothing of
 * rounds.
 *
 * What a peer sends is checked before it is believed: protocol, run, join token,
 * generation, the child's name, block order, checksums, size and digest. A peer that
 * breaks a rule gets a Refusal with the reason and is cut off; nobody else notices.
 *
 * A push that was cut off is kept, and goes on at the first block that is missing when
 * the child pushes the same update (same head, so the same bytes) again.
 *
 * Threads: the event loop's alone. Every function may be called from inside a callback,
 * except the two destroyers.
 */
#ifndef TIERED_CORE_DOWNLINK_H
#define TIERED_CORE_DOWNLINK_H

#include "core/link/blocks.h"

struct tiered_server;
struct tiered_server_config {
    struct tiered_loop *loop;
    struct tiered_net *net;
    const char *address, *run, *token; /* copied */
    uint64_t generation;
    uint64_t heartbeat_ms; /* how often peers shall speak */
    uint64_t silence_ms;   /* a peer that was silent for so long is lost */
};
int tiered_server_create(const struct tiered_server_config *config,
                         struct tiered_server **ret, struct tiered_error *err);
/** After its downlinks. */
void tiered_server_destroy(struct tiered_server *server);

struct tiered_downlink;
struct tiered_push; /* one child's push, being offered, received or judged */

/** What a pull asks for. */
struct tiered_wanted {
    struct tiered_digest model;
    bool plain;                /* without the link's filters */
    struct tiered_digest have; /* the content of a model at hand that filters may refer
                                  to, or none */
};

struct tiered_downlink_owner {
    /** The child can take orders, or not (its link is down: `missing` says why). */
    void (*ready)(void *user, uint32_t child, bool ready, const char *missing);
    /** A session frame other than Hello, Ready and Heartbeat. */
    void (*frame)(void *user, uint32_t child, const struct tiered_frame *frame);
    void (*heartbeat)(void *user, uint32_t child, const struct tiered_frame *frame);
    /** The child wants to push an update. Before returning, call one of
        tiered_push_receive, tiered_push_settled, tiered_push_done. */
    void (*offer)(void *user, uint32_t child, struct tiered_push *push,
                  const struct tiered_frame *frame, const Tiered__V1__Head *head);
    /** Room for an update. The downlink gives it back by discard() or by received(). */
    int (*store)(void *user, const Tiered__V1__Head *head, struct tiered_encoded **ret,
                 struct tiered_error *err);
    void (*discard)(void *user, struct tiered_encoded *encoded);
    /** An update cannot be stored here: a disk that is full, say. Its child is refused
        and will push again. May be NULL. */
    void (*broken)(void *user, const struct tiered_error *err);
    /** All blocks are here and verified. The owner takes `encoded` over, and later
       calls tiered_push_done. */
    void (*received)(void *user, uint32_t child, struct tiered_push *push,
                     struct tiered_encoded *encoded);
    /** The encoded model, with a reference: 1. Being made: 0, and then
        tiered_downlink_model() follows. Unknown: -1. */
    int (*model)(void *user, const struct tiered_wanted *wanted,
                 struct tiered_encoded **ret);
};

/** `children` in canonical order, copied. A child named "@NAME" is the session of agent
    NAME itself. `owner` is borrowed. */
int tiered_downlink_create(struct tiered_server *server, const char *const *children,
                           uint32_t n_children,
                           const struct tiered_downlink_owner *owner, void *user,
                           struct tiered_downlink **ret, struct tiered_error *err);
void tiered_downlink_destroy(struct tiered_downlink *downlink);

/** Send a frame on a child's session; -1 when it has none (it will be told on return).
 */
int tiered_downlink_send(struct tiered_downlink *downlink, uint32_t child,
                         const struct tiered_path *path, Tiered__V1__Frame *frame,
                         struct tiered_error *err);
int tiered_downlink_order(struct tiered_downlink *downlink, uint32_t child,
                          Tiered__V1__Order__Kind kind, const struct tiered_path *path,
                          const struct tiered_digest *model);
/** An order to train, with the norm that an adaptive clip bounds the update to; 0: none
    does. */
int tiered_downlink_train(struct tiered_downlink *downlink, uint32_t child,
                          const struct tiered_path *path,
                          const struct tiered_digest *model, double norm);
int tiered_downlink_settle(struct tiered_downlink *downlink, uint32_t child,
                           const struct tiered_path *path, bool counted,
                           const char *reason);
/** A model that pulls wait for is made: the owner is asked again for each of them. With
    a reason it could not be made, and they are turned away. */
void tiered_downlink_model(struct tiered_downlink *downlink,
                           const struct tiered_digest *digest, const char *reason);
/** Cut the child's session and transfers off. */
void tiered_downlink_drop(struct tiered_downlink *downlink, uint32_t child,
                          enum tiered_code code, const char *reason);
const char *tiered_downlink_child(const struct tiered_downlink *downlink,
                                  uint32_t child);
bool tiered_downlink_connected(const struct tiered_downlink *downlink, uint32_t child);
/** When the child was last heard of (tiered_now_ms), 0: never. */
uint64_t tiered_downlink_last_seen(const struct tiered_downlink *downlink,
                                   uint32_t child);
/** Encoded bytes received and sent since the beginning. */
void tiered_downlink_bytes(const struct tiered_downlink *downlink, uint64_t *ret_up,
                           uint64_t *ret_down);

/** Take the update. The push may be gone when this returns (no room for it), or be
    received whole already (an update of no blocks). */
void tiered_push_receive(struct tiered_push *push);
/** Nothing to send: that contribution is settled already. */
void tiered_push_settled(struct tiered_push *push);
/** The verdict; frees the push, as tiered_push_settled() does. Once received() was
    called, the push lasts until this, whatever becomes of its child. */
void tiered_push_done(struct tiered_push *push, bool accepted, enum tiered_code code,
                      const char *reason);
struct tiered_path tiered_push_path(const struct tiered_push *push);
uint32_t tiered_push_child(const struct tiered_push *push);

TIERED_DEFINE_FREE(struct tiered_server, tiered_server_destroy)
TIERED_DEFINE_FREE(struct tiered_downlink, tiered_downlink_destroy)

#endif
