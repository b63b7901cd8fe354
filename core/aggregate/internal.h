/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share: the strategy's stages and one run's working set.
 */
#ifndef TIERED_AGGREGATE_INTERNAL_H
#define TIERED_AGGREGATE_INTERNAL_H

#include "core/aggregate/strategy.h"
#include "core/privacy/filters.h"

#define STRATEGY_CHUNK       4096u /* elements stepped, or given to columns, at once */
#define STRATEGY_TILE_MEMORY (64ull << 20)

struct strategy_stage {
    const struct tiered_loaded *loaded;
    struct tiered_config config;
    void *state;
    bool inited;
};

struct strategy_optimizer {
    struct strategy_stage stage;
    struct tiered_optimizer_ops ops;
    double initial[TIERED_MAX_SLOTS];
    uint32_t first_tensor; /* of its slots in the state's layout */
};

/* A filter that adds noise to the aggregated delta. */
struct strategy_noise {
    struct strategy_stage stage; /* its state is for `layout`, made at the first run */
    const struct tiered_filter_ops *ops; /* NULL: no noise */
    struct tiered_layout *layout;
    double norm, expected;
};

struct tiered_strategy {
    const struct tiered_hosting *hosting;
    struct strategy_stage stage; /* the aggregator */
    struct tiered_aggregator_ops ops;
    struct strategy_optimizer *optimizers;
    size_t n_optimizers;
    struct strategy_noise noise;

    /* Steps taken, and the slots after the last of them; NULL before the first. */
    uint64_t step;
    struct tiered_model *slots;
    struct tiered_digest slots_for; /* the model's layout */
};

/** Per worker. raw and sum hold a block and are made when first needed. */
struct strategy_scratch {
    uint8_t *raw;
    double *sum;
    const void **row_at;
    double x[STRATEGY_CHUNK], tile[STRATEGY_CHUNK];
    double slots[TIERED_MAX_SLOTS][STRATEGY_CHUNK];
    double out[STRATEGY_CHUNK];
};

/** Coefficients of the rows for the tensors under one rule. */
struct strategy_weights {
    double *w;             /* run->n_rows of them; 0: not read */
    double rest;           /* of the base, when rows are parameters */
    size_t n_active, sole; /* how many are not 0; the last one of them */
};

struct strategy_work {
    struct tiered_strategy *strategy;
    const struct tiered_strategy_run *run;
    const struct tiered_layout *layout;
    struct strategy_weights rule, by_examples;
    struct tiered_model *model;
    struct tiered_model *slots; /* the next state; NULL without optimizers */
    uint32_t *ordinals;         /* by tensor: its place among those with slots */
    struct strategy_scratch **scratch;
    size_t n_scratch;
};

/* weigh.c */
int tiered_strategy_weigh(struct strategy_work *work, struct tiered_error *err);

/* gram.c: `ret` is n_rows values for norms, n_rows squared for the Gram matrix. */
int tiered_strategy_norms(struct strategy_work *work, double *ret,
                          struct tiered_error *err);
int tiered_strategy_gram(struct strategy_work *work, double *ret,
                         struct tiered_error *err);

/* fold.c */
int tiered_strategy_fold(struct strategy_work *work, struct tiered_error *err);

/* columns.c: all the blocks under a rule with columns, one after the other. */
int tiered_strategy_columns(struct strategy_work *work, struct tiered_error *err);

/* state.c */
struct tiered_layout *tiered_strategy_state_layout(struct tiered_strategy *strategy,
                                                   const struct tiered_layout *layout,
                                                   struct tiered_error *err);
int tiered_strategy_state_begin(struct strategy_work *work, struct tiered_error *err);

/* step.c: from the aggregated values of the elements at.. of a block (n of them, at
   most STRATEGY_CHUNK, f64, overwritten) to the new model. `rest` times the base is
   added first. */
int tiered_strategy_finish(struct strategy_work *work, const struct tiered_block *block,
                           uint64_t at, size_t n, double rest, double *values,
                           struct strategy_scratch *scratch, struct tiered_error *err);

/* noise.c */
int tiered_strategy_noise_create(struct tiered_strategy *strategy,
                                 const struct tiered_use *use,
                                 struct tiered_error *err);
void tiered_strategy_noise_destroy(struct tiered_strategy *strategy);
/** After weigh: the coefficients that its sensitivity needs, and the pass begins. */
int tiered_strategy_noise_begin(struct strategy_work *work, struct tiered_error *err);
int tiered_strategy_noise_add(struct strategy_work *work,
                              const struct tiered_block *block, uint64_t at, size_t n,
                              double *values, struct tiered_error *err);
int tiered_strategy_noise_end(struct strategy_work *work, struct tiered_error *err);

/* rows.c */
/** The dtype to read a row's values as: deltas of unsigned integers wrap, so they are
    the signed type's. */
enum tiered_dtype tiered_strategy_row_dtype(const struct strategy_work *work,
                                            enum tiered_dtype dtype);
/** One block of one row, screened unless bad updates are allowed. */
int tiered_strategy_read(const struct strategy_work *work, size_t row, uint32_t block,
                         void *out, struct tiered_error *err);
bool tiered_strategy_has_columns(const struct strategy_work *work,
                                 const struct tiered_block *block);
bool tiered_strategy_is_stepped(const struct tiered_strategy *strategy,
                                const struct tiered_block *block);
const struct strategy_weights *
tiered_strategy_weights_of(const struct strategy_work *work,
                           const struct tiered_block *block);
/** Elements a row of a tile for `n_rows` rows of `element_bytes`: what tile_memory
    holds, at most a block, at least 64. */
size_t tiered_strategy_tile(const struct strategy_work *work, size_t n_rows,
                            size_t element_bytes);
struct strategy_scratch *tiered_strategy_scratch(struct strategy_work *work,
                                                 unsigned worker,
                                                 struct tiered_error *err);
int tiered_strategy_cancelled(const struct strategy_work *work,
                              struct tiered_error *err);

#endif
