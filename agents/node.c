/* SPDX-License-Identifier: Apache-2.0 */
/* What leaf and inner node share: orders, the model at hand, the outbox. */
#include "agents/node.h"

#include "agents/member.h"
#include "agents/ways.h"

#include "core/base/log.h"

static const struct tiered_uplink_owner uplink_owner;

static struct tiered_log_context log_context(const struct node *node)
{
    return (struct tiered_log_context){.tier = node->as->tier, .node = node->as->node};
}

/* ---- jobs ---- */

static void job_done(void *arg)
{
    struct node_job *job = arg;
    struct agent *agent = job->node->agent;
    job->node->jobs--;
    job->done(job);
    agent_check_stopped(agent);
}

static void job_run(void *arg)
{
    struct node_job *job = arg;
    struct tiered_loop *loop = job->node->agent->loop;
    job->run(job);
    if (tiered_loop_post(loop, job_done, job) < 0) {
        abort(); /* crash-only: a lost answer would hang the round */
    }
}

int node_submit(struct node *node, struct tiered_pool *pool, struct node_job *job)
{
    job->node = node;
    node->jobs++;
    if (tiered_pool_submit(pool, job_run, job, &job->err) < 0) {
        node->jobs--;
        job->result = -1;
        job->done(job);
        return -1;
    }
    return 0;
}

/* ---- the model at hand ---- */

struct decode_job {
    struct node_job job;
    struct tiered_encoded *encoded;
    struct tiered_digest digest;
    struct tiered_model *model, *reference; /* reference: what was at hand before */
};

static void decode_run(struct node_job *job)
{
    struct decode_job *d = (struct decode_job *)job;
    struct node *node = job->node;
    job->result = tiered_decode_model(node->down, node->n_down, &node->hosting,
                                      d->reference, TIERED_STEAL(d->encoded),
                                      node->agent->workers, &d->model, &job->err);
}

/* This model cannot be read: whoever waits for it is told. */
static void no_model(struct node *node, const struct tiered_digest *model,
                     const struct tiered_error *err)
{
    const struct tiered_metrics none = {0};
    if (node->train.active && tiered_digest_equal(&node->train.model, model)) {
        node->train.active = false;
        node_failed(node, &node->train.path, err, false);
    }
    if (node->evaluate.active && tiered_digest_equal(&node->evaluate.model, model)) {
        node_evaluated(node, &node->evaluate.path, model, 0, &none);
    }
}

static void decode_done(struct node_job *job)
{
    struct decode_job *d = (struct decode_job *)job;
    struct node *node = job->node;
    node->decoding = false;
    tiered_encoded_unref(d->encoded); /* when it never ran */
    tiered_model_unref(d->reference);
    if (job->result == 0) {
        /* a lossy downlink changes bytes: the model keeps the name that orders use */
        d->model->digest = d->digest;
        tiered_model_unref(node->model);
        node->model = d->model;
    } else if (!node->closing) {
        no_model(node, &d->digest, &job->err);
    }
    free(d);
    node_pump(node);
}

static void on_pulled(void *user, const struct tiered_digest *model,
                      struct tiered_encoded *encoded, const char *reason)
{
    struct node *node = user;
    node->is_fetching = false;
    if (!encoded) {
        /* the parent has moved on, and its next order names a model that it has */
        const struct tiered_log_context where = log_context(node);
        tiered_log(TIERED_LOG_INFO, "node", &where, "the model was not served: %s",
                   reason);
        if (tiered_digest_equal(&node->train.model, model)) {
            node->train.active = false;
        }
        if (tiered_digest_equal(&node->evaluate.model, model)) {
            node->evaluate.active = false;
        }
        node_pump(node);
        return;
    }
    struct decode_job *d = calloc(1, sizeof(*d));
    if (!d) {
        abort();
    }
    d->encoded = encoded;
    traffic_add(&node->traffic_down, encoded);
    d->digest = *model;
    d->reference = tiered_model_ref(node->model);
    d->job.run = decode_run;
    d->job.done = decode_done;
    node->decoding = true;
    node_submit(node, node->agent->workers, &d->job);
}

/* True when the model is at hand; otherwise it is on its way. */
static bool have_model(struct node *node, const struct tiered_digest *digest)
{
    if (node->model && tiered_digest_equal(&node->model->digest, digest)) {
        return true;
    }
    if (!node->decoding &&
        !(node->is_fetching && tiered_digest_equal(&node->fetching, digest))) {
        node->is_fetching = true;
        node->fetching = *digest;
        tiered_uplink_pull(node->uplink, digest,
                           node->model ? &node->model->content : NULL);
    }
    return false;
}

