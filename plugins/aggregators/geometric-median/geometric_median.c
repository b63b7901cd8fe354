/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The point with the least sum of distances to the updates, by the smoothed Weiszfeld
 * algorithm. Source: Pillutla et al. 2022 (arXiv:1912.13445), algorithm 2.
 *
 * Every iterate is z = sum(b_k u_k) with b that add up to 1, so the Gram matrix alone
 * tells how far z is from each update, and an iteration costs n^2 however large the
 * model is.
 */
#include "../common/shares.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* A squared distance this small beside the squares that it comes from has lost its
   digits, and is summed from differences instead. */
#define LOST 1e-10
/* Most of the updates this much further from the mean than from one of them: the mean
   lies where outliers dragged it. */
#define DRAGGED 10.0

struct config {
    int64_t max_iterations;
    double tolerance, epsilon;
    int32_t weighted_by;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_INTEGER(struct config, max_iterations, "100", 1, 1000000,
                          "how often the median moves at most", .unit = "iterations"),
    TIERED_OPTION_DOUBLE(struct config, tolerance, "1e-6", 0, INFINITY,
                         "it rests when no distance of the sum changes by more than "
                         "this share; 0 runs all iterations"),
    TIERED_OPTION_DOUBLE(struct config, epsilon, "1e-6", 0, INFINITY,
                         "distances below it count as it, so that none divides by 0",
                         .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_CHOICE(struct config, weighted_by, "num_examples", shares_choices,
                         "what an update counts by"),
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

/* n values each. The updates with a share alone are looked at: others are excluded, or
   too far away to be measured. */
struct search {
    const struct config *config;
    const double *gram;
    size_t n;
    double *shares, *b, *products;
    double *distances, *before; /* from z to each update; of the iteration before */
    double *sorted;             /* 2n: pairs of a value and its share */
};

static double pair_distance(const struct search *s, size_t i, size_t j)
{
    double d =
        s->gram[i * s->n + i] + s->gram[j * s->n + j] - 2 * s->gram[i * s->n + j];
    return sqrt(fmax(d, 0));
}

/** ||z - u_k||^2 as sum(b_i b_j (u_i - u_k)(u_j - u_k)). */
static double square_about(const struct search *s, size_t k)
{
    const double *g = s->gram;
    size_t n = s->n;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n && s->b[i] != 0; j++) {
            if (s->b[j] != 0) {
                sum += s->b[i] * s->b[j] *
                       ((g[i * n + j] - g[i * n + k]) - (g[j * n + k] - g[k * n + k]));
            }
        }
    }
    return sum;
}

static bool is_same(const struct search *s, size_t i, size_t j)
{
    double square = s->gram[i * s->n + i];
    return s->gram[j * s->n + j] == square && s->gram[i * s->n + j] == square;
}

/** From z = sum(b_k u_k). */
static void measure(struct search *s)
{
    size_t n = s->n, last = SIZE_MAX;
    double square = 0;
    for (size_t k = 0; k < n; k++) {
        s->products[k] = 0;
        for (size_t j = 0; j < n && s->shares[k] != 0; j++) {
            if (s->b[j] != 0) {
                s->products[k] += s->b[j] * s->gram[k * n + j];
            }
        }
        square += s->b[k] * s->products[k];
    }
    for (size_t k = 0; k < n; k++) {
        if (s->shares[k] == 0) {
            continue;
        }
        double own = s->gram[k * n + k];
        double d = own - 2 * s->products[k] + square;
        if (d >= LOST * own) {
            s->distances[k] = sqrt(d);
        } else if (last != SIZE_MAX && is_same(s, k, last)) {
            s->distances[k] = s->distances[last];
        } else {
            s->distances[k] = sqrt(fmax(square_about(s, k), 0));
            last = k;
        }
    }
}

