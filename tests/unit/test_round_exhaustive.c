/* SPDX-License-Identifier: Apache-2.0 */
/* All interleavings of small rounds: whatever two or three children, the driver and the
   parent do next, as deep as is affordable, states seen before left out. In every state
   the rules must hold, and from every state a fair world must come to an end. */
#include "round_clone.h"

#define MOST_CHILDREN 3
#define HANDLES       4 /* of one child at once: stored, kept, and their copies */
#define SEEN          (1u << 22)

/* What the machine's world knows; copied with each branch. */
struct world {
    struct tiered_round *machine;
    bool receiving[MOST_CHILDREN]; /* RECEIVE was said: bytes are on their way */
    struct tiered_path receiving_path[MOST_CHILDREN];
    struct tiered_digest receiving_base[MOST_CHILDREN];
    uint32_t live;    /* handles that are stored, as bits */
    uint32_t folding; /* … that AGGREGATE named */
    uint64_t counted; /* (child, path) that durable records hold, as bits */
    uint32_t
        ordered; /* the newest turn that the parent ordered and we did not forget */
    bool aggregating, committing, has_record;
    struct tiered_round_record record;
    struct tiered_counted contributions[MOST_CHILDREN];
    uint32_t crashes, deaths, newer, evaluations, losses; /* that may still happen */
};

static struct tiered_round_config config;
static uint64_t *seen;
static uint64_t n_states, n_events, n_completions;
static struct world worlds[64]; /* one a depth */

static struct tiered_digest model(char letter)
{
    struct tiered_digest digest = {{0}};
    digest.bytes[0] = (uint8_t)letter;
    return digest;
}

static uint64_t fingerprint(const struct world *w)
{
    uint64_t h = 1;
    for (uint32_t i = 0; i < config.n_children; i++) {
        mix(&h, w->receiving[i]);
        if (w->receiving[i]) {
            mix_path(&h, &w->receiving_path[i]);
        }
    }
    mix_machine(&h, w->machine);
    mix(&h, w->live);
    mix(&h, w->counted);
    mix(&h, w->ordered);
    mix(&h, w->aggregating * 4u + w->committing * 2u + w->has_record);
    mix(&h, w->crashes + 8 * (w->deaths +
                              8 * (w->newer + 8 * (w->evaluations + 8 * w->losses))));
    if (w->has_record) {
        mix_path(&h, &w->record.turn);
        mix(&h, w->record.round);
    }
    return h;
}

static uint32_t handle_bit(uint64_t handle)
{
    return 1u << (handle - 1);
}

/* Paths are turn.round, both at most 3. */
static uint64_t contribution_bit(uint32_t child, const struct tiered_path *path)
{
    assert_int_equal(path->depth, 2);
    return 1ull << (child * 16 + path->n[0] * 4 + path->n[1]);
}

static void durable(struct world *w)
{
    struct tiered_round *r = w->machine;
    w->has_record = true;
    w->record = r->record;
    memcpy(w->contributions, r->record.contributions,
           r->record.n_contributions * sizeof(*w->contributions));
    w->record.contributions = w->contributions;
    for (uint32_t i = 0; i < r->record.n_contributions; i++) {
        const struct tiered_counted *c = &r->record.contributions[i];
        uint64_t bit = contribution_bit(c->child, &r->children[c->child].update_path);
        assert_true(w->folding & handle_bit(c->update));
        assert_false(w->counted & bit); /* once */
        w->counted |= bit;
        w->live &= ~handle_bit(c->update);
    }
}

static void on_aggregate(struct world *w, const struct tiered_round_action *a)
{
    w->aggregating = true;
    w->folding = 0;
    assert_true(a->n_updates >= round_needed(w->machine));
    for (uint32_t i = 0; i < a->n_updates; i++) {
        assert_true(i == 0 || a->updates[i - 1].child < a->updates[i].child);
        assert_true(w->live & handle_bit(a->updates[i].update));
        w->folding |= handle_bit(a->updates[i].update);
    }
}

