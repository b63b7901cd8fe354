/* SPDX-License-Identifier: Apache-2.0 */
/* From YAML text to values, with libyaml's event parser and our own bounds. */
#include "core/value/document.h"
#include "core/value/text.h"

#include <string.h>
#include <yaml.h>

#define MAX_ANCHORS  1000
#define QUOTE_CHARS  40 /* of the user's text in a message */
#define SMALL_MAP    16 /* up to here duplicate keys are looked for pair by pair */
#define MAX_KEY_TEXT 200

struct anchor {
    const char *name;
    struct tiered_value *value;
    size_t n_values; /* in the anchored tree, itself included */
    uint32_t depth;  /* levels in it */
    bool complete;
};

struct builder {
    yaml_parser_t yaml;
    struct tiered_arena *arena;
    const char *file;
    const struct tiered_mark *mark_override;
    struct tiered_diagnostics *diag;
    size_t n_values; /* with aliases expanded */
    struct anchor anchors[MAX_ANCHORS];
    size_t n_anchors;
};

/* Children of the collection being read: moved to the arena when it ends. */
struct pile {
    struct tiered_value **items;
    size_t n, capacity;
};

/* libyaml counts from zero: the one place where 1 is added. */
static struct tiered_mark mark_of(const struct builder *b, yaml_mark_t mark)
{
    if (b->mark_override) {
        return *b->mark_override;
    }
    return (struct tiered_mark){b->file, (uint32_t)mark.line + 1,
                                (uint32_t)mark.column + 1};
}

static int out_of_memory(struct builder *b, struct tiered_mark mark)
{
    return tiered_diag_error(b->diag, mark, "out of memory");
}

static void syntax_error(struct builder *b)
{
    const yaml_parser_t *y = &b->yaml;
    struct tiered_mark mark = mark_of(b, y->problem_mark);
    if (y->error == YAML_MEMORY_ERROR) {
        out_of_memory(b, mark);
    } else if (y->context && !b->mark_override &&
               y->context_mark.line != y->problem_mark.line) {
        tiered_diag_error(b->diag, mark,
                          "not valid YAML: %s %s that begins in line %zu", y->problem,
                          y->context, y->context_mark.line + 1);
    } else {
        tiered_diag_error(b->diag, mark, "not valid YAML: %s%s%s",
                          y->problem ? y->problem : "unreadable text",
                          y->context ? " " : "", y->context ? y->context : "");
    }
}

static int next_event(struct builder *b, yaml_event_t *event)
{
    if (!yaml_parser_parse(&b->yaml, event)) {
        syntax_error(b);
        return -1;
    }
    return 0;
}

static int count(struct builder *b, size_t n, struct tiered_mark mark)
{
    if (n > TIERED_MAX_VALUES - b->n_values) {
        return tiered_diag_error(b->diag, mark,
                                 "more than %u values, aliases expanded; that is the "
                                 "most a file may hold",
                                 TIERED_MAX_VALUES);
    }
    b->n_values += n;
    return 0;
}

static int check_depth(struct builder *b, uint32_t depth, struct tiered_mark mark)
{
    if (depth > TIERED_MAX_DOCUMENT_DEPTH) {
        return tiered_diag_error(b->diag, mark,
                                 "nested more than %u levels deep; that is the most",
                                 TIERED_MAX_DOCUMENT_DEPTH);
    }
    return 0;
}

static struct anchor *find_anchor(struct builder *b, const char *name)
{
    for (size_t i = b->n_anchors; i-- > 0;) {
        if (strcmp(b->anchors[i].name, name) == 0) {
            return &b->anchors[i];
        }
    }
    return NULL;
}

/* Index of a new anchor, MAX_ANCHORS when there is no name, -1 on an error. */
static int open_anchor(struct builder *b, const yaml_char_t *name,
                       struct tiered_value *value)
{
    if (!name) {
        return MAX_ANCHORS;
    }
    if (b->n_anchors == MAX_ANCHORS) {
        return tiered_diag_error(b->diag, value->mark,
                                 "more than %d anchors; that is the most", MAX_ANCHORS);
    }
    const char *copy = tiered_arena_copy(b->arena, name, strlen((const char *)name));
    if (!copy) {
        return out_of_memory(b, value->mark);
    }
    b->anchors[b->n_anchors] = (struct anchor){.name = copy, .value = value};
    return (int)b->n_anchors++;
}

