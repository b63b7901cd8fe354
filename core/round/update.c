/* SPDX-License-Identifier: Apache-2.0 */
/* Updates that children offer and send: taken, kept for a round that is not open yet,
   answered as counted already, or turned away. An offer and the update behind it are
   judged by the same rules, each by what is open when it arrives. */
#include "core/round/inside.h"

enum verdict {
    TAKE,    /* for the open round */
    KEEP,    /* for the next one */
    HAVE,    /* it is stored already */
    COUNTED, /* in a committed round */
    REFUSE,  /* it should never have been made */
    TOO_LATE,
    FORGO, /* not counted for another reason */
};

static bool is_collecting(const struct tiered_round *r)
{
    return r->state == ROUND_PRE || r->state == ROUND_COLLECTING;
}

static bool same_base(const struct tiered_digest *a, const struct tiered_digest *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

__attribute__((format(printf, 3, 4))) static enum verdict
because(char reason[256], enum verdict verdict, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason, 256, fmt, args);
    va_end(args);
    return verdict;
}

static enum verdict late(const struct tiered_path *path, char reason[256])
{
    char text[192];
    tiered_path_text(path, text);
    return because(reason, TOO_LATE, "late: round %s is closed", text);
}

/* To the round that is open, or closed but not committed. */
static enum verdict judge_open(const struct tiered_round *r,
                               const struct round_child *c,
                               const struct tiered_digest *base, char reason[256])
{
    char text[192];
    tiered_path_text(&r->path, text);
    switch (c->member) {
    case MEMBER_NOT:
        return because(reason, REFUSE, "not sampled in round %s", text);
    case MEMBER_MISSED:
        return because(reason, REFUSE,
                       "out of round %s: its pre phase went on without "
                       "this node",
                       text);
    case MEMBER_BAD:
        return because(reason, FORGO, "its update of round %s was bad", text);
    case MEMBER_IN:
    case MEMBER_DROPPED:
        if (tiered_path_equal(&c->update_path, &r->path)) {
            return because(reason, HAVE, "duplicate");
        }
        return because(reason, FORGO, "its late update counts in round %s", text);
    default:
        break;
    }
    if (!is_collecting(r)) {
        return r->config.keep_late ? KEEP : late(&r->path, reason);
    }
    if (!same_base(base, &r->record.model)) {
        return because(reason, REFUSE, "its base is not the model of round %s", text);
    }
    return TAKE;
}

/* To the last committed round, where this child did not contribute. */
static enum verdict judge_last(const struct tiered_round *r,
                               const struct round_child *c,
                               const struct tiered_digest *base, char reason[256])
{
    if (r->record.n_contributions == 0) { /* it was in, perhaps: then it is not late */
        return because(reason, FORGO, "its round has no result");
    }
    if (!r->config.keep_late) {
        return late(&r->last_path, reason);
    }
    if (!round_is_open(r)) {
        return KEEP;
    }
    if (is_collecting(r) && c->member == MEMBER_WAITED &&
        same_base(base, &r->record.model)) {
        return TAKE;
    }
    return late(&r->last_path, reason);
}

/* Newer than all that we know: its round was opened before we crashed, perhaps. */
static bool may_come(const struct tiered_round *r, const struct round_child *c,
                     const struct tiered_path *path)
{
    return path->depth > 0 && tiered_path_compare(path, &r->last_path) > 0 &&
           tiered_path_compare(path, &c->counted_path) > 0 &&
           (!r->have_turn || (path->depth == r->record.turn.depth + 1 &&
                              tiered_path_compare(path, &r->record.turn) > 0));
}

static enum verdict judge(const struct tiered_round *r, uint32_t child,
                          const struct tiered_path *path,
                          const struct tiered_digest *base, char reason[256])
{
    const struct round_child *c = &r->children[child];
    reason[0] = '\0';
    if (r->state == ROUND_STOPPED) {
        return because(reason, REFUSE, "the run is over");
    }
    if (path->depth && tiered_path_equal(path, &c->counted_path)) {
        return because(reason, COUNTED, "counted already");
    }
    if (c->kept && tiered_path_equal(path, &c->kept->path)) {
        return because(reason, HAVE, "duplicate");
    }
    if (round_is_open(r) && tiered_path_equal(path, &r->path)) {
        return judge_open(r, c, base, reason);
    }
    if (path->depth && tiered_path_equal(path, &r->last_path)) {
        return judge_last(r, c, base, reason);
    }
    if (path->depth &&
        (tiered_path_compare(path, &r->last_path) < 0 ||
         (r->have_turn && tiered_path_compare(path, &r->record.turn) < 0))) {
        return late(path, reason);
    }
    if (!round_is_open(r) && may_come(r, c, path)) {
        return KEEP;
    }
    char text[192];
    tiered_path_text(path, text);
    return because(reason, REFUSE, "round '%s' is unknown", text);
}

