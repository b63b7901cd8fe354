/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Sending an encoded object's blocks over a stream, a few at a time: what both a push
 * (child) and a pull (parent) do. At most a window of blocks is on its way to the
 * transport, so memory is bounded whatever the peer does.
 *
 * Threads: the event loop's alone.
 */
#ifndef TIERED_CORE_LINK_BLOCKS_H
#define TIERED_CORE_LINK_BLOCKS_H

#include "core/net/net.h"
#include "core/spool/encoded.h"

/** Who is on the other end, as every frame says it. Strings are borrowed. */
struct tiered_frame_context {
    const char *run, *node;
    uint64_t generation;
    struct tiered_path path;
};

/** Pack and send one frame; its data, which is small (a phase's message), is copied. */
int tiered_link_send(struct tiered_conn *conn,
                     const struct tiered_frame_context *context,
                     Tiered__V1__Frame *frame, struct tiered_error *err);
/** A reason as it may travel: what is no UTF-8 becomes '?', what is too long is cut. */
#define TIERED_LINK_TEXT 1024
void tiered_link_text(const char *text, char out[TIERED_LINK_TEXT + 1]);
/** The same head in every field: what follows it are the same blocks of the same
    update. */
bool tiered_head_equal(const Tiered__V1__Head *a, const Tiered__V1__Head *b);
/** Send a Refusal, then half-close. */
void tiered_link_refuse(struct tiered_conn *conn,
                        const struct tiered_frame_context *context,
                        enum tiered_code code, const char *reason);

struct tiered_sender;
/** Send blocks `first` … of `encoded` (referenced), then half-close when `close_after`.
    The context's strings must outlive the sender; `sent` (may be NULL) is called with
    each block's size. A block that cannot be read is logged and the stream half-closed
    in front of it, which the peer takes for a cut. */
int tiered_sender_start(struct tiered_conn *conn, struct tiered_encoded *encoded,
                        uint32_t first, const struct tiered_frame_context *context,
                        bool close_after, void (*sent)(void *user, size_t bytes),
                        void *user, struct tiered_sender **ret,
                        struct tiered_error *err);
/** Send nothing more; before the connection is closed. Takes NULL. */
void tiered_sender_stop(struct tiered_sender *sender);

#endif
