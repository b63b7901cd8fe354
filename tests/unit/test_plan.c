/* SPDX-License-Identifier: Apache-2.0 */
/* core/plan: names, order, numbers, exceptions, agents, options, a million nodes. */
#include "topology_kit.h"

#include <sys/resource.h>
#include <sys/stat.h>

#define SOFTMAX "trainer: {softmax: {data: d}}"

static void load(const char *text, struct kit_result *r)
{
    kit_write(text, strlen(text));
    kit_load(NULL, 0, r);
    if (!r->plan) {
        TIERED_FREE char *problems = kit_problems(r);
        fail_msg("%s", problems);
    }
}

/* "name name …" of nodes in the order of the plan. */
static void check_names(const struct tiered_plan *plan, uint32_t first, uint32_t n,
                        const char *want)
{
    struct tiered_bytes got = {0};
    for (uint32_t i = first; i < first + n; i++) {
        tiered_bytes_printf(&got, "%s%s", i > first ? " " : "", plan->nodes[i].name);
    }
    assert_string_equal((char *)got.data, want);
    tiered_bytes_finish(&got);
}

static void test_regular(void **state)
{
    (void)state;
    struct kit_result r;
    load("tiered: 1\ntiers:\n"
         "  - {name: cloud, aggregate: fedavg}\n"
         "  - {name: fog, fan_out: 2, aggregate: fedavg}\n"
         "  - {name: edge, fan_out: 11, " SOFTMAX "}\n",
         &r);
    const struct tiered_plan *plan = r.plan;
    assert_int_equal(plan->generation, 1);
    assert_int_equal(plan->n_nodes, 1 + 2 + 22);
    assert_int_equal(plan->n_tiers, 3);
    assert_int_equal(plan->tier_counts[2], 22);
    check_names(plan, 0, 3, "cloud-0 fog-0 fog-1");
    /* As names sort, and not as numbers. */
    check_names(plan, 14, 11,
                "edge-1-0 edge-1-1 edge-1-10 edge-1-2 edge-1-3 edge-1-4 edge-1-5 "
                "edge-1-6 edge-1-7 edge-1-8 edge-1-9");
    const struct tiered_node *fog = &plan->nodes[2];
    assert_int_equal(fog->first_child, 14);
    assert_int_equal(fog->n_children, 11);
    assert_int_equal(fog->parent, 0);
    assert_int_equal(plan->nodes[0].parent, TIERED_NO_NODE);
    assert_int_equal(plan->nodes[16].parent, 2);
    assert_int_equal(plan->nodes[16].tier, 2);
    assert_int_equal(plan->nodes[16].index, 11 + 10); /* edge-1-10 */
    assert_int_equal(plan->nodes[17].index, 11 + 2);  /* edge-1-2 */
    assert_int_equal(plan->nodes[24].n_children, 0);
    kit_finish(&r);
}

static void test_orders(void **state)
{
    (void)state;
    static const unsigned counts[] = {1, 2, 10, 11, 12, 99, 100, 101, 1234};
    for (size_t i = 0; i < TIERED_COUNT(counts); i++) {
        struct kit_result r;
        char text[256];
        snprintf(text, sizeof(text),
                 "tiered: 1\ntiers:\n  - {name: c, aggregate: fedavg}\n"
                 "  - {name: e, fan_out: %u, " SOFTMAX "}\n",
                 counts[i]);
        load(text, &r);
        assert_int_equal(r.plan->n_nodes, counts[i] + 1);
        TIERED_FREE bool *seen = calloc(counts[i], 1);
        for (uint32_t k = 1; k < r.plan->n_nodes; k++) {
            const struct tiered_node *node = &r.plan->nodes[k];
            assert_true(k == 1 || strcmp(node[-1].name, node->name) < 0);
            assert_false(seen[node->index]);
            seen[node->index] = true;
            assert_int_equal(atoi(node->name + 2), node->index);
        }
        kit_finish(&r);
    }
}

static void test_named(void **state)
{
    (void)state;
    struct kit_result r;
    load("tiered: 1\n"
         "tiers:\n"
         "  - {name: cloud, aggregate: fedavg}\n"
         "  - {name: plant, aggregate: fedavg}\n"
         "  - {name: press, " SOFTMAX "}\n"
         "tree: {hq: {plant-b: [z, y], plant-a: [oven], plant-c: {b: , a: }}}\n",
         &r);
    check_names(r.plan, 0, 9, "hq plant-a plant-b plant-c oven y z a b");
    assert_int_equal(r.plan->nodes[2].first_child, 5);
    assert_int_equal(r.plan->nodes[2].n_children, 2);
    assert_int_equal(r.plan->nodes[8].index, 4);
    assert_int_equal(r.plan->tier_counts[2], 5);
    /* The first leaf by name is 'a', below plant-c. */
    assert_int_equal(r.plan->nodes[0].initial_child, 2);
    assert_int_equal(r.plan->nodes[3].initial_child, 0);
    assert_int_equal(tiered_plan_find(r.plan, "oven"), 4);
    assert_int_equal(tiered_plan_find(r.plan, "Oven"), TIERED_NO_NODE);
    kit_finish(&r);
}

