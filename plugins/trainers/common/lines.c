/* SPDX-License-Identifier: Apache-2.0 */
/* Comma-separated text (RFC 4180, one line an example). */
#include "lines.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define FIRST_BYTES (256u << 10)
#define MAX_LINE    (256u << 20)

int tiered_lines_open(struct tiered_lines *lines, const char *path,
                      struct tiered_error *err)
{
    *lines = (struct tiered_lines){0};
    if (tiered_stream_open(&lines->stream, path, err) < 0) {
        return -1;
    }
    lines->capacity = FIRST_BYTES;
    lines->buffer = malloc(lines->capacity + 1);
    if (!lines->buffer) {
        tiered_lines_close(lines);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return 0;
}

void tiered_lines_close(struct tiered_lines *lines)
{
    tiered_stream_close(&lines->stream);
    free(lines->buffer);
    lines->buffer = NULL;
}

/* More bytes behind those of the line begun; *ret_n 0 at the end of the file. */
static int refill(struct tiered_lines *lines, size_t *ret_n, struct tiered_error *err)
{
    memmove(lines->buffer, lines->buffer + lines->start, lines->end - lines->start);
    lines->end -= lines->start;
    lines->start = 0;
    if (lines->end == lines->capacity) {
        if (lines->capacity >= MAX_LINE) {
            return tiered_fail_line(err, lines->stream.path, lines->number + 1, 1,
                                    "the line is longer than %u bytes", MAX_LINE);
        }
        char *grown = realloc(lines->buffer, 2 * lines->capacity + 1);
        if (!grown) {
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        lines->buffer = grown;
        lines->capacity *= 2;
    }
    if (tiered_stream_read(&lines->stream, lines->buffer + lines->end,
                           lines->capacity - lines->end, ret_n, err) < 0) {
        return -1;
    }
    lines->end += *ret_n;
    return 0;
}

/* The next line, blank or not; *ret NULL at the end. */
static int take_line(struct tiered_lines *lines, char **ret, size_t *ret_n,
                     struct tiered_error *err)
{
    size_t seen = 0, got;
    char *newline;
    for (;;) {
        char *line = lines->buffer + lines->start;
        newline = memchr(line + seen, '\n', lines->end - lines->start - seen);
        if (newline) {
            break;
        }
        seen = lines->end - lines->start;
        if (refill(lines, &got, err) < 0) {
            return -1;
        }
        if (got == 0) {
            newline = lines->buffer + lines->end; /* the last line may lack its end */
            break;
        }
    }
    *ret = lines->buffer + lines->start;
    *ret_n = (size_t)(newline - *ret);
    if (*ret == lines->buffer + lines->end) {
        *ret = NULL;
        return 0;
    }
    lines->start += *ret_n + (newline != lines->buffer + lines->end);
    lines->number++;
    return 0;
}

int tiered_lines_next(struct tiered_lines *lines, char **ret, struct tiered_error *err)
{
    for (;;) {
        char *line;
        size_t n;
        if (take_line(lines, &line, &n, err) < 0) {
            return -1;
        }
        if (!line) {
            *ret = NULL;
            return 0;
        }
        if (lines->number == 1 && n >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
            line += 3; /* a byte-order mark */
            n -= 3;
        }
        while (n && (line[n - 1] == '\r' || line[n - 1] == ' ')) {
            n--;
        }
        const char *zero = memchr(line, 0, n);
        if (zero) {
            return tiered_fail_line(err, lines->stream.path, lines->number,
                                    (uint64_t)(zero - line) + 1,
                                    "a zero byte: this is not text");
        }
        line[n] = 0;
        if (n) {
            *ret = line;
            return 0;
        }
    }
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static int quoted_cell(const struct tiered_lines *lines, const char *line,
                       char **cursor, struct tiered_cell *ret, struct tiered_error *err)
{
    char *p = *cursor + 1, *out = p;
    ret->text = p;
    while (*p && (*p != '"' || p[1] == '"')) {
        p += *p == '"';
        *out++ = *p++;
    }
    if (!*p) {
        return tiered_fail_line(err, lines->stream.path, lines->number,
                                (uint64_t)(*cursor - line) + 1,
                                "a quote is not closed on its line");
    }
    ret->n = (size_t)(out - ret->text);
    for (p++; is_space(*p); p++) {
    }
    if (*p && *p != ',') {
        return tiered_fail_line(err, lines->stream.path, lines->number,
                                (uint64_t)(p - line) + 1,
                                "a comma must follow the quoted cell");
    }
    *cursor = *p ? p + 1 : NULL;
    return 0;
}

int tiered_lines_cell(const struct tiered_lines *lines, const char *line, char **cursor,
                      struct tiered_cell *ret, struct tiered_error *err)
{
    while (is_space(**cursor)) {
        (*cursor)++;
    }
    ret->column = (uint64_t)(*cursor - line) + 1;
    if (**cursor == '"') {
        return quoted_cell(lines, line, cursor, ret, err);
    }
    char *end = strchrnul(*cursor, ',');
    ret->text = *cursor;
    ret->n = (size_t)(end - *cursor);
    while (ret->n && is_space(ret->text[ret->n - 1])) {
        ret->n--;
    }
    *cursor = *end ? end + 1 : NULL;
    return 0;
}

/* The digits of a number without its sign: value = mantissa * 10^exponent. */
struct decimal {
    uint64_t mantissa;
    int exponent;
    bool exact; /* all digits went in */
};

static bool read_exponent(const char **p, const char *end, int *exponent)
{
    int value = 0, sign = 1;
    (*p)++;
    if (*p < end && (**p == '-' || **p == '+')) {
        sign = **p == '-' ? -1 : 1;
        (*p)++;
    }
    if (*p == end) {
        return false;
    }
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        value = value < 10000 ? value * 10 + (**p - '0') : value;
    }
    *exponent += sign * value;
    return true;
}

static bool read_decimal(const char *p, const char *end, struct decimal *ret)
{
    unsigned digits = 0;
    bool point = false;
    *ret = (struct decimal){.exact = true};
    for (; p < end && ((*p >= '0' && *p <= '9') || (*p == '.' && !point)); p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        digits++;
        ret->exact &= ret->mantissa < UINT64_MAX / 10 - 1;
        ret->mantissa = ret->mantissa * 10 + (uint64_t)(*p - '0');
        ret->exponent -= point && ret->exponent > -100000;
    }
    if (digits == 0 || (p < end && (*p == 'e' || *p == 'E') &&
                        !read_exponent(&p, end, &ret->exponent))) {
        return false;
    }
    return p == end;
}

/* What the short way cannot do exactly; the grammar was checked. */
static double read_slowly(const char *text, size_t n)
{
    char *copy = strndup(text, n);
    double value = copy ? strtod(copy, NULL) : NAN;
    free(copy);
    return value;
}

enum tiered_number tiered_lines_number(const struct tiered_cell *cell, float *ret)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    struct decimal decimal;
    size_t sign = cell->n && (cell->text[0] == '-' || cell->text[0] == '+');
    double value;
    if (!read_decimal(cell->text + sign, cell->text + cell->n, &decimal)) {
        return TIERED_NOT_A_NUMBER;
    }
    if (decimal.exact && decimal.mantissa < (1ull << 53) && decimal.exponent >= -22 &&
        decimal.exponent <= 22) { /* two exact doubles: one correct rounding */
        value = (double)decimal.mantissa;
        value = decimal.exponent < 0 ? value / powers[-decimal.exponent]
                                     : value * powers[decimal.exponent];
        value = cell->text[0] == '-' ? -value : value;
    } else {
        value = read_slowly(cell->text, cell->n);
    }
    *ret = (float)value;
    return isfinite(*ret) ? TIERED_NUMBER : TIERED_NOT_A_FLOAT;
}
