/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Metrics as JSON objects: {"accuracy": 0.91, "loss": 0.3}. Non-finite values are null.
 * Pure functions.
 */
#ifndef TIERED_CORE_METRICS_H
#define TIERED_CORE_METRICS_H

#include <jansson.h>

#include "tiered/model.h"

json_t *tiered_metrics_json(const struct tiered_metrics *metrics);
/** At most TIERED_MAX_METRICS numbers are kept, names cut to fit. */
void tiered_metrics_from_json(const json_t *object, struct tiered_metrics *ret);
/** Newer figures (an object) replace those of the same name; the others stay. */
void tiered_metrics_update(struct tiered_metrics *metrics, const json_t *newer);
/** NULL when there is none of this name. */
const double *tiered_metrics_find(const struct tiered_metrics *metrics,
                                  const char *name);

#endif
