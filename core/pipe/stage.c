/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the filters of a pipe, what they may need, and the screening of values. */
#include "core/pipe/stage.h"

#include <math.h>

#include "core/model/numeric.h"
#include "core/privacy/filters.h"

/* A filter that would make more of a block than this is refused. */
#define MOST_BYTES (16u << 20)

int pipe_stage_failed(const struct pipe_stage *stage, struct tiered_error *err)
{
    return tiered_error_prefix(err, "filter '%s': ", stage->plugin->name);
}

static int check_kind(const struct tiered_plugin *plugin, struct tiered_error *err)
{
    if (plugin->kind == TIERED_GROUP) {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%s' is a group protocol: it sums the updates of a round, "
                           "and is no filter of one",
                           plugin->name);
    }
    if (plugin->kind != TIERED_FILTER) {
        return tiered_fail(err, TIERED_EINVAL, "'%s' is not a filter", plugin->name);
    }
    return 0;
}

static int stage_open(struct pipe_stage *stage, const struct tiered_use *use,
                      const struct tiered_layout *layout,
                      const struct tiered_hosting *hosting, struct tiered_error *err)
{
    const struct tiered_plugin *plugin = &use->loaded->plugin;
    if (check_kind(plugin, err) < 0) {
        return -1;
    }
    stage->plugin = plugin;
    stage->ops = plugin->ops;
    if (tiered_config_from_json(plugin, use->options_json ? use->options_json : "{}",
                                &stage->config, err) < 0) {
        return -1;
    }
    if (stage->ops->init(&hosting->host, stage->config.data, &layout->m, &stage->state,
                         err) < 0) {
        tiered_config_finish(&stage->config);
        return -1;
    }
    return 0;
}

/* Noise is measured by the norm that a filter before it has bounded. */
static int tell_sensitivity(const struct pipe_stages *stages, struct tiered_error *err)
{
    double norm = 0;
    for (size_t i = 0; i < stages->n; i++) {
        const struct pipe_stage *stage = &stages->items[i];
        if (tiered_privacy_bounds(stage->plugin)) {
            norm = tiered_privacy_norm(stage->plugin, stage->config.data);
        }
        if (tiered_privacy_is_noise(stage->plugin) &&
            stage->ops->sensitivity(stage->state, norm, err) < 0) {
            return pipe_stage_failed(stage, err);
        }
    }
    return 0;
}

int pipe_stages_open(const struct tiered_use *filters, size_t n,
                     const struct tiered_layout *layout,
                     const struct tiered_hosting *hosting, struct pipe_stages *ret,
                     struct tiered_error *err)
{
    struct pipe_stages stages = {.items = calloc(n + 1, sizeof(*stages.items)),
                                 .concurrent = true};
    if (!stages.items) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        if (stage_open(&stages.items[i], &filters[i], layout, hosting, err) < 0) {
            pipe_stages_close(&stages);
            return -1;
        }
        stages.concurrent =
            stages.concurrent && (stages.items[i].plugin->traits & TIERED_CONCURRENT);
        stages.lossy = stages.lossy || (stages.items[i].plugin->traits & TIERED_LOSSY);
        stages.n++;
    }
    if (tell_sensitivity(&stages, err) < 0) {
        pipe_stages_close(&stages);
        return -1;
    }
    *ret = stages;
    return 0;
}

void pipe_stages_close(struct pipe_stages *stages)
{
    for (size_t i = 0; i < stages->n; i++) {
        struct pipe_stage *stage = &stages->items[i];
        stage->ops->destroy(stage->state);
        tiered_config_finish(&stage->config);
    }
    free(stages->items);
    *stages = (struct pipe_stages){0};
}

static bool follows(const struct pipe_stage *stage)
{
    return tiered_privacy_first_norm(stage->plugin, stage->config.data) > 0;
}

int pipe_stages_bound_to(const struct pipe_stages *stages, double norm,
                         struct tiered_error *err)
{
    for (size_t i = 0; norm != 0 && i < stages->n; i++) {
        const struct pipe_stage *stage = &stages->items[i];
        if (follows(stage) && stage->ops->bound_to(stage->state, norm, err) < 0) {
            return pipe_stage_failed(stage, err);
        }
    }
    return 0;
}

