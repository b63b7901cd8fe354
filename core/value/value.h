/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A parsed YAML (or JSON, which YAML contains) document: scalars, sequences and
 * mappings that know where they stood. Everything lives in one arena and is freed in
 * one call.
 *
 * Bounds, checked while parsing: 4 MiB of text, 64 levels, 1,000,000 values, aliases
 * expanded up to the same count (so an alias bomb is an error, not a wait), UTF-8
 * without NUL, 1000 anchors. One document a file. Keys are text; duplicate keys, tags
 * and merge keys (<<) are errors. An alias shares its anchor's value, place included.
 *
 * Threads: immutable once parsed.
 */
#ifndef TIERED_CORE_VALUE_H
#define TIERED_CORE_VALUE_H

#include "core/base/base.h"

enum tiered_value_kind {
    TIERED_NULL, /* nothing written, or plain null, ~ */
    TIERED_SCALAR,
    TIERED_SEQUENCE,
    TIERED_MAPPING,
};

#define TIERED_MAX_DOCUMENT_BYTES (4u << 20)
#define TIERED_MAX_DOCUMENT_DEPTH 64u
#define TIERED_MAX_VALUES         1000000u

struct tiered_value {
    enum tiered_value_kind kind;
    struct tiered_mark mark;
    const char *text; /* SCALAR: NUL-terminated */
    bool quoted;      /* SCALAR: was quoted, so a string and nothing else */
    size_t n;         /* SEQUENCE: items; MAPPING: pairs */
    struct tiered_value *const *items; /* SEQUENCE: n; MAPPING: 2 n, key then value */
};

/** Problems found in a file: all of them are reported in one run. */
struct tiered_diagnostics {
    struct tiered_diagnostic {
        bool warning;
        struct tiered_mark mark;
        char text[512];
    } * items;
    size_t n, capacity; /* at most 100 are kept; the counts go on */
    size_t n_errors, n_warnings;
    char **files; /* the marks' file names: they outlive the documents */
    size_t n_files;
};
__attribute__((format(printf, 3, 4))) int
tiered_diag_error(struct tiered_diagnostics *diag, struct tiered_mark mark,
                  const char *fmt, ...); /* always -1 */
#ifdef __clang_analyzer__                /* see tiered_failed() */
#define tiered_diag_error(...) (tiered_diag_error(__VA_ARGS__), tiered_failed())
#endif
__attribute__((format(printf, 3, 4))) void
tiered_diag_warn(struct tiered_diagnostics *diag, struct tiered_mark mark,
                 const char *fmt, ...);
void tiered_diag_finish(struct tiered_diagnostics *diag);
/** `file:line:col: error: text`, then the line (cut to 160 characters) with a caret.
    Sorted by place. `source` is the file's text, for the line; NULL: none. A mark of
    line 0 has no place in a file (--set), and gets neither numbers nor a line. */
void tiered_diag_print(const struct tiered_diagnostics *diag, const char *source,
                       size_t source_size, FILE *out);

struct tiered_document;
/** `file` names it in marks and is copied. NULL and diagnostics on any problem; a text
    without any value is one. */
struct tiered_document *tiered_document_parse(const char *file, const void *text,
                                              size_t size,
                                              struct tiered_diagnostics *diag);
void tiered_document_destroy(struct tiered_document *document);
const struct tiered_value *tiered_document_root(const struct tiered_document *document);
/** The value of `key`, or NULL. */
const struct tiered_value *tiered_value_get(const struct tiered_value *mapping,
                                            const char *key);
/** The mapping's key as written, with its place; NULL as above. */
const struct tiered_value *tiered_value_key(const struct tiered_value *mapping,
                                            const char *key);
/** Set a dotted path to the YAML after the first '=' ("run.rounds=3"): used by --set.
   Builds in the document's arena, and new values where an alias shares one; a path
   through a sequence finds {NAME: …} or NAME items by name, and tiers by their `name:`.
   Keys that are missing are added. Not for a document that others are reading. */
int tiered_document_set(struct tiered_document *document, const char *assignment,
                        struct tiered_error *err);
/** Compact JSON of a value; scalars keep their type. */
int tiered_value_json(const struct tiered_value *value, struct tiered_bytes *out,
                      struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_document, tiered_document_destroy)

#endif