static const char *alive_name(void *user, uint32_t child)
{
    const struct world *w = user;
    assert_int_not_equal(w->machine->children[child].link, LINK_GONE);
    return "x";
}

static void check_state(struct world *w)
{
    const struct tiered_round *r = w->machine;
    char why[256];
    uint32_t children = 0, stored = 0;
    tiered_round_why(r, alive_name, w, why, sizeof(why));
    assert_true((!r->path.depth && !r->evaluation.active) || why[0]);
    for (int m = 0; m < N_MEMBERSHIPS; m++) {
        for (int l = 0; l < N_LINKS; l++) {
            children += r->count[m][l][0] + r->count[m][l][1];
        }
    }
    assert_int_equal(children, config.n_children);
    for (uint32_t i = 0; i < config.n_children; i++) {
        const struct round_child *c = &r->children[i];
        if ((c->member == MEMBER_IN || c->member == MEMBER_DROPPED) &&
            !(w->committing && r->no_result) && r->state != ROUND_STOPPED) {
            stored |= handle_bit(c->update);
        }
        stored |= c->kept ? handle_bit(c->kept->update) : 0;
    }
    assert_int_equal(stored, w->live); /* none is forgotten, none is used after it */
}

static void feed(struct world *w, struct tiered_round_event event)
{
    const struct tiered_round_action *actions;
    uint32_t answers = 0, counted = 0;
    size_t n;
    event.generation = config.generation;
    assert_int_equal(tiered_round_step(w->machine, &event, &actions, &n, NULL), 0);
    n_events++;
    for (size_t i = 0; i < n; i++) {
        const struct tiered_round_action *a = &actions[i];
        switch (a->kind) {
        case TIERED_DO_RECEIVE:
            w->receiving[a->child] = true;
            w->receiving_path[a->child] = a->path;
            w->receiving_base[a->child] = event.base;
            /* fall through */
        case TIERED_DO_ACCEPT:
        case TIERED_DO_REFUSE:
        case TIERED_DO_SETTLE:
            answers += a->child == event.child;
            counted += a->kind == TIERED_DO_SETTLE && a->counted;
            break;
        case TIERED_DO_DROP_UPDATE:
            assert_true(w->live & handle_bit(a->update));
            w->live &= ~handle_bit(a->update);
            break;
        case TIERED_DO_AGGREGATE:
            on_aggregate(w, a);
            break;
        case TIERED_DO_COMMIT:
            w->committing = true;
            break;
        case TIERED_DO_ORDER:
        case TIERED_DO_PHASE:
        case TIERED_DO_ORDER_EVALUATE:
            assert_int_equal(w->machine->children[a->child].link, LINK_READY);
            break;
        case TIERED_DO_FAIL:
            assert_true(a->reason[0]);
            break;
        default:
            break;
        }
    }
    assert_true(event.kind != TIERED_ON_OFFER || answers == 1);
    assert_true(event.kind != TIERED_ON_COMMITTED ||
                counted == w->record.n_contributions);
    check_state(w);
}

static void feed_kind(struct world *w, enum tiered_round_event_kind kind,
                      uint32_t child)
{
    feed(w, (struct tiered_round_event){.kind = kind, .child = child});
}

static void feed_order(struct world *w, enum tiered_round_event_kind kind,
                       uint32_t turn, char base)
{
    feed(w, (struct tiered_round_event){
                .kind = kind, .path = {1, {turn}}, .base = model(base)});
}

static void start(struct world *w, uint32_t turn)
{
    w->ordered = turn > w->ordered ? turn : w->ordered;
    feed_order(w, TIERED_ON_START, turn, 'A');
}

static void offer(struct world *w, uint32_t child, const struct tiered_path *path,
                  struct tiered_digest base)
{
    feed(w, (struct tiered_round_event){
                .kind = TIERED_ON_OFFER, .child = child, .path = *path, .base = base});
}

