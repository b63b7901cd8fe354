/* SPDX-License-Identifier: Apache-2.0 */
/* A turn: started by the parent, its rounds one after the other, then delivered; or
   failed, or abandoned for a newer one. */
#include <inttypes.h>

#include "core/round/inside.h"

bool round_is_open(const struct tiered_round *r)
{
    return r->path.depth > 0;
}

bool round_is_busy(const struct tiered_round *r)
{
    return r->state == ROUND_AGGREGATING || r->state == ROUND_COMMITTING;
}

bool round_is_running(const struct tiered_round *r)
{
    return round_is_open(r) || r->state == ROUND_EVALUATING ||
           r->state == ROUND_COMMITTING;
}

static void open_round(struct tiered_round *r)
{
    if (!tiered_path_child(&r->record.turn, r->record.round + 1, &r->path)) {
        round_fail(r, "the tree is too deep for a round path");
        return;
    }
    r->open_examples = 0;
    r->deadline_passed = false;
    if (round_sample(r, &r->path) < 0) {
        return;
    }
    if (r->n_sampled == 0 && round_count_link(r, LINK_GONE) < r->config.n_children) {
        round_take_kept(r); /* nobody's update is wanted */
        round_aggregate(r);
        return;
    }
    if (r->n_sampled == 0) {
        char path[192], reason[256];
        tiered_path_text(&r->path, path);
        snprintf(reason, sizeof(reason),
                 "round %.180s has no child to ask: all %u are gone", path,
                 r->config.n_children);
        round_fail(r, reason);
        return;
    }
    r->state = r->config.pre.steps ? ROUND_PRE : ROUND_COLLECTING;
    round_take_kept(r);
    if (r->state == ROUND_PRE) {
        round_begin_phase(r, ROUND_PRE);
    } else {
        round_begin_collecting(r);
    }
}

static void deliver(struct tiered_round *r)
{
    r->state = ROUND_DELIVERING;
    struct tiered_round_action *action = round_act(r, TIERED_DO_DELIVER);
    action->path = r->record.turn;
    action->base = r->record.model;
    action->num_examples = r->record.num_examples;
    action->local_steps = r->record.local_steps;
    action->metrics = r->record.metrics;
}

void round_go_on(struct tiered_round *r)
{
    if (r->record.finished) {
        deliver(r);
    } else {
        open_round(r);
    }
}

/* The same turn again, after a restart, a failure or a delivery. */
static void continue_turn(struct tiered_round *r)
{
    if (r->record.evaluation_due) {
        round_evaluate(r);
        return;
    }
    if (r->announce) {
        round_announce(r, NULL);
    }
    round_go_on(r);
}

static void begin_turn(struct tiered_round *r, const struct tiered_path *path,
                       const struct tiered_digest *base)
{
    round_cancel_evaluation(r);
    if (r->announce) {
        round_announce(r, NULL);
    }
    r->have_turn = true;
    r->record.turn = *path;
    r->record.turn_base = r->record.model = *base;
    r->record.round = 0;
    r->record.num_examples = 0;
    r->record.local_steps = 0;
    r->record.finished = r->record.evaluation_due = 0;
    open_round(r);
}

static void start_again(struct tiered_round *r)
{
    struct evaluation *e = &r->evaluation;
    if (e->active && e->relay && !r->record.finished) {
        if (round_evaluation_closes(&e->path, &r->record.turn)) {
            return; /* older than the evaluation: the parent's round is closed */
        }
        round_cancel_evaluation(r);
    }
    if (r->state == ROUND_DELIVERING) {
        deliver(r);
    } else if (r->state == ROUND_IDLE || r->state == ROUND_FAILED) {
        continue_turn(r);
    }
}

void round_on_start(struct tiered_round *r, const struct tiered_round_event *event)
{
    int order = r->have_turn ? tiered_path_compare(&event->path, &r->record.turn) : 1;
    if (r->state == ROUND_STOPPED || order < 0) {
        return;
    }
    r->initial_wanted = false;
    if (order > 0 && round_is_busy(r)) {
        struct pending_order *pending = &r->pending_start;
        if (!pending->set || tiered_path_compare(&event->path, &pending->path) > 0) {
            *pending = (struct pending_order){true, event->path, event->base};
        }
    } else if (order > 0) {
        r->pending_evaluate.set = false; /* the parent does not wait for it any more */
        round_abandon(r, "a newer one was ordered");
        begin_turn(r, &event->path, &event->base);
    } else {
        start_again(r);
    }
}