static void test_exceptions(void **state)
{
    (void)state;
    struct kit_result r;
    load("tiered: 1\n"
         "tiers:\n"
         "  - {name: cloud, aggregate: fedavg}\n"
         "  - {name: fog, fan_out: 2, aggregate: fedavg, rounds: {quorum: 50%}}\n"
         "  - {name: edge, fan_out: 2, " SOFTMAX "}\n"
         "nodes:\n"
         "  \"*\": {memory: 1MiB}\n"
         "  fog-1: {aggregate: [median], rounds: {deadline: 5s}}\n"
         "  \"edge-1-*\": {memory: 2MiB, host: \"h-{parent}\"}\n"
         "  edge-1-0: {memory: 3MiB}\n",
         &r);
    const struct tiered_node *nodes = r.plan->nodes;
    assert_int_equal(nodes[0].settings->memory_bytes, 1u << 20);
    assert_int_equal(nodes[3].settings->memory_bytes, 1u << 20);
    assert_int_equal(nodes[5].settings->memory_bytes, 3u << 20);
    assert_int_equal(nodes[6].settings->memory_bytes, 2u << 20);
    assert_ptr_equal(nodes[3].settings, nodes[4].settings); /* shared */
    assert_string_equal(nodes[1].settings->aggregate.items[0].loaded->plugin.name,
                        "fedavg");
    assert_string_equal(nodes[2].settings->aggregate.items[0].loaded->plugin.name,
                        "median");
    /* rounds: is laid over key by key. */
    assert_int_equal(nodes[2].settings->rounds.deadline_ms, 5000);
    assert_true(nodes[2].settings->rounds.quorum == 0.5);
    assert_int_equal(nodes[1].settings->rounds.deadline_ms, 0);
    TIERED_FREE char *host = tiered_plan_text(r.plan, 6, nodes[6].settings->host, NULL);
    assert_string_equal(host, "h-fog-1");
    assert_string_equal(r.plan->agents[nodes[6].agent].host, "h-fog-1");
    kit_finish(&r);
}

static void test_agents(void **state)
{
    (void)state;
    struct kit_result r;
    load("tiered: 1\n"
         "tiers:\n"
         "  - {name: cloud, aggregate: fedavg}\n"
         "  - {name: fog, fan_out: 2, aggregate: fedavg}\n"
         "  - {name: edge, fan_out: 2, " SOFTMAX ", agent: \"gw-{parent}\"}\n"
         "nodes: {edge-0-1: {agent: fog-1}}\n",
         &r);
    const struct tiered_plan *plan = r.plan;
    static const char *const want[] = {"cloud-0", "fog-0", "fog-1", "gw-fog-0",
                                       "gw-fog-1"};
    assert_int_equal(plan->n_agents, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_string_equal(plan->agents[i].name, want[i]);
        assert_null(plan->agents[i].host);
        for (uint32_t k = 0; k < plan->agents[i].n_nodes; k++) {
            assert_int_equal(plan->nodes[plan->agents[i].nodes[k]].agent, i);
        }
    }
    assert_int_equal(plan->agents[2].n_nodes, 2); /* fog-1 and edge-0-1 */
    assert_int_equal(plan->agents[2].nodes[1], 4);
    assert_int_equal(plan->agents[3].n_nodes, 1);
    assert_int_equal(plan->agents[4].n_nodes, 2);
    kit_finish(&r);
}

static void check_options(const struct tiered_plan *plan, const char *node,
                          const char *want)
{
    uint32_t i = tiered_plan_find(plan, node);
    assert_int_not_equal(i, TIERED_NO_NODE);
    struct tiered_error err = {0};
    TIERED_FREE char *got =
        tiered_plan_options(plan, i, &plan->nodes[i].settings->trainer, &err);
    assert_non_null(got);
    assert_string_equal(got, want);
}

