/* SPDX-License-Identifier: Apache-2.0 */
/* The round machine under any sequence of events, likely or not. Input: six bytes of
   rules, then four bytes an event: kind (0: a crash and a restart from the last
   record), child, path and model, numbers. Some checks are of what the machine owes its
   driver: an answer to each offer, each update's end told once, a reason to wait. */
#include <math.h>

#include "core/round/round.h"
#include "fuzz.h"

#define MOST_CHILDREN 6u
#define MOST_EVENTS   400u
#define N_KINDS       (TIERED_ON_PHASE_FAILED + 1)

static const double shares[] = {1, 0.75, 0.5, 0.34};

struct machine {
    struct tiered_round_config config;
    struct tiered_round *round;
    bool live[MOST_EVENTS + 1]; /* by handle: the machine has not said what became */
    uint64_t n_updates;         /* handles given so far */
    uint64_t timers[TIERED_TIMER_PHASE + 1];
    struct tiered_path turn, said; /* the newest order's; the last action's */
    struct tiered_digest base;     /* of the last action */
    bool committing, has_record;
    struct tiered_round_record pending, record;
    struct tiered_counted pending_counted[MOST_CHILDREN], counted[MOST_CHILDREN];
};

static void configure_phase(struct tiered_phase_rules *rules, unsigned choice)
{
    rules->steps = (choice & 3) % 3;
    rules->quorum = shares[choice >> 2 & 3];
    rules->deadline_ms = choice & 16 ? 100 : 0;
}

static void configure(struct tiered_round_config *config, struct fuzz_input *in)
{
    unsigned size = fuzz_byte(in), rules = fuzz_byte(in), more = fuzz_byte(in);
    *config = (struct tiered_round_config){
        .node = "fog-0",
        .n_children = 1 + size % MOST_CHILDREN,
        .rounds_per_parent = 1 + (size >> 4 & 3),
        .sample = shares[rules & 3],
        .quorum = shares[rules >> 2 & 3],
        .deadline_ms = rules & 16 ? 100 : 0,
        .keep_late = rules & 32,
        .poisson = rules & 64,
        .evaluate_every = (more & 3) % 3,
        .seed = 7,
        .generation = 2,
        .initial_child = (more >> 4) % (1 + size % MOST_CHILDREN),
    };
    configure_phase(&config->pre, fuzz_byte(in));
    configure_phase(&config->post, fuzz_byte(in));
    if (fuzz_byte(in) & 1) {
        strcpy(config->stop_metric, "m");
        config->stop_at = 0.5;
        config->stop_sign = 1;
    }
}

static void begin(struct machine *m)
{
    struct tiered_error err = {0};
    tiered_round_destroy(m->round);
    m->round = NULL;
    memset(m->live, 0, sizeof(m->live)); /* gone with the process */
    m->committing = false;
    FUZZ_CHECK(tiered_round_create(&m->config, &m->round, &err) == 0, "%s", err.text);
    if (m->has_record) {
        FUZZ_CHECK(tiered_round_restore(m->round, &m->record, &err) == 0, "%s",
                   err.text);
    }
}

static struct tiered_path pick_path(struct machine *m, unsigned choice)
{
    struct tiered_path path = tiered_round_open_path(m->round);
    uint32_t *last = path.depth ? &path.n[path.depth - 1] : NULL;
    switch (choice & 7) {
    case 0:
        return path;
    case 1:
        return m->turn;
    case 2: /* a newer turn */
        m->turn.depth = 1;
        m->turn.n[0]++;
        return m->turn;
    case 3:
        return (struct tiered_path){0};
    case 4:
        if (last && *last > 1) {
            --*last;
        }
        return path;
    case 5:
        if (last) {
            ++*last;
        }
        return path;
    case 6:
        path = (struct tiered_path){.depth = TIERED_MAX_DEPTH};
        for (uint32_t i = 0; i < TIERED_MAX_DEPTH; i++) {
            path.n[i] = UINT32_MAX;
        }
        return path;
    default:
        return m->said;
    }
}

static struct tiered_digest pick_base(const struct machine *m, unsigned choice)
{
    struct tiered_digest base = {{(uint8_t)(choice & 3)}};
    return choice & 4 ? base : m->base;
}

static void pick_numbers(struct tiered_round_event *event, unsigned choice)
{
    static const uint64_t examples[] = {1, 0, 3, 1ull << 53, UINT64_MAX, 10, 7, 2};
    static const double values[] = {0.25, 0.75, NAN, INFINITY};
    event->num_examples = examples[choice & 7];
    event->metrics.n = choice >> 3 & 1;
    strcpy(event->metrics.items[0].name, "m");
    event->metrics.items[0].value = values[choice >> 4 & 3];
    event->generation = event->kind == TIERED_ON_OFFER ? 2 : 0;
    event->generation += choice >> 6 == 3;
    event->phase = choice & 3;
    event->step = choice >> 2 & 3;
    event->timer = (enum tiered_round_timer)(choice % 3 + 1);
    event->reason = choice & 1 ? "a reason" : NULL;
}

/* The machine tells the end of an update: once, and of one that it was given. */
static void end_update(struct machine *m, uint64_t update)
{
    FUZZ_CHECK(update && update <= m->n_updates && m->live[update],
               "update %llu ends twice", (unsigned long long)update);
    m->live[update] = false;
}

