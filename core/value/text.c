/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 and lines as YAML sees them. */
#include "core/value/text.h"

static uint32_t decode(const unsigned char *p, size_t n)
{
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = p[0] & masks[n];
    for (size_t i = 1; i < n; i++) {
        c = c << 6 | (p[i] & 0x3f);
    }
    return c;
}

size_t tiered_utf8_length(const char *text, const char *end)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)text;
    size_t n = p[0] < 0x80             ? 1
               : (p[0] & 0xe0) == 0xc0 ? 2
               : (p[0] & 0xf0) == 0xe0 ? 3
               : (p[0] & 0xf8) == 0xf0 ? 4
                                       : 0;
    if (n == 0 || (size_t)(end - text) < n) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    uint32_t c = decode(p, n);
    return c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

size_t tiered_text_break(const char *text, const char *end)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t left = (size_t)(end - text);
    if (p[0] == '\r') {
        return left > 1 && p[1] == '\n' ? 2 : 1;
    }
    if (p[0] == '\n') {
        return 1;
    }
    if (left > 1 && p[0] == 0xc2 && p[1] == 0x85) {
        return 2;
    }
    /* U+2028 and U+2029 */
    return left > 2 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] | 1) == 0xa9 ? 3 : 0;
}

const char *tiered_text_line_end(const char *line, const char *end)
{
    while (line < end && !tiered_text_break(line, end)) {
        line++;
    }
    return line;
}

const char *tiered_text_line(const char *text, const char *end, uint32_t line)
{
    for (uint32_t i = 1; i < line; i++) {
        text = tiered_text_line_end(text, end);
        if (text == end) {
            return NULL;
        }
        text += tiered_text_break(text, end);
    }
    return text;
}

static int allowed(uint32_t c)
{
    return c == '\t' || c == 0x85 || (c >= 0x20 && c < 0x7f) ||
           (c >= 0xa0 && c <= 0xfffd && c != 0xfeff) || c >= 0x10000;
}

const char *tiered_text_bad(const char *text, const char *end, uint32_t *ret_line,
                            uint32_t *ret_column)
{
    uint32_t line = 1, column = 1;
    while (text < end) {
        size_t n = tiered_text_break(text, end);
        if (n) {
            line++;
            column = 1;
            text += n;
            continue;
        }
        n = tiered_utf8_length(text, end);
        if (n == 0 || !allowed(decode((const unsigned char *)text, n))) {
            *ret_line = line;
            *ret_column = column;
            return text;
        }
        column++;
        text += n;
    }
    return NULL;
}
