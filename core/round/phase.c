/* SPDX-License-Identifier: Apache-2.0 */
/* The pre and post phases: steps of opaque messages, each closed like a round. Who
   misses a step before the updates is out of the round; who misses one after them is a
   dropout, and its update stays. */
#include "core/round/inside.h"

const struct tiered_phase_rules *round_phase_rules(const struct tiered_round *r)
{
    return r->state == ROUND_PRE ? &r->config.pre : &r->config.post;
}

static bool takes_part(const struct tiered_round *r, enum membership member)
{
    return member == MEMBER_IN || (r->state == ROUND_PRE && member == MEMBER_WAITED);
}

bool round_in_phase(const struct tiered_round *r, uint32_t child)
{
    return (r->state == ROUND_PRE || r->state == ROUND_POST) &&
           takes_part(r, r->children[child].member);
}

uint32_t round_phase_count(const struct tiered_round *r, enum link_state link,
                           bool answered)
{
    uint32_t n = r->count[MEMBER_IN][link][answered];
    if (r->state == ROUND_PRE) {
        n += r->count[MEMBER_WAITED][link][answered];
    }
    return n;
}

void round_order_phase(struct tiered_round *r, uint32_t child)
{
    struct tiered_round_action *action =
        round_act_child(r, TIERED_DO_PHASE, child, &r->path);
    action->phase = r->state == ROUND_PRE ? 1 : 2;
    action->step = r->step;
    action->update = r->attempt;
}

static void begin_step(struct tiered_round *r, uint32_t step)
{
    uint64_t deadline_ms = round_phase_rules(r)->deadline_ms;
    r->step = step;
    r->deadline_passed = false;
    round_no_answers(r);
    if (deadline_ms) {
        round_set_timer(r, TIERED_TIMER_HALF, deadline_ms / 2);
        round_set_timer(r, TIERED_TIMER_PHASE, deadline_ms);
    }
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (round_in_phase(r, i) && r->children[i].link == LINK_READY) {
            round_order_phase(r, i);
        }
    }
    round_check_phase(r);
}

void round_begin_phase(struct tiered_round *r, enum round_state phase)
{
    r->state = phase;
    r->attempt += phase == ROUND_PRE;
    begin_step(r, 1);
}

/* Returns the number of children that answered, now in r->answered. */
static uint32_t part_from_silent(struct tiered_round *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        struct round_child *c = &r->children[i];
        if (!round_in_phase(r, i)) {
            continue;
        }
        bool stored = c->member == MEMBER_IN;
        if (c->answered) {
            r->answered[n++] = (struct tiered_counted){i, stored ? c->update : 0,
                                                       stored ? c->num_examples : 0};
            continue;
        }
        char name[64];
        round_warn(r, "%s missed step %u of the %s phase", round_child_name(r, i, name),
                   r->step, r->state == ROUND_PRE ? "pre" : "post");
        if (r->state == ROUND_PRE && stored) {
            round_drop_stored(r, i, "it missed the pre phase");
        }
        round_set_member(r, i, r->state == ROUND_PRE ? MEMBER_MISSED : MEMBER_DROPPED);
    }
    return n;
}

static void close_step(struct tiered_round *r)
{
    round_clear_timers(r);
    uint32_t n = part_from_silent(r);
    struct tiered_round_action *action = round_act(r, TIERED_DO_PHASE_CLOSED);
    action->path = r->path;
    action->phase = r->state == ROUND_PRE ? 1 : 2;
    action->step = r->step;
    action->updates = r->answered;
    action->n_updates = n;
    if (r->step < round_phase_rules(r)->steps) {
        begin_step(r, r->step + 1);
    } else if (r->state == ROUND_PRE) {
        round_begin_collecting(r);
    } else {
        round_aggregate(r);
    }
}

