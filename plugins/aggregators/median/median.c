/* SPDX-License-Identifier: Apache-2.0 */
/* Coordinate-wise median of the children's updates.
   Source: Yin et al. 2018 (arXiv:1803.01498), option I. */
#include "../common/trimmed.h"

struct config {
    char none;
};

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host, (void)config, (void)err;
    *ret_state = NULL;
    return 0;
}

static void destroy(void *state)
{
    (void)state;
}

/* Every update counts once, whatever its num_examples: a count can be a lie. */
static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    (void)state, (void)err;
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = 1;
    }
    return 0;
}

static int columns_f32(void *state, const float *const *rows, const double *weights,
                       size_t n_rows, size_t n, float *out, struct tiered_error *err)
{
    (void)state, (void)weights;
    return trimmed_f32(rows, n_rows, (n_rows - 1) / 2, n, out, err);
}

static int columns_f64(void *state, const double *const *rows, const double *weights,
                       size_t n_rows, size_t n, double *out, struct tiered_error *err)
{
    (void)state, (void)weights;
    return trimmed_f64(rows, n_rows, (n_rows - 1) / 2, n, out, err);
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_NOTHING,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER) |
               TIERED_ROLE_BIT(TIERED_CONTROL),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
    .columns_f32 = columns_f32,
    .columns_f64 = columns_f64,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "median", .version = "1.0",
        .summary = "coordinate-wise median; at an inner tier the median of each group, "
                   "not of all leaves",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT | TIERED_SCALES |
                  TIERED_REPLICATES,
        .option_size = sizeof(struct tiered_option),
        .config_size = sizeof(struct config), .ops = &ops);
