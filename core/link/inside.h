/* SPDX-License-Identifier: Apache-2.0 */
/* What server.c, downlink.c, push_in.c and pull_out.c share; nobody else's business. */
#ifndef TIERED_CORE_LINK_INSIDE_H
#define TIERED_CORE_LINK_INSIDE_H

#include "core/link/downlink.h"

struct tiered_server {
    struct tiered_server_config config; /* strings owned */
    bool listening;
    struct tiered_downlink *downlinks;
    struct incoming *incoming; /* streams that have not said who they are, or are let go
                                */
};

struct pull_out {
    struct pull_out *next;
    struct tiered_downlink *downlink;
    struct tiered_conn *conn;
    struct tiered_wanted wanted;
    uint32_t first;
    char node[64];
    struct tiered_sender *sender; /* NULL while the model is being made */
};

struct link_child {
    const char *name;
    struct tiered_conn *session; /* NULL: not connected */
    struct tiered_downlink *downlink;
    uint64_t last_seen_ms;
    bool ready;
    struct tiered_push *push;       /* the one being received, or NULL */
    struct tiered_encoded *partial; /* what a cut push left */
    char peer[128];                 /* the session's proven identity */
};

struct tiered_downlink {
    struct tiered_downlink *next;
    struct tiered_server *server;
    const struct tiered_downlink_owner *owner;
    void *user;
    uint32_t n_children;
    struct link_child *children; /* by name */
    char *names;
    struct pull_out *pulls;
    struct tiered_push *pushes; /* all, judged and finished ones too */
    struct tiered_timer beat;
    uint64_t bytes_up, bytes_down;
};

struct tiered_push {
    struct tiered_push *next;
    struct tiered_downlink *downlink;
    struct link_child *child;
    struct tiered_conn *conn; /* NULL once the stream is gone */
    struct tiered_path path;
    const Tiered__V1__Head *offered; /* during offer() alone */
    struct tiered_encoded *encoded;  /* while receiving */
    bool waiting;                    /* for a slot: not told to send yet */
    uint64_t heard_ms;
    bool judged; /* received: the owner's until tiered_push_done */
};

/* A first frame has named its child: these take the connection over. */
void link_session_begin(struct link_child *child, struct tiered_conn *conn);
void link_push_begin(struct link_child *child, struct tiered_conn *conn,
                     const struct tiered_frame *frame);
void link_pull_begin(struct tiered_downlink *downlink, const char *node,
                     struct tiered_conn *conn, const struct tiered_frame *frame);
void link_pushes_forget(struct tiered_downlink *downlink);
/* Let waiting pushes begin where there is room; tell the others that they are heard. */
void link_pushes_tick(struct tiered_downlink *downlink);
void link_pulls_forget(struct tiered_downlink *downlink);
/* Without a session there are no transfers: cut the child's off. What has arrived waits
   for the child to come back. */
void link_pushes_cut(struct link_child *child);
void link_pulls_cut(struct link_child *child);
void link_partial_discard(struct link_child *child);
struct tiered_frame_context link_context(const struct tiered_downlink *downlink,
                                         const char *node,
                                         const struct tiered_path *path);
/* Half-close, and close once the peer has had the time to read what was sent. */
void link_let_go(struct tiered_server *server, struct tiered_conn *conn);
/* Refuse, log, let go. */
void link_turn_away(struct tiered_server *server, struct tiered_conn *conn,
                    const char *node, enum tiered_code code, const char *reason);
/* What a pull's frame asks for; its digests' sizes are checked. */
struct tiered_wanted link_wanted(const Tiered__V1__Pull *pull);
/* Unpack a message and release it; checks the run. On failure the peer is turned away.
 */
int link_unpack(struct tiered_server *server, struct tiered_message *message,
                struct tiered_frame *ret, struct tiered_error *err);

#endif
