/* SPDX-License-Identifier: Apache-2.0 */
/* Serving models: a pull waits until its model is encoded, then gets head and blocks.
 */
#include "core/link/inside.h"

static void pull_free(struct pull_out *pull)
{
    struct pull_out **at = &pull->downlink->pulls;
    while (*at != pull) {
        at = &(*at)->next;
    }
    *at = pull->next;
    tiered_sender_stop(pull->sender);
    tiered_conn_close(pull->conn);
    free(pull);
}

void link_pulls_forget(struct tiered_downlink *downlink)
{
    while (downlink->pulls) {
        pull_free(downlink->pulls);
    }
}

void link_pulls_cut(struct link_child *child)
{
    struct pull_out *next;
    for (struct pull_out *pull = child->downlink->pulls; pull; pull = next) {
        next = pull->next;
        if (strcmp(pull->node, child->name) == 0) {
            pull_free(pull);
        }
    }
}

static void pull_closed(void *user, enum tiered_stream_end end,
                        const struct tiered_error *err)
{
    (void)end;
    (void)err;
    pull_free(user);
}

static const struct tiered_conn_handler pull_handler = {.on_closed = pull_closed};

static void count_bytes(void *user, size_t bytes)
{
    struct pull_out *pull = user;
    if (pull->node[0]) { /* an observer is no child: its bytes are not the round's */
        pull->downlink->bytes_down += bytes;
    }
}

static void turn_away(struct pull_out *pull, enum tiered_code code, const char *reason)
{
    struct tiered_conn *conn = TIERED_STEAL(pull->conn);
    link_turn_away(pull->downlink->server, conn, pull->node, code, reason);
    pull_free(pull);
}

static void pull_start(struct pull_out *pull, struct tiered_encoded *encoded)
{
    struct tiered_error err;
    struct tiered_frame_context context =
        link_context(pull->downlink, pull->node, NULL);
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_HEAD;
    frame.head = (Tiered__V1__Head *)tiered_encoded_head(encoded);
    if (pull->first > frame.head->n_blocks) {
        turn_away(pull, TIERED_EPEER, "no such block in this model");
        return;
    }
    if (tiered_link_send(pull->conn, &context, &frame, &err) < 0 ||
        tiered_sender_start(pull->conn, encoded, pull->first, &context, true,
                            count_bytes, pull, &pull->sender, &err) < 0) {
        turn_away(pull, err.code, err.text);
    }
}

struct tiered_wanted link_wanted(const Tiered__V1__Pull *pull)
{
    struct tiered_wanted wanted = {.plain = pull->plain};
    tiered_wire_digest(&pull->model, &wanted.model, NULL);
    tiered_wire_digest(&pull->have, &wanted.have, NULL);
    return wanted;
}

void link_pull_begin(struct tiered_downlink *downlink, const char *node,
                     struct tiered_conn *conn, const struct tiered_frame *frame)
{
    const struct tiered_wanted wanted = link_wanted(frame->pb->pull);
    struct tiered_encoded *encoded = NULL;
    /* before there is a pull that this call may cut off */
    int has = downlink->owner->model(downlink->user, &wanted, &encoded);
    struct pull_out *pull = calloc(1, sizeof(*pull));
    if (!pull) {
        tiered_encoded_unref(encoded);
        tiered_conn_close(conn);
        return;
    }
    pull->downlink = downlink;
    pull->conn = conn;
    pull->wanted = wanted;
    pull->first = frame->pb->pull->next_block;
    snprintf(pull->node, sizeof(pull->node), "%s", node);
    pull->next = downlink->pulls;
    downlink->pulls = pull;
    tiered_conn_set_handler(conn, &pull_handler, pull);
    if (has < 0) {
        turn_away(pull, TIERED_ENOENT, "no such model here");
    } else if (has > 0) {
        pull_start(pull, encoded);
        tiered_encoded_unref(encoded);
    }
}

void tiered_downlink_model(struct tiered_downlink *downlink,
                           const struct tiered_digest *digest, const char *reason)
{
    struct pull_out *next;
    for (struct pull_out *pull = downlink->pulls; pull; pull = next) {
        next = pull->next;
        if (pull->sender || !tiered_digest_equal(&pull->wanted.model, digest)) {
            continue;
        }
        struct tiered_encoded *encoded = NULL;
        int has = reason
                      ? 0
                      : downlink->owner->model(downlink->user, &pull->wanted, &encoded);
        if (reason) {
            turn_away(pull, TIERED_EIO, reason);
        } else if (has > 0) {
            pull_start(pull, encoded);
            tiered_encoded_unref(encoded);
        } else if (has < 0) {
            turn_away(pull, TIERED_ENOENT, "no such model here");
        }
    }
}
