/* SPDX-License-Identifier: Apache-2.0 */
/* The round machine's state, shared by the files of this folder; nobody else's
   business. */
#ifndef TIERED_CORE_ROUND_INSIDE_H
#define TIERED_CORE_ROUND_INSIDE_H

#include "core/round/round.h"

#define TIERED_MAX_EXAMPLES (1ull << 53)

enum round_state {
    ROUND_IDLE,
    ROUND_PRE,
    ROUND_COLLECTING,
    ROUND_POST,
    ROUND_AGGREGATING,
    ROUND_COMMITTING,
    ROUND_EVALUATING,
    ROUND_DELIVERING,
    ROUND_FAILED,
    ROUND_STOPPED,
};

enum link_state { LINK_LOST, LINK_READY, LINK_GONE, N_LINKS };

/* What a child is to the open round. */
enum membership {
    MEMBER_NOT,     /* not sampled */
    MEMBER_WAITED,  /* its update is to come */
    MEMBER_IN,      /* its update is stored */
    MEMBER_DROPPED, /* stored, but it missed a step of the post phase */
    MEMBER_BAD,     /* its update was bad */
    MEMBER_MISSED,  /* it missed a step of the pre phase */
    N_MEMBERSHIPS
};

/* An update that came before its round was opened, or after it was closed. */
struct kept_update {
    struct tiered_path path;
    struct tiered_digest base;
    uint64_t update, num_examples;
    struct tiered_metrics metrics;
};

struct round_child {
    enum link_state link;
    enum membership member;
    bool answered; /* the open phase step, or the evaluation */
    uint64_t update;
    /* Of the stored update, or of the answer to an evaluation: never both at once. */
    uint64_t num_examples;
    struct tiered_metrics metrics;
    struct tiered_path update_path;    /* of the stored update */
    struct tiered_path offered_path;   /* of the last update we agreed to receive … */
    struct tiered_digest offered_base; /* … and its base */
    struct tiered_path counted_path;   /* of the last counted contribution */
    struct kept_update *kept;          /* or NULL */
};

struct round_timer {
    bool armed;
    uint64_t id;
};

struct evaluation {
    bool active, relay; /* relay: the parent ordered it */
    bool deadline_passed;
    struct tiered_path path;
    struct tiered_digest base;
    /* The last relayed result, for a parent that missed it. */
    bool have_result;
    struct tiered_path result_path;
    struct tiered_digest result_base;
    uint64_t result_examples;
    struct tiered_metrics result;
};

/* An order that came while the driver was aggregating or committing. */
struct pending_order {
    bool set;
    struct tiered_path path;
    struct tiered_digest base;
};

struct tiered_round {
    struct tiered_round_config config;
    enum round_state state;
    struct round_child *children;
    /* How many children there are of each kind: every check is O(1). */
    uint32_t count[N_MEMBERSHIPS][N_LINKS][2];

    struct tiered_round_record record; /* the last one committed, or being committed */
    struct tiered_path path;           /* of the open round; depth 0: none */
    struct tiered_path last_path;      /* of the last committed round; depth 0: none */
    uint32_t n_sampled;
    uint32_t step;          /* of the open phase, from 1 */
    uint64_t open_examples; /* of the stored updates of the open round */
    uint64_t attempt;       /* at the phases of a round: its number */
    char failure[256];

    bool have_turn;
    bool announce; /* the record was restored: COMMITTED may never have been said */
    bool deadline_passed; /* of the open round or phase step */
    bool no_result;       /* being committed without a contribution */
    bool initial_wanted, told_ready, out_of_memory;

    struct tiered_counted *counted, *committed, *answered;
    struct round_timer timers[TIERED_TIMER_PHASE + 1];
    uint64_t last_timer_id;

    struct evaluation evaluation;
    struct pending_order pending_start, pending_evaluate;
    struct tiered_path initial_path;

    struct tiered_round_action *actions;
    size_t n_actions, actions_capacity;
    struct tiered_round_action scratch; /* written to when there is no memory */
};

/* round.c: actions, timers, children's cells. */
struct tiered_round_action *round_act(struct tiered_round *r,
                                      enum tiered_round_action_kind kind);
struct tiered_round_action *round_act_child(struct tiered_round *r,
                                            enum tiered_round_action_kind kind,
                                            uint32_t child,
                                            const struct tiered_path *path);
__attribute__((format(printf, 2, 3))) void round_warn(struct tiered_round *r,
                                                      const char *fmt, ...);
__attribute__((format(printf, 5, 6))) void
round_settle(struct tiered_round *r, uint32_t child, const struct tiered_path *path,
             bool counted, const char *fmt, ...);
void round_set_timer(struct tiered_round *r, enum tiered_round_timer timer,
                     uint64_t after_ms);
void round_clear_timers(struct tiered_round *r);
void round_set_member(struct tiered_round *r, uint32_t child, enum membership member);
void round_set_link(struct tiered_round *r, uint32_t child, enum link_state link);
void round_set_answered(struct tiered_round *r, uint32_t child, bool answered);
void round_no_answers(struct tiered_round *r); /* a new step or evaluation */
uint32_t round_count_link(const struct tiered_round *r, enum link_state link);
uint32_t round_count_member(const struct tiered_round *r, enum membership member);

