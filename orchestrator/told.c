/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of a run: the events of its agents and its own, into the record, to the
   terminal and to the dashboard. */
#include <string.h>

#include "core/model/metrics.h"
#include "orchestrator/run.h"

static void keep_event(struct run *run, const json_t *event)
{
    struct tiered_error err;
    bool kept = record_event(run->record, run->id, event, &err) == 0;
    if (!kept && !run->record_fails) { /* not again for each event */
        report_say(run->report, "warning", "%s", err.text);
    }
    run->record_fails = !kept;
}

void told_event(struct run *run, const char *name, json_t *fields)
{
    char now[32];
    tiered_wall_text(now);
    json_t *event = json_pack("{s:s, s:s}", "event", name, "time", now);
    json_object_update(event, fields);
    json_decref(fields);
    keep_event(run, event);
    report_event(run->report, event);
    http_event(run->http, event);
    json_decref(event);
}

/* ---- events from the agents ---- */

static void root_committed(struct run *run, const json_t *event)
{
    struct tiered_digest digest;
    const char *model = json_string_value(json_object_get(event, "model"));
    run->rounds = (uint32_t)json_integer_value(json_object_get(event, "round"));
    tiered_metrics_update(&run->metrics, json_object_get(event, "metrics"));
    /* once the root has delivered, that named its last model: this is an older one */
    if (run->stage < RUN_FINISHING && model && tiered_digest_parse(model, &digest)) {
        caller_published(run, &digest);
    }
}

/* A node that was started again tells its last round once more. */
static bool told_before(struct run *run, const char *node, const json_t *event)
{
    uint32_t index = node ? tiered_plan_find(run->plan, node) : TIERED_NO_NODE;
    uint32_t round = (uint32_t)json_integer_value(json_object_get(event, "round"));
    if (index == TIERED_NO_NODE || round <= run->node_rounds[index]) {
        return true;
    }
    run->node_rounds[index] = round;
    return false;
}

static void note_progress(struct run *run, const json_t *event)
{
    const json_t *item;
    size_t i;
    json_array_foreach (json_object_get(event, "counted"), i, item) {
        const char *node = json_string_value(json_object_get(item, "node"));
        if (node) {
            fleet_progress(run, node);
        }
    }
}

static void count_privacy(struct run *run, json_t *event)
{
    struct tiered_error err;
    if (privacy_take(&run->privacy, event, run->record, run->id, &err) < 0) {
        report_say(run->report, "warning", "%s", err.text);
    }
}

void told_take(struct run *run, json_t *event)
{
    const char *name = json_string_value(json_object_get(event, "event"));
    const char *node = json_string_value(json_object_get(event, "node"));
    if (!name ||
        (strcmp(name, "round_committed") == 0 && told_before(run, node, event))) {
        return;
    }
    count_privacy(run, event);
    keep_event(run, event);
    if (strcmp(name, "contributions") != 0 && strcmp(name, "noise_released") != 0) {
        report_event(run->report, event);
        http_event(run->http, event);
    }
    if (strcmp(name, "round_committed") == 0) {
        view_round(&run->view, event);
    }
    if (strcmp(name, "contributions") == 0) {
        note_progress(run, event);
    } else if (strcmp(name, "round_committed") == 0 && node) {
        fleet_progress(run, node);
        if (strcmp(node, run->plan->nodes[0].name) == 0) {
            root_committed(run, event);
        }
    } else if (strcmp(name, "node_failed") == 0) {
        const char *reason = json_string_value(json_object_get(event, "reason"));
        run_fail(run, "node '%s': %s", node ? node : "?", reason ? reason : "?");
    }
}

/* ---- told before ---- */

/* A round that an earlier process told: it counts, and is not told again. */
static void take_past_round(void *user, json_t *event)
{
    struct run *run = user;
    const char *node = json_string_value(json_object_get(event, "node"));
    if (told_before(run, node, event)) {
        return;
    }
    report_past_round(run->report, event);
    view_round(&run->view, event);
    if (strcmp(node, run->plan->nodes[0].name) == 0) {
        run->rounds = (uint32_t)json_integer_value(json_object_get(event, "round"));
        tiered_metrics_update(&run->metrics, json_object_get(event, "metrics"));
    }
}

int told_open(struct run *run, const struct run_options *options,
              struct tiered_error *err)
{
    const struct tiered_run_settings *settings =
        tiered_topology_run(run->plan->topology);
    char path[4096];
    snprintf(path, sizeof(path), "%s/run.db", run->folder);
    if (record_open(path, &run->record, err) < 0) {
        return -1;
    }
    if (run->resumed) {
        return record_resume(run->record, run->id, err) < 0 ? -1
               : record_rounds(run->record, run->id, take_past_round, run, err) < 0
                   ? -1
                   : privacy_restore(&run->privacy, run->record, run->id, err);
    }
    return record_run(run->record, run->id, settings->name, settings->seed,
                      run->plan->generation, options->topology_path, err);
}

/* ---- the first and the last ---- */

/* Paths may have any bytes, JSON may not. */
static json_t *text_json(const char *text)
{
    char clean[TIERED_LINK_TEXT + 1];
    json_t *value = json_string(text);
    if (!value) {
        tiered_link_text(text, clean);
        value = json_string(clean);
    }
    return value;
}

void told_started(struct run *run)
{
    json_t *agents = json_array();
    for (uint32_t i = 0; i < run->plan->n_agents; i++) {
        const struct tiered_planned_agent *a = &run->plan->agents[i];
        json_t *nodes = json_array();
        for (uint32_t k = 0; k < a->n_nodes; k++) {
            json_array_append_new(nodes,
                                  json_string(run->plan->nodes[a->nodes[k]].name));
        }
        json_array_append_new(agents,
                              json_pack("{s:s, s:i, s:o}", "name", a->name, "pid",
                                        (int)run->agents[i].pid, "nodes", nodes));
    }
    told_event(run, "run_started",
               json_pack("{s:s, s:o, s:b, s:s, s:o}", "run", run->id, "dir",
                         text_json(run->folder), "resumed", run->resumed, "http",
                         http_url(run->http), "agents", agents));
}

/* It ran all the rounds that it could afford, and more were wanted. */
static bool ended_by_budget(const struct run *run)
{
    return run->status == RUN_DONE && run->rounds == run->plan->rounds &&
           run->plan->rounds < tiered_topology_run(run->plan->topology)->rounds;
}

void told_finished(struct run *run, double seconds)
{
    static const char *const names[] = {"finished", "failed", "interrupted"};
    struct tiered_error err;
    bool has_model = !tiered_digest_is_none(&run->fetched);
    json_t *fields =
        json_pack("{s:s, s:s, s:I, s:o, s:f, s:o}", "run", run->id, "status",
                  names[run->status], "rounds", (json_int_t)run->rounds, "metrics",
                  tiered_metrics_json(&run->metrics), "seconds", seconds, "model",
                  has_model ? text_json(run->model_path) : json_null());
    if (run->reason[0]) {
        json_object_set_new(fields, "reason", text_json(run->reason));
    }
    json_t *spent = privacy_json(&run->privacy);
    json_object_set(fields, "privacy", spent);
    if (ended_by_budget(run)) {
        json_object_set_new(fields, "stopped_by", json_string("epsilon"));
    }
    told_event(run, "run_finished", fields);
    if (record_finish(run->record, run->id, names[run->status],
                      has_model ? run->model_path : NULL, &err) < 0) {
        report_say(run->report, "warning", "%s", err.text);
    }
    report_end(run->report, names[run->status], has_model ? run->model_path : NULL,
               spent, seconds);
    json_decref(spent);
}
