/* SPDX-License-Identifier: Apache-2.0 */
/* The round machine's frame: life, events in, actions out. */
#include "core/round/inside.h"

struct tiered_round_action *round_act(struct tiered_round *r,
                                      enum tiered_round_action_kind kind)
{
    struct tiered_round_action *action = &r->scratch;
    if (r->n_actions == r->actions_capacity) {
        size_t capacity = r->actions_capacity ? r->actions_capacity * 2 : 16;
        void *grown = reallocarray(r->actions, capacity, sizeof(*r->actions));
        if (grown) {
            r->actions = grown;
            r->actions_capacity = capacity;
        } else {
            r->out_of_memory = true;
        }
    }
    if (r->n_actions < r->actions_capacity) {
        action = &r->actions[r->n_actions++];
    }
    memset(action, 0, sizeof(*action));
    action->kind = kind;
    return action;
}

struct tiered_round_action *round_act_child(struct tiered_round *r,
                                            enum tiered_round_action_kind kind,
                                            uint32_t child,
                                            const struct tiered_path *path)
{
    struct tiered_round_action *action = round_act(r, kind);
    action->child = child;
    action->path = *path;
    return action;
}

void round_warn(struct tiered_round *r, const char *fmt, ...)
{
    struct tiered_round_action *action = round_act(r, TIERED_DO_WARN);
    action->path = r->path;
    va_list args;
    va_start(args, fmt);
    vsnprintf(action->reason, sizeof(action->reason), fmt, args);
    va_end(args);
}

void round_settle(struct tiered_round *r, uint32_t child,
                  const struct tiered_path *path, bool counted, const char *fmt, ...)
{
    struct tiered_round_action *action =
        round_act_child(r, TIERED_DO_SETTLE, child, path);
    action->counted = counted;
    va_list args;
    va_start(args, fmt);
    vsnprintf(action->reason, sizeof(action->reason), fmt, args);
    va_end(args);
}

void round_set_timer(struct tiered_round *r, enum tiered_round_timer timer,
                     uint64_t after_ms)
{
    r->timers[timer] = (struct round_timer){.armed = true, .id = ++r->last_timer_id};
    struct tiered_round_action *action = round_act(r, TIERED_DO_SET_TIMER);
    action->timer = timer;
    action->timer_id = r->timers[timer].id;
    action->after_ms = after_ms;
}

void round_clear_timers(struct tiered_round *r)
{
    for (int i = TIERED_TIMER_HALF; i <= TIERED_TIMER_PHASE; i++) {
        if (r->timers[i].armed) {
            r->timers[i].armed = false;
            struct tiered_round_action *action = round_act(r, TIERED_DO_CLEAR_TIMER);
            action->timer = (enum tiered_round_timer)i;
            action->timer_id = r->timers[i].id;
        }
    }
}

static uint32_t *cell(struct tiered_round *r, const struct round_child *child)
{
    return &r->count[child->member][child->link][child->answered];
}

void round_set_member(struct tiered_round *r, uint32_t child, enum membership member)
{
    struct round_child *c = &r->children[child];
    --*cell(r, c);
    c->member = member;
    ++*cell(r, c);
}

void round_set_link(struct tiered_round *r, uint32_t child, enum link_state link)
{
    struct round_child *c = &r->children[child];
    --*cell(r, c);
    c->link = link;
    ++*cell(r, c);
}

void round_set_answered(struct tiered_round *r, uint32_t child, bool answered)
{
    struct round_child *c = &r->children[child];
    --*cell(r, c);
    c->answered = answered;
    ++*cell(r, c);
}

void round_no_answers(struct tiered_round *r)
{
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        round_set_answered(r, i, false);
    }
}

uint32_t round_count_link(const struct tiered_round *r, enum link_state link)
{
    uint32_t n = 0;
    for (int m = 0; m < N_MEMBERSHIPS; m++) {
        n += r->count[m][link][0] + r->count[m][link][1];
    }
    return n;
}