static void upload(struct world *w, uint32_t child, bool is_bad)
{
    struct tiered_round_event event = {.kind = TIERED_ON_BAD_UPDATE,
                                       .child = child,
                                       .path = w->receiving_path[child],
                                       .num_examples = child + 1};
    w->receiving[child] = false;
    if (!is_bad) {
        uint32_t k = 0;
        while (w->live & handle_bit(1 + child * HANDLES + k)) {
            k++;
        }
        assert_true(k < HANDLES);
        event.kind = TIERED_ON_UPDATE;
        event.update = 1 + child * HANDLES + k;
        event.base = w->receiving_base[child];
        w->live |= handle_bit(event.update);
    }
    feed(w, event);
}

static void aggregated(struct world *w, bool result)
{
    w->aggregating = false;
    feed(w, (struct tiered_round_event){
                .kind = result ? TIERED_ON_AGGREGATED : TIERED_ON_NOT_AGGREGATED,
                .base = model((char)('B' + w->machine->record.total_rounds))});
}

/* The first of the folded updates cannot be used. */
static void unusable(struct world *w)
{
    uint32_t child = 0;
    while (!(w->machine->children[child].member == MEMBER_IN ||
             w->machine->children[child].member == MEMBER_DROPPED)) {
        child++;
    }
    const struct round_child *c = &w->machine->children[child];
    w->aggregating = false;
    feed(w, (struct tiered_round_event){.kind = TIERED_ON_BAD_UPDATE,
                                        .child = child,
                                        .path = c->update_path,
                                        .update = c->update});
}

static void committed(struct world *w)
{
    durable(w);
    w->committing = false;
    feed_kind(w, TIERED_ON_COMMITTED, 0);
}

static void fire(struct world *w, int timer)
{
    feed(w, (struct tiered_round_event){.kind = TIERED_ON_TIMER,
                                        .timer = (enum tiered_round_timer)timer,
                                        .timer_id = w->machine->timers[timer].id});
}

static void answer(struct world *w, uint32_t child)
{
    feed(w, (struct tiered_round_event){.kind = TIERED_ON_EVALUATION,
                                        .child = child,
                                        .path = w->machine->evaluation.path,
                                        .base = w->machine->evaluation.base,
                                        .num_examples = 1});
}

static void send_message(struct world *w, uint32_t child)
{
    feed(w, (struct tiered_round_event){.kind = TIERED_ON_PHASE,
                                        .child = child,
                                        .path = w->machine->path,
                                        .phase = w->machine->state == ROUND_PRE ? 1 : 2,
                                        .step = w->machine->step});
}

static void crash(struct world *w)
{
    struct tiered_round *fresh = NULL;
    if (w->committing && w->crashes == 2) {
        durable(w); /* it died between the record and the word of it */
    }
    assert_int_equal(tiered_round_create(&config, &fresh, NULL), 0);
    if (w->has_record) {
        assert_int_equal(tiered_round_restore(fresh, &w->record, NULL), 0);
    }
    tiered_round_destroy(w->machine);
    w->machine = fresh;
    w->live = w->folding = w->ordered = 0;
    w->aggregating = w->committing = false;
    memset(w->receiving, 0, sizeof(w->receiving));
    w->crashes--;
}

