/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The round state machine of one inner node: a pure function from (state, event) to
 * (state, actions). No clock, socket, thread, file or log: whoever drives it (the
 * agent, the simulator, a test) turns events into calls and carries the actions out in
 * order.
 *
 * One *turn* is what a parent's order starts: `rounds_per_parent` rounds from the
 * ordered model, then one delivery upwards. The root is the same; its caller is the
 * orchestrator and its rounds_per_parent is run.rounds.
 *
 *   idle -START-> [pre] collecting [post] -> aggregating -> committing -> [evaluating]
 *        -> collecting … -> delivering -DELIVERED-> idle
 *
 * A turn that cannot go on is "failed" until it is started again, by the same START
 * (it retries the round) or a newer one; after TIERED_ON_STOP all is "stopped".
 *
 * Rules, in short (design.md section 5):
 *  - a round closes when every sampled child that is not gone has contributed, or at
 *    quorum once the deadline has passed (at once if it passed already); a warning then
 *    names the children that it goes on without. Without a
 *    deadline a quorum below 100 % closes when every child still missing is lost or
 * gone.
 *  - lost: the link is down and may come back (the round waits for it, and says so).
 *    gone: given up. A round that can no longer reach its quorum fails the turn.
 *  - a bad update (refused, NaN …) makes its child missing in this round.
 *  - one contribution a (node, path): a second one is answered as settled or duplicate.
 *  - an update to the round before the open one is late: dropped, or, with `keep_late`
 *    and that child's own update still missing, taken for the open round if its base is
 *    that round's model. Anything older is dropped.
 *  - an update to a newer round than this node knows of, while none is open, is kept
 *    for when that round opens: after our crash, children send again before the parent
 *    has ordered the round again.
 *  - events of another generation are refused.
 *  - sampling depends on seed, node and path alone: the first of a shuffle of all
 *    children that are not gone. With `poisson` each child's own draw decides, whoever
 *    else is there; a round that nobody was drawn for asks nobody, goes through no
 *    phase, and aggregates no updates.
 *  - a newer START while a turn runs abandons that turn (its contributions are lost and
 *    reported); the same START again is answered with the same delivery. While the
 *    driver aggregates or commits, a newer START waits until it has: its model must not
 *    take the place of the one being aggregated before an action names it.
 *  - num_examples of a delivery is the sum over all contributions of its turn.
 *  - an evaluation closes when every child that is not gone has answered; lost ones are
 *    not waited for once the deadline has passed, nor below a quorum of 100 % once a
 *    quorum has answered. (With 100 % and no deadline they are waited for, as in a
 *    round: a crash then cannot change what a stop condition sees.)
 *  - an evaluation ordered by the parent closes the parent's round, so a turn that
 *    still runs for it is abandoned. One of an older round (a parent that restarted
 * does its last evaluation again) waits for the turn, whose update is wanted still.
 *
 *  - who misses a step of the pre phase is out of the round; who misses one of the post
 *    phase is a dropout, and its update stays. A post phase that cannot reach its
 * quorum closes all the same: what it revealed cannot be taken back, and the driver
 * says whether there is a result.
 *
 * Every TIERED_ON_OFFER is answered within its step by exactly one of RECEIVE, ACCEPT,
 * REFUSE or SETTLE for that child and path. Updates stay the driver's: it frees one at
 * DROP_UPDATE, and all that a record counts when it has carried COMMIT out. A crash
 * between COMMIT and COMMITTED may have hidden the latter, so the first START after a
 * restore says COMMITTED again for the restored record: its path tells which round.
 *
 * Memory: O(children). Threads: none; one owner.
 */
#ifndef TIERED_CORE_ROUND_H
#define TIERED_CORE_ROUND_H

#include "core/base/base.h"
#include "core/round/path.h"
#include "tiered/model.h"

struct tiered_phase_rules {
    uint32_t steps;       /* 0: the phase is not used */
    double quorum;        /* share of the sampled, (0, 1] */
    uint64_t deadline_ms; /* 0: none */
};

struct tiered_round_config {
    const char *node;           /* borrowed for the machine's life */
    uint32_t n_children;        /* children are 0..n-1 in canonical (name) order */
    uint32_t rounds_per_parent; /* >= 1 */
    double sample;              /* (0, 1]: max(1, round half up of sample * children) */
    double quorum;              /* (0, 1] of the sampled, rounded up, at least 1 */
    uint64_t deadline_ms;       /* 0: none */
    bool keep_late;
    bool poisson; /* each child by itself is asked with the chance `sample` */
    struct tiered_phase_rules pre, post;
    uint32_t
        evaluate_every;   /* rounds of this node; 0: never (only the root's is set) */
    char stop_metric[32]; /* "" none; looked up in the evaluation's metrics */
    double stop_at;
    int stop_sign; /* +1: stop at >= stop_at; -1: at <= */
    uint64_t seed;
    uint64_t generation;
    uint32_t initial_child;      /* asked for the initial model */
    const char *const *children; /* names for reasons, borrowed; NULL: "child 2" */
};

