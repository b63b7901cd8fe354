/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Errors: one struct, filled once, where the cause is known.
 *
 * The caller owns a struct tiered_error, usually on its stack; there is nothing to
 * release. Functions return 0 (or a pointer) on success and -1 (or NULL) on failure.
 * `err` may be NULL, and is untouched on success. The text is a sentence fragment in
 * lower case without a final full stop, and says what would work where it can.
 *
 * The struct crosses the plugin boundary and is frozen. Threads: no shared state.
 */
#ifndef TIERED_ERROR_H
#define TIERED_ERROR_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/** Stable values: they cross the wire and the plugin boundary. */
enum tiered_code {
    TIERED_OK = 0,
    TIERED_EINVAL = 1,    /* the input is wrong */
    TIERED_ENOMEM = 2,    /* out of memory, or a size over the limit */
    TIERED_EIO = 3,       /* a file or socket failed */
    TIERED_ERANGE = 4,    /* a number is out of range or not finite */
    TIERED_ESHAPE = 5,    /* names, shapes or dtypes differ */
    TIERED_EPEER = 6,     /* the peer broke the protocol */
    TIERED_ESTATE = 7,    /* a call that this state does not allow */
    TIERED_ENOTSUP = 8,   /* known, but not in this version */
    TIERED_ECANCELED = 9, /* stopped on request */
    TIERED_ETIMEDOUT = 10,
    TIERED_ENOENT = 11,   /* no such file, plugin, node */
    TIERED_ECORRUPT = 12, /* a checksum, digest or length is wrong */
};

struct tiered_error {
    enum tiered_code code;
    uint32_t line, column; /* 1-based; 0 when no file position applies */
    char file[128];        /* the path's tail; "" when none */
    char text[256];
};

__attribute__((format(printf, 3, 0))) static inline int
tiered_vfail(struct tiered_error *err, enum tiered_code code, const char *fmt,
             va_list args)
{
    if (err) {
        memset(err, 0, sizeof(*err));
        err->code = code;
        vsnprintf(err->text, sizeof(err->text), fmt, args);
    }
    return -1;
}

/** Fill *err and return -1, so that a failure is one `return` statement. */
__attribute__((format(printf, 3, 4))) static inline int
tiered_fail(struct tiered_error *err, enum tiered_code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    tiered_vfail(err, code, fmt, args);
    va_end(args);
    return -1;
}

/** Put context in front of a message on its way up: "agent 'a': " + text. Returns -1.
 */
__attribute__((format(printf, 2, 3))) static inline int
tiered_error_prefix(struct tiered_error *err, const char *fmt, ...)
{
    if (err) {
        char tail[sizeof(err->text)];
        memcpy(tail, err->text, sizeof(tail));
        va_list args;
        va_start(args, fmt);
        int n = vsnprintf(err->text, sizeof(err->text), fmt, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof(err->text)) {
            snprintf(err->text + n, sizeof(err->text) - (size_t)n, "%s", tail);
        }
    }
    return -1;
}

/* clang's analyzer looks into no variadic function: what these return it has to be
   told, or it follows each failure as if it were a success. Where such a function is
   defined out of line its name stands in parentheses, so that the macro leaves it
   alone. */
#ifdef __clang_analyzer__
static inline int tiered_failed(void)
{
    return -1;
}
#define tiered_fail(...)         (tiered_fail(__VA_ARGS__), tiered_failed())
#define tiered_error_prefix(...) (tiered_error_prefix(__VA_ARGS__), tiered_failed())
#endif

#endif
