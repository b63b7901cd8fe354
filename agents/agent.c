/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's own session with the orchestrator: assignment, events, heartbeats, the
   end. */
#include "agents/agent.h"

#include <signal.h>
#include <unistd.h>

#include "agents/node.h"
#include "agents/ways.h"
#include "core/base/log.h"

#define ORPHAN_MS 60000
#define TIDY_MS   10000
#define LAST_MS   2000 /* at the end, for the orchestrator to take the last events */

/* ---- events ---- */

void agent_event(struct agent *agent, const char *name, json_t *fields)
{
    char now[32];
    tiered_wall_text(now);
    json_object_set_new(fields, "event", json_string(name));
    json_object_set_new(fields, "time", json_string(now));
    json_object_set_new(fields, "agent", json_string(agent->config.name));
    char *json = json_dumps(fields, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (!json) {
        abort();
    }
    json_decref(fields);
    events_add(&agent->events, json);
}

void agent_trouble(struct agent *agent, const char *event, const char *node,
                   const struct tiered_path *path, const char *why)
{
    char where[192], reason[TIERED_LINK_TEXT + 1];
    tiered_path_text(path, where);
    tiered_link_text(why, reason);
    agent_event(
        agent, event,
        json_pack("{s:s, s:s, s:s}", "node", node, "path", where, "reason", reason));
}

void agent_node_failed(struct agent *agent, const char *node,
                       const struct tiered_error *err)
{
    char reason[TIERED_LINK_TEXT + 1];
    tiered_link_text(err->text, reason); /* a path in it may have any bytes */
    const struct tiered_log_context where = {.node = node};
    tiered_log(TIERED_LOG_ERROR, "node", &where, "%s", err->text);
    agent_event(agent, "node_failed",
                json_pack("{s:s, s:s}", "node", node, "reason", reason));
}

/* ---- the end ---- */

void agent_check_stopped(struct agent *agent)
{
    if (!agent->stopping) {
        return;
    }
    for (size_t i = 0; i < agent->n_nodes; i++) {
        if (agent->nodes[i]->jobs > 0) {
            return;
        }
    }
    bool told = !agent->events.first || agent->waited_enough ||
                !tiered_uplink_connected(agent->session);
    if (told) {
        tiered_loop_stop(agent->loop);
    }
}

static void waited_enough(void *arg)
{
    struct agent *agent = arg;
    agent->waited_enough = true;
    agent_check_stopped(agent);
}

static void stop(struct agent *agent, const char *why)
{
    if (agent->stopping) {
        return;
    }
    tiered_log(TIERED_LOG_INFO, "agent", NULL, "stops: %s", why);
    agent->stopping = true;
    for (size_t i = 0; i < agent->n_nodes; i++) {
        node_close(agent->nodes[i]);
    }
    tiered_loop_timer(agent->loop, &agent->last, LAST_MS, waited_enough, agent);
    agent_check_stopped(agent);
}

static void on_signal(void *arg, int number)
{
    struct agent *agent = arg;
    if (agent->stopping) {
        _exit(128 + number); /* asked twice: do not wait for the jobs */
    }
    stop(agent, strsignal(number));
}

/* ---- the assignment ---- */

static Tiered__V1__Assignment *copy_assignment(const Tiered__V1__Assignment *from)
{
    size_t size = tiered__v1__assignment__get_packed_size(from);
    uint8_t *packed = malloc(size ? size : 1);
    if (!packed) {
        return NULL;
    }
    tiered__v1__assignment__pack(from, packed);
    Tiered__V1__Assignment *copy = tiered__v1__assignment__unpack(NULL, size, packed);
    free(packed);
    return copy;
}

static void start_nodes(struct agent *agent)
{
    const Tiered__V1__Assignment *a = agent->assignment;
    struct tiered_error err;
    agent->nodes = calloc(a->n_nodes ? a->n_nodes : 1, sizeof(struct node *));
    if (!agent->nodes) {
        abort();
    }
    for (size_t i = 0; i < a->n_nodes; i++) {
        if (node_create(agent, a->nodes[i], &agent->nodes[agent->n_nodes], &err) == 0) {
            agent->n_nodes++;
        } else {
            agent_node_failed(agent, a->nodes[i]->node, &err);
        }
    }
}

static void take_assignment(struct agent *agent, const Tiered__V1__Assignment *a)
{
    if (agent->assignment) {
        if (strcmp(agent->assignment->run, a->run) != 0 ||
            agent->assignment->generation != a->generation) {
            stop(agent, "another run or generation was assigned");
        }
        return; /* the same again, after a reconnect */
    }
    agent->assignment = copy_assignment(a);
    if (!agent->assignment) {
        abort();
    }
    tiered_log(TIERED_LOG_INFO, "agent", NULL, "run '%s': %zu node%s", a->run,
               a->n_nodes, a->n_nodes == 1 ? "" : "s");
    start_nodes(agent);
}

static void take_gone(struct agent *agent, const char *child)
{
    for (size_t i = 0; i < agent->n_nodes; i++) {
        agent->nodes[i]->work->gone(agent->nodes[i], child);
    }
}

static void on_frame(void *user, const struct tiered_frame *frame)
{
    struct agent *agent = user;
    switch (frame->pb->body_case) {
    case TIERED__V1__FRAME__BODY_ASSIGNMENT:
        take_assignment(agent, frame->pb->assignment);
        break;
    case TIERED__V1__FRAME__BODY_ORDER:
        if (frame->pb->order->kind == TIERED__V1__ORDER__KIND__STOP) {
            stop(agent, "the run is over");
        }
        break;
    case TIERED__V1__FRAME__BODY_GONE:
        take_gone(agent, frame->pb->gone->node);
        break;
    case TIERED__V1__FRAME__BODY_EVENT:
        events_acknowledged(&agent->events, frame->pb->event->serial);
        agent_check_stopped(agent);
        break;
    default:
        break;
    }
}

/* ---- the session ---- */

static void orphaned(void *arg)
{
    stop(arg, "the orchestrator did not come back");
}

static void on_connected(void *user)
{
    struct agent *agent = user;
    tiered_loop_cancel(agent->loop, &agent->orphan);
    events_resend(&agent->events);
}

static void on_lost(void *user, const char *why)
{
    struct agent *agent = user;
    uint64_t ms = agent->assignment ? agent->assignment->orphan_timeout_ms : ORPHAN_MS;
    tiered_log(TIERED_LOG_WARN, "agent", NULL,
               "the orchestrator is away (%s); goes on with its assignment", why);
    tiered_loop_timer(agent->loop, &agent->orphan, ms, orphaned, agent);
    agent_check_stopped(agent);
}

static void on_refused(void *user, enum tiered_code code, const char *reason)
{
    (void)user;
    (void)code;
    tiered_log(TIERED_LOG_ERROR, "agent", NULL, "the orchestrator refused: %s", reason);
}

#define MOST_STATES 1000 /* nodes told of in one heartbeat */

struct beat {
    Tiered__V1__NodeState states[MOST_STATES];
    Tiered__V1__NodeState *pointers[MOST_STATES];
    struct beat_filters {
        Tiered__V1__FilterBytes space[TRAFFIC_FILTERS];
        Tiered__V1__FilterBytes *pointers[TRAFFIC_FILTERS];
    } up[MOST_STATES], down[MOST_STATES];
};

static void fill_traffic(const struct node *node, Tiered__V1__NodeState *state,
                         struct beat_filters *up, struct beat_filters *down)
{
    state->raw_up = node->traffic_up.raw;
    state->raw_down = node->traffic_down.raw;
    state->n_filters_up = traffic_fill(&node->traffic_up, node->as->uplink,
                                       node->as->n_uplink, up->space, up->pointers);
    state->filters_up = up->pointers;
    state->n_filters_down =
        traffic_fill(&node->traffic_down, node->as->downlink, node->as->n_downlink,
                     down->space, down->pointers);
    state->filters_down = down->pointers;
}

static void fill_heartbeat(void *user, Tiered__V1__Heartbeat *heartbeat)
{
    static struct beat *beat; /* one agent a process; made at the first heartbeat */
    struct agent *agent = user;
    size_t n = agent->n_nodes < MOST_STATES ? agent->n_nodes : MOST_STATES;
    if (n == 0 || (!beat && !(beat = malloc(sizeof(*beat))))) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct node *node = agent->nodes[i];
        tiered__v1__node_state__init(&beat->states[i]);
        beat->states[i].node = node->as->node;
        tiered_uplink_bytes(node->uplink, &beat->states[i].bytes_up,
                            &beat->states[i].bytes_down);
        fill_traffic(node, &beat->states[i], &beat->up[i], &beat->down[i]);
        node->work->state(node, &beat->states[i]);
        beat->pointers[i] = &beat->states[i];
    }
    heartbeat->n_nodes = n;
    heartbeat->nodes = beat->pointers;
}

