/* SPDX-License-Identifier: Apache-2.0 */
/* The initial model: asked of one child, passed on as it is. Nothing of it is kept: a
   child that is asked again makes the same model again. */
#include "core/round/inside.h"

void round_order_initial(struct tiered_round *r)
{
    round_act_child(r, TIERED_DO_ORDER_INITIAL, r->config.initial_child,
                    &r->initial_path);
}

void round_no_initial(struct tiered_round *r, const char *why)
{
    char name[64];
    r->initial_wanted = false;
    struct tiered_round_action *action = round_act(r, TIERED_DO_FAIL);
    action->path = r->initial_path;
    snprintf(action->reason, sizeof(action->reason), "no initial model from %s: %.180s",
             round_child_name(r, r->config.initial_child, name), why);
}

void round_on_initial(struct tiered_round *r, const struct tiered_path *path)
{
    if (r->state == ROUND_STOPPED) {
        return;
    }
    r->initial_wanted = true;
    r->initial_path = *path;
    switch (r->children[r->config.initial_child].link) {
    case LINK_READY:
        round_order_initial(r);
        break;
    case LINK_GONE:
        round_no_initial(r, "it is gone");
        break;
    default: /* ordered when it is ready */
        break;
    }
}

bool round_is_initial(const struct tiered_round *r, uint32_t child,
                      const struct tiered_path *path, const struct tiered_digest *base)
{
    return r->initial_wanted && child == r->config.initial_child &&
           tiered_digest_is_none(base) && tiered_path_equal(path, &r->initial_path);
}

void round_deliver_initial(struct tiered_round *r,
                           const struct tiered_round_event *event)
{
    r->initial_wanted = false;
    struct tiered_round_action *action =
        round_act_child(r, TIERED_DO_DELIVER_INITIAL, event->child, &event->path);
    action->update = event->update;
    action->num_examples = event->num_examples;
    action->metrics = event->metrics;
    round_settle(r, event->child, &event->path, true, "%s", "");
}
