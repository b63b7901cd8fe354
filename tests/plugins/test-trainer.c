/* SPDX-License-Identifier: Apache-2.0 */
/* A trainer for tests and benches: a model of any size, "trained" at once, and, when
   asked, the ways in which a trainer can go wrong. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tiered/random.h"
#include "tiered/trainer.h"

enum behaviour {
    NORMAL,
    ECHO_MODEL,
    NAN_VALUE,
    INF_VALUE,
    OTHER_SHAPE,
    NOTHING,
    FAIL,
    FAIL_LOAD,
    CRASH
};

struct config {
    int64_t parameters, layers, num_examples, delay_ms;
    int32_t behaviour;
};

static const struct tiered_option behaviours[] = {
    {.name = "normal", .help = "small steps, decided by the seed"},
    {.name = "echo", .help = "the model as it came, for num_examples: no work at all"},
    {.name = "nan", .help = "a NaN in the update"},
    {.name = "inf", .help = "an infinity in the update"},
    {.name = "shape", .help = "a model of another shape"},
    {.name = "nothing", .help = "no examples, the model as it came"},
    {.name = "fail", .help = "train returns an error"},
    {.name = "fail-load", .help = "load returns an error"},
    {.name = "crash", .help = "the process dies in train"},
};

static const struct tiered_option options[] = {
    {.name = "parameters",
     .type = TIERED_INTEGER,
     .fallback = "1000",
     .min = 1,
     .max = 1e9,
     .help = "floats in the model",
     .offset = offsetof(struct config, parameters),
     .given_offset = TIERED_NO_OFFSET},
    {.name = "layers",
     .type = TIERED_INTEGER,
     .fallback = "1",
     .min = 1,
     .max = 1e5,
     .help = "tensors that share them; with more than one, a counter behind each",
     .offset = offsetof(struct config, layers),
     .given_offset = TIERED_NO_OFFSET},
    {.name = "num_examples",
     .type = TIERED_INTEGER,
     .fallback = "10",
     .min = 0,
     .max = 1e9,
     .help = "examples that an update counts for",
     .offset = offsetof(struct config, num_examples),
     .given_offset = TIERED_NO_OFFSET},
    {.name = "delay_ms",
     .type = TIERED_INTEGER,
     .fallback = "0",
     .min = 0,
     .max = 1e6,
     .help = "how long a training takes",
     .offset = offsetof(struct config, delay_ms),
     .given_offset = TIERED_NO_OFFSET},
    {.name = "behaviour",
     .type = TIERED_CHOICE,
     .fallback = "normal",
     .help = "what goes wrong",
     .offset = offsetof(struct config, behaviour),
     .nested = behaviours,
     .n_nested = sizeof(behaviours) / sizeof(behaviours[0]),
     .given_offset = TIERED_NO_OFFSET},
};

struct state {
    struct config config;
    struct tiered_tensor *tensors;
    char (*names)[16];
    struct tiered_manifest manifest;
};

static void add(struct state *s, enum tiered_dtype dtype, enum tiered_role role,
                uint64_t n)
{
    uint32_t i = s->manifest.n_tensors++;
    uint64_t at = (s->manifest.data_bytes + TIERED_ALIGN - 1) / TIERED_ALIGN;
    const struct tiered_tensor tensor = {.name = s->names[i],
                                         .dtype = dtype,
                                         .role = role,
                                         .rank = 1,
                                         .shape = {n},
                                         .n_elements = n,
                                         .offset_bytes = at * TIERED_ALIGN,
                                         .size_bytes = n * tiered_dtype_size(dtype)};
    memcpy(&s->tensors[i], &tensor, sizeof(tensor));
    s->manifest.data_bytes = tensor.offset_bytes + tensor.size_bytes;
}

static void destroy(void *state)
{
    struct state *s = state;
    free(s->tensors);
    free(s->names);
    free(s);
}

static int init(const struct tiered_host *host, const void *config,
                const struct tiered_place *place, void **ret_state,
                struct tiered_error *err)
{
    (void)host;
    (void)place;
    struct state *s = calloc(1, sizeof(*s));
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->config = *(const struct config *)config;
    uint64_t n = (uint64_t)s->config.parameters + (s->config.behaviour == OTHER_SHAPE);
    uint64_t layers = (uint64_t)s->config.layers;
    s->tensors = calloc(2 * layers, sizeof(*s->tensors));
    s->names = calloc(2 * layers, sizeof(*s->names));
    if (!s->tensors || !s->names) {
        destroy(s);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->manifest.size = sizeof(s->manifest);
    s->manifest.tensors = s->tensors;
    for (uint64_t i = 0; i < layers; i++) {
        snprintf(s->names[s->manifest.n_tensors], sizeof(*s->names),
                 layers > 1 ? "w%u" : "w", (unsigned)i);
        add(s, TIERED_F32, TIERED_PARAMETER, n / layers + (i < n % layers));
        if (layers > 1) {
            snprintf(s->names[s->manifest.n_tensors], sizeof(*s->names), "steps%u",
                     (unsigned)i);
            add(s, TIERED_I64, TIERED_BUFFER, 1);
        }
    }
    *ret_state = s;
    return 0;
}

static int load(void *state, const struct tiered_host *host, struct tiered_error *err)
{
    (void)host;
    struct state *s = state;
    return s->config.behaviour == FAIL_LOAD
               ? tiered_fail(err, TIERED_ENOENT, "no data, as was asked for")
               : 0;
}

static int manifest(void *state, const struct tiered_manifest **ret,
                    struct tiered_error *err)
{
    (void)err;
    *ret = &((struct state *)state)->manifest;
    return 0;
}

static int initial(void *state, const struct tiered_host *host, void *out,
                   struct tiered_error *err)
{
    (void)host;
    (void)err;
    const struct state *s = state;
    memset(out, 0, s->manifest.data_bytes);
    return 0;
}

/* In small steps, so that a cancelled training ends soon. */
static int wait_for(const struct state *s, const struct tiered_host *host,
                    struct tiered_error *err)
{
    for (int64_t left = s->config.delay_ms; left > 0; left -= 10) {
        if (host->cancelled(host)) {
            return tiered_fail(err, TIERED_ECANCELED, "cancelled");
        }
        usleep(10000);
    }
    return 0;
}