void node_pump(struct node *node)
{
    if (node->closing) {
        return;
    }
    if (node->evaluate.active && !node->evaluate.running &&
        have_model(node, &node->evaluate.model)) {
        node->evaluate.running = true;
        node->work->evaluate(node, &node->evaluate.path);
    }
    if (node->train.active && !node->train.running && !node->is_fetching &&
        have_model(node, &node->train.model)) {
        node->train.running = true;
        node->work->train(node, &node->train.path);
    }
}

/* ---- orders ---- */

/* NULL: it is to be made, or made again: masks of an attempt that was given up fit no
   other. */
static struct tiered_encoded *made_before(struct node *node,
                                          const struct tiered_path *path)
{
    uint64_t attempt = node->member ? member_attempt(node->member) : 0;
    pthread_mutex_lock(&node->outbox_lock);
    struct tiered_encoded *made =
        node->outbox_attempt == attempt ? tiered_outbox_get(node->outbox, path) : NULL;
    pthread_mutex_unlock(&node->outbox_lock);
    return made;
}

static void order_train(struct node *node, const struct tiered_path *path,
                        const struct tiered_digest *model, double norm)
{
    struct tiered_encoded *made = made_before(node, path);
    if (made) {
        node->delivering_path = *path;
        tiered_uplink_push(node->uplink, path, made);
        tiered_encoded_unref(made);
        return;
    }
    if (node->train.active && tiered_path_equal(&node->train.path, path)) {
        return; /* under way */
    }
    if (node->member && !member_ready(node->member, path)) {
        return; /* what it would make could not be masked */
    }
    if (node->train.active && node->train.running) {
        node->work->abandon(node, &node->train.path);
    }
    node->train = (struct want){.active = true,
                                .serial = ++node->n_orders,
                                .path = *path,
                                .model = *model,
                                .norm = norm};
    node_pump(node);
}

/* Does evaluating round `path` mean that the round which is trained for is closed? Not
   when it is an older round, which a parent that was started again repeats. */
static bool closes(const struct tiered_path *path, const struct tiered_path *trained)
{
    struct tiered_path prefix = *trained;
    while (prefix.depth > path->depth) {
        prefix.n[--prefix.depth] = 0;
    }
    return tiered_path_compare(path, &prefix) >= 0;
}

static void order_evaluate(struct node *node, const struct tiered_path *path,
                           const struct tiered_digest *model)
{
    if (node->train.active && node->train.running &&
        !tiered_digest_equal(&node->train.model, model) &&
        closes(path, &node->train.path)) {
        /* what we still train for it has no use */
        node->work->abandon(node, &node->train.path);
        node->train.active = false;
    }
    if (node->evaluate.active && node->evaluate.running &&
        tiered_digest_equal(&node->evaluate.model, model)) {
        node->evaluate.path = *path;
        return;
    }
    node->evaluate = (struct want){.active = true, .path = *path, .model = *model};
    node_pump(node);
}

static void take_order(struct node *node, const struct tiered_frame *frame,
                       const struct tiered_path *path)
{
    const Tiered__V1__Order *order = frame->pb->order;
    struct tiered_digest model;
    if (tiered_wire_digest(&order->model, &model, NULL) < 0) {
        return;
    }
    switch (order->kind) {
    case TIERED__V1__ORDER__KIND__TRAIN:
        order_train(node, path, &model, order->norm);
        break;
    case TIERED__V1__ORDER__KIND__EVALUATE:
        order_evaluate(node, path, &model);
        break;
    case TIERED__V1__ORDER__KIND__INITIAL:
        node->work->initial(node, path);
        break;
    default:
        break; /* STOP comes to the agent, from the orchestrator */
    }
}

static void forget(struct node *node, const struct tiered_path *path)
{
    const struct tiered_log_context where = log_context(node);
    struct tiered_error err;
    pthread_mutex_lock(&node->outbox_lock);
    if (tiered_outbox_clear(node->outbox, path, &err) < 0) {
        tiered_log(TIERED_LOG_WARN, "node", &where, "cannot clear the outbox: %s",
                   err.text);
    }
    pthread_mutex_unlock(&node->outbox_lock);
}

/* The parent's round is over: the outbox may forget, and so may we. */
static void settle(struct node *node, const struct tiered_path *path, bool counted,
                   const char *reason)
{
    const struct tiered_log_context where = log_context(node);
    char text[192];
    tiered_path_text(path, text);
    if (!counted) {
        tiered_log(TIERED_LOG_WARN, "node", &where,
                   "update of round '%s' not counted: %s", text,
                   reason && reason[0] ? reason : "no reason given");
    }
    if (counted || !node->member) {
        forget(node, path);
    } /* or its round may begin anew, and its state is that of both attempts */
    if (tiered_path_equal(&node->delivering_path, path)) {
        tiered_uplink_cancel_push(node->uplink);
    }
    node->work->settled(node, path);
}

