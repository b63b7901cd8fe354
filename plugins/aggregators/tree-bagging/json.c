/* SPDX-License-Identifier: Apache-2.0 */
/* JSON into nodes. */
#include "document.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 63 /* letters; a double takes 24 */

struct parser {
    struct document *d;
    size_t at;
    struct tiered_error *err;
};

static int fail_at(const struct parser *p, const char *what)
{
    return tiered_fail(p->err, TIERED_EINVAL, "is no JSON: %s at byte %zu", what,
                       p->at);
}

static size_t skip_space(const struct document *d, size_t at)
{
    while (at < d->size && (d->data[at] == ' ' || d->data[at] == '\t' ||
                            d->data[at] == '\n' || d->data[at] == '\r')) {
        at++;
    }
    return at;
}

/* The next letter that is no space, or 0 at the end. */
static uint8_t peek(struct parser *p)
{
    p->at = skip_space(p->d, p->at);
    return p->at < p->d->size ? p->d->data[p->at] : 0;
}

static bool take(struct parser *p, char c)
{
    if (peek(p) != (uint8_t)c) {
        return false;
    }
    p->at++;
    return true;
}

static bool is_digit(const struct parser *p, size_t at)
{
    return at < p->d->size && p->d->data[at] >= '0' && p->d->data[at] <= '9';
}

/* Past the opening quote. */
static int string_end(struct parser *p)
{
    const struct document *d = p->d;
    for (; p->at < d->size; p->at++) {
        uint8_t c = d->data[p->at];
        if (c == '"') {
            return 0;
        }
        if (c < 0x20) {
            return fail_at(p, "a control character in a string");
        }
        if (c != '\\') {
            continue;
        }
        p->at++;
        uint8_t escape = p->at < d->size ? d->data[p->at] : 0;
        if (!escape || !strchr("\"\\/bfnrtu", escape)) {
            return fail_at(p, "an unknown escape");
        }
        for (int i = 0; escape == 'u' && i < 4; i++) {
            p->at++;
            uint8_t hex = p->at < d->size ? d->data[p->at] : 0;
            if (!hex || !strchr("0123456789abcdefABCDEF", hex)) {
                return fail_at(p, "an unknown escape");
            }
        }
    }
    return fail_at(p, "a string without an end");
}

static const struct word {
    const char *text;
    enum node_kind kind;
    double value;
} words[] = {{"true", NODE_BOOLEAN, 1},
             {"false", NODE_BOOLEAN, 0},
             {"null", NODE_NULL, 0},
             {"NaN", NODE_REAL, NAN},
             {"Infinity", NODE_REAL, INFINITY},
             {"-Infinity", NODE_REAL, -INFINITY}};

static const struct word *word_at(const struct document *d, size_t at)
{
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t n = strlen(words[i].text);
        if (d->size - at >= n && memcmp(d->data + at, words[i].text, n) == 0) {
            return &words[i];
        }
    }
    return NULL;
}

static int number_end(struct parser *p)
{
    size_t from = p->at, at = p->at;
    const uint8_t *data = p->d->data;
    at += at < p->d->size && data[at] == '-';
    if (!is_digit(p, at)) {
        return fail_at(p, "no value");
    }
    bool zero = data[at] == '0';
    while (is_digit(p, at)) {
        at++;
    }
    if (zero && is_digit(p, from + (data[from] == '-') + 1)) {
        return fail_at(p, "a number that begins with 0");
    }
    if (at < p->d->size && data[at] == '.') {
        if (!is_digit(p, ++at)) {
            return fail_at(p, "a point without a digit");
        }
        while (is_digit(p, at)) {
            at++;
        }
    }
    if (at < p->d->size && (data[at] == 'e' || data[at] == 'E')) {
        at++;
        at += at < p->d->size && (data[at] == '+' || data[at] == '-');
        if (!is_digit(p, at)) {
            return fail_at(p, "an exponent without a digit");
        }
        while (is_digit(p, at)) {
            at++;
        }
    }
    if (at - from > NUMBER_MAX) {
        return fail_at(p, "a number that is too long");
    }
    p->at = at;
    return 0;
}

