/* SPDX-License-Identifier: Apache-2.0 */
/* Optimizer state: one model of all slots of all optimizers, in chain, slot and tensor
   order. f64 for the parameters that are f64, else f32. */
#include "core/aggregate/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "core/model/numeric.h"
#include "core/model/safetensors.h"

#define STEP_KEY "tiered.step"
#define NORM_KEY "tiered.norm"
#define MAX_STEP (1ull << 53)

static bool has_slots(const struct tiered_tensor *t)
{
    return t->role == TIERED_PARAMETER && tiered_dtype_is_float(t->dtype);
}

static int add_slot(struct tiered_layout_builder *b, const char *prefix,
                    const struct tiered_layout *layout, struct tiered_error *err)
{
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &layout->m.tensors[i];
        char name[2 * TIERED_MAX_NAME];
        if (!has_slots(t)) {
            continue;
        }
        snprintf(name, sizeof(name), "%s/%s", prefix, t->name);
        if (tiered_layout_add(b, name, t->dtype == TIERED_F64 ? TIERED_F64 : TIERED_F32,
                              TIERED_PARAMETER, t->rank, t->shape, err) != 0) {
            return tiered_error_prefix(err, "optimizer state: ");
        }
    }
    return 0;
}

/** Also sets where each optimizer's slots begin. */
struct tiered_layout *tiered_strategy_state_layout(struct tiered_strategy *strategy,
                                                   const struct tiered_layout *layout,
                                                   struct tiered_error *err)
{
    struct tiered_layout_builder *b = tiered_layout_build();
    if (!b) {
        tiered_fail(err, TIERED_ENOMEM, "no memory for the optimizer state");
        return NULL;
    }
    uint32_t n_stepped = 0, next = 0;
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        n_stepped += has_slots(&layout->m.tensors[i]);
    }
    for (size_t o = 0; o < strategy->n_optimizers; o++) {
        struct strategy_optimizer *opt = &strategy->optimizers[o];
        opt->first_tensor = next;
        next += opt->ops.n_slots * n_stepped;
        for (uint32_t k = 0; k < opt->ops.n_slots; k++) {
            char prefix[128];
            snprintf(prefix, sizeof(prefix), "%zu.%s.%s", o,
                     opt->stage.loaded->plugin.name, opt->ops.slot_names[k]);
            if (add_slot(b, prefix, layout, err) != 0) {
                tiered_layout_builder_destroy(b);
                return NULL;
            }
        }
    }
    return tiered_layout_seal(b, err);
}

static void fill_slot(struct tiered_model *slots, uint32_t tensor, double value)
{
    const struct tiered_tensor *t = &slots->layout->m.tensors[tensor];
    uint8_t *at = slots->data + t->offset_bytes;
    uint8_t one[sizeof(double)];
    tiered_from_f64(t->dtype, &value, 1, one);
    size_t size = tiered_dtype_size(t->dtype);
    for (uint64_t i = 0; i < t->n_elements; i++) {
        memcpy(at + i * size, one, size);
    }
}

static int first_slots(struct strategy_work *work, struct tiered_error *err)
{
    struct tiered_strategy *strategy = work->strategy;
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout =
        tiered_strategy_state_layout(strategy, work->layout, err);
    if (!layout) {
        return -1;
    }
    work->slots = tiered_model_create(layout, err);
    if (!work->slots) {
        return -1;
    }
    uint32_t n_stepped = work->ordinals[work->layout->m.n_tensors];
    for (size_t o = 0; o < strategy->n_optimizers; o++) {
        const struct strategy_optimizer *opt = &strategy->optimizers[o];
        for (uint32_t k = 0; k < opt->ops.n_slots; k++) {
            uint32_t first = opt->first_tensor + k * n_stepped;
            /* Fresh bytes are zero already, and untouched pages cost nothing. */
            for (uint32_t i = 0; opt->initial[k] != 0 && i < n_stepped; i++) {
                fill_slot(work->slots, first + i, opt->initial[k]);
            }
        }
    }
    return 0;
}

static int copy_slots(struct strategy_work *work, struct tiered_error *err)
{
    struct tiered_strategy *strategy = work->strategy;
    if (!tiered_digest_equal(&strategy->slots_for, &work->layout->digest)) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "the optimizer state is of another model: its tensors have "
                           "other names, dtypes or shapes");
    }
    work->slots = tiered_model_create(strategy->slots->layout, err);
    if (!work->slots) {
        return -1;
    }
    memcpy(work->slots->data, strategy->slots->data,
           strategy->slots->layout->m.data_bytes);
    return 0;
}

