/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluations: a node's own, after a round, or its parent's, passed on. */
#include "core/round/inside.h"

bool round_evaluation_closes(const struct tiered_path *path,
                             const struct tiered_path *turn)
{
    struct tiered_path start = *turn; /* as deep as the evaluation's path */
    for (; start.depth > path->depth; start.depth--) {
        start.n[start.depth - 1] = 0;
    }
    return tiered_path_compare(path, &start) >= 0;
}

uint32_t round_unanswered(const struct tiered_round *r, enum link_state link)
{
    uint32_t n = 0;
    for (int m = 0; m < N_MEMBERSHIPS; m++) {
        n += r->count[m][link][0];
    }
    return n;
}

void round_order_evaluation(struct tiered_round *r, uint32_t child)
{
    round_act_child(r, TIERED_DO_ORDER_EVALUATE, child, &r->evaluation.path)->base =
        r->evaluation.base;
}

static void begin(struct tiered_round *r, bool relay, const struct tiered_path *path,
                  const struct tiered_digest *base)
{
    struct evaluation *e = &r->evaluation;
    e->active = true;
    e->relay = relay;
    e->deadline_passed = false;
    e->path = *path;
    e->base = *base;
    round_clear_timers(r);
    round_no_answers(r);
    if (r->config.deadline_ms) {
        round_set_timer(r, TIERED_TIMER_HALF, r->config.deadline_ms / 2);
        round_set_timer(r, TIERED_TIMER_DEADLINE, r->config.deadline_ms);
    }
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (r->children[i].link == LINK_READY) {
            round_order_evaluation(r, i);
        }
    }
    if (round_unanswered(r, LINK_LOST)) {
        char why[200];
        tiered_round_why(r, NULL, NULL, why, sizeof(why));
        round_warn(r, "%s", why);
    }
    round_check_evaluation(r);
}

void round_evaluate(struct tiered_round *r)
{
    r->state = ROUND_EVALUATING;
    begin(r, false, &r->last_path, &r->record.model);
}

static void deliver_result(struct tiered_round *r)
{
    const struct evaluation *e = &r->evaluation;
    struct tiered_round_action *action = round_act(r, TIERED_DO_DELIVER_EVALUATION);
    action->path = e->result_path;
    action->base = e->result_base;
    action->num_examples = e->result_examples;
    action->metrics = e->result;
}

static bool is_same(const struct tiered_path *path, const struct tiered_digest *base,
                    const struct tiered_path *other_path,
                    const struct tiered_digest *other_base)
{
    return tiered_path_equal(path, other_path) && tiered_digest_equal(base, other_base);
}

void round_on_evaluate(struct tiered_round *r, const struct tiered_path *path,
                       const struct tiered_digest *base)
{
    struct evaluation *e = &r->evaluation;
    if (r->state == ROUND_STOPPED) {
        return;
    }
    if (e->have_result && is_same(path, base, &e->result_path, &e->result_base)) {
        deliver_result(r);
        return;
    }
    if (e->active && e->relay &&
        (tiered_path_compare(path, &e->path) < 0 ||
         is_same(path, base, &e->path, &e->base))) {
        return;
    }
    if (round_is_running(r)) {
        /* A parent that restarted evaluates an older round than the one we work for:
           that work is still wanted, so the evaluation waits for it. */
        bool busy = round_is_busy(r) && round_is_open(r);
        if (busy || !round_evaluation_closes(path, &r->record.turn)) {
            struct pending_order *pending = &r->pending_evaluate;
            if (!pending->set || tiered_path_compare(path, &pending->path) >= 0) {
                *pending = (struct pending_order){true, *path, *base};
            }
            return;
        }
        round_abandon(r, "the parent's round is closed");
    }
    round_cancel_evaluation(r);
    begin(r, true, path, base);
}

void round_on_evaluation(struct tiered_round *r, const struct tiered_round_event *event)
{
    struct round_child *c = &r->children[event->child];
    const struct evaluation *e = &r->evaluation;
    if (!e->active || c->answered ||
        !is_same(&event->path, &event->base, &e->path, &e->base)) {
        return;
    }
    c->num_examples =
        event->num_examples <= TIERED_MAX_EXAMPLES ? event->num_examples : 0;
    c->metrics = event->metrics;
    round_set_answered(r, event->child, true);
    round_check_evaluation(r);
}

void round_cancel_evaluation(struct tiered_round *r)
{
    if (r->evaluation.active) {
        r->evaluation.active = false;
        round_clear_timers(r);
    }
}

static bool stop_condition_met(struct tiered_round *r,
                               const struct tiered_metrics *metrics)
{
    const struct tiered_round_config *config = &r->config;
    if (!config->stop_metric[0]) {
        return false;
    }
    for (uint32_t i = 0; i < metrics->n; i++) {
        if (strcmp(metrics->items[i].name, config->stop_metric) == 0) {
            double value = metrics->items[i].value;
            return config->stop_sign < 0 ? value <= config->stop_at
                                         : value >= config->stop_at;
        }
    }
    round_warn(r, "the evaluation has no '%s', which the run would stop by",
               config->stop_metric);
    return false;
}

static void finish(struct tiered_round *r)
{
    struct evaluation *e = &r->evaluation;
    struct metric_means means = {0};
    struct tiered_metrics metrics;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (r->children[i].answered) {
            round_means_add(&means, r->children[i].num_examples,
                            &r->children[i].metrics);
        }
    }
    round_means_get(&means, &metrics);
    round_cancel_evaluation(r);
    if (e->relay) {
        e->have_result = true;
        e->result_path = e->path;
        e->result_base = e->base;
        e->result_examples = means.num_examples < TIERED_MAX_EXAMPLES
                                 ? means.num_examples
                                 : TIERED_MAX_EXAMPLES;
        e->result = metrics;
        deliver_result(r);
        return;
    }
    r->record.evaluation_due = 0;
    round_announce(r, &metrics);
    if (stop_condition_met(r, &metrics)) {
        r->record.finished = 1;
    }
    round_go_on(r);
}

/* Who is lost is waited for as in a round: what a stop condition sees must not depend
   on who was restarting. */
void round_check_evaluation(struct tiered_round *r)
{
    uint32_t at_work = round_unanswered(r, LINK_READY);
    uint32_t lost = round_unanswered(r, LINK_LOST);
    uint32_t alive = r->config.n_children - round_count_link(r, LINK_GONE);
    uint32_t answered =
        r->config.n_children - at_work - lost - round_unanswered(r, LINK_GONE);
    bool enough =
        r->config.quorum < 1 && answered >= round_share_up(r->config.quorum, alive);
    if (at_work == 0 && (lost == 0 || r->evaluation.deadline_passed || enough)) {
        finish(r);
    }
}
