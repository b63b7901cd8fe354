/* SPDX-License-Identifier: Apache-2.0 */
/* A plan as JSON, written node by node: there may be a million. */
#include <jansson.h>

#include "orchestrator/plan_text.h"
#include "orchestrator/privacy.h"

struct writer {
    const struct plan_view *view;
    FILE *out;
    struct tiered_error *err;
};

static json_t *plugin(struct writer *w, uint32_t node,
                      const struct tiered_plugin_ref *ref)
{
    TIERED_FREE char *options = tiered_plan_options(w->view->plan, node, ref, w->err);
    return options ? json_pack("{s:s, s:o}", "name", ref->loaded->plugin.name,
                               "options", json_loads(options, 0, NULL))
                   : NULL;
}

static json_t *plugins(struct writer *w, uint32_t node,
                       const struct tiered_plugin_list *list)
{
    json_t *array = json_array();
    for (size_t i = 0; i < list->n; i++) {
        if (json_array_append_new(array, plugin(w, node, &list->items[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *bytes(const struct writer *w, uint64_t n)
{
    return w->view->model_known ? json_integer((json_int_t)n) : json_null();
}

static json_t *text(struct writer *w, uint32_t node, const char *template)
{
    TIERED_FREE char *expanded =
        template ? tiered_plan_text(w->view->plan, node, template, w->err) : NULL;
    return expanded ? json_string(expanded) : json_null();
}

static json_t *rounds(const struct tiered_node *node)
{
    const struct tiered_rounds *r = &node->settings->rounds;
    return json_pack(
        "{s:i, s:f, s:b, s:i, s:i, s:o, s:s}", "per_parent_round",
        (int)r->per_parent_round, "sample", r->sample, "poisson", r->poisson, "sampled",
        (int)tiered_rounds_sampled(r, node->n_children), "quorum",
        (int)tiered_rounds_needed(r, node->n_children), "deadline_ms",
        r->deadline_ms ? json_integer((json_int_t)r->deadline_ms) : json_null(), "late",
        r->keep_late ? "next" : "drop");
}

static void set_inner(struct writer *w, json_t *object, uint32_t i)
{
    static const char *const on_bad[] = {"reject", "exclude", "allow"};
    const struct tiered_plan *plan = w->view->plan;
    const struct tiered_node *node = &plan->nodes[i];
    const struct tiered_settings *s = node->settings;
    struct node_estimate e = estimate_node(plan, i, w->view->model_bytes);
    json_t *children = json_array();
    for (uint32_t k = 0; k < node->n_children; k++) {
        json_array_append_new(children,
                              json_string(plan->nodes[node->first_child + k].name));
    }
    json_object_set_new(object, "children", children);
    json_object_set_new(object, "aggregate", plugins(w, i, &s->aggregate));
    json_object_set_new(object, "rounds", rounds(node));
    json_object_set_new(object, "on_bad_update", json_string(on_bad[s->on_bad_update]));
    json_object_set_new(object, "bytes_from_children", bytes(w, e.from_children_bytes));
    json_object_set_new(object, "memory_estimate", bytes(w, e.memory_bytes));
}

static void set_link(struct writer *w, json_t *object, uint32_t i)
{
    const struct tiered_plan *plan = w->view->plan;
    const struct tiered_settings *s = plan->nodes[i].settings;
    struct node_estimate e = estimate_node(plan, i, w->view->model_bytes);
    json_object_set_new(object, "transport", plugin(w, i, &s->transport));
    json_object_set_new(object, "uplink", plugins(w, i, &s->uplink));
    json_object_set_new(object, "downlink", plugins(w, i, &s->downlink));
    json_object_set_new(object, "bytes_up", bytes(w, e.up_bytes));
    json_object_set_new(object, "bytes_down", bytes(w, e.down_bytes));
}

static json_t *node_object(struct writer *w, uint32_t i)
{
    const struct tiered_plan *plan = w->view->plan;
    const struct tiered_node *node = &plan->nodes[i];
    const struct tiered_settings *s = node->settings;
    bool root = node->parent == TIERED_NO_NODE;
    json_t *object = json_pack(
        "{s:s, s:s, s:i, s:o, s:s, s:o, s:o, s:I}", "name", node->name, "tier",
        tiered_topology_tier(plan->topology, node->tier)->name, "index",
        (int)node->index, "parent",
        root ? json_null() : json_string(plan->nodes[node->parent].name), "agent",
        plan->agents[node->agent].name, "host", text(w, i, s->host), "listen",
        text(w, i, s->listen), "memory_bytes", (json_int_t)s->memory_bytes);
    if (node->n_children) {
        set_inner(w, object, i);
    } else {
        json_object_set_new(object, "trainer", plugin(w, i, &s->trainer));
    }
    if (!root) {
        set_link(w, object, i);
    }
    return object;
}

static int put(struct writer *w, json_t *object)
{
    int result =
        object ? json_dumpf(object, w->out, JSON_COMPACT | JSON_REAL_PRECISION(15))
               : -1;
    json_decref(object);
    return result < 0 ? tiered_fail(w->err, TIERED_ENOMEM, "cannot write the plan") : 0;
}

static json_t *agent_object(const struct tiered_plan *plan, uint32_t i)
{
    const struct tiered_planned_agent *agent = &plan->agents[i];
    json_t *nodes = json_array();
    for (uint32_t k = 0; k < agent->n_nodes; k++) {
        json_array_append_new(nodes, json_string(plan->nodes[agent->nodes[k]].name));
    }
    return json_pack("{s:s, s:o, s:o}", "name", agent->name, "host",
                     agent->host ? json_string(agent->host) : json_null(), "nodes",
                     nodes);
}

static json_t *tiers(const struct tiered_plan *plan)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < plan->n_tiers; i++) {
        json_array_append_new(array,
                              json_pack("{s:s, s:i}", "name",
                                        tiered_topology_tier(plan->topology, i)->name,
                                        "nodes", (int)plan->tier_counts[i]));
    }
    return array;
}

int plan_print_json(const struct plan_view *view, FILE *out, struct tiered_error *err)
{
    const struct tiered_plan *plan = view->plan;
    struct writer w = {view, out, err};
    fprintf(out, "{\"name\":\"%s\",\"generation\":%llu,\"rounds\":%u,\"model_bytes\":",
            tiered_topology_run(plan->topology)->name,
            (unsigned long long)plan->generation,
            tiered_topology_run(plan->topology)->rounds);
    fprintf(out, view->model_known ? "%llu" : "null",
            (unsigned long long)view->model_bytes);
    fprintf(out, ",\"rounds_within_budget\":%u,\"privacy\":", plan->rounds);
    if (put(&w, privacy_plan_json(plan)) < 0) {
        return -1;
    }
    fputs(",\"tiers\":", out);
    if (put(&w, tiers(plan)) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < plan->n_nodes; i++) {
        fputs(i ? ",\n" : ",\"nodes\":[\n", out);
        if (put(&w, node_object(&w, i)) < 0) {
            return -1;
        }
    }
    for (uint32_t i = 0; i < plan->n_agents; i++) {
        fputs(i ? ",\n" : "],\"agents\":[\n", out);
        if (put(&w, agent_object(plan, i)) < 0) {
            return -1;
        }
    }
    fputs("]}\n", out);
    return 0;
}