/* Weights move a little, counters by one. */
static void step(struct tiered_rng *rng, const struct tiered_tensor *t, void *out)
{
    uint8_t *data = (uint8_t *)out + t->offset_bytes;
    if (t->dtype == TIERED_I64) {
        ++*(int64_t *)data;
        return;
    }
    for (uint64_t i = 0; i < t->n_elements; i++) {
        ((float *)data)[i] += (float)(tiered_rng_uniform(rng) - 0.5) * 0.01f;
    }
}

static int train(void *state, const struct tiered_host *host, const void *model,
                 void *out, struct tiered_train_result *result,
                 struct tiered_error *err)
{
    struct state *s = state;
    uint8_t key[32];
    struct tiered_rng rng;
    float *w = out;
    if (wait_for(s, host, err) < 0) {
        return -1;
    }
    if (s->config.behaviour == FAIL) {
        return tiered_fail(err, TIERED_EIO, "failed, as was asked for");
    }
    if (s->config.behaviour == CRASH) {
        abort();
    }
    memcpy(out, model, s->manifest.data_bytes);
    if (s->config.behaviour == NOTHING) {
        return 0;
    }
    host->seed(host, "train", key);
    tiered_rng_init(&rng, key);
    result->num_examples = (uint64_t)s->config.num_examples;
    if (s->config.behaviour == ECHO_MODEL) {
        return 0;
    }
    for (uint32_t i = 0; i < s->manifest.n_tensors; i++) {
        step(&rng, &s->tensors[i], out);
    }
    if (s->config.behaviour == NAN_VALUE || s->config.behaviour == INF_VALUE) {
        w[17 % s->tensors[0].n_elements] =
            s->config.behaviour == NAN_VALUE ? NAN : INFINITY;
    }
    result->local_steps = 1;
    result->metrics.n = 1;
    strcpy(result->metrics.items[0].name, "train_loss");
    result->metrics.items[0].value = fabs((double)w[0]);
    return 0;
}

static int evaluate(void *state, const struct tiered_host *host, const void *model,
                    struct tiered_train_result *result, struct tiered_error *err)
{
    (void)host;
    (void)err;
    const struct state *s = state;
    double sum = 0;
    for (uint32_t k = 0; k < s->manifest.n_tensors; k++) {
        const struct tiered_tensor *t = &s->tensors[k];
        const float *w = (const float *)((const uint8_t *)model + t->offset_bytes);
        for (uint64_t i = 0; i < t->n_elements && t->dtype == TIERED_F32; i++) {
            sum += (double)w[i] * (double)w[i];
        }
    }
    result->num_examples = (uint64_t)s->config.num_examples;
    result->metrics.n = 2;
    strcpy(result->metrics.items[0].name, "loss");
    result->metrics.items[0].value = sum;
    strcpy(result->metrics.items[1].name, "accuracy");
    result->metrics.items[1].value = 1.0 / (1.0 + sum);
    return 0;
}

static const struct tiered_trainer_ops ops = {
    .size = sizeof(ops),
    .init = init,
    .destroy = destroy,
    .load = load,
    .manifest = manifest,
    .initial = initial,
    .train = train,
    .evaluate = evaluate,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_TRAINER, .name = "test-trainer", .version = "1.0",
                     .summary = "for tests: any size, at once, and ways to go wrong",
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
