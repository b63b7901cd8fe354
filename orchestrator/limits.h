/* SPDX-License-Identifier: Apache-2.0 */
/** What a run on this machine asks of it. */
#ifndef TIERED_ORCHESTRATOR_LIMITS_H
#define TIERED_ORCHESTRATOR_LIMITS_H

#include "core/plan/plan.h"

/** Raise this process's limit of open files, which its agents inherit, to what is
    allowed; an error says how many a run of this plan needs when that is too few. */
int limits_raise(const struct tiered_plan *plan, struct tiered_error *err);

#endif
