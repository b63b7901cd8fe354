/* SPDX-License-Identifier: Apache-2.0 */
/* What an inner node does on the worker pool: screen an arrived update, aggregate,
   commit, encode a model for the children. */
#include "agents/inner.h"

#include "agents/inner_group.h"

#include <math.h>

/* ---- screening ---- */

struct screen_job {
    struct node_job job;
    struct inner *inner;
    struct inner_update *update;
    struct tiered_push *push;
    bool bad_numbers;
};

/* Every block must decode, and hold finite values unless the topology allows others. */
static void screen_run(struct node_job *base)
{
    struct screen_job *job = (struct screen_job *)base;
    struct node *node = base->node;
    const struct inner *inner = job->inner;
    bool initial = job->update->initial;
    TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *decoder = NULL;
    if (inner->group && !initial) { /* any word may stand there */
        base->result =
            inner_group_check(inner->group, job->update->encoded, &base->err);
        return;
    }
    base->result = tiered_decoder_create(
        initial ? NULL : inner->child_up, initial ? 0 : node->as->n_child_uplink,
        &inner->hosting, job->update->encoded, &decoder, &base->err);
    if (base->result == 0) {
        base->result = tiered_decoder_screen(decoder, node->agent->workers, &base->err);
        job->bad_numbers = base->result < 0 && base->err.code == TIERED_ERANGE;
    }
    if (job->bad_numbers && node->as->on_bad_update == TIERED_ALLOW_BAD) {
        base->result = 0;
    }
}

/* A masked update whose attempt was given up while it was on its way: its child has
   been told, or will be, and masks another one. */
static bool is_outdated(struct screen_job *job)
{
    struct inner *inner = job->inner;
    struct inner_update *update = job->update;
    struct tiered_error err;
    bool waited;
    if (!inner->group || update->initial ||
        inner_group_offer(inner->group, update->child, &update->path,
                          tiered_encoded_head(update->encoded), &waited, &err) == 0) {
        return false;
    }
    tiered_push_done(job->push, false, TIERED_ESTATE, err.text);
    update->dropped = true;
    inner_release(inner, update);
    return true;
}

static void screen_done(struct node_job *base)
{
    struct screen_job *job = (struct screen_job *)base;
    struct inner *inner = job->inner;
    struct inner_update *update = job->update;
    update->in_use--;
    if (base->node->closing || is_outdated(job)) {
        free(job);
        return;
    }
    struct tiered_round_event event = {
        .kind = TIERED_ON_UPDATE,
        .generation = base->node->agent->assignment->generation,
        .child = update->child,
        .path = update->path,
        .base = update->base,
        .update = update->handle,
        .num_examples = update->num_examples,
        .metrics = update->metrics,
    };
    if (base->result < 0 && job->bad_numbers && !update->initial &&
        base->node->as->on_bad_update == TIERED_EXCLUDE_BAD) {
        char text[512];
        snprintf(text, sizeof(text), "update of '%s' excluded: %s",
                 inner->children[update->child], base->err.text);
        inner_log(inner, TIERED_LOG_WARN, text);
        update->excluded = true;
        event.num_examples = 0; /* in no sum, that of the examples included */
        base->result = 0;
    }
    if (base->result < 0) {
        event.kind = TIERED_ON_BAD_UPDATE;
        event.reason = base->err.text;
        agent_trouble(base->node->agent, "update_failed",
                      inner->children[update->child], &update->path, base->err.text);
        tiered_push_done(job->push, false, base->err.code, base->err.text);
        update->dropped = true;
        inner_release(inner, update);
    } else {
        tiered_push_done(job->push, true, TIERED_OK, "");
    }
    inner_step(inner, &event);
    free(job);
}

void inner_screen(struct inner *inner, struct inner_update *update,
                  struct tiered_push *push)
{
    struct screen_job *job = calloc(1, sizeof(*job));
    if (!job) {
        abort();
    }
    *job = (struct screen_job){.job = {.run = screen_run, .done = screen_done},
                               .inner = inner,
                               .update = update,
                               .push = push};
    update->in_use++;
    node_submit(inner->node, inner->node->agent->workers, &job->job);
}

/* ---- aggregation ---- */

#define TILE_BYTES (32u << 20) /* of rows at once, whatever the number of children */

