/* SPDX-License-Identifier: Apache-2.0 */
/* UBJSON (https://ubjson.org, draft 12) into nodes, as far as models are written in it:
   big-endian, a marker before each value. */
#include "document.h"

#include <string.h>

struct parser {
    struct document *d;
    size_t at;
    struct tiered_error *err;
};

static int fail_at(const struct parser *p, const char *what)
{
    return tiered_fail(p->err, TIERED_EINVAL, "is no UBJSON: %s at byte %zu", what,
                       p->at);
}

static size_t left(const struct parser *p)
{
    return p->d->size - p->at;
}

static bool take(struct parser *p, char c)
{
    if (left(p) == 0 || p->d->data[p->at] != (uint8_t)c) {
        return false;
    }
    p->at++;
    return true;
}

/* Of a number with this marker; 0: no number. */
static size_t number_size(char type)
{
    switch (type) {
    case 'i':
    case 'U':
        return 1;
    case 'I':
        return 2;
    case 'l':
    case 'd':
        return 4;
    case 'L':
    case 'D':
        return 8;
    default:
        return 0;
    }
}

static uint64_t big_endian(const uint8_t *bytes, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static void read_number(const uint8_t *bytes, char type, struct scalar *ret)
{
    uint64_t raw = big_endian(bytes, number_size(type));
    ret->kind = NODE_INTEGER;
    if (type == 'd') {
        uint32_t bits = (uint32_t)raw;
        memcpy(&ret->single, &bits, sizeof(bits));
        ret->kind = NODE_REAL;
        ret->real = (double)ret->single;
        return;
    }
    if (type == 'D') {
        memcpy(&ret->real, &raw, sizeof(raw));
        ret->kind = NODE_REAL;
        ret->single = (float)ret->real;
        ret->wide = true;
        return;
    }
    ret->integer = type == 'i'   ? (int8_t)raw
                   : type == 'U' ? (uint8_t)raw
                   : type == 'I' ? (int16_t)raw
                   : type == 'l' ? (int32_t)raw
                                 : (int64_t)raw;
    ret->real = (double)ret->integer;
}

/* A marker and a length that is not more than what is left has bytes of `unit`. */
static int read_length(struct parser *p, size_t unit, uint32_t *ret)
{
    char type = left(p) ? (char)p->d->data[p->at] : 0;
    size_t size = type == 'd' || type == 'D' ? 0 : number_size(type);
    if (size == 0 || left(p) < 1 + size) {
        return fail_at(p, "no length");
    }
    struct scalar length = {0};
    read_number(p->d->data + p->at + 1, type, &length);
    p->at += 1 + size;
    if (length.integer < 0 || (uint64_t)length.integer > left(p) / unit) {
        return fail_at(p, "a length past the end");
    }
    *ret = (uint32_t)length.integer;
    return 0;
}

static enum node_kind kind_of(char marker)
{
    switch (marker) {
    case '{':
        return NODE_OBJECT;
    case '[':
        return NODE_ARRAY;
    case 'S':
        return NODE_STRING;
    case 'd':
    case 'D':
        return NODE_REAL;
    case 'T':
    case 'F':
        return NODE_BOOLEAN;
    case 'Z':
        return NODE_NULL;
    default:
        return NODE_INTEGER;
    }
}

/* Past a scalar, from its marker. */
static int scalar_end(struct parser *p, enum node_kind *ret_kind)
{
    char marker = left(p) ? (char)p->d->data[p->at] : 0;
    size_t size = number_size(marker);
    uint32_t n;
    if (!marker || (size == 0 && !strchr("STFZ", marker))) {
        return fail_at(p, "no value");
    }
    *ret_kind = kind_of(marker);
    p->at++;
    if (marker == 'S') {
        if (read_length(p, 1, &n) != 0) {
            return -1;
        }
        p->at += n;
        return 0;
    }
    if (left(p) < size) {
        return fail_at(p, "a number without an end");
    }
    p->at += size;
    return 0;
}

static int value(struct parser *p, unsigned depth, uint32_t *ret);

/* JSON could not hold every key as it stands. */
static bool is_plain(const uint8_t *key, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (key[i] < 0x20 || key[i] == '"' || key[i] == '\\') {
            return false;
        }
    }
    return true;
}

