/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Local agents as processes: started in the run folder with their output in a log file,
 * each in a session of its own (a terminal's Ctrl-C is the orchestrator's to handle),
 * reaped with a reason in words. Threads: the orchestrator's loop.
 */
#ifndef TIERED_ORCHESTRATOR_SPAWN_H
#define TIERED_ORCHESTRATOR_SPAWN_H

#include <sys/types.h>

#include "core/base/base.h"

struct spawn_config {
    const char *program; /* tiered-agent */
    const char *folder;  /* the run's; becomes the agent's working folder */
    const char *name, *orchestrator, *token, *plugins; /* plugins may be NULL */
    const char *log_level;
};
int spawn_agent(const struct spawn_config *config, pid_t *ret,
                struct tiered_error *err);
/** "killed by signal 9 (Killed)", "exited with status 1". */
void spawn_reason(int status, char *out, size_t size);
/** Bytes that the agent's log has by now: where the next process of it begins. */
int64_t spawn_log_size(const char *folder, const char *name);
/** The last line of the agent's log, from byte `start` on, that is an error, or "" (for
    the report). */
void spawn_last_words(const char *folder, const char *name, int64_t start, char *out,
                      size_t size);
/** tiered-agent beside this program. malloc'd. */
char *spawn_program(struct tiered_error *err);

#endif
