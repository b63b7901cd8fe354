/* SPDX-License-Identifier: Apache-2.0 */
/* A leaf: loads its data, then trains and evaluates when ordered, one call at a time.
 */
#include <math.h>

#include "agents/node.h"

#include "core/base/log.h"
#include "tiered/trainer.h"

struct leaf {
    struct tiered_use *use; /* the trainer */
    struct tiered_config config;
    const struct tiered_trainer_ops *ops;
    void *state;
    struct tiered_layout *layout; /* once loaded */
    bool loaded, busy;
    struct tiered_path initial_path;
    bool initial_wanted;
    struct leaf_job *running;
    const char *doing;
};

enum leaf_task { LOAD, TRAIN, EVALUATE, INITIAL };

/* One call of the trainer, on a trainer thread. */
struct leaf_job {
    struct node_job job;
    enum leaf_task task;
    struct tiered_path path;
    struct tiered_hosting hosting;
    struct tiered_model *in, *out;
    struct tiered_train_result result;
    struct tiered_encoded *encoded; /* INITIAL */
    bool abandoned;
};

static struct leaf *leaf_of(struct node *node)
{
    return node->self;
}

static int load(struct leaf *leaf, struct leaf_job *job, struct tiered_error *err)
{
    const struct tiered_manifest *manifest;
    if (leaf->ops->load(leaf->state, &job->hosting.host, err) < 0 ||
        leaf->ops->manifest(leaf->state, &manifest, err) < 0) {
        return -1;
    }
    struct tiered_layout *layout = tiered_layout_copy(manifest, err);
    if (!layout) {
        return -1;
    }
    leaf->layout = layout;
    return 0;
}

static int check_model(struct leaf *leaf, const struct leaf_job *job,
                       struct tiered_error *err)
{
    if (tiered_layout_match(leaf->layout, job->in->layout, err) < 0) {
        return tiered_error_prefix(err, "the model does not fit the trainer's: ");
    }
    return 0;
}

static int train(struct leaf *leaf, struct leaf_job *job, struct tiered_error *err)
{
    if (check_model(leaf, job, err) < 0) {
        return -1;
    }
    job->out = tiered_model_create_raw(leaf->layout, err);
    if (!job->out) {
        return -1;
    }
    if (leaf->ops->train(leaf->state, &job->hosting.host, job->in->data, job->out->data,
                         &job->result, err) < 0) {
        return -1;
    }
    if (job->result.num_examples > (1ull << 53)) {
        return tiered_fail(err, TIERED_ERANGE, "the trainer returned %llu examples",
                           (unsigned long long)job->result.num_examples);
    }
    if (!isfinite(job->result.a_norm) || job->result.a_norm < 0) {
        return tiered_fail(err, TIERED_ERANGE, "the trainer returned the a_norm %g",
                           job->result.a_norm);
    }
    return 0;
}

static int make_memory(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                       struct tiered_error *err)
{
    (void)user;
    return tiered_encoded_begin(head, NULL, ret, err);
}

/* The initial model goes up as it is: no filter may blur what all start from. */
static int initial(struct leaf *leaf, struct leaf_job *job, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    job->out = tiered_model_create(leaf->layout, err);
    if (!job->out ||
        leaf->ops->initial(leaf->state, &job->hosting.host, job->out->data, err) < 0 ||
        tiered_pipe_create(NULL, 0, leaf->layout, &job->hosting, &pipe, err) < 0) {
        return -1;
    }
    const struct tiered_encode_job encode = {.data = job->out->data,
                                             .screen = true,
                                             .hosting = &job->hosting,
                                             .make = make_memory};
    if (tiered_pipe_encode(pipe, &encode, &job->encoded, err) < 0) {
        return tiered_error_prefix(err, "the trainer's initial model: ");
    }
    return tiered_encoded_seal(job->encoded, false, err);
}

