/* SPDX-License-Identifier: Apache-2.0 */
/* The bound of the children's adaptive clip (Andrew et al. 2021, arXiv:1905.03871): it
   moves by the share of a round's updates that were within it. With noise, that share
   has noise of its own, and the delta's is raised so that both together tell no more
   than the noise_multiplier z promises: z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2). */
#include "core/aggregate/internal.h"

#include <math.h>

/* sigma_b, as the paper recommends. */
static double share_deviation(const struct strategy_noise *noise)
{
    return noise->expected / TIERED_COUNT_NOISE;
}

/* What the count's noise is worth, as a multiplier. */
static double count_multiplier(const struct tiered_strategy *s)
{
    return share_deviation(&s->noise) / tiered_privacy_count_step(s->follow.grouped);
}

static int check_enough(const struct tiered_strategy *s, struct tiered_error *err)
{
    const struct strategy_noise *noise = &s->noise;
    double least = tiered_privacy_least_children(noise->multiplier, s->follow.grouped);
    return !noise->ops || noise->expected > least
               ? 0
               : tiered_fail(err, TIERED_ERANGE,
                             "a noise_multiplier of %g over an adaptive bound needs "
                             "more than %g children asked a round; it is %g",
                             noise->multiplier, least, noise->expected);
}

static int take_filter(struct strategy_follow *follow, const struct tiered_use *use,
                       struct tiered_error *err)
{
    const struct tiered_plugin *plugin = &use->loaded->plugin;
    tiered_config_finish(&follow->config);
    if (tiered_config_from_json(plugin, use->options_json ? use->options_json : "{}",
                                &follow->config, err) != 0) {
        return -1;
    }
    follow->norm = tiered_privacy_first_norm(plugin, follow->config.data);
    follow->ops = follow->norm > 0 ? plugin->ops : NULL;
    return 0;
}

int tiered_strategy_follow(struct tiered_strategy *s, const struct tiered_use *filters,
                           size_t n_filters, struct tiered_error *err)
{
    for (size_t i = 0; i < n_filters; i++) {
        s->follow.grouped = filters[i].loaded->plugin.kind == TIERED_GROUP;
        if (!s->follow.ops && tiered_privacy_can_follow(&filters[i].loaded->plugin) &&
            take_filter(&s->follow, &filters[i], err) != 0) {
            return -1;
        }
    }
    return s->follow.ops ? check_enough(s, err) : 0;
}

void tiered_strategy_follow_destroy(struct tiered_strategy *s)
{
    tiered_config_finish(&s->follow.config);
}

double tiered_strategy_norm(const struct tiered_strategy *strategy)
{
    return strategy->follow.ops ? strategy->follow.norm : 0;
}

double tiered_strategy_noise_raise(const struct tiered_strategy *s)
{
    double ratio = s->noise.multiplier / count_multiplier(s);
    return s->follow.ops ? 1 / sqrt(1 - ratio * ratio) : 1;
}

/* Standard normal, from the noise's own generator: one value behind the model. */
static int draw(struct strategy_work *work, double *ret, struct tiered_error *err)
{
    const struct strategy_noise *noise = &work->strategy->noise;
    const struct tiered_block behind = {.index = work->layout->n_blocks,
                                        .dtype = TIERED_F64,
                                        .role = TIERED_PARAMETER,
                                        .n_elements = 1,
                                        .size_bytes = sizeof(double)};
    *ret = 0;
    if (noise->ops->add(noise->stage.state, &behind, 0, 1, ret, err) != 0) {
        return -1;
    }
    *ret /= noise->deviation;
    return 0;
}

/* Each update moves the sum of (within - 1/2) by a half at most, whoever else is there:
   that is what sigma_b is measured by. How many there are is not to be told, so those
   that are missing count as a half. A group shows its number. */
static int noisy_share(struct strategy_work *work, double sum, double n, double *ret,
                       struct tiered_error *err)
{
    const struct strategy_noise *noise = &work->strategy->noise;
    double normal;
    if (draw(work, &normal, err) != 0) {
        return -1;
    }
    sum += share_deviation(noise) * normal;
    *ret = work->run->group_weight ? sum / n : 0.5 + (sum - 0.5 * n) / noise->expected;
    return 0;
}

/* The sum of `within` over the updates that count, and their number. A group's mean
   stands for as many as weigh 1, and any number may come of what a member masked. */
static int sum_up(const struct tiered_strategy_run *run, double *ret_sum, double *ret_n,
                  struct tiered_error *err)
{
    double each = run->group_weight ? (double)run->group_weight : 1;
    for (size_t i = 0; i < run->n_rows; i++) {
        const struct tiered_row *row = &run->rows[i];
        double within = run->group_weight ? fmin(fmax(row->within, 0), 1) : row->within;
        if (row->contribution.excluded) {
            continue;
        }
        if (!(within >= 0 && within <= 1)) {
            return tiered_fail(err, TIERED_EINVAL,
                               "'%s' does not say whether it is within the bound",
                               row->contribution.node);
        }
        *ret_sum += each * within;
        *ret_n += each;
    }
    return 0;
}

int tiered_strategy_follow_next(struct strategy_work *work, struct tiered_error *err)
{
    const struct tiered_strategy *s = work->strategy;
    const struct strategy_follow *follow = &s->follow;
    double sum = 0, n = 0, share;
    if (!follow->ops) {
        return 0;
    }
    if (sum_up(work->run, &sum, &n, err) != 0) {
        return -1;
    }
    share = n > 0 ? sum / n : 0;
    if (s->noise.ops && noisy_share(work, sum, n, &share, err) != 0) {
        return -1;
    }
    work->next_norm = follow->ops->next_norm(follow->config.data, follow->norm, share);
    return isnormal(work->next_norm) && work->next_norm > 0
               ? 0
               : tiered_fail(err, TIERED_ERANGE, "the next bound would be %g",
                             work->next_norm);
}
