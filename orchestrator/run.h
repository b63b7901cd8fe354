/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A run under `tiered up`: its folder, its processes, the root node's caller, the
 * record and what is told to the user. One event loop owns it all.
 *
 *   starting (agents connect, leaves load) -> initial model -> running -> finishing
 *   (the last model is fetched) -> stopping (agents end) -> over
 *
 * run.c is the run's course, folder.c where it stands, fleet.c its agents, caller.c the
 * link with the root node, told.c what becomes of events, report.c what is printed.
 */
#ifndef TIERED_ORCHESTRATOR_RUN_H
#define TIERED_ORCHESTRATOR_RUN_H

#include <jansson.h>
#include <sys/types.h>

#include "core/link/downlink.h"
#include "core/link/uplink.h"
#include "core/loop/loop.h"
#include "core/net/net.h"
#include "core/plan/plan.h"
#include "orchestrator/assign.h"
#include "orchestrator/http.h"
#include "orchestrator/privacy.h"
#include "orchestrator/record.h"
#include "orchestrator/report.h"
#include "orchestrator/resume.h"
#include "orchestrator/spawn.h"
#include "orchestrator/view.h"

enum run_stage {
    RUN_STARTING,
    RUN_INITIAL, /* the first leaf was asked for the initial model */
    RUN_RUNNING,
    RUN_FINISHING,
    RUN_STOPPING,
};

enum run_status {
    RUN_DONE,
    RUN_FAILED,
    RUN_INTERRUPTED,
};

struct run_agent {
    const struct tiered_planned_agent *planned;
    pid_t pid;         /* 0: not running */
    int pidfd;         /* of an adopted one, which is no child of ours; -1 */
    uint32_t child;    /* in the downlink */
    unsigned restarts; /* in a row */
    unsigned died;     /* in all */
    bool external;     /* started by somebody else (--external) */
    bool connected, given_up;
    bool seen;         /* connected since it was started */
    int64_t log_start; /* of this process in its log */
    uint64_t started_ms, silent_since_ms;
    uint64_t last_event; /* its serial, as the wire has it */
    struct tiered_timer retry;
    struct run *run;
};

struct run {
    /* given */
    const struct tiered_plan *plan;
    struct tiered_plugins *plugins;
    const char *plugins_folder, *log_level;
    struct report *report;
    struct view view;
    struct privacy privacy;
    struct http *http;
    char started[32]; /* when */

    char *id, *folder; /* absolute */
    char token[65];
    enum run_stage stage;
    enum run_status status;
    char reason[512]; /* when it failed */

    bool resumed;
    uint16_t *ports; /* of each agent; NULL without --network */
    int lock;        /* of the run folder */

    struct tiered_loop *loop;
    struct tiered_pool *pool;
    struct tiered_net *net;
    struct tiered_server *server;
    struct tiered_downlink *downlink; /* "@agent" …, and the root node */
    uint32_t n_children, root_child;
    struct run_agent *agents;
    uint32_t *agent_of_child; /* UINT32_MAX for the root node */
    struct record *record;
    bool record_fails;
    char *program;

    /* the root's caller (caller.c) */
    bool root_ready;
    struct tiered_model *initial;
    struct tiered_encoded *initial_encoded;
    struct tiered_hosting *hosting;
    struct tiered_use *root_down; /* the pipe that its children's models go through */
    size_t n_root_down;
    struct tiered_digest newest;  /* the root's newest model … */
    struct tiered_digest fetched; /* … and the one on disk */
    uint32_t rounds;              /* of the root */
    uint32_t *node_rounds; /* of each node, as told: a restart may tell one again */
    struct tiered_pull *pull;
    struct tiered_digest pulling;
    char root_address[ASSIGN_ADDRESS_SIZE], *model_path;
    struct tiered_net *root_net; /* by which the root's children reach it, and we */
    struct tiered_config root_config;
    struct tiered_credentials root_credentials;
    struct tiered_metrics metrics; /* each as the last round that has it told it */

    struct tiered_timer tick, hurry;
    int log; /* our own, when it is not stderr; -1 */
    unsigned signals;
};

struct run_options {
    const char *runs_folder, *plugins_folder, *topology_path, *log_level;
    struct resume_topology topology;
    bool resume;
    const char *const *external; /* agents that are not started here */
    size_t n_external;
    bool quiet;         /* the log goes to logs/@tiered.log, not to stderr */
    bool network;       /* links keep their transports, on loopback */
    uint16_t http_port; /* 0: any */
};
/** Run it; the exit code. What happened was told through `report`. */
int run_up(const struct tiered_plan *plan, struct tiered_plugins *plugins,
           const struct run_options *options, struct report *report);

/* Between the parts. */
void run_fail(struct run *run, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void run_stop(struct run *run, enum run_status status);
void run_finished_check(struct run *run);

/** Make the folder of a new run, or find and lock that of one that goes on. Everybody
 * stands in it from here on. */
int folder_open(struct run *run, const struct run_options *options,
                struct tiered_error *err);
/** A port of loopback for each agent; the same again for a run that goes on. */
int folder_ports(struct run *run, struct tiered_error *err);
void folder_close(struct run *run);

/** Open the record; a run that goes on takes from it what was told before. */
int told_open(struct run *run, const struct run_options *options,
              struct tiered_error *err);
/** An event of our own. */
void told_event(struct run *run, const char *name, json_t *fields); /* fields stolen */
/** An event that an agent sent. */
void told_take(struct run *run, json_t *event);
void told_started(struct run *run);
void told_finished(struct run *run, double seconds);

int fleet_start(struct run *run, const struct run_options *options,
                struct tiered_error *err);
/** What all assignments of this run are made from. */
struct assign_context fleet_context(const struct run *run);
void fleet_connected(struct run *run, uint32_t agent, bool connected);
/** A node has done something useful: its agent does not die of it. */
void fleet_progress(struct run *run, const char *node);
void fleet_reap(struct run *run);
void fleet_stop(struct run *run);
void fleet_kill(struct run *run, int signal);
bool fleet_empty(const struct run *run);
/** Agents that are silent for too long are killed (and so started again). */
void fleet_watch(struct run *run);
void fleet_finish(struct run *run);

int caller_create(struct run *run, struct tiered_error *err);
/** A resumed run that had its initial model goes on from there. */
int caller_resume(struct run *run, struct tiered_error *err);
void caller_destroy(struct run *run);
/** The root's newest model is `digest`: fetch it beside the rounds. */
void caller_published(struct run *run, const struct tiered_digest *digest);
extern const struct tiered_downlink_owner caller_owner;

#endif
