/* SPDX-License-Identifier: Apache-2.0 */
/* Filling a config struct: first every default, nested ones too, then what is written.
 */
#include <stdio.h>
#include <string.h>

#include "core/options/internal.h"
#include "core/plugins/plugins.h"

#define NAME_MAX_BYTES   256
#define PHRASE_MAX_BYTES 200
#define SHOWN_MAX_BYTES  80

struct fill {
    const char *what;
    size_t row_size;
    const struct tiered_expander *expander;
    char *data;
    struct tiered_config_memory *memory;
    struct tiered_diagnostics *diag;
    struct tiered_mark mark; /* of the whole, for what is not written anywhere */
};

struct scope {
    const struct tiered_option *rows;
    size_t n;
    const char *prefix; /* "" or "partition.dirichlet." */
};

static int fill_scope(struct fill *fill, const struct scope *scope,
                      const struct tiered_value *value, struct tiered_mark mark);
static int fill_value(struct fill *fill, const struct tiered_option *row,
                      const char *name, const struct tiered_value *value);

static bool is_written(const struct tiered_value *value)
{
    return value && value->kind != TIERED_NULL;
}

/* "a number in [0, 0.5)", "one of iid, shards" */
static void describe_row(const struct fill *fill, const struct tiered_option *row,
                         char out[PHRASE_MAX_BYTES])
{
    char text[PHRASE_MAX_BYTES - 32];
    tiered_option_type_text(row, fill->row_size, text, sizeof(text));
    switch (row->type) {
    case TIERED_BOOLEAN:
    case TIERED_CHOICE:
        snprintf(out, PHRASE_MAX_BYTES, "%s", text);
        break;
    case TIERED_INTEGER:
        snprintf(out, PHRASE_MAX_BYTES, "an %s", text);
        break;
    case TIERED_DURATION:
        snprintf(out, PHRASE_MAX_BYTES, "a duration such as 30s");
        break;
    case TIERED_BYTES:
        snprintf(out, PHRASE_MAX_BYTES, "a size such as 512MiB");
        break;
    case TIERED_SECTION:
        snprintf(out, PHRASE_MAX_BYTES, "a mapping of its own options");
        break;
    default:
        snprintf(out, PHRASE_MAX_BYTES, "a %s", text);
    }
}

/* At most SHOWN_MAX_BYTES of a user's text, not cut inside a character. */
static void cut(const char *text, char out[SHOWN_MAX_BYTES + 8])
{
    size_t n = strnlen(text, SHOWN_MAX_BYTES + 1);
    bool whole = n <= SHOWN_MAX_BYTES;
    if (!whole) {
        for (n = SHOWN_MAX_BYTES; n && ((unsigned char)text[n] & 0xC0) == 0x80;) {
            n--;
        }
    }
    snprintf(out, SHOWN_MAX_BYTES + 8, "%.*s%s", (int)n, text, whole ? "" : "…");
}

static int fail_type(struct fill *fill, const struct tiered_option *row,
                     const char *name, const struct tiered_value *value)
{
    char phrase[PHRASE_MAX_BYTES], shown[SHOWN_MAX_BYTES + 8];
    describe_row(fill, row, phrase);
    if (value->kind != TIERED_SCALAR) {
        return tiered_diag_error(fill->diag, value->mark,
                                 "%s: option '%s' must be %s, not %s", fill->what, name,
                                 phrase,
                                 value->kind == TIERED_SEQUENCE  ? "a list"
                                 : value->kind == TIERED_MAPPING ? "a mapping"
                                                                 : "nothing");
    }
    cut(value->text, shown);
    return tiered_diag_error(fill->diag, value->mark,
                             "%s: option '%s' must be %s, not %s'%s'", fill->what, name,
                             phrase, value->quoted ? "the quoted string " : "", shown);
}

static int fail_memory(struct fill *fill)
{
    return tiered_diag_error(fill->diag, fill->mark, "%s: out of memory", fill->what);
}