enum tiered_round_event_kind {
    TIERED_ON_START = 1,   /* path: the parent's round; base: the model to start from */
    TIERED_ON_INITIAL,     /* path: as above; the parent wants the initial model */
    TIERED_ON_EVALUATE,    /* path; base: the parent wants this model evaluated */
    TIERED_ON_CHILD_READY, /* child (again) connected and ready */
    TIERED_ON_CHILD_LOST,  /* child: link down or not ready */
    TIERED_ON_CHILD_GONE,  /* child: given up */
    TIERED_ON_OFFER,       /* child, path, generation, base: wants to push an update */
    TIERED_ON_UPDATE, /* child, path, base, update (a handle), num_examples, metrics:
                         whole, verified, screened. base none: that of its offer */
    /* child, path, reason: what it pushed was refused or is unusable, or it failed at
       its order. With `update`, a stored one, while aggregating: the driver gave the
       aggregation up because of it, and is told to AGGREGATE again without it */
    TIERED_ON_BAD_UPDATE,
    TIERED_ON_PHASE,          /* child, path, phase, step: its message arrived */
    TIERED_ON_AGGREGATED,     /* base: digest of the new model; local_steps;
                                 num_examples: of the sum of a group, whose updates
                                 show none; else 0 */
    TIERED_ON_NOT_AGGREGATED, /* the rule has no result (no examples): the model stays.
                                 With a path also before the round is aggregated: it
                                 cannot be repeated */
    TIERED_ON_COMMITTED,      /* the record is durable */
    TIERED_ON_EVALUATION,     /* child, path, base, num_examples, metrics; a child that
                                 cannot evaluate answers with num_examples 0 */
    TIERED_ON_TIMER,          /* timer, timer_id as they were set */
    TIERED_ON_DELIVERED,      /* the parent settled our delivery of `path` */
    TIERED_ON_STOP,           /* the run is over */
    /* child, path, phase, step, reason: its message was refused, or it cannot answer:
       it misses this step */
    TIERED_ON_PHASE_BAD,
    /* child, path, reason: it was started again and has no part in the open attempt. If
       its round cannot reach its quorum without it, the round begins anew, unless its
       post phase has */
    TIERED_ON_PHASE_LOST,
    /* path, reason: its phases cannot go on; the turn fails, and its round begins anew
       when it is started again */
    TIERED_ON_PHASE_FAILED,
};

enum tiered_round_timer {
    TIERED_TIMER_HALF = 1, /* half of the deadline: say what is waited for */
    TIERED_TIMER_DEADLINE = 2,
    TIERED_TIMER_PHASE = 3,
};

struct tiered_round_event {
    enum tiered_round_event_kind kind;
    uint64_t generation; /* of OFFER; elsewhere 0: this one's */
    uint32_t child;
    struct tiered_path path;
    struct tiered_digest base;
    uint64_t update; /* the driver's handle of a stored update; never 0 */
    uint64_t num_examples;
    double local_steps; /* that the round stands for; 0: not known */
    struct tiered_metrics metrics;
    uint32_t phase, step; /* 1 pre, 2 post */
    enum tiered_round_timer timer;
    uint64_t timer_id;
    const char *reason; /* borrowed for the call; NULL: none is known */
};

enum tiered_round_action_kind {
    TIERED_DO_ORDER = 1, /* child, path, base: train; sent again after a reconnect */
    TIERED_DO_ORDER_INITIAL,  /* child, path */
    TIERED_DO_ORDER_EVALUATE, /* child, path, base */
    TIERED_DO_STOP,           /* child: the run is over */
    TIERED_DO_RECEIVE,        /* child, path: take the update that was offered */
    TIERED_DO_REFUSE,         /* child, path, reason: the offer is not wanted; final */
    TIERED_DO_SETTLE, /* child, path, counted, reason: the child may clear its outbox */
    TIERED_DO_DROP_UPDATE,  /* update, reason: free the stored update (late, duplicate)
                             */
    TIERED_DO_PHASE,        /* child, path, phase, step: send it its message; update:
                               the number of the attempt, new each time that a round
                               begins */
    TIERED_DO_PHASE_CLOSED, /* path, phase, step: all that counts is in; updates[]: the
                               children that answered */
    TIERED_DO_SET_TIMER,    /* timer, timer_id, after_ms; a later one replaces it */
    TIERED_DO_CLEAR_TIMER,  /* timer */
    TIERED_DO_AGGREGATE, /* path; updates[n_updates] in canonical child order; base */
    TIERED_DO_COMMIT,    /* record: write it, fsync, then TIERED_ON_COMMITTED */
    TIERED_DO_COMMITTED, /* path, record, updates, num_examples (of this round),
                            metrics: the committed round, for the run's record. Comes
                            after the round's evaluation when one is due, and metrics
                            then has its results too (they win over contributions'
                            of the same name) */
    TIERED_DO_DELIVER,   /* path, base (current model), num_examples, local_steps,
                            metrics:   send up */
    TIERED_DO_DELIVER_INITIAL, /* update, child, path: send the initial model up as it
                                  is; the update is the driver's from here on */
    TIERED_DO_DELIVER_EVALUATION, /* path, base, num_examples, metrics */
    TIERED_DO_READY, /* this node can take orders (quorum of its children is ready), or
                        all are gone, and an order will FAIL */
    TIERED_DO_UNREADY, /* … no longer; reason */
    TIERED_DO_WARN,    /* reason: a wait, a late or duplicate update; for the log */
    TIERED_DO_FAIL,    /* path, reason: this turn cannot be finished; sent up */
    TIERED_DO_ACCEPT,  /* child, path: what it offers is here already, uncommitted: the
                          push is done without its bytes; SETTLE follows in time */
};

