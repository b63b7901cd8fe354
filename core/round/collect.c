/* SPDX-License-Identifier: Apache-2.0 */
/* Collecting: the children are ordered to train; the round closes when all, or enough,
   have contributed. */
#include "core/round/inside.h"

uint32_t round_needed(const struct tiered_round *r)
{
    return round_share_up(r->config.quorum, r->n_sampled);
}

void round_begin_collecting(struct tiered_round *r)
{
    uint64_t deadline_ms = r->config.deadline_ms;
    bool lost = false;
    r->state = ROUND_COLLECTING;
    r->deadline_passed = false;
    if (deadline_ms) {
        round_set_timer(r, TIERED_TIMER_HALF, deadline_ms / 2);
        round_set_timer(r, TIERED_TIMER_DEADLINE, deadline_ms);
    }
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (r->children[i].member != MEMBER_WAITED) {
            continue;
        }
        if (r->children[i].link == LINK_READY) {
            round_act_child(r, TIERED_DO_ORDER, i, &r->path)->base = r->record.model;
        } else {
            lost = true;
        }
    }
    if (lost) {
        char why[200], path[192];
        tiered_round_why(r, NULL, NULL, why, sizeof(why));
        tiered_path_text(&r->path, path);
        round_warn(r, "round %s opens: %s", path, why);
    }
    round_check_collecting(r);
}

/* Name the children of one kind, as many as fit. */
static size_t list(const struct tiered_round *r, const char *label, char *out,
                   size_t size, bool (*belongs)(const struct round_child *c))
{
    size_t used = 0;
    for (uint32_t i = 0; i < r->config.n_children && used < size; i++) {
        char name[64];
        if (belongs(&r->children[i])) {
            used += (size_t)snprintf(out + used, size - used, "%s%s",
                                     used ? ", " : label, round_child_name(r, i, name));
        }
    }
    return used < size ? used : size - 1;
}

static bool is_gone(const struct round_child *c)
{
    return c->link == LINK_GONE && c->member != MEMBER_IN;
}

static bool is_bad(const struct round_child *c)
{
    return c->member == MEMBER_BAD;
}

void round_fail_quorum(struct tiered_round *r, const char *what, uint32_t in,
                       uint32_t may_come, uint32_t needed)
{
    char path[192], reason[256];
    tiered_path_text(&r->path, path);
    int n = snprintf(reason, sizeof(reason),
                     "round %.64s cannot reach its quorum: %u of %u %s are in, %u more "
                     "may come, %u are needed",
                     path, in, r->n_sampled, what, may_come, needed);
    size_t used = (size_t)n;
    used += list(r, "; gone: ", reason + used, sizeof(reason) - used, is_gone);
    list(r, "; bad: ", reason + used, sizeof(reason) - used, is_bad);
    round_fail(r, reason);
}

static bool is_waited_for(const struct round_child *c)
{
    return c->member == MEMBER_WAITED && c->link != LINK_GONE;
}

static void warn_closes_without(struct tiered_round *r)
{
    char path[192], without[160] = "";
    tiered_path_text(&r->path, path);
    list(r, "", without, sizeof(without), is_waited_for);
    round_warn(r, "round %.64s closes without %s", path, without);
}

void round_check_collecting(struct tiered_round *r)
{
    uint32_t in = round_count_member(r, MEMBER_IN);
    uint32_t at_work =
        r->count[MEMBER_WAITED][LINK_READY][0] + r->count[MEMBER_WAITED][LINK_READY][1];
    uint32_t lost =
        r->count[MEMBER_WAITED][LINK_LOST][0] + r->count[MEMBER_WAITED][LINK_LOST][1];
    uint32_t needed = round_needed(r);
    if (in + at_work + lost < needed) {
        round_fail_quorum(r, "updates", in, at_work + lost, needed);
        return;
    }
    bool all = at_work + lost == 0;
    bool no_more = r->config.deadline_ms == 0 && r->config.quorum < 1 && at_work == 0;
    if (!all && !(in >= needed && (r->deadline_passed || no_more))) {
        return;
    }
    round_clear_timers(r);
    if (!all) {
        warn_closes_without(r);
    }
    if (r->config.post.steps) {
        round_begin_phase(r, ROUND_POST);
    } else {
        round_aggregate(r);
    }
}

/* A stored update that will not count after all. */
void round_drop_stored(struct tiered_round *r, uint32_t child, const char *reason)
{
    struct round_child *c = &r->children[child];
    struct tiered_round_action *action =
        round_act_child(r, TIERED_DO_DROP_UPDATE, child, &c->update_path);
    action->update = c->update;
    snprintf(action->reason, sizeof(action->reason), "%s", reason);
    round_settle(r, child, &c->update_path, false, "%s", reason);
    r->open_examples -= c->num_examples;
}

void round_aggregate(struct tiered_round *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        const struct round_child *c = &r->children[i];
        if (c->member == MEMBER_IN || c->member == MEMBER_DROPPED) {
            r->counted[n++] = (struct tiered_counted){i, c->update, c->num_examples};
        }
    }
    r->state = ROUND_AGGREGATING;
    struct tiered_round_action *action = round_act(r, TIERED_DO_AGGREGATE);
    action->path = r->path;
    action->base = r->record.model;
    action->updates = r->counted;
    action->n_updates = n;
}