static void store(struct fill *fill, const struct tiered_option *row, const void *value,
                  size_t size)
{
    memcpy(fill->data + row->offset, value, size);
}

static int fill_boolean(struct fill *fill, const struct tiered_option *row,
                        const char *name, const struct tiered_value *value)
{
    bool on = value->kind == TIERED_SCALAR && strcmp(value->text, "true") == 0;
    bool off = value->kind == TIERED_SCALAR && strcmp(value->text, "false") == 0;
    if (value->quoted || (!on && !off)) {
        return fail_type(fill, row, name, value);
    }
    store(fill, row, &on, sizeof(on));
    return 0;
}

static bool read_integer(const struct tiered_option *row,
                         const struct tiered_value *value, int64_t *ret)
{
    return value->kind == TIERED_SCALAR && !value->quoted &&
           tiered_integer_parse(value->text, ret) && tiered_option_in_range(row, *ret);
}

static int fill_integer(struct fill *fill, const struct tiered_option *row,
                        const char *name, const struct tiered_value *value)
{
    int64_t number;
    if (!read_integer(row, value, &number)) {
        return fail_type(fill, row, name, value);
    }
    store(fill, row, &number, sizeof(number));
    return 0;
}

static int fill_double(struct fill *fill, const struct tiered_option *row,
                       const char *name, const struct tiered_value *value)
{
    double number;
    if (value->kind != TIERED_SCALAR || value->quoted ||
        !tiered_number_parse(value->text, &number) ||
        !tiered_option_in_range(row, number)) {
        return fail_type(fill, row, name, value);
    }
    store(fill, row, &number, sizeof(number));
    return 0;
}

static int fill_unit(struct fill *fill, const struct tiered_option *row,
                     const char *name, const struct tiered_value *value)
{
    uint64_t amount;
    bool (*parse)(const char *, uint64_t *) =
        row->type == TIERED_DURATION ? tiered_parse_duration : tiered_parse_bytes;
    if (value->kind != TIERED_SCALAR || !parse(value->text, &amount)) {
        return fail_type(fill, row, name, value);
    }
    store(fill, row, &amount, sizeof(amount));
    return 0;
}

/* Expanded and copied; `key`, if any, in front as "key=". NULL after an error. */
static char *copy_string(struct fill *fill, const char *name, const char *key,
                         const struct tiered_value *value)
{
    struct tiered_error err;
    TIERED_FREE char *expanded = NULL;
    const char *text = value->text;
    if (fill->expander) {
        expanded = fill->expander->expand(fill->expander->opaque, text, &err);
        if (!expanded) {
            tiered_diag_error(fill->diag, value->mark, "%s: option '%s': %s",
                              fill->what, name, err.text);
            return NULL;
        }
        text = expanded;
    }
    size_t size = strlen(text) + (key ? strlen(key) + 1 : 0) + 1;
    char *copy = tiered_config_allocate(fill->memory, size, 1);
    if (!copy) {
        fail_memory(fill);
        return NULL;
    }
    snprintf(copy, size, "%s%s%s", key ? key : "", key ? "=" : "", text);
    return copy;
}

static int fill_string(struct fill *fill, const struct tiered_option *row,
                       const char *name, const struct tiered_value *value)
{
    if (value->kind != TIERED_SCALAR) {
        return fail_type(fill, row, name, value);
    }
    const char *text = copy_string(fill, name, NULL, value);
    store(fill, row, &text, sizeof(text));
    return text ? 0 : -1;
}

static int fill_integers(struct fill *fill, const struct tiered_option *row,
                         const char *name, const struct tiered_value *value)
{
    if (value->kind != TIERED_SEQUENCE) {
        return fail_type(fill, row, name, value);
    }
    int64_t *items = tiered_config_allocate(fill->memory, value->n, sizeof(*items));
    if (!items) {
        return fail_memory(fill);
    }
    for (size_t i = 0; i < value->n; i++) {
        if (!read_integer(row, value->items[i], &items[i])) {
            return fail_type(fill, row, name, value->items[i]);
        }
    }
    struct tiered_integers list = {value->n, items};
    store(fill, row, &list, sizeof(list));
    return 0;
}

