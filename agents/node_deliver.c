/* SPDX-License-Identifier: Apache-2.0 */
/* An update on its way up: filtered, masked where the parent has a group, and into the
   outbox. */
#include "agents/member.h"

struct deliver_job {
    struct node_job job;
    struct node_update update;
    double norm;              /* the parent's, of the order */
    uint64_t serial, attempt; /* the order's, and of the group */
    struct tiered_encoded *encoded;
    uint64_t released; /* of the pipe's noise, this update's included */
};

void node_tell_released(struct node *node, uint64_t released)
{
    if (released) {
        agent_event(node->agent, "noise_released",
                    json_pack("{s:s, s:s, s:I}", "node", node->as->node, "tier",
                              node->as->tier, "releases", (json_int_t)released));
    }
}

static int make_outbox_entry(void *user, Tiered__V1__Head *head,
                             struct tiered_encoded **ret, struct tiered_error *err)
{
    struct deliver_job *d = user;
    struct node_head_space space;
    head->base_model.data = d->update.base->digest.bytes;
    head->base_model.len = sizeof(d->update.base->digest.bytes);
    if (!tiered_digest_is_none(&d->update.model->digest)) {
        head->content.data = d->update.model->digest.bytes;
        head->content.len = sizeof(d->update.model->digest.bytes);
    }
    head->num_examples = d->update.num_examples;
    head->local_steps = d->update.local_steps;
    head->a_norm = d->update.a_norm;
    node_fill_metrics(&d->update.metrics, &space, &head->n_metrics, &head->metrics);
    pthread_mutex_lock(&d->job.node->outbox_lock);
    int result =
        tiered_outbox_begin(d->job.node->outbox, &d->update.path, head, ret, err);
    pthread_mutex_unlock(&d->job.node->outbox_lock);
    head->n_metrics = 0;
    head->metrics = NULL;
    head->base_model = head->content = (ProtobufCBinaryData){0};
    return result;
}

static int make_in_memory(void *user, Tiered__V1__Head *head,
                          struct tiered_encoded **ret, struct tiered_error *err)
{
    (void)user;
    return tiered_encoded_begin(head, NULL, ret, err);
}

/* What a group masks: the filters before it keep a block's values where they are. */
static int filtered_delta(const struct deliver_job *d, struct tiered_pipe *pipe,
                          struct tiered_encode_job *job, struct tiered_model **ret,
                          struct tiered_error *err)
{
    struct tiered_layout *layout = d->update.model->layout;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *encoded = NULL;
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *delta = NULL;
    job->make = make_in_memory;
    if (tiered_pipe_encode(pipe, job, &encoded, err) < 0 ||
        tiered_encoded_seal(encoded, false, err) < 0 ||
        !(delta = tiered_model_create_raw(layout, err))) {
        return -1;
    }
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        size_t size;
        uint32_t crc;
        tiered_encoded_block(encoded, i, &size, &crc);
        if (size != block->size_bytes) {
            return tiered_fail(err, TIERED_EINVAL,
                               "a filter before the group changed the size of a block");
        }
        if (tiered_encoded_read(encoded, i, delta->data + block->offset_bytes, size,
                                err) < 0) {
            return -1;
        }
    }
    *ret = TIERED_STEAL(delta);
    return 0;
}

static int mask(struct deliver_job *d, struct tiered_pipe *pipe,
                struct tiered_encode_job *job, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *delta = NULL;
    if (filtered_delta(d, pipe, job, &delta, err) < 0) {
        return -1;
    }
    const struct member_update update = {.attempt = d->attempt,
                                         .delta = delta,
                                         .within = tiered_pipe_within(pipe),
                                         .path = &d->update.path,
                                         .base = &d->update.base->digest,
                                         .num_examples = d->update.num_examples};
    return member_mask(d->job.node->member, &update, &d->encoded, err);
}

/* The filters go on from what the newest update before this one made of them. */
static int load_pipe(struct node *node, const struct tiered_path *path,
                     struct tiered_pipe *pipe, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes state = {0};
    if (!tiered_pipe_has_state(pipe)) {
        return 0;
    }
    pthread_mutex_lock(&node->outbox_lock);
    int result = tiered_outbox_state(node->outbox, path, &state, err);
    pthread_mutex_unlock(&node->outbox_lock);
    return result < 0 ? -1 : tiered_pipe_load(pipe, state.data, state.size, err);
}

/* One update of a round, and of an attempt at it, ever leaves: where another order had
   one made meanwhile, that is it, and its noise. */
