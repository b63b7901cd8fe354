/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a run folder remembers so that `up --resume` can go on with it: run.json (id,
 * token and topology as it was given), and a lock that the living orchestrator holds.
 * Pure functions on files.
 */
#ifndef TIERED_ORCHESTRATOR_RESUME_H
#define TIERED_ORCHESTRATOR_RESUME_H

#include "core/base/base.h"

/** What must be the same for a run to go on. Borrowed. */
struct resume_topology {
    const char *name; /* of the run */
    const char *text;
    size_t text_size;
    const char *const *sets;
    size_t n_sets;
    bool network; /* --network */
};

/** Write run.json (mode 0600: it has the token). */
int resume_save(const char *folder, const char *run, const char *token,
                const struct resume_topology *topology, struct tiered_error *err);
/** The newest run of this name in `runs_folder` that has not finished. Refuses one
   whose topology was another. Results are malloc'd, the token is 64 hex digits. */
int resume_find(const char *runs_folder, const struct resume_topology *topology,
                char **ret_run, char **ret_folder, char ret_token[65],
                struct tiered_error *err);
/** One orchestrator a run: the lock's descriptor, held until it is closed. */
int resume_lock(const char *folder, int *ret_fd, struct tiered_error *err);

/** The agents' pids, for whoever adopts them. */
int resume_save_pid(const char *folder, const char *agent, int pid,
                    struct tiered_error *err);
/** The pid of the living agent of this run folder; 0: there is none. */
int resume_living(const char *folder, const char *agent);

#endif
