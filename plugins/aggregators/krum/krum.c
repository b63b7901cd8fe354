/* SPDX-License-Identifier: Apache-2.0 */
/* The update that lies closest to the others, or the mean of the few that do.
   Source: Blanchard et al. 2017 (arXiv:1703.02757): Krum and Multi-Krum. */
#include "../common/krum_score.h"
#include "../common/shares.h"

#include <fnmatch.h>
#include <stdlib.h>

struct config {
    int64_t byzantine, keep;
    int32_t weighted_by;
    struct tiered_strings include, exclude;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_INTEGER(struct config, byzantine, "0", 0, 1000000,
                          "how many of the updates may be bad", .unit = "updates"),
    TIERED_OPTION_INTEGER(struct config, keep, "1", 1, 1000000,
                          "how many of the best to average; above 1 it is Multi-Krum",
                          .unit = "updates"),
    TIERED_OPTION_CHOICE(struct config, weighted_by, "uniform", shares_choices,
                         "what the kept updates count by"),
    TIERED_OPTION_ROW(TIERED_STRINGS, struct config, include, NULL,
                      .help = "tensors that enter the distances: name patterns such as "
                              "'fc*.weight'; none: all"),
    TIERED_OPTION_ROW(TIERED_STRINGS, struct config, exclude, NULL,
                      .help = "tensors that do not, of those included"),
};

struct krum {
    const struct tiered_host *host;
    const struct config *config;
};

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    struct krum *self = malloc(sizeof(*self));
    if (!self) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *self = (struct krum){host, config};
    *ret_state = self;
    return 0;
}

static void destroy(void *state)
{
    free(state);
}

static bool matches(const struct tiered_strings *patterns, const char *name)
{
    for (size_t i = 0; i < patterns->n; i++) {
        if (fnmatch(patterns->items[i], name, 0) == 0) {
            return true;
        }
    }
    return false;
}

static bool measures(const void *state, const struct tiered_tensor *tensor)
{
    const struct config *config = ((const struct krum *)state)->config;
    return (config->include.n == 0 || matches(&config->include, tensor->name)) &&
           !matches(&config->exclude, tensor->name);
}

static void warn(const struct krum *self, size_t n)
{
    char text[200];
    size_t f = (size_t)self->config->byzantine;
    if (n < 2 * f + 3) {
        snprintf(
            text, sizeof(text),
            "%zu updates of which %zu may be bad: krum is proven for %zu and more, "
            "so this round goes on without that guarantee",
            n, f, 2 * f + 3);
        self->host->log(self->host, TIERED_LOG_WARN, text);
    } else if (f > 0 && (size_t)self->config->keep > n - f) {
        snprintf(text, sizeof(text),
                 "keeps %lld of %zu updates of which %zu may be bad, so bad ones are "
                 "averaged in",
                 (long long)self->config->keep, n, f);
        self->host->log(self->host, TIERED_LOG_WARN, text);
    }
}

struct scored {
    double score;
    size_t index;
};

static int compare(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) {
        return x->score < y->score ? -1 : 1;
    }
    return (x->index > y->index) - (x->index < y->index);
}

/** Mark the best with 1. An excluded update counts in n and is never chosen. */
static int choose(const struct krum *self, const struct tiered_round_view *view,
                  double *ret_weights, struct tiered_error *err)
{
    size_t n = view->n, count = 0;
    struct scored *scored = calloc(n, sizeof(scored[0]));
    bool *in = calloc(n, sizeof(in[0]));
    uint32_t *order = krum_order(view->gram, n);
    if (!scored || !in || !order) {
        free(scored);
        free(in);
        free(order);
        return tiered_fail(err, TIERED_ENOMEM, "no memory to score %zu updates", n);
    }
    size_t neighbours = krum_neighbours(n, (size_t)self->config->byzantine);
    for (size_t i = 0; i < n; i++) {
        in[i] = true;
        ret_weights[i] = 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (!view->contributions[i]->excluded) {
            scored[count++] =
                (struct scored){krum_score(view->gram, order, in, n, i, neighbours), i};
        }
    }
    qsort(scored, count, sizeof(scored[0]), compare);
    for (size_t k = 0; k < count && k < (size_t)self->config->keep; k++) {
        ret_weights[scored[k].index] = 1;
    }
    free(scored);
    free(in);
    free(order);
    return count ? 0
                 : tiered_fail(err, TIERED_ERANGE,
                               "all %zu updates are excluded; the model stays", n);
}

static int weigh(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err)
{
    const struct krum *self = state;
    if (choose(self, view, ret_weights, err) != 0) {
        return -1;
    }
    warn(self, view->n);
    return shares_fill(view, (enum shares_by)self->config->weighted_by, ret_weights,
                       err);
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .needs = TIERED_NEEDS_DISTANCES,
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER) |
               TIERED_ROLE_BIT(TIERED_CONTROL),
    .init = init,
    .destroy = destroy,
    .weigh = weigh,
    .measures = measures,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "krum", .version = "1.0",
        .summary = "the update closest to the others, or with keep the mean of the "
                   "closest; at an inner tier it holds within each group, of 2f + 3 "
                   "children or more",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT | TIERED_SCALES,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
