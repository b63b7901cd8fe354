/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan will cost. */
#include "orchestrator/estimate.h"

#include "core/model/safetensors.h"
#include "core/options/options.h"
#include "core/plugins/hosting.h"
#include "tiered/trainer.h"

static int ask_trainer(const struct tiered_trainer_ops *ops,
                       const struct tiered_host *host, const void *config,
                       const struct tiered_place *place, uint64_t *ret_bytes,
                       struct tiered_error *err)
{
    void *state = NULL;
    const struct tiered_manifest *manifest = NULL;
    if (ops->init(host, config, place, &state, err) < 0) {
        return -1;
    }
    int result = ops->manifest(state, &manifest, err);
    if (result == 0) {
        *ret_bytes = manifest->data_bytes;
    }
    ops->destroy(state);
    return result;
}

static int from_trainer(const struct tiered_plan *plan, uint64_t *ret_bytes,
                        struct tiered_error *err)
{
    uint32_t leaf = 0;
    while (plan->nodes[leaf].n_children) {
        leaf = plan->nodes[leaf].first_child + plan->nodes[leaf].initial_child;
    }
    const struct tiered_node *node = &plan->nodes[leaf];
    const struct tiered_plugin *plugin = &node->settings->trainer.loaded->plugin;
    TIERED_FREE char *json =
        tiered_plan_options(plan, leaf, &node->settings->trainer, err);
    struct tiered_config config = {0};
    if (!json || tiered_config_from_json(plugin, json, &config, err) < 0) {
        return -1;
    }
    struct tiered_hosting hosting;
    tiered_hosting_init(
        &hosting, tiered_topology_run(plan->topology)->seed, plugin->name,
        tiered_topology_tier(plan->topology, node->tier)->name, node->name, "");
    const struct tiered_place place = {.size = sizeof(place),
                                       .node = node->name,
                                       .index = node->index,
                                       .count = plan->tier_counts[node->tier],
                                       .model_only = 1};
    int result =
        ask_trainer(plugin->ops, &hosting.host, config.data, &place, ret_bytes, err);
    tiered_config_finish(&config);
    return result;
}

int estimate_model(const struct tiered_plan *plan, uint64_t *ret_bytes,
                   struct tiered_error *err)
{
    const char *path = tiered_topology_run(plan->topology)->model_path;
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *layout = NULL;
    if (!path) {
        return from_trainer(plan, ret_bytes, err);
    }
    if (tiered_safetensors_layout(path, &layout, NULL, err) < 0) {
        return -1;
    }
    *ret_bytes = layout->m.data_bytes;
    return 0;
}

struct node_estimate estimate_node(const struct tiered_plan *plan, uint32_t node,
                                   uint64_t model_bytes)
{
    const struct tiered_node *n = &plan->nodes[node];
    const struct tiered_settings *s = n->settings;
    struct node_estimate e = {0};
    if (n->parent != TIERED_NO_NODE) {
        e.up_bytes = e.down_bytes = model_bytes;
    }
    if (n->n_children) {
        uint64_t one_round =
            model_bytes * tiered_rounds_sampled(&s->rounds, n->n_children);
        uint64_t held = one_round < s->memory_bytes ? one_round : s->memory_bytes;
        e.from_children_bytes =
            one_round * (n->parent == TIERED_NO_NODE ? 1 : s->rounds.per_parent_round);
        e.memory_bytes = 2 * model_bytes + held; /* the base, and the one being made */
    }
    return e;
}
