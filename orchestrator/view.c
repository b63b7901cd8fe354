/* SPDX-License-Identifier: Apache-2.0 */
/* The run as others see it: JSON and metrics. */
#include "orchestrator/view.h"

#include "core/model/metrics.h"
#include "orchestrator/run.h"

int view_create(const struct tiered_plan *plan, struct view *ret,
                struct tiered_error *err)
{
    ret->plan = plan;
    ret->nodes = calloc(plan->n_nodes, sizeof(*ret->nodes));
    return ret->nodes ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

void view_finish(struct view *view)
{
    free(view->nodes);
    view->nodes = NULL;
}

static void take_filters(Tiered__V1__FilterBytes *const *filters, size_t n,
                         uint64_t *ret)
{
    for (size_t k = 0; k < n && k < TIERED_MAX_STAGES; k++) {
        ret[k] = filters[k]->bytes;
    }
}

void view_heartbeat(struct view *view, const Tiered__V1__Heartbeat *heartbeat)
{
    for (size_t i = 0; i < heartbeat->n_nodes; i++) {
        const Tiered__V1__NodeState *s = heartbeat->nodes[i];
        uint32_t index = tiered_plan_find(view->plan, s->node);
        if (index == TIERED_NO_NODE) {
            continue;
        }
        struct view_node *node = &view->nodes[index];
        struct tiered_path path = {.depth = (uint32_t)s->n_path};
        char text[192];
        for (uint32_t k = 0; k < path.depth; k++) { /* bounded by the wire */
            path.n[k] = s->path[k];
        }
        tiered_path_text(&path, text);
        snprintf(node->path, sizeof(node->path), "%.63s", text);
        snprintf(node->state, sizeof(node->state), "%s", s->state);
        snprintf(node->why, sizeof(node->why), "%s", s->why);
        node->progress = s->progress;
        node->bytes_up = s->bytes_up;
        node->bytes_down = s->bytes_down;
        node->raw_up = s->raw_up;
        node->raw_down = s->raw_down;
        take_filters(s->filters_up, s->n_filters_up, node->filters_up);
        take_filters(s->filters_down, s->n_filters_down, node->filters_down);
        node->seen_ms = tiered_now_ms();
    }
}

static uint64_t number(const json_t *event, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(event, key));
}

void view_round(struct view *view, const json_t *event)
{
    const char *name = json_string_value(json_object_get(event, "node"));
    uint32_t index = name ? tiered_plan_find(view->plan, name) : TIERED_NO_NODE;
    if (index == TIERED_NO_NODE) {
        return;
    }
    struct view_node *node = &view->nodes[index];
    node->rounds++;
    node->contributions += number(event, "contributions");
    node->num_examples += number(event, "num_examples");
    node->round_seconds = json_number_value(json_object_get(event, "seconds"));
}

/* ---- JSON ---- */

static const char *stage_name(enum run_stage stage)
{
    static const char *const names[] = {"starting", "initial", "running", "finishing",
                                        "stopping"};
    return names[stage];
}

json_t *view_run_json(const struct run *run)
{
    const struct tiered_run_settings *settings =
        tiered_topology_run(run->plan->topology);
    bool has_model = !tiered_digest_is_none(&run->fetched);
    json_t *tiers = json_array();
    for (uint32_t t = 0; t < run->plan->n_tiers; t++) {
        json_array_append_new(
            tiers, json_pack("{s:s, s:I}", "name",
                             tiered_topology_tier(run->plan->topology, t)->name,
                             "nodes", (json_int_t)run->plan->tier_counts[t]));
    }
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:I, s:o, s:o}", "run", run->id,
        "name", settings->name, "dir", run->folder, "status", stage_name(run->stage),
        "started", run->started, "rounds", (json_int_t)run->rounds, "rounds_total",
        (json_int_t)run->plan->rounds, "metrics", tiered_metrics_json(&run->metrics),
        "model", has_model ? json_string(run->model_path) : json_null(), "generation",
        (json_int_t)run->plan->generation, "tiers", tiers, "privacy",
        privacy_json(&run->privacy));
}

static json_t *filters_json(const struct tiered_plugin_list *pipe,
                            const uint64_t *bytes)
{
    json_t *list = json_array();
    for (size_t k = 0; k < pipe->n; k++) {
        json_array_append_new(list, json_pack("{s:s, s:I}", "name",
                                              pipe->items[k].loaded->plugin.name,
                                              "bytes", (json_int_t)bytes[k]));
    }
    return list;
}

