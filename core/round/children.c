/* SPDX-License-Identifier: Apache-2.0 */
/* Children that come, go and come back, and whether there are enough of them. */
#include "core/round/inside.h"

/* A record that was committed while the child was away: it may not know. */
static void settle_again(struct tiered_round *r, uint32_t child)
{
    if (r->last_path.depth &&
        tiered_path_equal(&r->children[child].counted_path, &r->last_path)) {
        round_settle(r, child, &r->last_path, true, "%s", "");
    }
}

void round_on_ready(struct tiered_round *r, uint32_t child)
{
    struct round_child *c = &r->children[child];
    round_set_link(r, child, LINK_READY);
    if (r->state == ROUND_STOPPED) {
        round_act(r, TIERED_DO_STOP)->child = child;
        return;
    }
    settle_again(r, child);
    if (r->initial_wanted && child == r->config.initial_child) {
        round_order_initial(r);
    }
    if (round_in_phase(r, child) && !c->answered) {
        round_order_phase(r, child);
    } else if (r->state == ROUND_COLLECTING && c->member == MEMBER_WAITED) {
        round_act_child(r, TIERED_DO_ORDER, child, &r->path)->base = r->record.model;
    }
    if (r->evaluation.active && !c->answered) {
        round_order_evaluation(r, child);
    }
    round_check_ready(r);
}

static bool is_waited_for(const struct tiered_round *r, uint32_t child)
{
    const struct round_child *c = &r->children[child];
    return (r->state == ROUND_COLLECTING && c->member == MEMBER_WAITED) ||
           ((round_in_phase(r, child) || r->evaluation.active) && !c->answered) ||
           (r->initial_wanted && child == r->config.initial_child);
}

/* Whatever is open may close, or fail, now that a child is lost or gone. */
static void check_open(struct tiered_round *r)
{
    if (r->state == ROUND_COLLECTING) {
        round_check_collecting(r);
    } else if (r->state == ROUND_PRE || r->state == ROUND_POST) {
        round_check_phase(r);
    }
    if (r->evaluation.active) {
        round_check_evaluation(r);
    }
}

void round_on_lost(struct tiered_round *r, uint32_t child)
{
    if (r->children[child].link != LINK_READY) {
        return;
    }
    round_set_link(r, child, LINK_LOST);
    if (r->state == ROUND_STOPPED) {
        return;
    }
    if (is_waited_for(r, child)) {
        char name[64];
        round_warn(r, "%s is lost: its link is down", round_child_name(r, child, name));
    }
    check_open(r);
    round_check_ready(r);
}

void round_on_gone(struct tiered_round *r, uint32_t child)
{
    if (r->children[child].link == LINK_GONE) {
        return;
    }
    round_set_link(r, child, LINK_GONE);
    if (r->state == ROUND_STOPPED) {
        return;
    }
    char name[64];
    round_warn(r, "%s is gone", round_child_name(r, child, name));
    if (r->initial_wanted && child == r->config.initial_child) {
        round_no_initial(r, "it is gone");
    }
    check_open(r);
    round_check_ready(r);
}

/* Links that break during a turn are the turn's business: the node says that it is not
   ready only when it would be asked for the next one. With all children gone it is
   ready: to say, when it is ordered, that it cannot. Nobody shall wait for that. */
void round_check_ready(struct tiered_round *r)
{
    uint32_t alive = r->config.n_children - round_count_link(r, LINK_GONE);
    bool ready = alive == 0 || round_count_link(r, LINK_READY) >=
                                   round_share_up(r->config.quorum, alive);
    if (ready == r->told_ready || r->state == ROUND_STOPPED) {
        return;
    }
    if (ready) {
        r->told_ready = true;
        round_act(r, TIERED_DO_READY);
    } else if (r->state == ROUND_IDLE || r->state == ROUND_FAILED) {
        r->told_ready = false;
        struct tiered_round_action *action = round_act(r, TIERED_DO_UNREADY);
        round_list_missing(r, action->reason, sizeof(action->reason));
    }
}