uint32_t round_count_member(const struct tiered_round *r, enum membership member)
{
    uint32_t n = 0;
    for (int l = 0; l < N_LINKS; l++) {
        n += r->count[member][l][0] + r->count[member][l][1];
    }
    return n;
}

int tiered_round_create(const struct tiered_round_config *config,
                        struct tiered_round **ret, struct tiered_error *err)
{
    if (round_check_config(config, err) < 0) {
        return -1;
    }
    TIERED_CLEANUP(tiered_round_destroyp)
    struct tiered_round *r = calloc(1, sizeof(*r));
    if (!r) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for rounds");
    }
    r->config = *config;
    r->children = calloc(config->n_children, sizeof(*r->children));
    r->counted = calloc(config->n_children, sizeof(*r->counted));
    r->committed = calloc(config->n_children, sizeof(*r->committed));
    r->answered = calloc(config->n_children, sizeof(*r->answered));
    if (!r->children || !r->counted || !r->committed || !r->answered) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for %u children",
                           config->n_children);
    }
    r->count[MEMBER_NOT][LINK_LOST][0] = config->n_children;
    r->record.generation = config->generation;
    *ret = TIERED_STEAL(r);
    return 0;
}

void tiered_round_destroy(struct tiered_round *r)
{
    if (!r) {
        return;
    }
    for (uint32_t i = 0; r->children && i < r->config.n_children; i++) {
        free(r->children[i].kept);
    }
    free(r->children);
    free(r->counted);
    free(r->committed);
    free(r->answered);
    free(r->actions);
    free(r);
}

static void say_waiting(struct tiered_round *r, const char *when)
{
    char why[200], path[192];
    tiered_round_why(r, NULL, NULL, why, sizeof(why));
    tiered_path_text(r->evaluation.active ? &r->evaluation.path : &r->path, path);
    round_warn(r, "round %.64s, %s: %s", path, when, why);
}

static void on_timer(struct tiered_round *r, const struct tiered_round_event *event)
{
    if (event->timer < TIERED_TIMER_HALF || event->timer > TIERED_TIMER_PHASE) {
        return;
    }
    struct round_timer *timer = &r->timers[event->timer];
    if (!timer->armed || timer->id != event->timer_id) {
        return; /* of a round that is closed */
    }
    timer->armed = false;
    if (event->timer == TIERED_TIMER_HALF) {
        say_waiting(r, "half of its deadline has passed");
        return;
    }
    uint64_t id = r->last_timer_id;
    enum round_state state = r->state;
    r->deadline_passed = true;
    if (r->evaluation.active) {
        r->evaluation.deadline_passed = true;
        round_check_evaluation(r);
    } else if (state == ROUND_COLLECTING) {
        round_check_collecting(r);
    } else {
        round_check_phase(r);
    }
    if (r->state == state && r->last_timer_id == id &&
        (r->path.depth || r->evaluation.active)) {
        say_waiting(r, "its deadline has passed");
    }
}

/* Whether the event may be taken at all; an offer must be answered even so. */
static bool fenced(struct tiered_round *r, const struct tiered_round_event *event)
{
    bool offer = event->kind == TIERED_ON_OFFER;
    if (event->generation == r->config.generation || (!offer && !event->generation)) {
        return false;
    }
    if (offer) {
        struct tiered_round_action *action =
            round_act_child(r, TIERED_DO_REFUSE, event->child, &event->path);
        snprintf(action->reason, sizeof(action->reason),
                 "generation %llu is not this plan's, which is %llu",
                 (unsigned long long)event->generation,
                 (unsigned long long)r->config.generation);
    } else if (event->kind == TIERED_ON_UPDATE) {
        struct tiered_round_action *action =
            round_act_child(r, TIERED_DO_DROP_UPDATE, event->child, &event->path);
        action->update = event->update;
        snprintf(action->reason, sizeof(action->reason), "of another generation");
    }
    return true;
}