static int object_body(struct parser *p, unsigned depth, uint32_t self)
{
    uint32_t n = 0;
    while (!take(p, '}')) {
        uint32_t size, member;
        if (read_length(p, 1, &size) != 0) {
            return -1;
        }
        size_t key = p->at;
        if (size > UINT16_MAX || !is_plain(p->d->data + key, size)) {
            return fail_at(p, "a key that is too long or has a quote");
        }
        p->at += size;
        if (value(p, depth + 1, &member) != 0) {
            return -1;
        }
        p->d->nodes[member].key = (uint32_t)key;
        p->d->nodes[member].key_size = (uint16_t)size;
        n++;
    }
    p->d->nodes[self].n = n;
    return 0;
}

static int typed_body(struct parser *p, uint32_t self)
{
    char type = left(p) ? (char)p->d->data[p->at] : 0;
    size_t unit = number_size(type);
    uint32_t n;
    if (unit == 0) {
        return fail_at(p, "an array of no numbers");
    }
    p->at++;
    if (!take(p, '#')) {
        return fail_at(p, "an array without a count");
    }
    if (read_length(p, unit, &n) != 0) {
        return -1;
    }
    struct node *node = &p->d->nodes[self];
    node->type = type;
    node->numbers = true;
    node->n = n;
    node->content = (uint32_t)p->at;
    p->at += n * unit;
    return 0;
}

static int array_body(struct parser *p, unsigned depth, uint32_t self)
{
    uint32_t n;
    if (take(p, '$')) {
        return typed_body(p, self);
    }
    if (!take(p, '#')) {
        return fail_at(p, "an array without a count");
    }
    if (read_length(p, 1, &n) != 0) {
        return -1;
    }
    bool numbers = true;
    p->d->nodes[self].content = (uint32_t)p->at;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t c = left(p) ? p->d->data[p->at] : 0;
        enum node_kind kind = NODE_OBJECT;
        uint32_t item;
        if (c == '{' || c == '[' ? value(p, depth + 1, &item) != 0
                                 : scalar_end(p, &kind) != 0) {
            return -1;
        }
        numbers = numbers &&
                  (kind == NODE_INTEGER || kind == NODE_REAL || kind == NODE_BOOLEAN);
    }
    p->d->nodes[self].n = n;
    p->d->nodes[self].numbers = numbers;
    return 0;
}

static int value(struct parser *p, unsigned depth, uint32_t *ret)
{
    enum node_kind kind = kind_of(left(p) ? (char)p->d->data[p->at] : 0);
    if (depth >= DOCUMENT_MAX_DEPTH) {
        return fail_at(p, "too many levels");
    }
    struct node *node = document_add(p->d, kind, p->at, p->err);
    if (!node) {
        return -1;
    }
    uint32_t self = (uint32_t)(node - p->d->nodes);
    int result;
    if (kind == NODE_OBJECT || kind == NODE_ARRAY) {
        p->at++;
        result = kind == NODE_OBJECT ? object_body(p, depth, self)
                                     : array_body(p, depth, self);
    } else {
        result = scalar_end(p, &kind);
    }
    if (result != 0) {
        return -1;
    }
    node = &p->d->nodes[self];
    node->end = (uint32_t)p->at;
    node->next = p->d->n_nodes;
    if (kind == NODE_STRING) {
        struct scalar scalar = {0};
        ubjson_scalar(p->d, node->start, 0, &scalar);
        node->n = (uint32_t)scalar.n;
        node->content = (uint32_t)(scalar.text - p->d->data);
    }
    *ret = self;
    return 0;
}

int ubjson_parse(struct document *d, struct tiered_error *err)
{
    struct parser p = {d, 0, err};
    uint32_t root;
    if (value(&p, 0, &root) != 0) {
        return -1;
    }
    return p.at == d->size ? 0 : fail_at(&p, "more than one value");
}

uint32_t ubjson_scalar(const struct document *d, uint32_t at, char type,
                       struct scalar *ret)
{
    char marker = type ? type : (char)d->data[at++];
    ret->kind = kind_of(marker);
    if (marker == 'S') {
        struct parser p = {(struct document *)d, at, NULL};
        uint32_t n = 0;
        read_length(&p, 1, &n);
        ret->text = d->data + p.at;
        ret->n = n;
        return (uint32_t)p.at + n;
    }
    size_t size = number_size(marker);
    if (size) {
        read_number(d->data + at, marker, ret);
    } else {
        ret->integer = marker == 'T';
        ret->real = (double)ret->integer;
    }
    return at + (uint32_t)size;
}
