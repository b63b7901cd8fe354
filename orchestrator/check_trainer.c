/* SPDX-License-Identifier: Apache-2.0 */
/* What every trainer must do: a sound manifest, a finite initial model, the same bits
   for the same seed, an end when cancelled, and an evaluation. */
#include "orchestrator/check.h"

#include <math.h>
#include <string.h>

#include "core/model/model.h"
#include "core/model/numeric.h"
#include "tiered/trainer.h"

/* A trainer with its data loaded, its layout, and its first model. */
struct bench {
    struct check *check;
    const struct tiered_trainer_ops *ops;
    void *state;
    struct tiered_layout *layout;
    struct guard model, out;
};

static int trainer_open(struct check *check, const void *config, void **ret_state,
                        struct tiered_error *err)
{
    static const struct tiered_place place = {
        .size = sizeof(place), .node = "check-0", .index = 0, .count = 1};
    const struct tiered_trainer_ops *ops = check->loaded.plugin.ops;
    return ops->init(&check->hosting.host, config, &place, ret_state, err);
}

static void trainer_close(struct check *check, void *state)
{
    const struct tiered_trainer_ops *ops = check->loaded.plugin.ops;
    ops->destroy(state);
}

/* What is wrong with a manifest, the layout's own rules say. */
static int copy_manifest(struct bench *b, struct tiered_error *err)
{
    struct tiered_error why = {0};
    const struct tiered_manifest *manifest = NULL;
    check_step(b->check, "manifest");
    if (b->ops->manifest(b->state, &manifest, &why) < 0) {
        return check_call_failed("manifest", &why, err);
    }
    if (!manifest || manifest->n_tensors == 0) {
        return tiered_fail(err, TIERED_EINVAL, "the manifest has no tensors");
    }
    b->layout = tiered_layout_copy(manifest, &why);
    if (!b->layout) {
        return check_call_failed("manifest", &why, err);
    }
    if (manifest->data_bytes != b->layout->m.data_bytes) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "the manifest says %llu bytes of data; its tensors take "
                           "%llu",
                           (unsigned long long)manifest->data_bytes,
                           (unsigned long long)b->layout->m.data_bytes);
    }
    for (uint32_t i = 0; i < manifest->n_tensors; i++) {
        if (manifest->tensors[i].offset_bytes != b->layout->m.tensors[i].offset_bytes) {
            return tiered_fail(err, TIERED_ESHAPE,
                               "tensor '%.80s' is not where tiered/model.h puts it",
                               manifest->tensors[i].name);
        }
    }
    return 0;
}

static int check_model(const struct bench *b, const uint8_t *data, const char *what,
                       struct tiered_error *err)
{
    for (uint32_t i = 0; i < b->layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &b->layout->m.tensors[i];
        size_t n = (size_t)t->n_elements;
        size_t at = tiered_first_nonfinite(t->dtype, data + t->offset_bytes, n);
        if (at < n) {
            return tiered_fail(err, TIERED_ERANGE,
                               "%s: tensor '%.80s' is not finite at element %zu", what,
                               t->name, at);
        }
    }
    return 0;
}

static int bench_load(struct bench *b, struct tiered_error *err)
{
    struct tiered_error why = {0};
    check_step(b->check, "load");
    if (b->ops->load(b->state, &b->check->hosting.host, &why) < 0) {
        return check_call_failed("load", &why, err);
    }
    if (copy_manifest(b, err) < 0) {
        return -1;
    }
    size_t size = (size_t)b->layout->m.data_bytes;
    b->model = guard_make("the initial model", size);
    b->out = guard_make("the trained model", size);
    memset(b->model.data, 0, size);
    check_step(b->check, "initial");
    if (b->ops->initial(b->state, &b->check->hosting.host, b->model.data, &why) < 0) {
        return check_call_failed("initial", &why, err);
    }
    guard_freeze(&b->model);
    return 0;
}

