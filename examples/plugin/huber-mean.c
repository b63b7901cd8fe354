/* SPDX-License-Identifier: Apache-2.0 */
/* An aggregator with columns: for each coordinate the mean of the updates, none of
   which may pull it further than `delta` from their median. One step of Huber's
   M-estimate of location from the median (Huber 1964, "Robust Estimation of a Location
   Parameter"). */
#include "tiered/aggregator.h"

#include <math.h>
#include <stdlib.h>

struct config {
    double delta;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, delta, "0.1", 0, INFINITY,
                         "how far from the median a value counts as it is",
                         .flags = TIERED_EXCLUSIVE_MIN),
};

/* The config stays valid until destroy(), so it is the whole state: nothing to free,
   and nothing that two threads could disturb. */
static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host, (void)err;
    *ret_state = (void *)(uintptr_t)config;
    return 0;
}

static void destroy(void *state)
{
    (void)state;
}

/* Every update counts once. An excluded one is only there to be counted. */
static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    size_t n = 0;
    (void)state;
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = !view->contributions[i]->excluded;
        n += !view->contributions[i]->excluded;
    }
    return n > 0 ? 0 : tiered_fail(err, TIERED_ERANGE, "there is no update to use");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts, so that the order of the children does not reach the sum. Values go up to the
   largest of a double: halves and shares are taken before they are added. */
static double huber(double *values, size_t n, double delta)
{
    qsort(values, n, sizeof(*values), by_value);
    double median = n % 2 ? values[n / 2] : values[n / 2 - 1] / 2 + values[n / 2] / 2;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += fmax(-delta, fmin(delta, values[i] - median)) / (double)n;
    }
    return median + sum;
}

/* The same for both precisions: the arithmetic is always in double. */
#define COLUMNS(name, type)                                                            \
    static int name(void *state, const type *const *rows, const double *weights,       \
                    size_t n_rows, size_t n, type *out, struct tiered_error *err)      \
    {                                                                                  \
        const struct config *config = state;                                           \
        double *column = malloc(n_rows * sizeof(*column));                             \
        (void)weights;                                                                 \
        if (!column) {                                                                 \
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");                   \
        }                                                                              \
        for (size_t i = 0; i < n; i++) {                                               \
            for (size_t row = 0; row < n_rows; row++) {                                \
                column[row] = (double)rows[row][i];                                    \
            }                                                                          \
            out[i] = (type)huber(column, n_rows, config->delta);                       \
        }                                                                              \
        free(column);                                                                  \
        return 0;                                                                      \
    }
COLUMNS(columns_f32, float)
COLUMNS(columns_f64, double)

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_NOTHING,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
    .columns_f32 = columns_f32,
    .columns_f64 = columns_f64,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "huber-mean", .version = "0.1",
                     .summary = "mean of values clipped around their median; at an "
                                "inner tier it clips within each group",
                     .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
