/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer behind both plugins: SGD with momentum over the leaf's examples. */
#include "learner.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "dataset.h"
#include "network.h"
#include "tiered/random.h"

#define EVALUATE_BATCH 64u
#define MAX_ELEMENTS   (1ull << 31)

struct learner {
    const struct tiered_trainer_config *config;
    bool numbered, model_only;
    uint32_t index, count; /* this leaf's part of the data */
    struct tiered_dataset dataset;
    struct tiered_shape shape; /* n_layers 0: not known yet */
    struct tiered_tensor tensors[2 * TIERED_MAX_LAYERS];
    char names[2 * TIERED_MAX_LAYERS][24];
    struct tiered_manifest manifest;
};

/* "3/12" */
static bool parse_shard(const char *text, uint32_t *index, uint32_t *count)
{
    uint64_t numbers[2];
    for (int i = 0; i < 2; i++) {
        size_t digits = strspn(text, "0123456789");
        if (digits == 0 || digits > 9 || text[digits] != (i ? '\0' : '/')) {
            return false;
        }
        numbers[i] = strtoull(text, NULL, 10);
        text += digits + 1;
    }
    *index = (uint32_t)numbers[0];
    *count = (uint32_t)numbers[1];
    return numbers[0] < numbers[1];
}

static int settle_shard(struct learner *learner, const struct tiered_place *place,
                        struct tiered_error *err)
{
    const char *shard = learner->config->shard;
    learner->index = place->index;
    learner->count = place->count;
    if (!shard || strcmp(shard, "{index}/{count}") == 0) {
        return place->index < place->count
                   ? 0
                   : tiered_fail(err, TIERED_EINVAL,
                                 "leaf %" PRIu32 " of %" PRIu32 " leaves", place->index,
                                 place->count);
    }
    return parse_shard(shard, &learner->index, &learner->count)
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "shard '%.40s' is not I/N with 0 <= I < N, as 3/12 is",
                             shard);
}

static int check_config(const struct tiered_trainer_config *config,
                        struct tiered_error *err)
{
    if (config->epochs_given && config->steps_given) {
        return tiered_fail(err, TIERED_EINVAL,
                           "local_epochs and local_steps are both given; keep one");
    }
    if (config->hidden.n >= TIERED_MAX_LAYERS) {
        return tiered_fail(err, TIERED_EINVAL, "hidden has %zu layers; %u is the most",
                           config->hidden.n, TIERED_MAX_LAYERS - 1);
    }
    return 0;
}

int tiered_learner_create(const struct tiered_trainer_config *config,
                          const struct tiered_place *place, bool numbered,
                          void **ret_state, struct tiered_error *err)
{
    if (check_config(config, err) < 0) {
        return -1;
    }
    struct learner *learner = calloc(1, sizeof(*learner));
    if (!learner) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    learner->config = config;
    learner->numbered = numbered;
    learner->model_only = place->model_only;
    if (settle_shard(learner, place, err) < 0) {
        free(learner);
        return -1;
    }
    *ret_state = learner;
    return 0;
}

void tiered_learner_destroy(void *state)
{
    struct learner *learner = state;
    tiered_dataset_finish(&learner->dataset);
    free(learner);
}

static int settle_shape(const struct learner *learner, struct tiered_shape *shape,
                        struct tiered_error *err)
{
    const struct tiered_integers *hidden = &learner->config->hidden;
    uint64_t elements = 0;
    *shape = (struct tiered_shape){.n_layers = (uint32_t)hidden->n + 1};
    shape->sizes[0] = learner->dataset.inputs;
    for (size_t i = 0; i < hidden->n; i++) {
        shape->sizes[i + 1] = (uint64_t)hidden->items[i];
    }
    shape->sizes[shape->n_layers] = learner->dataset.n_classes;
    for (uint32_t l = 0; l < shape->n_layers; l++) {
        elements += (shape->sizes[l] + 1) * shape->sizes[l + 1]; /* < 2^41 each */
    }
    return elements <= MAX_ELEMENTS ? 0
                                    : tiered_fail(err, TIERED_ERANGE,
                                                  "the model would have %" PRIu64
                                                  " numbers; %llu is the most",
                                                  elements, MAX_ELEMENTS);
}

