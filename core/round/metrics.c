/* SPDX-License-Identifier: Apache-2.0 */
/* Means of metrics, weighted by examples. Children come in canonical order, so the same
   figures give the same bits. */
#include <math.h>

#include "core/round/inside.h"

/* The item of this name, made if there is room; NULL when there is not. */
static struct tiered_metric *find(struct tiered_metrics *metrics, const char *name)
{
    for (uint32_t i = 0; i < metrics->n; i++) {
        if (strcmp(metrics->items[i].name, name) == 0) {
            return &metrics->items[i];
        }
    }
    if (metrics->n == TIERED_MAX_METRICS) {
        return NULL;
    }
    struct tiered_metric *item = &metrics->items[metrics->n++];
    snprintf(item->name, sizeof(item->name), "%s", name);
    item->value = 0;
    return item;
}

static bool usable(const struct tiered_metric *item)
{
    return isfinite(item->value) && memchr(item->name, 0, sizeof(item->name));
}

void round_means_add(struct metric_means *means, uint64_t num_examples,
                     const struct tiered_metrics *metrics)
{
    means->num_examples += num_examples;
    for (uint32_t i = 0; i < metrics->n && i < TIERED_MAX_METRICS && num_examples;
         i++) {
        if (!usable(&metrics->items[i])) {
            continue;
        }
        struct tiered_metric *sum = find(&means->sums, metrics->items[i].name);
        if (sum) {
            sum->value += (double)num_examples * metrics->items[i].value;
            means->weights[sum - means->sums.items] += num_examples;
        }
    }
}

void round_means_get(const struct metric_means *means, struct tiered_metrics *ret)
{
    *ret = means->sums;
    for (uint32_t i = 0; i < ret->n; i++) {
        ret->items[i].value /= (double)means->weights[i];
    }
}

void round_metrics_merge(struct tiered_metrics *into, const struct tiered_metrics *from)
{
    for (uint32_t i = 0; i < from->n; i++) {
        struct tiered_metric *item = find(into, from->items[i].name);
        if (item) {
            item->value = from->items[i].value;
        }
    }
}
