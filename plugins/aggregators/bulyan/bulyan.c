/* SPDX-License-Identifier: Apache-2.0 */
/* Krum, again and again, to select; then of each coordinate the values nearest to the
   median of the selected.
   Source: El Mhamdi et al. 2018 (arXiv:1802.07927), section 4. */
#include "../common/krum_score.h"
#include "columns.h"

#include <stdlib.h>

struct config {
    int64_t byzantine;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_INTEGER(
        struct config, byzantine, "0", 0, 1000000,
        "how many of the updates may be bad; it needs 4 times as many "
        "and 3",
        .unit = "updates"),
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

struct selection {
    const struct tiered_round_view *view;
    size_t byzantine;
    const uint32_t *order;
    bool *in; /* not selected yet */
};

/** The best of those left that is not excluded: SIZE_MAX when there is none. Ties go to
    the lowest index. */
static size_t find_best(const struct selection *s, size_t n_left)
{
    size_t n = s->view->n, best = SIZE_MAX;
    size_t neighbours = krum_neighbours(n_left, s->byzantine);
    double least = 0;
    for (size_t i = 0; i < n; i++) {
        if (!s->in[i] || s->view->contributions[i]->excluded) {
            continue;
        }
        double score = krum_score(s->view->gram, s->order, s->in, n, i, neighbours);
        if (best == SIZE_MAX || score < least) {
            least = score;
            best = i;
        }
    }
    return best;
}

static int select_rows(struct selection *s, double *ret_weights,
                       struct tiered_error *err)
{
    size_t n = s->view->n, theta = n - 2 * s->byzantine;
    for (size_t i = 0; i < n; i++) {
        s->in[i] = true;
        ret_weights[i] = 0;
    }
    for (size_t k = 0; k < theta; k++) {
        size_t best = find_best(s, n - k);
        if (best == SIZE_MAX) {
            return tiered_fail(
                err, TIERED_ERANGE,
                "bulyan selects %zu of %zu updates, and only %zu are not "
                "excluded; the model stays",
                theta, n, k);
        }
        s->in[best] = false;
        ret_weights[best] = 1;
    }
    return 0;
}

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    const struct config *config = state;
    size_t f = (size_t)config->byzantine;
    if (view->n < 4 * f + 3) {
        return tiered_fail(
            err, TIERED_ERANGE,
            "bulyan with %zu bad updates needs %zu or more, and there are "
            "%zu; the model stays",
            f, 4 * f + 3, view->n);
    }
    uint32_t *order = krum_order(view->gram, view->n);
    bool *in = calloc(view->n, sizeof(in[0]));
    struct selection s = {view, f, order, in};
    int rc = order && in ? select_rows(&s, ret_weights, err)
                         : tiered_fail(err, TIERED_ENOMEM,
                                       "no memory to score %zu updates", view->n);
    free(order);
    free(in);
    return rc;
}

/** How many values of n selected rows are averaged. */
static int count_kept(const struct config *config, size_t n_rows, size_t *ret,
                      struct tiered_error *err)
{
    if (n_rows <= 2 * (size_t)config->byzantine) {
        return tiered_fail(err, TIERED_ERANGE,
                           "bulyan leaves out %zu values and there are %zu",
                           2 * (size_t)config->byzantine, n_rows);
    }
    *ret = n_rows - 2 * (size_t)config->byzantine;
    return 0;
}

static int columns_f32(void *state, const float *const *rows, const double *weights,
                       size_t n_rows, size_t n, float *out, struct tiered_error *err)
{
    size_t keep = 0;
    (void)weights;
    return count_kept(state, n_rows, &keep, err) != 0
               ? -1
               : bulyan_f32(rows, n_rows, keep, n, out, err);
}

static int columns_f64(void *state, const double *const *rows, const double *weights,
                       size_t n_rows, size_t n, double *out, struct tiered_error *err)
{
    size_t keep = 0;
    (void)weights;
    return count_kept(state, n_rows, &keep, err) != 0
               ? -1
               : bulyan_f64(rows, n_rows, keep, n, out, err);
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_DISTANCES,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER) |
               TIERED_ROLE_BIT(TIERED_CONTROL),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
    .columns_f32 = columns_f32,
    .columns_f64 = columns_f64,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "bulyan", .version = "1.0",
        .summary = "Krum's choice, then of each coordinate the values nearest to the "
                   "median; at an inner tier it holds within each group, of 4f + 3 "
                   "children or more",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT | TIERED_SCALES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