static void warn_late(struct tiered_round *r, uint32_t child, const char *reason)
{
    char name[64];
    round_warn(r, "an update of %s is dropped: %.180s",
               round_child_name(r, child, name), reason);
}

void round_on_offer(struct tiered_round *r, const struct tiered_round_event *event)
{
    struct round_child *c = &r->children[event->child];
    char reason[256];
    enum verdict verdict =
        round_is_initial(r, event->child, &event->path, &event->base)
            ? TAKE
            : judge(r, event->child, &event->path, &event->base, reason);
    switch (verdict) {
    case TAKE:
    case KEEP:
        c->offered_path = event->path;
        c->offered_base = event->base;
        round_act_child(r, TIERED_DO_RECEIVE, event->child, &event->path);
        return;
    case HAVE:
        round_act_child(r, TIERED_DO_ACCEPT, event->child, &event->path);
        return;
    case COUNTED:
        round_settle(r, event->child, &event->path, true, "%s", "");
        return;
    case REFUSE:
        snprintf(
            round_act_child(r, TIERED_DO_REFUSE, event->child, &event->path)->reason,
            sizeof(reason), "%s", reason);
        return;
    case TOO_LATE:
        warn_late(r, event->child, reason);
        break;
    case FORGO:
        break;
    }
    round_settle(r, event->child, &event->path, false, "%s", reason);
}

static void drop(struct tiered_round *r, uint32_t child, const struct tiered_path *path,
                 uint64_t update, const char *reason)
{
    struct tiered_round_action *action =
        round_act_child(r, TIERED_DO_DROP_UPDATE, child, path);
    action->update = update;
    snprintf(action->reason, sizeof(action->reason), "%s", reason);
}

static void not_counted(struct tiered_round *r, uint32_t child,
                        const struct tiered_path *path, uint64_t update,
                        const char *reason)
{
    drop(r, child, path, update, reason);
    round_settle(r, child, path, false, "%s", reason);
}

/* The sum of a turn must stay a number of examples that a parent takes. */
static bool fits(const struct tiered_round *r, uint64_t num_examples)
{
    return num_examples <= TIERED_MAX_EXAMPLES &&
           r->record.num_examples + r->open_examples + num_examples <=
               TIERED_MAX_EXAMPLES;
}

static void mark_bad(struct tiered_round *r, uint32_t child, const char *reason)
{
    char name[64], path[192];
    tiered_path_text(&r->path, path);
    round_set_member(r, child, MEMBER_BAD);
    round_warn(r, "%s counts as missing in round %.64s: %s",
               round_child_name(r, child, name), path, reason);
}

/* Make it the child's contribution to the open round. */
static void store(struct tiered_round *r, uint32_t child, const struct kept_update *u)
{
    struct round_child *c = &r->children[child];
    if (!fits(r, u->num_examples)) {
        char reason[80];
        snprintf(reason, sizeof(reason), "with its %llu examples the sum is above 2^53",
                 (unsigned long long)u->num_examples);
        not_counted(r, child, &u->path, u->update, reason);
        mark_bad(r, child, reason);
        return;
    }
    c->update = u->update;
    c->num_examples = u->num_examples;
    c->metrics = u->metrics;
    c->update_path = u->path;
    r->open_examples += u->num_examples;
    round_set_member(r, child, MEMBER_IN);
    if (!tiered_path_equal(&u->path, &r->path)) {
        char name[64], was[192], is[192];
        tiered_path_text(&u->path, was);
        tiered_path_text(&r->path, is);
        round_warn(r, "the late update of %s to round %.64s counts in round %.64s",
                   round_child_name(r, child, name), was, is);
    }
}

