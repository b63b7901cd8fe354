/* SPDX-License-Identifier: Apache-2.0 */
/* Documents written: JSON with XGBoost's number format, or UBJSON with its types. */
#include "writer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void writer_begin(struct writer *w, enum encoding encoding, size_t capacity)
{
    *w = (struct writer){.encoding = encoding, .capacity = capacity};
    w->data = malloc(capacity ? capacity : 1);
    w->failed = !w->data;
}

void writer_finish(struct writer *w)
{
    free(w->data);
    *w = (struct writer){0};
}

void writer_raw(struct writer *w, const void *bytes, size_t n)
{
    if (w->failed) {
        return;
    }
    if (n > w->capacity - w->n) {
        size_t capacity = w->capacity + (w->capacity > n ? w->capacity : n);
        uint8_t *data = capacity > w->capacity ? realloc(w->data, capacity) : NULL;
        if (!data) {
            w->failed = true;
            return;
        }
        w->data = data;
        w->capacity = capacity;
    }
    if (n) {
        memcpy(w->data + w->n, bytes, n);
    }
    w->n += n;
}

static void put(struct writer *w, char c)
{
    writer_raw(w, &c, 1);
}

/* Before any value. */
static void begin_value(struct writer *w)
{
    if (w->encoding == ENCODING_JSON && w->comma && !w->after_key) {
        put(w, ',');
    }
    w->after_key = false;
    w->comma = true;
}

static void put_big_endian(struct writer *w, uint64_t value, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)(value >> (8 * (n - 1 - i)));
    }
    writer_raw(w, bytes, n);
}

static void put_length(struct writer *w, size_t n)
{
    put(w, 'L');
    put_big_endian(w, n, 8);
}

void writer_object(struct writer *w)
{
    begin_value(w);
    put(w, '{');
    w->comma = false;
}

void writer_object_end(struct writer *w)
{
    put(w, '}');
    w->comma = true;
}

void writer_array(struct writer *w, uint32_t n)
{
    begin_value(w);
    put(w, '[');
    w->comma = false;
    if (w->encoding == ENCODING_UBJSON) {
        put(w, '#');
        put_length(w, n);
    }
}

void writer_array_end(struct writer *w)
{
    if (w->encoding == ENCODING_JSON) {
        put(w, ']');
    }
    w->comma = true;
}

void writer_key(struct writer *w, const void *key, size_t n)
{
    if (w->encoding == ENCODING_UBJSON) {
        put_length(w, n);
        writer_raw(w, key, n);
        return;
    }
    if (w->comma) {
        put(w, ',');
    }
    put(w, '"');
    writer_raw(w, key, n);
    writer_raw(w, "\":", 2);
    w->after_key = true;
}

void writer_text(struct writer *w, const char *text)
{
    size_t n = strlen(text);
    begin_value(w);
    if (w->encoding == ENCODING_UBJSON) {
        put(w, 'S');
        put_length(w, n);
        writer_raw(w, text, n);
    } else {
        put(w, '"');
        writer_raw(w, text, n);
        put(w, '"');
    }
}

void writer_integer(struct writer *w, int64_t value)
{
    begin_value(w);
    if (w->encoding == ENCODING_JSON) {
        char text[24];
        int n = snprintf(text, sizeof(text), "%" PRId64, value);
        writer_raw(w, text, (size_t)n);
        return;
    }
    bool i = value > INT8_MIN && value < INT8_MAX; /* the bounds are XGBoost's */
    bool s = value > INT16_MIN && value < INT16_MAX;
    bool l = value > INT32_MIN && value < INT32_MAX;
    put(w, i ? 'i' : s ? 'I' : l ? 'l' : 'L');
    put_big_endian(w, (uint64_t)value, i ? 1 : s ? 2 : l ? 4 : 8);
}

/* ---- into the other encoding ---- */

/* "1.5E-05" to "1.5E-5", "2E+00" to "2E0". */
static size_t trim_exponent(char *text)
{
    char *e = strchr(text, 'E');
    char *digits = e + 2, *to = e + 1 + (e[1] == '-');
    while (digits[0] == '0' && digits[1]) {
        digits++;
    }
    memmove(to, digits, strlen(digits) + 1);
    return strlen(text);
}

/* As XGBoost writes a number: the fewest digits that are read back as the same one, and
   always an exponent, which tells a real from an integer. */
static void real_to_json(struct writer *w, const struct scalar *s)
{
    char text[40];
    int most = s->wide ? 16 : 8;
    if (isnan(s->real) || isinf(s->real)) {
        const char *word = isnan(s->real) ? "NaN"
                           : s->real > 0  ? "Infinity"
                                          : "-Infinity";
        writer_raw(w, word, strlen(word));
        return;
    }
    for (int digits = 0; digits <= most; digits++) {
        snprintf(text, sizeof(text), "%.*E", digits, s->real);
        if (s->wide ? strtod(text, NULL) == s->real : strtof(text, NULL) == s->single) {
            break;
        }
    }
    writer_raw(w, text, trim_exponent(text));
}

static void text_to_json(struct writer *w, const struct scalar *s)
{
    put(w, '"');
    for (size_t i = 0; i < s->n; i++) {
        uint8_t c = s->text[i];
        char text[8];
        if (c == '"' || c == '\\') {
            put(w, '\\');
            put(w, (char)c);
        } else if (c < 0x20) {
            writer_raw(w, text, (size_t)snprintf(text, sizeof(text), "\\u%04x", c));
        } else {
            put(w, (char)c);
        }
    }
    put(w, '"');
}

