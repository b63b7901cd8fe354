/* SPDX-License-Identifier: Apache-2.0 */
/* --set: a dotted path into a document. Values on the way are built anew, never
   changed, since an alias may share them. */
#include "core/value/document.h"

#include <string.h>

#include "core/value/text.h"

#define MAX_ASSIGNMENT 65536

struct setter {
    struct tiered_arena *arena;
    const char *path; /* the whole, for messages */
    struct tiered_mark mark;
    struct tiered_value *leaf;
    struct tiered_error *err;
};

static struct tiered_value *no_memory(struct setter *s)
{
    tiered_fail(s->err, TIERED_ENOMEM, "out of memory");
    return NULL;
}

static struct tiered_value *new_value(struct setter *s, enum tiered_value_kind kind,
                                      size_t n)
{
    struct tiered_value *value = tiered_arena_alloc(s->arena, 1, sizeof(*value));
    size_t slots = kind == TIERED_MAPPING ? 2 * n : n;
    void *items = value ? tiered_arena_alloc(s->arena, slots, sizeof(void *)) : NULL;
    if (!items) {
        return no_memory(s);
    }
    *value =
        (struct tiered_value){.kind = kind, .mark = s->mark, .n = n, .items = items};
    return value;
}

/* A copy of a collection with `add` more slots at its end. */
static struct tiered_value *copy(struct setter *s, const struct tiered_value *old,
                                 size_t add)
{
    struct tiered_value *value = new_value(s, old->kind, old->n + add);
    if (value) {
        size_t slots = old->kind == TIERED_MAPPING ? 2 * old->n : old->n;
        memcpy((void *)value->items, old->items, slots * sizeof(void *));
        value->mark = old->mark;
    }
    return value;
}

static void put(struct tiered_value *collection, size_t slot, struct tiered_value *item)
{
    ((struct tiered_value **)collection->items)[slot] = item;
}

static struct tiered_value *text_value(struct setter *s, const char *text, size_t n)
{
    struct tiered_value *value = tiered_arena_alloc(s->arena, 1, sizeof(*value));
    char *own = value ? tiered_arena_copy(s->arena, text, n) : NULL;
    if (!own) {
        return no_memory(s);
    }
    *value = (struct tiered_value){
        .kind = TIERED_SCALAR, .mark = s->mark, .text = own, .quoted = true};
    return value;
}

/* {KEY: item} */
static struct tiered_value *single(struct setter *s, const char *key, size_t n,
                                   struct tiered_value *item)
{
    struct tiered_value *value = item ? new_value(s, TIERED_MAPPING, 1) : NULL;
    struct tiered_value *name = value ? text_value(s, key, n) : NULL;
    if (!name) {
        return NULL;
    }
    put(value, 0, name);
    put(value, 1, item);
    return value;
}

/* `name` is the first word of `path` (names may hold dots). */
static bool leads(const char *path, const char *name)
{
    size_t n = name ? strlen(name) : 0;
    return n && strncmp(path, name, n) == 0 && (path[n] == 0 || path[n] == '.');
}

static const char *skip(const char *path, size_t n)
{
    return path[n] == '.' ? path + n + 1 : path + n;
}

static struct tiered_value *set_at(struct setter *s, const struct tiered_value *old,
                                   const char *path);

static struct tiered_value *
set_in_mapping(struct setter *s, const struct tiered_value *old, const char *path)
{
    size_t best = SIZE_MAX, length = 0;
    for (size_t i = 0; i < old->n; i++) {
        const char *key = old->items[2 * i]->text;
        if (leads(path, key) && strlen(key) > length) {
            best = i;
            length = strlen(key);
        }
    }
    bool found = best != SIZE_MAX;
    if (!found) {
        length = strcspn(path, ".");
    }
    struct tiered_value *item =
        set_at(s, found ? old->items[2 * best + 1] : NULL, skip(path, length));
    struct tiered_value *value = item ? copy(s, old, found ? 0 : 1) : NULL;
    if (!value) {
        return NULL;
    }
    if (!found) {
        struct tiered_value *key = text_value(s, path, length);
        if (!key) {
            return NULL;
        }
        best = old->n;
        put(value, 2 * best, key);
    }
    put(value, 2 * best + 1, item);
    return value;
}

/* What an item of a sequence is called: NAME, {NAME: …} or {name: NAME, …}. */
static const char *item_name(const struct tiered_value *item, bool *ret_inside)
{
    *ret_inside = false;
    if (item->kind == TIERED_SCALAR) {
        return item->text;
    }
    const struct tiered_value *name = tiered_value_get(item, "name");
    if (name && name->kind == TIERED_SCALAR) {
        return name->text;
    }
    if (item->kind == TIERED_MAPPING && item->n == 1) {
        *ret_inside = true;
        return item->items[0]->text;
    }
    return NULL;
}