static void keep(struct tiered_round *r, uint32_t child, const struct kept_update *u)
{
    struct round_child *c = &r->children[child];
    if (c->kept) { /* a child has one update at a time: this is the newer one */
        not_counted(r, child, &c->kept->path, c->kept->update, "superseded");
    } else {
        c->kept = malloc(sizeof(*c->kept));
    }
    if (!c->kept) {
        r->out_of_memory = true;
        return;
    }
    *c->kept = *u;
}

void round_take_kept(struct tiered_round *r)
{
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        struct round_child *c = &r->children[i];
        TIERED_FREE struct kept_update *u = TIERED_STEAL(c->kept);
        char reason[256];
        if (!u) {
            continue;
        }
        if (judge(r, i, &u->path, &u->base, reason) == TAKE) {
            store(r, i, u);
        } else {
            not_counted(r, i, &u->path, u->update, reason);
            warn_late(r, i, reason);
        }
    }
}

static void check(struct tiered_round *r)
{
    if (r->state == ROUND_COLLECTING) {
        round_check_collecting(r);
    } else if (r->state == ROUND_PRE) {
        round_check_phase(r);
    }
}

void round_on_update(struct tiered_round *r, const struct tiered_round_event *event)
{
    const struct round_child *c = &r->children[event->child];
    struct kept_update u = {event->path, event->base, event->update,
                            event->num_examples, event->metrics};
    char reason[256];
    if (tiered_digest_is_none(&u.base) &&
        tiered_path_equal(&u.path, &c->offered_path)) {
        u.base = c->offered_base;
    }
    if (round_is_initial(r, event->child, &u.path, &u.base)) {
        round_deliver_initial(r, event);
        return;
    }
    switch (judge(r, event->child, &u.path, &u.base, reason)) {
    case TAKE:
        store(r, event->child, &u);
        check(r);
        return;
    case KEEP:
        keep(r, event->child, &u);
        return;
    case HAVE:
        drop(r, event->child, &u.path, u.update, reason);
        warn_late(r, event->child, reason);
        return;
    case COUNTED:
        drop(r, event->child, &u.path, u.update, reason);
        round_settle(r, event->child, &u.path, true, "%s", "");
        return;
    case REFUSE:
    case TOO_LATE:
    case FORGO:
        not_counted(r, event->child, &u.path, u.update, reason);
        warn_late(r, event->child, reason);
        return;
    }
}

/* The driver found, while folding, that a stored update cannot be used. */
static void bad_in_aggregation(struct tiered_round *r, uint32_t child,
                               const char *reason)
{
    round_drop_stored(r, child, reason);
    mark_bad(r, child, reason);
    uint32_t in =
        round_count_member(r, MEMBER_IN) + round_count_member(r, MEMBER_DROPPED);
    if (in < round_needed(r)) {
        round_fail_quorum(r, "updates", in, 0, round_needed(r));
    } else {
        round_aggregate(r);
    }
}

void round_on_bad_update(struct tiered_round *r, const struct tiered_round_event *event)
{
    const struct round_child *c = &r->children[event->child];
    const struct tiered_path *path = &event->path;
    const char *reason = event->reason ? event->reason : "its update is bad";
    bool stored = c->member == MEMBER_IN || c->member == MEMBER_DROPPED;
    if (r->state == ROUND_STOPPED) {
        return;
    }
    if (r->initial_wanted && event->child == r->config.initial_child &&
        tiered_path_equal(path, &r->initial_path)) {
        round_settle(r, event->child, path, false, "%s", reason);
        round_no_initial(r, event->reason ? event->reason : "it is bad");
        return;
    }
    if (round_is_open(r) && stored) {
        if (r->state == ROUND_AGGREGATING && event->update == c->update) {
            bad_in_aggregation(r, event->child, reason);
        }
        return; /* otherwise another copy of what is stored in order */
    }
    bool counted = path->depth && tiered_path_equal(path, &c->counted_path);
    round_settle(r, event->child, path, counted, "%s", counted ? "" : reason);
    if (is_collecting(r) && c->member == MEMBER_WAITED &&
        tiered_path_equal(path, &r->path)) {
        mark_bad(r, event->child, reason);
        check(r);
    }
}
