/* SPDX-License-Identifier: Apache-2.0 */
/* From a new model to a durable record, and to what the children are told. */
#include "core/round/inside.h"

static bool is_stored(const struct round_child *c)
{
    return c->member == MEMBER_IN || c->member == MEMBER_DROPPED;
}

/* The record of the open round is complete but for model and contributions. */
static void commit(struct tiered_round *r)
{
    struct tiered_round_record *record = &r->record;
    record->round++;
    record->total_rounds++;
    record->contributions = r->committed;
    record->finished = record->round >= r->config.rounds_per_parent;
    record->evaluation_due = r->config.evaluate_every &&
                             record->total_rounds % r->config.evaluate_every == 0;
    r->state = ROUND_COMMITTING;
    struct tiered_round_action *action = round_act(r, TIERED_DO_COMMIT);
    action->path = r->path;
    action->base = record->model;
    action->record = record;
}

void round_on_aggregated(struct tiered_round *r, const struct tiered_round_event *event)
{
    if (r->state != ROUND_AGGREGATING) {
        return;
    }
    struct metric_means means = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        const struct round_child *c = &r->children[i];
        if (is_stored(c)) {
            r->committed[n++] = (struct tiered_counted){i, c->update, c->num_examples};
            round_means_add(&means, c->num_examples, &c->metrics);
        }
    }
    uint64_t room = TIERED_MAX_EXAMPLES - r->record.num_examples - r->open_examples;
    r->record.n_contributions = n;
    r->record.model = event->base;
    r->record.group_examples = event->num_examples < room ? event->num_examples : room;
    r->record.num_examples += r->open_examples + r->record.group_examples;
    r->record.local_steps += event->local_steps;
    r->no_result = false;
    round_means_get(&means, &r->record.metrics);
    commit(r);
}

void round_on_not_aggregated(struct tiered_round *r, const struct tiered_path *early)
{
    bool open =
        r->state == ROUND_PRE || r->state == ROUND_COLLECTING || r->state == ROUND_POST;
    if (open && early->depth && tiered_path_equal(early, &r->path)) {
        round_clear_timers(r);
    } else if (r->state != ROUND_AGGREGATING) {
        return;
    }
    char path[192];
    tiered_path_text(&r->path, path);
    round_warn(r, "round %s has no result: the model stays as it is", path);
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        const struct round_child *c = &r->children[i];
        if (is_stored(c)) {
            struct tiered_round_action *action =
                round_act_child(r, TIERED_DO_DROP_UPDATE, i, &c->update_path);
            action->update = c->update;
            snprintf(action->reason, sizeof(action->reason), "its round has no result");
        }
    }
    r->record.n_contributions = 0;
    r->record.metrics.n = 0;
    r->record.group_examples = 0;
    r->no_result = true;
    commit(r);
}

void round_announce(struct tiered_round *r, const struct tiered_metrics *evaluated)
{
    struct tiered_round_action *action = round_act(r, TIERED_DO_COMMITTED);
    action->path = r->last_path;
    action->base = r->record.model;
    action->record = &r->record;
    action->updates = r->record.contributions;
    action->n_updates = r->record.n_contributions;
    for (uint32_t i = 0; i < r->record.n_contributions; i++) {
        action->num_examples += r->record.contributions[i].num_examples;
    }
    action->num_examples += r->record.group_examples;
    action->metrics = r->record.metrics;
    if (evaluated) {
        round_metrics_merge(&action->metrics, evaluated);
    }
    r->announce = false;
}

/* The children may forget their updates now. */
static void settle_all(struct tiered_round *r)
{
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        struct round_child *c = &r->children[i];
        if (is_stored(c)) {
            if (!r->no_result) {
                c->counted_path = c->update_path;
            }
            round_settle(r, i, &c->update_path, !r->no_result, "%s",
                         r->no_result ? "its round has no result" : "");
        }
        round_set_member(r, i, MEMBER_NOT);
    }
}

void round_on_committed(struct tiered_round *r)
{
    if (r->state != ROUND_COMMITTING) {
        return;
    }
    settle_all(r);
    r->last_path = r->path;
    r->path = (struct tiered_path){0};
    r->open_examples = 0;
    if (round_has_pending(r)) {
        round_announce(r, NULL);
        round_begin_pending(r);
    } else if (r->record.evaluation_due) {
        round_evaluate(r);
    } else {
        round_announce(r, NULL);
        round_go_on(r);
    }
}
