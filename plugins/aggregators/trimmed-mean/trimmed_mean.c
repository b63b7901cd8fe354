/* SPDX-License-Identifier: Apache-2.0 */
/* Coordinate-wise trimmed mean of the children's updates.
   Source: Yin et al. 2018 (arXiv:1803.01498), option II. */
#include "../common/trimmed.h"

#include <stdlib.h>

struct config {
    double beta;
    int64_t trim;
    bool beta_given, trim_given;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(
        struct config, beta, "0.2", 0, 0.5,
        "share of the updates cut on each side, rounded down to whole updates",
        .flags = TIERED_EXCLUSIVE_MAX,
        .given_offset = offsetof(struct config, beta_given)),
    TIERED_OPTION_INTEGER(struct config, trim, NULL, 0, 1000000,
                          "how many updates to cut on each side, instead of 'beta'",
                          .unit = "updates",
                          .given_offset = offsetof(struct config, trim_given)),
};

struct trimmed_mean {
    const struct tiered_host *host;
    const struct config *config;
};

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    const struct config *c = config;
    if (c->beta_given && c->trim_given) {
        return tiered_fail(err, TIERED_EINVAL,
                           "trimmed-mean takes beta or trim, not both");
    }
    struct trimmed_mean *self = malloc(sizeof(*self));
    if (!self) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *self = (struct trimmed_mean){host, c};
    *ret_state = self;
    return 0;
}

static void destroy(void *state)
{
    free(state);
}

/* The product is a double, truncated, as published figures have it: 0.29 of 100 is 28.
 */
static size_t cut(const struct config *config, size_t n_rows)
{
    return config->trim_given ? (size_t)config->trim
                              : (size_t)(config->beta * (double)n_rows);
}

static int check_cut(const struct config *config, size_t n_rows,
                     struct tiered_error *err)
{
    size_t k = cut(config, n_rows);
    if (2 * k >= n_rows) {
        return tiered_fail(err, TIERED_ERANGE,
                           "trimmed-mean cuts %zu updates on each side and leaves none "
                           "of %zu; lower %s or wait for more updates",
                           k, n_rows, config->trim_given ? "trim" : "beta");
    }
    return 0;
}

static void warn_nothing_cut(const struct trimmed_mean *self, size_t n_rows)
{
    char text[160];
    snprintf(text, sizeof(text),
             "beta %g of %zu updates cuts none: this round is a plain mean",
             self->config->beta, n_rows);
    self->host->log(self->host, TIERED_LOG_WARN, text);
}

/* Every update counts once, whatever its num_examples: a count can be a lie. */
static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    const struct trimmed_mean *self = state;
    size_t n_rows = 0;
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = 1;
        n_rows += !view->contributions[i]->excluded;
    }
    if (check_cut(self->config, n_rows, err) != 0) {
        return -1;
    }
    if (cut(self->config, n_rows) == 0 && !self->config->trim_given &&
        self->config->beta > 0) {
        warn_nothing_cut(self, n_rows);
    }
    return 0;
}

static int columns_f32(void *state, const float *const *rows, const double *weights,
                       size_t n_rows, size_t n, float *out, struct tiered_error *err)
{
    const struct trimmed_mean *self = state;
    (void)weights;
    if (check_cut(self->config, n_rows, err) != 0) {
        return -1;
    }
    return trimmed_f32(rows, n_rows, cut(self->config, n_rows), n, out, err);
}

static int columns_f64(void *state, const double *const *rows, const double *weights,
                       size_t n_rows, size_t n, double *out, struct tiered_error *err)
{
    const struct trimmed_mean *self = state;
    (void)weights;
    if (check_cut(self->config, n_rows, err) != 0) {
        return -1;
    }
    return trimmed_f64(rows, n_rows, cut(self->config, n_rows), n, out, err);
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
        .kind = TIERED_AGGREGATOR, .name = "trimmed-mean", .version = "1.0",
        .summary = "mean without the extremes of each coordinate; at an inner tier it "
                   "trims within each group, not over all leaves",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT | TIERED_SCALES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
