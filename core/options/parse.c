/* SPDX-License-Identifier: Apache-2.0 */
/* Options on the command line, "beta=0.2,partition.dirichlet.alpha=1", to JSON. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/options/internal.h"
#include "core/value/text.h"

#define TEXT_MAX_BYTES (64u << 10)
#define PAIRS_MAX      256
#define DEPTH_MAX      16

struct pair {
    char *path;
    struct tiered_bytes json;
    bool done; /* written */
};

struct pairs {
    struct pair items[PAIRS_MAX];
    size_t n;
};

static void free_pairs(struct pairs **pairs)
{
    for (size_t i = 0; *pairs && i < (*pairs)->n; i++) {
        free((*pairs)->items[i].path);
        tiered_bytes_finish(&(*pairs)->items[i].json);
    }
    free(*pairs);
}

/* Past a quoted string that begins at p; to the end when it is not closed. */
static const char *skip_quoted(const char *p)
{
    char quote = *p++;
    for (; *p && *p != quote; p++) {
        if (quote == '"' && *p == '\\' && p[1]) {
            p++;
        }
    }
    return *p ? p + 1 : p;
}

/* The comma that ends an item, or the end. Brackets and quotes hide commas. */
static const char *end_of_item(const char *p)
{
    size_t depth = 0;
    bool value_begins = false; /* a quote inside a word is only a character */
    while (*p && (*p != ',' || depth)) {
        bool quoted = (*p == '"' || *p == '\'') && value_begins;
        depth += *p == '[' || *p == '{';
        depth -= (*p == ']' || *p == '}') && depth;
        value_begins = strchr("=[{,: ", *p) != NULL;
        p = quoted ? skip_quoted(p) : p + 1;
    }
    return p;
}

/* Is all of the text one [...], {...} or quoted string, so that it has to be parsed? */
static bool is_structured(const char *text)
{
    size_t depth = 0;
    const char *p = text;
    if (*p == '"' || *p == '\'') {
        return *skip_quoted(p) == 0;
    }
    if (*p != '[' && *p != '{') {
        return false;
    }
    do {
        depth += *p == '[' || *p == '{';
        depth -= *p == ']' || *p == '}';
        p++;
    } while (*p && depth);
    return *p == 0 && depth == 0;
}

static int structured_json(const char *path, const char *text, struct tiered_bytes *out,
                           struct tiered_error *err)
{
    struct tiered_diagnostics diag = {0};
    TIERED_CLEANUP(tiered_document_destroyp)
    struct tiered_document *document =
        tiered_document_parse(path, text, strlen(text), &diag);
    if (!document) {
        tiered_fail(err, TIERED_EINVAL, "option '%.64s': %s", path,
                    diag.n ? diag.items[0].text : "not readable");
    }
    tiered_diag_finish(&diag);
    return document ? tiered_value_json(tiered_document_root(document), out, err) : -1;
}

static int value_json(const char *path, const char *text, struct tiered_bytes *out,
                      struct tiered_error *err)
{
    struct tiered_value scalar = {.kind = TIERED_SCALAR, .text = text};
    if (!text[0]) {
        return tiered_fail(err, TIERED_EINVAL, "option '%.64s' has no value after '='",
                           path);
    }
    return is_structured(text) ? structured_json(path, text, out, err)
                               : tiered_value_json(&scalar, out, err);
}

static char *trimmed(const char *from, const char *to)
{
    while (from < to && isspace((unsigned char)*from)) {
        from++;
    }
    while (to > from && isspace((unsigned char)to[-1])) {
        to--;
    }
    return strndup(from, (size_t)(to - from));
}

static bool path_ok(const char *path)
{
    char part[64];
    size_t depth = 0;
    for (;; depth++) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof(part), "%.*s", (int)(n < sizeof(part) ? n : 0), path);
        if (n >= sizeof(part) || !tiered_option_name_ok(part) || depth >= DEPTH_MAX) {
            return false;
        }
        if (!path[n]) {
            return true;
        }
        path += n + 1;
    }
}

static int read_pair(const char *from, const char *to, struct pair *pair,
                     struct tiered_error *err)
{
    const char *equals = memchr(from, '=', (size_t)(to - from));
    pair->path = trimmed(from, equals ? equals : to);
    TIERED_FREE char *value = equals ? trimmed(equals + 1, to) : NULL;
    if (!pair->path || (equals && !value)) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (!equals) {
        return pair->path[0] ? tiered_fail(err, TIERED_EINVAL,
                                           "option '%.64s' needs a value: '%.64s=…'",
                                           pair->path, pair->path)
                             : tiered_fail(err, TIERED_EINVAL,
                                           "an option is missing beside a ','");
    }
    if (!path_ok(pair->path)) {
        return tiered_fail(err, TIERED_EINVAL, "'%.64s' is not the name of an option",
                           pair->path);
    }
    return value_json(pair->path, value, &pair->json, err);
}