struct aggregate_job {
    struct node_job job;
    struct inner *inner;
    struct tiered_model *base, *result;
    char path[192];
    uint32_t n;
    struct inner_update **updates;
    struct tiered_row *rows;
    struct tiered_decoder **decoders;
    bool no_result;       /* the rule has none: the model stays */
    double local_steps;   /* of the result */
    struct inner_sum sum; /* of a group, instead of rows; mean NULL: no group */
};

static int read_row(void *source, uint32_t block, void *out, struct tiered_error *err)
{
    return tiered_decoder_read(source, block, out, err);
}

static const void *borrow_row(void *source, uint32_t block)
{
    return tiered_decoder_borrow(source, block);
}

static int make_rows(struct aggregate_job *job, bool *ret_concurrent,
                     struct tiered_error *err)
{
    const struct inner *inner = job->inner;
    *ret_concurrent = true;
    for (uint32_t i = 0; i < job->n; i++) {
        const struct inner_update *update = job->updates[i];
        if (tiered_decoder_create(inner->child_up, job->job.node->as->n_child_uplink,
                                  &inner->hosting, update->encoded, &job->decoders[i],
                                  err) < 0) {
            return tiered_error_prefix(err, "'%s': ", inner->children[update->child]);
        }
        *ret_concurrent =
            *ret_concurrent && tiered_decoder_concurrent(job->decoders[i]);
        job->rows[i] = (struct tiered_row){
            .contribution = {.size = sizeof(struct tiered_contribution),
                             .node = inner->children[update->child],
                             .num_examples = update->num_examples,
                             .local_steps = update->local_steps,
                             .a_norm = update->a_norm > 0 ? update->a_norm : NAN,
                             .excluded = update->excluded},
            .read = read_row,
            .borrow = borrow_row,
            .source = job->decoders[i],
            .within = tiered_decoder_within(job->decoders[i]),
        };
    }
    return 0;
}

static int read_mean(void *source, uint32_t block, void *out, struct tiered_error *err)
{
    (void)err;
    const struct tiered_model *mean = source;
    const struct tiered_block *b = &mean->layout->blocks[block];
    memcpy(out, mean->data + b->offset_bytes, (size_t)b->size_bytes);
    return 0;
}

static const void *borrow_mean(void *source, uint32_t block)
{
    const struct tiered_model *mean = source;
    return mean->data + mean->layout->blocks[block].offset_bytes;
}

/* A group is one row: its mean. What is revealed cannot be revealed again, so that any
   failure but the machine's own leaves the round without a result. */
static int make_mean(struct aggregate_job *job, struct tiered_error *err)
{
    struct inner *inner = job->inner;
    if (inner_group_sum(inner->group, job->updates, job->n, &job->sum, err) < 0) {
        job->no_result = err->code != TIERED_EIO && err->code != TIERED_ENOMEM;
        return -1;
    }
    job->rows[0] =
        (struct tiered_row){.contribution = {.size = sizeof(struct tiered_contribution),
                                             .node = inner->node->as->node,
                                             .num_examples = job->sum.num_examples,
                                             .local_steps = NAN,
                                             .a_norm = NAN},
                            .read = read_mean,
                            .borrow = borrow_mean,
                            .source = job->sum.mean,
                            .within = job->sum.within};
    return 0;
}

static void aggregate_run(struct node_job *base)
{
    struct aggregate_job *job = (struct aggregate_job *)base;
    struct node *node = base->node;
    bool concurrent = true;
    if ((job->inner->group ? make_mean(job, &base->err)
                           : make_rows(job, &concurrent, &base->err)) < 0) {
        base->result = -1;
        return;
    }
    const struct tiered_strategy_run run = {
        .layout = job->base->layout,
        .base = job->base,
        .rows_are_deltas = true,
        .rows = job->rows,
        .n_rows = job->sum.mean ? 1 : job->n,
        .allow_bad = node->as->on_bad_update == TIERED_ALLOW_BAD,
        .tile_memory = TILE_BYTES,
        .pool = concurrent ? node->agent->workers : NULL,
        .path = job->path,
        .group_weight = job->sum.weight,
        .group_step = job->sum.step,
    };
    base->result =
        tiered_strategy_run(job->inner->strategy, &run, &job->result, &base->err);
    job->no_result = base->result < 0 && base->err.code == TIERED_ERANGE;
    double steps = tiered_strategy_local_steps(job->inner->strategy);
    job->local_steps = isfinite(steps) ? steps : 0;
}

