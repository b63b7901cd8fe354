/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 and lines as YAML sees them; private to core/value. */
#ifndef TIERED_CORE_VALUE_TEXT_H
#define TIERED_CORE_VALUE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/** Bytes of the character at p (1..4), or 0 if what stands there is not UTF-8. */
size_t tiered_utf8_length(const char *p, const char *end);
/** Bytes of the line break at p, or 0. */
size_t tiered_text_break(const char *p, const char *end);
/** The start of the 1-based `line`, or NULL when there are fewer. */
const char *tiered_text_line(const char *text, const char *end, uint32_t line);
const char *tiered_text_line_end(const char *line, const char *end);
/** The first character that YAML does not allow, with its place; NULL: all are. */
const char *tiered_text_bad(const char *text, const char *end, uint32_t *ret_line,
                            uint32_t *ret_column);

#endif
