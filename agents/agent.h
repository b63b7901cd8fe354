/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The agent: one event loop owns everything here; transport threads and jobs on the
 * worker pools post back to it. Its session with the orchestrator brings an assignment;
 * from then on it hosts those nodes until it is stopped.
 */
#ifndef TIERED_AGENTS_AGENT_H
#define TIERED_AGENTS_AGENT_H

#include <jansson.h>

#include "agents/events.h"
#include "core/link/downlink.h"
#include "core/link/uplink.h"
#include "core/loop/loop.h"
#include "core/loop/pool.h"
#include "core/net/net.h"
#include "core/plugins/plugins.h"

#define SILENCE_MS   10000 /* a peer that was silent for so long is lost */
#define HEARTBEAT_MS 1000

struct node;

struct agent_config {
    const char *name, *state, *orchestrator, *token, *plugins;
};

struct agent {
    struct agent_config config;
    struct tiered_loop *loop;
    struct tiered_pool *workers;  /* filters, aggregation, files */
    struct tiered_pool *trainers; /* long: kept off the workers */
    struct tiered_plugins *plugins;
    struct way *ways;           /* ways.c */
    struct entrance *entrances; /* likewise */
    struct tiered_uplink *session;
    Tiered__V1__Assignment *assignment; /* owned; nodes borrow its strings */
    struct node **nodes;
    size_t n_nodes;
    struct events events;
    struct tiered_timer orphan, last, tidy;
    bool stopping, waited_enough;
};

int agent_run(const struct agent_config *config, struct tiered_error *err);

/** Tell the orchestrator what happened: `fields` is stolen; `event` and `time` are
   added. Kept while it is away. */
void agent_event(struct agent *agent, const char *event, json_t *fields);
/** While stopping: the loop ends with the last job. */
void agent_check_stopped(struct agent *agent);
/** Something that the run goes on without, perhaps: "update_failed" of this node in
    round `path`, "evaluation_failed". */
void agent_trouble(struct agent *agent, const char *event, const char *node,
                   const struct tiered_path *path, const char *reason);
/** The node cannot ever do its work: the orchestrator is told, by name. */
void agent_node_failed(struct agent *agent, const char *node,
                       const struct tiered_error *err);

#endif