static void close_anchor(struct builder *b, int anchor, size_t values_before,
                         uint32_t depth)
{
    if (anchor < MAX_ANCHORS) {
        b->anchors[anchor].n_values = b->n_values - values_before;
        b->anchors[anchor].depth = depth;
        b->anchors[anchor].complete = true;
    }
}

static int push(struct pile *pile, struct tiered_value *value)
{
    if (pile->n == pile->capacity) {
        size_t capacity = pile->capacity ? pile->capacity * 2 : 8;
        void *items = realloc(pile->items, capacity * sizeof(*pile->items));
        if (!items) {
            return -1;
        }
        pile->items = items;
        pile->capacity = capacity;
    }
    pile->items[pile->n++] = value;
    return 0;
}

static void pile_finish(struct pile *pile)
{
    free(pile->items);
}

static void refuse_tag(struct builder *b, const yaml_char_t *tag,
                       struct tiered_mark mark)
{
    static const char core[] = "tag:yaml.org,2002:"; /* what !! stands for */
    if (tag) {
        const char *text = (const char *)tag;
        bool short_form = strncmp(text, core, sizeof(core) - 1) == 0;
        tiered_diag_error(b->diag, mark,
                          "the tag '%s%.*s' is not supported; write the value without "
                          "it",
                          short_form ? "!!" : "", QUOTE_CHARS,
                          short_form ? text + sizeof(core) - 1 : text);
    }
}

static bool is_null(const char *text)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < TIERED_COUNT(words); i++) {
        if (strcmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int fill_scalar(struct builder *b, const yaml_event_t *event,
                       struct tiered_value *value)
{
    refuse_tag(b, event->data.scalar.tag, value->mark);
    value->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    size_t n = event->data.scalar.length;
    if (memchr(event->data.scalar.value, 0, n)) { /* written "\0" */
        return tiered_diag_error(b->diag, value->mark, "a text may not hold a NUL");
    }
    value->text = tiered_arena_copy(b->arena, event->data.scalar.value, n);
    if (!value->text) {
        return out_of_memory(b, value->mark);
    }
    bool null = !value->quoted && is_null(value->text);
    value->kind = null ? TIERED_NULL : TIERED_SCALAR;
    return 0;
}

struct seen {
    const struct tiered_value *key;
    size_t position;
};

static int compare_seen(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    int order = strcmp(x->key->text, y->key->text);
    return order ? order : x->position < y->position ? -1 : 1;
}

static void duplicate(struct builder *b, const struct tiered_value *again,
                      const struct tiered_value *first)
{
    tiered_diag_error(b->diag, again->mark,
                      "duplicate key '%.*s'; the first is in line %u, column %u",
                      MAX_KEY_TEXT, again->text, first->mark.line, first->mark.column);
}

static void check_small(struct builder *b, struct tiered_value *const *items, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            const char *first = items[2 * k]->text, *again = items[2 * i]->text;
            if (first && again && strcmp(first, again) == 0) {
                duplicate(b, items[2 * i], items[2 * k]);
                break;
            }
        }
    }
}

static int check_duplicates(struct builder *b, struct tiered_value *const *items,
                            size_t n, struct tiered_mark mark)
{
    if (n <= SMALL_MAP) {
        check_small(b, items, n);
        return 0;
    }
    TIERED_FREE struct seen *seen = calloc(n, sizeof(*seen));
    if (!seen) {
        return out_of_memory(b, mark);
    }
    size_t n_seen = 0;
    for (size_t i = 0; i < n; i++) {
        if (items[2 * i]->text) {
            seen[n_seen++] = (struct seen){items[2 * i], i};
        }
    }
    qsort(seen, n_seen, sizeof(*seen), compare_seen);
    for (size_t i = 1, first = 0; i < n_seen; i++) {
        if (strcmp(seen[i].key->text, seen[first].key->text) == 0) {
            duplicate(b, seen[i].key, seen[first].key);
        } else {
            first = i;
        }
    }
    return 0;
}

/* Keys are text. `text` stays NULL in a key that is not, so that it matches nothing. */
static void check_keys(struct builder *b, struct tiered_value *const *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct tiered_value *key = items[2 * i];
        if (key->kind != TIERED_SCALAR && !(key->kind == TIERED_NULL && *key->text)) {
            tiered_diag_error(b->diag, key->mark, "a key must be a plain word or text");
        } else if (!key->quoted && strcmp(key->text, "<<") == 0) {
            tiered_diag_error(b->diag, key->mark,
                              "merge keys (<<) are not supported; write the keys out");
        }
    }
}

static struct tiered_value *build(struct builder *b, yaml_event_t *event,
                                  uint32_t depth, uint32_t *ret_depth);