/* What can happen to one child next: `what` counts the choices. False: not now. */
static bool happen_to_child(struct world *w, uint32_t child, uint32_t what)
{
    struct tiered_round *r = w->machine;
    const struct round_child *c = &r->children[child];
    struct tiered_path next;
    switch (what) {
    case 0:
        return c->link != LINK_READY &&
               (feed_kind(w, TIERED_ON_CHILD_READY, child), true);
    case 1:
        return c->link == LINK_READY && w->losses &&
               (w->losses--, w->receiving[child] = false,
                feed_kind(w, TIERED_ON_CHILD_LOST, child), true);
    case 2:
        return c->link != LINK_GONE && w->deaths &&
               (w->deaths--, w->receiving[child] = false,
                feed_kind(w, TIERED_ON_CHILD_GONE, child), true);
    case 3: /* to the open round, or one that will be opened */
        next = r->path;
        if (!next.depth &&
            (!r->have_turn ||
             !tiered_path_child(&r->record.turn, r->record.round + 1, &next))) {
            return false;
        }
        return !w->receiving[child] && (offer(w, child, &next, r->record.model), true);
    case 4: /* to the last round: an old copy, or late */
        return r->last_path.depth && !w->receiving[child] &&
               (offer(w, child, &r->last_path, model('A')), true);
    case 5:
        return w->receiving[child] && (upload(w, child, false), true);
    case 6:
        return w->receiving[child] && (upload(w, child, true), true);
    case 7:
        return r->evaluation.active && !c->answered && (answer(w, child), true);
    case 8:
        return round_in_phase(r, child) && !c->answered &&
               (send_message(w, child), true);
    default:
        return false;
    }
}

#define CHILD_CHOICES 9
#define NODE_CHOICES  11

static bool happen_to_node(struct world *w, uint32_t what)
{
    struct tiered_round *r = w->machine;
    switch (what) {
    case 0:
        return (start(w, 1), true);
    case 1:
        return w->newer && (w->newer--, start(w, 2), true);
    case 2:
        return w->evaluations &&
               (w->evaluations--, feed_order(w, TIERED_ON_EVALUATE, 1, 'E'), true);
    case 3:
        return w->aggregating && (aggregated(w, true), true);
    case 4:
        return w->aggregating && (aggregated(w, false), true);
    case 5:
        return w->committing && (committed(w), true);
    case 6:
        return w->crashes && (crash(w), true);
    case 7:
    case 8:
    case 9:
        return r->timers[what - 6].armed && (fire(w, (int)what - 6), true);
    case 10:
        return w->aggregating && (unusable(w), true);
    default:
        return false;
    }
}

/* One more step of a world in which all that is asked for comes. */
static bool fair_step(struct world *w)
{
    struct tiered_round *r = w->machine;
    if (w->aggregating) {
        aggregated(w, true);
        return true;
    }
    if (w->committing) {
        committed(w);
        return true;
    }
    for (uint32_t i = 0; i < config.n_children; i++) {
        const struct round_child *c = &r->children[i];
        if (c->link == LINK_LOST) {
            feed_kind(w, TIERED_ON_CHILD_READY, i);
        } else if (c->link == LINK_GONE) {
            continue;
        } else if (w->receiving[i]) {
            upload(w, i, false);
        } else if (r->state == ROUND_COLLECTING && c->member == MEMBER_WAITED) {
            offer(w, i, &r->path, r->record.model);
        } else if (r->evaluation.active && !c->answered) {
            answer(w, i);
        } else if (round_in_phase(r, i) && !c->answered) {
            send_message(w, i);
        } else {
            continue;
        }
        return true;
    }
    for (int i = TIERED_TIMER_PHASE; i >= TIERED_TIMER_HALF; i--) {
        if (r->timers[i].armed) {
            fire(w, i);
            return true;
        }
    }
    if (r->state == ROUND_IDLE) {
        start(w, r->have_turn ? r->record.turn.n[0] : 1);
        return true;
    }
    return false;
}

static void copy_world(struct world *to, const struct world *from)
{
    *to = *from;
    to->machine = NULL;
    to->record.contributions = to->contributions;
    clone_machine(from->machine, &to->machine);
}

/* From here a fair world ends in a delivery, or in a failure that says why. */
static void complete(const struct world *from)
{
    struct world w;
    copy_world(&w, from);
    uint32_t steps = 0;
    while (fair_step(&w)) {
        steps++;
        assert_true(steps < 100);
    }
    assert_true(w.machine->state == ROUND_DELIVERING ||
                (w.machine->state == ROUND_FAILED && w.machine->failure[0]));
    assert_true(w.machine->state != ROUND_FAILED ||
                strstr(w.machine->failure, "gone") ||
                strstr(w.machine->failure, "bad: ") || config.pre.steps);
    assert_true(w.machine->record.turn.n[0] >= w.ordered);
    tiered_round_destroy(w.machine);
    n_completions++;
}

