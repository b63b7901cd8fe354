/* SPDX-License-Identifier: Apache-2.0 */
/* A plan as a tree for a terminal, and as JSON. */
#ifndef TIERED_ORCHESTRATOR_PLAN_TEXT_H
#define TIERED_ORCHESTRATOR_PLAN_TEXT_H

#include "orchestrator/estimate.h"

struct plan_view {
    const struct tiered_plan *plan;
    bool all; /* do not collapse long lists of siblings */
    bool model_known;
    uint64_t model_bytes;
};

int plan_print_tree(const struct plan_view *view, FILE *out, struct tiered_error *err);
int plan_print_json(const struct plan_view *view, FILE *out, struct tiered_error *err);

#endif
