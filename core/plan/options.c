/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin's options for one node, as its assignment carries them. */
#include <string.h>
#include <unistd.h>

#include "core/options/options.h"
#include "core/plan/inside.h"

struct writer {
    const struct tiered_plan *plan;
    uint32_t node;
    const struct tiered_plugin *plugin;
    struct tiered_arena arena;
    struct tiered_error *err;
};

static struct tiered_value *rewrite(struct writer *w, const struct tiered_value *value);

static struct tiered_value *no_memory(struct writer *w)
{
    tiered_fail(w->err, TIERED_ENOMEM, "out of memory");
    return NULL;
}

static struct tiered_value *text_of(struct writer *w, const struct tiered_value *value,
                                    const char *text)
{
    struct tiered_value *copy = tiered_arena_alloc(&w->arena, 1, sizeof(*copy));
    char *own = copy ? tiered_arena_copy(&w->arena, text, strlen(text)) : NULL;
    if (!own) {
        return no_memory(w);
    }
    *copy = *value;
    copy->text = own;
    copy->quoted = true;
    return copy;
}

static struct tiered_value *rewrite_scalar(struct writer *w,
                                           const struct tiered_value *value)
{
    if (!strchr(value->text, '{')) {
        return (struct tiered_value *)value;
    }
    TIERED_FREE char *text = tiered_plan_text(w->plan, w->node, value->text, w->err);
    return text ? text_of(w, value, text) : NULL;
}

static struct tiered_value *rewrite_collection(struct writer *w,
                                               const struct tiered_value *value)
{
    bool mapping = value->kind == TIERED_MAPPING;
    size_t slots = mapping ? 2 * value->n : value->n;
    struct tiered_value *copy = tiered_arena_alloc(&w->arena, 1, sizeof(*copy));
    struct tiered_value **items = tiered_arena_alloc(&w->arena, slots, sizeof(*items));
    if (!copy || !items) {
        return no_memory(w);
    }
    for (size_t i = 0; i < slots; i++) {
        bool key = mapping && i % 2 == 0;
        items[i] = key ? value->items[i] : rewrite(w, value->items[i]);
        if (!items[i]) {
            return NULL;
        }
    }
    *copy = *value;
    copy->items = items;
    return copy;
}

static struct tiered_value *rewrite(struct writer *w, const struct tiered_value *value)
{
    switch (value->kind) {
    case TIERED_SCALAR:
        return rewrite_scalar(w, value);
    case TIERED_SEQUENCE:
    case TIERED_MAPPING:
        return rewrite_collection(w, value);
    default:
        return (struct tiered_value *)value;
    }
}

/* The rows that a mapping's keys are looked up in. */
struct rows {
    const struct tiered_option *items;
    size_t n, size;
};

static bool find_row(const struct rows *rows, const char *key,
                     struct tiered_option *ret)
{
    for (size_t i = 0; i < rows->n; i++) {
        *ret = tiered_option_row(rows->items, rows->size, i);
        if (strcmp(ret->name, key) == 0) {
            return true;
        }
    }
    return false;
}

static struct tiered_value **slot(const struct tiered_value *collection, size_t i)
{
    return &((struct tiered_value **)(uintptr_t)collection->items)[i];
}

/* Text stays as it was written: JSON would make .5 a 0.5, and a label of many digits a
   number that few can read. */
static struct tiered_value *as_text(struct writer *w, struct tiered_value *value)
{
    bool mapping = value->kind == TIERED_MAPPING;
    if (value->kind == TIERED_SCALAR) {
        return value->quoted ? value : text_of(w, value, value->text);
    }
    for (size_t i = 0; i < value->n; i++) {
        struct tiered_value **item = slot(value, mapping ? 2 * i + 1 : i);
        if (!(*item = as_text(w, *item))) {
            return NULL;
        }
    }
    return value;
}

/* A word without a slash that names no file there stays as it is: data sets have
   names, and commands are searched for. */
static struct tiered_value *absolute(struct writer *w, struct tiered_value *value)
{
    const char *folder = tiered_topology_folder(w->plan->topology);
    if (value->kind != TIERED_SCALAR || !*value->text || value->text[0] == '/') {
        return value;
    }
    TIERED_FREE char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, value->text) < 0) {
        path = NULL;
        return no_memory(w);
    }
    bool a_path = strchr(value->text, '/') || access(path, F_OK) == 0;
    return text_of(w, value, a_path ? path : value->text);
}

static struct tiered_value *type_options(struct writer *w, const struct rows *rows,
                                         struct tiered_value *options);

/* A value as its row takes it. */
static struct tiered_value *type_value(struct writer *w,
                                       const struct tiered_option *row, size_t row_size,
                                       struct tiered_value *value)
{
    const struct rows nested = {row->nested, row->n_nested, row_size};
    struct tiered_option alternative;
    switch (row->type) {
    case TIERED_STRING:
        return row->unit && strcmp(row->unit, "path") == 0 ? absolute(w, value)
                                                           : as_text(w, value);
    case TIERED_STRINGS:
    case TIERED_PAIRS:
        return as_text(w, value);
    case TIERED_SECTION:
        return type_options(w, &nested, value);
    case TIERED_CHOICE: /* {NAME: {its options}} */
        if (value->kind == TIERED_MAPPING && value->n == 1 &&
            find_row(&nested, value->items[0]->text, &alternative)) {
            const struct rows own = {alternative.nested, alternative.n_nested,
                                     row_size};
            *slot(value, 1) = type_options(w, &own, *slot(value, 1));
            return *slot(value, 1) ? value : NULL;
        }
        return value;
    default:
        return value;
    }
}

/* In place: rewrite() has copied every collection. */
static struct tiered_value *type_options(struct writer *w, const struct rows *rows,
                                         struct tiered_value *options)
{
    for (size_t i = 0; options->kind == TIERED_MAPPING && i < options->n; i++) {
        struct tiered_option row;
        struct tiered_value **value = slot(options, 2 * i + 1);
        if (find_row(rows, options->items[2 * i]->text, &row) &&
            !(*value = type_value(w, &row, rows->size, *value))) {
            return NULL;
        }
    }
    return options;
}

static char *write_options(struct writer *w, const struct tiered_value *options)
{
    const struct rows rows = {w->plugin->options, w->plugin->n_options,
                              w->plugin->option_size};
    struct tiered_value *all = rewrite(w, options);
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes out = {0};
    all = all ? type_options(w, &rows, all) : NULL;
    if (!all || tiered_value_json(all, &out, w->err) < 0) {
        return NULL;
    }
    char *json = (char *)out.data;
    out.data = NULL;
    return json;
}

char *tiered_plan_options(const struct tiered_plan *plan, uint32_t node,
                          const struct tiered_plugin_ref *ref, struct tiered_error *err)
{
    if (!ref->options) {
        char *none = strdup("{}");
        if (!none) {
            tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        return none;
    }
    struct writer w = {
        .plan = plan, .node = node, .plugin = &ref->loaded->plugin, .err = err};
    char *json = write_options(&w, ref->options);
    tiered_arena_finish(&w.arena);
    return json;
}
