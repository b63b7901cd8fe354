/* SPDX-License-Identifier: Apache-2.0 */
/* Errors with a place in a file. */
#include "core/base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int(tiered_fail_at)(struct tiered_error *err, enum tiered_code code,
                    struct tiered_mark mark, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    tiered_vfail(err, code, fmt, args);
    va_end(args);
    if (err && mark.file) {
        size_t n = strlen(mark.file), room = sizeof(err->file) - 1;
        const char *tail = n > room ? mark.file + (n - room) : mark.file;
        snprintf(err->file, sizeof(err->file), "%s", tail);
    }
    if (err) {
        err->line = mark.line;
        err->column = mark.column;
    }
    return -1;
}
