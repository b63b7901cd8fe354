/* SPDX-License-Identifier: Apache-2.0 */
/* An inner node: its life, and what its parent says. */
#include "agents/inner.h"

#include "agents/inner_group.h"
#include "agents/ways.h"

#include <math.h>

#include "core/base/log.h"

static struct inner *inner_of(struct node *node)
{
    return node->self;
}

void inner_log(const struct inner *inner, enum tiered_level level, const char *text)
{
    char path[192];
    tiered_path_text(&inner->open, path);
    const struct tiered_log_context where = {
        .tier = inner->node->as->tier, .node = inner->node->as->node, .path = path};
    tiered_log(level, "round", &where, "%s", text);
}

struct tiered_round_event inner_event(const struct inner *inner,
                                      enum tiered_round_event_kind kind, uint32_t child)
{
    return (struct tiered_round_event){
        .kind = kind,
        .child = child,
        .generation = inner->node->agent->assignment->generation,
    };
}

/* ---- updates ---- */

struct inner_update *inner_find(struct inner *inner, uint64_t handle)
{
    struct inner_update *u = inner->updates;
    while (u && u->handle != handle) {
        u = u->next;
    }
    return u;
}

void inner_release(struct inner *inner, struct inner_update *update)
{
    if (!update->dropped || update->in_use > 0) {
        return;
    }
    struct inner_update **at = &inner->updates;
    while (*at != update) {
        at = &(*at)->next;
    }
    *at = update->next;
    tiered_spool_release(inner->spool, update->encoded);
    free(update);
}

void inner_drop(struct inner *inner, uint64_t handle)
{
    struct inner_update *update = inner_find(inner, handle);
    if (update) {
        update->dropped = true;
        inner_release(inner, update);
    }
}

/* ---- what the parent says ---- */

void inner_start_turn(struct inner *inner)
{
    inner->in_turn = true;
    inner->next_set = false;
    inner->turn = inner->next_turn;
    tiered_model_unref(inner->turn_base);
    tiered_model_unref(inner->current);
    inner->turn_base = TIERED_STEAL(inner->next_base);
    inner->current = tiered_model_ref(inner->turn_base);
}

static void inner_train(struct node *node, const struct tiered_path *path)
{
    struct inner *inner = inner_of(node);
    int order = inner->in_turn ? tiered_path_compare(path, &inner->turn) : 1;
    if (order < 0) {
        node->train.active = false; /* long over */
        return;
    }
    if (order > 0) {
        tiered_model_unref(inner->next_base);
        inner->next_base = tiered_model_ref(node->model);
        inner->next_turn = *path;
        inner->next_set = true;
    }
    struct tiered_round_event event = inner_event(inner, TIERED_ON_START, 0);
    event.path = *path;
    event.base = order > 0 ? inner->next_base->digest : inner->turn_base->digest;
    inner_step(inner, &event);
}

static void inner_evaluate(struct node *node, const struct tiered_path *path)
{
    struct inner *inner = inner_of(node);
    struct tiered_round_event event = inner_event(inner, TIERED_ON_EVALUATE, 0);
    event.path = *path;
    event.base = node->model->digest;
    inner_step(inner, &event);
}

static void inner_initial(struct node *node, const struct tiered_path *path)
{
    struct inner *inner = inner_of(node);
    struct tiered_round_event event = inner_event(inner, TIERED_ON_INITIAL, 0);
    event.path = *path;
    inner_step(inner, &event);
}

static void inner_settled(struct node *node, const struct tiered_path *path)
{
    struct inner *inner = inner_of(node);
    struct tiered_round_event event = inner_event(inner, TIERED_ON_DELIVERED, 0);
    event.path = *path;
    inner_step(inner, &event);
}

static void inner_abandon(struct node *node, const struct tiered_path *path)
{
    (void)node;
    (void)path; /* the next start abandons the turn in the machine */
}

static const char *child_name(void *user, uint32_t child)
{
    struct inner *inner = user;
    return inner->children[child];
}

static void inner_state(struct node *node, Tiered__V1__NodeState *state)
{
    struct inner *inner = inner_of(node);
    state->state = (char *)tiered_round_state(inner->machine);
    tiered_round_why(inner->machine, child_name, inner, inner->why, sizeof(inner->why));
    state->why = inner->why;
    state->path = inner->open.n;
    state->n_path = inner->open.depth;
}