void round_check_phase(struct tiered_round *r)
{
    const struct tiered_phase_rules *rules = round_phase_rules(r);
    uint32_t answered = round_phase_count(r, LINK_READY, true) +
                        round_phase_count(r, LINK_LOST, true) +
                        round_phase_count(r, LINK_GONE, true);
    uint32_t at_work = round_phase_count(r, LINK_READY, false);
    uint32_t lost = round_phase_count(r, LINK_LOST, false);
    uint32_t needed = round_share_up(rules->quorum, r->n_sampled);
    bool unreachable = answered + at_work + lost < needed;
    if (unreachable && r->state == ROUND_PRE) {
        round_fail_quorum(r, "messages", answered, at_work + lost, needed);
        return;
    }
    bool no_more = rules->deadline_ms == 0 && rules->quorum < 1 && at_work == 0;
    if (at_work + lost == 0 ||
        ((answered >= needed || unreachable) && (r->deadline_passed || no_more))) {
        close_step(r);
    }
}

/* Does this event belong to the open step, and is it the child's first word in it? */
static bool is_due(const struct tiered_round *r, const struct tiered_round_event *event)
{
    return round_in_phase(r, event->child) && !r->children[event->child].answered &&
           event->phase == (r->state == ROUND_PRE ? 1u : 2u) &&
           event->step == r->step && tiered_path_equal(&event->path, &r->path);
}

void round_on_phase_bad(struct tiered_round *r, const struct tiered_round_event *event)
{
    if (!is_due(r, event)) {
        return;
    }
    char name[64];
    bool pre = r->state == ROUND_PRE;
    round_warn(r, "%s is out of step %u of the %s phase: %.150s",
               round_child_name(r, event->child, name), r->step, pre ? "pre" : "post",
               event->reason ? event->reason : "it cannot answer");
    if (pre && r->children[event->child].member == MEMBER_IN) {
        round_drop_stored(r, event->child, "it missed the pre phase");
    }
    round_set_member(r, event->child, pre ? MEMBER_MISSED : MEMBER_DROPPED);
    round_check_phase(r);
}

/* What this child was to the round, it is no more. False: it was nothing. */
static bool part_from(struct tiered_round *r, uint32_t child)
{
    struct round_child *c = &r->children[child];
    bool stored = c->member == MEMBER_IN;
    if (r->state == ROUND_PRE && (stored || c->member == MEMBER_WAITED)) {
        if (stored) {
            round_drop_stored(r, child, "it missed the pre phase");
        }
        round_set_member(r, child, MEMBER_MISSED);
    } else if (r->state == ROUND_COLLECTING && c->member == MEMBER_WAITED) {
        round_set_member(r, child, MEMBER_MISSED);
    } else if (r->state == ROUND_POST && stored && !c->answered) {
        round_set_member(r, child, MEMBER_DROPPED);
    } else {
        return false;
    }
    return true;
}

/* Who may still be in this round. */
static uint32_t possible(const struct tiered_round *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        const struct round_child *c = &r->children[i];
        n += c->member == MEMBER_IN ||
             (c->member == MEMBER_WAITED && (c->link != LINK_GONE || c->answered));
    }
    return n;
}

void round_on_phase_lost(struct tiered_round *r, const struct tiered_round_event *event)
{
    char name[64];
    if (!tiered_path_equal(&event->path, &r->path) || !part_from(r, event->child)) {
        return;
    }
    const char *reason = event->reason ? event->reason : "it was started again";
    round_warn(r, "%s is out of the open attempt: %.150s",
               round_child_name(r, event->child, name), reason);
    if (r->state == ROUND_POST) {
        round_check_phase(r);
    } else if (possible(r) < round_needed(r)) {
        round_begin_again(r, reason);
    } else if (r->state == ROUND_PRE) {
        round_check_phase(r);
    } else {
        round_check_collecting(r);
    }
}

void round_on_phase_failed(struct tiered_round *r,
                           const struct tiered_round_event *event)
{
    bool open =
        r->state == ROUND_PRE || r->state == ROUND_COLLECTING || r->state == ROUND_POST;
    if (open && tiered_path_equal(&event->path, &r->path)) {
        round_fail(r, event->reason ? event->reason : "its phases cannot go on");
    }
}

void round_on_phase(struct tiered_round *r, const struct tiered_round_event *event)
{
    if (is_due(r, event)) {
        round_set_answered(r, event->child, true);
        round_check_phase(r);
    }
}