static int commit(struct deliver_job *d, const struct tiered_bytes *state,
                  struct tiered_error *err)
{
    struct node *node = d->job.node;
    int result = 0;
    pthread_mutex_lock(&node->outbox_lock);
    struct tiered_encoded *made = d->attempt == node->outbox_attempt
                                      ? tiered_outbox_get(node->outbox, &d->update.path)
                                      : NULL;
    if (made) {
        tiered_encoded_unref(d->encoded);
        d->encoded = made;
    } else if (d->attempt < node->outbox_attempt) {
        result = tiered_fail(err, TIERED_ESTATE,
                             "an update of a newer attempt at its round is made");
    } else {
        result = tiered_outbox_commit(node->outbox, &d->update.path, d->encoded,
                                      state->data, state->size, err);
        node->outbox_attempt = result == 0 ? d->attempt : node->outbox_attempt;
    }
    pthread_mutex_unlock(&node->outbox_lock);
    return result;
}

/* Filters, then the outbox: nothing leaves before it stands there, durable. */
static int deliver(struct deliver_job *d, struct tiered_error *err)
{
    struct node *node = d->job.node;
    struct tiered_hosting hosting;
    char path[192];
    tiered_path_text(&d->update.path, path);
    tiered_hosting_init(&hosting, node->hosting.run_seed, "pipe", node->as->tier,
                        node->as->node, path);
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    if (tiered_pipe_create(node->up, node->n_up, d->update.model->layout, &hosting,
                           &pipe, err) < 0 ||
        load_pipe(node, &d->update.path, pipe, err) < 0) {
        return -1;
    }
    struct tiered_encode_job job = {
        .data = d->update.model->data,
        .base = d->update.base->data,
        .norm = d->norm,
        .hosting = &hosting,
        .pool = node->agent->workers,
        .make = make_outbox_entry,
        .user = d,
    };
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes state = {0};
    if ((node->member ? mask(d, pipe, &job, err)
                      : tiered_pipe_encode(pipe, &job, &d->encoded, err)) < 0 ||
        tiered_pipe_save(pipe, &state, err) < 0) {
        return -1;
    }
    d->released = tiered_pipe_released(pipe);
    return commit(d, &state, err);
}

static void deliver_run(struct node_job *job)
{
    job->result = deliver((struct deliver_job *)job, &job->err);
}

static void count_traffic(struct deliver_job *d)
{
    struct node *node = d->job.node;
    if (node->member) {
        traffic_add_masked(&node->traffic_up, d->update.model->layout,
                           node->as->n_uplink, d->encoded);
    } else {
        traffic_add(&node->traffic_up, d->encoded);
    }
}

static void deliver_done(struct node_job *job)
{
    struct deliver_job *d = (struct deliver_job *)job;
    struct node *node = job->node;
    bool wanted =
        !node->closing && node->train.active && node->train.serial == d->serial;
    if (job->result == 0) {
        node_tell_released(node, d->released);
    }
    if (wanted) {
        node->train.active = false;
        if (job->result == 0) {
            node->delivering_path = d->update.path;
            count_traffic(d);
            tiered_uplink_push(node->uplink, &d->update.path, d->encoded);
        } else if (job->err.code == TIERED_EIO) { /* our disk: no round can go on */
            agent_node_failed(node->agent, node->as->node, &job->err);
        } else {
            node_failed(node, &d->update.path, &job->err, false);
        }
    }
    tiered_encoded_unref(d->encoded);
    tiered_model_unref(d->update.base);
    tiered_model_unref(d->update.model);
    free(d);
    node_pump(node);
}

void node_deliver(struct node *node, const struct node_update *update)
{
    bool ordered =
        node->train.active && tiered_path_equal(&node->train.path, &update->path);
    if (node->member && !ordered) {
        return; /* it would use masks up; the order comes again when it may */
    }
    struct deliver_job *d = calloc(1, sizeof(*d));
    if (!d) {
        abort();
    }
    d->update = *update;
    d->norm = node->train.norm;
    d->serial = ordered ? node->train.serial : 0;
    d->attempt = node->member ? member_attempt(node->member) : 0;
    node->train.delivering = node->train.delivering || ordered;
    tiered_model_ref(d->update.base);
    tiered_model_ref(d->update.model);
    d->job.run = deliver_run;
    d->job.done = deliver_done;
    node_submit(node, node->agent->workers, &d->job);
}
