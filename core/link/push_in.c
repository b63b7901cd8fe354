/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving an update: offered, judged by the owner, taken block by block into the
   owner's store, resumed after a cut.

   At most SLOTS updates of a downlink arrive at a time, so that the blocks in flight do
   not grow with the children. One that stalls gives its slot up: a slow child holds
   back nobody else. */
#include "core/link/inside.h"

#include "core/base/log.h"

#define ACK_EVERY  16 /* blocks */
#define SLOTS      4
#define STALLED_MS 2000 /* no block for so long */

static uint32_t index_of(const struct tiered_push *push)
{
    return (uint32_t)(push->child - push->downlink->children);
}

struct tiered_path tiered_push_path(const struct tiered_push *push)
{
    return push->path;
}

uint32_t tiered_push_child(const struct tiered_push *push)
{
    return index_of(push);
}

static void send_frame(struct tiered_push *push, Tiered__V1__Frame *frame)
{
    if (push->conn) {
        struct tiered_frame_context context =
            link_context(push->downlink, push->child->name, &push->path);
        tiered_link_send(push->conn, &context, frame, NULL);
    }
}

static void detach(struct tiered_push *push)
{
    if (push->child->push == push) {
        push->child->push = NULL;
    }
}

/* What has arrived so far waits for the child to come back with the same bytes. */
static void keep_partial(struct tiered_push *push)
{
    struct link_child *child = push->child;
    if (!push->encoded) {
        return;
    }
    link_partial_discard(child);
    child->partial = TIERED_STEAL(push->encoded);
}

void link_partial_discard(struct link_child *child)
{
    struct tiered_downlink *d = child->downlink;
    if (child->partial) {
        d->owner->discard(d->user, TIERED_STEAL(child->partial));
    }
}

static void admit(struct tiered_downlink *d);

static void push_free(struct tiered_push *push)
{
    struct tiered_downlink *d = push->downlink;
    struct tiered_push **at = &push->downlink->pushes;
    while (*at != push) {
        at = &(*at)->next;
    }
    *at = push->next;
    detach(push);
    if (push->encoded) {
        push->downlink->owner->discard(push->downlink->user, push->encoded);
    }
    tiered_conn_close(push->conn);
    free(push);
    admit(d);
}

void link_pushes_forget(struct tiered_downlink *downlink)
{
    for (struct tiered_push *p = downlink->pushes; p; p = p->next) {
        p->waiting = false; /* none may begin while the others go */
    }
    while (downlink->pushes) {
        push_free(downlink->pushes);
    }
}

void link_pushes_cut(struct link_child *child)
{
    if (child->push) {
        keep_partial(child->push);
        push_free(child->push);
    }
}

/* The stream is gone. A push that is being judged stays for its verdict. */
static void push_closed(void *user, enum tiered_stream_end end,
                        const struct tiered_error *err)
{
    (void)end;
    (void)err;
    struct tiered_push *push = user;
    tiered_conn_close(push->conn);
    push->conn = NULL;
    if (!push->judged) {
        keep_partial(push);
        push_free(push);
    }
}

/* One that says it will send no more, before everything is here, is cut too. */
static void push_half_closed(void *user)
{
    struct tiered_push *push = user;
    if (!push->judged) {
        push_closed(push, TIERED_END_BROKEN, NULL);
    }
}

/* Turn a peer away that broke the protocol, or whose update cannot be stored: what it
   sent is not kept, unless it is the owner's already. */
static void push_break(struct tiered_push *push, const struct tiered_error *err)
{
    const struct tiered_downlink *d = push->downlink;
    if (err->code == TIERED_EIO && d->owner->broken) {
        d->owner->broken(d->user, err);
    }
    struct tiered_conn *conn = TIERED_STEAL(push->conn);
    link_turn_away(push->downlink->server, conn, push->child->name, err->code,
                   err->text);
    if (!push->judged) {
        push_free(push);
    }
}

static void send_ack(struct tiered_push *push)
{
    Tiered__V1__PushAck ack = TIERED__V1__PUSH_ACK__INIT;
    ack.next_block = tiered_encoded_next(push->encoded);
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_ACK;
    frame.push_ack = &ack;
    send_frame(push, &frame);
}

static void receive_all(struct tiered_push *push)
{
    struct tiered_error err;
    if (tiered_encoded_seal(push->encoded, false, &err) < 0) {
        push_break(push, &err);
        return;
    }
    push->judged = true;
    detach(push);
    struct tiered_encoded *encoded = TIERED_STEAL(push->encoded);
    struct tiered_downlink *d = push->downlink;
    d->owner->received(d->user, index_of(push), push, encoded);
    admit(d);
}

static int receive_block(struct tiered_push *push, const struct tiered_frame *frame,
                         struct tiered_error *err)
{
    if (push->judged) {
        return tiered_fail(err, TIERED_EPEER, "the update was complete already");
    }
    if (frame->pb->body_case != TIERED__V1__FRAME__BODY_BLOCK || !push->encoded ||
        push->waiting) {
        return tiered_fail(err, TIERED_EPEER, "expected a block of the update");
    }
    const Tiered__V1__Block *block = frame->pb->block;
    if (tiered_encoded_append(push->encoded, block->index, block->crc32c,
                              frame->body_data, frame->body_size, err) < 0) {
        return -1;
    }
    push->downlink->bytes_up += frame->body_size;
    push->heard_ms = push->child->last_seen_ms = tiered_now_ms();
    return 0;
}

