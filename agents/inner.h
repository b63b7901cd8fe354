/* SPDX-License-Identifier: Apache-2.0 */
/**
 * An inner node: drives the round state machine with what happens, and carries out what
 * it decides. inner.c is its life and what the parent says, inner_children.c what the
 * children say, inner_actions.c what the machine decides, inner_jobs.c what runs on the
 * worker pool.
 */
#ifndef TIERED_AGENTS_INNER_H
#define TIERED_AGENTS_INNER_H

#include "agents/node.h"
#include "agents/store.h"
#include "core/aggregate/strategy.h"
#include "core/round/round.h"

/** A received update, from its arrival until its round is committed. */
struct inner_update {
    struct inner_update *next;
    uint64_t handle;
    uint32_t child;
    struct tiered_path path;
    struct tiered_digest base;
    struct tiered_encoded *encoded;
    uint64_t num_examples;
    double local_steps, a_norm; /* a_norm 0: not told */
    struct tiered_metrics metrics;
    bool initial, excluded;
    bool dropped;    /* the machine is done with it … */
    unsigned in_use; /* … and so are this many jobs, soon */
};

/** How a model is encoded for those who pull it. */
enum inner_form {
    FORM_PIPED,    /* through the children's downlink */
    FORM_REFERRED, /* likewise, its filters referring to the other published model */
    FORM_PLAIN,    /* without filters: for who is no child */
    INNER_FORMS
};

/** A model that may be pulled. */
struct inner_published {
    struct tiered_model *model;
    struct {
        struct tiered_encoded *encoded; /* NULL until somebody asked for it */
        bool encoding;
    } forms[INNER_FORMS];
};
#define INNER_PUBLISHED 2

struct inner_queued {
    struct tiered_round_event event;
    char reason[256]; /* the event's, where it has one */
};

struct inner {
    struct node *node;
    struct tiered_downlink *downlink;
    struct tiered_spool *spool;
    struct tiered_strategy *strategy;
    struct tiered_hosting hosting; /* of the strategy */
    struct tiered_use *strategy_uses, *child_up, *child_down;
    struct inner_group *group; /* of the children; NULL: there is none */
    struct tiered_round *machine;
    const char **children; /* names, canonical */

    bool in_turn;
    struct tiered_path turn;
    /* A newer turn was ordered; the machine takes it on when it is done with what it
       aggregates or commits, and its first action for it tells. */
    bool next_set;
    struct tiered_path next_turn;
    struct tiered_model *next_base;
    struct tiered_model *turn_base, *current;
    struct tiered_model *aggregated; /* between AGGREGATED and its commit */
    struct inner_published published[INNER_PUBLISHED]; /* newest first */
    struct inner_update *updates;
    uint64_t last_handle;

    struct inner_queued *queue; /* events that came during a step */
    size_t n_queue, queue_capacity;
    bool stepping;
    struct tiered_push *offering; /* waits for the machine's answer */
    const char *unfit; /* why what is offered cannot be taken even so, or NULL */
    struct tiered_timer timers[4];
    uint64_t timer_ids[4];

    char why[512];           /* as the last heartbeat told it */
    struct tiered_path open; /* the round being measured */
    uint64_t opened_ms, up_before, down_before;
    struct traffic traffic, traffic_before; /* of the children's updates */
    double norm; /* that the next updates are bounded to, where the bound follows */
};

/** Feed the machine and carry out what it says. */
void inner_step(struct inner *inner, const struct tiered_round_event *event);
struct inner_update *inner_find(struct inner *inner, uint64_t handle);
/** Free the update when neither machine nor job needs it. */
void inner_release(struct inner *inner, struct inner_update *update);
/** The machine is done with this update. */
void inner_drop(struct inner *inner, uint64_t handle);
void inner_log(const struct inner *inner, enum tiered_level level, const char *text);

/** The machine has taken the newer turn on. */
void inner_start_turn(struct inner *inner);
/** An event of this plan's generation. */
struct tiered_round_event inner_event(const struct inner *inner,
                                      enum tiered_round_event_kind kind,
                                      uint32_t child);

/** Children may pull this model from now on; it is encoded when the first one asks. */
void inner_publish(struct inner *inner, struct tiered_model *model);
/** Forget how it was encoded, and the model. */
void inner_unpublish(struct inner_published *published, bool model_too);
/** The downlink's model(). */
int inner_serve(void *user, const struct tiered_wanted *wanted,
                struct tiered_encoded **ret);
extern const struct tiered_downlink_owner inner_downlink_owner;

/* Jobs; each ends in an event (inner_jobs.c). */
void inner_screen(struct inner *inner, struct inner_update *update,
                  struct tiered_push *push);
void inner_aggregate(struct inner *inner, const struct tiered_path *path,
                     const struct tiered_counted *updates, uint32_t n_updates);
void inner_commit(struct inner *inner, const struct tiered_round_record *record);
/** `reference`: of FORM_REFERRED, else NULL. */
void inner_encode(struct inner *inner, struct inner_published *published,
                  enum inner_form form, struct tiered_model *reference);

#endif
