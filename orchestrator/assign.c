/* SPDX-License-Identifier: Apache-2.0 */
/* Assignments. The messages are built with malloc and strdup, so that protobuf-c's
   free_unpacked frees them. */
#include "orchestrator/assign.h"

void assign_address(const char *agent, char out[ASSIGN_ADDRESS_SIZE])
{
    snprintf(out, ASSIGN_ADDRESS_SIZE, "unix:s/%s.sock", agent);
}

static int set(char **field, const char *text, struct tiered_error *err)
{
    char *copy = strdup(text);
    if (!copy) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *field = copy;
    return 0;
}

static int set_digest(ProtobufCBinaryData *field, const struct tiered_digest *digest,
                      struct tiered_error *err)
{
    field->data = malloc(sizeof(digest->bytes));
    if (!field->data) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    field->len = sizeof(digest->bytes);
    memcpy(field->data, digest->bytes, field->len);
    return 0;
}

static int make_use(const struct tiered_plan *plan, uint32_t node,
                    const struct tiered_plugin_ref *ref, Tiered__V1__PluginUse **ret,
                    struct tiered_error *err)
{
    Tiered__V1__PluginUse *use = malloc(sizeof(*use));
    if (!use) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered__v1__plugin_use__init(use);
    *ret = use; /* freed with its message, whatever happens below */
    char *options = tiered_plan_options(plan, node, ref, err);
    if (!options) {
        return -1;
    }
    use->options = options;
    return set(&use->name, ref->loaded->plugin.name, err) < 0
               ? -1
               : set_digest(&use->digest, &ref->loaded->digest, err);
}

static int make_uses(const struct tiered_plan *plan, uint32_t node,
                     const struct tiered_plugin_list *list, size_t *ret_n,
                     Tiered__V1__PluginUse ***ret, struct tiered_error *err)
{
    if (list->n == 0) {
        return 0;
    }
    *ret = calloc(list->n, sizeof(**ret));
    if (!*ret) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < list->n; i++) {
        int result = make_use(plan, node, &list->items[i], &(*ret)[i], err);
        *ret_n = (*ret)[i] ? i + 1 : i;
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

static int fill_rules(const struct tiered_plan *plan, uint32_t index,
                      Tiered__V1__NodeAssignment *as, struct tiered_error *err)
{
    const struct tiered_node *node = &plan->nodes[index];
    const struct tiered_rounds *rounds = &node->settings->rounds;
    const struct tiered_run_settings *run = tiered_topology_run(plan->topology);
    Tiered__V1__RoundRules *rules = malloc(sizeof(*rules));
    if (!rules) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered__v1__round_rules__init(rules);
    as->rules = rules;
    bool root = node->parent == TIERED_NO_NODE;
    rules->rounds_per_parent = root ? plan->rounds : rounds->per_parent_round;
    rules->sample = rounds->sample;
    rules->poisson = rounds->poisson;
    rules->quorum = tiered_rounds_quorum_share(rounds, node->n_children);
    rules->deadline_ms = rounds->deadline_ms;
    rules->keep_late = rounds->keep_late;
    if (!root) {
        return 0;
    }
    rules->evaluate_every = run->evaluate_every;
    rules->stop_at = run->stop.at;
    rules->stop_sign = run->stop.sign;
    return set(&rules->stop_metric, run->stop.metric, err);
}

static int fill_children(const struct tiered_plan *plan, uint32_t index,
                         Tiered__V1__NodeAssignment *as, struct tiered_error *err)
{
    const struct tiered_node *node = &plan->nodes[index];
    const struct tiered_settings *child = plan->nodes[node->first_child].settings;
    as->children = calloc(node->n_children, sizeof(char *));
    if (!as->children) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < node->n_children; i++) {
        if (set(&as->children[i], plan->nodes[node->first_child + i].name, err) < 0) {
            return -1;
        }
        as->n_children = i + 1;
    }
    as->initial_child = node->initial_child;
    /* the plan has refused children whose pipes differ: the first one's are all's */
    if (fill_rules(plan, index, as, err) < 0 ||
        make_uses(plan, index, &node->settings->aggregate, &as->n_strategy,
                  &as->strategy, err) < 0) {
        return -1;
    }
    return make_uses(plan, node->first_child, &child->uplink, &as->n_child_uplink,
                     &as->child_uplink, err) < 0
               ? -1
               : make_uses(plan, node->first_child, &child->downlink,
                           &as->n_child_downlink, &as->child_downlink, err);
}

/* Does this link stay on the machine's own sockets? */
static bool is_local(const struct tiered_settings *settings)
{
    return !settings->transport.loaded ||
           (settings->transport.loaded->plugin.traits & TIERED_LOCAL_ONLY);
}

int assign_way(const struct assign_context *context, uint32_t index,
               char out[ASSIGN_ADDRESS_SIZE], Tiered__V1__PluginUse **ret,
               struct tiered_error *err)
{
    const struct tiered_plan *plan = context->plan;
    const struct tiered_node *node = &plan->nodes[index];
    const struct tiered_node *child = &plan->nodes[node->first_child];
    *ret = NULL;
    if (!context->ports || is_local(child->settings)) {
        assign_address(plan->agents[node->agent].name, out);
        return 0;
    }
    snprintf(out, ASSIGN_ADDRESS_SIZE, "127.0.0.1:%u", context->ports[node->agent]);
    return make_use(plan, node->first_child, &child->settings->transport, ret, err);
}