/* A number or word at p->at, in an array or not. */
static int scalar_end(struct parser *p, enum node_kind *ret_kind)
{
    const struct word *word = word_at(p->d, p->at);
    if (word) {
        *ret_kind = word->kind;
        p->at += strlen(word->text);
        return 0;
    }
    size_t from = p->at;
    if (number_end(p) != 0) {
        return -1;
    }
    struct scalar scalar;
    json_scalar(p->d, (uint32_t)from, &scalar);
    *ret_kind = scalar.kind;
    return 0;
}

static int value(struct parser *p, unsigned depth, uint32_t *ret);

static int object_body(struct parser *p, unsigned depth, uint32_t self)
{
    uint32_t n = 0;
    if (take(p, '}')) {
        return 0;
    }
    do {
        if (!take(p, '"')) {
            return fail_at(p, "no key");
        }
        size_t key = p->at;
        if (string_end(p) != 0) {
            return -1;
        }
        size_t size = p->at++ - key;
        if (size > UINT16_MAX || memchr(p->d->data + key, '\\', size)) {
            return fail_at(p, "a key that is too long or has an escape");
        }
        if (!take(p, ':')) {
            return fail_at(p, "no colon");
        }
        uint32_t member;
        if (value(p, depth + 1, &member) != 0) {
            return -1;
        }
        p->d->nodes[member].key = (uint32_t)key;
        p->d->nodes[member].key_size = (uint16_t)size;
        n++;
    } while (take(p, ','));
    p->d->nodes[self].n = n;
    return take(p, '}') ? 0 : fail_at(p, "no end of an object");
}

static int array_body(struct parser *p, unsigned depth, uint32_t self)
{
    uint32_t n = 0;
    bool numbers = true;
    p->d->nodes[self].content = (uint32_t)p->at;
    p->d->nodes[self].numbers = true;
    if (take(p, ']')) {
        return 0;
    }
    do {
        uint8_t c = peek(p);
        enum node_kind kind = NODE_OBJECT;
        if (c == '{' || c == '[') {
            uint32_t item;
            if (value(p, depth + 1, &item) != 0) {
                return -1;
            }
        } else if (c == '"') {
            p->at++;
            kind = NODE_STRING;
            if (string_end(p) != 0) {
                return -1;
            }
            p->at++;
        } else if (scalar_end(p, &kind) != 0) {
            return -1;
        }
        numbers = numbers &&
                  (kind == NODE_INTEGER || kind == NODE_REAL || kind == NODE_BOOLEAN);
        n++;
    } while (take(p, ','));
    p->d->nodes[self].n = n;
    p->d->nodes[self].numbers = numbers;
    return take(p, ']') ? 0 : fail_at(p, "no end of an array");
}

static int value(struct parser *p, unsigned depth, uint32_t *ret)
{
    uint8_t c = peek(p);
    enum node_kind kind = c == '{'   ? NODE_OBJECT
                          : c == '[' ? NODE_ARRAY
                          : c == '"' ? NODE_STRING
                                     : NODE_NULL;
    if (depth >= DOCUMENT_MAX_DEPTH) {
        return fail_at(p, "too many levels");
    }
    struct node *node = document_add(p->d, kind, p->at, p->err);
    if (!node) {
        return -1;
    }
    uint32_t self = (uint32_t)(node - p->d->nodes);
    int result;
    if (kind == NODE_NULL) {
        result = scalar_end(p, &kind);
        p->d->nodes[self].kind = (uint8_t)kind;
    } else {
        p->at++;
        node->content = (uint32_t)p->at;
        result = kind == NODE_OBJECT  ? object_body(p, depth, self)
                 : kind == NODE_ARRAY ? array_body(p, depth, self)
                                      : string_end(p);
    }
    if (result != 0) {
        return -1;
    }
    node = &p->d->nodes[self];
    if (kind == NODE_STRING) {
        node->n = (uint32_t)(p->at++ - node->content);
    }
    node->end = (uint32_t)p->at;
    node->next = p->d->n_nodes;
    *ret = self;
    return 0;
}

