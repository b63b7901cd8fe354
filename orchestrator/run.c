/* SPDX-License-Identifier: Apache-2.0 */
/* The course of a run: its folder, its parts, its end. */
#include "orchestrator/run.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/model/metrics.h"
#include "orchestrator/cmd.h"
#include "orchestrator/limits.h"

#define TICK_MS      200
#define HEARTBEAT_MS 1000
#define SILENCE_MS   10000
#define MISSING_MS   5000 /* how often a run that cannot start says what it waits for */

static void keep_event(struct run *run, const json_t *event)
{
    struct tiered_error err;
    bool kept = record_event(run->record, run->id, event, &err) == 0;
    if (!kept && !run->record_fails) { /* not again for each event */
        report_say(run->report, "warning", "%s", err.text);
    }
    run->record_fails = !kept;
}

void run_event(struct run *run, const char *name, json_t *fields)
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

void run_take_event(struct run *run, json_t *event)
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

/* ---- the end ---- */

void run_fail(struct run *run, const char *fmt, ...)
{
    if (run->stage == RUN_STOPPING) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    vsnprintf(run->reason, sizeof(run->reason), fmt, args);
    va_end(args);
    report_say(run->report, "error", "%s", run->reason);
    run_stop(run, RUN_FAILED);
}

void run_stop(struct run *run, enum run_status status)
{
    if (run->stage == RUN_STOPPING) {
        return;
    }
    run->stage = RUN_STOPPING;
    run->status = status;
    fleet_stop(run);
}

void run_finished_check(struct run *run)
{
    if (run->stage == RUN_FINISHING &&
        tiered_digest_equal(&run->newest, &run->fetched)) {
        run_stop(run, RUN_DONE);
    }
}

static void on_signal(void *arg, int number)
{
    struct run *run = arg;
    if (number == SIGCHLD) {
        fleet_reap(run);
        return;
    }
    if (run->signals++ == 0) {
        report_say(run->report, "warning",
                   "interrupted: stopping the agents (once more to kill them)");
        run_stop(run, RUN_INTERRUPTED);
    } else {
        fleet_kill(run, SIGKILL);
    }
}

/* ---- while it runs ---- */

static void say_missing(struct run *run)
{
    char text[400];
    size_t at = 0;
    unsigned more = 0;
    for (uint32_t i = 0; i < run->plan->n_agents; i++) {
        if (run->agents[i].connected) {
            continue;
        }
        if (at < sizeof(text) - 100) {
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? ", " : "",
                                   run->agents[i].planned->name);
        } else {
            more++;
        }
    }
    if (at) {
        report_say(run->report, "warning", "waiting for agents: %s%s", text,
                   more ? ", …" : "");
    } else {
        report_say(run->report, "warning",
                   "waiting for nodes to be ready (data is being loaded)");
    }
}

/* Whoever read what we print has gone: as if by SIGPIPE, the run ends; but in order. */
static void check_stdout(struct run *run)
{
    const char *why = report_broken(run->report);
    if (why) {
        run_fail(run, "cannot write to stdout: %s", why);
    }
}

static void tick(void *arg)
{
    static uint64_t ticks;
    struct run *run = arg;
    tiered_loop_timer(run->loop, &run->tick, TICK_MS, tick, run);
    report_tick(run->report);
    check_stdout(run);
    ticks++;
    if (run->stage == RUN_STARTING && ticks % (MISSING_MS / TICK_MS) == 0) {
        say_missing(run);
    }
    if (run->stage != RUN_STOPPING && ticks % (1000 / TICK_MS) == 0) {
        fleet_watch(run);
    }
}

/* ---- making it ---- */