static int same_transports(const struct tiered_plan *plan,
                           const struct tiered_node *parent, struct tiered_error *err)
{
    const struct tiered_settings *first = plan->nodes[parent->first_child].settings;
    for (uint32_t i = 1; i < parent->n_children; i++) {
        const struct tiered_node *child = &plan->nodes[parent->first_child + i];
        if (child->settings->transport.loaded != first->transport.loaded) {
            return tiered_fail(
                err, TIERED_ENOTSUP,
                "node '%s': a transport other than its siblings' is not in "
                "this version",
                child->name);
        }
    }
    return 0;
}

static int fill_addresses(const struct assign_context *context, uint32_t index,
                          Tiered__V1__NodeAssignment *as, struct tiered_error *err)
{
    const struct tiered_plan *plan = context->plan;
    const struct tiered_node *node = &plan->nodes[index];
    char address[ASSIGN_ADDRESS_SIZE] = ASSIGN_ORCHESTRATOR;
    as->insecure = node->settings->insecure;
    if (node->parent != TIERED_NO_NODE &&
        (set(&as->parent, plan->nodes[node->parent].name, err) < 0 ||
         assign_way(context, node->parent, address, &as->transport, err) < 0)) {
        return -1;
    }
    if (set(&as->parent_address, address, err) < 0) {
        return -1;
    }
    if (node->n_children == 0) {
        return 0;
    }
    as->insecure = as->insecure || plan->nodes[node->first_child].settings->insecure;
    if ((context->ports && same_transports(plan, node, err) < 0) ||
        assign_way(context, index, address, &as->child_transport, err) < 0) {
        return -1;
    }
    return set(&as->listen, address, err);
}

/* The ledger counts the noise of so many: members hold their parent to it, even where
   fewer are asked than planned. */
static uint32_t group_least(const struct tiered_plan *plan, uint32_t index)
{
    const struct tiered_ledger_line *line =
        tiered_ledger_line_of(&plan->ledger, index, false);
    return line ? line->group.members : 0;
}

static int fill_node(const struct assign_context *context, uint32_t index,
                     Tiered__V1__NodeAssignment *as, struct tiered_error *err)
{
    const struct tiered_plan *plan = context->plan;
    const struct tiered_node *node = &plan->nodes[index];
    const struct tiered_settings *s = node->settings;
    as->depth = node->tier;
    as->index = node->index;
    as->count = plan->tier_counts[node->tier];
    as->memory_bytes = s->memory_bytes;
    as->on_bad_update = s->on_bad_update;
    if (set(&as->node, node->name, err) < 0 ||
        set(&as->tier, tiered_topology_tier(plan->topology, node->tier)->name, err) <
            0 ||
        fill_addresses(context, index, as, err) < 0) {
        return -1;
    }
    as->group_least = group_least(plan, index);
    as->child_group_least = node->n_children ? group_least(plan, node->first_child) : 0;
    if (node->parent != TIERED_NO_NODE) {
        as->uniform = tiered_plan_counts_once(
            &plan->nodes[node->parent].settings->aggregate.items[0]);
    }
    if (node->parent != TIERED_NO_NODE &&
        (make_uses(plan, index, &s->uplink, &as->n_uplink, &as->uplink, err) < 0 ||
         make_uses(plan, index, &s->downlink, &as->n_downlink, &as->downlink, err) <
             0)) {
        return -1;
    }
    return node->n_children > 0 ? fill_children(plan, index, as, err)
                                : make_use(plan, index, &s->trainer, &as->trainer, err);
}

static int fill(const struct assign_context *context, uint32_t agent,
                Tiered__V1__Assignment *a, struct tiered_error *err)
{
    const struct tiered_planned_agent *planned = &context->plan->agents[agent];
    a->generation = context->plan->generation;
    a->seed = tiered_topology_run(context->plan->topology)->seed;
    a->orphan_timeout_ms = context->orphan_timeout_ms;
    a->nodes = calloc(planned->n_nodes ? planned->n_nodes : 1, sizeof(*a->nodes));
    if (!a->nodes || set(&a->run, context->run, err) < 0 ||
        set(&a->token, context->token, err) < 0) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < planned->n_nodes; i++) {
        Tiered__V1__NodeAssignment *as = malloc(sizeof(*as));
        if (!as) {
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        tiered__v1__node_assignment__init(as);
        a->nodes[a->n_nodes++] = as;
        if (fill_node(context, planned->nodes[i], as, err) < 0) {
            return -1;
        }
    }
    return 0;
}

int assign_agent(const struct assign_context *context, uint32_t agent,
                 Tiered__V1__Assignment **ret, struct tiered_error *err)
{
    Tiered__V1__Assignment *a = malloc(sizeof(*a));
    if (!a) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered__v1__assignment__init(a);
    if (fill(context, agent, a, err) < 0) {
        tiered__v1__assignment__free_unpacked(a, NULL);
        return -1;
    }
    *ret = a;
    return 0;
}
