/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics as JSON. */
#include "core/model/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

json_t *tiered_metrics_json(const struct tiered_metrics *metrics)
{
    json_t *object = json_object();
    for (uint32_t i = 0; i < metrics->n; i++) {
        double value = metrics->items[i].value;
        json_object_set_new(object, metrics->items[i].name,
                            isfinite(value) ? json_real(value) : json_null());
    }
    return object;
}

void tiered_metrics_from_json(const json_t *object, struct tiered_metrics *ret)
{
    const char *name;
    json_t *value;
    memset(ret, 0, sizeof(*ret));
    json_object_foreach ((json_t *)object, name, value) {
        if (ret->n < TIERED_MAX_METRICS) {
            struct tiered_metric *metric = &ret->items[ret->n++];
            snprintf(metric->name, sizeof(metric->name), "%s", name);
            metric->value = json_is_number(value) ? json_number_value(value) : NAN;
        }
    }
}

void tiered_metrics_update(struct tiered_metrics *metrics, const json_t *newer)
{
    json_t *all = tiered_metrics_json(metrics);
    json_object_update(all, (json_t *)newer);
    tiered_metrics_from_json(all, metrics);
    json_decref(all);
}

const double *tiered_metrics_find(const struct tiered_metrics *metrics,
                                  const char *name)
{
    for (uint32_t i = 0; i < metrics->n; i++) {
        if (strcmp(metrics->items[i].name, name) == 0) {
            return &metrics->items[i].value;
        }
    }
    return NULL;
}
