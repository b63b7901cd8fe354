/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What is known of a run while it goes on, for whoever looks: each node's state from
 * the heartbeats, and the run as JSON and as Prometheus metrics. Threads: the loop.
 */
#ifndef TIERED_ORCHESTRATOR_VIEW_H
#define TIERED_ORCHESTRATOR_VIEW_H

#include <jansson.h>

#include "core/plan/plan.h"
#include "core/topology/keys.h"
#include "core/wire/wire.h"

struct run;

/** A node as its last heartbeat told. */
struct view_node {
    char state[24], why[256], path[64];
    float progress;
    uint64_t bytes_up, bytes_down, seen_ms; /* 0: never heard of */
    /* of the link to the parent: before all filters, and behind each of its pipe's */
    uint64_t raw_up, raw_down;
    uint64_t filters_up[TIERED_MAX_STAGES], filters_down[TIERED_MAX_STAGES];
    uint64_t rounds, contributions, num_examples;
    double round_seconds; /* of the last one */
};

struct view {
    const struct tiered_plan *plan;
    struct view_node *nodes; /* by plan index */
};
int view_create(const struct tiered_plan *plan, struct view *ret,
                struct tiered_error *err);
void view_finish(struct view *view);
void view_heartbeat(struct view *view, const Tiered__V1__Heartbeat *heartbeat);
void view_round(struct view *view, const json_t *event);

/** New references; NULL: out of memory. */
json_t *view_run_json(const struct run *run);
json_t *view_nodes_json(const struct run *run);
/** Prometheus's text format. malloc'd. */
char *view_metrics(const struct run *run);

#endif
