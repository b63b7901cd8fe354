/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Text tables for answers on stdout: columns as wide as their widest cell, the last one
 * ragged.
 *
 *     struct table table;
 *     table_init(&table, 2);
 *     table_row(&table, "NAME", "KIND");
 *     table_print(&table, stdout);
 *     table_finish(&table);
 */
#ifndef TIERED_ORCHESTRATOR_TABLE_H
#define TIERED_ORCHESTRATOR_TABLE_H

#include <stddef.h>
#include <stdio.h>

#define TABLE_MAX_COLUMNS 12

struct table {
    size_t n_columns, n_cells, capacity;
    size_t widths[TABLE_MAX_COLUMNS];
    char **cells; /* copies, row by row */
};

void table_init(struct table *table, size_t n_columns);
/** n_columns strings. Out of memory: the program ends, as it could not answer. */
void table_row(struct table *table, const char *first, ...);
void table_print(const struct table *table, FILE *out);
void table_finish(struct table *table);

#endif
