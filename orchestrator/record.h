/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The run's record: SQLite (WAL) in the run folder. Tables: runs, generations, rounds,
 * contributions, events. Everything that happens is an event first; rounds and
 * contributions are taken from them. Threads: the orchestrator's loop.
 */
#ifndef TIERED_ORCHESTRATOR_RECORD_H
#define TIERED_ORCHESTRATOR_RECORD_H

#include <jansson.h>

#include "core/base/base.h"

struct record;
int record_open(const char *path, struct record **ret, struct tiered_error *err);
void record_close(struct record *record);
int record_run(struct record *record, const char *run, const char *name, uint64_t seed,
               uint64_t generation, const char *topology, struct tiered_error *err);
/** Any event; round_committed and contributions also fill their tables. */
int record_event(struct record *record, const char *run, const json_t *event,
                 struct tiered_error *err);
/** Status of the run whose folder this is: "running", "finished", …; -1: no record. */
int record_status(const char *folder, char *out, size_t size);
/** What a list of runs says of one; zeroed where nothing is recorded. `metrics` is a
   new reference or NULL. */
struct record_summary {
    char started[32];
    long long rounds; /* of the root */
    json_t *metrics;  /* of its last round */
};
void record_summary(const char *folder, struct record_summary *ret);
/** The agent that hosts `node` in that run, or is `node`; -1: none. */
int record_agent_of(const char *folder, const char *node, char *out, size_t size);
/** The run goes on: its status is "running" again. */
int record_resume(struct record *record, const char *run, struct tiered_error *err);
/** Tell every committed round once more, as the events that they were, oldest first. */
int record_rounds(struct record *record, const char *run,
                  void (*tell)(void *user, json_t *event), void *user,
                  struct tiered_error *err);
/** What one node's noise has spent. Text is borrowed; epsilon INFINITY: none. */
struct record_privacy {
    const char *node, *tier, *noise; /* "local", "central" */
    long long steps;
    double epsilon, delta, noise_multiplier, q;
};
int record_privacy(struct record *record, const char *run,
                   const struct record_privacy *row, struct tiered_error *err);
int record_privacy_rows(struct record *record, const char *run,
                        void (*tell)(void *user, const struct record_privacy *row),
                        void *user, struct tiered_error *err);
/** The busiest node of each tier and noise, of the run whose folder this is, as
    privacy_json has it; new reference. */
json_t *record_privacy_json(const char *folder);
int record_finish(struct record *record, const char *run, const char *status,
                  const char *model, struct tiered_error *err);

TIERED_DEFINE_FREE(struct record, record_close)

#endif
