/* SPDX-License-Identifier: Apache-2.0 */
/* CSV: a line is an example, one column its label, the others its numbers. The first
   line is a header when no cell of it is a number. */
#include <inttypes.h>
#include <stdlib.h>

#include "lines.h"
#include "source.h"

#define SHOWN_CELL 40

static int fail_cell(const struct tiered_lines *lines, const struct tiered_cell *cell,
                     const char *what, struct tiered_error *err)
{
    int shown = (int)(cell->n < SHOWN_CELL ? cell->n : SHOWN_CELL);
    return tiered_fail_line(err, lines->stream.path, lines->number, cell->column,
                            "'%.*s' %s", shown, cell->text, what);
}

/* One number of an example. */
static int read_number(const struct tiered_lines *lines, const struct tiered_cell *cell,
                       float *ret, struct tiered_error *err)
{
    switch (tiered_lines_number(cell, ret)) {
    case TIERED_NUMBER:
        return 0;
    case TIERED_NOT_A_FLOAT:
        return fail_cell(lines, cell, "is beyond what a 32-bit float can hold", err);
    case TIERED_NOT_A_NUMBER:
        break;
    }
    return cell->n
               ? fail_cell(lines, cell, "is not a number", err)
               : tiered_fail_line(err, lines->stream.path, lines->number, cell->column,
                                  "the cell is empty; fill in missing values");
}

static bool all_digits(const char *text)
{
    return text[0] && strspn(text, "0123456789") == strlen(text) && strlen(text) < 9;
}

/* What the first line tells. */
struct first_line {
    uint32_t n_cells, n_numbers;
    uint32_t named; /* the cell that is the wanted name; UINT32_MAX: none */
};

static int look_at_first(const struct tiered_lines *lines, char *line,
                         const char *label, struct first_line *ret,
                         struct tiered_error *err)
{
    *ret = (struct first_line){.named = UINT32_MAX};
    for (char *cursor = line; cursor; ret->n_cells++) {
        struct tiered_cell cell;
        float number;
        if (ret->n_cells > TIERED_MAX_INPUTS) {
            return tiered_fail_line(err, lines->stream.path, lines->number, 1,
                                    "more than %u columns", TIERED_MAX_INPUTS);
        }
        if (tiered_lines_cell(lines, line, &cursor, &cell, err) < 0) {
            return -1;
        }
        bool is_number = tiered_lines_number(&cell, &number) != TIERED_NOT_A_NUMBER;
        ret->n_numbers += is_number;
        if (label && !is_number && ret->named == UINT32_MAX &&
            strlen(label) == cell.n && !memcmp(label, cell.text, cell.n)) {
            ret->named = ret->n_cells;
        }
    }
    return 0;
}

/* Which column is the label's, and is this line a header? */
static int settle_columns(const struct tiered_lines *lines,
                          struct tiered_source *source, const char *label,
                          const struct first_line *first, struct tiered_error *err)
{
    source->n_columns = first->n_cells;
    source->label_column = first->n_cells - 1;
    if (first->n_cells < 2) {
        return tiered_fail_line(err, lines->stream.path, lines->number, 1,
                                "one column only; an example has numbers and a label, "
                                "with commas between");
    }
    if (label && first->named != UINT32_MAX) {
        source->label_column = first->named;
        source->header = true;
        return 0;
    }
    if (label && !all_digits(label)) {
        return tiered_fail_line(err, lines->stream.path, lines->number, 1,
                                "no column is named '%.*s'", SHOWN_CELL, label);
    }
    if (label && (uint32_t)atoi(label) >= first->n_cells) {
        return tiered_fail_line(err, lines->stream.path, lines->number, 1,
                                "no column %s; the %" PRIu32 " columns count from 0",
                                label, first->n_cells);
    }
    source->label_column = label ? (uint32_t)atoi(label) : source->label_column;
    source->header = first->n_numbers == 0;
    return 0;
}

static int read_first(struct tiered_lines *lines, struct tiered_source *source,
                      const char *label, char **line, struct tiered_error *err)
{
    struct first_line first;
    char *copy = strdup(*line); /* looking takes quotes off in place */
    if (!copy) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    int result = look_at_first(lines, copy, label, &first, err);
    if (result == 0) {
        result = settle_columns(lines, source, label, &first, err);
    }
    free(copy);
    return result < 0 || !source->header ? result : tiered_lines_next(lines, line, err);
}

static int fail_ragged(const struct tiered_lines *lines,
                       const struct tiered_source *source, uint32_t n,
                       struct tiered_error *err)
{
    return tiered_fail_line(err, lines->stream.path, lines->number, 1,
                            "%" PRIu32 " cells, where the first line has %" PRIu32, n,
                            source->n_columns);
}

/* The label's cell of a line with the right number of cells. */
static int find_label(const struct tiered_lines *lines,
                      const struct tiered_source *source, char *line,
                      struct tiered_cell *ret, struct tiered_error *err)
{
    uint32_t n = 0;
    for (char *cursor = line; cursor; n++) {
        struct tiered_cell cell;
        if (tiered_lines_cell(lines, line, &cursor, &cell, err) < 0) {
            return -1;
        }
        if (n == source->label_column) {
            *ret = cell;
        }
    }
    if (n != source->n_columns) {
        return fail_ragged(lines, source, n, err);
    }
    return ret->n ? 0
                  : tiered_fail_line(err, lines->stream.path, lines->number,
                                     ret->column, "the label is empty");
}

