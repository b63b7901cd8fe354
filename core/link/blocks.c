/* SPDX-License-Identifier: Apache-2.0 */
/* Frames and blocks out. A block in flight holds a reference on its sender, because the
   transport may finish with the bytes long after the sender was stopped. */
#include "core/link/blocks.h"

#include "core/base/log.h"
#include "core/value/text.h"

#define WINDOW 4

struct tiered_sender {
    struct tiered_conn *conn; /* NULL once stopped */
    struct tiered_encoded *encoded;
    struct tiered_frame_context context;
    uint32_t next, n_blocks;
    unsigned in_flight, refs;
    bool close_after, feeding;
    void (*sent)(void *user, size_t bytes);
    void *user;
};

struct flight {
    struct tiered_sender *sender;
    void *buffer; /* NULL when the block was borrowed from memory */
};

static void fill_context(Tiered__V1__Frame *frame,
                         const struct tiered_frame_context *context)
{
    frame->run = (char *)context->run;
    frame->node = (char *)context->node;
    frame->generation = context->generation;
    frame->n_path = context->path.depth;
    frame->path = (uint32_t *)context->path.n;
}

int tiered_link_send(struct tiered_conn *conn,
                     const struct tiered_frame_context *context,
                     Tiered__V1__Frame *frame, struct tiered_error *err)
{
    uint8_t *head = NULL;
    size_t size = 0;
    ProtobufCBinaryData body = frame->data;
    fill_context(frame, context);
    frame->data = (ProtobufCBinaryData){0};
    int packed = tiered_frame_pack(frame, body.len, &head, &size, err);
    frame->data = body;
    if (packed < 0) {
        return -1;
    }
    if (body.len > 0) { /* a phase's message: small, so it is joined */
        uint8_t *whole = realloc(head, size + body.len);
        if (!whole) {
            free(head);
            return tiered_fail(err, TIERED_ENOMEM, "out of memory for a frame");
        }
        memcpy(whole + size, body.data, body.len);
        head = whole;
        size += body.len;
    }
    const struct tiered_outgoing out = {.head = head, .head_size = size};
    int result = tiered_conn_send(conn, &out, err);
    free(head);
    return result;
}

void tiered_link_text(const char *text, char out[TIERED_LINK_TEXT + 1])
{
    const char *end = text + strlen(text);
    size_t used = 0;
    while (text < end) {
        size_t n = tiered_utf8_length(text, end);
        if (used + (n ? n : 1) > TIERED_LINK_TEXT) {
            break;
        }
        if (n == 0) {
            out[used++] = '?';
            text++;
            continue;
        }
        memcpy(out + used, text, n);
        used += n;
        text += n;
    }
    out[used] = '\0';
}

bool tiered_head_equal(const Tiered__V1__Head *a, const Tiered__V1__Head *b)
{
    size_t n = tiered__v1__head__get_packed_size(a);
    if (n != tiered__v1__head__get_packed_size(b) || a->encoded.len != b->encoded.len ||
        (a->encoded.len &&
         memcmp(a->encoded.data, b->encoded.data, a->encoded.len) != 0)) {
        return false; /* the usual case, without packing large tables */
    }
    TIERED_FREE uint8_t *one = malloc(n + 1);
    TIERED_FREE uint8_t *other = malloc(n + 1);
    return one && other && tiered__v1__head__pack(a, one) == n &&
           tiered__v1__head__pack(b, other) == n && memcmp(one, other, n) == 0;
}

void tiered_link_refuse(struct tiered_conn *conn,
                        const struct tiered_frame_context *context,
                        enum tiered_code code, const char *reason)
{
    Tiered__V1__Refusal refusal = TIERED__V1__REFUSAL__INIT;
    char text[TIERED_LINK_TEXT + 1];
    tiered_link_text(reason, text);
    refusal.code = code;
    refusal.reason = text;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_REFUSAL;
    frame.refusal = &refusal;
    tiered_link_send(conn, context, &frame, NULL);
    tiered_conn_half_close(conn, NULL);
}

static void sender_unref(struct tiered_sender *s)
{
    if (--s->refs == 0) {
        tiered_encoded_unref(s->encoded);
        free(s);
    }
}

static void feed(struct tiered_sender *s);

