/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the schema that plugins' option rows say. */
#include <math.h>
#include <string.h>

#include "core/options/options.h"
#include "core/privacy/filters.h"
#include "core/value/value.h"
#include "orchestrator/schema.h"

/* A table of rows, all options of one scope or the alternatives of a choice. */
struct rows {
    const struct tiered_option *rows;
    size_t n, row_size;
};

static json_t *option_json(struct schema *s, const struct tiered_option *row,
                           size_t row_size);

static bool any_required(const struct rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) {
        if (tiered_option_row(rows->rows, rows->row_size, i).flags & TIERED_REQUIRED) {
            return true;
        }
    }
    return false;
}

static json_t *options_json(struct schema *s, const struct rows *rows)
{
    json_t *properties = json_object(), *required = json_array();
    for (size_t i = 0; i < rows->n; i++) {
        struct tiered_option row = tiered_option_row(rows->rows, rows->row_size, i);
        schema_put(s, properties, row.name, option_json(s, &row, rows->row_size));
        if (row.flags & TIERED_REQUIRED) {
            schema_add(s, required, json_string(row.name));
        }
    }
    return schema_object(s, properties, required, !any_required(rows));
}

/* One of several: by its bare name, where it needs no options, or as {NAME: {options}}.
   A choice's alternative without options has its bare name only. */
struct alternatives {
    json_t *names, *helps, *properties;
};

static void add_mapping(struct schema *s, struct alternatives *a, const char *name,
                        const char *help, const struct rows *rows)
{
    json_t *options = options_json(s, rows);
    schema_put(s, options, "description", json_string(help));
    schema_put(s, a->properties, name, options);
}

static void add_name(struct schema *s, struct alternatives *a, const char *name,
                     const char *help, const struct rows *rows)
{
    if (!any_required(rows)) {
        schema_add(s, a->names, schema_yaml(name)); /* 32 is no string */
        schema_add(s, a->helps, json_string(help));
    }
}

/* `title` is how editors call the mapping in messages. */
static json_t *alternatives_json(struct schema *s, const struct alternatives *a,
                                 const char *title)
{
    json_t *any = json_array();
    if (json_array_size(a->names)) {
        schema_add(
            s, any,
            json_pack("{s:O, s:O}", "enum", a->names, "enumDescriptions", a->helps));
    }
    if (json_object_size(a->properties)) {
        schema_add(s, any,
                   json_pack("{s:s, s:s, s:O, s:b, s:i, s:i}", "title", title, "type",
                             "object", "properties", a->properties,
                             "additionalProperties", 0, "minProperties", 1,
                             "maxProperties", 1));
    }
    schema_add(s, any, schema_ref("variable"));
    json_decref(a->names);
    json_decref(a->helps);
    json_decref(a->properties);
    return json_pack("{s:o}", "anyOf", any);
}

static json_t *choice_json(struct schema *s, const struct tiered_option *row,
                           size_t row_size)
{
    struct alternatives a = {json_array(), json_array(), json_object()};
    for (size_t i = 0; i < row->n_nested; i++) {
        struct tiered_option one = tiered_option_row(row->nested, row_size, i);
        struct rows nested = {one.nested, one.n_nested, row_size};
        const char *help = one.help ? one.help : "";
        add_name(s, &a, one.name, help, &nested);
        if (nested.n) {
            add_mapping(s, &a, one.name, help, &nested);
        }
    }
    return alternatives_json(s, &a, row->name);
}

static json_t *number_json(struct schema *s, const struct tiered_option *row)
{
    bool real = row->type == TIERED_DOUBLE;
    json_t *object = schema_typed(s, real ? "number" : "integer",
                                  real ? "a number" : "a whole number");
    if (row->min == 0 && row->max == 0) {
        return object;
    }
    if (isfinite(row->min)) {
        bool open = row->flags & TIERED_EXCLUSIVE_MIN;
        schema_put(s, object, open ? "exclusiveMinimum" : "minimum",
                   schema_number(row->min));
    }
    if (isfinite(row->max)) {
        bool open = row->flags & TIERED_EXCLUSIVE_MAX;
        schema_put(s, object, open ? "exclusiveMaximum" : "maximum",
                   schema_number(row->max));
    }
    return object;
}