static void aggregate_free(struct aggregate_job *job)
{
    for (uint32_t i = 0; i < job->n; i++) {
        tiered_decoder_destroy(job->decoders[i]);
        job->updates[i]->in_use--;
        inner_release(job->inner, job->updates[i]);
    }
    tiered_model_unref(job->base);
    tiered_model_unref(job->result);
    tiered_model_unref(job->sum.mean);
    free(job->updates);
    free(job->rows);
    free(job->decoders);
    free(job);
}

static void aggregate_done(struct node_job *base)
{
    struct aggregate_job *job = (struct aggregate_job *)base;
    struct inner *inner = job->inner;
    struct node *node = base->node;
    struct tiered_round_event event = {.kind = TIERED_ON_AGGREGATED,
                                       .generation =
                                           node->agent->assignment->generation};
    if (node->closing) {
        aggregate_free(job);
        return;
    }
    if (base->result == 0) {
        tiered_model_unref(inner->aggregated);
        inner->aggregated = TIERED_STEAL(job->result);
        event.base = inner->aggregated->digest;
        event.num_examples = job->sum.num_examples;
        event.local_steps = job->local_steps;
    } else if (job->no_result) {
        inner_log(inner, TIERED_LOG_WARN, base->err.text);
        event.kind = TIERED_ON_NOT_AGGREGATED;
    } else { /* a disk or memory that fails: nothing may go on from here */
        agent_node_failed(node->agent, node->as->node, &base->err);
        aggregate_free(job);
        return;
    }
    aggregate_free(job);
    inner_step(inner, &event);
}

void inner_aggregate(struct inner *inner, const struct tiered_path *path,
                     const struct tiered_counted *updates, uint32_t n_updates)
{
    struct aggregate_job *job = calloc(1, sizeof(*job));
    size_t n = n_updates ? n_updates : 1;
    if (!job || !(job->updates = calloc(n, sizeof(struct inner_update *))) ||
        !(job->rows = calloc(n, sizeof(struct tiered_row))) ||
        !(job->decoders = calloc(n, sizeof(struct tiered_decoder *)))) {
        abort();
    }
    tiered_path_text(path, job->path);
    job->job.run = aggregate_run;
    job->job.done = aggregate_done;
    job->inner = inner;
    job->base = tiered_model_ref(inner->current);
    for (uint32_t i = 0; i < n_updates; i++) {
        struct inner_update *update = inner_find(inner, updates[i].update);
        update->in_use++;
        job->updates[job->n++] = update;
    }
    node_submit(inner->node, inner->node->agent->workers, &job->job);
}

/* ---- commit ---- */

struct commit_job {
    struct node_job job;
    struct inner *inner;
    struct tiered_round_record record;
    struct tiered_model *turn_base, *model;
};

static void commit_run(struct node_job *base)
{
    struct commit_job *job = (struct commit_job *)base;
    const struct store_commit commit = {
        .folder = base->node->folder,
        .run = base->node->agent->assignment->run,
        .record = &job->record,
        .turn_base = job->turn_base,
        .model = job->model,
        .strategy = job->inner->strategy,
    };
    base->result = store_commit(&commit, &base->err);
}

static void commit_done(struct node_job *base)
{
    struct commit_job *job = (struct commit_job *)base;
    struct inner *inner = job->inner;
    struct node *node = base->node;
    const struct tiered_round_event event = {
        .kind = TIERED_ON_COMMITTED,
        .generation = node->agent->assignment->generation,
    };
    int result = base->result;
    struct tiered_error err = base->err;
    if (result == 0) {
        tiered_model_unref(inner->current);
        inner->current = tiered_model_ref(job->model);
        inner->norm = tiered_strategy_norm(inner->strategy);
    }
    for (uint32_t i = 0; result == 0 && i < job->record.n_contributions; i++) {
        inner_drop(inner, job->record.contributions[i].update);
    }
    tiered_model_unref(job->turn_base);
    tiered_model_unref(job->model);
    store_record_finish(&job->record);
    free(job);
    if (node->closing) {
        return;
    }
    if (result < 0) { /* a disk that cannot be written: nothing may go on from here */
        tiered_error_prefix(&err, "cannot commit a round: ");
        agent_node_failed(node->agent, node->as->node, &err);
        return;
    }
    inner_step(inner, &event);
}

