/* SPDX-License-Identifier: Apache-2.0 */
/* The agents of a run: started, given their nodes, watched, started again when they
   die, stopped. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "orchestrator/run.h"

#define MOST_RESTARTS 8   /* … of an agent in a row, without a contribution between */
#define RETRY_MS      100 /* before the first of them; each next waits twice as long */
#define RETRY_MOST    1000
#define SETTLED_MS    60000 /* an agent that ran for so long starts a new row */
#define UNSEEN_MS     30000 /* started, and never connected since: it is frozen … */
#define LOST_MS       3000 /* … as one is that was connected and does not come back */
#define GRACE_MS      10000 /* to stop by itself; then SIGKILL */

static void start_one(struct run *run, struct run_agent *agent)
{
    struct tiered_error err;
    const struct spawn_config config = {
        .program = run->program,
        .folder = run->folder,
        .name = agent->planned->name,
        .orchestrator = ASSIGN_ORCHESTRATOR,
        .token = run->token,
        .plugins = run->plugins_folder,
        .log_level = run->log_level,
    };
    agent->started_ms = tiered_now_ms();
    agent->silent_since_ms = agent->started_ms;
    agent->seen = false;
    agent->log_start = spawn_log_size(run->folder, agent->planned->name);
    agent->pidfd = -1;
    if (spawn_agent(&config, &agent->pid, &err) < 0) {
        agent->pid = 0;
        run_fail(run, "%s", err.text);
    } else if (resume_save_pid(run->folder, agent->planned->name, agent->pid, &err) <
               0) {
        run_fail(run, "%s", err.text);
    }
}

static void agent_died(struct run *run, struct run_agent *agent, const char *reason);

static void adopted_ended(void *arg)
{
    struct run_agent *agent = arg;
    struct run *run = agent->run;
    tiered_loop_unwatch(run->loop, agent->pidfd);
    close(agent->pidfd);
    agent->pidfd = -1;
    agent_died(run, agent, "ended (how is not known: it was adopted)");
    if (run->stage == RUN_STOPPING && fleet_empty(run)) {
        tiered_loop_stop(run->loop);
    }
}

/* An agent that outlived the orchestrator which started it. False: there is none. */
static bool adopt(struct run *run, struct run_agent *agent)
{
    int pid = resume_living(run->folder, agent->planned->name);
    int fd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd < 0) {
        return false;
    }
    if (tiered_loop_watch(run->loop, fd, adopted_ended, agent, NULL) < 0) {
        close(fd);
        return false;
    }
    agent->pid = pid;
    agent->pidfd = fd;
    agent->silent_since_ms = agent->started_ms = tiered_now_ms();
    return true;
}

static void start_again(void *arg)
{
    struct run_agent *agent = arg;
    if (agent->run->stage != RUN_STOPPING) {
        start_one(agent->run, agent);
    }
}

/* What whoever starts an agent by other means must know to join in its place. */
static int write_invitation(struct run *run, uint32_t index, struct tiered_error *err)
{
    const struct tiered_planned_agent *agent = &run->plan->agents[index];
    const struct assign_context context = fleet_context(run);
    json_t *nodes = json_array();
    char path[4096];
    for (uint32_t i = 0; i < agent->n_nodes; i++) {
        const struct tiered_node *node = &run->plan->nodes[agent->nodes[i]];
        char address[ASSIGN_ADDRESS_SIZE] = ASSIGN_ORCHESTRATOR;
        Tiered__V1__PluginUse *use = NULL;
        if (node->parent != TIERED_NO_NODE &&
            assign_way(&context, node->parent, address, &use, err) < 0) {
            json_decref(nodes);
            return -1;
        }
        json_array_append_new(nodes, json_pack("{s:s, s:s, s:s}", "node", node->name,
                                               "parent_address", address, "transport",
                                               use ? use->name : "unix"));
        if (use) {
            tiered__v1__plugin_use__free_unpacked(use, NULL);
        }
    }
    json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:s, s:o}", "agent", agent->name,
                               "run", run->id, "token", run->token, "generation",
                               (json_int_t)run->plan->generation, "orchestrator",
                               ASSIGN_ORCHESTRATOR, "nodes", nodes);
    char *text = object ? json_dumps(object, JSON_INDENT(1)) : NULL;
    json_decref(object);
    snprintf(path, sizeof(path), "%s/agents/%s.json", run->folder, agent->name);
    int result = text ? tiered_file_write_mode(path, 0600, text, strlen(text), err)
                      : tiered_fail(err, TIERED_ENOMEM, "out of memory");
    free(text);
    return result;
}

