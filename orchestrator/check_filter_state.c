/* SPDX-License-Identifier: Apache-2.0 */
/* Passes that are made again, and what a filter saves: a re-send is the same bytes,
   also by a process that started anew. Noise that the seed does not decide is left out.
 */
#include "orchestrator/check_filter.h"

#include <string.h>

static int encode_anew(struct check *check, struct made_pass *pass,
                       struct tiered_error *err)
{
    void *state;
    if (filter_open(check, pass->layout, &state, err) < 0) {
        return -1;
    }
    int result = made_pass_encode(check, state, pass, err);
    filter_close(check, state);
    return result;
}

/* Within one pass every forward of a block is the same, as a later filter's scan needs;
   between two states with the same seed, so is the pass. */
int check_same_pass(struct check *check, struct tiered_error *err)
{
    struct made_pass first = filter_mixed(check, MADE_NORMAL), second;
    void *state;
    int result = encode_anew(check, &first, err);
    if (result < 0 || filter_mixed_begun(check, &state, &second, err) < 0) {
        made_pass_finish(&first);
        return -1;
    }
    result = made_pass_forward(check, state, &second, err);
    struct made_pass kept = second;
    kept.blocks = check_must(calloc(kept.layout->n_blocks + 1, sizeof(*kept.blocks)));
    memcpy(kept.blocks, second.blocks, kept.layout->n_blocks * sizeof(*kept.blocks));
    memset(second.blocks, 0, kept.layout->n_blocks * sizeof(*kept.blocks));
    result = result == 0 ? made_pass_forward(check, state, &second, err) : result;
    result = result == 0 ? made_pass_compare(&kept, &second,
                                             "a second forward in the same pass", err)
                         : result;
    if (result == 0 && !filter_has(check, TIERED_PRIVACY)) {
        result = made_pass_compare(
            &first, &second, "the same pass with the same seed in a new state", err);
    }
    for (uint32_t i = 0; i < kept.layout->n_blocks; i++) {
        free(kept.blocks[i].data);
    }
    free(kept.blocks);
    filter_close(check, state);
    made_pass_finish(&first);
    made_pass_finish(&second);
    return result;
}

/* begin() after an unfinished pass discards that pass. */
int check_dropped_pass(struct check *check, struct tiered_error *err)
{
    struct made_pass want = filter_mixed(check, MADE_NORMAL), got;
    void *state;
    int result = encode_anew(check, &want, err);
    if (result < 0 || filter_mixed_begun(check, &state, &got, err) < 0) {
        made_pass_finish(&want);
        return -1;
    }
    struct made_block out = {0};
    struct tiered_error why = {0};
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    size_t raw = (size_t)got.layout->blocks[0].size_bytes;
    if (made_forward(check, state, &got.layout->blocks[0], got.data, raw,
                     ops->bound(state, raw), &out, &why) < 0) {
        result = check_call_failed("forward", &why, err);
    }
    free(out.data);
    result = result == 0 ? made_pass_encode(check, state, &got, err) : result;
    if (result == 0 && !filter_has(check, TIERED_PRIVACY)) {
        result = made_pass_compare(&want, &got,
                                   "a pass that was dropped and begun again", err);
    }
    filter_close(check, state);
    made_pass_finish(&want);
    made_pass_finish(&got);
    return result;
}

/* ---- saved state ---- */

static int save(struct check *check, void *state, struct made_block *ret,
                struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    size_t size = 0, again = 0;
    check_step(check, "save, to learn its size");
    if (ops->saved.save(state, NULL, 0, &size, &why) < 0) {
        return check_call_failed("save with capacity 0", &why, err);
    }
    struct guard guard = guard_make("its saved state", size);
    check_step(check, "save of %zu bytes", size);
    int result = ops->saved.save(state, guard.data, size, &again, &why);
    if (result < 0) {
        result = check_call_failed("save", &why, err);
    } else if (again != size) {
        result = tiered_fail(err, TIERED_EINVAL, "save needs %zu bytes, then %zu", size,
                             again);
    } else {
        ret->data = check_must(malloc(size + 1));
        memcpy(ret->data, guard.data, size);
        ret->size = size;
    }
    guard_free(&guard);
    return result;
}

static int load(struct check *check, void *state, uint32_t version,
                const struct made_block *saved, size_t size, struct tiered_error *why)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct guard guard = guard_make("the saved state", size);
    if (size > 0) {
        memcpy(guard.data, saved->data, size);
    }
    guard_freeze(&guard);
    check_step(check, "load of %zu bytes, version %u", size, version);
    int result = ops->saved.load(state, version, guard.data, size, why);
    guard_free(&guard);
    return result;
}

static int refuse_bad(struct check *check, void *state, const struct made_block *saved,
                      struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    if (load(check, state, ops->saved.version + 1000, saved, saved->size, &why) == 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "load takes a version that it cannot "
                           "know");
    }
    if (check_refusal("load", &why, err) < 0) {
        return -1;
    }
    why = (struct tiered_error){0};
    if (saved->size > 0 &&
        load(check, state, ops->saved.version, saved, saved->size - 1, &why) == 0) {
        return tiered_fail(err, TIERED_EINVAL, "load takes a state that is cut off");
    }
    return saved->size > 0 ? check_refusal("load", &why, err) : 0;
}

/* After two passes; then a third, here and in a state that was loaded. */
static int save_and_go_on(struct check *check, void *state, void *other,
                          struct made_pass *here, struct made_pass *there,
                          struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct made_block saved = {0};
    struct tiered_error why = {0};
    if (made_pass_encode(check, state, here, err) < 0 ||
        made_pass_encode(check, state, here, err) < 0 ||
        save(check, state, &saved, err) < 0) {
        return -1;
    }
    int result = refuse_bad(check, other, &saved, err);
    if (result == 0 &&
        load(check, other, ops->saved.version, &saved, saved.size, &why) < 0) {
        result = check_call_failed("load of what save wrote", &why, err);
    }
    free(saved.data);
    if (result < 0 || made_pass_encode(check, state, here, err) < 0 ||
        made_pass_encode(check, other, there, err) < 0) {
        return -1;
    }
    return filter_has(check, TIERED_PRIVACY)
               ? 0
               : made_pass_compare(here, there, "going on from a saved state", err);
}

int check_saved_state(struct check *check, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    void *state, *other;
    if (!ops->saved.save && !ops->saved.load) {
        return check_skip(check, "saves nothing");
    }
    if (!ops->saved.save || !ops->saved.load) {
        return tiered_fail(err, TIERED_EINVAL,
                           "has one of save and load without the other");
    }
    struct made_pass here = filter_mixed(check, MADE_NORMAL),
                     there = filter_mixed(check, MADE_NORMAL);
    int result = filter_open(check, here.layout, &state, err);
    if (result == 0) {
        result = filter_open(check, there.layout, &other, err);
        if (result == 0) {
            result = save_and_go_on(check, state, other, &here, &there, err);
            filter_close(check, other);
        }
        filter_close(check, state);
    }
    made_pass_finish(&here);
    made_pass_finish(&there);
    return result;
}
