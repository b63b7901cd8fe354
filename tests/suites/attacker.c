/* SPDX-License-Identifier: Apache-2.0 */
/* mlp with bad intent: a leaf that sends its round astray, for the suite robustness.
   It trains honestly, on its own shard or on those of its accomplices too, and sends
   something else.
   Sources: "a little is enough": Baruch et al. 2019 (arXiv:1902.06083), with mean and
   deviation estimated from the accomplices' data, as there. */
#include <stdlib.h>

#include "common/dataset.h"
#include "common/learner.h"
#include "tiered/random.h"

#define MOST_ACCOMPLICES 16

enum attack { HONEST, SIGN_FLIP, NOISE, LITTLE, LABEL_FLIP, HUGE_VALUES, NOT_A_NUMBER };

struct config {
    struct tiered_trainer_config trainer; /* first: the learner's */
    int32_t attack;
    double scale;
    struct tiered_integers accomplices;
};

static const struct tiered_option attacks[] = {
    [HONEST] = {.name = "honest", .help = "as mlp"},
    [SIGN_FLIP] = {.name = "sign-flip", .help = "the honest change times -scale"},
    [NOISE] = {.name = "noise", .help = "normal noise of deviation 'scale'"},
    [LITTLE] = {.name = "little",
                .help = "the accomplices' mean less 'scale' of their deviations"},
    [LABEL_FLIP] = {.name = "label-flip",
                    .help = "trained on the classes in reverse order"},
    [HUGE_VALUES] = {.name = "huge", .help = "1e38 in every place"},
    [NOT_A_NUMBER] = {.name = "nan", .help = "NaN in every place"},
};

static const struct tiered_option options[] = {
    TIERED_TRAINER_OPTIONS,
    {.name = "hidden",
     .type = TIERED_INTEGERS,
     .fallback = "[128]",
     .min = 1,
     .max = 65536,
     .unit = "neurons",
     .offset = offsetof(struct tiered_trainer_config, hidden),
     .help = "sizes of the hidden layers, 16 at most"},
    TIERED_OPTION_CHOICE(struct config, attack, "honest", attacks, "what is sent"),
    TIERED_OPTION_DOUBLE(struct config, scale, "1", 0, INFINITY, "how much of it"),
    {.name = "accomplices",
     .type = TIERED_INTEGERS,
     .fallback = "[]",
     .min = 0,
     .max = 1e6,
     .offset = offsetof(struct config, accomplices),
     .help = "leaves whose data 'little' looks at, itself included"},
};

struct attacker {
    const struct config *config;
    size_t n;
    void *learners[MOST_ACCOMPLICES]; /* the first is its own */
    struct tiered_trainer_config configs[MOST_ACCOMPLICES];
    char shards[MOST_ACCOMPLICES][32];
    size_t n_values; /* of the model, all f32 */
};

static void attacker_destroy(void *state)
{
    struct attacker *a = state;
    for (size_t i = 0; i < a->n; i++) {
        tiered_learner_destroy(a->learners[i]);
    }
    free(a);
}

static int add_learner(struct attacker *a, const struct tiered_place *place,
                       int64_t shard, struct tiered_error *err)
{
    struct tiered_trainer_config *config = &a->configs[a->n];
    *config = a->config->trainer;
    if (shard >= 0) {
        snprintf(a->shards[a->n], sizeof(a->shards[a->n]), "%lld/%u", (long long)shard,
                 place->count);
        config->shard = a->shards[a->n];
    }
    if (tiered_learner_create(config, place, true, &a->learners[a->n], err) < 0) {
        return -1;
    }
    a->n++;
    return 0;
}

static int attacker_init(const struct tiered_host *host, const void *config,
                         const struct tiered_place *place, void **ret_state,
                         struct tiered_error *err)
{
    (void)host;
    struct attacker *a = calloc(1, sizeof(*a));
    if (!a) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    a->config = config;
    int result = add_learner(a, place, -1, err);
    for (size_t i = 0; result == 0 && i < a->config->accomplices.n; i++) {
        int64_t shard = a->config->accomplices.items[i];
        if (shard != place->index && a->n < MOST_ACCOMPLICES) {
            result = add_learner(a, place, shard, err);
        }
    }
    if (result < 0) {
        attacker_destroy(a);
        return -1;
    }
    *ret_state = a;
    return 0;
}