static int mark_external(struct run *run, const char *name, struct tiered_error *err)
{
    for (uint32_t i = 0; i < run->plan->n_agents; i++) {
        if (strcmp(run->plan->agents[i].name, name) == 0) {
            run->agents[i].external = true;
            return write_invitation(run, i, err);
        }
    }
    return tiered_fail(err, TIERED_EINVAL, "--external: there is no agent '%s'", name);
}

int fleet_start(struct run *run, const struct run_options *options,
                struct tiered_error *err)
{
    uint32_t n = run->plan->n_agents;
    run->agents = calloc(n, sizeof(*run->agents));
    if (!run->agents) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < n; i++) {
        run->agents[i].planned = &run->plan->agents[i];
        run->agents[i].run = run;
        run->agents[i].pidfd = -1;
    }
    for (size_t i = 0; i < options->n_external; i++) {
        if (mark_external(run, options->external[i], err) < 0) {
            return -1;
        }
    }
    for (uint32_t i = 0; i < n && run->stage != RUN_STOPPING; i++) {
        if (run->agents[i].external) {
            continue;
        }
        if (!run->resumed || !adopt(run, &run->agents[i])) {
            start_one(run, &run->agents[i]);
        }
    }
    return 0;
}

struct assign_context fleet_context(const struct run *run)
{
    return (struct assign_context){.plan = run->plan,
                                   .run = run->id,
                                   .token = run->token,
                                   .orphan_timeout_ms = 60000,
                                   .ports = run->ports};
}

static void give_assignment(struct run *run, struct run_agent *agent)
{
    struct tiered_error err;
    Tiered__V1__Assignment *a;
    const struct assign_context context = fleet_context(run);
    uint32_t index = (uint32_t)(agent - run->agents);
    if (assign_agent(&context, index, &a, &err) < 0) {
        run_fail(run, "%s", err.text);
        return;
    }
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_ASSIGNMENT;
    frame.assignment = a;
    if (tiered_downlink_send(run->downlink, agent->child, NULL, &frame, &err) < 0) {
        run_fail(run, "cannot assign the nodes of agent '%s': %s", agent->planned->name,
                 err.text);
    }
    tiered__v1__assignment__free_unpacked(a, NULL);
}

static void send_gone(struct run *run, struct run_agent *parent,
                      const struct tiered_node *node)
{
    Tiered__V1__Gone gone = TIERED__V1__GONE__INIT;
    gone.node = (char *)node->name;
    gone.reason = "its agent died too often";
    Tiered__V1__Frame frame = TIERED__V1__FRAME__INIT;
    frame.body_case = TIERED__V1__FRAME__BODY_GONE;
    frame.gone = &gone;
    tiered_downlink_send(run->downlink, parent->child, NULL, &frame, NULL);
}

/* It was not there, or is another process than the one that was told. */
static void tell_gone(struct run *run, struct run_agent *parent)
{
    for (uint32_t i = 0; i < run->plan->n_agents; i++) {
        const struct run_agent *agent = &run->agents[i];
        for (uint32_t k = 0; agent->given_up && k < agent->planned->n_nodes; k++) {
            const struct tiered_node *node =
                &run->plan->nodes[agent->planned->nodes[k]];
            if (node->parent != TIERED_NO_NODE &&
                &run->agents[run->plan->nodes[node->parent].agent] == parent) {
                send_gone(run, parent, node);
            }
        }
    }
}

void fleet_connected(struct run *run, uint32_t index, bool connected)
{
    struct run_agent *agent = &run->agents[index];
    agent->connected = connected;
    agent->silent_since_ms = tiered_now_ms();
    if (!connected) {
        return;
    }
    if (run->stage == RUN_STOPPING) {
        tiered_downlink_order(run->downlink, agent->child,
                              TIERED__V1__ORDER__KIND__STOP, &(struct tiered_path){0},
                              NULL);
    } else {
        agent->seen = true;
        give_assignment(run, agent);
        tell_gone(run, agent);
    }
}

void fleet_progress(struct run *run, const char *node)
{
    uint32_t index = tiered_plan_find(run->plan, node);
    if (index != TIERED_NO_NODE) {
        run->agents[run->plan->nodes[index].agent].restarts = 0;
    }
}

/* It will not come back: its parents need not wait for its nodes. */
static void give_up(struct run *run, struct run_agent *agent, const char *reason)
{
    agent->given_up = true;
    for (uint32_t i = 0; i < agent->planned->n_nodes; i++) {
        const struct tiered_node *node = &run->plan->nodes[agent->planned->nodes[i]];
        if (node->parent == TIERED_NO_NODE) {
            run_fail(run, "agent '%s', which hosts the root, %s", agent->planned->name,
                     reason);
            return;
        }
        send_gone(run, &run->agents[run->plan->nodes[node->parent].agent], node);
    }
}

