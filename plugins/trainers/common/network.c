/* SPDX-License-Identifier: Apache-2.0 */
/* Dense layers: forward, backward, step. */
#include "network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FLOATS (1ull << 32) /* in one buffer of a network */
#define ALIGN      64u

/* Offsets are in floats, of a layer's part in weights, gradient, velocity, anchor. */
struct layer {
    size_t in, out, row;    /* row: `out` padded */
    size_t weights, bias;   /* W transposed [in][row]; b [row] */
    float *outputs, *delta; /* [batch][row]: after ReLU; d loss / d before ReLU */
};

struct tiered_network {
    const struct tiered_kernels *kernels;
    uint32_t n_layers;
    struct layer layers[TIERED_MAX_LAYERS];
    size_t n; /* floats of all layers */
    float *inputs, *weights, *gradient, *velocity, *anchor;
    float *turned; /* one layer's W as the model has it, rows padded */
};

static float *floats(size_t n)
{
    size_t bytes = tiered_padded(n ? n : 1) * sizeof(float);
    float *p = n > MAX_FLOATS ? NULL : aligned_alloc(ALIGN, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

static bool create_layers(struct tiered_network *net, const struct tiered_shape *shape,
                          uint32_t batch, bool training)
{
    size_t turned = 0;
    for (uint32_t l = 0; l < shape->n_layers; l++) {
        struct layer *layer = &net->layers[l];
        *layer = (struct layer){.in = shape->sizes[l], .out = shape->sizes[l + 1]};
        layer->row = tiered_padded(layer->out);
        layer->weights = net->n;
        layer->bias = net->n + layer->in * layer->row;
        net->n = layer->bias + layer->row;
        layer->outputs = floats(batch * layer->row);
        layer->delta = training ? floats(batch * layer->row) : NULL;
        if (net->n > MAX_FLOATS || !layer->outputs || (training && !layer->delta)) {
            return false;
        }
        size_t size = layer->out * tiered_padded(layer->in);
        turned = l > 0 && size > turned ? size : turned;
    }
    net->turned = training ? floats(turned) : NULL;
    return !training || net->turned;
}

struct tiered_network *tiered_network_create(const struct tiered_shape *shape,
                                             uint32_t batch, bool training,
                                             struct tiered_error *err)
{
    struct tiered_network *net = calloc(1, sizeof(*net));
    bool made = net != NULL;
    if (made) {
        net->kernels = tiered_kernels_choose();
        net->n_layers = shape->n_layers;
        made = create_layers(net, shape, batch, training) &&
               (net->inputs = floats(batch * shape->sizes[0])) &&
               (net->weights = floats(net->n));
    }
    if (made && training) {
        made = (net->gradient = floats(net->n)) && (net->velocity = floats(net->n)) &&
               (net->anchor = floats(net->n));
    }
    if (!made) {
        tiered_network_destroy(net);
        tiered_fail(err, TIERED_ENOMEM, "no memory to compute with a model this large");
        return NULL;
    }
    return net;
}

void tiered_network_destroy(struct tiered_network *net)
{
    if (!net) {
        return;
    }
    for (uint32_t l = 0; l < net->n_layers; l++) {
        free(net->layers[l].outputs);
        free(net->layers[l].delta);
    }
    free(net->inputs);
    free(net->weights);
    free(net->gradient);
    free(net->velocity);
    free(net->anchor);
    free(net->turned);
    free(net);
}

void tiered_network_read(struct tiered_network *net, const float *model)
{
    for (uint32_t l = 0; l < net->n_layers; l++) {
        const struct layer *layer = &net->layers[l];
        float *w = net->weights + layer->weights;
        for (size_t o = 0; o < layer->out; o++) {
            for (size_t i = 0; i < layer->in; i++) {
                w[i * layer->row + o] = *model++;
            }
        }
        memcpy(net->weights + layer->bias, model, layer->out * sizeof(*model));
        model += layer->out;
    }
    if (net->anchor) {
        memcpy(net->anchor, net->weights, net->n * sizeof(*net->anchor));
        memset(net->velocity, 0, net->n * sizeof(*net->velocity));
    }
}

void tiered_network_write(const struct tiered_network *net, float *model)
{
    for (uint32_t l = 0; l < net->n_layers; l++) {
        const struct layer *layer = &net->layers[l];
        const float *w = net->weights + layer->weights;
        for (size_t o = 0; o < layer->out; o++) {
            for (size_t i = 0; i < layer->in; i++) {
                *model++ = w[i * layer->row + o];
            }
        }
        memcpy(model, net->weights + layer->bias, layer->out * sizeof(*model));
        model += layer->out;
    }
}

float *tiered_network_inputs(struct tiered_network *net)
{
    return net->inputs;
}

static const float *layer_inputs(const struct tiered_network *net, uint32_t l,
                                 size_t *ret_row)
{
    *ret_row = l ? net->layers[l - 1].row : net->layers[0].in;
    return l ? net->layers[l - 1].outputs : net->inputs;
}

static void forward(struct tiered_network *net, uint32_t n)
{
    for (uint32_t l = 0; l < net->n_layers; l++) {
        struct layer *layer = &net->layers[l];
        struct tiered_product product = {.m = n,
                                         .k = layer->in,
                                         .n = layer->row,
                                         .a_column = 1,
                                         .b = net->weights + layer->weights,
                                         .b_row = layer->row,
                                         .first = net->weights + layer->bias,
                                         .c = layer->outputs,
                                         .c_row = layer->row};
        product.a = layer_inputs(net, l, &product.a_row);
        net->kernels->multiply(&product);
        for (size_t i = 0; l + 1 < net->n_layers && i < n * layer->row; i++) {
            layer->outputs[i] =
                layer->outputs[i] < 0 ? 0 : layer->outputs[i]; /* NaN stays */
        }
    }
}

/* One example's loss; *ret_sum is the sum of exp(z - *ret_most). */
static double cross_entropy(const float *z, size_t classes, uint32_t y, float *ret_most,
                            float *ret_sum, bool *ret_correct)
{
    size_t best = 0;
    float sum = 0;
    for (size_t c = 1; c < classes; c++) {
        best = z[c] > z[best] ? c : best;
    }
    for (size_t c = 0; c < classes; c++) {
        sum += expf(z[c] - z[best]);
    }
    *ret_most = z[best];
    *ret_sum = sum;
    *ret_correct = best == y;
    return log((double)sum) + z[best] - z[y];
}

/* Scores the batch that forward() went over; fills the last delta, if there is one,
   with d (mean loss) / d z = (softmax(z) - 1[y]) / n. */
static void score(struct tiered_network *net, const uint32_t *y, uint32_t n,
                  struct tiered_score *ret)
{
    const struct layer *last = &net->layers[net->n_layers - 1];
    *ret = (struct tiered_score){0};
    for (uint32_t i = 0; i < n; i++) {
        const float *z = last->outputs + i * last->row;
        float most, sum;
        bool correct;
        ret->loss += cross_entropy(z, last->out, y[i], &most, &sum, &correct);
        ret->correct += correct;
        for (size_t c = 0; last->delta && c < last->out; c++) {
            float p = expf(z[c] - most) / sum;
            last->delta[i * last->row + c] = (p - (c == y[i])) / (float)n;
        }
    }
}

/* turned = the layer's W, [out][in padded]. */
static void turn(struct tiered_network *net, const struct layer *layer)
{
    const float *w = net->weights + layer->weights;
    size_t row = tiered_padded(layer->in);
    for (size_t i = 0; i < layer->in; i++) {
        for (size_t o = 0; o < layer->out; o++) {
            net->turned[o * row + i] = w[i * layer->row + o];
        }
    }
}

/* The delta of the layer below, through W and ReLU. */
static void pass_down(struct tiered_network *net, const struct layer *layer,
                      struct layer *below, uint32_t n)
{
    turn(net, layer);
    const struct tiered_product product = {.m = n,
                                           .k = layer->out,
                                           .n = below->row,
                                           .a = layer->delta,
                                           .a_row = layer->row,
                                           .a_column = 1,
                                           .b = net->turned,
                                           .b_row = below->row,
                                           .c = below->delta,
                                           .c_row = below->row};
    net->kernels->multiply(&product);
    for (size_t i = 0; i < n * below->row; i++) {
        below->delta[i] = below->outputs[i] > 0 ? below->delta[i] : 0;
    }
}

static void layer_gradient(struct tiered_network *net, uint32_t l, uint32_t n)
{
    const struct layer *layer = &net->layers[l];
    float *bias = net->gradient + layer->bias;
    struct tiered_product product = {.m = layer->in,
                                     .k = n,
                                     .n = layer->row,
                                     .a_row = 1,
                                     .b = layer->delta,
                                     .b_row = layer->row,
                                     .c = net->gradient + layer->weights,
                                     .c_row = layer->row};
    product.a = layer_inputs(net, l, &product.a_column);
    net->kernels->multiply(&product);
    memset(bias, 0, layer->row * sizeof(*bias));
    for (uint32_t i = 0; i < n; i++) {
        for (size_t o = 0; o < layer->row; o++) {
            bias[o] += layer->delta[i * layer->row + o];
        }
    }
}

void tiered_network_score(struct tiered_network *net, const uint32_t *y, uint32_t n,
                          struct tiered_score *ret)
{
    forward(net, n);
    score(net, y, n, ret);
}

void tiered_network_learn(struct tiered_network *net, const uint32_t *y, uint32_t n,
                          const struct tiered_sgd *sgd, struct tiered_score *ret)
{
    forward(net, n);
    score(net, y, n, ret);
    for (uint32_t l = net->n_layers; l-- > 0;) {
        layer_gradient(net, l, n);
        if (l > 0) {
            pass_down(net, &net->layers[l], &net->layers[l - 1], n);
        }
    }
    const struct tiered_step step = {.n = net->n,
                                     .lr = sgd->lr,
                                     .momentum = sgd->momentum,
                                     .mu = sgd->mu,
                                     .w = net->weights,
                                     .v = net->velocity,
                                     .g = net->gradient,
                                     .anchor = net->anchor};
    net->kernels->step(&step);
}
