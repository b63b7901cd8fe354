/* SPDX-License-Identifier: Apache-2.0 */
/* The schema: the topology's keys, and what all parts are made with. */
#include "orchestrator/schema.h"

#include <math.h>

#include "core/topology/keys.h"
#include "core/topology/topology.h"

#define NAME  "[a-z0-9][a-z0-9._-]{0,62}"
#define SHARE "(?!0*(\\.0*)?%)([0-9]{1,2}(\\.[0-9]*)?|\\.[0-9]+|100(\\.0*)?)%"
#define GLOB  "^[a-z0-9._*?!^:\\\\\\[\\]-]+$"

void schema_put(struct schema *s, json_t *object, const char *key, json_t *value)
{
    s->failed |= json_object_set_new(object, key, value) < 0;
}

void schema_add(struct schema *s, json_t *array, json_t *value)
{
    s->failed |= json_array_append_new(array, value) < 0;
}

json_t *schema_number(double value)
{
    bool whole = value == floor(value) && fabs(value) <= 0x1p53;
    return whole ? json_integer((json_int_t)value) : json_real(value);
}

json_t *schema_ref(const char *name)
{
    return json_pack("{s:o}", "$ref", json_sprintf("#/definitions/%s", name));
}

/* Of what is no string, only its type counts: a pattern is for strings alone. */
static void put_pattern(struct schema *s, json_t *object, json_t *pattern,
                        const char *want)
{
    schema_put(s, object, "pattern", pattern);
    schema_put(s, object, "patternErrorMessage",
               json_sprintf("must be %s, or hold a ${VARIABLE}", want));
}

json_t *schema_pattern(struct schema *s, const char *pattern, const char *want)
{
    json_t *object = json_pack("{s:s}", "type", "string");
    put_pattern(s, object, json_sprintf("^(%s)$|%s", pattern, SCHEMA_VARIABLE), want);
    return object;
}

json_t *schema_typed(struct schema *s, const char *type, const char *want)
{
    json_t *object = json_pack("{s:[s, s]}", "type", type, "string");
    put_pattern(s, object, json_string(SCHEMA_VARIABLE), want);
    return object;
}

json_t *schema_object(struct schema *s, json_t *properties, json_t *required,
                      bool may_be_null)
{
    json_t *type =
        may_be_null ? json_pack("[s, s]", "object", "null") : json_string("object");
    json_t *object = json_pack("{s:o, s:o, s:b}", "type", type, "properties",
                               properties, "additionalProperties", 0);
    if (json_array_size(required)) {
        schema_put(s, object, "required", json_incref(required));
    }
    json_decref(required);
    return object;
}

static json_t *whole_json(struct schema *s, double min, double max)
{
    if (min == max) {
        return json_pack("{s:o}", "const", schema_number(min));
    }
    json_t *object = schema_typed(s, "integer", "a whole number");
    schema_put(s, object, "minimum", schema_number(min));
    schema_put(s, object, "maximum", schema_number(max));
    return object;
}

static json_t *sample_json(struct schema *s)
{
    json_t *poisson =
        json_pack("{s:o}", "poisson", schema_pattern(s, SHARE, "a chance such as 10%"));
    return json_pack("{s:[o, o]}", "anyOf",
                     schema_pattern(s, SHARE, "a share such as 50%"),
                     schema_object(s, poisson, json_pack("[s]", "poisson"), false));
}

static json_t *quorum_json(struct schema *s)
{
    json_t *object = schema_pattern(s, SHARE, "a share such as 75%");
    schema_put(s, object, "type", json_pack("[s, s]", "string", "integer"));
    schema_put(s, object, "minimum", json_integer(1));
    schema_put(s, object, "maximum", json_integer(UINT32_MAX));
    return object;
}

static json_t *choice_json(struct schema *s, const struct key_row *row)
{
    json_t *words = json_array();
    for (uint32_t i = 0; i < row->n_now; i++) {
        schema_add(s, words, json_string(row->choices[i]));
    }
    return json_pack("{s:[{s:o}, o]}", "anyOf", "enum", words, schema_ref("variable"));
}

static json_t *text_json(void)
{
    return json_pack("{s:[s, s], s:i, s:i}", "type", "string", "number", "minLength", 1,
                     "maxLength", TIERED_MAX_KEY_TEXT);
}

static json_t *model_json(struct schema *s)
{
    return json_pack("{s:[{s:s, s:{s:{s:s}}, s:[s], s:b}, o]}", "anyOf", "type",
                     "object", "properties", "from", "const", "trainer", "required",
                     "from", "additionalProperties", 0,
                     schema_pattern(s, ".+\\.safetensors", "a .safetensors file"));
}

