/* SPDX-License-Identifier: Apache-2.0 */
/* Comma-separated text: lines of a file, cells of a line, numbers in a cell. */
#ifndef TIERED_TRAINERS_LINES_H
#define TIERED_TRAINERS_LINES_H

#include "stream.h"

struct tiered_lines {
    struct tiered_stream stream;
    char *buffer;
    size_t capacity, start, end;
    uint64_t number; /* of the line last given, 1-based */
};

int tiered_lines_open(struct tiered_lines *lines, const char *path,
                      struct tiered_error *err);
void tiered_lines_close(struct tiered_lines *lines);
/** The next line that is not blank, without its end, followed by a NUL and valid until
    the next call; *ret NULL at the end of the file. */
int tiered_lines_next(struct tiered_lines *lines, char **ret, struct tiered_error *err);

struct tiered_cell {
    const char *text; /* not followed by a NUL */
    size_t n;
    uint64_t column; /* of its first byte, 1-based */
};

/** Take the cell at *cursor, which starts as the line and is NULL after the last cell.
    Spaces around it and quotes are taken off ("" in quotes becomes ", in place). */
int tiered_lines_cell(const struct tiered_lines *lines, const char *line, char **cursor,
                      struct tiered_cell *ret, struct tiered_error *err);

enum tiered_number { TIERED_NUMBER, TIERED_NOT_A_NUMBER, TIERED_NOT_A_FLOAT };
/** A decimal number that a float can hold; NaN and infinities are not numbers. */
enum tiered_number tiered_lines_number(const struct tiered_cell *cell, float *ret);

#endif