static int add_label(const struct tiered_lines *lines, struct tiered_source *source,
                     uint32_t *capacity, const struct tiered_cell *cell,
                     struct tiered_labels *labels, struct tiered_error *err)
{
    if (source->n == TIERED_MAX_ROWS) {
        return tiered_fail_in(err, TIERED_EINVAL, lines->stream.path,
                              "more than %u lines", TIERED_MAX_ROWS);
    }
    if (source->n == *capacity) {
        uint32_t n = *capacity ? 2 * *capacity : 1024;
        uint32_t *grown = realloc(source->labels, n * sizeof(*grown));
        if (!grown) {
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        source->labels = grown;
        *capacity = n;
    }
    uint32_t code = tiered_labels_text(labels, cell->text, cell->n);
    if (code == UINT32_MAX) {
        return tiered_labels_fail(labels, lines->stream.path, err);
    }
    source->labels[source->n++] = code;
    return 0;
}

/* A header like 0,1,2,label reads as an example: its label then is the one word among
   integers. */
static int check_header(const struct tiered_source *source,
                        const struct tiered_labels *labels, struct tiered_error *err)
{
    const char *word = labels->items[source->labels[0]].text;
    for (uint32_t i = 1; i < source->n && word; i++) {
        word = labels->items[source->labels[i]].text ? NULL : word;
    }
    return source->n < 2 || !word
               ? 0
               : tiered_fail_line(err, source->path, 1, 1,
                                  "its label '%.*s' is a word where all others are "
                                  "integers; if this is a header, name the columns in "
                                  "words",
                                  SHOWN_CELL, word);
}

static int scan_lines(struct tiered_lines *lines, struct tiered_source *source,
                      const char *label, struct tiered_labels *labels,
                      struct tiered_error *err)
{
    char *line;
    uint32_t capacity = 0;
    if (tiered_lines_next(lines, &line, err) < 0 ||
        (line && read_first(lines, source, label, &line, err) < 0)) {
        return -1;
    }
    while (line) {
        struct tiered_cell cell = {0};
        if (find_label(lines, source, line, &cell, err) < 0 ||
            add_label(lines, source, &capacity, &cell, labels, err) < 0 ||
            tiered_lines_next(lines, &line, err) < 0) {
            return -1;
        }
    }
    source->inputs = source->n_columns - 1;
    if (source->n == 0) {
        return tiered_fail_in(err, TIERED_EINVAL, source->path, "holds no examples");
    }
    return source->header ? 0 : check_header(source, labels, err);
}

int tiered_csv_scan(struct tiered_source *source, const char *label,
                    struct tiered_labels *labels, struct tiered_error *err)
{
    struct tiered_lines lines;
    if (tiered_lines_open(&lines, source->path, err) < 0) {
        return -1;
    }
    int result = scan_lines(&lines, source, label, labels, err);
    tiered_lines_close(&lines);
    return result;
}

static int read_example(const struct tiered_lines *lines,
                        const struct tiered_source *source, char *line, float *out,
                        struct tiered_error *err)
{
    uint32_t n = 0;
    for (char *cursor = line; cursor; n++) {
        struct tiered_cell cell;
        if (tiered_lines_cell(lines, line, &cursor, &cell, err) < 0) {
            return -1;
        }
        if (n == source->n_columns) {
            return fail_ragged(lines, source, n + 1, err);
        }
        if (n != source->label_column && read_number(lines, &cell, out++, err) < 0) {
            return -1;
        }
    }
    return n == source->n_columns ? 0 : fail_ragged(lines, source, n, err);
}

static int read_wanted(struct tiered_lines *lines, const struct tiered_source *source,
                       const uint32_t *rows, uint32_t n_rows, float *out,
                       struct tiered_error *err)
{
    char *line;
    if (tiered_lines_next(lines, &line, err) < 0 ||
        (source->header && line && tiered_lines_next(lines, &line, err) < 0)) {
        return -1;
    }
    uint32_t next = 0;
    for (uint32_t row = 0; line && next < n_rows; row++) {
        if (rows[next] == row &&
            read_example(lines, source, line, out + source->inputs * next++, err) < 0) {
            return -1;
        }
        if (tiered_lines_next(lines, &line, err) < 0) {
            return -1;
        }
    }
    return next == n_rows ? 0
                          : tiered_fail_in(err, TIERED_EINVAL, source->path,
                                           "changed while it was read");
}

int tiered_csv_read(const struct tiered_source *source, const uint32_t *rows,
                    uint32_t n_rows, void *out, struct tiered_error *err)
{
    struct tiered_lines lines;
    if (tiered_lines_open(&lines, source->path, err) < 0) {
        return -1;
    }
    int result = read_wanted(&lines, source, rows, n_rows, out, err);
    tiered_lines_close(&lines);
    return result;
}
