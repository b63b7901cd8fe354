/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The commands of `tiered`, one file each (cmd_NAME.c). A command parses its own flags
 * with getopt_long and returns the exit code: 0 done, 1 the input or the run failed, 2
 * an unknown flag or a missing argument, 130 interrupted. Answers go to stdout,
 * everything else to stderr.
 */
#ifndef TIERED_ORCHESTRATOR_CMD_H
#define TIERED_ORCHESTRATOR_CMD_H

#include "tiered/error.h"

struct tiered_command {
    const char *name;
    const char *summary; /* one line */
    const char *help;    /* the whole of --help */
    int (*run)(const struct tiered_command *self, int argc, char **argv);
};

#define EXIT_DONE        0
#define EXIT_FAILED      1
#define EXIT_USAGE       2
#define EXIT_INTERRUPTED 130

/** Print the help to stdout; returns EXIT_DONE. */
int cmd_help(const struct tiered_command *self);
/** "tiered NAME: text" and where help is, to stderr; returns EXIT_USAGE. */
__attribute__((format(printf, 2, 3))) int cmd_usage(const struct tiered_command *self,
                                                    const char *fmt, ...);
/** The same for a flag's bad value, which is input: returns EXIT_FAILED. */
__attribute__((format(printf, 2, 3))) int
cmd_bad_value(const struct tiered_command *self, const char *fmt, ...);
/** After getopt_long returned '?' or ':': say which flag; returns EXIT_USAGE. Call
    getopt_long with an optstring that begins with ':' so that it prints nothing. */
int cmd_bad_flag(const struct tiered_command *self, int result, char **argv);
/** "error: text" (or file:line:col: error: text) to stderr; returns EXIT_FAILED. */
int cmd_error(const struct tiered_error *err);
/** For tiered_plugins_all: "warning: text" of a file that is no plugin, to stderr. */
void cmd_warn_refused(void *user, const char *path, const struct tiered_error *err);

extern const struct tiered_command *const tiered_commands[]; /* NULL-terminated */

extern const struct tiered_command cmd_aggregate;
extern const struct tiered_command cmd_filter;
extern const struct tiered_command cmd_init;
extern const struct tiered_command cmd_logs;
extern const struct tiered_command cmd_model;
extern const struct tiered_command cmd_plan;
extern const struct tiered_command cmd_plugins;
extern const struct tiered_command cmd_runs;
extern const struct tiered_command cmd_status;
extern const struct tiered_command cmd_up;
extern const struct tiered_command cmd_validate;
extern const struct tiered_command cmd_watch;
extern const struct tiered_command cmd_why;

#endif