static void agent_died(struct run *run, struct run_agent *agent, const char *reason)
{
    char words[512], clean[TIERED_LINK_TEXT + 1];
    spawn_last_words(run->folder, agent->planned->name, agent->log_start, words,
                     sizeof(words));
    tiered_link_text(words, clean); /* a line cut to fit may end inside a character */
    pid_t pid = agent->pid;
    agent->pid = 0;
    if (run->stage == RUN_STOPPING) {
        return;
    }
    if (tiered_now_ms() - agent->started_ms > SETTLED_MS) {
        agent->restarts = 0;
    }
    agent->died++;
    bool again = agent->restarts < MOST_RESTARTS;
    told_event(run, "agent_died",
               json_pack("{s:s, s:i, s:s, s:s, s:b}", "name", agent->planned->name,
                         "pid", (int)pid, "reason", reason, "last_error", clean,
                         "restarted", again));
    if (!again) {
        give_up(run, agent, reason);
        return;
    }
    uint64_t delay = (uint64_t)RETRY_MS << agent->restarts++;
    tiered_loop_timer(run->loop, &agent->retry, delay < RETRY_MOST ? delay : RETRY_MOST,
                      start_again, agent);
}

void fleet_reap(struct run *run)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (uint32_t i = 0; i < run->plan->n_agents; i++) {
            if (run->agents[i].pid == pid) {
                char reason[128];
                spawn_reason(status, reason, sizeof(reason));
                agent_died(run, &run->agents[i], reason);
                break;
            }
        }
    }
    if (run->stage == RUN_STOPPING && fleet_empty(run)) {
        tiered_loop_stop(run->loop);
    }
}

void fleet_watch(struct run *run)
{
    uint64_t now = tiered_now_ms();
    for (uint32_t i = 0; i < run->plan->n_agents; i++) {
        struct run_agent *agent = &run->agents[i];
        if (agent->pid && !agent->connected &&
            now - agent->silent_since_ms > (agent->seen ? LOST_MS : UNSEEN_MS)) {
            told_event(run, "agent_silent",
                       json_pack("{s:s, s:i}", "name", agent->planned->name, "pid",
                                 (int)agent->pid));
            agent->silent_since_ms = now;
            kill(agent->pid, SIGKILL); /* and so it is started again */
        }
    }
}

bool fleet_empty(const struct run *run)
{
    for (uint32_t i = 0; run->agents && i < run->plan->n_agents; i++) {
        if (run->agents[i].pid) {
            return false;
        }
    }
    return true;
}

void fleet_kill(struct run *run, int number)
{
    for (uint32_t i = 0; run->agents && i < run->plan->n_agents; i++) {
        if (run->agents[i].pid) {
            kill(run->agents[i].pid, number);
            kill(run->agents[i].pid, SIGCONT); /* a stopped one too */
        }
    }
}

static void hurry_up(void *arg)
{
    struct run *run = arg;
    fleet_kill(run, SIGKILL);
}

void fleet_stop(struct run *run)
{
    for (uint32_t i = 0; run->agents && i < run->plan->n_agents; i++) {
        struct run_agent *agent = &run->agents[i];
        tiered_loop_cancel(run->loop, &agent->retry);
        if (agent->connected) {
            tiered_downlink_order(run->downlink, agent->child,
                                  TIERED__V1__ORDER__KIND__STOP,
                                  &(struct tiered_path){0}, NULL);
        } else if (agent->pid && run->status != RUN_DONE) {
            kill(agent->pid, SIGTERM);
        } /* it will be back, with events that belong to the record, to be stopped then
           */
    }
    tiered_loop_timer(run->loop, &run->hurry, GRACE_MS, hurry_up, run);
    if (fleet_empty(run)) {
        tiered_loop_stop(run->loop);
    }
}

void fleet_finish(struct run *run)
{
    fleet_kill(run, SIGKILL);
    for (uint32_t i = 0; run->agents && i < run->plan->n_agents; i++) {
        struct run_agent *agent = &run->agents[i];
        if (agent->pidfd >= 0) {
            struct pollfd ended = {.fd = agent->pidfd, .events = POLLIN};
            poll(&ended, 1, GRACE_MS);
            close(agent->pidfd);
        } else if (agent->pid) {
            while (waitpid(agent->pid, NULL, 0) < 0 && errno == EINTR) {
            }
        }
    }
    free(run->agents);
}
