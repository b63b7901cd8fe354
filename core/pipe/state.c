/* SPDX-License-Identifier: Apache-2.0 */
/* What a pipe's filters carry from one pass to the next (error feedback and the like),
   as bytes: for each filter that has any, its place in the pipe, its state's version
   and size (u32, u32, u64, little endian), and the state. */
#include "core/pipe/stage.h"
#include "core/privacy/filters.h"

struct part_head {
    uint32_t stage, version;
    uint64_t size;
};
_Static_assert(sizeof(struct part_head) == 16, "no padding is written");

static const struct tiered_saved_state *saved_of(const struct pipe_stage *stage)
{
    return TIERED_HAS(stage->ops, saved) && stage->ops->saved.save &&
                   stage->ops->saved.load
               ? &stage->ops->saved
               : NULL;
}

bool pipe_stages_have_state(const struct pipe_stages *stages)
{
    bool have = false;
    for (size_t k = 0; k < stages->n; k++) {
        have = have || saved_of(&stages->items[k]);
    }
    return have;
}

static int save_stage(const struct pipe_stage *stage, uint32_t index,
                      struct tiered_bytes *ret, struct tiered_error *err)
{
    const struct tiered_saved_state *saved = saved_of(stage);
    size_t need = 0, made = 0;
    if (saved->save(stage->state, NULL, 0, &need, err) < 0) {
        return pipe_stage_failed(stage, err);
    }
    if (need == 0) {
        return 0; /* its options decide whether there is any */
    }
    TIERED_FREE uint8_t *data = malloc(need + 1);
    if (!data) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a filter's state");
    }
    if (saved->save(stage->state, data, need, &made, err) < 0) {
        return pipe_stage_failed(stage, err);
    }
    if (made > need) {
        return tiered_fail(err, TIERED_EINVAL, "filter '%s': its state grew",
                           stage->plugin->name);
    }
    const struct part_head head = {index, saved->version, made};
    return tiered_bytes_append(ret, &head, sizeof(head), err) < 0 ||
                   tiered_bytes_append(ret, data, made, err) < 0
               ? -1
               : 0;
}

int pipe_stages_save(const struct pipe_stages *stages, struct tiered_bytes *ret,
                     struct tiered_error *err)
{
    for (size_t k = 0; k < stages->n; k++) {
        if (saved_of(&stages->items[k]) &&
            save_stage(&stages->items[k], (uint32_t)k, ret, err) < 0) {
            return -1;
        }
    }
    return 0;
}

int pipe_stages_load(const struct pipe_stages *stages, const void *data, size_t size,
                     struct tiered_error *err)
{
    const uint8_t *at = data;
    struct part_head head;
    while (size > 0) {
        if (size < sizeof(head)) {
            return tiered_fail(err, TIERED_ECORRUPT, "the filters' state is cut off");
        }
        memcpy(&head, at, sizeof(head));
        at += sizeof(head);
        size -= sizeof(head);
        const struct pipe_stage *stage =
            head.stage < stages->n ? &stages->items[head.stage] : NULL;
        if (head.size > size || !stage || !saved_of(stage)) {
            return tiered_fail(err, TIERED_ECORRUPT,
                               "the filters' state is of another pipe");
        }
        if (saved_of(stage)->load(stage->state, head.version, at, (size_t)head.size,
                                  err) < 0) {
            return pipe_stage_failed(stage, err);
        }
        at += head.size;
        size -= (size_t)head.size;
    }
    return 0;
}

uint64_t pipe_stages_released(const struct pipe_stages *stages)
{
    uint64_t most = 0;
    for (size_t k = 0; k < stages->n; k++) {
        const struct pipe_stage *stage = &stages->items[k];
        uint64_t n = tiered_privacy_is_noise(stage->plugin)
                         ? stage->ops->released(stage->state)
                         : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* One filter's part on a state of its own, for a model without tensors. */
static int part_released(const struct tiered_use *filter,
                         const struct tiered_hosting *hosting,
                         const struct part_head *head, const uint8_t *part,
                         uint64_t *ret, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *nothing = tiered_layout_seal(tiered_layout_build(), err);
    struct pipe_stages stages = {0};
    if (!nothing || pipe_stages_open(filter, 1, nothing, hosting, &stages, err) < 0) {
        return -1;
    }
    const struct pipe_stage *stage = &stages.items[0];
    int result = stage->ops->saved.load(stage->state, head->version, part,
                                        (size_t)head->size, err);
    result = result < 0 ? pipe_stage_failed(stage, err) : 0;
    *ret = result == 0 ? pipe_stages_released(&stages) : 0;
    pipe_stages_close(&stages);
    return result;
}

int tiered_pipe_state_released(const struct tiered_use *filters, size_t n_filters,
                               const struct tiered_hosting *hosting, const void *data,
                               size_t size, uint64_t *ret, struct tiered_error *err)
{
    const uint8_t *at = data;
    struct part_head head;
    *ret = 0;
    while (size >= sizeof(head)) {
        memcpy(&head, at, sizeof(head));
        at += sizeof(head);
        size -= sizeof(head);
        if (head.size > size || head.stage >= n_filters) {
            return tiered_fail(err, TIERED_ECORRUPT,
                               "the filters' state is of another pipe");
        }
        const struct tiered_use *filter = &filters[head.stage];
        if (tiered_privacy_is_noise(&filter->loaded->plugin) &&
            part_released(filter, hosting, &head, at, ret, err) < 0) {
            return -1;
        }
        at += head.size;
        size -= (size_t)head.size;
    }
    return 0;
}

int tiered_pipe_norm(const struct tiered_use *filters, size_t n_filters,
                     double *ret_norm, struct tiered_error *err)
{
    *ret_norm = 0;
    for (size_t i = 0; i < n_filters; i++) {
        struct tiered_privacy says;
        const struct tiered_plugin *plugin = &filters[i].loaded->plugin;
        if (tiered_privacy_of(plugin, filters[i].options_json, &says, err) < 0) {
            return -1;
        }
        *ret_norm = tiered_privacy_bounds(plugin) ? says.norm : *ret_norm;
    }
    return 0;
}