/* STRINGS from a sequence, PAIRS from a mapping. */
static int fill_strings(struct fill *fill, const struct tiered_option *row,
                        const char *name, const struct tiered_value *value)
{
    bool pairs = row->type == TIERED_PAIRS;
    if (value->kind != (pairs ? TIERED_MAPPING : TIERED_SEQUENCE)) {
        return fail_type(fill, row, name, value);
    }
    const char **items =
        tiered_config_allocate(fill->memory, value->n, sizeof(const char *));
    if (!items) {
        return fail_memory(fill);
    }
    for (size_t i = 0; i < value->n; i++) {
        const struct tiered_value *key = pairs ? value->items[2 * i] : NULL;
        const struct tiered_value *item = value->items[pairs ? 2 * i + 1 : i];
        if (item->kind != TIERED_SCALAR || (key && key->kind != TIERED_SCALAR)) {
            return fail_type(fill, row, name, item->kind == TIERED_SCALAR ? key : item);
        }
        items[i] = copy_string(fill, name, key ? key->text : NULL, item);
        if (!items[i]) {
            return -1;
        }
    }
    struct tiered_strings list = {value->n, items};
    store(fill, row, &list, sizeof(list));
    return 0;
}

/* The nearest of the rows' names; NULL when none is near. */
static const char *nearest_row(const struct fill *fill,
                               const struct tiered_option *rows, size_t n,
                               const char *word)
{
    const char *names[256];
    size_t n_names = 0;
    for (; n_names < n && n_names < TIERED_COUNT(names); n_names++) {
        names[n_names] = tiered_option_row(rows, fill->row_size, n_names).name;
    }
    return tiered_nearest(word, names, n_names);
}

