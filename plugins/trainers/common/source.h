/* SPDX-License-Identifier: Apache-2.0 */
/* Where examples come from: one set of them (training or test) in files of one format.

   scan() reads the labels of all rows and the shape of one, which every leaf needs to
   deal the rows out; read() then fetches the rows of one leaf. Nothing in a file is
   believed before it is checked against what the file really holds. */
#ifndef TIERED_TRAINERS_SOURCE_H
#define TIERED_TRAINERS_SOURCE_H

#include "config.h"
#include "labels.h"

#define TIERED_MAX_ROWS   (1u << 30)
#define TIERED_MAX_INPUTS (1u << 24)

/** Zeroed is none. */
struct tiered_source {
    enum tiered_format format;
    char *path;        /* NULL: there is no such set */
    char *labels_path; /* idx: labels have a file of their own */
    bool held_in_file; /* safetensors: this is the test set beside the training set */

    /* by scan() */
    uint64_t inputs;  /* numbers in an example */
    uint32_t n;       /* examples */
    bool bytes;       /* they are u8, to be divided by 255; else f32 */
    uint32_t *labels; /* a code each (labels.h) */

    uint32_t n_columns, label_column; /* csv */
    bool header;                      /* csv: the first line names the columns */
    uint64_t x_offset;                /* safetensors: of the examples in the file */
};

/** The files behind `config->data`. *test stays zeroed where there is no test set. */
int tiered_source_locate(const struct tiered_trainer_config *config,
                         struct tiered_source *train, struct tiered_source *test,
                         struct tiered_error *err);
/** `label`: the csv's label column, NULL: the last. */
int tiered_source_scan(struct tiered_source *source, const char *label,
                       struct tiered_labels *labels, struct tiered_error *err);
/** Rows by ascending number, into n_rows * inputs numbers of u8 or f32. */
int tiered_source_read(const struct tiered_source *source, const uint32_t *rows,
                       uint32_t n_rows, void *out, struct tiered_error *err);
void tiered_source_finish(struct tiered_source *source);

/* One pair a format. */
int tiered_idx_scan(struct tiered_source *source, struct tiered_labels *labels,
                    struct tiered_error *err);
int tiered_idx_read(const struct tiered_source *source, const uint32_t *rows,
                    uint32_t n_rows, void *out, struct tiered_error *err);
int tiered_csv_scan(struct tiered_source *source, const char *label,
                    struct tiered_labels *labels, struct tiered_error *err);
int tiered_csv_read(const struct tiered_source *source, const uint32_t *rows,
                    uint32_t n_rows, void *out, struct tiered_error *err);
int tiered_safetensors_scan(struct tiered_source *source, struct tiered_labels *labels,
                            struct tiered_error *err);
int tiered_safetensors_read_rows(const struct tiered_source *source,
                                 const uint32_t *rows, uint32_t n_rows, void *out,
                                 struct tiered_error *err);
/** Has the file a tensor x_test? -1 if it cannot be read. */
int tiered_safetensors_has_test(const char *path, bool *ret, struct tiered_error *err);

/** The failure of tiered_labels_*: too many classes or no memory. Always -1. */
int tiered_labels_fail(const struct tiered_labels *labels, const char *path,
                       struct tiered_error *err);

#endif