static void name_tensor(struct learner *learner, uint32_t i, uint64_t rows,
                        uint64_t columns)
{
    struct tiered_tensor *tensor = &learner->tensors[i];
    const char *kind = i % 2 ? "bias" : "weight";
    if (learner->numbered) {
        snprintf(learner->names[i], sizeof(learner->names[i]), "fc%u.%s", i / 2 + 1,
                 kind);
    } else {
        snprintf(learner->names[i], sizeof(learner->names[i]), "fc.%s", kind);
    }
    *tensor = (struct tiered_tensor){.name = learner->names[i],
                                     .dtype = TIERED_F32,
                                     .role = TIERED_PARAMETER,
                                     .rank = i % 2 ? 1 : 2,
                                     .shape = {rows, columns},
                                     .n_elements = rows * (i % 2 ? 1 : columns),
                                     .offset_bytes = learner->manifest.data_bytes};
    tensor->size_bytes = tensor->n_elements * sizeof(float);
    learner->manifest.data_bytes += tensor->size_bytes;
}

/* The shape and the manifest, from the labels if they have not been read yet. */
static int know_shape(struct learner *learner, struct tiered_error *err)
{
    struct tiered_shape shape;
    if (learner->shape.n_layers) {
        return 0;
    }
    if ((!learner->dataset.scanned &&
         tiered_dataset_scan(&learner->dataset, learner->config, err) < 0) ||
        settle_shape(learner, &shape, err) < 0) {
        return -1;
    }
    learner->manifest = (struct tiered_manifest){.size = sizeof(learner->manifest),
                                                 .n_tensors = 2 * shape.n_layers,
                                                 .tensors = learner->tensors};
    for (uint32_t l = 0; l < shape.n_layers; l++) {
        name_tensor(learner, 2 * l, shape.sizes[l + 1], shape.sizes[l]);
        name_tensor(learner, 2 * l + 1, shape.sizes[l + 1], 0);
    }
    learner->shape = shape;
    return 0;
}

int tiered_learner_load(void *state, const struct tiered_host *host,
                        struct tiered_error *err)
{
    struct learner *learner = state;
    if (learner->model_only || learner->dataset.loaded) {
        return know_shape(learner, err);
    }
    return know_shape(learner, err) < 0
               ? -1
               : tiered_dataset_load(&learner->dataset, learner->config, learner->index,
                                     learner->count, host, err);
}

struct tiered_dataset *tiered_learner_dataset(void *state)
{
    return &((struct learner *)state)->dataset;
}

int tiered_learner_manifest(void *state, const struct tiered_manifest **ret_manifest,
                            struct tiered_error *err)
{
    struct learner *learner = state;
    if (know_shape(learner, err) < 0) {
        return -1;
    }
    *ret_manifest = &learner->manifest;
    return 0;
}

/* Uniform: He's bound before a ReLU, Glorot's before the softmax; biases zero. */
int tiered_learner_initial(void *state, const struct tiered_host *host, void *out,
                           struct tiered_error *err)
{
    struct learner *learner = state;
    struct tiered_rng rng;
    uint8_t key[32];
    if (know_shape(learner, err) < 0) {
        return -1;
    }
    const struct tiered_shape *shape = &learner->shape;
    float *w = out;
    host->seed(host, "initial", key);
    tiered_rng_init(&rng, key);
    for (uint32_t l = 0; l < shape->n_layers; l++) {
        uint64_t in = shape->sizes[l], n_out = shape->sizes[l + 1];
        bool last = l + 1 == shape->n_layers;
        double bound = sqrt(6.0 / (double)(last ? in + n_out : in));
        for (uint64_t i = 0; i < in * n_out; i++) {
            *w++ = (float)((2 * tiered_rng_uniform(&rng) - 1) * bound);
        }
        memset(w, 0, n_out * sizeof(*w));
        w += n_out;
    }
    return 0;
}