json_t *view_nodes_json(const struct run *run)
{
    json_t *list = json_array();
    uint64_t now = tiered_now_ms();
    for (uint32_t i = 0; i < run->plan->n_nodes; i++) {
        const struct tiered_node *node = &run->plan->nodes[i];
        const struct view_node *v = &run->view.nodes[i];
        bool root = node->parent == TIERED_NO_NODE;
        json_t *silent =
            v->seen_ms ? json_real((double)(now - v->seen_ms) / 1000.0) : json_null();
        json_array_append_new(
            list,
            json_pack(
                "{s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:f, s:I, s:I, s:I, s:I, "
                "s:o, s:o, s:s, s:o}",
                "node", node->name, "tier",
                tiered_topology_tier(run->plan->topology, node->tier)->name, "parent",
                root ? "" : run->plan->nodes[node->parent].name, "agent",
                run->plan->agents[node->agent].name, "connected",
                run->agents[node->agent].connected, "state",
                v->state[0] ? v->state : "starting", "path", v->path, "progress",
                (double)v->progress, "bytes_up", (json_int_t)v->bytes_up, "bytes_down",
                (json_int_t)v->bytes_down, "raw_up", (json_int_t)v->raw_up, "raw_down",
                (json_int_t)v->raw_down, "filters_up",
                filters_json(&node->settings->uplink, v->filters_up), "filters_down",
                filters_json(&node->settings->downlink, v->filters_down), "why", v->why,
                "silent_seconds", silent));
    }
    return list;
}

/* ---- Prometheus ---- */

