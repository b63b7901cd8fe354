/* SPDX-License-Identifier: Apache-2.0 */
/* Plugins by name: found, of the right kind, their options checked. */
#include <string.h>

#include "core/options/options.h"
#include "core/plugins/hosting.h"
#include "core/privacy/filters.h"
#include "core/topology/inside.h"
#include "tiered/aggregator.h"
#include "tiered/optimizer.h"

#define QUOTE_CHARS 60

/* NAME, or {NAME: {options}}. */
static int split(struct loader *l, const char *what, const struct tiered_value *value,
                 const struct tiered_value **ret_name,
                 const struct tiered_value **ret_options)
{
    *ret_options = NULL;
    if (value->kind == TIERED_SCALAR) {
        *ret_name = value;
        return 0;
    }
    if (value->kind != TIERED_MAPPING || value->n != 1) {
        return tiered_diag_error(l->diag, value->mark,
                                 "%s: a plugin is written NAME or {NAME: {OPTION: "
                                 "VALUE}}",
                                 what);
    }
    *ret_name = value->items[0];
    const struct tiered_value *options = value->items[1];
    if (options->kind == TIERED_MAPPING) {
        *ret_options = options;
    } else if (options->kind != TIERED_NULL) {
        return tiered_diag_error(l->diag, options->mark,
                                 "%s: the options of '%.*s' must be a mapping", what,
                                 QUOTE_CHARS, value->items[0]->text);
    }
    return 0;
}

/* Strings of options may hold {node} …: an unknown word is found while loading. */
static char *check_words(void *opaque, const char *text, struct tiered_error *err)
{
    (void)opaque;
    return topology_words_expand(text, NULL, err);
}

/* What options mean together only the plugin knows; these kinds only look at them. */
static int try_init(const struct tiered_plugin *plugin, const void *config,
                    struct tiered_error *err)
{
    struct tiered_hosting hosting;
    void *state = NULL;
    tiered_hosting_init(&hosting, 0, plugin->name, NULL, NULL, NULL);
    if (plugin->kind == TIERED_AGGREGATOR) {
        const struct tiered_aggregator_ops *ops = plugin->ops;
        if (ops->init(&hosting.host, config, &state, err) < 0) {
            return -1;
        }
        ops->destroy(state);
    } else if (plugin->kind == TIERED_OPTIMIZER) {
        const struct tiered_optimizer_ops *ops = plugin->ops;
        if (ops->init(&hosting.host, config, &state, err) < 0) {
            return -1;
        }
        ops->destroy(state);
    } else if (plugin->kind == TIERED_FILTER) {
        const struct tiered_manifest nothing = {.size = sizeof(nothing)};
        const struct tiered_filter_ops *ops = plugin->ops;
        if (ops->init(&hosting.host, config, &nothing, &state, err) < 0) {
            return -1;
        }
        ops->destroy(state);
    }
    return 0;
}

static int check_options(struct loader *l, const char *what,
                         const struct tiered_plugin_ref *ref)
{
    static const struct tiered_expander words = {check_words, NULL};
    const struct tiered_plugin *plugin = &ref->loaded->plugin;
    struct tiered_config config = {0};
    char owner[256];
    snprintf(owner, sizeof(owner), "%s '%s' of %s", tiered_kind_name(plugin->kind),
             plugin->name, what);
    if (tiered_config_fill(plugin->options, plugin->n_options, plugin->option_size,
                           plugin->config_size, owner, ref->options, ref->mark, &words,
                           &config, l->diag) < 0) {
        return -1;
    }
    struct tiered_error err = {0};
    int result = try_init(plugin, config.data, &err);
    if (result < 0) {
        tiered_diag_error(l->diag, ref->mark, "%s: %s", owner, err.text);
    }
    tiered_config_finish(&config);
    return result;
}

