/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The JSON Schema of the topology file (draft-07, which editors know best), from the
 * loader's table of keys and the plugins' option rows. It refuses what a table can
 * tell; what keys mean together only `tiered validate` knows. A string may hold
 * ${VARIABLE} where anything else is wanted: the environment decides what stands there.
 */
#ifndef TIERED_ORCHESTRATOR_SCHEMA_H
#define TIERED_ORCHESTRATOR_SCHEMA_H

#include <jansson.h>
#include <stdio.h>

#include "core/plugins/plugins.h"

/** To `out`, with every plugin of the folder; `refused` as in tiered_plugins_all. */
int schema_print(struct tiered_plugins *plugins,
                 void (*refused)(void *user, const char *path,
                                 const struct tiered_error *err),
                 FILE *out, struct tiered_error *err);

/* Between schema.c and schema_plugins.c. */

#define SCHEMA_VARIABLE "\\$\\{[^}]+\\}"
#define SCHEMA_DURATION "[0-9]+(\\.[0-9]+)?(ms|s|m|h)"
#define SCHEMA_BYTES    "[0-9]+(\\.[0-9]+)?([KMGT]i?)?B"

/** One printing. */
struct schema {
    const struct tiered_loaded *const *plugins;
    size_t n_plugins;
    bool failed; /* out of memory, or a plugin's text is not UTF-8 */
};

/** json_object_set_new and json_array_append_new that note a failure. */
void schema_put(struct schema *s, json_t *object, const char *key, json_t *value);
void schema_add(struct schema *s, json_t *array, json_t *value);
/** A whole number is written as one. */
json_t *schema_number(double value);
/** A string that is all `pattern`, or holds a variable; `want` says what it must be. */
json_t *schema_pattern(struct schema *s, const char *pattern, const char *want);
/** What JSON calls `type`, or a string that holds a variable. */
json_t *schema_typed(struct schema *s, const char *type, const char *want);
/** {"$ref": "#/definitions/NAME"} */
json_t *schema_ref(const char *name);
/** A mapping of these properties and no others; takes both over. */
json_t *schema_object(struct schema *s, json_t *properties, json_t *required,
                      bool may_be_null);
/** A plugin of this kind: its name, or a mapping of its name to its options. */
/** With `noise_alone` of filters those that add noise. */
json_t *schema_kind(struct schema *s, enum tiered_kind kind, bool noise_alone);
/** What YAML makes of a text, such as a default. */
json_t *schema_yaml(const char *text);

#endif
