/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold after every step of a simulated machine, and at the end. */
#ifndef TIERED_TESTS_ROUND_SIM_CHECK_H
#define TIERED_TESTS_ROUND_SIM_CHECK_H

#include "round_sim.h"

static bool sim_same_path(const struct tiered_path *a, const struct tiered_path *b)
{
    return tiered_path_equal(a, b);
}

static struct sim_update *sim_stored(struct sim_node *node, uint64_t handle)
{
    for (uint32_t i = 0; i < SIM_SPOOL; i++) {
        if (handle && node->spool[i].handle == handle) {
            return &node->spool[i];
        }
    }
    return NULL;
}

/* The updates to be folded are stored, one a child, in order, and of this model. */
static void sim_check_aggregate(struct sim_world *w, uint32_t id,
                                const struct tiered_round_action *a)
{
    struct sim_node *node = &w->nodes[id];
    node->n_folding = a->n_updates;
    node->folding_base = a->base;
    SIM_CHECK(w,
              (node->config.poisson || a->n_updates >= 1) &&
                  a->n_updates <= node->n_children,
              "node %u aggregates %u updates", id, a->n_updates);
    for (uint32_t i = 0; i < a->n_updates && i < SIM_CHILDREN; i++) {
        struct sim_update *u = sim_stored(node, a->updates[i].update);
        SIM_CHECK(w,
                  u && u->child == a->updates[i].child &&
                      u->num_examples == a->updates[i].num_examples,
                  "node %u aggregates an update that is not stored", id);
        SIM_CHECK(w, i == 0 || a->updates[i - 1].child < a->updates[i].child,
                  "node %u aggregates out of order", id);
        if (u) {
            SIM_CHECK(w, tiered_digest_equal(&u->base, &a->base),
                      "node %u aggregates an update of another base", id);
            SIM_CHECK(w, node->config.keep_late || sim_same_path(&u->path, &a->path),
                      "node %u aggregates an update of another round", id);
            node->folding[i] = *u;
        }
    }
}

/* Commits of one node's turn so far: rounds, and the sum of their examples. */
static uint32_t sim_turn(const struct sim_world *w, uint32_t id,
                         const struct tiered_path *turn, uint64_t *ret_examples)
{
    uint32_t rounds = 0;
    *ret_examples = 0;
    for (uint32_t i = 0; i < w->n_log; i++) {
        if (w->log[i].node == id && sim_same_path(&w->log[i].turn, turn)) {
            rounds++;
            *ret_examples += w->log[i].num_examples;
        }
    }
    return rounds;
}

/* A contribution is counted once, whatever happened. */
static void sim_check_once(struct sim_world *w, uint32_t id, const struct sim_update *u)
{
    for (uint32_t i = 0; i < w->n_log; i++) {
        for (uint32_t k = 0; w->log[i].node == id && k < w->log[i].n; k++) {
            SIM_CHECK(w,
                      w->log[i].updates[k].child != u->child ||
                          !sim_same_path(&w->log[i].updates[k].path, &u->path),
                      "node %u counts an update of child %u twice", id, u->child);
        }
    }
}

/* The record is durable: it joins the log. */
static void sim_log_commit(struct sim_world *w, uint32_t id)
{
    struct sim_node *node = &w->nodes[id];
    const struct tiered_round_record *record = &node->record;
    SIM_CHECK(w, w->n_log < SIM_LOG, "the simulator's log is full");
    if (w->n_log == SIM_LOG) {
        return;
    }
    uint64_t before;
    uint32_t rounds = sim_turn(w, id, &record->turn, &before);
    struct sim_commit *commit = &w->log[w->n_log];
    *commit = (struct sim_commit){.node = id,
                                  .round = record->round,
                                  .turn = record->turn,
                                  .base = node->folding_base,
                                  .model = record->model,
                                  .n = record->n_contributions};
    struct sim_model expected = sim_model(&node->folding_base);
    SIM_CHECK(
        w, record->n_contributions == 0 || record->n_contributions == node->n_folding,
        "node %u commits other updates than it aggregated", id);
    for (uint32_t i = 0; i < commit->n; i++) {
        const struct sim_update *u = &node->folding[i];
        SIM_CHECK(w,
                  record->contributions[i].update == u->handle &&
                      record->contributions[i].child == u->child,
                  "node %u commits other updates than it aggregated", id);
        sim_check_once(w, id, u);
        commit->updates[i] = *u;
        commit->num_examples += u->num_examples;
        sim_add(&expected, u->num_examples, u->delta);
    }
    struct tiered_digest digest = sim_digest(expected);
    SIM_CHECK(w, tiered_digest_equal(&digest, &record->model),
              "node %u commits a model that is not the sum of its updates", id);
    SIM_CHECK(w, record->round == rounds + 1, "node %u commits round %u after %u", id,
              record->round, rounds);
    SIM_CHECK(w, record->num_examples == before + commit->num_examples,
              "node %u: the turn's examples do not add up", id);
    w->n_log++;
}