static int fill_children(struct builder *b, yaml_event_type_t end, uint32_t depth,
                         struct pile *pile, uint32_t *ret_depth)
{
    uint32_t deepest = 0;
    for (;;) {
        yaml_event_t event;
        if (next_event(b, &event) < 0) {
            return -1;
        }
        if (event.type == end) {
            yaml_event_delete(&event);
            *ret_depth = deepest + 1;
            return 0;
        }
        uint32_t below = 0;
        struct tiered_mark mark = mark_of(b, event.start_mark);
        struct tiered_value *child = build(b, &event, depth + 1, &below);
        yaml_event_delete(&event);
        if (!child) {
            return -1;
        }
        if (push(pile, child) < 0) {
            return out_of_memory(b, mark);
        }
        deepest = below > deepest ? below : deepest;
    }
}

static int fill_collection(struct builder *b, const yaml_event_t *event, uint32_t depth,
                           struct tiered_value *value, uint32_t *ret_depth)
{
    bool mapping = event->type == YAML_MAPPING_START_EVENT;
    refuse_tag(b,
               mapping ? event->data.mapping_start.tag : event->data.sequence_start.tag,
               value->mark);
    TIERED_CLEANUP(pile_finish) struct pile pile = {0};
    if (check_depth(b, depth, value->mark) < 0 ||
        fill_children(b, mapping ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT,
                      depth, &pile, ret_depth) < 0) {
        return -1;
    }
    struct tiered_value **items =
        tiered_arena_alloc(b->arena, pile.n ? pile.n : 1, sizeof(*items));
    if (!items) {
        return out_of_memory(b, value->mark);
    }
    if (pile.n) {
        memcpy(items, pile.items, pile.n * sizeof(*items));
    }
    value->kind = mapping ? TIERED_MAPPING : TIERED_SEQUENCE;
    value->n = mapping ? pile.n / 2 : pile.n;
    value->items = items;
    if (!mapping) {
        return 0;
    }
    check_keys(b, items, value->n);
    return check_duplicates(b, items, value->n, value->mark);
}

static struct tiered_value *build_alias(struct builder *b, const yaml_event_t *event,
                                        uint32_t depth, uint32_t *ret_depth)
{
    struct tiered_mark mark = mark_of(b, event->start_mark);
    const char *name = (const char *)event->data.alias.anchor;
    const struct anchor *anchor = find_anchor(b, name);
    if (!anchor) {
        tiered_diag_error(b->diag, mark, "no anchor '&%.*s' stands before this alias",
                          QUOTE_CHARS, name);
        return NULL;
    }
    if (!anchor->complete) {
        tiered_diag_error(b->diag, mark, "the value of '&%.*s' contains itself",
                          QUOTE_CHARS, name);
        return NULL;
    }
    uint32_t deepest = depth + anchor->depth - (anchor->depth ? 1 : 0);
    if (count(b, anchor->n_values, mark) < 0 || check_depth(b, deepest, mark) < 0) {
        return NULL;
    }
    *ret_depth = anchor->depth;
    return anchor->value;
}

/* `depth` is the level that a collection here has, from 1; *ret_depth becomes the
   number of levels in the value, 0 for a scalar. */
static struct tiered_value *build(struct builder *b, yaml_event_t *event,
                                  uint32_t depth, uint32_t *ret_depth)
{
    if (event->type == YAML_ALIAS_EVENT) {
        return build_alias(b, event, depth, ret_depth);
    }
    struct tiered_mark mark = mark_of(b, event->start_mark);
    struct tiered_value *value = tiered_arena_alloc(b->arena, 1, sizeof(*value));
    if (!value) {
        out_of_memory(b, mark);
        return NULL;
    }
    value->mark = mark;
    size_t before = b->n_values;
    const yaml_char_t *name =
        event->type == YAML_SCALAR_EVENT          ? event->data.scalar.anchor
        : event->type == YAML_MAPPING_START_EVENT ? event->data.mapping_start.anchor
                                                  : event->data.sequence_start.anchor;
    if (count(b, 1, mark) < 0) {
        return NULL;
    }
    int anchor = open_anchor(b, name, value);
    if (anchor < 0) {
        return NULL;
    }
    int result = event->type == YAML_SCALAR_EVENT
                     ? fill_scalar(b, event, value)
                     : fill_collection(b, event, depth, value, ret_depth);
    close_anchor(b, anchor, before, *ret_depth);
    return result < 0 ? NULL : value;
}