static void run(struct node_job *base)
{
    struct leaf_job *job = (struct leaf_job *)base;
    struct leaf *leaf = leaf_of(base->node);
    switch (job->task) {
    case LOAD:
        base->result = load(leaf, job, &base->err);
        break;
    case TRAIN:
        base->result = train(leaf, job, &base->err);
        break;
    case EVALUATE:
        base->result =
            check_model(leaf, job, &base->err) < 0
                ? -1
                : leaf->ops->evaluate(leaf->state, &job->hosting.host, job->in->data,
                                      &job->result, &base->err);
        break;
    case INITIAL:
        base->result = initial(leaf, job, &base->err);
        break;
    }
}

static void next(struct node *node);

static void trained(struct node *node, struct leaf_job *job)
{
    const struct node_update update = {
        .path = job->path,
        .base = job->in,
        .model = job->out,
        .num_examples = job->result.num_examples,
        .local_steps = (double)job->result.local_steps,
        .a_norm = job->result.a_norm,
        .metrics = job->result.metrics,
    };
    node_deliver(node, &update);
}

static void finish(struct node *node, struct leaf_job *job)
{
    struct leaf *leaf = leaf_of(node);
    switch (job->task) {
    case LOAD:
        leaf->loaded = true;
        node_ready(node, true, "");
        break;
    case TRAIN:
        trained(node, job);
        break;
    case EVALUATE:
        node_evaluated(node, &job->path, &job->in->digest, job->result.num_examples,
                       &job->result.metrics);
        break;
    case INITIAL:
        node_deliver_initial(node, &job->path, job->encoded);
        break;
    }
}

static void fail(struct node *node, struct leaf_job *job)
{
    tiered_error_prefix(&job->job.err,
                        "trainer '%s': ", leaf_of(node)->use->loaded->plugin.name);
    switch (job->task) {
    case LOAD: /* nothing that this leaf is asked can ever work */
        agent_node_failed(node->agent, node->as->node, &job->job.err);
        break;
    case TRAIN:
        node->train.active = false;
        node_failed(node, &job->path, &job->job.err, false);
        break;
    case EVALUATE: { /* counts as having nothing to evaluate on */
        const struct tiered_metrics none = {0};
        node_evaluated(node, &job->path, &job->in->digest, 0, &none);
        const struct tiered_log_context where = {.node = node->as->node};
        tiered_log(TIERED_LOG_ERROR, "node", &where, "%s", job->job.err.text);
        agent_trouble(node->agent, "evaluation_failed", node->as->node, &job->path,
                      job->job.err.text);
        break;
    }
    case INITIAL:
        agent_node_failed(node->agent, node->as->node, &job->job.err);
        break;
    }
}

static void done(struct node_job *base)
{
    struct leaf_job *job = (struct leaf_job *)base;
    struct node *node = base->node;
    struct leaf *leaf = leaf_of(node);
    leaf->running = NULL;
    leaf->busy = false;
    if (!node->closing && !job->abandoned) {
        if (base->result == 0) {
            finish(node, job);
        } else {
            fail(node, job);
        }
    }
    tiered_model_unref(job->in);
    tiered_model_unref(job->out);
    tiered_encoded_unref(job->encoded);
    free(job);
    next(node);
}

static void start(struct node *node, enum leaf_task task,
                  const struct tiered_path *path)
{
    static const char *const doing[] = {"loading", "training", "evaluating",
                                        "starting"};
    struct leaf *leaf = leaf_of(node);
    struct leaf_job *job = calloc(1, sizeof(*job));
    if (!job) {
        abort();
    }
    char text[192] = "";
    if (path) {
        job->path = *path;
        tiered_path_text(path, text);
    }
    tiered_hosting_init(&job->hosting, node->hosting.run_seed,
                        leaf->use->loaded->plugin.name, node->as->tier, node->as->node,
                        text);
    job->task = task;
    job->result.size = sizeof(job->result);
    if (task == TRAIN || task == EVALUATE) {
        job->in = tiered_model_ref(node->model);
    }
    job->job.run = run;
    job->job.done = done;
    leaf->busy = true;
    leaf->running = job;
    leaf->doing = doing[task];
    node_submit(node, node->agent->trainers, &job->job);
}

/* The wanted model may have been replaced while the trainer was busy. */
static bool at_hand(struct node *node, struct want *want)
{
    if (node->model && tiered_digest_equal(&node->model->digest, &want->model)) {
        return true;
    }
    want->running = false;
    return false;
}