int json_parse(struct document *d, struct tiered_error *err)
{
    struct parser p = {d, 0, err};
    uint32_t root;
    if (value(&p, 0, &root) != 0) {
        return -1;
    }
    peek(&p);
    return p.at == d->size ? 0 : fail_at(&p, "more than one value");
}

uint32_t json_scalar(const struct document *d, uint32_t at, struct scalar *ret)
{
    at = document_skip(d, at);
    if (at < d->size && d->data[at] == '"') {
        struct parser p = {(struct document *)d, at + 1u, NULL};
        ret->kind = NODE_STRING;
        ret->text = d->data + at + 1;
        ret->n = string_end(&p) == 0 ? p.at - at - 1 : 0;
        return (uint32_t)p.at + 1;
    }
    const struct word *word = word_at(d, at);
    if (word) {
        ret->kind = word->kind;
        ret->integer = word->kind == NODE_BOOLEAN && word->value != 0;
        ret->real = word->value;
        ret->single = (float)word->value;
        return at + (uint32_t)strlen(word->text);
    }
    char text[NUMBER_MAX + 1];
    size_t n = 0;
    bool real = false;
    for (; n < NUMBER_MAX && at + n < d->size; n++) {
        uint8_t c = d->data[at + n];
        bool part = c == '.' || c == 'e' || c == 'E' || c == '+';
        if (!part && c != '-' && (c < '0' || c > '9')) {
            break;
        }
        real = real || part;
        text[n] = (char)c;
    }
    text[n] = 0;
    if (!real && n < 19) { /* fits whatever it is */
        ret->kind = NODE_INTEGER;
        ret->integer = strtoll(text, NULL, 10);
        ret->real = (double)ret->integer;
    } else {
        ret->kind = NODE_REAL;
        ret->real = strtod(text, NULL);
        ret->single = strtof(text, NULL);
    }
    return at + (uint32_t)n;
}

static void put_utf8(uint8_t *out, size_t *n, uint32_t c)
{
    if (c < 0x80) {
        out[(*n)++] = (uint8_t)c;
        return;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
    out[(*n)++] = (uint8_t)(first[more] | c >> (6 * more));
    while (more-- > 0) {
        out[(*n)++] = (uint8_t)(0x80 | ((c >> (6 * more)) & 0x3f));
    }
}

static uint32_t hex4(const uint8_t *text)
{
    char digits[5] = {(char)text[0], (char)text[1], (char)text[2], (char)text[3], 0};
    return (uint32_t)strtoul(digits, NULL, 16);
}

/* \uXXXX at text[i], two of them where they are a pair; returns the letters read. */
static size_t unescape_unicode(const struct scalar *s, size_t i, uint8_t *out,
                               size_t *n)
{
    uint32_t c = hex4(s->text + i + 2);
    size_t used = 6;
    if (c >= 0xd800 && c < 0xdc00 && i + 12 <= s->n && s->text[i + 6] == '\\' &&
        s->text[i + 7] == 'u') {
        uint32_t low = hex4(s->text + i + 8);
        if (low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            used = 12;
        }
    }
    put_utf8(out, n, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    return used;
}

size_t json_unescape(const struct scalar *s, uint8_t *out)
{
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    size_t n = 0;
    for (size_t i = 0; i < s->n;) {
        if (s->text[i] != '\\') {
            out[n++] = s->text[i++];
        } else if (s->text[i + 1] == 'u') {
            i += unescape_unicode(s, i, out, &n);
        } else {
            out[n++] = (uint8_t)meant[strchr(escapes, s->text[i + 1]) - escapes];
            i += 2;
        }
    }
    return n;
}
