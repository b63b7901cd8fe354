/* SPDX-License-Identifier: Apache-2.0 */
/* The course of a run: its parts, its stages, its end. */
#include "orchestrator/run.h"

#include <signal.h>

#include "orchestrator/cmd.h"
#include "orchestrator/limits.h"

#define TICK_MS      200
#define HEARTBEAT_MS 1000
#define SILENCE_MS   10000
#define MISSING_MS   5000 /* how often a run that cannot start says what it waits for */

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
        folder_open(run, options, err) < 0 || told_open(run, options, err) < 0 ||
        tiered_loop_create(&run->loop, err) < 0 ||
        tiered_loop_signals(run->loop, true, on_signal, run, err) < 0 ||
        tiered_pool_create(0, &run->pool, err) < 0 || open_network(run, err) < 0 ||
        (options->network && folder_ports(run, err) < 0) ||
        caller_create(run, err) < 0 || (run->resumed && caller_resume(run, err) < 0) ||
        fleet_start(run, options, err) < 0 || make_downlink(run, err) < 0 ||
        http_create(run, options->http_port, &run->http, err) < 0) {
        return -1;
    }
    told_started(run);
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
    folder_close(run);
    free(run->agent_of_child);
    free(run->node_rounds);
    view_finish(&run->view);
    privacy_finish(&run->privacy);
    free(run->program);
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
        told_finished(&run, (double)(tiered_now_ms() - began) / 1000.0);
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
