/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A simulated tree of round machines on a virtual clock. Machines are wired to each
 * other, and to leaves that train, by links that delay, cut and repeat; nodes crash and
 * restart from their last record and outbox, or die for good.
 *
 * Models are exact: two 64-bit sums that wrap, carried by the digest itself. A round's
 * model is its base plus the sum of num_examples times delta, so what was counted, and
 * how often, shows in the result. Every step is checked; what the checks know comes
 * from the world (who is dead, which bytes were sent), not from the machine.
 *
 * What is promised to machines, as by core/link: frames of a session arrive in order or
 * are lost with it; pushes have streams of their own. Beyond that, orders come again
 * within their session, evaluations, messages and offers at any later time, and offers
 * of other generations.
 */
#ifndef TIERED_TESTS_ROUND_SIM_H
#define TIERED_TESTS_ROUND_SIM_H

#include "core/round/round.h"
#include "tiered/random.h"

#define SIM_NODES    12
#define SIM_CHILDREN 4
#define SIM_SPOOL    16
#define SIM_EVENTS   4096
#define SIM_LOG      512

struct sim_model {
    uint64_t x, y;
};

struct sim_update {
    uint64_t handle; /* 0: free */
    uint32_t child;  /* of the node that holds it */
    struct tiered_path path;
    struct tiered_digest base;
    struct sim_model delta;
    uint64_t num_examples;
};

/* Durable: what a node sends up until it is settled. */
struct sim_outbox {
    bool full;
    struct tiered_path path;
    struct tiered_digest base;
    struct sim_model delta;
    uint64_t num_examples;
};

enum sim_kind {
    SIM_LINK_UP = 1, /* node: its link to the parent */
    SIM_DOWN,        /* a frame to node, from its parent */
    SIM_VERDICT,     /* of node's push */
    SIM_UP,          /* a frame of node, to its parent */
    SIM_UPLOADED,    /* node's push is through */
    SIM_TRAINED,
    SIM_AGGREGATED,
    SIM_DURABLE,
    SIM_COMMITTED,
    SIM_TIMER,
    SIM_RESTART,
    SIM_GONE, /* node is given up: its parent hears of it */
    SIM_START,
    SIM_CHAOS,
};

struct sim_event {
    uint64_t time, serial; /* equal times: in the order they were made */
    enum sim_kind kind;
    uint32_t node;
    uint64_t epoch; /* of the process, or the link: older ones are void */
    uint64_t push;
    enum tiered_round_action_kind action; /* DOWN, VERDICT */
    enum tiered_round_event_kind event;   /* UP; 0: readiness */
    struct tiered_path path;
    struct tiered_digest base;
    uint64_t num_examples;
    double accuracy;
    uint32_t phase, step;
    enum tiered_round_timer timer;
    uint64_t timer_id;
    bool counted, repeated;
};

/* One committed round, for the reference. */
struct sim_commit {
    uint32_t node, round;
    struct tiered_path turn;
    struct tiered_digest base, model;
    uint64_t num_examples; /* of this round */
    uint32_t n;
    struct sim_update updates[SIM_CHILDREN];
};

struct sim_node {
    bool leaf, dead, up;
    uint32_t parent, index; /* in the parent */
    uint32_t n_children, children[SIM_CHILDREN];
    uint64_t process, link; /* epochs */
    uint64_t last_down;     /* when the newest session frame to it arrives */
    bool linked, ready, given_up;
    struct sim_outbox outbox;
    bool accepted; /* the parent has all of the outbox */
    uint64_t push; /* the push that stands */
    uint64_t weight;

    struct tiered_path training; /* leaf; depth 0: not */
    struct tiered_digest training_base;
    struct tiered_path newest; /* leaf: the newest order */

    struct tiered_round *machine;
    struct tiered_round_config config;
    bool has_record;
    struct tiered_round_record record, committing;
    struct tiered_counted contributions[SIM_CHILDREN], pending[SIM_CHILDREN];
    struct sim_update spool[SIM_SPOOL];
    struct sim_update folding[SIM_CHILDREN];
    uint32_t n_folding;
    struct tiered_digest folding_base;
    bool heard_gone[SIM_CHILDREN];
};