static void block_done(void *opaque)
{
    struct flight *flight = opaque;
    struct tiered_sender *s = flight->sender;
    free(flight->buffer);
    free(flight);
    s->in_flight--;
    if (s->conn) {
        feed(s);
    }
    sender_unref(s);
}

/* The block's bytes where they lie, or read into a buffer of the flight's. */
static const void *block_bytes(struct tiered_sender *s, struct flight *flight,
                               size_t size, struct tiered_error *err)
{
    const void *bytes = tiered_encoded_borrow(s->encoded, s->next);
    if (bytes) {
        return bytes;
    }
    flight->buffer = malloc(size ? size : 1);
    if (!flight->buffer) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    return tiered_encoded_read(s->encoded, s->next, flight->buffer, size, err) < 0
               ? NULL
               : flight->buffer;
}

/* Pack the block's frame around the flight's bytes and hand both to the transport. */
static int send_flight(struct tiered_sender *s, struct flight *flight, size_t *ret_size,
                       struct tiered_error *err)
{
    Tiered__V1__Block block = TIERED__V1__BLOCK__INIT;
    block.index = s->next;
    tiered_encoded_block(s->encoded, s->next, ret_size, &block.crc32c);
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_BLOCK;
    frame.block = &block;
    fill_context(&frame, &s->context);
    TIERED_FREE uint8_t *head = NULL;
    struct tiered_outgoing out = {.done = block_done, .opaque = flight};
    out.body = block_bytes(s, flight, *ret_size, err);
    out.body_size = *ret_size;
    if (!out.body ||
        tiered_frame_pack(&frame, *ret_size, &head, &out.head_size, err) < 0) {
        return -1;
    }
    out.head = head;
    s->refs++; /* before send(): done() may come at once */
    s->in_flight++;
    int result = tiered_conn_send(s->conn, &out, err);
    if (result < 0) {
        s->in_flight--;
        s->refs--; /* feed() holds another */
    }
    return result;
}

static int send_block(struct tiered_sender *s, struct tiered_error *err)
{
    struct flight *flight = calloc(1, sizeof(*flight));
    if (!flight) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    flight->sender = s;
    size_t size;
    if (send_flight(s, flight, &size, err) < 0) {
        free(flight->buffer);
        free(flight);
        return -1;
    }
    if (s->sent) {
        s->sent(s->user, size);
    }
    return 0;
}

/* A stream that is broken says so by itself, in on_closed. A block that cannot be read
   would leave both ends waiting: what comes no more is said by a half-close. */
static void give_up(struct tiered_sender *s, const struct tiered_error *err)
{
    s->n_blocks = s->next;
    s->close_after = false;
    if (err->code != TIERED_ESTATE) {
        const struct tiered_log_context where = {.node = s->context.node};
        tiered_log(TIERED_LOG_WARN, "link", &where, "cannot send block %u: %s", s->next,
                   err->text);
    }
    tiered_conn_half_close(s->conn, NULL);
}

static void feed(struct tiered_sender *s)
{
    if (s->feeding) {
        return; /* done() came from inside send() */
    }
    s->feeding = true;
    s->refs++;
    struct tiered_error err;
    while (s->conn && s->next < s->n_blocks && s->in_flight < WINDOW) {
        if (send_block(s, &err) < 0) {
            give_up(s, &err);
            break;
        }
        s->next++;
    }
    if (s->conn && s->next == s->n_blocks && s->close_after) {
        s->close_after = false;
        tiered_conn_half_close(s->conn, NULL);
    }
    s->feeding = false;
    sender_unref(s);
}

int tiered_sender_start(struct tiered_conn *conn, struct tiered_encoded *encoded,
                        uint32_t first, const struct tiered_frame_context *context,
                        bool close_after, void (*sent)(void *user, size_t bytes),
                        void *user, struct tiered_sender **ret,
                        struct tiered_error *err)
{
    struct tiered_sender *s = calloc(1, sizeof(*s));
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *s = (struct tiered_sender){
        .conn = conn,
        .encoded = tiered_encoded_ref(encoded),
        .context = *context,
        .next = first,
        .n_blocks = tiered_encoded_head(encoded)->n_blocks,
        .refs = 1,
        .close_after = close_after,
        .sent = sent,
        .user = user,
    };
    *ret = s;
    feed(s);
    return 0;
}

void tiered_sender_stop(struct tiered_sender *sender)
{
    if (sender) {
        sender->conn = NULL;
        sender_unref(sender);
    }
}
