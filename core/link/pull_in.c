/* SPDX-License-Identifier: Apache-2.0 */
/* Fetching a model: pull, take head and blocks, and after a cut pull again from the
   first block that is missing. */
#include "core/link/uplink.h"

#include "core/base/log.h"

#define RETRY_MS   100
#define RETRY_MOST 5000
#define FILE_BYTES (16u << 20) /* more that is to be decoded waits for it in a file */
#define STALL_MS   30000       /* nothing arrives for so long: dial again */

struct tiered_pull {
    struct tiered_pull_config config;
    void (*done)(void *user, struct tiered_encoded *encoded, const char *reason);
    void *user;
    struct tiered_conn *conn;
    struct tiered_encoded *encoded;
    bool head_seen; /* on this connection */
    struct tiered_timer timer;
    uint64_t retry_ms, bytes;
};

static void dial(void *arg);

static void again(struct tiered_pull *pull)
{
    tiered_conn_close(TIERED_STEAL(pull->conn));
    tiered_loop_timer(pull->config.loop, &pull->timer, pull->retry_ms, dial, pull);
    pull->retry_ms = pull->retry_ms * 2 > RETRY_MOST ? RETRY_MOST : pull->retry_ms * 2;
}

static void stalled(void *arg)
{
    again(arg);
}

static void expect_more(struct tiered_pull *pull)
{
    tiered_loop_timer(pull->config.loop, &pull->timer, STALL_MS, stalled, pull);
}

/* The end: hand over the result. The callback may stop (free) the pull. */
static void finish(struct tiered_pull *pull, const char *reason)
{
    tiered_loop_cancel(pull->config.loop, &pull->timer);
    tiered_conn_close(TIERED_STEAL(pull->conn));
    struct tiered_encoded *encoded = TIERED_STEAL(pull->encoded);
    if (reason) {
        tiered_encoded_unref(encoded);
        encoded = NULL;
    }
    pull->done(pull->user, encoded, reason);
}