static void put_batch(const struct learner *learner,
                      const struct tiered_examples *examples, const uint32_t *rows,
                      uint32_t n, float *x, uint32_t *y)
{
    uint64_t inputs = learner->dataset.inputs;
    for (uint32_t i = 0; i < n; i++, x += inputs) {
        y[i] = examples->y[rows[i]];
        if (!examples->bytes) {
            memcpy(x, (const float *)examples->x + rows[i] * inputs,
                   inputs * sizeof(*x));
            continue;
        }
        const uint8_t *bytes = (const uint8_t *)examples->x + rows[i] * inputs;
        for (uint64_t j = 0; j < inputs; j++) {
            x[j] = (float)bytes[j] / 255.0f;
        }
    }
}

static void add_metric(struct tiered_metrics *metrics, const char *name, double value)
{
    struct tiered_metric *metric = &metrics->items[metrics->n++];
    snprintf(metric->name, sizeof(metric->name), "%s", name);
    metric->value = value;
}

/* One call's pass over examples. */
struct pass {
    const struct learner *learner;
    const struct tiered_host *host;
    const struct tiered_examples *examples;
    struct tiered_network *network;
    uint32_t *rows, *y; /* the order of the examples; a batch's classes */
    uint32_t batch;
    uint64_t steps; /* in all */
    double loss;    /* sums over the `seen` examples */
    uint64_t seen, correct;
};

static void pass_finish(struct pass *pass)
{
    tiered_network_destroy(pass->network);
    free(pass->rows);
    free(pass->y);
}

static int pass_create(struct pass *pass, const struct learner *learner,
                       const struct tiered_host *host,
                       const struct tiered_examples *examples, uint32_t batch,
                       bool training, struct tiered_error *err)
{
    *pass = (struct pass){.learner = learner,
                          .host = host,
                          .examples = examples,
                          .batch = batch < examples->n ? batch : examples->n};
    pass->network = tiered_network_create(&learner->shape, pass->batch, training, err);
    if (!pass->network) {
        return -1;
    }
    pass->rows = malloc(examples->n * sizeof(*pass->rows));
    pass->y = malloc(pass->batch * sizeof(*pass->y));
    if (!pass->rows || !pass->y) {
        pass_finish(pass);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < examples->n; i++) {
        pass->rows[i] = i;
    }
    return 0;
}

/* The batch that begins at `start`; sgd NULL: score it only. */
static int pass_batch(struct pass *pass, uint32_t start, uint64_t step,
                      const struct tiered_sgd *sgd, struct tiered_error *err)
{
    struct tiered_score score;
    uint32_t left = pass->examples->n - start,
             n = left < pass->batch ? left : pass->batch;
    if (pass->host->cancelled(pass->host)) {
        return tiered_fail(err, TIERED_ECANCELED, "cancelled");
    }
    put_batch(pass->learner, pass->examples, pass->rows + start, n,
              tiered_network_inputs(pass->network), pass->y);
    if (sgd) {
        tiered_network_learn(pass->network, pass->y, n, sgd, &score);
    } else {
        tiered_network_score(pass->network, pass->y, n, &score);
    }
    pass->loss += score.loss;
    pass->correct += score.correct;
    pass->seen += n;
    pass->host->progress(pass->host, (double)(step + 1) / (double)pass->steps);
    return 0;
}

static uint64_t batches(const struct pass *pass)
{
    return (pass->examples->n + (uint64_t)pass->batch - 1) / pass->batch;
}

/* Epoch after epoch until the steps are done. The figures are those of the last epoch
   where epochs are counted, of all steps where steps are. */
