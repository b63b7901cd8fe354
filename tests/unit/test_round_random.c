/* SPDX-License-Identifier: Apache-2.0 */
/* Random schedules of simulated trees: links that cut, delay and repeat, nodes that
   crash, die and send nonsense. Every schedule must end, and end right.
   TIERED_SIM_SEED=N runs schedule N alone and tells its story;
   TIERED_SIM_SCHEDULES=N how many are run (from that seed on). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "round_sim_frames.h"

#ifdef TIERED_SANITIZED
#define SCHEDULES 10000
#else
#define SCHEDULES 100000
#endif

/* A schedule that is not done by then waits for something that will not come. */
#define END_OF_TIME 200000

static struct sim_world world;

static const struct sim_model start_model = {1000, 7};

static double one_of(struct sim_world *w, const double *values, uint32_t n)
{
    return values[sim_below(w, n)];
}

static void configure_phase(struct sim_world *w, struct tiered_phase_rules *rules)
{
    if (sim_below(w, 10) == 0) {
        rules->steps = 1 + (uint32_t)sim_below(w, 2);
        rules->quorum = one_of(w, (double[]){1, 1, 0.5}, 3);
        rules->deadline_ms = sim_below(w, 3) ? 0 : 20 + sim_below(w, 200);
    }
}

static void configure(struct sim_world *w, uint32_t id, uint64_t seed)
{
    static const char *const names[SIM_NODES] = {"n0", "n1", "n2", "n3", "n4",  "n5",
                                                 "n6", "n7", "n8", "n9", "n10", "n11"};
    struct sim_node *node = &w->nodes[id];
    node->config = (struct tiered_round_config){
        .node = names[id],
        .n_children = node->n_children,
        .rounds_per_parent = 1 + (uint32_t)sim_below(w, id ? 3 : 5),
        .sample = one_of(w, (double[]){1, 1, 0.5}, 3),
        .poisson = sim_below(w, 4) == 0,
        .quorum = one_of(w, (double[]){1, 1, 0.75, 0.5}, 4),
        .deadline_ms = sim_below(w, 3) ? 0 : 20 + sim_below(w, 300),
        .keep_late = sim_below(w, 2),
        .seed = seed,
        .generation = 3,
    };
    configure_phase(w, &node->config.pre);
    configure_phase(w, &node->config.post);
    if (id == 0) {
        node->config.evaluate_every = (uint32_t)sim_below(w, 3);
    }
    if (node->config.evaluate_every && sim_below(w, 2)) {
        memcpy(node->config.stop_metric, "accuracy", 9);
        node->config.stop_at = 0.6;
        node->config.stop_sign = 1;
    }
}

static uint32_t add_node(struct sim_world *w, uint32_t parent)
{
    uint32_t id = w->n_nodes++;
    struct sim_node *node = &w->nodes[id];
    node->leaf = true;
    node->parent = parent;
    node->weight = 1 + sim_below(w, 5);
    if (sim_below(w, 8) == 0) {
        node->weight = 0; /* a leaf whose data is empty */
    }
    if (id != parent) {
        struct sim_node *above = &w->nodes[parent];
        above->leaf = false;
        node->index = above->n_children;
        above->children[above->n_children++] = id;
    }
    return id;
}

/* One to three tiers of inner nodes, at most SIM_NODES nodes. */
static void plant(struct sim_world *w)
{
    uint32_t root = add_node(w, 0), shape = (uint32_t)sim_below(w, 10);
    if (shape < 5) {
        for (uint64_t n = 1 + sim_below(w, 4); n > 0; n--) {
            add_node(w, root);
        }
        return;
    }
    for (uint64_t n = 1 + sim_below(w, 3); n > 0; n--) {
        uint32_t mid = add_node(w, root);
        if (shape == 9) {
            mid = add_node(w, mid);
        }
        for (uint64_t k = 1 + sim_below(w, shape == 9 ? 1 : 2); k > 0; k--) {
            add_node(w, mid);
        }
    }
}

static void sow_chaos(struct sim_world *w)
{
    struct sim_chaos *chaos = &w->chaos;
    chaos->until = 1500;
    chaos->repeats = (uint32_t)sim_below(w, 20);
    chaos->fences = (uint32_t)sim_below(w, 3);
    chaos->cuts = (uint32_t)sim_below(w, 10);
    chaos->crashes = (uint32_t)sim_below(w, 10);
    chaos->deaths = sim_below(w, 3) ? 0 : 1;
    chaos->bad_updates = sim_below(w, 3) ? 0 : (uint32_t)sim_below(w, 3);
    for (uint32_t i = chaos->cuts + chaos->crashes + chaos->deaths; i > 0; i--) {
        /* most of it while there is something to break */
        uint64_t at = sim_below(w, sim_below(w, 3) ? 600 : chaos->until);
        sim_push(w, (struct sim_event){.time = at, .kind = SIM_CHAOS});
    }
}