/* A first message of a new attempt: what an older one made has masks of its own. It
   stands until the new one is made, which goes on from the same state: at most one of
   them can be opened, and the noise of one counts. */
static void begin_again(struct node *node, const struct tiered_path *path)
{
    if (tiered_path_equal(&node->delivering_path, path)) {
        tiered_uplink_cancel_push(node->uplink);
    }
    if (node->train.active && tiered_path_equal(&node->train.path, path)) {
        if (node->train.running) {
            node->work->abandon(node, path);
        }
        node->train.active = false; /* it is ordered again after the phase */
    }
}

static void take_phase(struct node *node, const struct tiered_frame *frame,
                       const struct tiered_path *path)
{
    bool fresh = false;
    if (!node->member || node->closing) {
        return;
    }
    member_answer(node->member, path, frame, &fresh);
    if (fresh) {
        begin_again(node, path);
    }
}

static void on_frame(void *user, const struct tiered_frame *frame)
{
    struct node *node = user;
    struct tiered_path path;
    if (tiered_frame_path(frame->pb, &path, NULL) < 0) {
        return;
    }
    switch (frame->pb->body_case) {
    case TIERED__V1__FRAME__BODY_ORDER:
        take_order(node, frame, &path);
        break;
    case TIERED__V1__FRAME__BODY_SETTLED:
        settle(node, &path, frame->pb->settled->counted, frame->pb->settled->reason);
        break;
    case TIERED__V1__FRAME__BODY_PHASE:
        take_phase(node, frame, &path);
        break;
    default:
        break;
    }
}

static void on_pushed(void *user, const struct tiered_path *path, bool accepted,
                      bool settled, const char *reason)
{
    struct node *node = user;
    if (settled) {
        settle(node, path, true, "");
    } else if (!accepted) {
        settle(node, path, false, reason);
    }
}

static void on_refused(void *user, enum tiered_code code, const char *reason)
{
    struct node *node = user;
    const struct tiered_log_context where = log_context(node);
    tiered_log(code == TIERED_ESTATE ? TIERED_LOG_DEBUG : TIERED_LOG_WARN, "node",
               &where, "the parent refused the session: %s", reason);
}

static void on_broken(void *user, const struct tiered_error *err)
{
    struct node *node = user;
    agent_node_failed(node->agent, node->as->node, err);
}

static const struct tiered_uplink_owner uplink_owner = {
    .broken = on_broken,
    .refused = on_refused,
    .frame = on_frame,
    .pulled = on_pulled,
    .pushed = on_pushed,
};

/* ---- what goes up ---- */

void node_ready(struct node *node, bool ready, const char *missing)
{
    tiered_uplink_ready(node->uplink, ready, missing);
}

void node_fill_metrics(const struct tiered_metrics *metrics,
                       struct node_head_space *space, size_t *ret_n,
                       Tiered__V1__Metric ***ret)
{
    for (uint32_t i = 0; i < metrics->n; i++) {
        tiered__v1__metric__init(&space->metrics[i]);
        space->metrics[i].name = (char *)metrics->items[i].name;
        space->metrics[i].value = metrics->items[i].value;
        space->pointers[i] = &space->metrics[i];
    }
    *ret_n = metrics->n;
    *ret = space->pointers;
}

void node_deliver_initial(struct node *node, const struct tiered_path *path,
                          struct tiered_encoded *encoded)
{
    node->delivering_path = *path;
    tiered_uplink_push(node->uplink, path, encoded);
}

void node_evaluated(struct node *node, const struct tiered_path *path,
                    const struct tiered_digest *model, uint64_t num_examples,
                    const struct tiered_metrics *metrics)
{
    struct node_head_space space;
    Tiered__V1__Evaluation evaluation = TIERED__V1__EVALUATION__INIT;
    evaluation.model.data = (uint8_t *)model->bytes;
    evaluation.model.len = sizeof(model->bytes);
    evaluation.num_examples = num_examples;
    node_fill_metrics(metrics, &space, &evaluation.n_metrics, &evaluation.metrics);
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_EVALUATION;
    frame.evaluation = &evaluation;
    if (tiered_digest_equal(&node->evaluate.model, model)) {
        path = &node->evaluate.path; /* asked for again while it ran */
        node->evaluate.active = false;
    }
    tiered_uplink_send(node->uplink, path, &frame, NULL); /* asked for again if lost */
}