double pipe_stages_within(const struct pipe_stages *stages)
{
    double within = NAN;
    for (size_t i = 0; i < stages->n; i++) {
        const struct pipe_stage *stage = &stages->items[i];
        within = follows(stage) ? stage->ops->within(stage->state) : within;
    }
    return within;
}

static bool refers(const struct tiered_plugin *plugin)
{
    const struct tiered_filter_ops *ops = plugin->ops;
    return plugin->kind == TIERED_FILTER && TIERED_HAS(ops, refer) && ops->refer;
}

bool tiered_pipe_refers(const struct tiered_use *filters, size_t n_filters)
{
    for (size_t i = 0; i < n_filters; i++) {
        if (refers(&filters[i].loaded->plugin)) {
            return true;
        }
    }
    return false;
}

int pipe_stages_refer(const struct pipe_stages *stages,
                      const struct tiered_layout *layout,
                      const struct tiered_model *reference, struct tiered_error *err)
{
    bool fits =
        reference && tiered_digest_equal(&reference->layout->digest, &layout->digest);
    for (size_t i = 0; i < stages->n; i++) {
        const struct pipe_stage *stage = &stages->items[i];
        if (refers(stage->plugin) &&
            stage->ops->refer(stage->state, fits ? reference->data : NULL,
                              fits ? reference->content.bytes : NULL, err) < 0) {
            return pipe_stage_failed(stage, err);
        }
    }
    return 0;
}

int pipe_stages_bound(const struct pipe_stages *stages, size_t n, size_t raw,
                      size_t *ret, struct tiered_error *err)
{
    size_t bytes = raw;
    for (size_t i = 0; i < n; i++) {
        const struct pipe_stage *stage = &stages->items[i];
        bytes = stage->ops->bound(stage->state, bytes);
        if (bytes > MOST_BYTES) {
            return tiered_fail(err, TIERED_ENOMEM,
                               "filter '%s' would make %zu bytes of a block; at most "
                               "%u",
                               stage->plugin->name, bytes, MOST_BYTES);
        }
    }
    *ret = bytes;
    return 0;
}

int pipe_stages_scratch(const struct pipe_stages *stages,
                        const struct tiered_layout *layout, size_t *ret,
                        struct tiered_error *err)
{
    size_t raw = 0, most = 0;
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        size_t size = (size_t)layout->blocks[i].size_bytes;
        raw = size > raw ? size : raw;
    }
    for (size_t n = 0; n <= stages->n; n++) {
        size_t bytes = 0;
        if (pipe_stages_bound(stages, n, raw, &bytes, err) < 0) {
            return -1;
        }
        most = bytes > most ? bytes : most;
    }
    *ret = most ? most : 1;
    return 0;
}

static int fail_value(const struct tiered_layout *layout,
                      const struct tiered_block *block, const void *data, size_t i,
                      struct tiered_error *err)
{
    const struct tiered_tensor *t = &layout->m.tensors[block->first_tensor];
    uint64_t index = block->first_element + i;
    while (index >= t->n_elements) { /* the block ends inside the layout */
        index -= t->n_elements;
        t++;
    }
    double value;
    size_t width = tiered_dtype_size(block->dtype);
    tiered_to_f64(block->dtype, (const uint8_t *)data + i * width, 1, &value);
    return tiered_fail(err, TIERED_ERANGE, "tensor '%.150s' has %s at index %llu",
                       t->name,
                       isnan(value) ? "nan"
                       : value < 0  ? "-inf"
                                    : "inf",
                       (unsigned long long)index);
}

int pipe_screen(const struct tiered_layout *layout, const struct tiered_block *block,
                const void *data, struct tiered_error *err)
{
    size_t n = (size_t)block->n_elements;
    size_t i = tiered_first_nonfinite(block->dtype, data, n);
    return i == n ? 0 : fail_value(layout, block, data, i, err);
}