/** One counted update. */
struct tiered_counted {
    uint32_t child;
    uint64_t update;
    uint64_t num_examples;
};

/** What a commit must remember, besides the model and the optimizer's state. A value:
    contributions are owned by the machine until the next step, or by the reader. */
struct tiered_round_record {
    uint64_t generation;
    struct tiered_path turn;        /* the parent's round that this turn serves */
    struct tiered_digest turn_base; /* the model that the turn started from */
    uint32_t round;                 /* rounds committed in this turn */
    struct tiered_digest model;     /* the current model */
    uint64_t num_examples;          /* of the turn so far */
    double local_steps;             /* likewise */
    struct tiered_metrics metrics;  /* of the turn's last round, averaged by examples */
    uint32_t n_contributions;       /* of the last round */
    const struct tiered_counted *contributions;
    uint64_t group_examples; /* of the last round, known in sum alone */
    uint32_t finished;     /* 1: the turn's rounds are done; a stop condition met later
                              is found again by the evaluation */
    uint32_t total_rounds; /* committed since the node began */
    uint32_t evaluation_due; /* 1: this round is followed by an evaluation, which is
                                done again if the node restarts from this record */
};

struct tiered_round_action {
    enum tiered_round_action_kind kind;
    uint32_t child;
    struct tiered_path path;
    struct tiered_digest base;
    uint64_t update;
    uint64_t num_examples;
    double local_steps;
    struct tiered_metrics metrics;
    bool counted;
    uint32_t phase, step;
    enum tiered_round_timer timer;
    uint64_t timer_id, after_ms;
    const struct tiered_counted *updates; /* AGGREGATE, COMMITTED */
    uint32_t n_updates;
    const struct tiered_round_record *record; /* COMMIT, COMMITTED */
    char reason[256];
};

struct tiered_round;

/** How many of n children a round asks: the number, or by Poisson the mean of it. */
double tiered_round_expected(double sample, bool poisson, uint32_t n);

int tiered_round_create(const struct tiered_round_config *config,
                        struct tiered_round **ret, struct tiered_error *err);
void tiered_round_destroy(struct tiered_round *round);
/** Feed one event. *ret_actions is valid until the next call. An event that makes no
    sense in this state is ignored or answered (never an error): peers may send
   anything. -1 only for TIERED_ENOMEM and for a caller's mistake (child out of range).
 */
int tiered_round_step(struct tiered_round *round,
                      const struct tiered_round_event *event,
                      const struct tiered_round_action **ret_actions, size_t *ret_n,
                      struct tiered_error *err);
/** Continue from a committed record after a restart: before any event. The driver has
    restored model and optimizer. An unfinished turn goes on at its next round at the
   next START of the same path; a finished one delivers again. */
int tiered_round_restore(struct tiered_round *round,
                         const struct tiered_round_record *record,
                         struct tiered_error *err);
/** "idle", "collecting", … */
const char *tiered_round_state(const struct tiered_round *round);
/** The open round's path (depth 0: none). */
struct tiered_path tiered_round_open_path(const struct tiered_round *round);
/** What a child is to the open round: asked, and its update stored. */
bool tiered_round_asked(const struct tiered_round *round, uint32_t child);
bool tiered_round_stored(const struct tiered_round *round, uint32_t child);
/** What the open round waits for, by child index and condition: "3 of 4 updates; waits
    for child 2 (lost)". `name` gives a child's name (NULL: config's). Also what a
    delivery, or a node that is not ready, waits for. Empty when idle and ready. */
void tiered_round_why(const struct tiered_round *round,
                      const char *(*name)(void *user, uint32_t child), void *user,
                      char *out, size_t size);

TIERED_DEFINE_FREE(struct tiered_round, tiered_round_destroy)

#endif
