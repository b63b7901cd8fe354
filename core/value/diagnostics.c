/* SPDX-License-Identifier: Apache-2.0 */
/* Problems of a file, kept with their places and printed with the line they are in. */
#include "core/value/text.h"
#include "core/value/value.h"

#include <string.h>

#define MAX_KEPT     100
#define LINE_CHARS   160
#define CARET_MARGIN 120 /* characters before the caret where a line is too long */

/* Marks point into a document that may be gone when the problem is printed. */
static const char *keep_file(struct tiered_diagnostics *diag, const char *file)
{
    for (size_t i = 0; file && i < diag->n_files; i++) {
        if (strcmp(diag->files[i], file) == 0) {
            return diag->files[i];
        }
    }
    char **files = realloc(diag->files, (diag->n_files + 1) * sizeof(*files));
    if (!files) {
        return "";
    }
    diag->files = files;
    char *copy = strdup(file ? file : "");
    if (!copy) {
        return "";
    }
    files[diag->n_files++] = copy;
    return copy;
}

__attribute__((format(printf, 4, 0))) static void keep(struct tiered_diagnostics *diag,
                                                       bool warning,
                                                       struct tiered_mark mark,
                                                       const char *fmt, va_list args)
{
    *(warning ? &diag->n_warnings : &diag->n_errors) += 1;
    if (diag->n == diag->capacity) {
        size_t capacity = diag->capacity ? diag->capacity * 2 : 8;
        capacity = capacity < MAX_KEPT ? capacity : MAX_KEPT;
        void *items = capacity == diag->n
                          ? NULL
                          : realloc(diag->items, capacity * sizeof(*diag->items));
        if (!items) {
            return;
        }
        diag->items = items;
        diag->capacity = capacity;
    }
    struct tiered_diagnostic *item = &diag->items[diag->n++];
    item->warning = warning;
    item->mark = mark;
    item->mark.file = keep_file(diag, mark.file);
    vsnprintf(item->text, sizeof(item->text), fmt, args);
}

int(tiered_diag_error)(struct tiered_diagnostics *diag, struct tiered_mark mark,
                       const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    keep(diag, false, mark, fmt, args);
    va_end(args);
    return -1;
}

void tiered_diag_warn(struct tiered_diagnostics *diag, struct tiered_mark mark,
                      const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    keep(diag, true, mark, fmt, args);
    va_end(args);
}

void tiered_diag_finish(struct tiered_diagnostics *diag)
{
    for (size_t i = 0; i < diag->n_files; i++) {
        free(diag->files[i]);
    }
    free(diag->files);
    free(diag->items);
    memset(diag, 0, sizeof(*diag));
}

static int compare(const void *a, const void *b)
{
    const struct tiered_diagnostic *x = *(const struct tiered_diagnostic *const *)a;
    const struct tiered_diagnostic *y = *(const struct tiered_diagnostic *const *)b;
    int files = strcmp(x->mark.file, y->mark.file);
    if (files) {
        return files;
    }
    if (x->mark.line != y->mark.line) {
        return x->mark.line < y->mark.line ? -1 : 1;
    }
    if (x->mark.column != y->mark.column) {
        return x->mark.column < y->mark.column ? -1 : 1;
    }
    return x < y ? -1 : x > y;
}

/* The file may be anything: only whole, printable characters go to the terminal. */
static void print_character(const char *p, size_t n, bool blank, FILE *out)
{
    if (*p == '\t') {
        fputc('\t', out);
    } else if (blank) {
        fputc(' ', out);
    } else if (n == 0 || (unsigned char)*p < 0x20 || *p == 0x7f) {
        fputc('?', out);
    } else {
        fwrite(p, 1, n, out);
    }
}

static void print_line(const char *line, const char *end, uint32_t column, FILE *out)
{
    uint32_t first = column > LINE_CHARS ? column - CARET_MARGIN : 1;
    const char *from = line;
    for (uint32_t i = 1; i < first && from < end; i++) {
        size_t n = tiered_utf8_length(from, end);
        from += n ? n : 1;
    }
    fputs("  ", out);
    const char *p = from;
    for (uint32_t i = 0; i < LINE_CHARS && p < end; i++) {
        size_t n = tiered_utf8_length(p, end);
        print_character(p, n, false, out);
        p += n ? n : 1;
    }
    fputs("\n  ", out);
    p = from;
    for (uint32_t i = first; i < column && p < end; i++) {
        size_t n = tiered_utf8_length(p, end);
        print_character(p, n, true, out);
        p += n ? n : 1;
    }
    fputs("^\n", out);
}

void tiered_diag_print(const struct tiered_diagnostics *diag, const char *source,
                       size_t source_size, FILE *out)
{
    const struct tiered_diagnostic *sorted[MAX_KEPT];
    for (size_t i = 0; i < diag->n; i++) {
        sorted[i] = &diag->items[i];
    }
    qsort(sorted, diag->n, sizeof(sorted[0]), compare);
    const char *end = source ? source + source_size : NULL;
    for (size_t i = 0; i < diag->n; i++) {
        const struct tiered_diagnostic *item = sorted[i];
        const char *severity = item->warning ? "warning" : "error";
        if (item->mark.line == 0) {
            fprintf(out, "%s%s%s: %s\n", item->mark.file, *item->mark.file ? ": " : "",
                    severity, item->text);
            continue;
        }
        fprintf(out, "%s:%u:%u: %s: %s\n", item->mark.file, item->mark.line,
                item->mark.column, severity, item->text);
        const char *line =
            source ? tiered_text_line(source, end, item->mark.line) : NULL;
        if (line) {
            print_line(line, tiered_text_line_end(line, end), item->mark.column, out);
        }
    }
    size_t all = diag->n_errors + diag->n_warnings;
    if (all > diag->n) {
        fprintf(out, "… and %zu more problems\n", all - diag->n);
    }
}
