/* SPDX-License-Identifier: Apache-2.0 */
/* The strategy as a whole: its plugins' lives, and the phases of one run. */
#include "core/aggregate/internal.h"

#include <math.h>

#define MAX_STAGES 16

bool tiered_on_bad_update_parse(const char *text, enum tiered_on_bad_update *ret)
{
    static const char *const names[] = {"reject", "exclude", "allow"};
    for (size_t i = 0; i < TIERED_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum tiered_on_bad_update)i;
            return true;
        }
    }
    return false;
}

static int check_kind(const struct tiered_use *use, enum tiered_kind kind,
                      struct tiered_error *err)
{
    const struct tiered_plugin *plugin = &use->loaded->plugin;
    if (plugin->kind != kind) {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%s' is no %s: a strategy is one aggregator, then "
                           "optimizers",
                           plugin->name,
                           kind == TIERED_AGGREGATOR ? "aggregator" : "optimizer");
    }
    return 0;
}

static int stage_begin(struct strategy_stage *stage, const struct tiered_use *use,
                       struct tiered_error *err)
{
    stage->loaded = use->loaded;
    return tiered_config_from_json(&use->loaded->plugin,
                                   use->options_json ? use->options_json : "{}",
                                   &stage->config, err);
}

/** The tables begin with their size and may be shorter than ours. */
static void copy_ops(const void *from, void *to, size_t size)
{
    size_t theirs;
    memcpy(&theirs, from, sizeof(theirs));
    memset(to, 0, size);
    memcpy(to, from, theirs < size ? theirs : size);
}

static int add_aggregator(struct tiered_strategy *s, const struct tiered_use *use,
                          struct tiered_error *err)
{
    if (check_kind(use, TIERED_AGGREGATOR, err) != 0 ||
        stage_begin(&s->stage, use, err) != 0) {
        return -1;
    }
    copy_ops(use->loaded->plugin.ops, &s->ops, sizeof(s->ops));
    if (s->ops.init(&s->hosting->host, s->stage.config.data, &s->stage.state, err) !=
        0) {
        return -1;
    }
    s->stage.inited = true;
    return 0;
}

static int add_optimizer(struct tiered_strategy *s, const struct tiered_use *use,
                         struct tiered_error *err)
{
    struct strategy_optimizer *opt = &s->optimizers[s->n_optimizers];
    if (check_kind(use, TIERED_OPTIMIZER, err) != 0) {
        return -1;
    }
    if (tiered_strategy_is_whole(s)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "optimizer '%s' steps along a mean, and '%s' merges whole "
                           "models, which have none: leave the optimizer out",
                           use->loaded->plugin.name, s->stage.loaded->plugin.name);
    }
    s->n_optimizers++;
    if (stage_begin(&opt->stage, use, err) != 0) {
        return -1;
    }
    copy_ops(use->loaded->plugin.ops, &opt->ops, sizeof(opt->ops));
    if (opt->ops.n_slots > TIERED_MAX_SLOTS) {
        return tiered_fail(err, TIERED_EINVAL, "optimizer '%s' has more than %d slots",
                           use->loaded->plugin.name, TIERED_MAX_SLOTS);
    }
    if (opt->ops.init(&s->hosting->host, opt->stage.config.data, &opt->stage.state,
                      err) != 0) {
        return -1;
    }
    opt->stage.inited = true;
    return 0;
}

int tiered_strategy_create(const struct tiered_use *uses, size_t n_uses,
                           const struct tiered_hosting *hosting,
                           struct tiered_strategy **ret, struct tiered_error *err)
{
    if (n_uses == 0 || n_uses > MAX_STAGES) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a strategy is one aggregator and at most %d optimizers",
                           MAX_STAGES - 1);
    }
    TIERED_CLEANUP(tiered_strategy_destroyp)
    struct tiered_strategy *s = calloc(1, sizeof(*s));
    if (s) {
        s->hosting = hosting;
        s->local_steps = NAN;
        s->optimizers = calloc(n_uses, sizeof(s->optimizers[0]));
    }
    if (!s || !s->optimizers) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for a strategy");
    }
    if (add_aggregator(s, &uses[0], err) != 0) {
        return -1;
    }
    for (size_t i = 1; i < n_uses; i++) {
        bool noise =
            i + 1 == n_uses && tiered_privacy_is_noise(&uses[i].loaded->plugin);
        if ((noise ? tiered_strategy_noise_create(s, &uses[i], err)
                   : add_optimizer(s, &uses[i], err)) != 0) {
            return -1;
        }
    }
    *ret = TIERED_STEAL(s);
    return 0;
}

void tiered_strategy_destroy(struct tiered_strategy *s)
{
    if (!s) {
        return;
    }
    if (s->stage.inited) {
        s->ops.destroy(s->stage.state);
    }
    tiered_config_finish(&s->stage.config);
    for (size_t i = 0; s->optimizers && i < s->n_optimizers; i++) {
        if (s->optimizers[i].stage.inited) {
            s->optimizers[i].ops.destroy(s->optimizers[i].stage.state);
        }
        tiered_config_finish(&s->optimizers[i].stage.config);
    }
    free(s->optimizers);
    tiered_strategy_noise_destroy(s);
    tiered_strategy_follow_destroy(s);
    tiered_model_unref(s->slots);
    free(s);
}

double tiered_strategy_local_steps(const struct tiered_strategy *strategy)
{
    return strategy->local_steps;
}

bool tiered_strategy_has_state(const struct tiered_strategy *strategy)
{
    return strategy->n_optimizers > 0 || strategy->follow.ops;
}