/* kind 0: any. On a problem ret->loaded stays NULL. */
static void read_ref(struct loader *l, const char *what, enum tiered_kind kind,
                     const struct tiered_value *value, struct tiered_plugin_ref *ret)
{
    const struct tiered_value *name = value;
    struct tiered_error err = {0};
    *ret = (struct tiered_plugin_ref){.mark = value->mark};
    if (split(l, what, value, &name, &ret->options) < 0) {
        return;
    }
    ret->mark = name->mark;
    if (tiered_plugins_get(l->plugins, name->text, kind, &ret->loaded, &err) < 0) {
        ret->loaded = NULL;
        tiered_diag_error(l->diag, name->mark, "%s: %s", what, err.text);
        return;
    }
    if (check_options(l, what, ret) < 0) {
        ret->loaded = NULL; /* nothing more is said about it */
    }
}

void topology_plugin_read(struct loader *l, const char *what, enum tiered_kind kind,
                          const struct tiered_value *value,
                          struct tiered_plugin_ref *ret)
{
    read_ref(l, what, kind, value, ret);
}

/* A bare plugin is a list of one. */
static size_t list_of(const struct tiered_value *value,
                      const struct tiered_value *const **ret,
                      const struct tiered_value *const *single)
{
    if (value->kind == TIERED_SEQUENCE) {
        *ret = (const struct tiered_value *const *)value->items;
        return value->n;
    }
    *ret = single;
    return value->kind == TIERED_NULL ? 0 : 1;
}

/* A filter that adds noise may end an aggregate: list. */
static bool is_noise(struct loader *l, const struct tiered_value *value)
{
    const struct tiered_loaded *loaded;
    const struct tiered_value *name =
        value->kind == TIERED_MAPPING && value->n ? value->items[0] : value;
    return name->kind == TIERED_SCALAR &&
           tiered_plugins_get(l->plugins, name->text, TIERED_FILTER, &loaded, NULL) ==
               0 &&
           tiered_privacy_is_noise(&loaded->plugin);
}

/* Reads the list's plugins, of `first` kind and then `rest`; NULL when there is none.
 */
static struct tiered_plugin_ref *read_list(struct loader *l, const char *what,
                                           enum tiered_kind first,
                                           enum tiered_kind rest,
                                           const struct tiered_value *value,
                                           struct tiered_plugin_list *ret)
{
    const struct tiered_value *const *items;
    size_t n = list_of(value, &items, &value);
    *ret = (struct tiered_plugin_list){0};
    if (n > TIERED_MAX_STAGES) {
        tiered_diag_error(l->diag, value->mark,
                          "%s: %zu plugins in one list; %u is the most", what, n,
                          TIERED_MAX_STAGES);
        return NULL;
    }
    struct tiered_plugin_ref *refs =
        tiered_arena_alloc(&l->topology->arena, n, sizeof(*refs));
    if (!refs) {
        tiered_diag_error(l->diag, value->mark, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        enum tiered_kind kind = i ? rest : first;
        bool noise = kind == TIERED_OPTIMIZER && i + 1 == n && is_noise(l, items[i]);
        read_ref(l, what, noise ? TIERED_FILTER : kind, items[i], &refs[i]);
    }
    *ret = (struct tiered_plugin_list){n, refs};
    return n ? refs : NULL;
}

/* Aggregators of whole models: nothing steps after them, and the tensors of a run are
   fixed when it starts. */
static void check_whole(struct loader *l, const char *what,
                        const struct tiered_plugin_list *chain)
{
    const struct tiered_loaded *first = chain->n ? chain->items[0].loaded : NULL;
    if (!first || !(first->plugin.traits & TIERED_ACCEPTS_BLOBS)) {
        return;
    }
    tiered_diag_error(
        l->diag, chain->items[0].mark,
        "%s: '%s' merges models that grow, and in this version the tensors "
        "of a run stay as they begin; 'tiered aggregate' merges them as "
        "files",
        what, first->plugin.name);
    for (size_t i = 1; i < chain->n; i++) {
        if (chain->items[i].loaded) {
            tiered_diag_error(l->diag, chain->items[i].mark,
                              "%s: optimizer '%s' steps along a mean, and '%s' merges "
                              "whole models, which have none: leave the optimizer out",
                              what, chain->items[i].loaded->plugin.name,
                              first->plugin.name);
        }
    }
}

void topology_strategy_read(struct loader *l, const char *what,
                            const struct tiered_value *value,
                            struct tiered_plugin_list *ret)
{
    if (!read_list(l, what, TIERED_AGGREGATOR, TIERED_OPTIMIZER, value, ret) &&
        value->n == 0) {
        tiered_diag_error(l->diag, value->mark,
                          "%s: aggregate needs an aggregator, such as [fedavg]", what);
    }
    check_whole(l, what, ret);
}

/* The first filter before `i` that does not keep the values where they are. */
static const struct tiered_plugin_ref *
codec_before(const struct tiered_plugin_list *list, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        const struct tiered_loaded *loaded = list->items[k].loaded;
        if (loaded && loaded->plugin.kind == TIERED_FILTER &&
            !(loaded->plugin.traits & TIERED_PRIVACY)) {
            return &list->items[k];
        }
    }
    return NULL;
}

