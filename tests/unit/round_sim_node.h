/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated processes: leaves that train, inner nodes that carry their machine's
   actions out, and the links between them. */
#ifndef TIERED_TESTS_ROUND_SIM_NODE_H
#define TIERED_TESTS_ROUND_SIM_NODE_H

#include "round_sim_check.h"

static uint32_t sim_child(const struct sim_world *w, uint32_t id, uint32_t index)
{
    return w->nodes[id].children[index];
}

/* Something that the node's own process does later; void after a crash. */
static void sim_later(struct sim_world *w, uint32_t id, struct sim_event event,
                      uint64_t after)
{
    event.time = w->now + after;
    event.node = id;
    event.epoch = w->nodes[id].process;
    sim_push(w, event);
}

/* A session frame to a child: in order, or lost with the link. */
static void sim_down(struct sim_world *w, uint32_t child, struct sim_event event)
{
    struct sim_node *node = &w->nodes[child];
    if (!node->linked) {
        return;
    }
    uint64_t at = w->now + sim_delay(w);
    node->last_down = at > node->last_down ? at : node->last_down;
    event.time = node->last_down;
    event.kind = SIM_DOWN;
    event.node = child;
    event.epoch = node->link;
    sim_push(w, event);
    bool order = event.action == TIERED_DO_ORDER ||
                 event.action == TIERED_DO_ORDER_EVALUATE ||
                 event.action == TIERED_DO_PHASE;
    if (order && w->chaos.repeats && w->now < w->chaos.until && sim_below(w, 4) == 0) {
        w->chaos.repeats--;
        event.repeated = true; /* outlives its session */
        event.time += sim_below(w, 400);
        sim_push(w, event);
    }
}

static void sim_up(struct sim_world *w, uint32_t child, struct sim_event event)
{
    struct sim_node *node = &w->nodes[child];
    if (!node->linked) {
        return;
    }
    event.time = w->now + sim_delay(w);
    event.kind = SIM_UP;
    event.node = child;
    event.epoch = node->link;
    sim_push(w, event);
    bool once = event.event == 0 || event.event == TIERED_ON_BAD_UPDATE;
    if (!once && w->chaos.repeats && w->now < w->chaos.until && sim_below(w, 4) == 0) {
        w->chaos.repeats--;
        event.repeated = true;
        event.time += sim_below(w, 400);
        sim_push(w, event);
    }
}

/* (Re)offer what the outbox holds. */
static void sim_offer(struct sim_world *w, uint32_t id)
{
    struct sim_node *node = &w->nodes[id];
    if (!node->outbox.full || node->accepted || !node->linked) {
        return;
    }
    node->push = ++w->last_push;
    sim_up(w, id,
           (struct sim_event){.event = TIERED_ON_OFFER,
                              .push = node->push,
                              .path = node->outbox.path,
                              .base = node->outbox.base});
}

static void sim_say_ready(struct sim_world *w, uint32_t id)
{
    sim_up(w, id, (struct sim_event){.event = 0});
}

static void sim_fill_outbox(struct sim_world *w, uint32_t id, struct sim_outbox update)
{
    struct sim_node *node = &w->nodes[id];
    if (node->outbox.full && sim_same_path(&node->outbox.path, &update.path)) {
        SIM_CHECK(w,
                  memcmp(&node->outbox.delta, &update.delta, sizeof(update.delta)) ==
                          0 &&
                      node->outbox.num_examples == update.num_examples,
                  "node %u makes one update twice, differently", id);
    }
    node->outbox = update;
    node->outbox.full = true;
    node->accepted = false;
    sim_offer(w, id);
}

/* The parent is done with this update. */
static void sim_settled(struct sim_world *w, uint32_t id,
                        const struct tiered_path *path)
{
    struct sim_node *node = &w->nodes[id];
    if (!node->outbox.full || !sim_same_path(&node->outbox.path, path)) {
        return;
    }
    node->outbox.full = false;
    if (!node->leaf) {
        sim_feed(
            w, id,
            (struct tiered_round_event){.kind = TIERED_ON_DELIVERED, .path = *path});
    }
}

