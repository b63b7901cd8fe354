/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Loading a topology for a command: plugins, file, plan, and everything that is wrong
 * on stderr.
 */
#ifndef TIERED_ORCHESTRATOR_LOAD_H
#define TIERED_ORCHESTRATOR_LOAD_H

#include "core/plan/plan.h"

#define LOAD_MAX_SETS 64

/** Zeroed is empty. */
struct loaded_plan {
    struct tiered_plugins *plugins;
    struct tiered_topology *topology;
    struct tiered_plan *plan;
    struct tiered_diagnostics diag;
    struct tiered_bytes source;
};

/** 0, or -1 with problems in diag (and, where there was no plugin folder, in *err).
    `plugins` is their folder (NULL: the default). Prints nothing. Finish it in either
    case. */
int cmd_load_plan(const char *path, const char *const *sets, size_t n_sets,
                  const char *plugins, struct loaded_plan *ret,
                  struct tiered_error *err);
/** Errors and warnings to stderr. */
void cmd_load_report(const struct loaded_plan *loaded);
void cmd_load_finish(struct loaded_plan *loaded);

#endif