/* What plugins declare decides where they may stand in a pipe. */
static void check_stage(struct loader *l, const char *what, bool group_allowed,
                        const struct tiered_plugin_list *list, size_t i)
{
    const struct tiered_plugin_ref *ref = &list->items[i];
    const struct tiered_plugin *plugin = &ref->loaded->plugin;
    if (plugin->kind != TIERED_FILTER && plugin->kind != TIERED_GROUP) {
        const char *kind = tiered_kind_name(plugin->kind);
        tiered_diag_error(l->diag, ref->mark,
                          "%s: '%s' is %s %s, and a pipe is made of filters", what,
                          plugin->name, strchr("aeiou", kind[0]) ? "an" : "a", kind);
    } else if (plugin->kind == TIERED_GROUP && !group_allowed) {
        tiered_diag_error(l->diag, ref->mark,
                          "%s: '%s' sums updates on their way up; it belongs in uplink",
                          what, plugin->name);
    } else if (plugin->kind == TIERED_GROUP && codec_before(list, i)) {
        const struct tiered_plugin_ref *before = codec_before(list, i);
        const struct tiered_plugin *codec = &before->loaded->plugin;
        tiered_diag_error(
            l->diag, before->mark,
            "%s: '%s' is a %scodec, and '%s' behind it cannot sum what it "
            "makes; leave '%s' out: masked updates do not compress",
            what, codec->name, codec->traits & TIERED_LOSSY ? "lossy " : "",
            plugin->name, codec->name);
    } else if ((plugin->traits & TIERED_NEEDS_VALUES) && codec_before(list, i)) {
        tiered_diag_error(l->diag, ref->mark,
                          "%s: '%s' works on values, and '%s' before it makes bytes of "
                          "them; put '%s' first",
                          what, plugin->name,
                          codec_before(list, i)->loaded->plugin.name, plugin->name);
    } else if (plugin->kind == TIERED_GROUP && i + 1 < list->n) {
        const struct tiered_loaded *next = list->items[i + 1].loaded;
        bool lossy = next && (next->plugin.traits & TIERED_LOSSY);
        tiered_diag_error(l->diag, list->items[i + 1].mark,
                          "%s: '%s' adds in a ring, so no %sfilter may follow it; put "
                          "'%s' last",
                          what, plugin->name, lossy ? "lossy " : "", plugin->name);
    }
}

void topology_pipe_read(struct loader *l, const char *what, bool group_allowed,
                        const struct tiered_value *value,
                        struct tiered_plugin_list *ret)
{
    if (!read_list(l, what, 0, 0, value, ret)) {
        return;
    }
    for (size_t i = 0; i < ret->n; i++) {
        if (ret->items[i].loaded) {
            check_stage(l, what, group_allowed, ret, i);
        }
    }
}
