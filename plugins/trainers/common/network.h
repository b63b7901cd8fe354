/* SPDX-License-Identifier: Apache-2.0 */
/* Dense layers with ReLU between them and softmax cross-entropy behind the last: the
   forward and the backward pass of one batch, on one thread.

   A network owns its weights while it computes. They lie transposed and padded, so that
   both passes run along rows; read() and write() convert from and to the model's
   tensors, which are W1 [out, in], b1 [out], W2 … */
#ifndef TIERED_TRAINERS_NETWORK_H
#define TIERED_TRAINERS_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "matrix.h"
#include "tiered/error.h"

#define TIERED_MAX_LAYERS 17u

/** sizes[0] inputs, then what each layer puts out; the last are the classes. */
struct tiered_shape {
    uint32_t n_layers;
    uint64_t sizes[TIERED_MAX_LAYERS + 1];
};

struct tiered_sgd {
    float lr, momentum, mu;
};

/** What a pass over a batch showed, before its step. */
struct tiered_score {
    double loss; /* summed over examples, as is correct */
    uint32_t correct;
};

struct tiered_network;

/** For batches of up to `batch` examples. `training`: with room for learn(). */
struct tiered_network *tiered_network_create(const struct tiered_shape *shape,
                                             uint32_t batch, bool training,
                                             struct tiered_error *err);
void tiered_network_destroy(struct tiered_network *network);

/** Sets the weights, from which mu pulls; puts the momentum to rest. */
void tiered_network_read(struct tiered_network *network, const float *model);
void tiered_network_write(const struct tiered_network *network, float *model);

/** Where the caller puts a batch: one example a row, row length sizes[0]. */
float *tiered_network_inputs(struct tiered_network *network);
void tiered_network_score(struct tiered_network *network, const uint32_t *y, uint32_t n,
                          struct tiered_score *ret);
/** Scores, then takes one step down the mean loss of the batch. */
void tiered_network_learn(struct tiered_network *network, const uint32_t *y, uint32_t n,
                          const struct tiered_sgd *sgd, struct tiered_score *ret);

#endif
