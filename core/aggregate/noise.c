/* SPDX-License-Identifier: Apache-2.0 */
/* Central noise: on the aggregated delta of a round, before any optimizer. */
#include "core/aggregate/internal.h"

#include <math.h>

#include "core/model/numeric.h"

int tiered_strategy_noise_create(struct tiered_strategy *s,
                                 const struct tiered_use *use, struct tiered_error *err)
{
    struct tiered_noise says;
    s->noise.stage.loaded = use->loaded;
    s->noise.ops = use->loaded->plugin.ops;
    if (tiered_config_from_json(&use->loaded->plugin,
                                use->options_json ? use->options_json : "{}",
                                &s->noise.stage.config, err) != 0) {
        return -1;
    }
    tiered_privacy_noise(&use->loaded->plugin, s->noise.stage.config.data, &says);
    s->noise.multiplier = says.noise_multiplier;
    return 0;
}

static void close_state(struct strategy_noise *noise)
{
    if (noise->stage.inited) {
        noise->ops->destroy(noise->stage.state);
        noise->stage.inited = false;
    }
    tiered_layout_unref(TIERED_STEAL(noise->layout));
}

void tiered_strategy_noise_destroy(struct tiered_strategy *s)
{
    close_state(&s->noise);
    tiered_config_finish(&s->noise.stage.config);
}

bool tiered_strategy_has_noise(const struct tiered_strategy *strategy)
{
    return strategy->noise.ops != NULL;
}

void tiered_strategy_bound(struct tiered_strategy *strategy, double norm,
                           double expected)
{
    strategy->noise.norm = norm;
    strategy->noise.expected = expected;
}

static int open_state(struct tiered_strategy *s, struct tiered_layout *layout,
                      struct tiered_error *err)
{
    struct strategy_noise *noise = &s->noise;
    if (noise->stage.inited &&
        tiered_digest_equal(&noise->layout->digest, &layout->digest)) {
        return 0;
    }
    close_state(noise);
    if (noise->ops->init(&s->hosting->host, noise->stage.config.data, &layout->m,
                         &noise->stage.state, err) != 0) {
        return -1;
    }
    noise->layout = tiered_layout_ref(layout);
    noise->stage.inited = true;
    return 0;
}

/* One child must not move the sum by more than its own share. */
static int check_weights(const struct strategy_work *work, struct tiered_error *err)
{
    const struct tiered_plugin *rule = &work->strategy->stage.loaded->plugin;
    const struct tiered_aggregator_ops *ops = &work->strategy->ops;
    const char *noise = work->strategy->noise.stage.loaded->plugin.name;
    const struct strategy_weights *weights = &work->rule;
    if (ops->needs != TIERED_NEEDS_NOTHING || ops->columns_f32 || ops->columns_f64) {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%s' cannot add noise to what '%s' makes: how far one "
                           "update moves it is not known; fedavg with weighted_by: "
                           "uniform works",
                           noise, rule->name);
    }
    for (size_t i = 0; i < work->run->n_rows; i++) {
        double w = weights->w[i], one = 1.0 / (double)weights->n_active;
        if (w != 0 && fabs(w - one) > 1e-9 * one) {
            return tiered_fail(err, TIERED_EINVAL,
                               "'%s' needs equal coefficients, and '%s' gives '%s' %g "
                               "of %zu; weighted_by: uniform works",
                               noise, rule->name, work->run->rows[i].contribution.node,
                               w, weights->n_active);
        }
    }
    return 0;
}

static int check_run(const struct strategy_work *work, struct tiered_error *err)
{
    const struct strategy_noise *noise = &work->strategy->noise;
    const char *name = noise->stage.loaded->plugin.name;
    if (!(noise->expected > 0)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%s' is measured by the children's clip and by how many a "
                           "round asks, which only a run knows",
                           name);
    }
    if (!work->run->rows_are_deltas || !work->run->base || work->run->allow_bad) {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%s' adds noise to the mean of finite deltas against the "
                           "model before the round",
                           name);
    }
    return check_weights(work, err);
}

int tiered_strategy_noise_begin(struct strategy_work *work, struct tiered_error *err)
{
    struct tiered_strategy *s = work->strategy;
    struct strategy_noise *noise = &s->noise;
    struct tiered_hosting hosting;
    if (!noise->ops) {
        return 0;
    }
    if (check_run(work, err) != 0 || open_state(s, work->run->layout, err) != 0) {
        return -1;
    }
    double each = work->run->group_weight ? (double)work->run->group_weight : 1;
    for (size_t i = 0; i < work->run->n_rows; i++) {
        work->rule.w[i] = work->rule.w[i] != 0 ? each / noise->expected : 0;
    }
    work->rule.rest = 0; /* of the base: rows are deltas */
    tiered_hosting_init(&hosting, s->hosting->run_seed,
                        noise->stage.loaded->plugin.name, s->hosting->tier,
                        s->hosting->node, work->run->path);
    double norm = s->follow.ops ? s->follow.norm : noise->norm > 0 ? noise->norm : 1;
    if (work->run->group_weight) {
        norm = tiered_strategy_group_bound(work, norm);
    }
    double unit = norm / noise->expected * tiered_strategy_noise_raise(s);
    noise->deviation = noise->multiplier * unit;
    return noise->ops->sensitivity(noise->stage.state, unit, err) != 0 ||
                   (noise->ops->begin &&
                    noise->ops->begin(noise->stage.state, &hosting.host, err) != 0)
               ? -1
               : 0;
}

int tiered_strategy_noise_add(struct strategy_work *work,
                              const struct tiered_block *block, uint64_t at, size_t n,
                              double *values, struct tiered_error *err)
{
    const struct strategy_noise *noise = &work->strategy->noise;
    if (!noise->ops || block->role != TIERED_PARAMETER ||
        !tiered_dtype_is_float(block->dtype)) {
        return 0;
    }
    return noise->ops->add(noise->stage.state, block, at, n, values, err);
}

int tiered_strategy_noise_end(struct strategy_work *work, struct tiered_error *err)
{
    const struct strategy_noise *noise = &work->strategy->noise;
    return noise->ops && noise->ops->end ? noise->ops->end(noise->stage.state, err) : 0;
}
