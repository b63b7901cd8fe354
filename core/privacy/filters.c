/* SPDX-License-Identifier: Apache-2.0 */
/* Privacy filters' and groups' own words. A plugin of before these members has none. */
#include "core/privacy/filters.h"

#include "core/options/options.h"

bool tiered_privacy_bounds(const struct tiered_plugin *plugin)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    return plugin->kind == TIERED_FILTER && TIERED_HAS(ops, norm) && ops->norm;
}

bool tiered_privacy_is_noise(const struct tiered_plugin *plugin)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    return plugin->kind == TIERED_FILTER && TIERED_HAS(ops, released) && ops->noise &&
           ops->sensitivity && ops->add && ops->released;
}

double tiered_privacy_norm(const struct tiered_plugin *plugin, const void *config)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    double norm = tiered_privacy_bounds(plugin) ? ops->norm(config) : 0;
    return norm > 0 ? norm : 0;
}

bool tiered_privacy_can_follow(const struct tiered_plugin *plugin)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    return plugin->kind == TIERED_FILTER && TIERED_HAS(ops, next_norm) &&
           ops->first_norm && ops->bound_to && ops->within && ops->next_norm;
}

double tiered_privacy_first_norm(const struct tiered_plugin *plugin, const void *config)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    double norm = tiered_privacy_can_follow(plugin) ? ops->first_norm(config) : 0;
    return norm > 0 ? norm : 0;
}

bool tiered_privacy_noise(const struct tiered_plugin *plugin, const void *config,
                          struct tiered_noise *ret)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    *ret = (struct tiered_noise){0};
    if (!tiered_privacy_is_noise(plugin)) {
        return false;
    }
    ret->size = sizeof(*ret);
    ops->noise(config, ret);
    return true;
}

int tiered_privacy_of(const struct tiered_plugin *plugin, const char *options_json,
                      struct tiered_privacy *ret, struct tiered_error *err)
{
    struct tiered_config config = {0};
    *ret = (struct tiered_privacy){0};
    if (!tiered_privacy_bounds(plugin) && !tiered_privacy_is_noise(plugin)) {
        return 0;
    }
    if (tiered_config_from_json(plugin, options_json ? options_json : "{}", &config,
                                err) < 0) {
        return -1;
    }
    ret->norm = tiered_privacy_norm(plugin, config.data);
    ret->first_norm = tiered_privacy_first_norm(plugin, config.data);
    tiered_privacy_noise(plugin, config.data, &ret->noise);
    tiered_config_finish(&config);
    return 0;
}

double tiered_privacy_count_step(bool grouped)
{
    return grouped ? 1 : 0.5;
}

double tiered_privacy_least_children(double noise_multiplier, bool grouped)
{
    return noise_multiplier * TIERED_COUNT_NOISE * tiered_privacy_count_step(grouped);
}

bool tiered_privacy_turns(const struct tiered_plugin *plugin, const char *options_json,
                          double participation)
{
    struct tiered_config config = {0};
    const struct tiered_filter_ops *ops = plugin->ops;
    if (!tiered_privacy_can_follow(plugin) ||
        tiered_config_from_json(plugin, options_json ? options_json : "{}", &config,
                                NULL) < 0) {
        return true;
    }
    double norm = tiered_privacy_first_norm(plugin, config.data);
    bool turns = !(norm > 0) ||
                 (ops->next_norm(config.data, norm, 0.5 - participation / 2) > norm &&
                  ops->next_norm(config.data, norm, 0.5 + participation / 2) < norm);
    tiered_config_finish(&config);
    return turns;
}

bool tiered_group_tells(const struct tiered_plugin *plugin)
{
    const struct tiered_group_ops *ops = plugin->ops;
    return plugin->kind == TIERED_GROUP && TIERED_HAS(ops, terms) && ops->terms;
}

int tiered_group_terms(const struct tiered_plugin *plugin, const char *options_json,
                       uint32_t n_members, struct tiered_group_terms *ret,
                       struct tiered_error *err)
{
    const struct tiered_group_ops *ops = plugin->ops;
    struct tiered_config config = {0};
    *ret = (struct tiered_group_terms){.size = sizeof(*ret)};
    if (!tiered_group_tells(plugin)) {
        return 0;
    }
    if (tiered_config_from_json(plugin, options_json ? options_json : "{}", &config,
                                err) < 0) {
        return -1;
    }
    int result = ops->terms(config.data, n_members, ret, err);
    tiered_config_finish(&config);
    return result;
}