/* A plain 0 is text as well where text is wanted. */
static json_t *text_json(void)
{
    return json_pack("{s:[s, s]}", "type", "string", "number");
}

static json_t *value_json(struct schema *s, const struct tiered_option *row,
                          size_t row_size)
{
    switch (row->type) {
    case TIERED_BOOLEAN:
        return schema_typed(s, "boolean", "true or false");
    case TIERED_INTEGER:
    case TIERED_DOUBLE:
        return number_json(s, row);
    case TIERED_STRING:
        return text_json();
    case TIERED_DURATION:
        return schema_pattern(s, SCHEMA_DURATION, "a duration such as 30s");
    case TIERED_BYTES:
        return schema_pattern(s, SCHEMA_BYTES, "a size such as 512MiB");
    case TIERED_CHOICE:
        return choice_json(s, row, row_size);
    case TIERED_SECTION: {
        struct rows nested = {row->nested, row->n_nested, row_size};
        return options_json(s, &nested);
    }
    case TIERED_INTEGERS:
        return json_pack("{s:s, s:o}", "type", "array", "items", number_json(s, row));
    case TIERED_STRINGS:
        return json_pack("{s:s, s:o}", "type", "array", "items", text_json());
    case TIERED_PAIRS:
        return json_pack("{s:s, s:o}", "type", "object", "additionalProperties",
                         text_json());
    }
    return NULL;
}

json_t *schema_yaml(const char *text)
{
    struct tiered_diagnostics diag = {0};
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes json = {0};
    TIERED_CLEANUP(tiered_document_destroyp)
    struct tiered_document *document =
        tiered_document_parse("default", text, strlen(text), &diag);
    json_t *value = NULL;
    if (document &&
        tiered_value_json(tiered_document_root(document), &json, NULL) == 0) {
        value = json_loadb((const char *)json.data, json.size, JSON_DECODE_ANY, NULL);
    }
    tiered_diag_finish(&diag);
    return value;
}

/* Defaults stand in rows as a user would write them. */
static json_t *default_json(const struct tiered_option *row)
{
    bool text = row->type == TIERED_STRING || row->type == TIERED_DURATION ||
                row->type == TIERED_BYTES;
    return text ? json_string(row->fallback) : schema_yaml(row->fallback);
}

/* Editors insert a default as it is, and a plain text in YAML cannot begin with these:
   such a default is only told. */
static bool needs_quotes(const struct tiered_option *row)
{
    return row->type == TIERED_STRING && row->fallback && *row->fallback &&
           strchr("{}[]\"'#&*!|>%@`,?:- ", *row->fallback);
}

/* The help, and the unit where it is not a word of the text's. */
static json_t *description_json(const struct tiered_option *row)
{
    bool path = row->type == TIERED_STRING && row->unit && !strcmp(row->unit, "path");
    const char *unit =
        path ? "a relative path starts at the topology's folder" : row->unit;
    bool told = needs_quotes(row);
    return json_sprintf("%s%s%s%s%s%s", row->help, unit ? " (" : "", unit ? unit : "",
                        unit ? ")" : "", told ? "; default " : "",
                        told ? row->fallback : "");
}

static json_t *option_json(struct schema *s, const struct tiered_option *row,
                           size_t row_size)
{
    json_t *object = value_json(s, row, row_size);
    schema_put(s, object, "description", description_json(row));
    if (row->fallback && !needs_quotes(row)) {
        schema_put(s, object, "default", default_json(row));
    }
    return object;
}

json_t *schema_kind(struct schema *s, enum tiered_kind kind, bool noise_alone)
{
    struct alternatives a = {json_array(), json_array(), json_object()};
    for (size_t i = 0; i < s->n_plugins; i++) {
        const struct tiered_plugin *plugin = &s->plugins[i]->plugin;
        if (plugin->kind == kind && (!noise_alone || tiered_privacy_is_noise(plugin))) {
            struct rows rows = {plugin->options, plugin->n_options,
                                plugin->option_size};
            add_name(s, &a, plugin->name, plugin->summary, &rows);
            add_mapping(s, &a, plugin->name, plugin->summary, &rows);
        }
    }
    return alternatives_json(s, &a, noise_alone ? "noise" : tiered_kind_name(kind));
}
