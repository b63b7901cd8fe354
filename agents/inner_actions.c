/* SPDX-License-Identifier: Apache-2.0 */
/* What the round machine decides, carried out: orders, jobs, deliveries, timers. */
#include "agents/inner.h"

#include "agents/inner_group.h"

#include "core/model/metrics.h"

/* ---- published models ---- */

static struct inner_published *find_published(struct inner *inner,
                                              const struct tiered_digest *digest)
{
    for (int i = 0; i < INNER_PUBLISHED; i++) {
        struct inner_published *p = &inner->published[i];
        if (p->model && tiered_digest_equal(&p->model->digest, digest)) {
            return p;
        }
    }
    return NULL;
}

void inner_unpublish(struct inner_published *p, bool model_too)
{
    for (int form = 0; form < INNER_FORMS; form++) {
        tiered_encoded_unref(TIERED_STEAL(p->forms[form].encoded));
    }
    if (model_too) {
        tiered_model_unref(TIERED_STEAL(p->model));
    }
}

/* Children may pull it from now on; encoded when the first one asks. */
void inner_publish(struct inner *inner, struct tiered_model *model)
{
    if (find_published(inner, &model->digest)) {
        return;
    }
    /* the older one only serves children that were asked before: encoded anew for them
     */
    inner_unpublish(&inner->published[0], false);
    inner_unpublish(&inner->published[INNER_PUBLISHED - 1], true);
    memmove(&inner->published[1], &inner->published[0],
            sizeof(inner->published) - sizeof(inner->published[0]));
    inner->published[0] = (struct inner_published){.model = tiered_model_ref(model)};
}

static struct inner_published *find_content(struct inner *inner,
                                            const struct tiered_digest *content)
{
    for (int i = 0; i < INNER_PUBLISHED; i++) {
        struct inner_published *p = &inner->published[i];
        if (p->model && tiered_digest_equal(&p->model->content, content)) {
            return p;
        }
    }
    return NULL;
}

static enum inner_form choose_form(struct inner *inner,
                                   const struct tiered_wanted *wanted,
                                   struct tiered_model **ret_reference)
{
    size_t n = inner->node->as->n_child_downlink;
    struct inner_published *had = find_content(inner, &wanted->have);
    *ret_reference = NULL;
    if (n == 0) {
        return FORM_PIPED; /* all are the same */
    }
    if (wanted->plain) {
        return FORM_PLAIN;
    }
    if (had && !tiered_digest_equal(&had->model->digest, &wanted->model) &&
        tiered_pipe_refers(inner->child_down, n)) {
        *ret_reference = had->model;
        return FORM_REFERRED;
    }
    return FORM_PIPED;
}

int inner_serve(void *user, const struct tiered_wanted *wanted,
                struct tiered_encoded **ret)
{
    struct inner *inner = user;
    struct inner_published *p = find_published(inner, &wanted->model);
    if (!p) {
        return -1;
    }
    struct tiered_model *reference;
    enum inner_form form = choose_form(inner, wanted, &reference);
    if (!p->forms[form].encoded) {
        if (!p->forms[form].encoding) {
            inner_encode(inner, p, form, reference);
        }
        return 0;
    }
    *ret = tiered_encoded_ref(p->forms[form].encoded);
    return 1;
}

/* ---- actions ---- */

static void on_timer(struct inner *inner, enum tiered_round_timer timer)
{
    const struct tiered_round_event event = {
        .kind = TIERED_ON_TIMER,
        .generation = inner->node->agent->assignment->generation,
        .timer = timer,
        .timer_id = inner->timer_ids[timer],
    };
    inner_step(inner, &event);
}

static void on_half(void *arg)
{
    on_timer(arg, TIERED_TIMER_HALF);
}

static void on_deadline(void *arg)
{
    on_timer(arg, TIERED_TIMER_DEADLINE);
}

static void on_phase_end(void *arg)
{
    on_timer(arg, TIERED_TIMER_PHASE);
}