static void seed_rng(struct sim_world *w, uint64_t seed, uint64_t purpose)
{
    for (uint64_t i = 0; i < 4; i++) {
        w->rng.s[i] = sim_mix(sim_mix(seed, purpose), i);
    }
}

static void create_world(struct sim_world *w, uint64_t seed, bool calm)
{
    memset(w, 0, offsetof(struct sim_world, heap));
    memset(&w->n_heap, 0, sizeof(*w) - offsetof(struct sim_world, n_heap));
    seed_rng(w, seed, 0);
    plant(w);
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        if (!w->nodes[i].leaf) {
            configure(w, i, seed);
        }
    }
    bool strict = sim_below(w, 4) == 0;
    for (uint32_t i = 0; strict && i < w->n_nodes; i++) {
        struct tiered_round_config *config = &w->nodes[i].config;
        config->quorum = config->pre.quorum = config->post.quorum = 1;
        config->deadline_ms = 0;
    }
    seed_rng(w, seed, calm ? 1 : 2);
    if (!calm) {
        sow_chaos(w);
    }
    if (strict) {
        w->chaos.deaths = w->chaos.bad_updates = 0;
    }
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        sim_boot(w, i);
        if (i) {
            sim_push(w, (struct sim_event){
                            .time = sim_below(w, 100), .kind = SIM_LINK_UP, .node = i});
        }
    }
}

static void destroy_world(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        tiered_round_destroy(w->nodes[i].machine);
        w->nodes[i].machine = NULL;
    }
}

static void make_chaos(struct sim_world *w)
{
    struct sim_chaos *chaos = &w->chaos;
    uint32_t id = (uint32_t)sim_below(w, w->n_nodes);
    uint32_t total = chaos->cuts + chaos->crashes + chaos->deaths;
    uint64_t choice = total ? sim_below(w, total) : 0;
    if (!total) {
        return;
    }
    if (choice < chaos->cuts) {
        chaos->cuts--;
        if (id && !w->nodes[id].dead) {
            sim_cut(w, id, 1 + sim_below(w, 200));
        }
    } else if (choice < chaos->cuts + chaos->crashes) {
        chaos->crashes--;
        if (w->nodes[id].up) {
            sim_crash(w, id, false);
        }
    } else if (id) {
        chaos->deaths--;
        w->nodes[id].given_up = true;
        sim_crash(w, id, true);
        sim_push(w, (struct sim_event){.time = w->now + 50 + sim_below(w, 300),
                                       .kind = SIM_GONE,
                                       .node = id});
    }
}

static void on_gone(struct sim_world *w, uint32_t id)
{
    struct sim_node *node = &w->nodes[id], *parent = &w->nodes[node->parent];
    if (parent->machine) {
        parent->heard_gone[node->index] = true;
        sim_feed(w, node->parent,
                 (struct tiered_round_event){.kind = TIERED_ON_CHILD_GONE,
                                             .child = node->index});
    }
}

static bool is_void(const struct sim_world *w, const struct sim_event *e)
{
    const struct sim_node *node = &w->nodes[e->node];
    switch (e->kind) {
    case SIM_LINK_UP:
    case SIM_VERDICT:
    case SIM_UPLOADED:
        return e->epoch != node->link;
    case SIM_DOWN:
        return e->repeated && e->action != TIERED_DO_ORDER ? !node->up
                                                           : e->epoch != node->link;
    case SIM_UP:
        return e->repeated ? !w->nodes[node->parent].up : e->epoch != node->link;
    case SIM_GONE:
    case SIM_CHAOS:
        return false;
    default:
        return e->epoch != node->process;
    }
}

static void dispatch(struct sim_world *w, const struct sim_event *e)
{
    struct tiered_round_event event = {0};
    if (is_void(w, e)) {
        return;
    }
    switch (e->kind) {
    case SIM_LINK_UP:
        return sim_link_up(w, e->node);
    case SIM_DOWN:
        return sim_on_down(w, e);
    case SIM_VERDICT:
        return sim_on_verdict(w, e);
    case SIM_UP:
        return sim_on_up(w, e);
    case SIM_UPLOADED:
        return sim_on_uploaded(w, e);
    case SIM_TRAINED:
        return sim_on_trained(w, e);
    case SIM_AGGREGATED:
        return sim_on_aggregated(w, e);
    case SIM_DURABLE:
        return sim_durable(w, e->node);
    case SIM_RESTART:
        return sim_boot(w, e->node);
    case SIM_GONE:
        return on_gone(w, e->node);
    case SIM_CHAOS:
        return make_chaos(w);
    case SIM_COMMITTED:
        event.kind = TIERED_ON_COMMITTED;
        return sim_feed(w, e->node, event);
    case SIM_TIMER:
        event.kind = TIERED_ON_TIMER;
        event.timer = e->timer;
        event.timer_id = e->timer_id;
        return sim_feed(w, e->node, event);
    case SIM_START:
        event.kind = TIERED_ON_START;
        event.base = sim_digest(start_model);
        return sim_feed(w, e->node, event);
    }
}