static void inner_gone(struct node *node, const char *child)
{
    struct inner *inner = inner_of(node);
    for (uint32_t i = 0; i < node->as->n_children; i++) {
        if (strcmp(inner->children[i], child) == 0) {
            struct tiered_round_event event =
                inner_event(inner, TIERED_ON_CHILD_GONE, i);
            inner_step(inner, &event);
        }
    }
}

/* ---- life ---- */

static void inner_close(struct node *node)
{
    struct inner *inner = inner_of(node);
    for (size_t i = 0; i < TIERED_COUNT(inner->timers); i++) {
        tiered_loop_cancel(node->agent->loop, &inner->timers[i]);
    }
}

static void inner_destroy(struct node *node)
{
    struct inner *inner = inner_of(node);
    tiered_downlink_destroy(inner->downlink);
    while (inner->updates) {
        inner->updates->dropped = true;
        inner->updates->in_use = 0;
        inner_release(inner, inner->updates);
    }
    for (int i = 0; i < INNER_PUBLISHED; i++) {
        inner_unpublish(&inner->published[i], true);
    }
    tiered_model_unref(inner->turn_base);
    tiered_model_unref(inner->next_base);
    tiered_model_unref(inner->current);
    tiered_model_unref(inner->aggregated);
    tiered_round_destroy(inner->machine);
    inner_group_destroy(inner->group);
    tiered_strategy_destroy(inner->strategy);
    tiered_spool_close(inner->spool);
    free(inner->strategy_uses);
    free(inner->child_up);
    free(inner->child_down);
    free(inner->children);
    free(inner->queue);
    free(inner);
}

static const struct node_work inner_work = {
    .train = inner_train,
    .evaluate = inner_evaluate,
    .initial = inner_initial,
    .settled = inner_settled,
    .abandon = inner_abandon,
    .state = inner_state,
    .gone = inner_gone,
    .close = inner_close,
    .destroy = inner_destroy,
};

static int create_machine(struct inner *inner, struct tiered_error *err)
{
    const Tiered__V1__NodeAssignment *as = inner->node->as;
    const Tiered__V1__RoundRules *rules = as->rules;
    if (!rules) {
        return tiered_fail(err, TIERED_EPEER, "an inner node without round rules");
    }
    struct tiered_round_config config = {
        .node = as->node,
        .n_children = (uint32_t)as->n_children,
        .rounds_per_parent = rules->rounds_per_parent,
        .sample = rules->sample,
        .poisson = rules->poisson,
        .quorum = rules->quorum,
        .deadline_ms = rules->deadline_ms,
        .keep_late = rules->keep_late,
        .evaluate_every = rules->evaluate_every,
        .stop_at = rules->stop_at,
        .stop_sign = rules->stop_sign,
        .seed = inner->node->agent->assignment->seed,
        .generation = inner->node->agent->assignment->generation,
        .initial_child = as->initial_child,
        .children = inner->children,
    };
    if (inner->group) {
        config.pre.quorum = config.post.quorum = rules->quorum;
        config.pre.deadline_ms = config.post.deadline_ms = rules->deadline_ms;
        inner_group_rules(inner->group, &config.pre.steps, &config.post.steps);
    }
    snprintf(config.stop_metric, sizeof(config.stop_metric), "%s", rules->stop_metric);
    return tiered_round_create(&config, &inner->machine, err);
}

/* Go on from the last commit, if there is one. */
static int restore(struct inner *inner, struct tiered_error *err)
{
    struct node *node = inner->node;
    struct tiered_round_record record;
    int found = store_load(node->folder, node->agent->assignment->run, &record, err);
    if (found < 0) {
        return -1;
    }
    store_sweep(node->folder, found ? &record : NULL);
    if (!found) {
        return 0;
    }
    int result = -1;
    TIERED_FREE char *state = store_optimizer_path(node->folder, record.total_rounds);
    if (!state) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (state &&
        store_model(node->folder, &record.turn_base, &inner->turn_base, err) == 0 &&
        store_model(node->folder, &record.model, &inner->current, err) == 0 &&
        (!tiered_strategy_has_state(inner->strategy) ||
         tiered_strategy_load(inner->strategy, state, inner->current->layout, err) ==
             0) &&
        tiered_round_restore(inner->machine, &record, err) == 0) {
        inner->in_turn = true;
        inner->turn = record.turn;
        inner_publish(inner, inner->current); /* children may be pulling it already */
        node->model = tiered_model_ref(inner->turn_base);
        inner_log(inner, TIERED_LOG_INFO, "goes on from its last committed round");
        result = 0;
    }
    store_record_finish(&record);
    return result;
}