static void describe(struct tiered_bytes *out, const char *name, const char *type,
                     const char *help)
{
    tiered_bytes_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Names are [a-z0-9._-] and need no escapes. */
static void labelled(struct tiered_bytes *out, const char *name, const struct run *run,
                     uint32_t node, double value)
{
    const struct tiered_node *n = &run->plan->nodes[node];
    tiered_bytes_printf(out, "%s{node=\"%s\",tier=\"%s\"} %.17g\n", name, n->name,
                        tiered_topology_tier(run->plan->topology, n->tier)->name,
                        value);
}

struct series {
    const char *name, *type, *help;
    double (*value)(const struct run *run, uint32_t node);
    bool inner; /* nodes with children alone */
};

static double up_value(const struct run *run, uint32_t node)
{
    return run->agents[run->plan->nodes[node].agent].connected ? 1 : 0;
}
static double rounds_value(const struct run *run, uint32_t node)
{
    return (double)run->view.nodes[node].rounds;
}
static double contributions_value(const struct run *run, uint32_t node)
{
    return (double)run->view.nodes[node].contributions;
}
static double examples_value(const struct run *run, uint32_t node)
{
    return (double)run->view.nodes[node].num_examples;
}
static double seconds_value(const struct run *run, uint32_t node)
{
    return run->view.nodes[node].round_seconds;
}
static double bytes_up_value(const struct run *run, uint32_t node)
{
    return (double)run->view.nodes[node].bytes_up;
}
static double bytes_down_value(const struct run *run, uint32_t node)
{
    return (double)run->view.nodes[node].bytes_down;
}

static double raw_up_value(const struct run *run, uint32_t node)
{
    return (double)run->view.nodes[node].raw_up;
}
static double raw_down_value(const struct run *run, uint32_t node)
{
    return (double)run->view.nodes[node].raw_down;
}

static const struct series all_series[] = {
    {"tiered_node_up", "gauge", "Whether the agent of the node is connected.", up_value,
     false},
    {"tiered_rounds_total", "counter", "Rounds that the node committed.", rounds_value,
     true},
    {"tiered_contributions_total", "counter", "Updates counted in these rounds.",
     contributions_value, true},
    {"tiered_examples_total", "counter", "Examples behind these updates.",
     examples_value, true},
    {"tiered_round_seconds", "gauge", "How long the last round took.", seconds_value,
     true},
    {"tiered_uplink_bytes_total", "counter", "Encoded bytes sent to the parent.",
     bytes_up_value, false},
    {"tiered_downlink_bytes_total", "counter",
     "Encoded bytes received from the parent.", bytes_down_value, false},
    {"tiered_uplink_raw_bytes_total", "counter",
     "Bytes of updates for the parent, before filters.", raw_up_value, false},
    {"tiered_downlink_raw_bytes_total", "counter",
     "Bytes of models from the parent, before filters.", raw_down_value, false},
};

/* One line a filter of each link; `stage` tells two of one name apart. */
static void put_pipe(struct tiered_bytes *out, const struct run *run, uint32_t node,
                     const char *link, const struct tiered_plugin_list *pipe,
                     const uint64_t *bytes)
{
    const struct tiered_node *n = &run->plan->nodes[node];
    for (size_t k = 0; k < pipe->n; k++) {
        tiered_bytes_printf(
            out,
            "tiered_filter_bytes_total{node=\"%s\",tier=\"%s\",link=\"%s\","
            "stage=\"%zu\",filter=\"%s\"} %llu\n",
            n->name, tiered_topology_tier(run->plan->topology, n->tier)->name, link,
            k + 1, pipe->items[k].loaded->plugin.name, (unsigned long long)bytes[k]);
    }
}

static void put_filters(struct tiered_bytes *out, const struct run *run)
{
    describe(out, "tiered_filter_bytes_total", "counter",
             "Bytes behind each filter of the node's links to its parent.");
    for (uint32_t i = 0; i < run->plan->n_nodes; i++) {
        const struct tiered_settings *s = run->plan->nodes[i].settings;
        put_pipe(out, run, i, "up", &s->uplink, run->view.nodes[i].filters_up);
        put_pipe(out, run, i, "down", &s->downlink, run->view.nodes[i].filters_down);
    }
}

static void put_series(struct tiered_bytes *out, const struct run *run,
                       const struct series *s)
{
    describe(out, s->name, s->type, s->help);
    for (uint32_t i = 0; i < run->plan->n_nodes; i++) {
        if (!s->inner || run->plan->nodes[i].n_children > 0) {
            labelled(out, s->name, run, i, s->value(run, i));
        }
    }
}

static void put_restarts(struct tiered_bytes *out, const struct run *run)
{
    describe(out, "tiered_agent_restarts_total", "counter",
             "How often an agent died and was started again.");
    for (uint32_t i = 0; i < run->plan->n_agents; i++) {
        tiered_bytes_printf(out, "tiered_agent_restarts_total{agent=\"%s\"} %u\n",
                            run->plan->agents[i].name, run->agents[i].died);
    }
}

static void put_privacy(struct tiered_bytes *out, const struct run *run)
{
    size_t i;
    json_t *line, *list = privacy_json(&run->privacy);
    describe(out, "tiered_privacy_epsilon", "gauge",
             "Epsilon that the busiest node of the tier has spent, at its delta.");
    json_array_foreach (list, i, line) {
        const json_t *epsilon = json_object_get(line, "epsilon");
        if (json_is_number(epsilon)) {
            tiered_bytes_printf(
                out,
                "tiered_privacy_epsilon{tier=\"%s\",noise=\"%s\",line=\"%zu\"} %.17g\n",
                json_string_value(json_object_get(line, "tier")),
                json_string_value(json_object_get(line, "noise")), i,
                json_number_value(epsilon));
        }
    }
    json_decref(list);
}

/* A metric's name is the trainer's: as a label its odd characters are replaced. */
static void put_run_metrics(struct tiered_bytes *out, const struct run *run)
{
    describe(out, "tiered_run_metric", "gauge",
             "Metrics of the root's last round, averaged by examples.");
    for (uint32_t i = 0; i < run->metrics.n; i++) {
        char name[sizeof(run->metrics.items[i].name)];
        snprintf(name, sizeof(name), "%s", run->metrics.items[i].name);
        for (char *c = name; *c; c++) {
            *c = *c == '"' || *c == '\\' || (unsigned char)*c < ' ' ? '_' : *c;
        }
        tiered_bytes_printf(out, "tiered_run_metric{metric=\"%s\"} %.17g\n", name,
                            run->metrics.items[i].value);
    }
}

char *view_metrics(const struct run *run)
{
    struct tiered_bytes out = {0};
    describe(&out, "tiered_run_info", "gauge", "The run; always 1.");
    tiered_bytes_printf(&out, "tiered_run_info{run=\"%s\",status=\"%s\"} 1\n", run->id,
                        stage_name(run->stage));
    for (size_t i = 0; i < TIERED_COUNT(all_series); i++) {
        put_series(&out, run, &all_series[i]);
    }
    put_filters(&out, run);
    put_restarts(&out, run);
    put_run_metrics(&out, run);
    put_privacy(&out, run);
    return (char *)out.data;
}