static int check_blocks(const struct tiered_strategy_run *run, struct tiered_error *err)
{
    for (uint32_t b = 0; b < run->layout->n_blocks; b++) {
        const struct tiered_block *block = &run->layout->blocks[b];
        if (tiered_dtype_is_opaque(block->dtype)) {
            return tiered_fail(
                err, TIERED_EINVAL,
                "tensor '%.100s' is %s: opaque tensors have no mean, and go only to "
                "aggregators that accept them",
                run->layout->m.tensors[block->first_tensor].name,
                tiered_dtype_name(block->dtype));
        }
    }
    return 0;
}

/** Averaging a forest's arrays would give nodes that point anywhere. */
static int check_trees(const struct tiered_strategy *s,
                       const struct tiered_layout *layout, struct tiered_error *err)
{
    return tiered_layout_is_forest(layout)
               ? tiered_fail(err, TIERED_EINVAL,
                             "the tensors are the trees of a forest (t0.left …), which "
                             "'%s' cannot average; tree-bagging unites them",
                             s->stage.loaded->plugin.name)
               : 0;
}

static int check_run(const struct tiered_strategy *s,
                     const struct tiered_strategy_run *run, struct tiered_error *err)
{
    size_t excluded = 0;
    for (size_t i = 0; i < run->n_rows; i++) {
        excluded += run->rows[i].contribution.excluded != 0;
    }
    const struct tiered_plugin *plugin = &s->stage.loaded->plugin;
    if (run->n_rows == excluded && !s->noise.ops) {
        return tiered_fail(err, TIERED_ERANGE, "no update to aggregate (%zu excluded)",
                           excluded);
    }
    if (run->allow_bad && !(plugin->traits & TIERED_ALLOWS_BAD_UPDATES)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "aggregator '%s' cannot allow bad updates; reject or "
                           "exclude them",
                           plugin->name);
    }
    if (tiered_strategy_is_whole(s)) {
        return 0;
    }
    if (s->n_optimizers && !run->base) {
        return tiered_fail(err, TIERED_EINVAL,
                           "optimizer '%s' needs the model before the round",
                           s->optimizers[0].stage.loaded->plugin.name);
    }
    if (run->base && tiered_layout_match(run->layout, run->base->layout, err) != 0) {
        return tiered_error_prefix(err, "the model before the round: ");
    }
    return check_blocks(run, err) != 0 ? -1 : check_trees(s, run->layout, err);
}

static int work_begin(struct strategy_work *work, struct tiered_error *err)
{
    size_t n_rows = work->run->n_rows;
    work->rule.w = calloc(n_rows + 1, sizeof(double));
    work->by_examples.w = calloc(n_rows + 1, sizeof(double));
    work->rule.active = calloc(n_rows + 1, sizeof(size_t));
    work->by_examples.active = calloc(n_rows + 1, sizeof(size_t));
    work->n_scratch = work->run->pool ? tiered_pool_threads(work->run->pool) + 1u : 1;
    work->scratch = calloc(work->n_scratch, sizeof(work->scratch[0]));
    if (!work->rule.w || !work->by_examples.w || !work->rule.active ||
        !work->by_examples.active || !work->scratch) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates", n_rows);
    }
    work->model = tiered_model_create_raw(work->run->layout, err);
    return work->model ? 0 : -1;
}

static void work_finish(struct strategy_work *work)
{
    for (size_t i = 0; work->scratch && i < work->n_scratch; i++) {
        struct strategy_scratch *s = work->scratch[i];
        if (s) {
            free(s->raw);
            free(s->tiles);
            free(s->sum);
            free(s->row_at);
            free(s);
        }
    }
    free(work->scratch);
    free(work->rule.w);
    free(work->by_examples.w);
    free(work->rule.active);
    free(work->by_examples.active);
    free(work->ordinals);
    free(work->measured);
    tiered_model_unref(work->slots);
    tiered_model_unref(work->model);
}

static int work_run(struct strategy_work *work, struct tiered_error *err)
{
    return work_begin(work, err) != 0 || tiered_strategy_weigh(work, err) != 0 ||
                   (work->run->screen_all &&
                    tiered_strategy_screen_left_out(work, err) != 0) ||
                   tiered_strategy_noise_begin(work, err) != 0 ||
                   tiered_strategy_state_begin(work, err) != 0 ||
                   tiered_strategy_fold(work, err) != 0 ||
                   tiered_strategy_columns(work, err) != 0 ||
                   tiered_strategy_follow_next(work, err) != 0 ||
                   tiered_strategy_noise_end(work, err) != 0 ||
                   tiered_strategy_check_overflow(work, err) != 0 ||
                   (!work->run->unsealed && tiered_model_seal(work->model, err) != 0)
               ? -1
               : 0;
}

int tiered_strategy_run(struct tiered_strategy *strategy,
                        const struct tiered_strategy_run *run,
                        struct tiered_model **ret_model, struct tiered_error *err)
{
    if (check_run(strategy, run, err) != 0) {
        return -1;
    }
    if (tiered_strategy_is_whole(strategy)) {
        return tiered_strategy_merge(strategy, run, ret_model, err);
    }
    struct strategy_work work = {
        .strategy = strategy,
        .kernels = tiered_kernels(),
        .run = run,
        .layout = run->layout,
    };
    int rc = work_run(&work, err);
    if (rc == 0) {
        tiered_model_unref(strategy->slots);
        strategy->slots = TIERED_STEAL(work.slots);
        strategy->slots_for = run->layout->digest;
        strategy->step++;
        strategy->follow.norm = work.next_norm;
        *ret_model = TIERED_STEAL(work.model);
    }
    work_finish(&work);
    return rc;
}