/* Only nothing may be written; editors do not propose it. */
static json_t *later_json(void)
{
    return json_pack("{s:[s, s, s], s:i, s:i, s:s, s:b}", "type", "array", "object",
                     "null", "maxItems", 0, "maxProperties", 0, "deprecationMessage",
                     "not in this version; leave it out", "doNotSuggest", 1);
}

static json_t *tiers_json(struct schema *s)
{
    json_t *never = json_object(); /* what no root has */
    for (size_t i = 0; i < tiered_tier_n_rows; i++) {
        const struct key_row *row = &tiered_tier_rows[i];
        unsigned where = row->where & ~(unsigned)KEY_NEEDED;
        if (where == KEY_LEAF || where == (KEY_STRUCTURE | KEY_BELOW)) {
            schema_put(s, never, row->name, json_false());
        }
    }
    return json_pack("{s:s, s:o, s:i, s:i, s:[{s:[{s:o}]}]}", "type", "array", "items",
                     schema_ref("tier"), "minItems", TIERED_MIN_TIERS, "maxItems",
                     TIERED_MAX_TIERS, "allOf", "items", "properties", never);
}

static json_t *tree_json(void)
{
    return json_pack("{s:[s, s], s:{s:s}, s:o, s:i, s:i}", "type", "object", "null",
                     "propertyNames", "pattern", "^" NAME "$", "additionalProperties",
                     schema_ref("children"), "minProperties", 1, "maxProperties", 1);
}

static json_t *nodes_json(void)
{
    return json_pack("{s:[s, s], s:{s:o}, s:b}", "type", "object", "null",
                     "patternProperties", GLOB, schema_ref("settings"),
                     "additionalProperties", 0);
}

static json_t *keys_json(struct schema *s, const struct key_row *rows, size_t n_rows,
                         unsigned refuse, bool may_be_null);

static json_t *key_value_json(struct schema *s, const struct key_row *row,
                              unsigned refuse)
{
    switch (row->type) {
    case KEY_TEXT:
        return text_json();
    case KEY_NAME:
        return schema_pattern(s, NAME, "a name: 1 to 63 of a-z 0-9 . _ -");
    case KEY_COUNT:
    case KEY_INTEGER:
        return whole_json(s, row->min, row->max);
    case KEY_NUMBER:
        return schema_typed(s, "number", "a number");
    case KEY_BOOLEAN:
        return schema_typed(s, "boolean", "true or false");
    case KEY_CHOICE:
        return choice_json(s, row);
    case KEY_SAMPLE:
        return sample_json(s);
    case KEY_QUORUM:
        return quorum_json(s);
    case KEY_DURATION:
        return schema_pattern(s, "(?=.*[1-9])" SCHEMA_DURATION,
                              "a duration such as 500ms, 30s, 10m or 2h");
    case KEY_BYTES:
        return schema_pattern(s, SCHEMA_BYTES, "a size such as 64KiB, 512MiB or 1GiB");
    case KEY_STRATEGY:
        return schema_ref("strategy");
    case KEY_UPLINK:
        return schema_ref("uplink");
    case KEY_DOWNLINK:
        return schema_ref("downlink");
    case KEY_TRANSPORT:
        return schema_ref("transport");
    case KEY_TRAINER:
        return schema_ref("trainer");
    case KEY_MODEL:
        return model_json(s);
    case KEY_SECTION:
        return keys_json(s, row->nested, row->n_nested, refuse, true);
    case KEY_DEFAULTS:
        return schema_ref("settings");
    case KEY_TIERS:
        return tiers_json(s);
    case KEY_TREE:
        return tree_json();
    case KEY_NODES:
        return nodes_json();
    case KEY_LATER:
        return later_json();
    }
    return NULL;
}

/* Which nodes a tier's key is for; NULL for other keys. */
static const char *where_text(unsigned where)
{
    if (where & KEY_BELOW) {
        return where & (KEY_STRUCTURE | KEY_LEAF) ? "not the root"
                                                  : "inner, not the root";
    }
    switch (where & (KEY_INNER | KEY_LEAF)) {
    case KEY_INNER:
        return "inner";
    case KEY_LEAF:
        return "leaves";
    case KEY_INNER | KEY_LEAF:
        return "all";
    default:
        return where & KEY_STRUCTURE ? "all" : NULL;
    }
}

/* What the row says besides its value: to editors, and with x- to docs/tables.py. */
static void put_words(struct schema *s, json_t *value, const struct key_row *row)
{
    const char *where = where_text(row->where);
    schema_put(s, value, "description", json_string(row->help));
    if (row->fallback) {
        schema_put(s, value, "default", schema_yaml(row->fallback));
    }
    if (where) {
        schema_put(s, value, "x-where", json_string(where));
    }
    if (row->where & KEY_NEEDED) {
        schema_put(s, value, "x-needed", json_true());
    }
}

