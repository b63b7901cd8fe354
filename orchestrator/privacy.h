/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a run's noise has spent: the ledger of its plan, filled by what nodes tell.
 * Figures only grow, and a node that tells one again changes nothing: `noise_released`
 * has a node's contributions so far, a committed round of central noise its rounds.
 *
 * As JSON a ledger is a list of objects: tier, noise (tiered_ledger_kind()), steps of
 * the busiest node, epsilon (null: none), delta, noise_multiplier, q, and `note`, "" or
 * what has to be said of it.
 *
 * Threads: one owner.
 */
#ifndef TIERED_ORCHESTRATOR_PRIVACY_H
#define TIERED_ORCHESTRATOR_PRIVACY_H

#include <jansson.h>
#include <stdio.h>

#include "core/plan/plan.h"
#include "orchestrator/record.h"

struct privacy {
    const struct tiered_plan *plan;
    uint64_t *local, *central; /* steps, by node; NULL where there is no noise */
};
int privacy_create(const struct tiered_plan *plan, struct privacy *ret,
                   struct tiered_error *err);
void privacy_finish(struct privacy *privacy);
/** Count an event, of those above; others are passed over. A committed round under
    central noise gets `epsilon` and `delta`. What changed goes to the record. */
int privacy_take(struct privacy *privacy, json_t *event, struct record *record,
                 const char *run, struct tiered_error *err);
/** What an earlier process of the run had counted. */
int privacy_restore(struct privacy *privacy, struct record *record, const char *run,
                    struct tiered_error *err);

/** What was spent; new reference. */
json_t *privacy_json(const struct privacy *privacy);
/** What all rounds of the plan will spend at most; likewise. */
json_t *privacy_plan_json(const struct tiered_plan *plan);
/** A line for each of the list; nothing when it is empty. */
void privacy_print(const json_t *list, FILE *out);

#endif
