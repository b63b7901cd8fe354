/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Options: one row says everything about one of a plugin's options.
 *
 * The same rows parse the topology, apply defaults, check ranges, print `tiered plugins
 * show NAME` and make the editors' schema. The host fills the plugin's own config
 * struct by offset and hands it to init(); strings and lists in it live until
 * destroy().
 *
 *     struct config { double beta; int64_t trim; };
 *     static const struct tiered_option options[] = {
 *         TIERED_OPTION_DOUBLE(struct config, beta, "0.2", 0, 0.5, "share cut a side",
 *                              .flags = TIERED_EXCLUSIVE_MAX),
 *         …
 *     };
 *
 * An option's name matches [a-z0-9][a-z0-9_-]*. Of an alternative of a CHOICE only the
 * name, the help and its own options (nested, n_nested) count; those are filled into
 * the same config struct. Options of alternatives not chosen, and of a SECTION not
 * written, get their defaults all the same.
 *
 * Rows may grow at their end: the descriptor carries the size of a row.
 */
#ifndef TIERED_OPTION_H
#define TIERED_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tiered_option_type {
    TIERED_BOOLEAN,  /* bool */
    TIERED_INTEGER,  /* int64_t, min..max */
    TIERED_DOUBLE,   /* double, min..max, finite */
    TIERED_STRING,   /* const char *, NULL when absent */
    TIERED_DURATION, /* uint64_t milliseconds; written "500ms", "30s", "10m", "2h" */
    TIERED_BYTES,    /* uint64_t bytes; written "512MiB", "64KiB", "1GiB", "100MB" */
    TIERED_CHOICE,   /* int32_t: index of one of `nested`; written as its bare name, or
                        as {name: {its own options}} where it has some */
    TIERED_SECTION,  /* bool: present; a mapping of `nested` options */
    TIERED_INTEGERS, /* struct tiered_integers, each min..max */
    TIERED_STRINGS,  /* struct tiered_strings */
    TIERED_PAIRS,    /* struct tiered_strings of "KEY=VALUE", written as a mapping */
};

struct tiered_integers {
    size_t n;
    const int64_t *items;
};

struct tiered_strings {
    size_t n;
    const char *const *items;
};

enum tiered_option_flags {
    TIERED_REQUIRED = 1,      /* must be written */
    TIERED_EXCLUSIVE_MIN = 2, /* the value must be above min */
    TIERED_EXCLUSIVE_MAX = 4, /* the value must be below max */
};

struct tiered_option {
    const char *name;
    enum tiered_option_type type;
    uint32_t flags;       /* enum tiered_option_flags */
    const char *fallback; /* the default as a user would write it; NULL: absent. Absent
                             numbers are left as zero bytes, absent strings as NULL */
    double min, max;      /* numbers only, the second may be INFINITY; both 0: any */
    const char *unit;     /* "examples", "rounds"; NULL where the type says it. Of a
                             string "path": a relative one starts at the topology's
                             folder */
    const char *help;     /* one line; what is to be typed in 'quotes' */
    size_t offset;        /* of the value in the config struct */
    const struct tiered_option
        *nested; /* CHOICE: the alternatives; SECTION: its rows */
    size_t n_nested;
    size_t given_offset; /* of a bool set when the user wrote it; 0 or SIZE_MAX: none
                            (so such a bool is not the struct's first member) */
};

#define TIERED_NO_OFFSET SIZE_MAX

/* One row each. `config` is the struct's type and `member` its member, whose name is
   the option's; after the help any other member of the row may follow. */
#define TIERED_OPTION_ROW(type_, config, member, default_, ...)                        \
    {                                                                                  \
        .name = #member, .type = (type_), .fallback = (default_),                      \
        .offset = offsetof(config, member), __VA_ARGS__                                \
    }
#define TIERED_OPTION_BOOLEAN(config, member, default_, ...)                           \
    TIERED_OPTION_ROW(TIERED_BOOLEAN, config, member, default_, .help = __VA_ARGS__)
#define TIERED_OPTION_INTEGER(config, member, default_, min_, max_, ...)               \
    TIERED_OPTION_ROW(TIERED_INTEGER, config, member, default_, .min = (min_),         \
                      .max = (max_), .help = __VA_ARGS__)
#define TIERED_OPTION_DOUBLE(config, member, default_, min_, max_, ...)                \
    TIERED_OPTION_ROW(TIERED_DOUBLE, config, member, default_, .min = (min_),          \
                      .max = (max_), .help = __VA_ARGS__)
#define TIERED_OPTION_STRING(config, member, default_, ...)                            \
    TIERED_OPTION_ROW(TIERED_STRING, config, member, default_, .help = __VA_ARGS__)
#define TIERED_OPTION_CHOICE(config, member, default_, alternatives, ...)              \
    TIERED_OPTION_ROW(TIERED_CHOICE, config, member, default_,                         \
                      .nested = (alternatives),                                        \
                      .n_nested = sizeof(alternatives) / sizeof((alternatives)[0]),    \
                      .help = __VA_ARGS__)

#endif