static int take_head(struct tiered_pull *pull, const Tiered__V1__Head *head,
                     struct tiered_error *err)
{
    pull->head_seen = true;
    if (pull->encoded && tiered_head_equal(head, tiered_encoded_head(pull->encoded))) {
        return 0; /* the blocks that follow go on where the last stream ended */
    }
    if (pull->encoded && tiered_encoded_next(pull->encoded) > 0) {
        /* the model is encoded anew: what we have does not fit what follows */
        tiered_encoded_unref(TIERED_STEAL(pull->encoded));
        return tiered_fail(err, TIERED_ESTATE, "the model was encoded anew");
    }
    tiered_encoded_unref(TIERED_STEAL(pull->encoded));
    char hex[65];
    TIERED_FREE char *path = NULL;
    tiered_digest_hex(&pull->config.model, hex);
    /* without filters what arrives becomes the model itself, so it is no copy of it */
    if (head->n_pipe && head->encoded_bytes > FILE_BYTES && pull->config.folder &&
        asprintf(&path, "%s/pull-%.16s.tmp", pull->config.folder, hex) < 0) {
        path = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return tiered_encoded_create(head, path, &pull->encoded, err);
}

static int take_frame(struct tiered_pull *pull, const struct tiered_frame *frame,
                      struct tiered_error *err)
{
    if (frame->pb->body_case == TIERED__V1__FRAME__BODY_HEAD && !pull->head_seen) {
        return take_head(pull, frame->pb->head, err);
    }
    if (frame->pb->body_case != TIERED__V1__FRAME__BODY_BLOCK || !pull->head_seen) {
        return tiered_fail(err, TIERED_EPEER, "expected a block of the model");
    }
    pull->bytes += frame->body_size;
    if (tiered_encoded_append(pull->encoded, frame->pb->block->index,
                              frame->pb->block->crc32c, frame->body_data,
                              frame->body_size, err) < 0) {
        return -1;
    }
    pull->retry_ms = RETRY_MS; /* only what gets on is retried quickly */
    return 0;
}

static void check_complete(struct tiered_pull *pull)
{
    if (!pull->head_seen || tiered_encoded_next(pull->encoded) <
                                tiered_encoded_head(pull->encoded)->n_blocks) {
        expect_more(pull);
        return;
    }
    struct tiered_error err;
    if (tiered_encoded_seal(pull->encoded, false, &err) < 0) {
        tiered_log(TIERED_LOG_WARN, "link", NULL, "a pulled model is damaged: %s",
                   err.text);
        tiered_encoded_unref(TIERED_STEAL(pull->encoded));
        pull->retry_ms = RETRY_MOST; /* all of it was for nothing */
        again(pull);
        return;
    }
    finish(pull, NULL);
}

static void on_message(void *user, struct tiered_message *message)
{
    struct tiered_pull *pull = user;
    struct tiered_error err;
    struct tiered_frame frame;
    int result = tiered_frame_unpack(message->data, message->size, &frame, &err);
    if (result == 0 && frame.pb->body_case == TIERED__V1__FRAME__BODY_REFUSAL) {
        char reason[256];
        /* a parent that has not seen our new session yet says ESTATE: ask again */
        bool final = frame.pb->refusal->code != TIERED_ESTATE;
        snprintf(reason, sizeof(reason), "%s", frame.pb->refusal->reason);
        tiered_frame_finish(&frame);
        message->release(message);
        if (final) {
            finish(pull, reason);
        } else {
            again(pull);
        }
        return;
    }
    if (result == 0) {
        result = take_frame(pull, &frame, &err);
        tiered_frame_finish(&frame);
    }
    message->release(message);
    if (result < 0) {
        tiered_log(TIERED_LOG_WARN, "link", NULL, "a pull was cut off: %s", err.text);
        if (err.code == TIERED_EIO && pull->config.broken) {
            pull->config.broken(pull->user, &err);
        }
        again(pull);
        return;
    }
    check_complete(pull);
}

/* Nothing more comes, and this was not all. */
static void on_half_closed(void *user)
{
    again(user);
}

static void on_closed(void *user, enum tiered_stream_end end,
                      const struct tiered_error *err)
{
    (void)end;
    (void)err;
    again(user);
}

static const struct tiered_conn_handler handler = {
    .on_message = on_message, .on_half_closed = on_half_closed, .on_closed = on_closed};

static void dial(void *arg)
{
    struct tiered_pull *pull = arg;
    const struct tiered_pull_config *config = &pull->config;
    pull->head_seen = false;
    if (tiered_net_open(config->net, config->address, TIERED_PULL, &handler, pull,
                        &pull->conn, NULL) < 0) {
        again(pull);
        return;
    }
    Tiered__V1__Pull request = TIERED__V1__PULL__INIT;
    request.model.data = (uint8_t *)config->model.bytes;
    request.model.len = sizeof(config->model.bytes);
    if (!tiered_digest_is_none(&config->have)) {
        request.have.data = (uint8_t *)config->have.bytes;
        request.have.len = sizeof(config->have.bytes);
    }
    request.plain = config->plain;
    request.next_block = pull->encoded ? tiered_encoded_next(pull->encoded) : 0;
    request.token = (char *)config->token;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_PULL;
    frame.pull = &request;
    if (tiered_link_send(pull->conn, &config->context, &frame, NULL) < 0) {
        again(pull);
        return;
    }
    tiered_conn_half_close(pull->conn, NULL);
    expect_more(pull);
}

int tiered_pull_start(const struct tiered_pull_config *config,
                      void (*done)(void *user, struct tiered_encoded *encoded,
                                   const char *reason),
                      void *user, struct tiered_pull **ret, struct tiered_error *err)
{
    struct tiered_pull *pull = calloc(1, sizeof(*pull));
    if (!pull) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    pull->config = *config;
    pull->done = done;
    pull->user = user;
    pull->retry_ms = RETRY_MS;
    *ret = pull;
    /* from the loop, so that done() never comes before the caller has *ret */
    tiered_loop_timer(config->loop, &pull->timer, 0, dial, pull);
    return 0;
}

void tiered_pull_stop(struct tiered_pull *pull)
{
    if (!pull) {
        return;
    }
    tiered_loop_cancel(pull->config.loop, &pull->timer);
    tiered_conn_close(pull->conn);
    tiered_encoded_unref(pull->encoded);
    free(pull);
}

void tiered_pull_hurry(struct tiered_pull *pull)
{
    if (pull && !pull->conn) {
        pull->retry_ms = RETRY_MS;
        tiered_loop_timer(pull->config.loop, &pull->timer, 0, dial, pull);
    }
}

uint64_t tiered_pull_bytes(const struct tiered_pull *pull)
{
    return pull->bytes;
}