static int expect_end(struct builder *b)
{
    yaml_event_t event;
    if (next_event(b, &event) < 0) { /* the document's end: always given */
        return -1;
    }
    yaml_event_delete(&event);
    if (next_event(b, &event) < 0) {
        return -1;
    }
    int result = 0;
    if (event.type == YAML_DOCUMENT_START_EVENT) {
        result = tiered_diag_error(b->diag, mark_of(b, event.start_mark),
                                   "a second document begins here; a file holds one");
    }
    yaml_event_delete(&event);
    return result;
}

static struct tiered_value *read_document(struct builder *b, bool allow_empty)
{
    yaml_event_t event;
    for (;;) { /* stream start, document start */
        if (next_event(b, &event) < 0) {
            return NULL;
        }
        if (event.type != YAML_STREAM_START_EVENT &&
            event.type != YAML_DOCUMENT_START_EVENT) {
            break;
        }
        yaml_event_delete(&event);
    }
    struct tiered_value *root;
    uint32_t depth = 0;
    if (event.type != YAML_STREAM_END_EVENT) {
        root = build(b, &event, 1, &depth);
    } else if (allow_empty) {
        root = tiered_arena_alloc(b->arena, 1, sizeof(*root));
    } else {
        root = NULL;
        tiered_diag_error(b->diag, mark_of(b, (yaml_mark_t){0}), "the file is empty");
    }
    bool at_end = event.type == YAML_STREAM_END_EVENT;
    yaml_event_delete(&event);
    return root && (at_end || expect_end(b) == 0) ? root : NULL;
}

static int check_text(struct builder *b, const char *text, size_t size)
{
    if (size > TIERED_MAX_DOCUMENT_BYTES) {
        char mib[32];
        tiered_format_bytes(size, mib);
        return tiered_diag_error(b->diag, mark_of(b, (yaml_mark_t){0}),
                                 "the file has %s; 4 MiB is the most", mib);
    }
    const char *from =
        size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text;
    yaml_mark_t mark = {0};
    uint32_t line, column;
    const char *bad = tiered_text_bad(from, text + size, &line, &column);
    if (!bad) {
        return 0;
    }
    mark.line = line - 1;
    mark.column = column - 1;
    if (tiered_utf8_length(bad, text + size) == 0) {
        return tiered_diag_error(b->diag, mark_of(b, mark),
                                 "not UTF-8 text: byte 0x%02x",
                                 (unsigned)(unsigned char)*bad);
    }
    return tiered_diag_error(b->diag, mark_of(b, mark),
                             "not text: a control character (0x%02x)",
                             (unsigned)(unsigned char)*bad);
}

struct tiered_value *tiered_value_parse(struct tiered_arena *arena, const char *file,
                                        const void *text, size_t size,
                                        const struct tiered_mark *mark_override,
                                        bool allow_empty,
                                        struct tiered_diagnostics *diag)
{
    TIERED_FREE struct builder *b = calloc(1, sizeof(*b));
    struct tiered_mark start = {file, 1, 1};
    if (!b || !yaml_parser_initialize(&b->yaml)) {
        tiered_diag_error(diag, start, "out of memory");
        return NULL;
    }
    b->arena = arena;
    b->file = file;
    b->mark_override = mark_override;
    b->diag = diag;
    struct tiered_value *root = NULL;
    if (check_text(b, text, size) == 0) {
        yaml_parser_set_input_string(&b->yaml, text, size);
        root = read_document(b, allow_empty);
    }
    yaml_parser_delete(&b->yaml);
    return root;
}

struct tiered_document *tiered_document_parse(const char *file, const void *text,
                                              size_t size,
                                              struct tiered_diagnostics *diag)
{
    size_t errors = diag->n_errors;
    TIERED_CLEANUP(tiered_document_destroyp)
    struct tiered_document *document = calloc(1, sizeof(*document));
    char *name =
        document ? tiered_arena_copy(&document->arena, file, strlen(file)) : NULL;
    if (!name) {
        tiered_diag_error(diag, (struct tiered_mark){file, 1, 1}, "out of memory");
        return NULL;
    }
    document->root =
        tiered_value_parse(&document->arena, name, text, size, NULL, false, diag);
    if (!document->root || diag->n_errors > errors) {
        return NULL;
    }
    return TIERED_STEAL(document);
}

void tiered_document_destroy(struct tiered_document *document)
{
    if (document) {
        tiered_arena_finish(&document->arena);
        free(document);
    }
}

const struct tiered_value *tiered_document_root(const struct tiered_document *document)
{
    return document->root;
}
