/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of option rows: reading, checking and describing them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/options/internal.h"

#define DEPTH_MAX    8
#define NESTED_MAX   64
#define ROW_SIZE_MAX 4096
#define ROW_SIZE_LEAST                                                                 \
    (offsetof(struct tiered_option, n_nested) + sizeof(size_t)) /* as in ABI 0 */

struct tiered_option tiered_option_row(const struct tiered_option *rows,
                                       size_t row_size, size_t i)
{
    struct tiered_option row = {0};
    memcpy(&row, (const char *)rows + i * row_size,
           row_size < sizeof(row) ? row_size : sizeof(row));
    if (row.given_offset == 0) {
        row.given_offset = TIERED_NO_OFFSET;
    }
    return row;
}

bool tiered_option_name_ok(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    return n >= 1 && n <= 63 && !name[n] && name[0] != '_' && name[0] != '-';
}

/* Of the value in the config struct; the alignment is the size, or that of a pointer
   for lists. 0: no such type. */
static size_t size_of_type(enum tiered_option_type type)
{
    switch (type) {
    case TIERED_BOOLEAN:
    case TIERED_SECTION:
        return sizeof(bool);
    case TIERED_INTEGER:
        return sizeof(int64_t);
    case TIERED_DOUBLE:
        return sizeof(double);
    case TIERED_STRING:
        return sizeof(const char *);
    case TIERED_DURATION:
    case TIERED_BYTES:
        return sizeof(uint64_t);
    case TIERED_CHOICE:
        return sizeof(int32_t);
    case TIERED_INTEGERS:
        return sizeof(struct tiered_integers);
    case TIERED_STRINGS:
    case TIERED_PAIRS:
        return sizeof(struct tiered_strings);
    }
    return 0;
}

struct table {
    const struct tiered_option *rows;
    size_t n, row_size, config_size;
};

static int check_rows(const struct table *table, bool alternatives, int depth,
                      struct tiered_error *err);

static int check_place(const struct tiered_option *row, size_t config_size,
                       struct tiered_error *err)
{
    size_t size = size_of_type(row->type);
    size_t alignment = size < sizeof(void *) ? size : sizeof(void *);
    if (!size) {
        return tiered_fail(err, TIERED_EINVAL, "option '%s' is of the unknown type %u",
                           row->name, (unsigned)row->type);
    }
    if (row->offset > config_size || size > config_size - row->offset ||
        row->offset % alignment) {
        return tiered_fail(err, TIERED_EINVAL,
                           "option '%s' does not lie in the config of %zu bytes",
                           row->name, config_size);
    }
    if (row->given_offset != TIERED_NO_OFFSET && row->given_offset >= config_size) {
        return tiered_fail(err, TIERED_EINVAL,
                           "option '%s': its 'given' does not lie in the config",
                           row->name);
    }
    return 0;
}

static int check_nested(const struct tiered_option *row, const struct table *table,
                        bool alternative, int depth, struct tiered_error *err)
{
    bool expected = row->type == TIERED_CHOICE || row->type == TIERED_SECTION;
    struct table nested = {row->nested, row->n_nested, table->row_size,
                           table->config_size};
    if (!alternative && expected != (row->n_nested > 0)) {
        return tiered_fail(err, TIERED_EINVAL, "option '%s' %s", row->name,
                           expected ? "names no alternatives or options of its own"
                                    : "is of a type that has no nested options");
    }
    if (row->n_nested > NESTED_MAX || depth + 1 > DEPTH_MAX) {
        return tiered_fail(err, TIERED_EINVAL,
                           "option '%s' has too many nested options", row->name);
    }
    return check_rows(&nested, !alternative && row->type == TIERED_CHOICE, depth + 1,
                      err);
}

static int check_row(const struct tiered_option *row, const struct table *table,
                     bool alternative, int depth, struct tiered_error *err)
{
    if (!row->name || !tiered_option_name_ok(row->name)) {
        return tiered_fail(err, TIERED_EINVAL, "an option has the name '%.40s'",
                           row->name ? row->name : "");
    }
    if (!alternative) {
        if (!row->help) {
            return tiered_fail(err, TIERED_EINVAL, "option '%s' has no help",
                               row->name);
        }
        if (isnan(row->min) || isnan(row->max) || row->min > row->max) {
            return tiered_fail(err, TIERED_EINVAL, "option '%s' has an empty range",
                               row->name);
        }
        if (check_place(row, table->config_size, err) < 0) {
            return -1;
        }
    }
    return check_nested(row, table, alternative, depth, err);
}