/* sample.c */
int round_check_config(const struct tiered_round_config *config,
                       struct tiered_error *err);
uint32_t round_share_up(double share, uint32_t n); /* a quorum, at least 1 */
int round_sample(struct tiered_round *r, const struct tiered_path *path);

/* children.c */
void round_on_ready(struct tiered_round *r, uint32_t child);
void round_on_lost(struct tiered_round *r, uint32_t child);
void round_on_gone(struct tiered_round *r, uint32_t child);
void round_check_ready(struct tiered_round *r);

/* turn.c */
void round_on_start(struct tiered_round *r, const struct tiered_round_event *event);
void round_on_delivered(struct tiered_round *r, const struct tiered_path *path);
void round_on_stop(struct tiered_round *r);
void round_go_on(struct tiered_round *r); /* next round, or deliver */
void round_abandon(struct tiered_round *r, const char *why);
void round_fail(struct tiered_round *r, const char *reason);
/* The open round from its beginning: nothing that was stored for it counts. */
void round_begin_again(struct tiered_round *r, const char *reason);
bool round_has_pending(const struct tiered_round *r);
void round_begin_pending(struct tiered_round *r);
bool round_is_running(const struct tiered_round *r); /* a turn, not yet delivered */
bool round_is_open(const struct tiered_round *r);
bool round_is_busy(const struct tiered_round *r); /* the driver works on our state */

/* collect.c */
void round_begin_collecting(struct tiered_round *r);
void round_check_collecting(struct tiered_round *r);
void round_aggregate(struct tiered_round *r);
void round_drop_stored(struct tiered_round *r, uint32_t child, const char *reason);
void round_fail_quorum(struct tiered_round *r, const char *what, uint32_t in,
                       uint32_t may_come, uint32_t needed);
uint32_t round_needed(const struct tiered_round *r);

/* update.c */
void round_on_offer(struct tiered_round *r, const struct tiered_round_event *event);
void round_on_update(struct tiered_round *r, const struct tiered_round_event *event);
void round_on_bad_update(struct tiered_round *r,
                         const struct tiered_round_event *event);
void round_take_kept(struct tiered_round *r);

/* initial.c */
void round_on_initial(struct tiered_round *r, const struct tiered_path *path);
void round_order_initial(struct tiered_round *r);
bool round_is_initial(const struct tiered_round *r, uint32_t child,
                      const struct tiered_path *path, const struct tiered_digest *base);
void round_deliver_initial(struct tiered_round *r,
                           const struct tiered_round_event *event);
void round_no_initial(struct tiered_round *r, const char *why);

/* phase.c */
void round_begin_phase(struct tiered_round *r, enum round_state phase);
void round_check_phase(struct tiered_round *r);
void round_order_phase(struct tiered_round *r, uint32_t child);
void round_on_phase(struct tiered_round *r, const struct tiered_round_event *event);
void round_on_phase_bad(struct tiered_round *r, const struct tiered_round_event *event);
void round_on_phase_lost(struct tiered_round *r,
                         const struct tiered_round_event *event);
void round_on_phase_failed(struct tiered_round *r,
                           const struct tiered_round_event *event);
const struct tiered_phase_rules *round_phase_rules(const struct tiered_round *r);
bool round_in_phase(const struct tiered_round *r, uint32_t child);
uint32_t round_phase_count(const struct tiered_round *r, enum link_state link,
                           bool answered);

/* commit.c */
void round_on_aggregated(struct tiered_round *r,
                         const struct tiered_round_event *event);
void round_on_not_aggregated(struct tiered_round *r, const struct tiered_path *path);
void round_on_committed(struct tiered_round *r);
/* Say COMMITTED; the evaluation's metrics win. NULL: none. */
void round_announce(struct tiered_round *r, const struct tiered_metrics *evaluated);

/* metrics.c: means over children, weighted by examples, in canonical order. */
struct metric_means {
    struct tiered_metrics sums;
    uint64_t weights[TIERED_MAX_METRICS];
    uint64_t num_examples;
};
void round_means_add(struct metric_means *means, uint64_t num_examples,
                     const struct tiered_metrics *metrics);
void round_means_get(const struct metric_means *means, struct tiered_metrics *ret);
void round_metrics_merge(struct tiered_metrics *into,
                         const struct tiered_metrics *from);

/* evaluate.c */
void round_evaluate(struct tiered_round *r);
void round_on_evaluate(struct tiered_round *r, const struct tiered_path *path,
                       const struct tiered_digest *base);
void round_on_evaluation(struct tiered_round *r,
                         const struct tiered_round_event *event);
void round_check_evaluation(struct tiered_round *r);
void round_order_evaluation(struct tiered_round *r, uint32_t child);
void round_cancel_evaluation(struct tiered_round *r);
/* Whether an evaluation at `path` says that the parent's round `turn` is closed. */
bool round_evaluation_closes(const struct tiered_path *path,
                             const struct tiered_path *turn);
uint32_t round_unanswered(const struct tiered_round *r, enum link_state link);

/* why.c */
const char *round_child_name(const struct tiered_round *r, uint32_t child,
                             char out[64]);
void round_list_missing(const struct tiered_round *r, char *out, size_t size);

#endif