/** b_k = share_k / max(epsilon, floor, distance_k), over their sum. */
static void reweigh(struct search *s, double floor)
{
    double sum = 0;
    for (size_t k = 0; k < s->n; k++) {
        s->b[k] =
            s->shares[k] == 0
                ? 0
                : s->shares[k] / fmax(fmax(s->config->epsilon, floor), s->distances[k]);
        sum += s->b[k];
    }
    for (size_t k = 0; k < s->n; k++) {
        s->b[k] /= sum;
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/** More than half of the shares are at most so far from z. */
static double median_distance(const struct search *s)
{
    size_t count = 0;
    double sum = 0;
    for (size_t k = 0; k < s->n; k++) {
        if (s->shares[k] != 0) {
            s->sorted[2 * count] = s->distances[k];
            s->sorted[2 * count++ + 1] = s->shares[k];
        }
    }
    qsort(s->sorted, count, 2 * sizeof(double), compare);
    for (size_t i = 0; i < count; i++) {
        sum += s->sorted[2 * i + 1];
        if (sum > 0.5) {
            return s->sorted[2 * i];
        }
    }
    return s->sorted[2 * count - 2];
}

/** The update with the least sum of distances: near the median, and none that a
    minority makes. */
static size_t find_medoid(const struct search *s)
{
    size_t best = 0;
    double least = INFINITY;
    for (size_t i = 0; i < s->n; i++) {
        double sum = 0;
        for (size_t k = 0; k < s->n && s->shares[i] != 0; k++) {
            if (s->shares[k] != 0) {
                sum += s->shares[k] * pair_distance(s, i, k);
            }
        }
        if (s->shares[i] != 0 && sum < least) {
            least = sum;
            best = i;
        }
    }
    return best;
}

/** At the weighted mean. An outlier far enough away puts that further off than any
    number of iterations comes back; then at the mean of the half nearest to one update,
    in which the others count by their distance. */
static void start(struct search *s)
{
    for (size_t k = 0; k < s->n; k++) {
        s->b[k] = s->shares[k];
    }
    measure(s);
    double from_mean = median_distance(s);
    size_t medoid = find_medoid(s);
    for (size_t k = 0; k < s->n; k++) {
        s->before[k] = s->distances[k];
        s->distances[k] = s->shares[k] != 0 ? pair_distance(s, medoid, k) : 0;
    }
    double from_medoid = median_distance(s);
    if (from_mean > DRAGGED * fmax(from_medoid, s->config->epsilon)) {
        reweigh(s, from_medoid);
        measure(s);
    } else {
        for (size_t k = 0; k < s->n; k++) {
            s->distances[k] = s->before[k];
        }
    }
}

/** Each term of the objective, not their sum alone, in which the distance to one far
    update would drown the changes of all others. */
static bool has_settled(const struct search *s)
{
    for (size_t k = 0; k < s->n; k++) {
        double limit = s->config->tolerance * fmax(s->distances[k], s->config->epsilon);
        if (s->shares[k] != 0 && !(fabs(s->distances[k] - s->before[k]) <= limit)) {
            return false;
        }
    }
    return true;
}

static void run(struct search *s)
{
    start(s);
    for (int64_t i = 0; i < s->config->max_iterations; i++) {
        for (size_t k = 0; k < s->n; k++) {
            s->before[k] = s->distances[k];
        }
        reweigh(s, 0);
        measure(s);
        if (s->config->tolerance > 0 && has_settled(s)) {
            return;
        }
    }
}

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    const struct config *config = state;
    size_t n = view->n;
    double *memory = calloc(7 * n, sizeof(memory[0]));
    if (!memory) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory to weigh %zu updates", n);
    }
    struct search s = {.config = config,
                       .gram = view->gram,
                       .n = n,
                       .shares = memory,
                       .b = ret_weights,
                       .products = memory + n,
                       .distances = memory + 2 * n,
                       .before = memory + 3 * n,
                       .sorted = memory + 4 * n};
    for (size_t i = 0; i < n; i++) {
        s.shares[i] =
            !view->contributions[i]->excluded && isfinite(view->gram[i * n + i]);
    }
    int rc = shares_fill(view, (enum shares_by)config->weighted_by, s.shares, err);
    if (rc == 0) {
        run(&s);
    }
    free(memory);
    return rc;
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_CENTRED,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER) |
               TIERED_ROLE_BIT(TIERED_CONTROL),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "geometric-median", .version = "1.0",
        .summary = "the point with the least sum of distances to the updates; at an "
                   "inner tier the median of each group, not of all leaves",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT |
                  TIERED_REPLICATES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