int tiered_strategy_state_begin(struct strategy_work *work, struct tiered_error *err)
{
    struct tiered_strategy *strategy = work->strategy;
    if (strategy->step >= MAX_STEP) {
        return tiered_fail(err, TIERED_ERANGE, "too many steps");
    }
    uint32_t n_tensors = work->layout->m.n_tensors, next = 0;
    work->ordinals = calloc((size_t)n_tensors + 1, sizeof(work->ordinals[0]));
    if (!work->ordinals) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %u tensors", n_tensors);
    }
    for (uint32_t i = 0; i < n_tensors; i++) {
        work->ordinals[i] = next;
        next += has_slots(&work->layout->m.tensors[i]);
    }
    work->ordinals[n_tensors] = next;
    for (size_t o = 0; o < strategy->n_optimizers; o++) {
        struct strategy_optimizer *opt = &strategy->optimizers[o];
        if (opt->ops.begin(opt->stage.state, strategy->step + 1, opt->initial, err) !=
            0) {
            return -1;
        }
    }
    return strategy->slots ? copy_slots(work, err) : first_slots(work, err);
}

/** What is saved before the first step, so that a round without a result can be
    committed, and a state that is lost is not taken for one that never was. */
static struct tiered_model *no_slots(struct tiered_error *err)
{
    struct tiered_layout_builder *b = tiered_layout_build();
    if (!b) {
        tiered_fail(err, TIERED_ENOMEM, "no memory for the optimizer state");
        return NULL;
    }
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, err);
    return layout ? tiered_model_create(layout, err) : NULL;
}

int tiered_strategy_save(const struct tiered_strategy *strategy, const char *path,
                         struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *slots =
        strategy->slots ? tiered_model_ref(strategy->slots) : no_slots(err);
    struct tiered_metadata metadata = {0};
    if (!slots) {
        return -1;
    }
    char step[24], norm[32];
    snprintf(step, sizeof(step), "%" PRIu64, strategy->step);
    snprintf(norm, sizeof(norm), "%.17g", strategy->follow.norm);
    int rc = tiered_metadata_set(&metadata, STEP_KEY, step, err);
    if (rc == 0 && strategy->follow.ops) {
        rc = tiered_metadata_set(&metadata, NORM_KEY, norm, err);
    }
    if (rc == 0) {
        rc = tiered_safetensors_write(path, slots, &metadata, err);
    }
    tiered_metadata_finish(&metadata);
    return rc;
}

static int parse_step(const char *path, const struct tiered_metadata *metadata,
                      uint64_t *ret, struct tiered_error *err)
{
    const char *text = tiered_metadata_get(metadata, STEP_KEY);
    if (!text || text[0] < '0' || text[0] > '9') {
        return tiered_fail(err, TIERED_EINVAL,
                           "'%s' is no optimizer state: its metadata has no " STEP_KEY,
                           path);
    }
    char *end;
    errno = 0;
    unsigned long long step = strtoull(text, &end, 10);
    if (errno || *end || step > MAX_STEP) {
        return tiered_fail(err, TIERED_EINVAL, "'%s': " STEP_KEY " '%.40s' is no step",
                           path, text);
    }
    *ret = step;
    return 0;
}

/* A state has a bound where the strategy follows norms, and only there. */
static int parse_norm(const struct tiered_strategy *strategy, const char *path,
                      const struct tiered_metadata *metadata, double *ret,
                      struct tiered_error *err)
{
    const char *text = tiered_metadata_get(metadata, NORM_KEY);
    bool follows = strategy->follow.ops != NULL;
    char *end = NULL;
    *ret = text ? strtod(text, &end) : 0;
    bool good = text && end != text && !*end && isnormal(*ret) && *ret > 0;
    return good == follows && (text != NULL) == follows
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "'%s' is the state of other optimizers: " NORM_KEY
                             " is '%.40s'",
                             path, text ? text : "");
}

int tiered_strategy_load(struct tiered_strategy *strategy, const char *path,
                         struct tiered_layout *layout, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *want = tiered_strategy_state_layout(strategy, layout, err);
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *slots = NULL;
    struct tiered_metadata metadata = {0};
    if (!want || tiered_safetensors_read(path, &slots, &metadata, err) != 0) {
        return -1;
    }
    uint64_t step = 0;
    double norm = 0;
    int rc = parse_step(path, &metadata, &step, err);
    rc = rc == 0 ? parse_norm(strategy, path, &metadata, &norm, err) : rc;
    tiered_metadata_finish(&metadata);
    if (rc != 0) {
        return -1;
    }
    bool fresh = step == 0 && slots->layout->m.n_tensors == 0;
    if (!fresh && tiered_layout_match(want, slots->layout, err) != 0) {
        return tiered_error_prefix(
            err, "'%s' is the state of other optimizers or another model: ", path);
    }
    tiered_model_unref(strategy->slots);
    strategy->slots = fresh ? NULL : TIERED_STEAL(slots);
    strategy->slots_for = layout->digest;
    strategy->step = step;
    strategy->follow.norm = norm;
    return 0;
}
