/* SPDX-License-Identifier: Apache-2.0 */
/* The ABI checks: what each kind must bring before anything of it is called. */
#include "core/plugins/internal.h"

#include <string.h>

#include "core/options/options.h"
#include "tiered/aggregator.h"
#include "tiered/filter.h"
#include "tiered/group.h"
#include "tiered/optimizer.h"
#include "tiered/trainer.h"
#include "tiered/transport.h"

#define CONFIG_MAX_BYTES (64u << 10)
#define OPTIONS_MAX      256

/* A member that must be there: where it ends, and whether it is a pointer that must not
   be NULL. */
struct required {
    const char *name;
    size_t offset;
};

#define OP(kind, member)                                                               \
    {                                                                                  \
#member, offsetof(struct tiered_##kind##_ops, member)                          \
    }

static const struct required aggregator_ops[] = {OP(aggregator, init),
                                                 OP(aggregator, destroy)};
static const struct required optimizer_ops[] = {
    OP(optimizer, init), OP(optimizer, destroy), OP(optimizer, begin),
    OP(optimizer, step)};
static const struct required filter_ops[] = {OP(filter, init), OP(filter, destroy),
                                             OP(filter, bound), OP(filter, forward),
                                             OP(filter, inverse)};
static const struct required group_ops[] = {OP(group, init),
                                            OP(group, destroy),
                                            OP(group, word_bytes),
                                            OP(group, member_begin),
                                            OP(group, member_step),
                                            OP(group, open),
                                            OP(group, mask),
                                            OP(group, aggregator_begin),
                                            OP(group, aggregator_step),
                                            OP(group, aggregator_receive),
                                            OP(group, aggregator_close),
                                            OP(group, aggregator_check),
                                            OP(group, aggregator_survivors),
                                            OP(group, sums),
                                            OP(group, unmask)};
static const struct required transport_ops[] = {
    OP(transport, init),       OP(transport, destroy), OP(transport, listen),
    OP(transport, unlisten),   OP(transport, open),    OP(transport, send),
    OP(transport, half_close), OP(transport, cancel),  OP(transport, release),
    OP(transport, peer)};
static const struct required trainer_ops[] = {
    OP(trainer, init),     OP(trainer, destroy), OP(trainer, load),
    OP(trainer, manifest), OP(trainer, initial), OP(trainer, train),
    OP(trainer, evaluate)};

#define MOST_STEPS 16u /* of a group's phase */

struct kind_rules {
    size_t ops_size;
    const struct required *ops;
    size_t n_ops;
};