/* Noise is measured by what the children's uplink bounds, over a number of children
   that no round changes. */
static int bound_noise(struct inner *inner, struct tiered_error *err)
{
    const Tiered__V1__NodeAssignment *as = inner->node->as;
    double norm;
    if (!tiered_strategy_has_noise(inner->strategy) || !as->rules) {
        return 0;
    }
    if (tiered_pipe_norm(inner->child_up, as->n_child_uplink, &norm, err) < 0) {
        return -1;
    }
    tiered_strategy_bound(inner->strategy, norm,
                          tiered_round_expected(as->rules->sample, as->rules->poisson,
                                                (uint32_t)as->n_children));
    return 0;
}

/* What the children's uplink bounds, where it is ours to move. */
static int follow_norms(struct inner *inner, struct tiered_error *err)
{
    return bound_noise(inner, err) < 0
               ? -1
               : tiered_strategy_follow(inner->strategy, inner->child_up,
                                        inner->node->as->n_child_uplink, err);
}

static int open_parts(struct inner *inner, struct tiered_error *err)
{
    struct node *node = inner->node;
    const Tiered__V1__NodeAssignment *as = node->as;
    TIERED_FREE char *spool = NULL;
    if (asprintf(&spool, "%s/spool", node->folder) < 0) {
        spool = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (tiered_spool_open(spool, as->memory_bytes, &inner->spool, err) < 0 ||
        node_uses(node->agent, as->strategy, as->n_strategy, (enum tiered_kind)0,
                  &inner->strategy_uses, err) < 0 ||
        node_uses(node->agent, as->child_uplink, as->n_child_uplink,
                  (enum tiered_kind)0, &inner->child_up, err) < 0 ||
        inner_group_create(inner, &inner->group, err) < 0 ||
        node_uses(node->agent, as->child_downlink, as->n_child_downlink, TIERED_FILTER,
                  &inner->child_down, err) < 0) {
        return -1;
    }
    if (tiered_strategy_create(inner->strategy_uses, as->n_strategy, &inner->hosting,
                               &inner->strategy, err) < 0) {
        return -1;
    }
    if (tiered_strategy_is_whole(inner->strategy)) { /* what validate says, once more */
        return tiered_fail(err, TIERED_ENOTSUP,
                           "'%s' merges models that grow, and in this version the "
                           "tensors of a run stay as they begin",
                           inner->strategy_uses[0].loaded->plugin.name);
    }
    return follow_norms(inner, err);
}

int inner_create(struct node *node, struct tiered_error *err)
{
    const Tiered__V1__NodeAssignment *as = node->as;
    struct inner *inner = calloc(1, sizeof(*inner));
    if (!inner) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    inner->node = node;
    inner->opened_ms = tiered_now_ms();
    node->self = inner;
    node->work = &inner_work;
    tiered_hosting_init(&inner->hosting, node->hosting.run_seed, "strategy", as->tier,
                        as->node, "");
    inner->children = calloc(as->n_children + 1, sizeof(*inner->children));
    if (!inner->children) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < as->n_children; i++) {
        inner->children[i] = as->children[i];
    }
    if (open_parts(inner, err) < 0 || create_machine(inner, err) < 0 ||
        restore(inner, err) < 0) {
        return -1;
    }
    inner->norm = tiered_strategy_norm(inner->strategy);
    node_ready(node, false, "its children are not ready");
    struct tiered_server *server;
    if (ways_server(node->agent, as->child_transport, as->insecure, as->listen, &server,
                    err) < 0) {
        return -1;
    }
    return tiered_downlink_create(server, inner->children, (uint32_t)as->n_children,
                                  &inner_downlink_owner, inner, &inner->downlink, err);
}