void node_failed(struct node *node, const struct tiered_path *path,
                 const struct tiered_error *err, bool fatal)
{
    const struct tiered_log_context where = log_context(node);
    tiered_log(TIERED_LOG_ERROR, "node", &where, "%s", err->text);
    Tiered__V1__Failed failed = TIERED__V1__FAILED__INIT;
    failed.code = err->code;
    char reason[TIERED_LINK_TEXT + 1];
    tiered_link_text(err->text, reason);
    failed.reason = reason;
    failed.fatal = fatal;
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_FAILED;
    frame.failed = &failed;
    agent_trouble(node->agent, "update_failed", node->as->node, path, err->text);
    tiered_uplink_send(node->uplink, path, &frame, NULL);
}

/* ---- life ---- */

int node_uses(struct agent *agent, Tiered__V1__PluginUse *const *uses, size_t n,
              enum tiered_kind kind, struct tiered_use **ret, struct tiered_error *err)
{
    struct tiered_use *made = calloc(n ? n : 1, sizeof(*made));
    if (!made) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        struct tiered_digest digest;
        if (tiered_wire_digest(&uses[i]->digest, &digest, err) < 0 ||
            tiered_plugins_get_exact(agent->plugins, uses[i]->name, kind, &digest,
                                     &made[i].loaded, err) < 0) {
            free(made);
            return -1;
        }
        made[i].options_json = uses[i]->options;
    }
    *ret = made;
    return 0;
}

/* Filters, and perhaps a group as the last one. */
static int open_uplink_pipe(struct node *node, struct tiered_error *err)
{
    size_t n = node->as->n_uplink;
    if (node_uses(node->agent, node->as->uplink, n, (enum tiered_kind)0, &node->up,
                  err) < 0) {
        return -1;
    }
    node->n_up = n;
    if (n == 0 || node->up[n - 1].loaded->plugin.kind != TIERED_GROUP) {
        return 0;
    }
    node->n_up = n - 1;
    return member_create(node, &node->up[n - 1], node->as->uniform, &node->member, err);
}

static int open_parts(struct node *node, struct tiered_error *err)
{
    struct agent *agent = node->agent;
    TIERED_FREE char *outbox = NULL;
    if (asprintf(&node->folder, "%s/%s", agent->config.state, node->as->node) < 0 ||
        asprintf(&outbox, "%s/outbox", node->folder) < 0) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (tiered_mkdirs(node->folder, 0700, err) < 0 ||
        tiered_outbox_open(outbox, &node->outbox, err) < 0 ||
        open_uplink_pipe(node, err) < 0 ||
        node_uses(agent, node->as->downlink, node->as->n_downlink, TIERED_FILTER,
                  &node->down, err) < 0) {
        return -1;
    }
    node->n_down = node->as->n_downlink;
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes state = {0};
    uint64_t released;
    if (tiered_outbox_state(node->outbox, NULL, &state, err) < 0 ||
        tiered_pipe_state_released(node->up, node->n_up, &node->hosting, state.data,
                                   state.size, &released, err) < 0) {
        return -1;
    }
    node_tell_released(node,
                       released); /* what was told may have died with the process */
    struct tiered_net *net;
    if (ways_net(agent, node->as->transport, node->as->insecure, &net, err) < 0) {
        return -1;
    }
    const struct tiered_uplink_config config = {
        .loop = agent->loop,
        .net = net,
        .address = node->as->parent_address,
        .run = agent->assignment->run,
        .node = node->as->node,
        .agent = agent->config.name,
        .token = agent->assignment->token,
        .folder = node->folder,
        .generation = agent->assignment->generation,
        .silence_ms = SILENCE_MS,
    };
    return tiered_uplink_create(&config, &uplink_owner, node, &node->uplink, err);
}

int node_create(struct agent *agent, const Tiered__V1__NodeAssignment *as,
                struct node **ret, struct tiered_error *err)
{
    struct node *node = calloc(1, sizeof(*node));
    if (!node) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    node->agent = agent;
    node->as = as;
    pthread_mutex_init(&node->outbox_lock, NULL);
    tiered_hosting_init(&node->hosting, agent->assignment->seed, "node", as->tier,
                        as->node, "");
    if (open_parts(node, err) < 0 ||
        (as->trainer ? leaf_create(node, err) : inner_create(node, err)) < 0) {
        tiered_error_prefix(err, "node '%s': ", as->node);
        node_destroy(node);
        return -1;
    }
    *ret = node;
    return 0;
}

void node_close(struct node *node)
{
    node->closing = true;
    node->work->close(node);
}

void node_destroy(struct node *node)
{
    if (!node) {
        return;
    }
    if (node->work) {
        node->work->destroy(node);
    }
    tiered_uplink_destroy(node->uplink);
    member_destroy(node->member);
    tiered_outbox_close(node->outbox);
    pthread_mutex_destroy(&node->outbox_lock);
    tiered_model_unref(node->model);
    free(node->up);
    free(node->down);
    free(node->folder);
    free(node);
}