static int with_bench(struct check *check,
                      int (*body)(struct bench *, struct tiered_error *),
                      struct tiered_error *err)
{
    struct bench b = {.check = check, .ops = check->loaded.plugin.ops};
    if (check_open(check, &b.state, err) < 0) {
        return -1;
    }
    int result = bench_load(&b, err) < 0 ? -1 : body(&b, err);
    guard_free(&b.model);
    guard_free(&b.out);
    tiered_layout_unref(b.layout);
    check_close(check, b.state);
    return result;
}

static int train(struct bench *b, struct tiered_train_result *ret,
                 struct tiered_error *err)
{
    struct tiered_error why = {0};
    *ret = (struct tiered_train_result){.size = sizeof(*ret)};
    memset(b->out.data, 0, b->out.size);
    check_step(b->check, "train");
    if (b->ops->train(b->state, &b->check->hosting.host, b->model.data, b->out.data,
                      ret, &why) < 0) {
        return check_call_failed("train", &why, err);
    }
    return 0;
}

static int check_result(const char *what, const struct tiered_train_result *result,
                        struct tiered_error *err)
{
    if (result->num_examples > 1ull << 53) {
        return tiered_fail(err, TIERED_ERANGE, "%s tells of %llu examples", what,
                           (unsigned long long)result->num_examples);
    }
    if (result->metrics.n > TIERED_MAX_METRICS) {
        return tiered_fail(err, TIERED_ERANGE, "%s tells %u metrics; at most %u", what,
                           result->metrics.n, TIERED_MAX_METRICS);
    }
    for (uint32_t i = 0; i < result->metrics.n; i++) {
        const struct tiered_metric *m = &result->metrics.items[i];
        if (!m->name[0] || !memchr(m->name, 0, sizeof(m->name))) {
            return tiered_fail(err, TIERED_EINVAL, "%s: metric %u has no name", what,
                               i);
        }
        if (!isfinite(m->value)) {
            return tiered_fail(err, TIERED_ERANGE, "%s: metric '%s' is %g", what,
                               m->name, m->value);
        }
    }
    return 0;
}

/* ---- the checks ---- */

static int initial_model(struct bench *b, struct tiered_error *err)
{
    struct tiered_error why = {0};
    memset(b->out.data, 0, b->out.size);
    check_step(b->check, "initial, again");
    if (b->ops->initial(b->state, &b->check->hosting.host, b->out.data, &why) < 0) {
        return check_call_failed("initial", &why, err);
    }
    if (memcmp(b->model.data, b->out.data, b->model.size) != 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "initial with the same seed gives another model");
    }
    return check_model(b, b->model.data, "initial", err);
}

static int training(struct bench *b, struct tiered_error *err)
{
    struct tiered_train_result result;
    if (train(b, &result, err) < 0 || check_result("train", &result, err) < 0) {
        return -1;
    }
    if (result.num_examples == 0) {
        return tiered_fail(err, TIERED_EINVAL, "train tells of no examples");
    }
    if (memcmp(b->model.data, b->out.data, b->out.size) == 0) {
        return tiered_fail(err, TIERED_EINVAL, "train gives back the model as it was");
    }
    return check_model(b, b->out.data, "train", err);
}

/* A training that is repeated after a crash, in the same process or another, is the
   same bits: what came before must not matter. */
static int same_seed(struct bench *b, struct tiered_error *err)
{
    struct tiered_train_result result;
    struct tiered_error why = {0};
    if (train(b, &result, err) < 0) {
        return -1;
    }
    TIERED_FREE uint8_t *first = malloc(b->out.size + 1);
    if (!first) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(first, b->out.data, b->out.size);
    if (train(b, &result, err) < 0) {
        return -1;
    }
    if (memcmp(first, b->out.data, b->out.size) != 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "train with the same seed and model makes other bits the "
                           "second time");
    }
    check_close(b->check, b->state);
    b->state = NULL;
    if (check_open(b->check, &b->state, err) < 0) {
        return -1;
    }
    if (b->ops->load(b->state, &b->check->hosting.host, &why) < 0) {
        return check_call_failed("load", &why, err);
    }
    if (train(b, &result, err) < 0) {
        return -1;
    }
    return memcmp(first, b->out.data, b->out.size) == 0
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "train with the same seed and model makes other bits in a "
                             "new state");
}