static void check_updates(const struct machine *m, const struct tiered_counted *updates,
                          uint32_t n)
{
    FUZZ_CHECK(n <= m->config.n_children, "%u updates", n);
    for (uint32_t i = 0; i < n; i++) {
        FUZZ_CHECK(updates[i].update <= m->n_updates && m->live[updates[i].update],
                   "update %llu is gone", (unsigned long long)updates[i].update);
        FUZZ_CHECK(i == 0 || updates[i - 1].child < updates[i].child, "out of order");
    }
}

static void keep_record(struct machine *m, const struct tiered_round_record *record)
{
    check_updates(m, record->contributions, record->n_contributions);
    m->committing = true;
    m->pending = *record;
    for (uint32_t i = 0; i < record->n_contributions; i++) {
        m->pending_counted[i] = record->contributions[i];
    }
}

/* The driver has made the record durable, and frees what it counts. */
static void finish_commit(struct machine *m)
{
    for (uint32_t i = 0; i < m->pending.n_contributions; i++) {
        end_update(m, m->pending_counted[i].update);
    }
    m->committing = false;
    m->has_record = true;
    m->record = m->pending;
    memcpy(m->counted, m->pending_counted, sizeof(m->counted));
    m->record.contributions = m->counted;
}

static void carry_out(struct machine *m, const struct tiered_round_action *a)
{
    FUZZ_CHECK(a->child < m->config.n_children, "an action for child %u", a->child);
    FUZZ_CHECK(memchr(a->reason, 0, sizeof(a->reason)), "a reason without an end");
    m->said = a->path.depth ? a->path : m->said;
    switch (a->kind) {
    case TIERED_DO_ORDER:
    case TIERED_DO_ORDER_EVALUATE:
        m->base = a->base;
        break;
    case TIERED_DO_ORDER_INITIAL:
        m->base = (struct tiered_digest){{0}};
        break;
    case TIERED_DO_DROP_UPDATE:
    case TIERED_DO_DELIVER_INITIAL:
        end_update(m, a->update);
        break;
    case TIERED_DO_AGGREGATE:
        FUZZ_CHECK(a->n_updates || m->config.poisson, "an aggregation of nothing");
        check_updates(m, a->updates, a->n_updates);
        break;
    case TIERED_DO_COMMIT:
        keep_record(m, a->record);
        break;
    case TIERED_DO_SET_TIMER:
        m->timers[a->timer] = a->timer_id;
        break;
    default:
        break;
    }
}

static bool is_answer(const struct tiered_round_action *a,
                      const struct tiered_round_event *offer)
{
    return (a->kind == TIERED_DO_RECEIVE || a->kind == TIERED_DO_ACCEPT ||
            a->kind == TIERED_DO_REFUSE || a->kind == TIERED_DO_SETTLE) &&
           a->child == offer->child && tiered_path_equal(&a->path, &offer->path);
}

/* A child has at most one update stored and one kept for later. */
static void check_state(const struct machine *m)
{
    char why[256];
    uint32_t n = 0;
    for (uint64_t i = 1; i <= m->n_updates; i++) {
        n += m->live[i];
    }
    FUZZ_CHECK(n <= 2 * m->config.n_children, "%u updates are not accounted for", n);
    tiered_round_why(m->round, NULL, NULL, why, sizeof(why));
    FUZZ_CHECK(why[0] || !tiered_round_open_path(m->round).depth,
               "%s, and nothing is waited for", tiered_round_state(m->round));
}

static void feed(struct machine *m, const struct tiered_round_event *event)
{
    const struct tiered_round_action *actions;
    struct tiered_error err = {0};
    size_t n, answers = 0;
    if (event->kind == TIERED_ON_COMMITTED && m->committing) {
        finish_commit(m);
    }
    FUZZ_CHECK(tiered_round_step(m->round, event, &actions, &n, &err) == 0, "%s",
               err.text);
    for (size_t i = 0; i < n; i++) {
        carry_out(m, &actions[i]);
        answers += is_answer(&actions[i], event);
    }
    FUZZ_CHECK(event->kind != TIERED_ON_OFFER || answers == 1,
               "an offer has %zu answers", answers);
    check_state(m);
}

static void take_event(struct machine *m, struct fuzz_input *in)
{
    unsigned kind = fuzz_byte(in) % N_KINDS, child = fuzz_byte(in);
    unsigned where = fuzz_byte(in), numbers = fuzz_byte(in);
    if (kind == 0) {
        begin(m);
        return;
    }
    struct tiered_round_event event = {.kind = (enum tiered_round_event_kind)kind,
                                       .child = child % m->config.n_children,
                                       .path = pick_path(m, where),
                                       .base = pick_base(m, where >> 3)};
    pick_numbers(&event, numbers);
    if (kind == TIERED_ON_UPDATE) {
        event.update = ++m->n_updates;
        m->live[event.update] = true;
    } else if (kind == TIERED_ON_BAD_UPDATE && where & 64) {
        event.update = m->n_updates - numbers % 4;
        event.update = event.update > m->n_updates ? 0 : event.update;
    }
    event.timer_id = m->timers[event.timer];
    feed(m, &event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct machine m = {0};
    configure(&m.config, &in);
    begin(&m);
    for (unsigned i = 0; i < MOST_EVENTS && in.size > 0; i++) {
        take_event(&m, &in);
    }
    tiered_round_destroy(m.round);
    return 0;
}
