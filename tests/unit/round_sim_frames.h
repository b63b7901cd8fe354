/* SPDX-License-Identifier: Apache-2.0 */
/* What a simulated node makes of frames that arrive, and of work that is done. */
#ifndef TIERED_TESTS_ROUND_SIM_FRAMES_H
#define TIERED_TESTS_ROUND_SIM_FRAMES_H

#include "round_sim_node.h"

static void sim_train_order(struct sim_world *w, uint32_t id, const struct sim_event *e)
{
    struct sim_node *node = &w->nodes[id];
    if (node->outbox.full && sim_same_path(&node->outbox.path, &e->path)) {
        if (!e->repeated) {
            node->accepted = false;
            sim_offer(w, id);
        }
        return;
    }
    if (tiered_path_compare(&e->path, &node->newest) < 0 ||
        (node->training.depth && sim_same_path(&node->training, &e->path))) {
        return;
    }
    node->newest = node->training = e->path;
    node->training_base = e->base;
    sim_later(w, id,
              (struct sim_event){.kind = SIM_TRAINED, .path = e->path, .base = e->base},
              1 + sim_below(w, 60));
}

static void sim_on_trained(struct sim_world *w, const struct sim_event *e)
{
    struct sim_node *node = &w->nodes[e->node];
    if (!node->training.depth || !sim_same_path(&node->training, &e->path)) {
        return;
    }
    node->training.depth = 0;
    sim_fill_outbox(w, e->node,
                    (struct sim_outbox){.path = e->path,
                                        .base = e->base,
                                        .delta = sim_train(e->node, &e->path, &e->base),
                                        .num_examples = node->weight});
}

static void sim_answer_evaluation(struct sim_world *w, uint32_t id,
                                  const struct sim_event *e)
{
    sim_up(w, id,
           (struct sim_event){.event = TIERED_ON_EVALUATION,
                              .path = e->path,
                              .base = e->base,
                              .num_examples = w->nodes[id].weight,
                              .accuracy = sim_accuracy(id, &e->base)});
}

static void sim_on_down(struct sim_world *w, const struct sim_event *e)
{
    struct sim_node *node = &w->nodes[e->node];
    struct tiered_round_event event = {.path = e->path, .base = e->base};
    switch (e->action) {
    case TIERED_DO_ORDER:
        if (node->leaf) {
            sim_train_order(w, e->node, e);
            return;
        }
        event.kind = TIERED_ON_START;
        sim_feed(w, e->node, event);
        return;
    case TIERED_DO_ORDER_EVALUATE:
        if (node->leaf) {
            sim_answer_evaluation(w, e->node, e);
            return;
        }
        event.kind = TIERED_ON_EVALUATE;
        sim_feed(w, e->node, event);
        return;
    case TIERED_DO_PHASE:
        sim_up(w, e->node,
               (struct sim_event){.event = TIERED_ON_PHASE,
                                  .path = e->path,
                                  .phase = e->phase,
                                  .step = e->step});
        return;
    default:
        sim_settled(w, e->node, &e->path);
        return;
    }
}

static void sim_on_up(struct sim_world *w, const struct sim_event *e)
{
    struct sim_node *node = &w->nodes[e->node];
    struct tiered_round_event event = {.kind = e->event,
                                       .child = node->index,
                                       .path = e->path,
                                       .base = e->base,
                                       .num_examples = e->num_examples,
                                       .phase = e->phase,
                                       .step = e->step};
    if (e->event == 0) { /* what holds now: the last word counts */
        event.kind = node->ready ? TIERED_ON_CHILD_READY : TIERED_ON_CHILD_LOST;
        if (node->ready) {
            w->nodes[node->parent].heard_gone[node->index] = false;
        }
    }
    if (e->event == TIERED_ON_OFFER) {
        event.generation = w->nodes[node->parent].config.generation;
        if (w->chaos.fences && w->now < w->chaos.until && sim_below(w, 8) == 0) {
            w->chaos.fences--;
            struct tiered_round_event fenced = event;
            fenced.generation += 1 + sim_below(w, 3);
            sim_step(w, node->parent, fenced, UINT64_MAX);
        }
    }
    if (e->event == TIERED_ON_EVALUATION) {
        event.metrics.n = 1;
        memcpy(event.metrics.items[0].name, "accuracy", 9);
        event.metrics.items[0].value = e->accuracy;
    }
    sim_step(w, node->parent, event, e->push);
}

/* All bytes of node's push are with its parent. */
static void sim_on_uploaded(struct sim_world *w, const struct sim_event *e)
{
    struct sim_node *node = &w->nodes[e->node], *parent = &w->nodes[node->parent];
    if (e->push != node->push || !node->outbox.full ||
        !sim_same_path(&node->outbox.path, &e->path)) {
        return;
    }
    struct tiered_round_event event = {.kind = TIERED_ON_UPDATE,
                                       .child = node->index,
                                       .path = e->path,
                                       .base = node->outbox.base,
                                       .num_examples = node->outbox.num_examples};
    node->accepted = true;
    if (w->chaos.bad_updates && sim_below(w, 8) == 0) {
        w->chaos.bad_updates--;
        event.kind = TIERED_ON_BAD_UPDATE;
        sim_feed(w, node->parent, event);
        return;
    }
    for (uint32_t i = 0; i < SIM_SPOOL; i++) {
        if (parent->spool[i].handle == 0) {
            parent->spool[i] = (struct sim_update){.handle = ++w->last_handle,
                                                   .child = node->index,
                                                   .path = e->path,
                                                   .base = node->outbox.base,
                                                   .delta = node->outbox.delta,
                                                   .num_examples = event.num_examples};
            event.update = w->last_handle;
            sim_feed(w, node->parent, event);
            return;
        }
    }
    SIM_CHECK(w, false, "node %u stores more updates than can be", node->parent);
}

static void sim_on_verdict(struct sim_world *w, const struct sim_event *e)
{
    struct sim_node *node = &w->nodes[e->node];
    if (e->push != node->push) {
        return;
    }
    if (e->action == TIERED_DO_ACCEPT) {
        node->accepted = true;
    } else {
        sim_settled(w, e->node, &e->path);
    }
}

static void sim_on_aggregated(struct sim_world *w, const struct sim_event *e)
{
    struct tiered_round_event event = {.kind = e->event,
                                       .base = e->base,
                                       .path = e->path,
                                       .child = e->phase,
                                       .update = e->push};
    if (e->event == TIERED_ON_AGGREGATED && e->num_examples == 0) {
        event.kind = TIERED_ON_NOT_AGGREGATED;
    }
    sim_feed(w, e->node, event);
}

#endif