static void push_message(void *user, struct tiered_message *message)
{
    struct tiered_push *push = user;
    struct tiered_error err;
    struct tiered_frame frame;
    int result = link_unpack(push->downlink->server, message, &frame, &err);
    if (result == 0) {
        result = receive_block(push, &frame, &err);
        tiered_frame_finish(&frame);
    }
    message->release(message);
    if (result < 0) {
        push_break(push, &err);
        return;
    }
    uint32_t next = tiered_encoded_next(push->encoded);
    if (next == tiered_encoded_head(push->encoded)->n_blocks) {
        receive_all(push);
    } else if (next % ACK_EVERY == 0) {
        send_ack(push);
    }
}

static const struct tiered_conn_handler push_handler = {.on_message = push_message,
                                                        .on_half_closed =
                                                            push_half_closed,
                                                        .on_closed = push_closed};

void link_push_begin(struct link_child *child, struct tiered_conn *conn,
                     const struct tiered_frame *frame)
{
    struct tiered_downlink *d = child->downlink;
    const Tiered__V1__Head *head = frame->pb->push_begin->head;
    struct tiered_push *push = calloc(1, sizeof(*push));
    struct tiered_error err;
    if (!push || tiered_frame_path(frame->pb, &push->path, &err) < 0) {
        if (!push) {
            tiered_fail(&err, TIERED_ENOMEM, "out of memory");
        }
        free(push);
        link_turn_away(d->server, conn, child->name, err.code, err.text);
        return;
    }
    push->downlink = d;
    push->child = child;
    push->conn = conn;
    push->offered = head;
    link_pushes_cut(child); /* it came back before its old stream was seen to die */
    child->push = push;
    push->next = d->pushes;
    d->pushes = push;
    tiered_conn_set_handler(conn, &push_handler, push);
    d->owner->offer(d->user, (uint32_t)(child - d->children), push, frame, head);
}

static int take_store(struct tiered_push *push, struct tiered_error *err)
{
    struct tiered_downlink *d = push->downlink;
    struct link_child *child = push->child;
    /* the whole head: the same bytes may be another update, of another base */
    if (child->partial &&
        tiered_head_equal(tiered_encoded_head(child->partial), push->offered)) {
        push->encoded = TIERED_STEAL(child->partial);
        return 0;
    }
    link_partial_discard(child);
    return d->owner->store(d->user, push->offered, &push->encoded, err);
}

static void begin(struct tiered_push *push)
{
    Tiered__V1__PushReady ready = TIERED__V1__PUSH_READY__INIT;
    ready.next_block = tiered_encoded_next(push->encoded);
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_READY;
    frame.push_ready = &ready;
    push->waiting = false;
    push->heard_ms = tiered_now_ms();
    send_frame(push, &frame);
    if (ready.next_block == tiered_encoded_head(push->encoded)->n_blocks) {
        receive_all(push);
    }
}

/* Begin what waits, oldest first, while there are slots. Each beginning may end pushes
   and so come back here: the list is looked at anew. */
static void admit(struct tiered_downlink *d)
{
    for (;;) {
        uint64_t now = tiered_now_ms();
        unsigned busy = 0;
        struct tiered_push *oldest = NULL;
        for (struct tiered_push *p = d->pushes; p; p = p->next) {
            bool arriving = p->encoded && !p->waiting && now - p->heard_ms < STALLED_MS;
            busy += arriving ? 1 : 0;
            oldest = p->waiting ? p : oldest; /* the list has the newest first */
        }
        if (!oldest || busy >= SLOTS) {
            return;
        }
        begin(oldest);
    }
}

void link_pushes_tick(struct tiered_downlink *d)
{
    admit(d);
    for (struct tiered_push *p = d->pushes; p; p = p->next) {
        if (p->waiting) {
            send_ack(p); /* it is not forgotten */
        }
    }
}

void tiered_push_receive(struct tiered_push *push)
{
    struct tiered_error err;
    int result = take_store(push, &err);
    push->offered = NULL;
    if (result < 0) {
        push_break(push, &err);
        return;
    }
    push->waiting = true;
    admit(push->downlink);
}

/* The last frame has been queued: the stream ends when the peer has read it. */
static void push_finish(struct tiered_push *push)
{
    struct tiered_server *server = push->downlink->server;
    struct tiered_conn *conn = TIERED_STEAL(push->conn);
    if (!push->judged) { /* answered at the offer: what a cut left has no use */
        link_partial_discard(push->child);
    }
    push_free(push);
    if (conn) {
        link_let_go(server, conn);
    }
}

void tiered_push_settled(struct tiered_push *push)
{
    Tiered__V1__PushReady ready = TIERED__V1__PUSH_READY__INIT;
    ready.settled = true;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_READY;
    frame.push_ready = &ready;
    send_frame(push, &frame);
    push_finish(push);
}

void tiered_push_done(struct tiered_push *push, bool accepted, enum tiered_code code,
                      const char *reason)
{
    if (!accepted) {
        const struct tiered_log_context where = {.node = push->child->name};
        tiered_log(TIERED_LOG_WARN, "link", &where, "refused an update: %s", reason);
    }
    Tiered__V1__PushDone done = TIERED__V1__PUSH_DONE__INIT;
    done.accepted = accepted;
    done.code = code;
    char text[TIERED_LINK_TEXT + 1];
    tiered_link_text(reason, text);
    done.reason = text;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_PUSH_DONE;
    frame.push_done = &done;
    send_frame(push, &frame);
    push_finish(push);
}