/* Whether this state was seen with as many steps left, or is now. */
static bool seen_before(uint64_t h, uint32_t left)
{
    uint64_t mask = 0xffffffffffffffc0u, key = (h & mask) | left;
    for (uint32_t i = (uint32_t)(h >> 40);; i++) {
        uint64_t *slot = &seen[i % SEEN];
        if (*slot == 0) {
            assert_true(++n_states < SEEN / 2);
            *slot = key;
            return false;
        }
        if ((*slot & mask) == (key & mask)) {
            bool enough = (*slot & ~mask) >= left;
            *slot = enough ? *slot : key;
            return enough;
        }
    }
}

static void explore(uint32_t depth, uint32_t left)
{
    struct world *here = &worlds[depth], *next = &worlds[depth + 1];
    uint64_t before = n_states;
    if (seen_before(fingerprint(here), left)) {
        return;
    }
    if (n_states > before) {
        complete(here);
    }
    if (left == 0) {
        return;
    }
    uint32_t choices = NODE_CHOICES + CHILD_CHOICES * config.n_children;
    for (uint32_t i = 0; i < choices; i++) {
        copy_world(next, here);
        uint32_t k = i - NODE_CHOICES;
        bool happened = i < NODE_CHOICES ? happen_to_node(next, i)
                                         : happen_to_child(next, k / CHILD_CHOICES,
                                                           k % CHILD_CHOICES);
        if (happened) {
            explore(depth + 1, left - 1);
        }
        tiered_round_destroy(next->machine);
        next->machine = NULL;
    }
}

static void run(const char *name, struct world limits, uint32_t depth)
{
#ifdef TIERED_SANITIZED
    depth -= 5;
#endif
    n_states = n_events = n_completions = 0;
    seen = calloc(SEEN, sizeof(*seen));
    assert_non_null(seen);
    worlds[0] = limits;
    assert_int_equal(tiered_round_create(&config, &worlds[0].machine, NULL), 0);
    explore(0, depth);
    tiered_round_destroy(worlds[0].machine);
    free(seen);
    print_message("%s, %u deep: %llu states, %llu events\n", name, depth,
                  (unsigned long long)n_states, (unsigned long long)n_events);
}

static struct tiered_round_config small(uint32_t n_children, double quorum)
{
    return (struct tiered_round_config){.node = "n",
                                        .n_children = n_children,
                                        .rounds_per_parent = 2,
                                        .sample = 1,
                                        .quorum = quorum,
                                        .generation = 1};
}

static void test_two_children(void **state)
{
    (void)state;
    config = small(2, 1);
    run("two children", (struct world){.crashes = 2, .losses = 2, .newer = 1}, 20);
}

static void test_two_with_deadline(void **state)
{
    (void)state;
    config = small(2, 0.5);
    config.deadline_ms = 10;
    config.keep_late = true;
    run("deadline", (struct world){.crashes = 1, .losses = 1, .deaths = 1}, 16);
}

static void test_evaluations(void **state)
{
    (void)state;
    config = small(2, 1);
    config.evaluate_every = 1;
    run("evaluation",
        (struct world){.crashes = 1, .losses = 1, .newer = 1, .evaluations = 1}, 16);
}

static void test_phases(void **state)
{
    (void)state;
    config = small(2, 0.5);
    config.pre = config.post = (struct tiered_phase_rules){1, 0.5, 10};
    run("phases", (struct world){.losses = 1, .deaths = 1, .newer = 1}, 16);
}

static void test_three_children(void **state)
{
    (void)state;
    config = small(3, 0.6);
    run("three children", (struct world){.losses = 1, .deaths = 2, .newer = 1}, 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_children),   cmocka_unit_test(test_two_with_deadline),
        cmocka_unit_test(test_evaluations),    cmocka_unit_test(test_phases),
        cmocka_unit_test(test_three_children),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