/* Cut a node's link to its parent: what is on the way is lost. */
static void sim_cut(struct sim_world *w, uint32_t id, uint64_t back_after)
{
    struct sim_node *node = &w->nodes[id];
    bool was = node->linked;
    node->linked = false;
    node->link++;
    if (was && w->nodes[node->parent].up) {
        sim_feed(w, node->parent,
                 (struct tiered_round_event){.kind = TIERED_ON_CHILD_LOST,
                                             .child = node->index});
    }
    if (!node->dead) {
        sim_push(w, (struct sim_event){.time = w->now + back_after,
                                       .kind = SIM_LINK_UP,
                                       .node = id,
                                       .epoch = node->link});
    }
}

static void sim_link_up(struct sim_world *w, uint32_t id)
{
    struct sim_node *node = &w->nodes[id], *parent = &w->nodes[node->parent];
    if (node->dead || parent->dead || node->linked) {
        return;
    }
    if (!node->up || !parent->up) { /* try again */
        sim_push(w, (struct sim_event){.time = w->now + 20,
                                       .kind = SIM_LINK_UP,
                                       .node = id,
                                       .epoch = node->link});
        return;
    }
    node->linked = true;
    node->last_down = w->now;
    sim_say_ready(w, id);
    sim_offer(w, id);
}

static void sim_boot(struct sim_world *w, uint32_t id)
{
    struct sim_node *node = &w->nodes[id];
    struct tiered_error err = {0};
    node->up = true;
    node->accepted = false;
    if (node->leaf) {
        node->ready = true;
        return;
    }
    node->ready = false;
    tiered_round_create(&node->config, &node->machine, &err);
    SIM_CHECK(w,
              !node->has_record ||
                  tiered_round_restore(node->machine, &node->record, &err) == 0,
              "node %u does not restart: %s", id, err.text);
    memset(node->heard_gone, 0, sizeof(node->heard_gone));
    for (uint32_t i = 0; i < node->n_children; i++) {
        if (w->nodes[node->children[i]].given_up) {
            sim_push(w, (struct sim_event){.time = w->now,
                                           .kind = SIM_GONE,
                                           .node = node->children[i]});
        }
    }
    if (id == 0) { /* whether ready or not: it is waited for by name then */
        sim_later(w, id, (struct sim_event){.kind = SIM_START}, 500);
    }
}

static void sim_crash(struct sim_world *w, uint32_t id, bool forever)
{
    struct sim_node *node = &w->nodes[id];
    node->up = false;
    node->dead |= forever;
    node->process++;
    node->training.depth = 0;
    memset(node->spool, 0, sizeof(node->spool));
    tiered_round_destroy(node->machine);
    node->machine = NULL;
    for (uint32_t i = 0; i < node->n_children; i++) {
        sim_cut(w, node->children[i], 1 + sim_below(w, 100));
    }
    if (id != 0) {
        sim_cut(w, id, 1 + sim_below(w, 100));
    }
    if (!node->dead) {
        sim_later(w, id, (struct sim_event){.kind = SIM_RESTART},
                  1 + sim_below(w, 200));
    }
}

static void sim_durable(struct sim_world *w, uint32_t id)
{
    struct sim_node *node = &w->nodes[id];
    node->has_record = true;
    node->record = node->committing;
    memcpy(node->contributions, node->pending, sizeof(node->contributions));
    node->record.contributions = node->contributions;
    sim_log_commit(w, id);
    for (uint32_t i = 0; i < node->record.n_contributions; i++) {
        struct sim_update *u = sim_stored(node, node->contributions[i].update);
        if (u) {
            u->handle = 0;
        }
    }
}

