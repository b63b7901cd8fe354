/* SPDX-License-Identifier: Apache-2.0 */
/**
 * From a value and a table of option rows to a filled config struct, for every plugin
 * and for Tiered's own sections alike. The rows are the only place that knows an
 * option.
 *
 * Threads: pure functions; a config is immutable once filled.
 */
#ifndef TIERED_CORE_OPTIONS_H
#define TIERED_CORE_OPTIONS_H

#include "core/value/value.h"
#include "tiered/option.h"
#include "tiered/plugin.h"

/** A config struct together with the strings and lists that it points to. */
struct tiered_config {
    void *data; /* config_size bytes */
    struct tiered_config_memory *memory;
};

/** Expands {node} … in strings; returns a new string (malloc), or NULL with *err. */
struct tiered_expander {
    char *(*expand)(void *opaque, const char *text, struct tiered_error *err);
    void *opaque;
};

/**
 * Check `value` (a mapping; NULL or TIERED_NULL: no options written) against the rows
 * and fill a new config. `what` names the owner in messages: "aggregator
 * 'trimmed-mean'". Every problem goes to diag with its place: unknown option (with the
 * nearest name), wrong type, out of range, missing. Returns -1 if there was any, and
 * *ret is then empty. `expander` may be NULL.
 */
int tiered_config_fill(const struct tiered_option *rows, size_t n_rows, size_t row_size,
                       size_t config_size, const char *what,
                       const struct tiered_value *value, struct tiered_mark mark,
                       const struct tiered_expander *expander,
                       struct tiered_config *ret, struct tiered_diagnostics *diag);
void tiered_config_finish(struct tiered_config *config);

/** The same from JSON text, as an assignment carries it (NULL or "": no options); the
    first error in *err. */
int tiered_config_from_json(const struct tiered_plugin *plugin, const char *json,
                            struct tiered_config *ret, struct tiered_error *err);

/** "beta=0.2,partition.dirichlet.alpha=1" to the JSON of a mapping, malloc'd: the
   command line's way to write options. Values may hold [1,2] and {…}; a value in quotes
   is a string whatever it looks like. */
char *tiered_options_parse(const char *text, struct tiered_error *err);

/** Row i of a table whose rows may be shorter than ours: a zero-filled copy, whose
    given_offset is TIERED_NO_OFFSET when there is none. */
struct tiered_option tiered_option_row(const struct tiered_option *rows,
                                       size_t row_size, size_t i);
/** Is the table sound: names, types, ranges, places inside the config struct, nesting?
    0, or -1 with what is wrong with which row. */
int tiered_option_rows_check(const struct tiered_option *rows, size_t n_rows,
                             size_t row_size, size_t config_size,
                             struct tiered_error *err);
/** "number in [0, 0.5)", "duration", "one of iid, shards, dirichlet". */
void tiered_option_type_text(const struct tiered_option *row, size_t row_size,
                             char *out, size_t size);

#endif