static void scalar_to_json(struct writer *w, const struct scalar *s)
{
    if (s->kind == NODE_INTEGER) {
        writer_integer(w, s->integer);
        return;
    }
    begin_value(w);
    if (s->kind == NODE_REAL) {
        real_to_json(w, s);
    } else if (s->kind == NODE_STRING) {
        text_to_json(w, s);
    } else if (s->kind == NODE_BOOLEAN) {
        writer_raw(w, s->integer ? "true" : "false", s->integer ? 4 : 5);
    } else {
        writer_raw(w, "null", 4);
    }
}

static void text_to_ubjson(struct writer *w, const struct scalar *s)
{
    uint8_t *out = malloc(s->n + 1);
    if (!out) {
        w->failed = true;
        return;
    }
    size_t n = json_unescape(s, out);
    put(w, 'S');
    put_length(w, n);
    writer_raw(w, out, n);
    free(out);
}

static void scalar_to_ubjson(struct writer *w, const struct scalar *s)
{
    uint32_t bits;
    switch (s->kind) {
    case NODE_INTEGER:
        writer_integer(w, s->integer);
        break;
    case NODE_REAL:
        memcpy(&bits, &s->single, sizeof(bits));
        put(w, 'd');
        put_big_endian(w, bits, 4);
        break;
    case NODE_STRING:
        text_to_ubjson(w, s);
        break;
    case NODE_BOOLEAN:
        put(w, s->integer ? 'T' : 'F');
        break;
    default:
        put(w, 'Z');
        break;
    }
}

/* The types that XGBoost gives a tree's arrays; 0: any values. */
static char type_of_key(const struct document *d, const struct node *node)
{
    static const struct {
        const char *key;
        char type;
    } types[] = {{"base_weights", 'd'},
                 {"split_conditions", 'd'},
                 {"loss_changes", 'd'},
                 {"sum_hessian", 'd'},
                 {"left_children", 'l'},
                 {"right_children", 'l'},
                 {"parents", 'l'},
                 {"split_indices", 'l'},
                 {"categories", 'l'},
                 {"categories_nodes", 'l'},
                 {"categories_segments", 'L'},
                 {"categories_sizes", 'L'},
                 {"split_type", 'U'},
                 {"default_left", 'U'},
                 {"feature_segments", 'l'},
                 {"sorted_idx", 'l'}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (node->numbers && document_key_is(d, node, types[i].key)) {
            return types[i].type;
        }
    }
    return 0;
}

static bool fits(char type, const struct scalar *s)
{
    return type == 'd' ||
           (s->kind != NODE_REAL &&
            (type == 'L' || (type == 'U' && s->integer == (uint8_t)s->integer) ||
             (type == 'l' && s->integer == (int32_t)s->integer)));
}

/* False, and nothing written, when a number does not fit the type. */
static bool typed_array(struct writer *w, const struct document *d,
                        const struct node *node, char type)
{
    struct scalar s;
    uint32_t at = node->content;
    for (uint32_t i = 0; i < node->n; i++) {
        at = document_scalar(d, at, node->type, &s);
        if (!fits(type, &s)) {
            return false;
        }
    }
    begin_value(w);
    writer_raw(w, "[$", 2);
    put(w, type);
    put(w, '#');
    put_length(w, node->n);
    at = node->content;
    for (uint32_t i = 0; i < node->n; i++) {
        at = document_scalar(d, at, node->type, &s);
        if (type == 'd') {
            float value = s.kind == NODE_REAL ? s.single : (float)s.real;
            uint32_t bits;
            memcpy(&bits, &value, sizeof(bits));
            put_big_endian(w, bits, 4);
        } else {
            put_big_endian(w, (uint64_t)s.integer,
                           type == 'U'   ? 1
                           : type == 'l' ? 4
                                         : 8);
        }
    }
    return true;
}

static void convert_array(struct writer *w, const struct document *d,
                          const struct node *node)
{
    char type = w->encoding == ENCODING_UBJSON ? type_of_key(d, node) : 0;
    if (type && typed_array(w, d, node, type)) {
        return;
    }
    const struct node *child = node + 1;
    uint32_t at = node->content;
    writer_array(w, node->n);
    for (uint32_t i = 0; i < node->n; i++) {
        at = document_skip(d, at);
        if (child < d->nodes + node->next && child->start == at) {
            writer_node(w, d, child);
            at = child->end;
            child = d->nodes + child->next;
            continue;
        }
        struct scalar s;
        at = document_scalar(d, at, node->type, &s);
        if (w->encoding == ENCODING_JSON) {
            scalar_to_json(w, &s);
        } else {
            scalar_to_ubjson(w, &s);
        }
    }
    writer_array_end(w);
}

void writer_node(struct writer *w, const struct document *d, const struct node *node)
{
    if (d->encoding == w->encoding) {
        begin_value(w);
        writer_raw(w, d->data + node->start, node->end - node->start);
    } else if (node->kind == NODE_ARRAY) {
        convert_array(w, d, node);
    } else if (node->kind == NODE_OBJECT) {
        writer_object(w);
        for (const struct node *m = node + 1; m < d->nodes + node->next;
             m = d->nodes + m->next) {
            writer_key(w, d->data + m->key, m->key_size);
            writer_node(w, d, m);
        }
        writer_object_end(w);
    } else {
        struct scalar s;
        document_scalar(d, node->start, 0, &s);
        if (w->encoding == ENCODING_JSON) {
            scalar_to_json(w, &s);
        } else {
            scalar_to_ubjson(w, &s);
        }
    }
}