static void set_timer(struct inner *inner, const struct tiered_round_action *a)
{
    static void (*const calls[])(void *) = {NULL, on_half, on_deadline, on_phase_end};
    inner->timer_ids[a->timer] = a->timer_id;
    tiered_loop_timer(inner->node->agent->loop, &inner->timers[a->timer], a->after_ms,
                      calls[a->timer], inner);
}

/* The model that an order names: the turn's current one, or one to be evaluated. */
static void publish_by_digest(struct inner *inner, const struct tiered_digest *digest)
{
    struct tiered_model *const models[] = {inner->current, inner->node->model,
                                           inner->aggregated, inner->next_base};
    for (size_t i = 0; i < TIERED_COUNT(models); i++) {
        if (models[i] && tiered_digest_equal(&models[i]->digest, digest)) {
            inner_publish(inner, models[i]);
            return;
        }
    }
}

/* Is this a round of that turn? */
static bool belongs(const struct tiered_path *round, const struct tiered_path *turn)
{
    struct tiered_path prefix = *round;
    if (prefix.depth == 0) {
        return false;
    }
    prefix.n[--prefix.depth] = 0;
    return tiered_path_equal(&prefix, turn);
}

/* The machine is at this round. Its first order tells, or, when children that outlived
   us sent all their updates before they were ordered, its aggregation. */
static void enter_round(struct inner *inner, const struct tiered_path *path)
{
    if (inner->next_set && belongs(path, &inner->next_turn)) {
        inner_start_turn(inner);
    }
    if (!tiered_path_equal(&inner->open, path)) {
        inner->open = *path;
        inner->opened_ms = tiered_now_ms();
        tiered_downlink_bytes(inner->downlink, &inner->up_before, &inner->down_before);
    }
}

static void do_order(struct inner *inner, const struct tiered_round_action *a)
{
    enter_round(inner, &a->path);
    publish_by_digest(inner, &a->base);
    tiered_downlink_train(inner->downlink, a->child, &a->path, &a->base, inner->norm);
}

#define CONTRIBUTIONS_EVENT 500 /* at most so many in one event: events are bounded */

/* Who counted, for the record. */
static void tell_contributions(struct inner *inner, const struct tiered_round_action *a,
                               const char *path)
{
    for (uint32_t i = 0; i < a->n_updates; i += CONTRIBUTIONS_EVENT) {
        json_t *counted = json_array();
        for (uint32_t k = i; k < a->n_updates && k < i + CONTRIBUTIONS_EVENT; k++) {
            json_array_append_new(
                counted,
                json_pack("{s:s, s:I}", "node", inner->children[a->updates[k].child],
                          "num_examples", (json_int_t)a->updates[k].num_examples));
        }
        agent_event(inner->node->agent, "contributions",
                    json_pack("{s:s, s:s, s:o}", "node", inner->node->as->node, "path",
                              path, "counted", counted));
    }
}

static void do_committed(struct inner *inner, const struct tiered_round_action *a)
{
    const struct tiered_round_record *r = a->record;
    char path[192], model[65], text[256];
    uint64_t up, down;
    tiered_path_text(&a->path, path);
    tiered_digest_hex(&r->model, model);
    tiered_downlink_bytes(inner->downlink, &up, &down);
    double seconds = (double)(tiered_now_ms() - inner->opened_ms) / 1000.0;
    const struct traffic traffic =
        traffic_since(&inner->traffic, &inner->traffic_before);
    snprintf(text, sizeof(text),
             "committed with %u contributions, %llu examples, in %.2f s", a->n_updates,
             (unsigned long long)a->num_examples, seconds);
    inner_log(inner, TIERED_LOG_INFO, text);
    json_t *told =
        json_pack("{s:s, s:s, s:I, s:s, s:I, s:I, s:o, s:I, s:I, s:I, s:o, s:f, "
                  "s:s}",
                  "node", inner->node->as->node, "tier", inner->node->as->tier, "round",
                  (json_int_t)r->total_rounds, "path", path, "contributions",
                  (json_int_t)a->n_updates, "num_examples", (json_int_t)a->num_examples,
                  "metrics", tiered_metrics_json(&a->metrics), "bytes_up",
                  (json_int_t)(up - inner->up_before), "bytes_down",
                  (json_int_t)(down - inner->down_before), "raw_up",
                  (json_int_t)traffic.raw, "filters_up",
                  traffic_json(&traffic, inner->node->as->child_uplink,
                               inner->node->as->n_child_uplink),
                  "seconds", seconds, "model", model);
    if (inner->norm > 0) {
        json_object_set_new(told, "clip_norm", json_real(inner->norm));
    }
    agent_event(inner->node->agent, "round_committed", told);
    tell_contributions(inner, a, path);
    inner->up_before = up;
    inner->down_before = down;
    inner->traffic_before = inner->traffic;
}