static int cancelled(struct bench *b, struct tiered_error *err)
{
    struct tiered_train_result result = {.size = sizeof(result)};
    struct tiered_error why = {0};
    atomic_store(&b->check->hosting.cancel, true);
    check_step(b->check, "train, cancelled from the start");
    int rc = b->ops->train(b->state, &b->check->hosting.host, b->model.data,
                           b->out.data, &result, &why);
    atomic_store(&b->check->hosting.cancel, false);
    if (rc == 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "train does not look at host->cancelled()");
    }
    if (check_refusal("train", &why, err) < 0) {
        return -1;
    }
    if (why.code != TIERED_ECANCELED) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a cancelled train fails with code %d, not "
                           "TIERED_ECANCELED: %.120s",
                           (int)why.code, why.text);
    }
    return train(b, &result, err); /* and it is as good as before */
}

static int evaluate(struct bench *b, struct tiered_train_result *ret,
                    struct tiered_error *err)
{
    struct tiered_error why = {0};
    *ret = (struct tiered_train_result){.size = sizeof(*ret)};
    check_step(b->check, "evaluate");
    if (b->ops->evaluate(b->state, &b->check->hosting.host, b->model.data, ret, &why) <
        0) {
        return check_call_failed("evaluate", &why, err);
    }
    return check_result("evaluate", ret, err);
}

static int evaluation(struct bench *b, struct tiered_error *err)
{
    struct tiered_train_result once, twice;
    if (evaluate(b, &once, err) < 0 || evaluate(b, &twice, err) < 0) {
        return -1;
    }
    if (once.num_examples == 0) {
        return check_skip(b->check, "has nothing to evaluate on");
    }
    for (uint32_t i = 0; i < once.metrics.n; i++) {
        if (once.metrics.items[i].value != twice.metrics.items[i].value) {
            return tiered_fail(err, TIERED_EINVAL,
                               "evaluate twice gives two values of '%s'",
                               once.metrics.items[i].name);
        }
    }
    return 0;
}

/* The node that starts a run without data of its own asks for the model alone. */
static int model_only(struct check *check, struct tiered_error *err)
{
    static const struct tiered_place place = {
        .size = sizeof(place), .node = "check-0", .count = 1, .model_only = 1};
    struct bench b = {.check = check, .ops = check->loaded.plugin.ops};
    struct tiered_error why = {0};
    check_step(check, "init for the model alone");
    if (b.ops->init(&check->hosting.host, check->config.data, &place, &b.state, &why) <
        0) {
        return check_call_failed("init for the model alone", &why, err);
    }
    int result = bench_load(&b, err);
    guard_free(&b.model);
    guard_free(&b.out);
    tiered_layout_unref(b.layout);
    check_close(check, b.state);
    return result;
}

#define WITH_BENCH(name)                                                               \
    static int name##_case(struct check *check, struct tiered_error *err)              \
    {                                                                                  \
        return with_bench(check, name, err);                                           \
    }
WITH_BENCH(initial_model)
WITH_BENCH(training)
WITH_BENCH(same_seed)
WITH_BENCH(cancelled)
WITH_BENCH(evaluation)

static const struct check_case cases[] = {
    {"manifest and initial model", initial_model_case},
    {"model alone", model_only},
    {"train", training_case},
    {"same seed, same bits", same_seed_case},
    {"cancelled", cancelled_case},
    {"evaluate", evaluation_case},
};

const struct check_kind check_trainer = {
    .open = trainer_open,
    .close = trainer_close,
    .cases = cases,
    .n_cases = TIERED_COUNT(cases),
};
