/* SPDX-License-Identifier: Apache-2.0 */
/* What children say becomes events of the round machine; their updates are received. */
#include "agents/inner.h"

#include "agents/inner_group.h"

#include <inttypes.h>

static void child_ready(void *user, uint32_t child, bool ready, const char *missing)
{
    struct inner *inner = user;
    if (!ready) {
        char text[320];
        snprintf(text, sizeof(text), "'%s' is not ready: %s", inner->children[child],
                 missing);
        inner_log(inner, TIERED_LOG_DEBUG, text);
    }
    struct tiered_round_event event =
        inner_event(inner, ready ? TIERED_ON_CHILD_READY : TIERED_ON_CHILD_LOST, child);
    inner_step(inner, &event);
}

static void child_evaluated(struct inner *inner, uint32_t child,
                            const struct tiered_frame *frame,
                            const struct tiered_path *path)
{
    const Tiered__V1__Evaluation *evaluation = frame->pb->evaluation;
    struct tiered_round_event event = inner_event(inner, TIERED_ON_EVALUATION, child);
    event.path = *path;
    event.num_examples = evaluation->num_examples;
    tiered_wire_metrics(evaluation->metrics, evaluation->n_metrics, &event.metrics);
    if (tiered_wire_digest(&evaluation->model, &event.base, NULL) == 0) {
        inner_step(inner, &event);
    }
}

static void child_failed(struct inner *inner, uint32_t child,
                         const struct tiered_frame *frame,
                         const struct tiered_path *path)
{
    char text[512];
    snprintf(text, sizeof(text), "'%s' failed: %.400s", inner->children[child],
             frame->pb->failed->reason);
    inner_log(inner, TIERED_LOG_WARN, text);
    struct tiered_round_event event = inner_event(inner, TIERED_ON_BAD_UPDATE, child);
    event.path = *path;
    event.reason = frame->pb->failed->reason[0] ? frame->pb->failed->reason : NULL;
    inner_step(inner, &event);
}

static void child_frame(void *user, uint32_t child, const struct tiered_frame *frame)
{
    struct inner *inner = user;
    struct tiered_path path;
    if (tiered_frame_path(frame->pb, &path, NULL) < 0) {
        return;
    }
    switch (frame->pb->body_case) {
    case TIERED__V1__FRAME__BODY_EVALUATION:
        child_evaluated(inner, child, frame, &path);
        break;
    case TIERED__V1__FRAME__BODY_FAILED:
        child_failed(inner, child, frame, &path);
        break;
    case TIERED__V1__FRAME__BODY_PHASE:
        if (inner->group) {
            inner_group_frame(inner->group, child, &path, frame);
        }
        break;
    default:
        break;
    }
}

/* Is this an update of the model that we have? */
static int check_head(struct inner *inner, const Tiered__V1__Head *head,
                      struct tiered_error *err)
{
    struct tiered_layout *layout = NULL;
    if (head->num_examples > (1ull << 53)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "num_examples is %" PRIu64 "; it must be an integer in "
                           "0..2^53",
                           head->num_examples);
    }
    if (!(head->local_steps >= 0 && head->local_steps <= 0x1p53)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "local_steps is %g; it must be a number in 0..2^53",
                           head->local_steps);
    }
    if (!(head->a_norm >= 0 && head->a_norm <= 0x1p53)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "a_norm is %g; it must be a number in 0..2^53",
                           head->a_norm);
    }
    if (tiered_wire_layout(head, &layout, err) < 0) {
        return -1;
    }
    int result = inner->current && !inner->group && head->base_model.len > 0
                     ? tiered_layout_match(inner->current->layout, layout, err)
                     : 0;
    tiered_layout_unref(layout);
    return result;
}

static void child_offer(void *user, uint32_t child, struct tiered_push *push,
                        const struct tiered_frame *frame, const Tiered__V1__Head *head)
{
    struct inner *inner = user;
    struct tiered_error err;
    struct tiered_round_event event = inner_event(inner, TIERED_ON_OFFER, child);
    event.path = tiered_push_path(push);
    event.generation = frame->pb->generation;
    if (check_head(inner, head, &err) < 0 ||
        tiered_wire_digest(&head->base_model, &event.base, &err) < 0) {
        event.kind = TIERED_ON_BAD_UPDATE;
        event.reason = err.text;
        tiered_push_done(push, false, err.code, err.text);
        agent_trouble(inner->node->agent, "update_failed", inner->children[child],
                      &event.path, err.text);
        inner_step(inner, &event);
        return;
    }
    if (inner->node->closing) {
        return; /* the agent stops: the child will push again */
    }
    bool waited = false;
    if (inner->group && head->base_model.len > 0 &&
        inner_group_offer(inner->group, child, &event.path, head, &waited, &err) < 0) {
        inner->unfit = err.text;
    }
    inner->offering = push;
    inner_step(inner, &event);
    if (inner->unfit && waited) { /* nothing better will come from this child */
        struct tiered_round_event lost =
            inner_event(inner, TIERED_ON_PHASE_LOST, child);
        lost.path = event.path;
        lost.reason = inner->unfit;
        inner_step(inner, &lost);
    }
    inner->unfit = NULL;
    push = TIERED_STEAL(inner->offering);
    if (push) {
        tiered_push_done(push, false, TIERED_ESTATE, "no update is expected now");
    }
}

static int child_store(void *user, const Tiered__V1__Head *head,
                       struct tiered_encoded **ret, struct tiered_error *err)
{
    struct inner *inner = user;
    return tiered_spool_receive(inner->spool, head, ret, err);
}

static void child_discard(void *user, struct tiered_encoded *encoded)
{
    struct inner *inner = user;
    tiered_spool_release(inner->spool, encoded);
}

static void child_broken(void *user, const struct tiered_error *err)
{
    struct inner *inner = user;
    agent_node_failed(inner->node->agent, inner->node->as->node, err);
}

static void count_traffic(struct inner *inner, const struct tiered_encoded *encoded)
{
    if (!inner->group) {
        traffic_add(&inner->traffic, encoded);
    } else if (inner->current) {
        traffic_add_masked(&inner->traffic, inner->current->layout,
                           inner->node->as->n_child_uplink, encoded);
    }
}

static void child_received(void *user, uint32_t child, struct tiered_push *push,
                           struct tiered_encoded *encoded)
{
    struct inner *inner = user;
    const Tiered__V1__Head *head = tiered_encoded_head(encoded);
    struct inner_update *update = calloc(1, sizeof(*update));
    if (!update) {
        abort();
    }
    *update = (struct inner_update){
        .next = inner->updates,
        .handle = ++inner->last_handle,
        .child = child,
        .path = tiered_push_path(push),
        .encoded = encoded,
        .num_examples = head->num_examples,
        .local_steps = head->local_steps,
        .a_norm = head->a_norm,
        .initial = head->base_model.len == 0,
    };
    if (inner->group && !update->initial) { /* what it says rides inside */
        update->num_examples = 0;
        update->local_steps = update->a_norm = 0;
    } else {
        tiered_wire_metrics(head->metrics, head->n_metrics, &update->metrics);
    }
    tiered_wire_digest(&head->base_model, &update->base,
                       NULL); /* checked at the offer */
    inner->updates = update;
    if (!update->initial) {
        count_traffic(inner, encoded);
    }
    inner_screen(inner, update, push);
}

const struct tiered_downlink_owner inner_downlink_owner = {
    .ready = child_ready,
    .frame = child_frame,
    .offer = child_offer,
    .store = child_store,
    .discard = child_discard,
    .broken = child_broken,
    .received = child_received,
    .model = inner_serve,
};
