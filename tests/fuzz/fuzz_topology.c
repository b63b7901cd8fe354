/* SPDX-License-Identifier: Apache-2.0 */
/* Topology files, over the built plugins, as far as every node's options.
   Input: [ASSIGNMENT NUL] FILE, the assignment as of --set. */
#include <ctype.h>

#include "core/options/options.h"
#include "core/plan/plan.h"
#include "fuzz.h"

#define MOST_NODES  4096u /* larger trees are right, but take their time */
#define MOST_LOOKED 64u

/* The most nodes that the fan_outs in a text could make; it need not be exact. */
static bool is_small(const char *text, size_t size)
{
    uint64_t nodes = 1;
    const char *end = text + size, *at = text;
    while ((at = memmem(at, (size_t)(end - at), "fan_out", 7))) {
        uint64_t number = 0;
        for (at += 7; at < end && *at != '\n' && !isdigit((unsigned char)*at); at++) {
        }
        for (; at < end && (isxdigit((unsigned char)*at) || *at == '_'); at++) {
            if (number >= MOST_NODES) {
                return false;
            }
            number = number * 10 + 9;
        }
        nodes *= number ? number : 1;
        if (nodes > MOST_NODES * 10) {
            return false;
        }
    }
    return true;
}

static struct tiered_plugins *plugins(void)
{
    static struct tiered_plugins *set;
    struct tiered_error err = {0};
    if (!set) {
        set = tiered_plugins_create(NULL, &err);
        FUZZ_CHECK(set, "%s", err.text);
    }
    return set;
}

static void drop(char *text, const struct tiered_error *err)
{
    if (!text) {
        fuzz_check_error(err);
    }
    free(text);
}

/* What the loader took, an agent takes too. */
static void look_at_plugin(const struct tiered_plan *plan, uint32_t node,
                           const struct tiered_plugin_ref *ref)
{
    struct tiered_error err = {0};
    struct tiered_config config = {0};
    char *json = tiered_plan_options(plan, node, ref, &err);
    if (!json) {
        fuzz_check_error(&err);
        return;
    }
    FUZZ_CHECK(tiered_config_from_json(&ref->loaded->plugin, json, &config, &err) == 0,
               "%.300s: %s", json, err.text);
    tiered_config_finish(&config);
    free(json);
}

static void look_at_list(const struct tiered_plan *plan, uint32_t node,
                         const struct tiered_plugin_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        look_at_plugin(plan, node, &list->items[i]);
    }
}

static void look_at_node(const struct tiered_plan *plan, uint32_t i)
{
    const struct tiered_node *node = &plan->nodes[i];
    const struct tiered_settings *s = node->settings;
    const char *const texts[] = {s->host, s->listen, s->agent};
    struct tiered_error err = {0};
    FUZZ_CHECK(tiered_plan_find(plan, node->name) == i, "'%s' is not found",
               node->name);
    FUZZ_CHECK(node->agent < plan->n_agents, "'%s' has no agent", node->name);
    FUZZ_CHECK(i == 0 ? node->parent == TIERED_NO_NODE : node->parent < i,
               "'%s' has a wrong parent", node->name);
    FUZZ_CHECK(!node->n_children ||
                   (node->first_child > i &&
                    node->first_child + node->n_children <= plan->n_nodes &&
                    node->initial_child < node->n_children),
               "'%s' has wrong children", node->name);
    look_at_list(plan, i, &s->aggregate);
    look_at_list(plan, i, &s->uplink);
    look_at_list(plan, i, &s->downlink);
    if (s->trainer.loaded) {
        look_at_plugin(plan, i, &s->trainer);
    }
    for (size_t k = 0; k < TIERED_COUNT(texts); k++) {
        if (texts[k]) {
            drop(tiered_plan_text(plan, i, texts[k], &err), &err);
        }
    }
}

static void print(const struct tiered_diagnostics *diag,
                  const struct tiered_bytes *source)
{
    char *out = NULL;
    size_t n = 0;
    FILE *file = open_memstream(&out, &n);
    FUZZ_CHECK(file, "out of memory");
    tiered_diag_print(diag, (const char *)source->data, source->size, file);
    fclose(file);
    free(out);
}

static void run(const char *path, const char *assignment)
{
    const char *const sets[] = {assignment};
    struct tiered_diagnostics diag = {0};
    struct tiered_bytes source = {0};
    struct tiered_plan *plan = NULL;
    struct tiered_topology *topology =
        tiered_topology_load(path, sets, assignment ? 1 : 0, plugins(), &diag, &source);
    FUZZ_CHECK((topology != NULL) == (diag.n_errors == 0), "%zu errors, topology %p",
               diag.n_errors, (void *)topology);
    if (topology) {
        int result = tiered_plan_make(topology, 1, &plan, &diag);
        FUZZ_CHECK((result == 0) == (diag.n_errors == 0), "%zu errors, plan %d",
                   diag.n_errors, result);
    }
    for (uint32_t i = 0; plan && i < plan->n_nodes && i < MOST_LOOKED; i++) {
        look_at_node(plan, i);
    }
    print(&diag, &source);
    tiered_plan_destroy(plan);
    tiered_topology_destroy(topology);
    tiered_diag_finish(&diag);
    tiered_bytes_finish(&source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *assignment = NULL;
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    if (!is_small((const char *)data, size)) {
        return 0;
    }
    if (nul) {
        assignment = (const char *)data;
        size -= (size_t)(nul + 1 - data);
        data = nul + 1;
    }
    run(fuzz_file("t.yaml", data, size), assignment);
    return 0;
}