static void check_end(struct sim_world *w)
{
    const struct sim_node *root = &w->nodes[0];
    SIM_CHECK(w, w->done || w->failed, "never ends: the root is %s",
              tiered_round_state(root->machine));
    if (!w->done) {
        return;
    }
    uint64_t examples, logged;
    struct tiered_path top = {0};
    struct tiered_digest expected =
        sim_reference(w, 0, &top, sim_digest(start_model), &examples);
    SIM_CHECK(w, tiered_digest_equal(&expected, &w->model),
              "the model is not what the log says");
    SIM_CHECK(w, examples == w->num_examples, "%llu examples, and %llu in the log",
              (unsigned long long)w->num_examples, (unsigned long long)examples);
    uint32_t rounds = sim_turn(w, 0, &top, &logged);
    SIM_CHECK(w,
              rounds == root->config.rounds_per_parent || root->config.stop_metric[0],
              "delivers after %u rounds", rounds);
}

/* Nothing is broken for good, and no phase may go on without somebody whom a later
   quorum needs: then nothing may fail. */
static bool is_survivable(const struct sim_world *w, const struct sim_chaos *sown)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const struct tiered_round_config *config = &w->nodes[i].config;
        bool phased = config->pre.steps || config->post.steps;
        if (!w->nodes[i].leaf && phased &&
            (config->quorum < 1 || (config->pre.steps && config->pre.quorum < 1) ||
             (config->post.steps && config->post.quorum < 1))) {
            return false;
        }
    }
    return sown->deaths == 0 && sown->bad_updates == 0;
}

/* Only then does the result not depend on what happened. */
static bool is_strict(const struct sim_world *w)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const struct tiered_round_config *config = &w->nodes[i].config;
        if (!w->nodes[i].leaf && (config->quorum < 1 || config->deadline_ms)) {
            return false;
        }
    }
    return true;
}

static void run(struct sim_world *w, uint64_t seed, bool calm, bool trace)
{
    create_world(w, seed, calm);
    w->trace = trace;
    struct sim_chaos sown = w->chaos;
    while (!w->broken[0] && !w->done && !w->failed && w->n_heap &&
           w->now < END_OF_TIME) {
        struct sim_event event = sim_pop(w);
        w->now = event.time;
        dispatch(w, &event);
    }
    if (!w->broken[0]) {
        check_end(w);
        SIM_CHECK(w, !w->failed || !is_survivable(w, &sown),
                  "fails although nobody is gone and nothing is bad: %s", w->reason);
    }
    destroy_world(w);
    w->chaos = sown;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static struct {
    uint64_t steps, done, failed, compared, rounds;
} totals;

static void run_schedule(uint64_t seed, bool trace)
{
    run(&world, seed, false, trace);
    totals.steps += world.n_steps;
    totals.done += world.done;
    totals.failed += world.failed;
    totals.rounds += world.n_log;
    if (!world.broken[0] && is_strict(&world) && is_survivable(&world, &world.chaos)) {
        struct tiered_digest wild = world.model;
        run(&world, seed, true, trace);
        SIM_CHECK(&world, tiered_digest_equal(&wild, &world.model),
                  "crashes and cuts change the model");
        totals.compared++;
    }
    if (world.broken[0]) {
        print_error("schedule TIERED_SIM_SEED=%llu: %s\n", (unsigned long long)seed,
                    world.broken);
        fail();
    }
}

static void test_schedules(void **state)
{
    (void)state;
    bool one = getenv("TIERED_SIM_SEED") && !getenv("TIERED_SIM_SCHEDULES");
    uint64_t first = number_from("TIERED_SIM_SEED", 1);
    uint64_t n = number_from("TIERED_SIM_SCHEDULES", one ? 1 : SCHEDULES);
    for (uint64_t i = 0; i < n; i++) {
        run_schedule(first + i, one);
    }
    print_message("%llu schedules, %llu steps, %llu rounds: %llu done, %llu failed, "
                  "%llu compared with a calm run\n",
                  (unsigned long long)n, (unsigned long long)totals.steps,
                  (unsigned long long)totals.rounds, (unsigned long long)totals.done,
                  (unsigned long long)totals.failed,
                  (unsigned long long)totals.compared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