/* Whether something was ordered, while the driver was busy, that ends this turn. */
bool round_has_pending(const struct tiered_round *r)
{
    const struct pending_order *evaluate = &r->pending_evaluate;
    return r->pending_start.set ||
           (evaluate->set && round_evaluation_closes(&evaluate->path, &r->record.turn));
}

/* Take up what was ordered meanwhile. A newer START makes an evaluation moot; an
   evaluation of an older round than the running turn's waits on. */
void round_begin_pending(struct tiered_round *r)
{
    struct pending_order start = r->pending_start, evaluate = r->pending_evaluate;
    if (start.set) {
        r->pending_start.set = r->pending_evaluate.set = false;
        round_abandon(r, "a newer one was ordered");
        begin_turn(r, &start.path, &start.base);
    } else if (evaluate.set) {
        r->pending_evaluate.set = false;
        round_on_evaluate(r, &evaluate.path, &evaluate.base);
    }
}

void round_on_delivered(struct tiered_round *r, const struct tiered_path *path)
{
    if (r->state == ROUND_DELIVERING && tiered_path_equal(path, &r->record.turn)) {
        r->state = ROUND_IDLE;
        round_check_ready(r);
    }
}

/* Close the open round without a result: nothing that was stored for it counts. */
static void discard_round(struct tiered_round *r, const char *reason)
{
    round_clear_timers(r);
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (r->children[i].member == MEMBER_IN ||
            r->children[i].member == MEMBER_DROPPED) {
            round_drop_stored(r, i, reason);
        }
        round_set_member(r, i, MEMBER_NOT);
    }
    r->path = (struct tiered_path){0};
}

void round_begin_again(struct tiered_round *r, const char *reason)
{
    char path[192];
    tiered_path_text(&r->path, path);
    round_warn(r, "round %.64s begins anew: %.150s", path, reason);
    discard_round(r, "its round begins anew");
    open_round(r);
}

/* Leaves the machine idle. A turn that was delivered is over, not abandoned. */
void round_abandon(struct tiered_round *r, const char *why)
{
    if (round_is_running(r) || (r->announce && !r->record.finished)) {
        char path[192];
        tiered_path_text(&r->record.turn, path);
        round_warn(r,
                   "the turn %s%.100sis abandoned after %u of %u rounds, %s: %" PRIu64
                   " examples are lost",
                   path, *path ? " " : "", r->record.round, r->config.rounds_per_parent,
                   why, r->record.num_examples + r->open_examples);
    }
    if (round_is_open(r)) {
        discard_round(r, "its round was abandoned");
    }
    if (r->evaluation.active && !r->evaluation.relay) {
        round_cancel_evaluation(r);
        round_announce(r, NULL);
    }
    r->record.evaluation_due = 0;
    r->open_examples = 0;
    r->state = ROUND_IDLE;
}

void round_fail(struct tiered_round *r, const char *reason)
{
    snprintf(r->failure, sizeof(r->failure), "%s", reason);
    discard_round(r, "its round failed");
    r->state = ROUND_FAILED;
    struct tiered_round_action *action = round_act(r, TIERED_DO_FAIL);
    action->path = r->record.turn;
    snprintf(action->reason, sizeof(action->reason), "%s", r->failure);
    round_check_ready(r);
}

void round_on_stop(struct tiered_round *r)
{
    if (r->state == ROUND_STOPPED) {
        return;
    }
    if (round_is_open(r) && !round_is_busy(r)) {
        discard_round(r, "the run is over");
    }
    round_cancel_evaluation(r);
    round_clear_timers(r);
    r->initial_wanted = false;
    r->path = (struct tiered_path){0};
    r->state = ROUND_STOPPED;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (r->children[i].link == LINK_READY) {
            round_act(r, TIERED_DO_STOP)->child = i;
        }
    }
}