void inner_commit(struct inner *inner, const struct tiered_round_record *record)
{
    struct commit_job *job = calloc(1, sizeof(*job));
    struct tiered_counted *counted =
        calloc(record->n_contributions + 1u, sizeof(*counted));
    if (!job || !counted) {
        abort();
    }
    for (uint32_t i = 0; i < record->n_contributions; i++) {
        counted[i] = record->contributions[i];
    }
    job->job.run = commit_run;
    job->job.done = commit_done;
    job->inner = inner;
    job->record = *record;
    job->record.contributions = counted;
    job->turn_base = tiered_model_ref(inner->turn_base);
    bool fresh = inner->aggregated &&
                 tiered_digest_equal(&inner->aggregated->digest, &record->model);
    job->model = tiered_model_ref(fresh ? inner->aggregated : inner->current);
    node_submit(inner->node, inner->node->agent->workers, &job->job);
}

/* ---- encoding for the children ---- */

struct encode_job {
    struct node_job job;
    struct inner *inner;
    enum inner_form form;
    struct tiered_model *model, *reference;
    struct tiered_encoded *encoded;
};

/* In memory, where every pull sends from the same bytes: from a file each would need
   buffers of its own, and memory would grow with the children. */
static int make_encoded(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                        struct tiered_error *err)
{
    struct encode_job *job = user;
    head->content.data = job->model->content.bytes;
    head->content.len = sizeof(job->model->content.bytes);
    int result = tiered_encoded_begin(head, NULL, ret, err);
    head->content = (ProtobufCBinaryData){0};
    return result;
}

static int encode(struct encode_job *job, struct tiered_error *err)
{
    struct node *node = job->job.node;
    struct inner *inner = job->inner;
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    size_t n_filters = job->form == FORM_PLAIN ? 0 : node->as->n_child_downlink;
    if (tiered_pipe_create(inner->child_down, n_filters, job->model->layout,
                           &inner->hosting, &pipe, err) < 0) {
        return -1;
    }
    const struct tiered_encode_job encode_job = {.data = job->model->data,
                                                 .reference = job->reference,
                                                 .hosting = &inner->hosting,
                                                 .pool = node->agent->workers,
                                                 .make = make_encoded,
                                                 .user = job};
    if (tiered_pipe_encode(pipe, &encode_job, &job->encoded, err) < 0) {
        return -1;
    }
    return tiered_encoded_seal(job->encoded, false, err);
}

static void encode_run(struct node_job *base)
{
    base->result = encode((struct encode_job *)base, &base->err);
}

static void encode_done(struct node_job *base)
{
    struct encode_job *job = (struct encode_job *)base;
    struct inner *inner = job->inner;
    if (!base->node->closing) {
        for (int i = 0; i < INNER_PUBLISHED; i++) {
            struct inner_published *p = &inner->published[i];
            if (p->model && p->forms[job->form].encoding &&
                tiered_digest_equal(&p->model->digest, &job->model->digest)) {
                p->forms[job->form].encoding = false;
                p->forms[job->form].encoded =
                    base->result == 0 ? tiered_encoded_ref(job->encoded) : NULL;
            }
        }
        tiered_downlink_model(inner->downlink, &job->model->digest,
                              base->result == 0 ? NULL : base->err.text);
        if (base->result < 0) { /* children would wait for ever */
            agent_node_failed(base->node->agent, base->node->as->node, &base->err);
        }
    }
    tiered_encoded_unref(job->encoded);
    tiered_model_unref(job->model);
    tiered_model_unref(job->reference);
    free(job);
}

void inner_encode(struct inner *inner, struct inner_published *published,
                  enum inner_form form, struct tiered_model *reference)
{
    struct encode_job *job = calloc(1, sizeof(*job));
    if (!job) {
        abort();
    }
    job->job.run = encode_run;
    job->job.done = encode_done;
    job->inner = inner;
    job->form = form;
    job->model = tiered_model_ref(published->model);
    job->reference = tiered_model_ref(reference);
    published->forms[form].encoding = true;
    node_submit(inner->node, inner->node->agent->workers, &job->job);
}