static void test_options(void **state)
{
    (void)state;
    struct kit_result r;
    char want[512], path[96];
    snprintf(path, sizeof(path), "%s/set.csv", kit.folder);
    assert_int_equal(tiered_file_write(path, "1,2\n", 4, NULL), 0);
    load("tiered: 1\n"
         "tiers:\n"
         "  - {name: cloud, aggregate: fedavg}\n"
         "  - name: edge\n"
         "    fan_out: 12\n"
         "    trainer:\n"
         "      softmax: {data: fashion-mnist, shard: \"{index}/{count}\", lr: 0.10,\n"
         "                partition: {dirichlet: {alpha: 1}}}\n"
         "nodes:\n"
         "  edge-0: {trainer: {softmax: {data: set.csv}}}\n"
         "  edge-1: {trainer: {softmax: {data: \"data/{node}-{tier}-{parent}\"}}}\n"
         "  edge-2: {trainer: {softmax: {data: /abs, label: \"{{node}} {x\"}}}\n"
         "  edge-3: {trainer: {softmax: {data: .5, label: 99999999999999999999}}}\n",
         &r);
    check_options(r.plan, "edge-3",
                  "{\"data\":\".5\",\"label\":\"99999999999999999999\"}");
    check_options(r.plan, "edge-11",
                  "{\"data\":\"fashion-mnist\",\"shard\":\"11/12\",\"lr\":0.10,"
                  "\"partition\":{\"dirichlet\":{\"alpha\":1}}}");
    snprintf(want, sizeof(want), "{\"data\":\"%s\"}", path);
    check_options(r.plan, "edge-0", want);
    snprintf(want, sizeof(want), "{\"data\":\"%s/data/edge-1-edge-cloud-0\"}",
             kit.folder);
    check_options(r.plan, "edge-1", want);
    check_options(r.plan, "edge-2", "{\"data\":\"/abs\",\"label\":\"{node} {x\"}");
    TIERED_FREE char *none = tiered_plan_options(
        r.plan, 0, &r.plan->nodes[0].settings->aggregate.items[0], NULL);
    assert_string_equal(none, "{}");
    kit_finish(&r);
}

static void test_name_clashes(void **state)
{
    (void)state;
    TIERED_FREE char *meet = kit_problems_of("tiered: 1\ntiers:\n"
                                             "  - {name: c, aggregate: fedavg}\n"
                                             "  - {name: a-0, fan_out: 2, aggregate: "
                                             "fedavg}\n"
                                             "  - {name: a, fan_out: 2, " SOFTMAX "}\n",
                                             NULL, 0);
    assert_string_equal(
        meet, "5:5: tiers 'a-0' and 'a' both have a node 'a-0-0'; rename one");
    TIERED_FREE char *long_name = kit_problems_of(
        "tiered: 1\ntiers:\n"
        "  - {name: c, aggregate: fedavg}\n"
        "  - {name: a123456789012345678901234567890123456789012345678901234567890, "
        "fan_out: 100, " SOFTMAX "}\n",
        NULL, 0);
    assert_string_equal(
        long_name,
        "4:5: tier 'a123456789012345678901234567890123456789012345678901234567890': "
        "its nodes' names would have 64 letters; 63 is the most");
}

static void test_a_million(void **state)
{
    (void)state;
    struct kit_result r;
    struct rusage usage;
    uint64_t start = tiered_now_ms();
    load("tiered: 1\ntiers:\n"
         "  - {name: cloud, aggregate: fedavg}\n"
         "  - {name: fog, fan_out: 999, aggregate: fedavg, rounds: {quorum: 1000}}\n"
         "  - {name: edge, fan_out: 1000, " SOFTMAX "}\n"
         "nodes: {\"edge-*-1\": {memory: 1GiB}, edge-998-999: {memory: 2GiB}}\n",
         &r);
    uint64_t ms = tiered_now_ms() - start;
    getrusage(RUSAGE_SELF, &usage);
    assert_int_equal(r.plan->n_nodes, 1000000);
    assert_int_equal(r.plan->n_agents, 1000000);
    uint32_t last = tiered_plan_find(r.plan, "edge-998-999");
    assert_int_equal(r.plan->nodes[last].index, 998999);
    assert_true(r.plan->nodes[last].settings->memory_bytes == 2ull << 30);
    uint32_t one = tiered_plan_find(r.plan, "edge-7-1");
    assert_true(r.plan->nodes[one].settings->memory_bytes == 1ull << 30);
    assert_string_equal(r.plan->nodes[r.plan->nodes[last].parent].name, "fog-998");
#ifndef TIERED_SANITIZED
    assert_in_range(ms, 0, 10000);
    assert_in_range(usage.ru_maxrss, 0, 300 * 1024);
#else
    (void)ms;
#endif
    kit_finish(&r);
}

static void test_depth(void **state)
{
    (void)state;
    struct tiered_bytes text = {0};
    tiered_bytes_printf(&text,
                        "tiered: 1\ntiers:\n  - {name: t0, aggregate: fedavg}\n");
    for (int i = 1; i < 15; i++) {
        tiered_bytes_printf(&text, "  - {name: t%d, fan_out: 1, aggregate: fedavg}\n",
                            i);
    }
    tiered_bytes_printf(&text, "  - {name: t15, fan_out: 2, " SOFTMAX "}\n");
    struct kit_result r;
    load((char *)text.data, &r);
    assert_int_equal(r.plan->n_nodes, 17);
    assert_string_equal(r.plan->nodes[16].name, "t15-0-0-0-0-0-0-0-0-0-0-0-0-0-0-1");
    kit_finish(&r);
    tiered_bytes_finish(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regular),      cmocka_unit_test(test_orders),
        cmocka_unit_test(test_named),        cmocka_unit_test(test_exceptions),
        cmocka_unit_test(test_agents),       cmocka_unit_test(test_options),
        cmocka_unit_test(test_name_clashes), cmocka_unit_test(test_a_million),
        cmocka_unit_test(test_depth),
    };
    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}