static void take(struct tiered_round *r, const struct tiered_round_event *event)
{
    switch (event->kind) {
    case TIERED_ON_START:
        return round_on_start(r, event);
    case TIERED_ON_INITIAL:
        return round_on_initial(r, &event->path);
    case TIERED_ON_EVALUATE:
        return round_on_evaluate(r, &event->path, &event->base);
    case TIERED_ON_CHILD_READY:
        return round_on_ready(r, event->child);
    case TIERED_ON_CHILD_LOST:
        return round_on_lost(r, event->child);
    case TIERED_ON_CHILD_GONE:
        return round_on_gone(r, event->child);
    case TIERED_ON_OFFER:
        return round_on_offer(r, event);
    case TIERED_ON_UPDATE:
        return round_on_update(r, event);
    case TIERED_ON_BAD_UPDATE:
        return round_on_bad_update(r, event);
    case TIERED_ON_PHASE:
        return round_on_phase(r, event);
    case TIERED_ON_AGGREGATED:
        return round_on_aggregated(r, &event->base, event->local_steps);
    case TIERED_ON_NOT_AGGREGATED:
        return round_on_not_aggregated(r);
    case TIERED_ON_COMMITTED:
        return round_on_committed(r);
    case TIERED_ON_EVALUATION:
        return round_on_evaluation(r, event);
    case TIERED_ON_TIMER:
        return on_timer(r, event);
    case TIERED_ON_DELIVERED:
        return round_on_delivered(r, &event->path);
    case TIERED_ON_STOP:
        return round_on_stop(r);
    }
}

int tiered_round_step(struct tiered_round *r, const struct tiered_round_event *event,
                      const struct tiered_round_action **ret_actions, size_t *ret_n,
                      struct tiered_error *err)
{
    if (event->child >= r->config.n_children) {
        return tiered_fail(err, TIERED_EINVAL, "node '%s' has %u children: no child %u",
                           r->config.node, r->config.n_children, event->child);
    }
    if (event->path.depth > TIERED_MAX_DEPTH) {
        return tiered_fail(err, TIERED_EINVAL, "a round path has at most %d numbers",
                           TIERED_MAX_DEPTH);
    }
    r->n_actions = 0;
    if (!fenced(r, event)) {
        take(r, event);
        if (r->state != ROUND_STOPPED && !round_is_busy(r) &&
            (r->pending_start.set || !round_is_running(r))) {
            round_begin_pending(r);
        }
    }
    if (r->out_of_memory) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a round's actions");
    }
    *ret_actions = r->actions;
    *ret_n = r->n_actions;
    return 0;
}

int tiered_round_restore(struct tiered_round *r,
                         const struct tiered_round_record *record,
                         struct tiered_error *err)
{
    if (record->generation > r->config.generation) {
        return tiered_fail(err, TIERED_ESTATE,
                           "the record is of generation %llu, the plan of %llu",
                           (unsigned long long)record->generation,
                           (unsigned long long)r->config.generation);
    }
    struct tiered_path last;
    if (record->turn.depth >= TIERED_MAX_DEPTH ||
        record->metrics.n > TIERED_MAX_METRICS ||
        record->n_contributions > r->config.n_children ||
        !tiered_path_child(&record->turn, record->round, &last)) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the record of node '%s' does not fit its plan",
                           r->config.node);
    }
    for (uint32_t i = 0; i < record->n_contributions; i++) {
        if (record->contributions[i].child >= r->config.n_children) {
            return tiered_fail(
                err, TIERED_ECORRUPT, "the record of node '%s' counts child %u of %u",
                r->config.node, record->contributions[i].child, r->config.n_children);
        }
    }
    r->record = *record;
    r->record.generation = r->config.generation;
    for (uint32_t i = 0; i < record->n_contributions; i++) {
        r->committed[i] = record->contributions[i];
        r->committed[i].update = 0; /* gone with the process */
        r->children[r->committed[i].child].counted_path = last;
    }
    r->record.contributions = r->committed;
    r->have_turn = true;
    r->announce = record->round > 0;
    r->last_path = r->announce ? last : (struct tiered_path){0};
    return 0;
}

struct tiered_path tiered_round_open_path(const struct tiered_round *r)
{
    return r->path;
}