static int run_steps(struct pass *pass, struct tiered_error *err)
{
    const struct tiered_trainer_config *config = pass->learner->config;
    const struct tiered_sgd sgd = {(float)config->lr, (float)config->momentum,
                                   (float)config->mu};
    struct tiered_rng rng;
    uint8_t key[32];
    uint32_t start = pass->examples->n;
    pass->host->seed(pass->host, "train", key);
    tiered_rng_init(&rng, key);
    for (uint64_t step = 0; step < pass->steps; step++, start += pass->batch) {
        if (start >= pass->examples->n) {
            tiered_rng_shuffle(&rng, pass->rows, pass->examples->n);
            start = 0;
            if (!config->steps_given) {
                pass->loss = 0;
                pass->seen = pass->correct = 0;
            }
        }
        if (pass_batch(pass, start, step, &sgd, err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* FedNova's ||a||_1: how far so many steps go along a gradient that stays the same, in
   units of lr. With momentum alone (steps - m (1 - m^steps) / (1 - m)) / (1 - m), with
   mu alone (1 - (1 - lr mu)^steps) / (lr mu); taking the steps gives either, and both.
   Momentum that swings back over its start has no such length: then 0, not told. */
static double reach(const struct tiered_trainer_config *config, uint64_t steps)
{
    double velocity = 0, reached = 0;
    for (uint64_t i = 0; i < steps; i++) {
        velocity = config->momentum * velocity + 1 - config->lr * config->mu * reached;
        reached += velocity;
    }
    return isfinite(reached) && reached > 0 ? reached : 0;
}

int tiered_learner_train(void *state, const struct tiered_host *host, const void *model,
                         void *out, struct tiered_train_result *result,
                         struct tiered_error *err)
{
    const struct learner *learner = state;
    const struct tiered_trainer_config *config = learner->config;
    const struct tiered_examples *examples = &learner->dataset.train;
    struct pass pass;
    if (!learner->dataset.loaded) {
        return tiered_fail(err, TIERED_ESTATE, "train before load");
    }
    if (pass_create(&pass, learner, host, examples, (uint32_t)config->batch_size, true,
                    err) < 0) {
        return -1;
    }
    pass.steps = config->steps_given ? (uint64_t)config->local_steps
                                     : (uint64_t)config->local_epochs * batches(&pass);
    tiered_network_read(pass.network, model);
    int status = run_steps(&pass, err);
    if (status == 0) {
        tiered_network_write(pass.network, out);
        result->num_examples =
            pass.steps < batches(&pass)
                ? pass.steps * pass.batch /* the full batches come first */
                : examples->n;
        result->local_steps = pass.steps;
        if (TIERED_HAS(result, a_norm)) {
            result->a_norm = reach(config, pass.steps);
        }
        result->metrics.n = 0;
        add_metric(&result->metrics, "train_loss", pass.loss / (double)pass.seen);
        add_metric(&result->metrics, "train_accuracy",
                   (double)pass.correct / (double)pass.seen);
    }
    pass_finish(&pass);
    return status;
}

int tiered_learner_evaluate(void *state, const struct tiered_host *host,
                            const void *model, struct tiered_train_result *result,
                            struct tiered_error *err)
{
    const struct learner *learner = state;
    const struct tiered_examples *examples = &learner->dataset.test;
    struct pass pass;
    int status = 0;
    if (!learner->dataset.loaded) {
        return tiered_fail(err, TIERED_ESTATE, "evaluate before load");
    }
    if (examples->n == 0) {
        result->num_examples = result->local_steps = 0;
        result->metrics.n = 0;
        return 0;
    }
    if (pass_create(&pass, learner, host, examples, EVALUATE_BATCH, false, err) < 0) {
        return -1;
    }
    pass.steps = batches(&pass);
    tiered_network_read(pass.network, model);
    for (uint64_t step = 0; step < pass.steps && status == 0; step++) {
        status = pass_batch(&pass, (uint32_t)step * pass.batch, step, NULL, err);
    }
    if (status == 0) {
        result->num_examples = examples->n;
        result->local_steps = result->metrics.n = 0;
        add_metric(&result->metrics, "accuracy", (double)pass.correct / examples->n);
        add_metric(&result->metrics, "loss", pass.loss / examples->n);
    }
    pass_finish(&pass);
    return status;
}