static int check_rows(const struct table *table, bool alternatives, int depth,
                      struct tiered_error *err)
{
    if (table->n && !table->rows) {
        return tiered_fail(err, TIERED_EINVAL, "it has %zu options but no table",
                           table->n);
    }
    for (size_t i = 0; i < table->n; i++) {
        struct tiered_option row = tiered_option_row(table->rows, table->row_size, i);
        if (check_row(&row, table, alternatives, depth, err) < 0) {
            return -1;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(tiered_option_row(table->rows, table->row_size, j).name,
                       row.name) == 0) {
                return tiered_fail(err, TIERED_EINVAL, "option '%s' is there twice",
                                   row.name);
            }
        }
    }
    return 0;
}

int tiered_option_rows_check(const struct tiered_option *rows, size_t n_rows,
                             size_t row_size, size_t config_size,
                             struct tiered_error *err)
{
    struct table table = {rows, n_rows, row_size, config_size};
    if (n_rows && (row_size < ROW_SIZE_LEAST || row_size > ROW_SIZE_MAX)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "its option rows have %zu bytes (%zu are needed)", row_size,
                           (size_t)ROW_SIZE_LEAST);
    }
    return check_rows(&table, false, 0, err);
}

static bool has_range(const struct tiered_option *row)
{
    return row->min != 0 || row->max != 0;
}

bool tiered_option_in_range(const struct tiered_option *row, long double value)
{
    if (!has_range(row)) {
        return true;
    }
    bool low = row->flags & TIERED_EXCLUSIVE_MIN ? value > row->min : value >= row->min;
    bool high =
        row->flags & TIERED_EXCLUSIVE_MAX ? value < row->max : value <= row->max;
    return low && high;
}

/* "number", then " in [0, 0.5)", " at least 1" or " above 0". */
static void number_text(const struct tiered_option *row, const char *noun, char *out,
                        size_t size)
{
    char low[32], high[32];
    bool open_low = row->flags & TIERED_EXCLUSIVE_MIN;
    bool open_high = row->flags & TIERED_EXCLUSIVE_MAX;
    tiered_number_format(row->min, low);
    tiered_number_format(row->max, high);
    if (!has_range(row) || (isinf(row->min) && isinf(row->max))) {
        snprintf(out, size, "%s", noun);
    } else if (isinf(row->max)) {
        snprintf(out, size, "%s %s %s", noun, open_low ? "above" : "at least", low);
    } else if (isinf(row->min)) {
        snprintf(out, size, "%s %s %s", noun, open_high ? "below" : "at most", high);
    } else {
        snprintf(out, size, "%s in %c%s, %s%c", noun, open_low ? '(' : '[', low, high,
                 open_high ? ')' : ']');
    }
}

static void choice_text(const struct tiered_option *row, size_t row_size, char *out,
                        size_t size)
{
    size_t n = (size_t)snprintf(out, size, "one of ");
    for (size_t i = 0; i < row->n_nested && n < size; i++) {
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "",
                              tiered_option_row(row->nested, row_size, i).name);
    }
}

void tiered_option_type_text(const struct tiered_option *row, size_t row_size,
                             char *out, size_t size)
{
    char integers[160];
    switch (row->type) {
    case TIERED_BOOLEAN:
        snprintf(out, size, "true or false");
        break;
    case TIERED_INTEGER:
        number_text(row, "integer", out, size);
        break;
    case TIERED_DOUBLE:
        number_text(row, "number", out, size);
        break;
    case TIERED_STRING:
        snprintf(out, size, "string");
        break;
    case TIERED_DURATION:
        snprintf(out, size, "duration");
        break;
    case TIERED_BYTES:
        snprintf(out, size, "size");
        break;
    case TIERED_CHOICE:
        choice_text(row, row_size, out, size);
        break;
    case TIERED_SECTION:
        snprintf(out, size, "section");
        break;
    case TIERED_INTEGERS:
        number_text(row, "integers", integers, sizeof(integers));
        snprintf(out, size, "list of %s", integers);
        break;
    case TIERED_STRINGS:
        snprintf(out, size, "list of strings");
        break;
    case TIERED_PAIRS:
        snprintf(out, size, "mapping of strings");
        break;
    }
}