static int attacker_load(void *state, const struct tiered_host *host,
                         struct tiered_error *err)
{
    struct attacker *a = state;
    const struct tiered_manifest *manifest;
    for (size_t i = 0; i < a->n; i++) {
        if (tiered_learner_load(a->learners[i], host, err) < 0) {
            return -1;
        }
    }
    if (a->config->attack == LABEL_FLIP) {
        struct tiered_examples *train = &tiered_learner_dataset(a->learners[0])->train;
        uint32_t last = tiered_learner_dataset(a->learners[0])->n_classes - 1;
        for (uint32_t i = 0; i < train->n; i++) {
            train->y[i] = last - train->y[i];
        }
    }
    if (tiered_learner_manifest(a->learners[0], &manifest, err) < 0) {
        return -1;
    }
    a->n_values = manifest->data_bytes / sizeof(float);
    return 0;
}

static int attacker_manifest(void *state, const struct tiered_manifest **ret_manifest,
                             struct tiered_error *err)
{
    return tiered_learner_manifest(((struct attacker *)state)->learners[0],
                                   ret_manifest, err);
}

static int attacker_initial(void *state, const struct tiered_host *host, void *out,
                            struct tiered_error *err)
{
    return tiered_learner_initial(((struct attacker *)state)->learners[0], host, out,
                                  err);
}

static int attacker_evaluate(void *state, const struct tiered_host *host,
                             const void *model, struct tiered_train_result *result,
                             struct tiered_error *err)
{
    return tiered_learner_evaluate(((struct attacker *)state)->learners[0], host, model,
                                   result, err);
}

/* Mean and deviation of what the accomplices would have sent. */
static int little(struct attacker *a, const struct tiered_host *host, const float *x,
                  float *out, struct tiered_train_result *result,
                  struct tiered_error *err)
{
    size_t n = a->n_values;
    double *sum = calloc(n, sizeof(*sum)), *squares = calloc(n, sizeof(*squares));
    int status = sum && squares ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
    for (size_t k = 0; k < a->n && status == 0; k++) {
        status = tiered_learner_train(a->learners[k], host, x, out, result, err);
        for (size_t i = 0; i < n && status == 0; i++) {
            double d = (double)out[i] - (double)x[i];
            sum[i] += d;
            squares[i] += d * d;
        }
    }
    for (size_t i = 0; i < n && status == 0; i++) {
        double mean = sum[i] / (double)a->n;
        double variance = squares[i] / (double)a->n - mean * mean;
        out[i] = (float)((double)x[i] + mean -
                         a->config->scale * sqrt(variance > 0 ? variance : 0));
    }
    free(sum);
    free(squares);
    return status;
}

static void spoil(const struct attacker *a, const struct tiered_host *host,
                  const float *x, float *out)
{
    struct tiered_rng rng;
    uint8_t key[32];
    host->seed(host, "attack", key);
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < a->n_values; i++) {
        switch (a->config->attack) {
        case SIGN_FLIP:
            out[i] = x[i] - (float)a->config->scale * (out[i] - x[i]);
            break;
        case NOISE:
            out[i] = x[i] + (float)(a->config->scale * tiered_rng_normal(&rng));
            break;
        case HUGE_VALUES:
            out[i] = 1e38f;
            break;
        case NOT_A_NUMBER:
            out[i] = NAN;
            break;
        default:
            break;
        }
    }
}

static int attacker_train(void *state, const struct tiered_host *host,
                          const void *model, void *out,
                          struct tiered_train_result *result, struct tiered_error *err)
{
    struct attacker *a = state;
    if (a->config->attack == LITTLE) {
        return little(a, host, model, out, result, err);
    }
    if (tiered_learner_train(a->learners[0], host, model, out, result, err) < 0) {
        return -1;
    }
    spoil(a, host, model, out);
    return 0;
}

static const struct tiered_trainer_ops ops = {
    .size = sizeof(ops),
    .init = attacker_init,
    .destroy = attacker_destroy,
    .load = attacker_load,
    .manifest = attacker_manifest,
    .initial = attacker_initial,
    .train = attacker_train,
    .evaluate = attacker_evaluate,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_TRAINER, .name = "attacker", .version = "1.0",
                     .summary = "mlp that sends its round astray",
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
