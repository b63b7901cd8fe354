/* SPDX-License-Identifier: Apache-2.0 */
/* The options of softmax and mlp: one struct and one list of rows for both. */
#ifndef TIERED_TRAINERS_CONFIG_H
#define TIERED_TRAINERS_CONFIG_H

#include <math.h>

#include "tiered/trainer.h"

enum tiered_format { TIERED_IDX, TIERED_CSV, TIERED_SAFETENSORS };
enum tiered_split { TIERED_SPLIT_IID, TIERED_SPLIT_SHARDS, TIERED_SPLIT_DIRICHLET };

struct tiered_trainer_config {
    const char *data, *label, *shard;
    int32_t format, partition; /* enum tiered_format, enum tiered_split */
    double alpha;              /* of the Dirichlet distribution */
    struct tiered_integers hidden;
    int64_t local_epochs, local_steps, batch_size;
    double lr, momentum, mu, test_fraction;
    bool format_given, epochs_given, steps_given;
};

static const struct tiered_option tiered_formats[] = {
    {.name = "idx", .help = "images and labels as MNIST has them, plain or .gz"},
    {.name = "csv", .help = "one example a line, plain or .gz"},
    {.name = "safetensors", .help = "tensors x and y (x_test and y_test)"},
};

static const struct tiered_option tiered_dirichlet_options[] = {
    TIERED_OPTION_DOUBLE(struct tiered_trainer_config, alpha, NULL, 0, INFINITY,
                         "concentration: 0.1 is very uneven, 100 nearly even",
                         .flags = TIERED_EXCLUSIVE_MIN | TIERED_REQUIRED),
};

static const struct tiered_option tiered_splits[] = {
    {.name = "iid", .help = "shuffled and cut evenly"},
    {.name = "shards", .help = "sorted by label and cut, two pieces a leaf"},
    {.name = "dirichlet",
     .help = "each class dealt out by a draw from a Dirichlet distribution",
     .nested = tiered_dirichlet_options,
     .n_nested = 1},
};

#define TIERED_TRAINER_OPTIONS                                                         \
    TIERED_OPTION_STRING(struct tiered_trainer_config, data, NULL,                     \
                         "a folder, a file, or 'fashion-mnist', which is Debian's "    \
                         "package dataset-fashion-mnist",                              \
                         .unit = "path", .flags = TIERED_REQUIRED),                    \
        TIERED_OPTION_CHOICE(                                                          \
            struct tiered_trainer_config, format, NULL, tiered_formats,                \
            "how the data is written; seen from the files when absent",                \
            .given_offset = offsetof(struct tiered_trainer_config, format_given)),     \
        TIERED_OPTION_STRING(                                                          \
            struct tiered_trainer_config, label, NULL,                                 \
            "csv: the label column's name or 0-based index; the last when absent"),    \
        TIERED_OPTION_CHOICE(struct tiered_trainer_config, partition, "iid",           \
                             tiered_splits,                                            \
                             "how the training examples are dealt out to the leaves"), \
        TIERED_OPTION_STRING(struct tiered_trainer_config, shard, "{index}/{count}",   \
                             "which part is this leaf's: I/N, 0 <= I < N"),            \
        TIERED_OPTION_INTEGER(                                                         \
            struct tiered_trainer_config, local_epochs, "1", 1, 1e6,                   \
            "passes over the leaf's examples a round", .unit = "epochs",               \
            .given_offset = offsetof(struct tiered_trainer_config, epochs_given)),     \
        TIERED_OPTION_INTEGER(                                                         \
            struct tiered_trainer_config, local_steps, NULL, 1, 1e9,                   \
            "batches a round, in place of 'local_epochs'", .unit = "steps",            \
            .given_offset = offsetof(struct tiered_trainer_config, steps_given)),      \
        TIERED_OPTION_INTEGER(struct tiered_trainer_config, batch_size, "32", 1,       \
                              65536, "examples a step", .unit = "examples"),           \
        TIERED_OPTION_DOUBLE(struct tiered_trainer_config, lr, "0.05", 0, INFINITY,    \
                             "learning rate", .flags = TIERED_EXCLUSIVE_MIN),          \
        TIERED_OPTION_DOUBLE(struct tiered_trainer_config, momentum, "0.9", 0, 1,      \
                             "momentum of the steps; starts at rest in each round",    \
                             .flags = TIERED_EXCLUSIVE_MAX),                           \
        TIERED_OPTION_DOUBLE(struct tiered_trainer_config, mu, "0", 0, INFINITY,       \
                             "FedProx: pull towards the model that was given"),        \
        TIERED_OPTION_DOUBLE(struct tiered_trainer_config, test_fraction, "0.1", 0, 1, \
                             "share held out where the data has no test set",          \
                             .flags = TIERED_EXCLUSIVE_MAX)

#endif