static void do_deliver(struct inner *inner, const struct tiered_round_action *a)
{
    const struct node_update update = {
        .path = a->path,
        .base = inner->turn_base,
        .model = inner->current,
        .num_examples = a->num_examples,
        .local_steps = a->local_steps,
        .metrics = a->metrics,
    };
    inner_publish(inner,
                  inner->current); /* the orchestrator may want the root's last one */
    node_deliver(inner->node, &update);
}

static void do_deliver_initial(struct inner *inner, const struct tiered_round_action *a)
{
    struct inner_update *update = inner_find(inner, a->update);
    if (update) {
        node_deliver_initial(inner->node, &a->path, update->encoded);
        inner_drop(inner, a->update); /* the uplink holds a reference */
    }
}

static void do_fail(struct inner *inner, const struct tiered_round_action *a)
{
    struct tiered_error err;
    tiered_fail(&err, TIERED_ESTATE, "%s", a->reason);
    inner->node->train.active = false;
    node_failed(inner->node, &a->path, &err, true);
}

/* Is this action about the update that is being offered? */
static bool answers(const struct tiered_push *push, const struct tiered_round_action *a)
{
    struct tiered_path path = tiered_push_path(push);
    return tiered_push_child(push) == a->child && tiered_path_equal(&path, &a->path);
}

/* SETTLE answers an offer where there is one, and is said on the session otherwise. */
static void do_settle(struct inner *inner, const struct tiered_round_action *a)
{
    struct tiered_push *push = inner->offering;
    if (!push || !answers(push, a)) {
        tiered_downlink_settle(inner->downlink, a->child, &a->path, a->counted,
                               a->reason);
        return;
    }
    inner->offering = NULL;
    if (a->counted) {
        tiered_push_settled(push);
    } else {
        tiered_push_done(push, false, TIERED_ESTATE, a->reason);
    }
}

static void answer_offer(struct inner *inner, const struct tiered_round_action *a)
{
    struct tiered_push *push = inner->offering;
    if (!push || !answers(push, a)) {
        return;
    }
    inner->offering = NULL;
    if (a->kind == TIERED_DO_RECEIVE && inner->unfit) {
        tiered_push_done(push, false, TIERED_ESTATE, inner->unfit);
    } else if (a->kind == TIERED_DO_RECEIVE) {
        tiered_push_receive(push);
    } else if (a->kind == TIERED_DO_ACCEPT) {
        tiered_push_done(push, true, TIERED_OK, "");
    } else {
        tiered_push_done(push, false, TIERED_ESTATE, a->reason);
    }
}

