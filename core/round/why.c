/* SPDX-License-Identifier: Apache-2.0 */
/* What a node waits for, in words. */
#include "core/round/inside.h"

#define MOST_NAMED 8

/* Text that grows in a fixed buffer; what does not fit is cut. */
struct text {
    char *out;
    size_t size, used;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt,
                                                      ...)
{
    va_list args;
    va_start(args, fmt);
    int n = t->used < t->size
                ? vsnprintf(t->out + t->used, t->size - t->used, fmt, args)
                : 0;
    va_end(args);
    t->used += n > 0 ? (size_t)n : 0;
}

const char *round_child_name(const struct tiered_round *r, uint32_t child, char out[64])
{
    if (r->config.children) {
        return r->config.children[child];
    }
    snprintf(out, 64, "child %u", child);
    return out;
}

struct namer {
    const char *(*name)(void *user, uint32_t child);
    void *user;
};

static bool is_missing(const struct tiered_round *r, uint32_t child)
{
    const struct round_child *c = &r->children[child];
    if (c->link == LINK_GONE) {
        return false;
    }
    if (r->evaluation.active) {
        return !c->answered;
    }
    switch (r->state) {
    case ROUND_PRE:
    case ROUND_POST:
        return round_in_phase(r, child) && !c->answered;
    case ROUND_COLLECTING:
        return c->member == MEMBER_WAITED;
    default:
        return c->link == LINK_LOST;
    }
}

/* "; waits for edge-1 (at work), edge-2 (lost) and 3 more" */
static void put_missing(const struct tiered_round *r, const struct namer *namer,
                        struct text *t, bool links)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (!is_missing(r, i) || n++ >= MOST_NAMED) {
            continue;
        }
        char buffer[64];
        const char *name =
            namer->name ? namer->name(namer->user, i) : round_child_name(r, i, buffer);
        put(t, "%s%s", n == 1 ? "waits for " : ", ", name);
        if (links) {
            put(t, r->children[i].link == LINK_READY ? " (at work)" : " (lost)");
        }
    }
    if (n > MOST_NAMED) {
        put(t, " and %u more", n - MOST_NAMED);
    }
}

void round_list_missing(const struct tiered_round *r, char *out, size_t size)
{
    struct text t = {out, size, 0};
    struct namer namer = {0};
    out[0] = '\0';
    put_missing(r, &namer, &t, false);
}

static void put_quorum(struct text *t, bool passed, bool deadline, uint32_t in,
                       uint32_t needed)
{
    if (passed && in < needed) {
        put(t, "; the deadline has passed, the quorum is %u", needed);
    } else if (deadline && !passed && in >= needed) {
        put(t, ", or for the deadline");
    }
}

static void why_phase(const struct tiered_round *r, const struct namer *namer,
                      struct text *t)
{
    const struct tiered_phase_rules *rules = round_phase_rules(r);
    uint32_t answered = round_phase_count(r, LINK_READY, true) +
                        round_phase_count(r, LINK_LOST, true) +
                        round_phase_count(r, LINK_GONE, true);
    put(t, "%s phase, step %u of %u: %u of %u messages; ",
        r->state == ROUND_PRE ? "pre" : "post", r->step, rules->steps, answered,
        r->n_sampled);
    put_missing(r, namer, t, true);
    put_quorum(t, r->deadline_passed, rules->deadline_ms > 0, answered,
               round_share_up(rules->quorum, r->n_sampled));
}

static void why_collecting(const struct tiered_round *r, const struct namer *namer,
                           struct text *t)
{
    uint32_t in = round_count_member(r, MEMBER_IN);
    put(t, "%u of %u updates; ", in, r->n_sampled);
    put_missing(r, namer, t, true);
    put_quorum(t, r->deadline_passed, r->config.deadline_ms > 0, in, round_needed(r));
}

static void why_evaluation(const struct tiered_round *r, const struct namer *namer,
                           struct text *t)
{
    uint32_t missing = round_unanswered(r, LINK_READY) + round_unanswered(r, LINK_LOST);
    uint32_t n = r->config.n_children - round_unanswered(r, LINK_GONE);
    char path[192];
    tiered_path_text(&r->evaluation.path, path);
    put(t, "evaluation of round %.64s: %u of %u answers; ", path, n - missing, n);
    put_missing(r, namer, t, true);
}

static void why_idle(const struct tiered_round *r, const struct namer *namer,
                     struct text *t)
{
    uint32_t ready = round_count_link(r, LINK_READY);
    uint32_t alive = r->config.n_children - round_count_link(r, LINK_GONE);
    uint32_t needed = round_share_up(r->config.quorum, alive);
    if (r->initial_wanted) {
        char buffer[64];
        uint32_t child = r->config.initial_child;
        put(t, "waits for the initial model of %s%s",
            namer->name ? namer->name(namer->user, child)
                        : round_child_name(r, child, buffer),
            r->children[child].link == LINK_READY ? "" : " (lost)");
    } else if (alive == 0) {
        put(t, "all %u children are gone", r->config.n_children);
    } else if (ready < needed) {
        put(t, "%u of %u children are ready, %u are needed; ", ready, alive, needed);
        put_missing(r, namer, t, true);
    }
}

static void why_turn(const struct tiered_round *r, const struct namer *namer,
                     struct text *t)
{
    switch (r->state) {
    case ROUND_IDLE:
        why_idle(r, namer, t);
        break;
    case ROUND_PRE:
    case ROUND_POST:
        why_phase(r, namer, t);
        break;
    case ROUND_COLLECTING:
        why_collecting(r, namer, t);
        break;
    case ROUND_AGGREGATING:
        put(t, "%u of %u updates; waits for their aggregation",
            round_count_member(r, MEMBER_IN) + round_count_member(r, MEMBER_DROPPED),
            r->n_sampled);
        break;
    case ROUND_COMMITTING:
        put(t, "waits for its record to be written");
        break;
    case ROUND_DELIVERING:
        put(t, "waits for the parent to settle its update");
        break;
    case ROUND_FAILED:
        put(t, "failed: %s", r->failure);
        break;
    case ROUND_EVALUATING: /* an evaluation is active */
    case ROUND_STOPPED:
        break;
    }
}

void tiered_round_why(const struct tiered_round *r,
                      const char *(*name)(void *user, uint32_t child), void *user,
                      char *out, size_t size)
{
    struct text t = {out, size, 0};
    struct namer namer = {name, user};
    if (size == 0) {
        return;
    }
    out[0] = '\0';
    if (r->evaluation.active) {
        why_evaluation(r, &namer, &t);
    } else {
        why_turn(r, &namer, &t);
    }
}

const char *tiered_round_state(const struct tiered_round *r)
{
    static const char *const names[] = {
        [ROUND_IDLE] = "idle",
        [ROUND_PRE] = "pre phase",
        [ROUND_COLLECTING] = "collecting",
        [ROUND_POST] = "post phase",
        [ROUND_AGGREGATING] = "aggregating",
        [ROUND_COMMITTING] = "committing",
        [ROUND_EVALUATING] = "evaluating",
        [ROUND_DELIVERING] = "delivering",
        [ROUND_FAILED] = "failed",
        [ROUND_STOPPED] = "stopped",
    };
    return r->evaluation.active ? "evaluating" : names[r->state];
}