/* What may happen; all zero: a calm world. Times in virtual milliseconds. */
struct sim_chaos {
    uint32_t cuts, crashes, deaths, repeats, bad_updates, fences;
    uint64_t until;
};

struct sim_world {
    struct tiered_rng rng;
    uint32_t n_nodes;
    struct sim_node nodes[SIM_NODES];
    struct sim_chaos chaos;
    struct sim_event heap[SIM_EVENTS];
    uint32_t n_heap;
    uint64_t now, serial, last_handle, last_push, n_steps;
    struct sim_commit log[SIM_LOG];
    uint32_t n_log;
    bool done, failed;
    struct tiered_digest model; /* delivered by the root */
    uint64_t num_examples;
    char reason[256]; /* of the root's failure */
    char broken[512]; /* the first check that failed; "" none */
    bool trace;
};

#define SIM_CHECK(w, condition, ...)                                                   \
    do {                                                                               \
        if (!(condition) && !(w)->broken[0]) {                                         \
            snprintf((w)->broken, sizeof((w)->broken), __VA_ARGS__);                   \
        }                                                                              \
    } while (0)

static inline uint64_t sim_below(struct sim_world *w, uint64_t n)
{
    return tiered_rng_below(&w->rng, n);
}

static inline struct tiered_digest sim_digest(struct sim_model model)
{
    struct tiered_digest digest = {{0}};
    memcpy(digest.bytes, &model, sizeof(model));
    digest.bytes[31] = 1;
    return digest;
}

static inline struct sim_model sim_model(const struct tiered_digest *digest)
{
    struct sim_model model;
    memcpy(&model, digest->bytes, sizeof(model));
    return model;
}

static inline uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15u + b + 0x7f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* What a leaf makes of a model: the same bytes each time it is asked. */
static inline struct sim_model sim_train(uint32_t node, const struct tiered_path *path,
                                         const struct tiered_digest *base)
{
    struct sim_model model = sim_model(base);
    uint64_t h = sim_mix(node, sim_mix(model.x, model.y));
    for (uint32_t i = 0; i < path->depth; i++) {
        h = sim_mix(h, path->n[i]);
    }
    if (h % 4 == 0) {
        return (struct sim_model){0, 0}; /* so that bases stay, and late updates fit */
    }
    return (struct sim_model){h % 1000, sim_mix(h, 1)};
}

static inline double sim_accuracy(uint32_t node, const struct tiered_digest *base)
{
    return (double)(sim_mix(node, sim_model(base).y) % 100) / 100;
}

static inline void sim_add(struct sim_model *sum, uint64_t times,
                           struct sim_model delta)
{
    sum->x += times * delta.x;
    sum->y += times * delta.y;
}

/* The heap of events, by time. */
static inline bool sim_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->time != b->time ? a->time < b->time : a->serial < b->serial;
}

static inline void sim_push(struct sim_world *w, struct sim_event event)
{
    SIM_CHECK(w, w->n_heap < SIM_EVENTS, "the simulator has too many events");
    if (w->n_heap == SIM_EVENTS) {
        return;
    }
    event.serial = ++w->serial;
    uint32_t i = w->n_heap++;
    for (; i > 0 && sim_before(&event, &w->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        w->heap[i] = w->heap[(i - 1) / 2];
    }
    w->heap[i] = event;
}

static inline struct sim_event sim_pop(struct sim_world *w)
{
    struct sim_event top = w->heap[0], last = w->heap[--w->n_heap];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child + 1 < w->n_heap && sim_before(&w->heap[child + 1], &w->heap[child])) {
            child++;
        }
        if (child >= w->n_heap || !sim_before(&w->heap[child], &last)) {
            break;
        }
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static inline uint64_t sim_delay(struct sim_world *w)
{
    return 1 + sim_below(w, 20);
}

/* round_sim_node.h: what processes do. */
static void sim_feed(struct sim_world *w, uint32_t node,
                     struct tiered_round_event event);

#endif