static json_t *keys_json(struct schema *s, const struct key_row *rows, size_t n_rows,
                         unsigned refuse, bool may_be_null)
{
    json_t *properties = json_object(), *required = json_array();
    json_t *together = json_object();
    for (size_t i = 0; i < n_rows; i++) {
        if (rows[i].where & refuse) {
            continue;
        }
        json_t *value = key_value_json(s, &rows[i], refuse);
        put_words(s, value, &rows[i]);
        schema_put(s, properties, rows[i].name, value);
        if (rows[i].where & KEY_REQUIRED) {
            schema_add(s, required, json_string(rows[i].name));
        }
        if (rows[i].with) {
            schema_put(s, together, rows[i].name, json_pack("[s]", rows[i].with));
        }
    }
    json_t *object = schema_object(s, properties, required, may_be_null);
    if (json_object_size(together)) {
        schema_put(s, object, "dependencies", json_incref(together));
    }
    json_decref(together);
    return object;
}

/* One plugin may stand without a list. */
static json_t *strategy_json(void)
{
    return json_pack("{s:[o, {s:s, s:[o], s:{s:[o, o]}, s:i, s:i}]}", "anyOf",
                     schema_ref("aggregator"), "type", "array", "items",
                     schema_ref("aggregator"), "additionalItems", "anyOf",
                     schema_ref("optimizer"), schema_ref("noise"), "minItems", 1,
                     "maxItems", TIERED_MAX_STAGES);
}

static json_t *pipe_json(const char *stage)
{
    return json_pack("{s:[o, {s:s, s:o, s:i}, {s:s}]}", "anyOf", schema_ref(stage),
                     "type", "array", "items", schema_ref(stage), "maxItems",
                     TIERED_MAX_STAGES, "type", "null");
}

/* Of the tree: names, or names with what is below them. */
static json_t *children_json(void)
{
    return json_pack(
        "{s:[s, s, s], s:{s:s}, s:o, s:{s:[s, s], s:s, s:{s:s}, s:o, s:i, s:i}}",
        "type", "object", "array", "null", "propertyNames", "pattern", "^" NAME "$",
        "additionalProperties", schema_ref("children"), "items", "type", "string",
        "object", "pattern", "^" NAME "$|" SCHEMA_VARIABLE, "propertyNames", "pattern",
        "^" NAME "$", "additionalProperties", schema_ref("children"), "minProperties",
        1, "maxProperties", 1);
}

static json_t *definitions_json(struct schema *s)
{
    json_t *all = json_object();
    schema_put(s, all, "variable",
               json_pack("{s:s, s:s}", "type", "string", "pattern", SCHEMA_VARIABLE));
    schema_put(s, all, "tier",
               keys_json(s, tiered_tier_rows, tiered_tier_n_rows, 0, false));
    schema_put(s, all, "settings",
               keys_json(s, tiered_tier_rows, tiered_tier_n_rows, KEY_STRUCTURE, true));
    schema_put(s, all, "children", children_json());
    schema_put(s, all, "strategy", strategy_json());
    schema_put(s, all, "uplink", pipe_json("stage"));
    schema_put(s, all, "downlink", pipe_json("filter"));
    schema_put(
        s, all, "stage",
        json_pack("{s:[o, o]}", "anyOf", schema_ref("filter"), schema_ref("group")));
    for (enum tiered_kind kind = TIERED_AGGREGATOR; kind <= TIERED_TRAINER; kind++) {
        schema_put(s, all, tiered_kind_name(kind), schema_kind(s, kind, false));
    }
    schema_put(s, all, "noise", schema_kind(s, TIERED_FILTER, true));
    return all;
}

int schema_print(struct tiered_plugins *plugins,
                 void (*refused)(void *user, const char *path,
                                 const struct tiered_error *err),
                 FILE *out, struct tiered_error *err)
{
    struct schema s = {0};
    if (tiered_plugins_all(plugins, &s.plugins, &s.n_plugins, refused, NULL, err) < 0) {
        return -1;
    }
    json_t *whole = json_pack("{s:s, s:s, s:s}", "$schema",
                              "http://json-schema.org/draft-07/schema#", "title",
                              "a topology of Tiered", "description",
                              "printed by 'tiered validate --schema'");
    json_t *keys = keys_json(&s, tiered_top_rows, tiered_top_n_rows, 0, false);
    s.failed |= json_object_update(whole, keys) < 0;
    json_decref(keys);
    schema_put(&s, whole, "definitions", definitions_json(&s));
    int result = s.failed
                     ? -1
                     : json_dumpf(whole, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_decref(whole);
    if (result < 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "cannot print the schema: out of memory, or what a plugin "
                           "says is not UTF-8 text");
    }
    fputc('\n', out);
    return 0;
}
