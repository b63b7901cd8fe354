/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Looking at runs from another process: the run folders, and the HTTP API of a run
 * whose orchestrator lives. What status, why, watch, runs, logs and model share.
 */
#ifndef TIERED_ORCHESTRATOR_LOOK_H
#define TIERED_ORCHESTRATOR_LOOK_H

#include <jansson.h>

#include "core/base/base.h"
#include "orchestrator/cmd.h"

/** The flags and arguments that they have in common. */
struct look_arguments {
    const char *runs; /* --runs, "runs" by default */
    const char *run;  /* --run, or the positional one where `positional` says so; NULL:
                         the newest */
    const char *argument; /* the other positional argument, or NULL */
    const char *output;   /* -o */
    bool json, follow;
};
/** -1: go on; otherwise the exit code. `argument` names a required positional argument
    (NULL: there is none, and RUN may stand there). */
int look_parse(const struct tiered_command *self, int argc, char **argv,
               const char *argument, struct look_arguments *ret);

/** The run's folder, malloc'd: of this id, or of the newest run. */
int look_find(const struct look_arguments *args, char **ret_folder,
              struct tiered_error *err);
/** Every run folder of `runs`, oldest first; malloc'd names, free with look_free. */
int look_all(const char *runs, char ***ret, size_t *ret_n, struct tiered_error *err);
void look_free(char **names, size_t n);
/** Whether its orchestrator lives. */
bool look_is_live(const char *folder);
/** GET of a living run's API ("api/run"): a new reference; NULL with *err. */
json_t *look_get(const char *folder, const char *path, struct tiered_error *err);

/** "3m 05s ago", "2.1 MiB": for tables. */
const char *look_text(const json_t *object, const char *key);
double look_number(const json_t *object, const char *key);

#endif
