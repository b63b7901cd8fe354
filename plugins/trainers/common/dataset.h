/* SPDX-License-Identifier: Apache-2.0 */
/* A leaf's examples: its part of the training set and every count-th test example.

     scan load? finish

   scan() reads all labels, which gives the model's shape; load() deals the examples out
   and reads this leaf's own. The parts of all leaves together are the whole data set,
   so metrics weighted by examples are those of the whole test set. */
#ifndef TIERED_TRAINERS_DATASET_H
#define TIERED_TRAINERS_DATASET_H

#include "source.h"

struct tiered_examples {
    uint32_t n;
    bool bytes;  /* x is u8, to be divided by 255; else f32 */
    void *x;     /* n * inputs */
    uint32_t *y; /* classes */
};

/** Zeroed is empty. */
struct tiered_dataset {
    bool scanned, loaded;
    uint64_t inputs;
    uint32_t n_classes;
    struct tiered_examples train, test;

    struct tiered_source sources[2]; /* training, test */
};

int tiered_dataset_scan(struct tiered_dataset *dataset,
                        const struct tiered_trainer_config *config,
                        struct tiered_error *err);
/** Leaf `index` of `count`. After scan(). */
int tiered_dataset_load(struct tiered_dataset *dataset,
                        const struct tiered_trainer_config *config, uint32_t index,
                        uint32_t count, const struct tiered_host *host,
                        struct tiered_error *err);
void tiered_dataset_finish(struct tiered_dataset *dataset);

#endif
