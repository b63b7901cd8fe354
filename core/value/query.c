/* SPDX-License-Identifier: Apache-2.0 */
/* Looking into values, and writing them as JSON. */
#include "core/value/value.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "core/value/text.h"

static size_t find(const struct tiered_value *mapping, const char *key)
{
    size_t n = mapping && mapping->kind == TIERED_MAPPING ? mapping->n : 0;
    for (size_t i = 0; i < n; i++) {
        const char *text = mapping->items[2 * i]->text;
        if (text && strcmp(text, key) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

const struct tiered_value *tiered_value_get(const struct tiered_value *mapping,
                                            const char *key)
{
    size_t i = find(mapping, key);
    return i == SIZE_MAX ? NULL : mapping->items[2 * i + 1];
}

const struct tiered_value *tiered_value_key(const struct tiered_value *mapping,
                                            const char *key)
{
    size_t i = find(mapping, key);
    return i == SIZE_MAX ? NULL : mapping->items[2 * i];
}

/* Bytes of the character at p, which is UTF-8, if it may stand in JSON as it is. Most
   of what YAML escapes would be refused, or a line break, when it is read as YAML. */
static size_t plain_length(const char *p, const char *end)
{
    uint32_t line, column;
    size_t n = tiered_utf8_length(p, end);
    bool escaped = (unsigned char)*p < 0x20 || *p == '"' || *p == '\\' ||
                   tiered_text_break(p, end);
    return !escaped && n && !tiered_text_bad(p, p + n, &line, &column) ? n : 0;
}

/* The character at *p, which is not plain: all of those are below U+10000. */
static int write_escape(const char **p, const char *end, struct tiered_bytes *out,
                        struct tiered_error *err)
{
    static const uint8_t masks[] = {0, 0xff, 0x1f, 0x0f};
    char escape[8];
    size_t n = tiered_utf8_length(*p, end);
    if (n == 0 || n >= sizeof(masks)) {
        return tiered_fail(err, TIERED_EINVAL, "a text is not UTF-8");
    }
    unsigned c = (unsigned char)**p & masks[n];
    for (size_t i = 1; i < n; i++) {
        c = c << 6 | ((unsigned char)(*p)[i] & 0x3f);
    }
    *p += n;
    snprintf(escape, sizeof(escape), "\\u%04x", c);
    return tiered_bytes_append(out, escape, 6, err);
}

static int write_string(const char *text, struct tiered_bytes *out,
                        struct tiered_error *err)
{
    const char *end = text + strlen(text);
    if (tiered_bytes_append(out, "\"", 1, err) < 0) {
        return -1;
    }
    for (const char *p = text; p < end;) {
        const char *from = p;
        for (size_t n; p < end && (n = plain_length(p, end)) > 0;) {
            p += n;
        }
        if ((p > from && tiered_bytes_append(out, from, (size_t)(p - from), err) < 0) ||
            (p < end && write_escape(&p, end, out, err) < 0)) {
            return -1;
        }
    }
    return tiered_bytes_append(out, "\"", 1, err);
}

static const char *skip_digits(const char *p)
{
    while (isdigit((unsigned char)*p)) {
        p++;
    }
    return p;
}

static bool is_json_number(const char *p)
{
    p += *p == '-';
    const char *whole = p;
    p = skip_digits(p);
    if (p == whole || (*whole == '0' && p > whole + 1)) {
        return false;
    }
    if (*p == '.') {
        const char *part = p + 1;
        p = skip_digits(part);
        if (p == part) {
            return false;
        }
    }
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '+' || p[1] == '-');
        const char *exponent = p;
        p = skip_digits(p);
        if (p == exponent) {
            return false;
        }
    }
    return *p == 0;
}

/* The numbers that YAML writes and JSON does not: ".5", "+3", "5.". */
static bool number_text(const char *text, char out[40])
{
    if (text[strspn(text, "0123456789.+-eE")] || text[0] == '0' ||
        !strpbrk(text, "0123456789")) {
        return false;
    }
    char *end;
    double value = strtod(text, &end);
    if (*end || !isfinite(value)) {
        return false;
    }
    snprintf(out, 40, "%.17g", value);
    return true;
}

static int write_scalar(const struct tiered_value *value, struct tiered_bytes *out,
                        struct tiered_error *err)
{
    const char *text = value->text;
    char number[40];
    if (!value->quoted &&
        (is_json_number(text) || strcmp(text, "true") == 0 || !strcmp(text, "false"))) {
        return tiered_bytes_append(out, text, strlen(text), err);
    }
    if (!value->quoted && number_text(text, number)) {
        return tiered_bytes_append(out, number, strlen(number), err);
    }
    return write_string(text, out, err);
}

static int write_collection(const struct tiered_value *value, struct tiered_bytes *out,
                            struct tiered_error *err)
{
    bool mapping = value->kind == TIERED_MAPPING;
    for (size_t i = 0; i < value->n; i++) {
        if (tiered_bytes_append(out, i ? "," : mapping ? "{" : "[", 1, err) < 0) {
            return -1;
        }
        if (mapping && (write_string(value->items[2 * i]->text, out, err) < 0 ||
                        tiered_bytes_append(out, ":", 1, err) < 0)) {
            return -1;
        }
        if (tiered_value_json(value->items[mapping ? 2 * i + 1 : i], out, err) < 0) {
            return -1;
        }
    }
    const char *end = mapping ? (value->n ? "}" : "{}") : value->n ? "]" : "[]";
    return tiered_bytes_append(out, end, strlen(end), err);
}

int tiered_value_json(const struct tiered_value *value, struct tiered_bytes *out,
                      struct tiered_error *err)
{
    switch (value->kind) {
    case TIERED_SCALAR:
        return write_scalar(value, out, err);
    case TIERED_SEQUENCE:
    case TIERED_MAPPING:
        return write_collection(value, out, err);
    default:
        return tiered_bytes_append(out, "null", 4, err);
    }
}