static int make_id(struct run *run, const char *name, struct tiered_error *err)
{
    uint8_t random[34];
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
    if (tiered_secret(random, sizeof(random), err) < 0) {
        return -1;
    }
    struct tiered_digest token;
    memcpy(token.bytes, random + 2, sizeof(token.bytes));
    tiered_digest_hex(&token, run->token);
    if (asprintf(&run->id, "%s-%s-%02x%02x", name, stamp, random[0], random[1]) < 0) {
        run->id = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return 0;
}

/* Sockets have short names, relative to the run folder: everybody stands there. */
static int stand_in_folder(struct run *run, struct tiered_error *err)
{
    if (chdir(run->folder) < 0) {
        return tiered_fail(err, TIERED_EIO, "'%s': %s", run->folder, strerror(errno));
    }
    return resume_lock(run->folder, &run->lock, err);
}

static int make_folder(struct run *run, const struct run_options *options,
                       struct tiered_error *err)
{
    char *runs = NULL;
    if (tiered_mkdirs(options->runs_folder, 0755, err) < 0) {
        return -1;
    }
    runs = realpath(options->runs_folder, NULL);
    if (!runs || asprintf(&run->folder, "%s/%s", runs, run->id) < 0) {
        free(runs);
        run->folder = NULL;
        return tiered_fail(err, TIERED_EIO, "'%s': %s", options->runs_folder,
                           strerror(errno));
    }
    free(runs);
    static const char *const inside[] = {"", "/s", "/logs", "/agents"};
    for (size_t i = 0; i < TIERED_COUNT(inside); i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s%s", run->folder, inside[i]);
        if (mkdir(path, 0700) < 0) {
            return tiered_fail(err, TIERED_EIO, "cannot make '%s': %s", path,
                               strerror(errno));
        }
    }
    char path[4096];
    snprintf(path, sizeof(path), "%s/topology.yaml", run->folder);
    if (tiered_file_write(path, options->topology.text, options->topology.text_size,
                          err) < 0 ||
        resume_save(run->folder, run->id, run->token, &options->topology, err) < 0) {
        return -1;
    }
    return stand_in_folder(run, err);
}

/* The folder of a run that goes on. */
static int find_folder(struct run *run, const struct run_options *options,
                       struct tiered_error *err)
{
    return resume_find(options->runs_folder, &options->topology, &run->id, &run->folder,
                       run->token, err) < 0
               ? -1
               : stand_in_folder(run, err);
}

/* A warning of the link, say, must not run into the block on the terminal. */
static int open_log(struct run *run, const struct run_options *options,
                    struct tiered_error *err)
{
    if (!options->quiet) {
        return 0;
    }
    run->log = open("logs/@tiered.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                    0600); /* no agent has such a name */
    if (run->log < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot open '%s/logs/@tiered.log': %s",
                           run->folder, strerror(errno));
    }
    tiered_log_set_fd(run->log);
    return 0;
}

static int open_folder(struct run *run, const struct run_options *options,
                       struct tiered_error *err)
{
    if (run->resumed) {
        return find_folder(run, options, err);
    }
    return make_id(run, options->topology.name, err) < 0
               ? -1
               : make_folder(run, options, err);
}

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

static int open_record(struct run *run, const struct run_options *options,
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

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The downlink's children: every agent's own session, and the root node. */
static int make_downlink(struct run *run, struct tiered_error *err)
{
    uint32_t n = run->plan->n_agents + 1;
    char(*agent_names)[66] = calloc(n, sizeof(*agent_names));
    const char **names = calloc(n, sizeof(*names));
    run->agent_of_child = calloc(n, sizeof(*run->agent_of_child));
    int result = -1;
    if (!agent_names || !names || !run->agent_of_child) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        goto out;
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        snprintf(agent_names[i], sizeof(*agent_names), "@%s",
                 run->plan->agents[i].name);
        names[i] = agent_names[i];
    }
    names[n - 1] = run->plan->nodes[0].name;
    qsort(names, n, sizeof(*names), compare_names);
    for (uint32_t i = 0; i < n; i++) {
        if (names[i][0] == '@') {
            size_t agent = (size_t)(names[i] - agent_names[0]) / sizeof(*agent_names);
            run->agent_of_child[i] = (uint32_t)agent;
            run->agents[agent].child = i;
        } else {
            run->agent_of_child[i] = UINT32_MAX;
            run->root_child = i;
        }
    }
    run->n_children = n;
    result = tiered_downlink_create(run->server, names, n, &caller_owner, run,
                                    &run->downlink, err);
out:
    free(agent_names);
    free(names);
    return result;
}

/* A free port of loopback for each agent: asked for, given back, and listened on by the
   agent a moment later. All are held until the last is found, so that they differ. */
static int choose_ports(struct run *run, struct tiered_error *err)
{
    uint32_t n = run->plan->n_agents;
    int *held = calloc(n, sizeof(*held));
    run->ports = calloc(n, sizeof(*run->ports));
    uint32_t i = 0;
    for (; held && run->ports && i < n; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        held[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (held[i] < 0 || bind(held[i], (struct sockaddr *)&address, size) < 0 ||
            getsockname(held[i], (struct sockaddr *)&address, &size) < 0) {
            break;
        }
        run->ports[i] = ntohs(address.sin_port);
    }
    int error = errno;
    for (uint32_t k = 0; held && k < n; k++) {
        if (held[k] > 0) {
            close(held[k]);
        }
    }
    free(held);
    return i == n ? 0
                  : tiered_fail(err, TIERED_EIO, "cannot find free ports: %s",
                                strerror(error));
}

/* A resumed run's agents may live: they listen where they were told to. */
static int keep_ports(struct run *run, struct tiered_error *err)
{
    char path[4096];
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes text = {0};
    size_t size = run->plan->n_agents * sizeof(*run->ports);
    snprintf(path, sizeof(path), "%s/ports", run->folder);
    if (!run->resumed) {
        return choose_ports(run, err) < 0
                   ? -1
                   : tiered_file_write(path, run->ports, size, err);
    }
    if (tiered_file_read(path, size, &text, err) < 0) {
        return -1;
    }
    run->ports = malloc(size);
    if (!run->ports || text.size != size) {
        return tiered_fail(err, TIERED_ECORRUPT, "'%s' is damaged", path);
    }
    memcpy(run->ports, text.data, size);
    return 0;
}

static int open_network(struct run *run, struct tiered_error *err)
{
    const struct tiered_loaded *transport;
    if (tiered_plugins_get(run->plugins, "unix", TIERED_TRANSPORT, &transport, err) <
            0 ||
        tiered_net_create(transport, NULL, run->loop, NULL, &run->net, err) < 0) {
        return -1;
    }
    const struct tiered_server_config config = {
        .loop = run->loop,
        .net = run->net,
        .address = ASSIGN_ORCHESTRATOR,
        .run = run->id,
        .token = run->token,
        .generation = run->plan->generation,
        .heartbeat_ms = HEARTBEAT_MS,
        .silence_ms = SILENCE_MS,
    };
    return tiered_server_create(&config, &run->server, err);
}

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

static void tell_started(struct run *run)
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
    run_event(run, "run_started",
              json_pack("{s:s, s:o, s:b, s:s, s:o}", "run", run->id, "dir",
                        text_json(run->folder), "resumed", run->resumed, "http",
                        http_url(run->http), "agents", agents));
}

static int start(struct run *run, const struct run_options *options,
                 struct tiered_error *err)
{
    if (limits_raise(run->plan, err) < 0) {
        return -1;
    }
    run->program = spawn_program(err);
    run->node_rounds = calloc(run->plan->n_nodes, sizeof(*run->node_rounds));
    if (!run->node_rounds) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered_wall_text(run->started);
    if (!run->program || view_create(run->plan, &run->view, err) < 0 ||
        privacy_create(run->plan, &run->privacy, err) < 0 ||
        open_folder(run, options, err) < 0 || open_log(run, options, err) < 0 ||
        open_record(run, options, err) < 0 || tiered_loop_create(&run->loop, err) < 0 ||
        tiered_loop_signals(run->loop, true, on_signal, run, err) < 0 ||
        tiered_pool_create(0, &run->pool, err) < 0 || open_network(run, err) < 0 ||
        (options->network && keep_ports(run, err) < 0) || caller_create(run, err) < 0 ||
        (run->resumed && caller_resume(run, err) < 0) ||
        fleet_start(run, options, err) < 0 || make_downlink(run, err) < 0 ||
        http_create(run, options->http_port, &run->http, err) < 0) {
        return -1;
    }
    tell_started(run);
    tiered_loop_timer(run->loop, &run->tick, TICK_MS, tick, run);
    return 0;
}

static void finish(struct run *run)
{
    http_destroy(run->http);
    fleet_finish(run);
    caller_destroy(run);
    tiered_downlink_destroy(run->downlink);
    tiered_server_destroy(run->server);
    tiered_net_destroy(run->net);
    tiered_pool_destroy(run->pool);
    record_close(run->record);
    tiered_loop_destroy(run->loop);
    if (run->log >= 0) {
        tiered_log_set_fd(STDERR_FILENO);
        close(run->log);
    }
    if (run->lock >= 0) {
        close(run->lock);
    }
    free(run->agent_of_child);
    free(run->node_rounds);
    free(run->ports);
    view_finish(&run->view);
    privacy_finish(&run->privacy);
    free(run->program);
    free(run->id);
    free(run->folder);
}

/* It ran all the rounds that it could afford, and more were wanted. */
static bool ended_by_budget(const struct run *run)
{
    return run->status == RUN_DONE && run->rounds == run->plan->rounds &&
           run->plan->rounds < tiered_topology_run(run->plan->topology)->rounds;
}

static void tell_finished(struct run *run, double seconds)
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
    run_event(run, "run_finished", fields);
    if (record_finish(run->record, run->id, names[run->status],
                      has_model ? run->model_path : NULL, &err) < 0) {
        report_say(run->report, "warning", "%s", err.text);
    }
    report_end(run->report, names[run->status], has_model ? run->model_path : NULL,
               spent, seconds);
    json_decref(spent);
}

int run_up(const struct tiered_plan *plan, struct tiered_plugins *plugins,
           const struct run_options *options, struct report *report)
{
    static const int codes[] = {EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED};
    struct tiered_error err;
    struct run run = {.plan = plan,
                      .plugins = plugins,
                      .plugins_folder = options->plugins_folder,
                      .log_level = options->log_level,
                      .resumed = options->resume,
                      .lock = -1,
                      .log = -1,
                      .report = report};
    uint64_t began = tiered_now_ms();
    int code = EXIT_FAILED;
    signal(SIGPIPE, SIG_IGN); /* whoever reads stdout may go: check_stdout() */
    if (start(&run, options, &err) < 0 || tiered_loop_run(run.loop, &err) < 0) {
        report_say(report, "error", "%s", err.text);
    } else {
        tell_finished(&run, (double)(tiered_now_ms() - began) / 1000.0);
        const char *why = report_broken(report);
        if (why && run.status == RUN_DONE) { /* it ended before the next look */
            report_say(report, "error", "cannot write to stdout: %s", why);
            run.status = RUN_FAILED;
        }
        code = codes[run.status];
    }
    finish(&run);
    return code;
}
