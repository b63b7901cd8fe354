/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What `tiered up` tells: JSON lines (--json), a progress block per tier that is drawn
 * again and again (a terminal), or one line a round (elsewhere). Answers go to stdout,
 * warnings and errors to stderr. Threads: the orchestrator's loop.
 */
#ifndef TIERED_ORCHESTRATOR_REPORT_H
#define TIERED_ORCHESTRATOR_REPORT_H

#include <jansson.h>

#include "core/plan/plan.h"
#include "core/wire/wire.h"

struct report;
enum report_form {
    REPORT_JSON,
    REPORT_TERMINAL,
    REPORT_LINES,
};
int report_create(enum report_form form, const struct tiered_plan *plan,
                  struct report **ret, struct tiered_error *err);
void report_destroy(struct report *report);
/** An event that is for the user: run_started, round_committed, run_finished, … */
void report_event(struct report *report, const json_t *event);
/** Count a round that was told before this process began. */
void report_past_round(struct report *report, const json_t *event);
/** What nodes do now, from a heartbeat. */
void report_states(struct report *report, const Tiered__V1__Heartbeat *heartbeat);
/** Draw (terminal): a few times a second. */
void report_tick(struct report *report);
/** "warning: …" or "error: …" on stderr, above the progress block. */
__attribute__((format(printf, 3, 4))) void
report_say(struct report *report, const char *severity, const char *fmt, ...);
/** Why stdout takes nothing any more, or NULL. */
const char *report_broken(const struct report *report);
/** The table at the end, what was spent of privacy (a list as privacy_json's), and
   where the model is. */
void report_end(struct report *report, const char *status, const char *model,
                const json_t *privacy, double seconds);

TIERED_DEFINE_FREE(struct report, report_destroy)

#endif