static int read_pairs(const char *text, struct pairs *pairs, struct tiered_error *err)
{
    const char *p = text + strspn(text, " \t");
    while (*p) {
        const char *end = end_of_item(p);
        if (pairs->n == PAIRS_MAX) {
            return tiered_fail(err, TIERED_EINVAL, "more than %d options", PAIRS_MAX);
        }
        if (read_pair(p, end, &pairs->items[pairs->n++], err) < 0) {
            return -1;
        }
        if (*end && !end[1]) {
            return tiered_fail(err, TIERED_EINVAL, "an option is missing beside a ','");
        }
        p = *end ? end + 1 : end;
    }
    return 0;
}

/* Is `path` equal to the first n bytes of `prefix`, or below them? */
static bool is_within(const char *path, const char *prefix, size_t n)
{
    return strncmp(path, prefix, n) == 0 && (!path[n] || path[n] == '.');
}

static int write_level(struct pairs *pairs, const char *prefix, size_t n_prefix,
                       struct tiered_bytes *out, struct tiered_error *err);

/* The pair, or the mapping of all pairs that share its name at this level. */
static int write_member(struct pairs *pairs, size_t i, size_t n_prefix,
                        struct tiered_bytes *out, struct tiered_error *err)
{
    struct pair *pair = &pairs->items[i];
    size_t n = n_prefix + strcspn(pair->path + n_prefix, ".");
    for (size_t j = 0; j < pairs->n; j++) {
        const char *other = pairs->items[j].path;
        if (j != i && is_within(other, pair->path, n) &&
            (!other[n] || !pair->path[n])) {
            return tiered_fail(err, TIERED_EINVAL, "option '%.*s' is given twice",
                               (int)n, pair->path);
        }
    }
    if (tiered_bytes_printf(out, "\"%.*s\":", (int)(n - n_prefix),
                            pair->path + n_prefix) < 0) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (pair->path[n]) {
        return write_level(pairs, pair->path, n + 1, out, err);
    }
    pair->done = true;
    return tiered_bytes_append(out, pair->json.data, pair->json.size, err);
}

/* All pairs whose path begins with the first n_prefix bytes of `prefix`. */
static int write_level(struct pairs *pairs, const char *prefix, size_t n_prefix,
                       struct tiered_bytes *out, struct tiered_error *err)
{
    const char *separator = "{";
    for (size_t i = 0; i < pairs->n; i++) {
        struct pair *pair = &pairs->items[i];
        if (pair->done || strncmp(pair->path, prefix, n_prefix) != 0) {
            continue;
        }
        if (tiered_bytes_append(out, separator, 1, err) < 0 ||
            write_member(pairs, i, n_prefix, out, err) < 0) {
            return -1;
        }
        separator = ",";
    }
    return tiered_bytes_append(out, *separator == '{' ? "{}" : "}",
                               *separator == '{' ? 2 : 1, err);
}

/* JSON holds nothing else; and a topology would refuse it too. */
static int check_text(const char *text, struct tiered_error *err)
{
    uint32_t line, column;
    size_t n = strlen(text);
    if (n > TEXT_MAX_BYTES) {
        return tiered_fail(err, TIERED_EINVAL, "options of more than %u bytes",
                           TEXT_MAX_BYTES);
    }
    const char *bad = tiered_text_bad(text, text + n, &line, &column);
    return bad ? tiered_fail(err, TIERED_EINVAL,
                             "the options are not UTF-8 text: byte 0x%02x",
                             (unsigned)(unsigned char)*bad)
               : 0;
}

char *tiered_options_parse(const char *text, struct tiered_error *err)
{
    struct tiered_bytes out = {0};
    TIERED_CLEANUP(free_pairs) struct pairs *pairs = calloc(1, sizeof(*pairs));
    if (!pairs) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    if (check_text(text, err) < 0) {
        return NULL;
    }
    if (read_pairs(text, pairs, err) < 0 || write_level(pairs, "", 0, &out, err) < 0) {
        tiered_bytes_finish(&out);
        return NULL;
    }
    return (char *)out.data;
}
