/* SPDX-License-Identifier: Apache-2.0 */
/* The run: section: what its keys mean together. */
#include <string.h>

#include "core/model/safetensors.h"
#include "core/topology/inside.h"

/* True when one is written. */
static bool read_epsilon(struct loader *l, const struct top_keys *keys,
                         struct tiered_stop *ret)
{
    const struct given *given = &keys->given;
    if (given_has(given, TOP_EPSILON) && keys->epsilon <= 0) {
        tiered_diag_error(l->diag, given->marks[TOP_EPSILON],
                          "run.stop_when.epsilon must be above 0, not %g",
                          keys->epsilon);
    } else if (given_has(given, TOP_EPSILON)) {
        ret->epsilon = keys->epsilon;
    }
    return given->marks[TOP_EPSILON].file != NULL;
}

static void read_stop(struct loader *l, const struct top_keys *keys,
                      struct tiered_stop *ret)
{
    const struct given *given = &keys->given;
    struct tiered_mark mark = given->marks[TOP_STOP_WHEN];
    bool metric = given->marks[TOP_METRIC].file != NULL;
    bool at_least = given->marks[TOP_AT_LEAST].file != NULL; /* written, if badly */
    bool at_most = given->marks[TOP_AT_MOST].file != NULL;
    if (!given_has(given, TOP_STOP_WHEN)) {
        return;
    }
    ret->mark = mark;
    if (read_epsilon(l, keys, ret) && !metric && !at_least && !at_most) {
        return; /* a budget by itself */
    }
    if (!metric || at_least == at_most) {
        tiered_diag_error(l->diag, mark,
                          "run.stop_when needs metric and one of at_least and at_most, "
                          "such as {metric: accuracy, at_least: 0.97}, or epsilon");
        return;
    }
    if (!given_has(given, TOP_METRIC)) {
        return; /* said already */
    }
    if (strlen(keys->metric) >= sizeof(ret->metric)) {
        tiered_diag_error(l->diag, given->marks[TOP_METRIC],
                          "run.stop_when.metric has more than %zu letters",
                          sizeof(ret->metric) - 1);
        return;
    }
    if (keys->every == 0) {
        tiered_diag_error(l->diag, mark,
                          "run.stop_when needs evaluations, and run.evaluate.every is "
                          "0");
    }
    snprintf(ret->metric, sizeof(ret->metric), "%s", keys->metric);
    ret->at = at_least ? keys->at_least : keys->at_most;
    ret->sign = at_least ? 1 : -1;
}

/* Blobs and trees may go only to aggregators that declare it: they have no mean. */
static void check_blobs(struct loader *l, const struct tiered_layout *layout,
                        struct tiered_mark mark)
{
    const struct tiered_topology *t = l->topology;
    const struct tiered_tensor *blob = NULL;
    for (uint32_t i = 0; i < layout->m.n_tensors && !blob; i++) {
        enum tiered_dtype dtype = layout->m.tensors[i].dtype;
        blob =
            dtype == TIERED_U8 || dtype == TIERED_BOOL ? &layout->m.tensors[i] : NULL;
    }
    bool forest = tiered_layout_is_forest(layout);
    for (size_t i = 0; (blob || forest) && i + 1 < t->n_tiers; i++) {
        const struct tiered_plugin_list *chain = &t->tiers[i].tier.settings.aggregate;
        const struct tiered_loaded *aggregator =
            chain->n ? chain->items[0].loaded : NULL;
        if (!aggregator || (aggregator->plugin.traits & TIERED_ACCEPTS_BLOBS)) {
            continue;
        }
        if (forest) {
            tiered_diag_error(l->diag, mark,
                              "run.model: the tensors are the trees of a forest "
                              "(t0.left …), which '%s' of tier '%s' cannot average; "
                              "tree-bagging unites them",
                              aggregator->plugin.name, t->tiers[i].tier.name);
        } else {
            tiered_diag_error(
                l->diag, mark,
                "run.model: tensor '%.80s' is an opaque %s, which '%s' of "
                "tier '%s' cannot aggregate",
                blob->name, tiered_dtype_name(blob->dtype), aggregator->plugin.name,
                t->tiers[i].tier.name);
        }
    }
}

static const char *read_model(struct loader *l, const struct top_keys *keys)
{
    struct tiered_topology *t = l->topology;
    struct tiered_error err = {0};
    if (!keys->model) {
        return NULL;
    }
    size_t n = strlen(t->folder) + strlen(keys->model) + 2;
    char *path = tiered_arena_alloc(&t->arena, n, 1);
    if (!path) {
        tiered_diag_error(l->diag, keys->given.marks[TOP_MODEL], "out of memory");
        return NULL;
    }
    bool absolute = keys->model[0] == '/';
    snprintf(path, n, "%s%s%s", absolute ? "" : t->folder, absolute ? "" : "/",
             keys->model);
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *layout = NULL;
    if (tiered_safetensors_layout(path, &layout, NULL, &err) < 0) {
        tiered_diag_error(l->diag, keys->given.marks[TOP_MODEL], "run.model: %s",
                          err.text);
        return NULL;
    }
    check_blobs(l, layout, keys->given.marks[TOP_MODEL]);
    return path;
}

void topology_run_read(struct loader *l, const struct top_keys *keys)
{
    struct tiered_run_settings *run = &l->topology->run;
    run->name = keys->name;
    run->rounds = keys->rounds;
    run->seed = keys->seed;
    run->evaluate_every = keys->every;
    run->orchestrator_host = keys->host;
    run->orchestrator_listen = keys->listen;
    read_stop(l, keys, &run->stop);
    run->model_path = read_model(l, keys);
}
