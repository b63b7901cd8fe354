/* SPDX-License-Identifier: Apache-2.0 */
/* Text tables. */
#include "orchestrator/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cmd.h"

/* Characters, not bytes: continuation bytes of UTF-8 take no place. */
static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text; text++) {
        width += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return width;
}

static void must(const void *memory)
{
    if (!memory) {
        fputs("error: out of memory\n", stderr);
        exit(EXIT_FAILED);
    }
}

void table_init(struct table *table, size_t n_columns)
{
    memset(table, 0, sizeof(*table));
    table->n_columns = n_columns;
}

static void add_cell(struct table *table, const char *text)
{
    if (table->n_cells == table->capacity) {
        table->capacity = table->capacity ? 2 * table->capacity : 64;
        table->cells =
            reallocarray(table->cells, table->capacity, sizeof(*table->cells));
        must(table->cells);
    }
    size_t column = table->n_cells % table->n_columns, width = width_of(text);
    char *copy = strdup(text);
    must(copy);
    table->cells[table->n_cells++] = copy;
    if (width > table->widths[column]) {
        table->widths[column] = width;
    }
}

void table_row(struct table *table, const char *first, ...)
{
    va_list args;
    va_start(args, first);
    add_cell(table, first);
    for (size_t i = 1; i < table->n_columns; i++) {
        add_cell(table, va_arg(args, const char *));
    }
    va_end(args);
}

void table_print(const struct table *table, FILE *out)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        size_t column = i % table->n_columns;
        size_t pad = table->widths[column] - width_of(table->cells[i]);
        fputs(table->cells[i], out);
        if (column + 1 == table->n_columns) {
            fputc('\n', out);
        } else {
            fprintf(out, "%*s", (int)pad + 2, "");
        }
    }
}

void table_finish(struct table *table)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    memset(table, 0, sizeof(*table));
}