/* The driver folds what it was told to, now; the result comes later. */
static void sim_aggregate(struct sim_world *w, uint32_t id,
                          const struct tiered_round_action *a)
{
    struct sim_node *node = &w->nodes[id];
    sim_check_aggregate(w, id, a);
    struct sim_model sum = sim_model(&a->base);
    uint64_t examples = 0;
    for (uint32_t i = 0; i < a->n_updates; i++) {
        sim_add(&sum, node->folding[i].num_examples, node->folding[i].delta);
        examples += node->folding[i].num_examples;
    }
    struct sim_event event = {.kind = SIM_AGGREGATED,
                              .base = sim_digest(sum),
                              .num_examples = examples,
                              .event = TIERED_ON_AGGREGATED,
                              .path = a->path};
    if (a->n_updates && w->chaos.bad_updates && sim_below(w, 8) == 0) {
        w->chaos.bad_updates--;
        event.event = TIERED_ON_BAD_UPDATE;
        event.path = node->folding[0].path;
        event.phase = node->folding[0].child;
        event.push = node->folding[0].handle;
    }
    sim_later(w, id, event, sim_delay(w));
}

static void sim_commit(struct sim_world *w, uint32_t id,
                       const struct tiered_round_action *a)
{
    struct sim_node *node = &w->nodes[id];
    node->committing = *a->record;
    memcpy(node->pending, a->record->contributions,
           a->record->n_contributions * sizeof(*node->pending));
    uint64_t after = sim_delay(w);
    sim_later(w, id, (struct sim_event){.kind = SIM_DURABLE}, after);
    sim_later(w, id, (struct sim_event){.kind = SIM_COMMITTED},
              after + sim_below(w, 5));
}

static void sim_deliver(struct sim_world *w, uint32_t id,
                        const struct tiered_round_action *a)
{
    struct sim_node *node = &w->nodes[id];
    uint64_t examples;
    sim_turn(w, id, &a->path, &examples);
    SIM_CHECK(w, a->num_examples == examples,
              "node %u delivers %llu examples instead of %llu", id,
              (unsigned long long)a->num_examples, (unsigned long long)examples);
    SIM_CHECK(w, node->has_record && tiered_digest_equal(&node->record.model, &a->base),
              "node %u delivers a model that is not committed", id);
    if (id == 0) {
        w->done = true;
        w->model = a->base;
        w->num_examples = a->num_examples;
        return;
    }
    struct sim_model from = sim_model(&node->record.turn_base),
                     to = sim_model(&a->base);
    sim_fill_outbox(w, id,
                    (struct sim_outbox){.path = a->path,
                                        .base = node->record.turn_base,
                                        .delta = {to.x - from.x, to.y - from.y},
                                        .num_examples = a->num_examples});
}

static void sim_fail(struct sim_world *w, uint32_t id,
                     const struct tiered_round_action *a)
{
    sim_check_failure(w, id, a->reason);
    if (id == 0) {
        w->failed = true;
        snprintf(w->reason, sizeof(w->reason), "%s", a->reason);
    } else { /* the parent counts this node as missing */
        sim_up(w, id,
               (struct sim_event){.event = TIERED_ON_BAD_UPDATE, .path = a->path});
    }
}

/* An action for a child: an answer to its push, or a session frame. */
static void sim_act_child(struct sim_world *w, uint32_t id,
                          const struct tiered_round_action *a, uint64_t push)
{
    uint32_t child = sim_child(w, id, a->child);
    struct sim_event event = {.action = a->kind,
                              .path = a->path,
                              .base = a->base,
                              .counted = a->counted,
                              .phase = a->phase,
                              .step = a->step};
    SIM_CHECK(w, a->kind != TIERED_DO_ORDER || w->nodes[child].linked,
              "node %u orders child %u, which is not connected", id, a->child);
    if (!push) {
        sim_down(w, child, event);
        return;
    }
    event.kind = a->kind == TIERED_DO_RECEIVE ? SIM_UPLOADED : SIM_VERDICT;
    event.time = w->now + sim_delay(w);
    event.node = child;
    event.epoch = w->nodes[child].link;
    event.push = push;
    sim_push(w, event);
}