static void carry_out(struct inner *inner, const struct tiered_round_action *a)
{
    switch (a->kind) {
    case TIERED_DO_ORDER:
        do_order(inner, a);
        break;
    case TIERED_DO_ORDER_INITIAL:
        tiered_downlink_order(inner->downlink, a->child,
                              TIERED__V1__ORDER__KIND__INITIAL, &a->path, NULL);
        break;
    case TIERED_DO_ORDER_EVALUATE:
        publish_by_digest(inner, &a->base);
        tiered_downlink_order(inner->downlink, a->child,
                              TIERED__V1__ORDER__KIND__EVALUATE, &a->path, &a->base);
        break;
    case TIERED_DO_RECEIVE:
    case TIERED_DO_ACCEPT:
    case TIERED_DO_REFUSE:
        answer_offer(inner, a);
        break;
    case TIERED_DO_SETTLE:
        do_settle(inner, a);
        break;
    case TIERED_DO_DROP_UPDATE:
        inner_drop(inner, a->update);
        break;
    case TIERED_DO_SET_TIMER:
        set_timer(inner, a);
        break;
    case TIERED_DO_CLEAR_TIMER:
        tiered_loop_cancel(inner->node->agent->loop, &inner->timers[a->timer]);
        break;
    case TIERED_DO_AGGREGATE:
        enter_round(inner, &a->path);
        inner_aggregate(inner, &a->path, a->updates, a->n_updates);
        break;
    case TIERED_DO_COMMIT:
        if (inner->group) {
            inner_group_end(inner->group);
        }
        inner_commit(inner, a->record);
        break;
    case TIERED_DO_COMMITTED:
        do_committed(inner, a);
        break;
    case TIERED_DO_DELIVER:
        do_deliver(inner, a);
        break;
    case TIERED_DO_DELIVER_INITIAL:
        do_deliver_initial(inner, a);
        break;
    case TIERED_DO_DELIVER_EVALUATION:
        node_evaluated(inner->node, &a->path, &a->base, a->num_examples, &a->metrics);
        break;
    case TIERED_DO_READY:
        node_ready(inner->node, true, "");
        break;
    case TIERED_DO_UNREADY:
        node_ready(inner->node, false, a->reason);
        break;
    case TIERED_DO_WARN:
        inner_log(inner, TIERED_LOG_WARN, a->reason);
        break;
    case TIERED_DO_FAIL:
        if (inner->group) {
            inner_group_end(inner->group);
        }
        do_fail(inner, a);
        break;
    case TIERED_DO_PHASE:
        enter_round(inner, &a->path);
        inner_group_ask(inner->group, a);
        break;
    case TIERED_DO_PHASE_CLOSED:
        inner_group_closed(inner->group, a);
        break;
    case TIERED_DO_STOP: /* the orchestrator stops the agents itself */
        break;
    }
}

static void step_one(struct inner *inner, const struct tiered_round_event *event)
{
    const struct tiered_round_action *actions;
    size_t n;
    struct tiered_error err;
    if (tiered_round_step(inner->machine, event, &actions, &n, &err) < 0) {
        inner_log(inner, TIERED_LOG_ERROR, err.text);
        abort(); /* out of memory or our mistake: the restart begins at the last commit
                  */
    }
    for (size_t i = 0; i < n; i++) {
        carry_out(inner, &actions[i]);
    }
}

void inner_step(struct inner *inner, const struct tiered_round_event *event)
{
    if (inner->node->closing) {
        return;
    }
    if (inner->stepping) { /* actions are valid until the next step: this one waits */
        if (inner->n_queue == inner->queue_capacity) {
            size_t capacity = inner->queue_capacity ? 2 * inner->queue_capacity : 8;
            struct inner_queued *queue =
                realloc(inner->queue, capacity * sizeof(*queue));
            if (!queue) {
                abort();
            }
            inner->queue = queue;
            inner->queue_capacity = capacity;
        }
        struct inner_queued *queued = &inner->queue[inner->n_queue++];
        queued->event = *event;
        snprintf(queued->reason, sizeof(queued->reason), "%s",
                 event->reason ? event->reason : "");
        return;
    }
    inner->stepping = true;
    step_one(inner, event);
    for (size_t i = 0; i < inner->n_queue; i++) {
        struct inner_queued queued = inner->queue[i]; /* the queue may grow */
        queued.event.reason = queued.reason[0] ? queued.reason : NULL;
        step_one(inner, &queued.event);
    }
    inner->n_queue = 0;
    inner->stepping = false;
}
