/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A node: given a model, return an update. What leaf and inner node share is here: the
 * link to the parent, the model at hand, the outbox. What differs is `work`: a leaf
 * trains, an inner node runs rounds over its children.
 *
 * Orders are idempotent: the parent repeats them after a reconnect, and a repeated one
 * finds the update in the outbox or the work under way.
 *
 * Threads: the agent's event loop; jobs take what they need by reference and post back.
 */
#ifndef TIERED_AGENTS_NODE_H
#define TIERED_AGENTS_NODE_H

#include <pthread.h>

#include "agents/agent.h"
#include "agents/traffic.h"
#include "core/model/model.h"
#include "core/pipe/pipe.h"
#include "core/plugins/hosting.h"
#include "core/spool/spool.h"

/** An order that waits for its model, or that is being carried out. */
struct want {
    bool active, running;
    bool delivering; /* made, and on its way through the pipe into the outbox */
    uint64_t serial; /* of the order: one for the same round may come again */
    struct tiered_path path;
    struct tiered_digest model;
    double norm; /* that the update is bounded to; 0: the parent told none */
};

struct node_work {
    /** Make an update of node->model for `path`; ends in node_deliver or node_failed.
     */
    void (*train)(struct node *node, const struct tiered_path *path);
    /** Ends in node_evaluated or node_failed. */
    void (*evaluate)(struct node *node, const struct tiered_path *path);
    /** Send the initial model up with node_deliver_initial. */
    void (*initial)(struct node *node, const struct tiered_path *path);
    /** The delivery of `path` is settled. */
    void (*settled)(struct node *node, const struct tiered_path *path);
    /** A newer training order made this one pointless. */
    void (*abandon)(struct node *node, const struct tiered_path *path);
    void (*state)(struct node *node, Tiered__V1__NodeState *state);
    void (*gone)(struct node *node, const char *child);
    /** Cancel the jobs under way. */
    void (*close)(struct node *node);
    /** After the last job. */
    void (*destroy)(struct node *node);
};

struct node {
    struct agent *agent;
    const Tiered__V1__NodeAssignment *as; /* borrowed from the assignment */
    const struct node_work *work;
    void *self;                    /* the leaf or the inner node */
    struct tiered_hosting hosting; /* without a path: of the node's plugins */
    char *folder;
    struct tiered_uplink *uplink;
    struct tiered_outbox *outbox;
    pthread_mutex_t
        outbox_lock; /* guards outbox: a worker writes it, the loop clears */
    struct tiered_use *up, *down; /* the link to the parent */
    size_t n_up, n_down;
    struct member *member;      /* of the parent's group; NULL: there is none */
    uint64_t outbox_attempt;    /* of the group, that its entry was masked in; 0: of a
                                   process before. Guarded by outbox_lock */
    struct tiered_model *model; /* the newest from the parent, or NULL */
    struct tiered_digest fetching;
    bool is_fetching, decoding;
    struct traffic traffic_up, traffic_down; /* of the link to the parent */
    struct want train, evaluate;
    uint64_t n_orders; /* to train */
    struct tiered_path delivering_path;
    unsigned jobs; /* posted back to this node and not yet seen */
    bool closing;
};

int node_create(struct agent *agent, const Tiered__V1__NodeAssignment *as,
                struct node **ret, struct tiered_error *err);
/** Take no more work and cancel what is under way; node->jobs tells when it is over. */
void node_close(struct node *node);
/** Free: when no job is left. */
void node_destroy(struct node *node);

/** Plugins named by an assignment, each with the digest that it must have. */
int node_uses(struct agent *agent, Tiered__V1__PluginUse *const *uses, size_t n,
              enum tiered_kind kind, struct tiered_use **ret, struct tiered_error *err);

/** Take the next order on that can be. */
void node_pump(struct node *node);
void node_ready(struct node *node, bool ready, const char *missing);

/** What goes up: out - base, filtered, into the outbox, then to the parent. */
struct node_update {
    struct tiered_path path;
    struct tiered_model *base;  /* referenced by node_deliver */
    struct tiered_model *model; /* likewise */
    uint64_t num_examples;
    double local_steps, a_norm; /* a_norm 0: not told */
    struct tiered_metrics metrics;
};
void node_deliver(struct node *node, const struct node_update *update);
/** For the ledger: how often this node's noise was let out so far. The figure is the
    node's own, which stands in its outbox; telling it again changes nothing. */
void node_tell_released(struct node *node, uint64_t released);
void node_deliver_initial(struct node *node, const struct tiered_path *path,
                          struct tiered_encoded *encoded);
void node_evaluated(struct node *node, const struct tiered_path *path,
                    const struct tiered_digest *model, uint64_t num_examples,
                    const struct tiered_metrics *metrics);
/** This order cannot be carried out. */
void node_failed(struct node *node, const struct tiered_path *path,
                 const struct tiered_error *err, bool fatal);

/** Run `job` on a pool, then `done` on the loop. `run` may read the node's immutable
   parts alone; `done` frees the job, and looks at node->closing before it goes on. */
struct node_job {
    struct node *node;
    void (*run)(struct node_job *job);
    void (*done)(struct node_job *job);
    int result;
    struct tiered_error err;
};
int node_submit(struct node *node, struct tiered_pool *pool, struct node_job *job);

/** Fill a Head's fields of an update. Metrics are borrowed by way of `space`. */
struct node_head_space {
    Tiered__V1__Metric metrics[TIERED_MAX_METRICS];
    Tiered__V1__Metric *pointers[TIERED_MAX_METRICS];
};
void node_fill_metrics(const struct tiered_metrics *metrics,
                       struct node_head_space *space, size_t *ret_n,
                       Tiered__V1__Metric ***ret);

int leaf_create(struct node *node, struct tiered_error *err);
int inner_create(struct node *node, struct tiered_error *err);

#endif