static const struct tiered_uplink_owner session_owner = {
    .connected = on_connected,
    .lost = on_lost,
    .refused = on_refused,
    .frame = on_frame,
    .heartbeat = fill_heartbeat,
};

/* ---- life ---- */

static int check_address(const char *address, struct tiered_error *err)
{
    return strncmp(address, "unix:", 5) == 0
               ? 0
               : tiered_fail(err, TIERED_ENOTSUP,
                             "address '%s': this version reaches the orchestrator by "
                             "'unix:PATH' alone",
                             address);
}

static int open_session(struct agent *agent, struct tiered_error *err)
{
    struct tiered_net *net;
    if (check_address(agent->config.orchestrator, err) < 0 ||
        ways_net(agent, NULL, false, &net, err) < 0) {
        return -1;
    }
    const struct tiered_uplink_config config = {
        .loop = agent->loop,
        .net = net,
        .address = agent->config.orchestrator,
        .run = "",
        .node = "",
        .agent = agent->config.name,
        .token = agent->config.token,
        .silence_ms = SILENCE_MS,
    };
    if (tiered_uplink_create(&config, &session_owner, agent, &agent->session, err) <
        0) {
        return -1;
    }
    agent->events.session = agent->session;
    return 0;
}

static void agent_finish(struct agent *agent)
{
    tiered_pool_destroy(agent->trainers); /* they use what nodes own */
    tiered_pool_destroy(agent->workers);
    for (size_t i = 0; i < agent->n_nodes; i++) {
        node_destroy(agent->nodes[i]);
    }
    free(agent->nodes);
    tiered_uplink_destroy(agent->session);
    ways_destroy(agent);
    tiered_plugins_destroy(agent->plugins);
    events_finish(&agent->events);
    if (agent->assignment) {
        tiered__v1__assignment__free_unpacked(agent->assignment, NULL);
    }
    tiered_loop_destroy(agent->loop);
}

/* A node that waits long for its next round does not hold a model's worth of memory. */
static void tidy(void *user)
{
    struct agent *agent = user;
    tiered_map_tidy(TIDY_MS);
    tiered_loop_timer(agent->loop, &agent->tidy, TIDY_MS, tidy, agent);
}

int agent_run(const struct agent_config *config, struct tiered_error *err)
{
    struct agent agent = {.config = *config};
    int result = -1;
    if (events_init(&agent.events, err) == 0 &&
        tiered_mkdirs(config->state, 0700, err) == 0 &&
        tiered_loop_create(&agent.loop, err) == 0 &&
        tiered_loop_signals(agent.loop, false, on_signal, &agent, err) == 0 &&
        tiered_pool_create(0, &agent.workers, err) == 0 &&
        tiered_pool_create(0, &agent.trainers, err) == 0 &&
        (agent.plugins = tiered_plugins_create(config->plugins, err)) &&
        open_session(&agent, err) == 0) {
        tiered_loop_timer(agent.loop, &agent.orphan, ORPHAN_MS, orphaned, &agent);
        tidy(&agent);
        result = tiered_loop_run(agent.loop, err);
    }
    agent_finish(&agent);
    return result;
}