#define RULES(kind)                                                                    \
    {                                                                                  \
        sizeof(struct tiered_##kind##_ops), kind##_ops, TIERED_COUNT(kind##_ops)       \
    }

static const struct kind_rules rules[] = {
    [TIERED_AGGREGATOR] = RULES(aggregator), [TIERED_OPTIMIZER] = RULES(optimizer),
    [TIERED_FILTER] = RULES(filter),         [TIERED_GROUP] = RULES(group),
    [TIERED_TRANSPORT] = RULES(transport),   [TIERED_TRAINER] = RULES(trainer),
};

bool tiered_plugin_name_ok(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n >= 1 && n <= 32 && !name[n] && name[0] != '-';
}

static int check_aggregator(const struct tiered_plugin *plugin,
                            const struct tiered_aggregator_ops *ops,
                            struct tiered_error *err)
{
    bool blobs = plugin->traits & TIERED_ACCEPTS_BLOBS;
    if (blobs && !ops->blobs) {
        return tiered_fail(err, TIERED_EINVAL,
                           "has the trait accepts_blobs but no op 'blobs'");
    }
    if (!blobs && ops->blobs) {
        return tiered_fail(err, TIERED_EINVAL,
                           "has the op 'blobs' but not the trait accepts_blobs");
    }
    if (!blobs && !ops->weigh) {
        return tiered_fail(err, TIERED_EINVAL, "lacks the op 'weigh'");
    }
    if (!ops->columns_f32 != !ops->columns_f64) {
        return tiered_fail(err, TIERED_EINVAL,
                           "has one of columns_f32 and columns_f64 without the other");
    }
    if ((unsigned)ops->needs > TIERED_NEEDS_CENTRED) {
        return tiered_fail(err, TIERED_EINVAL, "needs %u, which is unknown",
                           (unsigned)ops->needs);
    }
    if (ops->acts_on >= TIERED_ROLE_BIT(TIERED_N_ROLES)) {
        return tiered_fail(err, TIERED_EINVAL, "acts on unknown roles (0x%x)",
                           ops->acts_on);
    }
    return 0;
}

static int check_optimizer(const struct tiered_optimizer_ops *ops,
                           struct tiered_error *err)
{
    if (ops->n_slots > TIERED_MAX_SLOTS) {
        return tiered_fail(err, TIERED_EINVAL, "has %u slots; at most %u are possible",
                           ops->n_slots, TIERED_MAX_SLOTS);
    }
    for (uint32_t i = 0; i < ops->n_slots; i++) {
        if (!ops->slot_names || !ops->slot_names[i]) {
            return tiered_fail(err, TIERED_EINVAL, "has no name for slot %u", i);
        }
    }
    return 0;
}

static int check_kind(const struct tiered_plugin *plugin, const void *ops,
                      struct tiered_error *err)
{
    const struct tiered_filter_ops *filter = ops;
    const struct tiered_group_ops *group = ops;
    switch (plugin->kind) {
    case TIERED_AGGREGATOR:
        return check_aggregator(plugin, ops, err);
    case TIERED_OPTIMIZER:
        return check_optimizer(ops, err);
    case TIERED_FILTER:
        if ((plugin->traits & TIERED_NEEDS_SCAN) && !filter->scan) {
            return tiered_fail(err, TIERED_EINVAL,
                               "has the trait needs_scan but no op 'scan'");
        }
        return 0;
    case TIERED_GROUP:
        if (group->pre_steps > MOST_STEPS || group->post_steps > MOST_STEPS) {
            return tiered_fail(err, TIERED_EINVAL,
                               "has phases of %u and %u steps; at most %u are possible",
                               group->pre_steps, group->post_steps, MOST_STEPS);
        }
        return 0;
    default:
        return 0;
    }
}

/* Copy the ops into a zeroed table of our size, so that a member which the plugin's
   table does not reach reads as NULL. */
static int copy_ops(const struct tiered_plugin *plugin, void **ret_ops,
                    struct tiered_error *err)
{
    const struct kind_rules *rule = &rules[plugin->kind];
    size_t size;
    memcpy(&size, plugin->ops, sizeof(size));
    for (size_t i = 0; i < rule->n_ops; i++) {
        if (size < rule->ops[i].offset + sizeof(void (*)(void))) {
            return tiered_fail(err, TIERED_EINVAL,
                               "its ops (%zu bytes) end before the op '%s'", size,
                               rule->ops[i].name);
        }
    }
    void *ops = calloc(1, rule->ops_size);
    if (!ops) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    size_t ours = size < rule->ops_size ? size : rule->ops_size;
    memcpy(ops, plugin->ops, ours);
    memcpy(ops, &ours, sizeof(ours));
    *ret_ops = ops;
    return 0;
}

static int check_ops(const struct tiered_plugin *plugin, const void *ops,
                     struct tiered_error *err)
{
    const struct kind_rules *rule = &rules[plugin->kind];
    for (size_t i = 0; i < rule->n_ops; i++) {
        void *op;
        memcpy(&op, (const char *)ops + rule->ops[i].offset, sizeof(op));
        if (!op) {
            return tiered_fail(err, TIERED_EINVAL, "lacks the op '%s'",
                               rule->ops[i].name);
        }
    }
    return check_kind(plugin, ops, err);
}

static int check_members(const struct tiered_plugin *plugin, struct tiered_error *err)
{
    if (plugin->kind < TIERED_AGGREGATOR || plugin->kind > TIERED_TRAINER) {
        return tiered_fail(err, TIERED_EINVAL, "its kind %u is unknown",
                           (unsigned)plugin->kind);
    }
    if (!plugin->name || !tiered_plugin_name_ok(plugin->name)) {
        return tiered_fail(
            err, TIERED_EINVAL,
            "its name '%.40s' is not of the form [a-z0-9][a-z0-9-]{0,31}",
            plugin->name ? plugin->name : "");
    }
    if (!plugin->version || !plugin->version[0]) {
        return tiered_fail(err, TIERED_EINVAL, "it has no version");
    }
    if (!plugin->summary || !plugin->summary[0]) {
        return tiered_fail(err, TIERED_EINVAL, "it has no summary");
    }
    return plugin->ops ? 0 : tiered_fail(err, TIERED_EINVAL, "it has no ops");
}

static int check_options(const struct tiered_plugin *plugin, struct tiered_error *err)
{
    if (plugin->config_size > CONFIG_MAX_BYTES) {
        return tiered_fail(err, TIERED_EINVAL,
                           "its config of %zu bytes is over the limit of %u",
                           plugin->config_size, CONFIG_MAX_BYTES);
    }
    if (plugin->n_options > OPTIONS_MAX) {
        return tiered_fail(err, TIERED_EINVAL,
                           "has %zu options; at most %u are possible",
                           plugin->n_options, OPTIONS_MAX);
    }
    return tiered_option_rows_check(plugin->options, plugin->n_options,
                                    plugin->option_size, plugin->config_size, err);
}

int tiered_plugin_check(struct tiered_plugin *plugin, void **ret_ops,
                        struct tiered_error *err)
{
    TIERED_FREE void *ops = NULL;
    if (check_members(plugin, err) < 0 || check_options(plugin, err) < 0 ||
        copy_ops(plugin, &ops, err) < 0 || check_ops(plugin, ops, err) < 0) {
        return -1;
    }
    plugin->ops = ops;
    *ret_ops = TIERED_STEAL(ops);
    return 0;
}