/* Recompute a node's turn from the log alone: what each child sent is trained again,
   or recomputed in turn. */
static struct tiered_digest sim_reference(struct sim_world *w, uint32_t id,
                                          const struct tiered_path *turn,
                                          struct tiered_digest model,
                                          uint64_t *ret_examples)
{
    const struct sim_node *node = &w->nodes[id];
    *ret_examples = 0;
    for (uint32_t i = 0; i < w->n_log; i++) {
        const struct sim_commit *commit = &w->log[i];
        if (commit->node != id || !sim_same_path(&commit->turn, turn)) {
            continue;
        }
        struct sim_model sum = sim_model(&model);
        for (uint32_t k = 0; k < commit->n; k++) {
            const struct sim_update *u = &commit->updates[k];
            uint32_t child = node->children[u->child];
            uint64_t examples = w->nodes[child].weight;
            struct sim_model delta = sim_train(child, &u->path, &model);
            if (!w->nodes[child].leaf) {
                struct tiered_digest after =
                    sim_reference(w, child, &u->path, model, &examples);
                struct sim_model from = sim_model(&model);
                delta = sim_model(&after);
                delta.x -= from.x;
                delta.y -= from.y;
            }
            sim_add(&sum, examples, delta);
            *ret_examples += examples;
        }
        model = sim_digest(sum);
    }
    return model;
}

struct sim_named {
    struct sim_world *w;
    struct sim_node *node;
};

/* No round waits for a node that is gone. */
static const char *sim_name(void *user, uint32_t child)
{
    struct sim_named *named = user;
    SIM_CHECK(named->w, !named->node->heard_gone[child],
              "a round waits for child %u, which is gone", child);
    return "x";
}

static void sim_check_why(struct sim_world *w, uint32_t id)
{
    struct sim_node *node = &w->nodes[id];
    char why[300];
    struct sim_named named = {w, node};
    tiered_round_why(node->machine, sim_name, &named, why, sizeof(why));
    struct tiered_path open = tiered_round_open_path(node->machine);
    bool waits =
        open.depth || strcmp(tiered_round_state(node->machine), "evaluating") == 0;
    SIM_CHECK(w, !waits || strlen(why) > 8, "node %u, %s: waits for nothing", id,
              tiered_round_state(node->machine));
    bool collects = strcmp(tiered_round_state(node->machine), "collecting") == 0;
    SIM_CHECK(w, !collects || strstr(why, "waits for x"),
              "node %u collects, but waits for nobody: %s", id, why);
}

/* Exactly one answer to an offer. */
static void sim_check_answer(struct sim_world *w, uint32_t id,
                             const struct tiered_round_event *event,
                             const struct tiered_round_action *actions, size_t n)
{
    uint32_t answers = 0;
    for (size_t i = 0; i < n; i++) {
        const struct tiered_round_action *a = &actions[i];
        answers += (a->kind == TIERED_DO_RECEIVE || a->kind == TIERED_DO_ACCEPT ||
                    a->kind == TIERED_DO_REFUSE || a->kind == TIERED_DO_SETTLE) &&
                   a->child == event->child && sim_same_path(&a->path, &event->path);
        SIM_CHECK(w,
                  event->generation == w->nodes[id].config.generation ||
                      a->kind == TIERED_DO_REFUSE,
                  "node %u takes an offer of another generation", id);
    }
    SIM_CHECK(w, answers == 1, "node %u answers an offer %u times", id, answers);
}

/* Everybody who is counted is told so, when the record is durable. */
static void sim_check_settled(struct sim_world *w, uint32_t id,
                              const struct tiered_round_action *actions, size_t n)
{
    uint32_t settled = 0;
    for (size_t i = 0; i < n; i++) {
        settled += actions[i].kind == TIERED_DO_SETTLE && actions[i].counted;
    }
    SIM_CHECK(w, settled == w->nodes[id].record.n_contributions,
              "node %u settles %u of %u contributions", id, settled,
              w->nodes[id].record.n_contributions);
}

/* A failure's reason: the children that are left cannot make the quorum. */
static void sim_check_failure(struct sim_world *w, uint32_t id, const char *reason)
{
    struct sim_node *node = &w->nodes[id];
    SIM_CHECK(w, strstr(reason, "quorum") || strstr(reason, "gone"),
              "node %u fails for no reason: %s", id, reason);
    unsigned in, sampled, more, needed;
    const char *numbers = strstr(reason, "quorum: ");
    if (numbers) {
        char what[16];
        int got = sscanf(numbers, "quorum: %u of %u %15s are in, %u more may come, %u",
                         &in, &sampled, what, &more, &needed);
        SIM_CHECK(w,
                  got == 5 && in + more < needed && needed <= sampled &&
                      sampled <= node->n_children,
                  "node %u fails for a reason that does not hold: %s", id, reason);
        SIM_CHECK(w,
                  strstr(reason, "gone: ") || strstr(reason, "bad: ") ||
                      node->config.pre.steps || node->config.post.steps,
                  "node %u blames nobody: %s", id, reason);
    }
}

#endif