/* The trainer is free: take what waits for it. */
static void next(struct node *node)
{
    struct leaf *leaf = leaf_of(node);
    if (node->closing || leaf->busy || !leaf->loaded) {
        return;
    }
    if (leaf->initial_wanted) {
        leaf->initial_wanted = false;
        start(node, INITIAL, &leaf->initial_path);
    } else if (node->evaluate.active && node->evaluate.running &&
               at_hand(node, &node->evaluate)) {
        start(node, EVALUATE, &node->evaluate.path);
    } else if (node->train.active && node->train.running && !node->train.delivering &&
               at_hand(node, &node->train)) {
        start(node, TRAIN, &node->train.path);
    } else {
        node_pump(node);
    }
}

static void leaf_train(struct node *node, const struct tiered_path *path)
{
    (void)path; /* next() takes it from node->train */
    next(node);
}

static void leaf_evaluate(struct node *node, const struct tiered_path *path)
{
    (void)path;
    next(node);
}

static void leaf_initial(struct node *node, const struct tiered_path *path)
{
    struct leaf *leaf = leaf_of(node);
    if (leaf->running && leaf->running->task == INITIAL) {
        return;
    }
    leaf->initial_wanted = true;
    leaf->initial_path = *path;
    next(node);
}

static void leaf_settled(struct node *node, const struct tiered_path *path)
{
    (void)node;
    (void)path;
}

static void leaf_abandon(struct node *node, const struct tiered_path *path)
{
    struct leaf *leaf = leaf_of(node);
    struct leaf_job *job = leaf->running;
    if (job && job->task == TRAIN && tiered_path_equal(&job->path, path)) {
        job->abandoned = true;
        atomic_store(&job->hosting.cancel, true);
    }
}

static void leaf_state(struct node *node, Tiered__V1__NodeState *state)
{
    struct leaf *leaf = leaf_of(node);
    state->state = (char *)(leaf->busy ? leaf->doing : "waiting");
    if (leaf->running) {
        state->path = leaf->running->path.n;
        state->n_path = leaf->running->path.depth;
        state->progress =
            (float)atomic_load(&leaf->running->hosting.progress_ppm) / 1e6f;
    }
}

static void leaf_gone(struct node *node, const char *child)
{
    (void)node;
    (void)child;
}

static void leaf_close(struct node *node)
{
    struct leaf *leaf = leaf_of(node);
    if (leaf->running) {
        atomic_store(&leaf->running->hosting.cancel, true);
    }
}

static void leaf_destroy(struct node *node)
{
    struct leaf *leaf = leaf_of(node);
    if (leaf->state) {
        leaf->ops->destroy(leaf->state);
    }
    tiered_config_finish(&leaf->config);
    tiered_layout_unref(leaf->layout);
    free(leaf->use);
    free(leaf);
}

static const struct node_work leaf_work = {
    .train = leaf_train,
    .evaluate = leaf_evaluate,
    .initial = leaf_initial,
    .settled = leaf_settled,
    .abandon = leaf_abandon,
    .state = leaf_state,
    .gone = leaf_gone,
    .close = leaf_close,
    .destroy = leaf_destroy,
};

int leaf_create(struct node *node, struct tiered_error *err)
{
    struct leaf *leaf = calloc(1, sizeof(*leaf));
    if (!leaf) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    node->self = leaf;
    node->work = &leaf_work;
    Tiered__V1__PluginUse *const uses[] = {node->as->trainer};
    if (node_uses(node->agent, uses, 1, TIERED_TRAINER, &leaf->use, err) < 0) {
        return -1;
    }
    leaf->ops = leaf->use->loaded->plugin.ops;
    const struct tiered_place place = {.size = sizeof(place),
                                       .node = node->as->node,
                                       .index = node->as->index,
                                       .count = node->as->count};
    if (tiered_config_from_json(&leaf->use->loaded->plugin, leaf->use->options_json,
                                &leaf->config, err) < 0 ||
        leaf->ops->init(&node->hosting.host, leaf->config.data, &place, &leaf->state,
                        err) < 0) {
        return -1;
    }
    node_ready(node, false, "its data is being loaded");
    start(node, LOAD, NULL);
    return 0;
}