static struct tiered_value *set_in_item(struct setter *s,
                                        const struct tiered_value *item,
                                        const char *path, size_t length, bool inside)
{
    const char *rest = skip(path, length);
    if (item->kind != TIERED_SCALAR) {
        return inside ? set_in_mapping(s, item, path) : set_at(s, item, rest);
    }
    return single(s, path, length, set_at(s, NULL, rest));
}

static struct tiered_value *
set_in_sequence(struct setter *s, const struct tiered_value *old, const char *path)
{
    const char *names[64];
    size_t n_names = 0;
    for (size_t i = 0; i < old->n; i++) {
        bool inside;
        const char *name = item_name(old->items[i], &inside);
        if (name && n_names < TIERED_COUNT(names)) {
            names[n_names++] = name;
        }
        if (!leads(path, name)) {
            continue;
        }
        struct tiered_value *item =
            set_in_item(s, old->items[i], path, strlen(name), inside);
        struct tiered_value *value = item ? copy(s, old, 0) : NULL;
        if (value) {
            put(value, i, item);
        }
        return value;
    }
    char word[64];
    snprintf(word, sizeof(word), "%.*s", (int)strcspn(path, "."), path);
    const char *near = tiered_nearest(word, names, n_names);
    tiered_fail(s->err, TIERED_EINVAL, "'%.100s': the list has no '%s'%s%s%s", s->path,
                word, near ? "; did you mean '" : "", near ? near : "",
                near ? "'?" : "");
    return NULL;
}

static struct tiered_value *set_at(struct setter *s, const struct tiered_value *old,
                                   const char *path)
{
    if (!*path) {
        return s->leaf;
    }
    if (old && old->kind == TIERED_MAPPING) {
        return set_in_mapping(s, old, path);
    }
    if (old && old->kind == TIERED_SEQUENCE) {
        return set_in_sequence(s, old, path);
    }
    size_t length = strcspn(path, ".");
    if (old && old->kind == TIERED_SCALAR && !leads(path, old->text)) {
        tiered_fail(s->err, TIERED_EINVAL, "'%.100s': '%.60s' has no '%.*s'", s->path,
                    old->text, (int)(length < 60 ? length : 60), path);
        return NULL;
    }
    if (old && old->kind == TIERED_SCALAR) { /* a plugin by its bare name */
        length = strlen(old->text);
    }
    return single(s, path, length, set_at(s, NULL, skip(path, length)));
}

/* Words are text, as in a file, not empty, and few enough for the document's depth. */
static int check_path(const char *path, struct tiered_error *err)
{
    size_t words = 1, length = strlen(path);
    uint32_t line, column;
    const char *bad = tiered_text_bad(path, path + length, &line, &column);
    if (bad) {
        return tiered_fail(err, TIERED_EINVAL, "the key is not UTF-8 text: byte 0x%02x",
                           (unsigned)(unsigned char)*bad);
    }
    for (const char *p = path; *p; p++) {
        words += *p == '.';
    }
    if (length == 0 || path[0] == '.' || path[length - 1] == '.' ||
        strstr(path, "..")) {
        return tiered_fail(err, TIERED_EINVAL, "'%.100s' is not a dotted key", path);
    }
    if (words > TIERED_MAX_DOCUMENT_DEPTH / 2) {
        return tiered_fail(err, TIERED_EINVAL, "'%.100s…' has too many words", path);
    }
    return 0;
}

static int parse_leaf(struct setter *s, const char *file, const char *text)
{
    struct tiered_diagnostics diag = {0};
    s->mark = (struct tiered_mark){.file = file};
    s->leaf =
        tiered_value_parse(s->arena, file, text, strlen(text), &s->mark, true, &diag);
    if (s->leaf && diag.n_errors) {
        s->leaf = NULL;
    }
    if (s->leaf) {
        s->leaf->mark = s->mark;
    } else {
        tiered_fail(s->err, TIERED_EINVAL, "'%.100s': %s", s->path,
                    diag.n ? diag.items[0].text : "out of memory");
    }
    tiered_diag_finish(&diag);
    return s->leaf ? 0 : -1;
}

int tiered_document_set(struct tiered_document *document, const char *assignment,
                        struct tiered_error *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || strlen(assignment) > MAX_ASSIGNMENT) {
        return tiered_fail(err, TIERED_EINVAL, "'%.100s' is not KEY=VALUE", assignment);
    }
    size_t n = (size_t)(equals - assignment);
    char *path = tiered_arena_copy(&document->arena, assignment, n);
    char *file = tiered_arena_alloc(&document->arena, n + 16, 1);
    if (!path || !file) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    snprintf(file, n + 16, "--set %s", path);
    struct setter s = {.arena = &document->arena, .path = path, .err = err};
    if (check_path(path, err) < 0 || parse_leaf(&s, file, equals + 1) < 0) {
        return -1;
    }
    struct tiered_value *root = set_at(&s, document->root, path);
    if (!root) {
        return -1;
    }
    document->root = root;
    return 0;
}