static void sim_act(struct sim_world *w, uint32_t id,
                    const struct tiered_round_action *a, uint64_t push)
{
    struct sim_node *node = &w->nodes[id];
    struct sim_update *u;
    switch (a->kind) {
    case TIERED_DO_RECEIVE:
    case TIERED_DO_ACCEPT:
    case TIERED_DO_REFUSE:
        SIM_CHECK(w, push, "node %u answers an offer that nobody made", id);
        /* fall through */
    case TIERED_DO_SETTLE:
        sim_act_child(w, id, a, push);
        break;
    case TIERED_DO_ORDER:
    case TIERED_DO_ORDER_EVALUATE:
    case TIERED_DO_PHASE:
        sim_act_child(w, id, a, 0);
        break;
    case TIERED_DO_DROP_UPDATE:
        u = sim_stored(node, a->update);
        SIM_CHECK(w, u, "node %u drops an update that is not stored", id);
        if (u) {
            u->handle = 0;
        }
        break;
    case TIERED_DO_SET_TIMER:
        sim_later(w, id,
                  (struct sim_event){
                      .kind = SIM_TIMER, .timer = a->timer, .timer_id = a->timer_id},
                  a->after_ms);
        break;
    case TIERED_DO_AGGREGATE:
        sim_aggregate(w, id, a);
        break;
    case TIERED_DO_COMMIT:
        sim_commit(w, id, a);
        break;
    case TIERED_DO_DELIVER:
        sim_deliver(w, id, a);
        break;
    case TIERED_DO_DELIVER_EVALUATION:
        sim_up(w, id,
               (struct sim_event){.event = TIERED_ON_EVALUATION,
                                  .path = a->path,
                                  .base = a->base,
                                  .num_examples = a->num_examples,
                                  .accuracy =
                                      a->metrics.n ? a->metrics.items[0].value : 0});
        break;
    case TIERED_DO_READY:
    case TIERED_DO_UNREADY:
        node->ready = a->kind == TIERED_DO_READY;
        if (id != 0) {
            sim_say_ready(w, id);
        } else if (node->ready) {
            sim_later(w, id, (struct sim_event){.kind = SIM_START}, 1);
        }
        break;
    case TIERED_DO_FAIL:
        sim_fail(w, id, a);
        break;
    default: /* CLEAR_TIMER: ids do that; COMMITTED, WARN, PHASE_CLOSED: for the log */
        break;
    }
}

/* Actions of a step, copied: carrying one out may step another machine, never this. */
static void sim_step(struct sim_world *w, uint32_t id, struct tiered_round_event event,
                     uint64_t push)
{
    struct sim_node *node = &w->nodes[id];
    const struct tiered_round_action *actions;
    size_t n;
    struct tiered_error err;
    if (w->broken[0] || !node->machine) {
        return;
    }
    w->n_steps++;
    if (tiered_round_step(node->machine, &event, &actions, &n, &err) < 0) {
        SIM_CHECK(w, false, "node %u: %s", id, err.text);
        return;
    }
    if (w->trace) {
        char path[192];
        tiered_path_text(&event.path, path);
        printf("%6llu node %u: event %d child %u path '%s':",
               (unsigned long long)w->now, id, event.kind, event.child, path);
        for (size_t i = 0; i < n; i++) {
            tiered_path_text(&actions[i].path, path);
            printf(" [%d child %u '%s' %s]", actions[i].kind, actions[i].child, path,
                   actions[i].reason);
        }
        printf(" -> %s\n", tiered_round_state(node->machine));
    }
    if (event.kind == TIERED_ON_OFFER) {
        sim_check_answer(w, id, &event, actions, n);
    } else if (event.kind == TIERED_ON_COMMITTED) {
        sim_check_settled(w, id, actions, n);
    }
    sim_check_why(w, id);
    for (size_t i = 0; i < n && !w->broken[0]; i++) {
        sim_act(w, id, &actions[i], push);
    }
}

static void sim_feed(struct sim_world *w, uint32_t id, struct tiered_round_event event)
{
    sim_step(w, id, event, 0);
}

#endif