static bool find_row(const struct fill *fill, const struct tiered_option *rows,
                     size_t n, const char *name, struct tiered_option *ret,
                     size_t *ret_index)
{
    for (size_t i = 0; i < n; i++) {
        *ret = tiered_option_row(rows, fill->row_size, i);
        if (strcmp(ret->name, name) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

static int fail_choice(struct fill *fill, const struct tiered_option *row,
                       const char *name, const struct tiered_value *value)
{
    char phrase[PHRASE_MAX_BYTES], shown[SHOWN_MAX_BYTES + 8];
    const char *near = nearest_row(fill, row->nested, row->n_nested, value->text);
    if (!near) {
        return fail_type(fill, row, name, value);
    }
    describe_row(fill, row, phrase);
    cut(value->text, shown);
    return tiered_diag_error(fill->diag, value->mark,
                             "%s: option '%s' must be %s, not '%s'; did you mean '%s'?",
                             fill->what, name, phrase, shown, near);
}

static int fill_choice(struct fill *fill, const struct tiered_option *row,
                       const char *name, const struct tiered_value *value)
{
    const struct tiered_value *key = value, *options = NULL;
    struct tiered_option alternative;
    char prefix[NAME_MAX_BYTES];
    size_t index = 0;
    if (value->kind == TIERED_MAPPING && value->n == 1) {
        key = value->items[0];
        options = value->items[1];
    }
    if (key->kind != TIERED_SCALAR) {
        return fail_type(fill, row, name, value);
    }
    if (!find_row(fill, row->nested, row->n_nested, key->text, &alternative, &index)) {
        return fail_choice(fill, row, name, key);
    }
    int32_t chosen = (int32_t)index;
    store(fill, row, &chosen, sizeof(chosen));
    snprintf(prefix, sizeof(prefix), "%s.%s.", name, alternative.name);
    struct scope scope = {alternative.nested, alternative.n_nested, prefix};
    return fill_scope(fill, &scope, options, value->mark);
}

static int fill_section(struct fill *fill, const struct tiered_option *row,
                        const char *name, const struct tiered_value *value)
{
    char prefix[NAME_MAX_BYTES];
    bool present = true;
    if (value->kind != TIERED_MAPPING) {
        return fail_type(fill, row, name, value);
    }
    store(fill, row, &present, sizeof(present));
    snprintf(prefix, sizeof(prefix), "%s.", name);
    struct scope scope = {row->nested, row->n_nested, prefix};
    return fill_scope(fill, &scope, value, value->mark);
}

static int fill_value(struct fill *fill, const struct tiered_option *row,
                      const char *name, const struct tiered_value *value)
{
    switch (row->type) {
    case TIERED_BOOLEAN:
        return fill_boolean(fill, row, name, value);
    case TIERED_INTEGER:
        return fill_integer(fill, row, name, value);
    case TIERED_DOUBLE:
        return fill_double(fill, row, name, value);
    case TIERED_STRING:
        return fill_string(fill, row, name, value);
    case TIERED_DURATION:
    case TIERED_BYTES:
        return fill_unit(fill, row, name, value);
    case TIERED_CHOICE:
        return fill_choice(fill, row, name, value);
    case TIERED_SECTION:
        return fill_section(fill, row, name, value);
    case TIERED_INTEGERS:
        return fill_integers(fill, row, name, value);
    case TIERED_STRINGS:
    case TIERED_PAIRS:
        return fill_strings(fill, row, name, value);
    }
    return tiered_diag_error(fill->diag, value->mark, "%s: option '%s' has no type",
                             fill->what, name);
}

static int check_key(struct fill *fill, const struct scope *scope,
                     const struct tiered_value *key)
{
    struct tiered_option row;
    size_t index;
    char shown[SHOWN_MAX_BYTES + 8];
    if (key->kind != TIERED_SCALAR) {
        return tiered_diag_error(fill->diag, key->mark,
                                 "%s: an option's name must be a plain word",
                                 fill->what);
    }
    if (find_row(fill, scope->rows, scope->n, key->text, &row, &index)) {
        return 0;
    }
    const char *near = nearest_row(fill, scope->rows, scope->n, key->text);
    cut(key->text, shown);
    if (near) {
        return tiered_diag_error(fill->diag, key->mark,
                                 "unknown option '%s%s' of %s; did you mean '%s%s'?",
                                 scope->prefix, shown, fill->what, scope->prefix, near);
    }
    return tiered_diag_error(fill->diag, key->mark, "unknown option '%s%s' of %s%s",
                             scope->prefix, shown, fill->what,
                             scope->n ? "" : ", which has none");
}

static int fill_row(struct fill *fill, const struct tiered_option *row,
                    const char *prefix, const struct tiered_value *written,
                    struct tiered_mark mark)
{
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof(name), "%s%s", prefix, row->name);
    if (!is_written(written)) {
        return row->flags & TIERED_REQUIRED
                   ? tiered_diag_error(fill->diag, mark,
                                       "option '%s' of %s is required", name,
                                       fill->what)
                   : 0;
    }
    if (row->given_offset != TIERED_NO_OFFSET) {
        const bool given = true;
        memcpy(fill->data + row->given_offset, &given, sizeof(given));
    }
    return fill_value(fill, row, name, written);
}

static int fill_scope(struct fill *fill, const struct scope *scope,
                      const struct tiered_value *value, struct tiered_mark mark)
{
    int result = 0;
    bool mapping = is_written(value);
    if (mapping && value->kind != TIERED_MAPPING) {
        return tiered_diag_error(fill->diag, value->mark,
                                 "%s: options%s%.*s must be written as a mapping, "
                                 "{name: value}",
                                 fill->what, scope->prefix[0] ? " of " : "",
                                 (int)(strlen(scope->prefix) - !!scope->prefix[0]),
                                 scope->prefix);
    }
    for (size_t i = 0; mapping && i < value->n; i++) {
        result |= check_key(fill, scope, value->items[2 * i]);
    }
    for (size_t i = 0; i < scope->n; i++) {
        struct tiered_option row = tiered_option_row(scope->rows, fill->row_size, i);
        const struct tiered_value *written =
            mapping ? tiered_value_get(value, row.name) : NULL;
        result |= fill_row(fill, &row, scope->prefix, written, mark);
    }
    return result;
}

/* A default is read by the code that reads what users write. Only lists, mappings and
   choices with options of their own need the parser: a string is taken as it is. */
static int fill_default(struct fill *fill, const struct tiered_option *row,
                        const char *name)
{
    char first = row->fallback[0];
    if (row->type == TIERED_STRING || (first != '[' && first != '{')) {
        struct tiered_value scalar = {
            .kind = TIERED_SCALAR, .mark = fill->mark, .text = row->fallback};
        return fill_value(fill, row, name, &scalar);
    }
    /* A place inside the default means nothing to who reads the file: what is wrong
       with it is told again with the mark of the whole. */
    struct tiered_diagnostics *diag = fill->diag, own = {0};
    fill->diag = &own;
    TIERED_CLEANUP(tiered_document_destroyp)
    struct tiered_document *document =
        tiered_document_parse("default", row->fallback, strlen(row->fallback), &own);
    int result =
        document ? fill_value(fill, row, name, tiered_document_root(document)) : -1;
    fill->diag = diag;
    for (size_t i = 0; i < own.n; i++) {
        tiered_diag_error(diag, fill->mark, "%s", own.items[i].text);
    }
    tiered_diag_finish(&own);
    return result;
}

static int fill_defaults(struct fill *fill, const struct scope *scope);

static int fill_nested_defaults(struct fill *fill, const struct tiered_option *row,
                                const char *name)
{
    char prefix[NAME_MAX_BYTES];
    int result = 0;
    if (row->type == TIERED_SECTION) {
        snprintf(prefix, sizeof(prefix), "%.*s.", NAME_MAX_BYTES - 2, name);
        struct scope inner = {row->nested, row->n_nested, prefix};
        return fill_defaults(fill, &inner);
    }
    for (size_t i = 0; row->type == TIERED_CHOICE && i < row->n_nested; i++) {
        struct tiered_option alternative =
            tiered_option_row(row->nested, fill->row_size, i);
        snprintf(prefix, sizeof(prefix), "%.*s.%s.", NAME_MAX_BYTES - 70, name,
                 alternative.name);
        struct scope inner = {alternative.nested, alternative.n_nested, prefix};
        result |= fill_defaults(fill, &inner);
    }
    return result;
}

static int fill_defaults(struct fill *fill, const struct scope *scope)
{
    int result = 0;
    for (size_t i = 0; i < scope->n; i++) {
        struct tiered_option row = tiered_option_row(scope->rows, fill->row_size, i);
        char name[NAME_MAX_BYTES];
        snprintf(name, sizeof(name), "%s%s", scope->prefix, row.name);
        result |= fill_nested_defaults(fill, &row, name);
        if (row.fallback) {
            result |= fill_default(fill, &row, name);
        }
    }
    return result;
}

int tiered_config_fill(const struct tiered_option *rows, size_t n_rows, size_t row_size,
                       size_t config_size, const char *what,
                       const struct tiered_value *value, struct tiered_mark mark,
                       const struct tiered_expander *expander,
                       struct tiered_config *ret, struct tiered_diagnostics *diag)
{
    struct tiered_config config = {
        .data = calloc(1, config_size ? config_size : 1),
        .memory = calloc(1, sizeof(*config.memory)),
    };
    struct fill fill = {what,          row_size, expander, config.data,
                        config.memory, diag,     mark};
    struct scope scope = {rows, n_rows, ""};
    memset(ret, 0, sizeof(*ret));
    int result = config.data && config.memory ? 0 : fail_memory(&fill);
    if (result == 0) {
        result = fill_defaults(&fill, &scope);
    }
    if (result == 0) {
        result =
            fill_scope(&fill, &scope, value, is_written(value) ? value->mark : mark);
    }
    if (result < 0) {
        tiered_config_finish(&config);
        return -1;
    }
    *ret = config;
    return 0;
}
