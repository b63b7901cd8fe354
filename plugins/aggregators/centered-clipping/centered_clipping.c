/* SPDX-License-Identifier: Apache-2.0 */
/* The mean of updates clipped around a centre, which starts as the model before the
   round and moves to that mean.
   Source: Karimireddy et al. 2021 (arXiv:2012.10333), algorithm 2. */
#include "tiered/aggregator.h"

#include <math.h>
#include <stdlib.h>

struct config {
    double tau;
    int64_t iterations;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, tau, NULL, 0, INFINITY,
                         "the distance from the centre at which an update is clipped",
                         .flags = TIERED_REQUIRED | TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_INTEGER(struct config, iterations, "1", 1, 1000,
                          "how often the centre moves"),
};

/* The config stays valid until destroy() and is the whole state. */
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

/** products[i]: of delta i with the centre v = sum(w_k delta_k). Returns ||v||^2. */
static double multiply(const double *gram, size_t n, const double *w, double *products)
{
    double square = 0;
    for (size_t i = 0; i < n; i++) {
        products[i] = 0;
        for (size_t k = 0; k < n; k++) {
            if (w[k] != 0) {
                products[i] += w[k] * gram[i * n + k];
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        square += w[i] != 0 ? w[i] * products[i] : 0;
    }
    return square;
}

/** v += mean of min(1, tau / ||u_i - v||) (u_i - v), in coefficients of the deltas. */
static void iterate(const struct config *config, const struct tiered_round_view *view,
                    size_t n_included, double *w, double *products)
{
    double square = multiply(view->gram, view->n, w, products), moved = 0;
    for (size_t i = 0; i < view->n; i++) {
        double d = view->gram[i * view->n + i] - 2 * products[i] + square;
        double distance = sqrt(fmax(d, 0));
        /* Infinity, of an excluded update too, makes 0. */
        products[i] = distance > config->tau ? config->tau / distance : 1;
        products[i] /= (double)n_included;
        moved += products[i];
    }
    for (size_t i = 0; i < view->n; i++) {
        w[i] = w[i] * (1 - moved) + products[i];
    }
}

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    const struct config *config = state;
    size_t n_included = 0;
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = 0;
        n_included += !view->contributions[i]->excluded;
    }
    if (n_included == 0) {
        return tiered_fail(err, TIERED_ERANGE,
                           "all %zu updates are excluded; the model stays", view->n);
    }
    double *products = calloc(view->n, sizeof(products[0]));
    if (!products) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory to weigh %zu updates",
                           view->n);
    }
    for (int64_t i = 0; i < config->iterations; i++) {
        iterate(config, view, n_included, ret_weights, products);
    }
    free(products);
    return 0;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_GRAM,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER) |
               TIERED_ROLE_BIT(TIERED_CONTROL),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "centered-clipping", .version = "1.0",
        .summary = "mean of updates clipped around the model before the round; at an "
                   "inner tier it clips within each group, around what the parent sent",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT |
                  TIERED_REPLICATES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
