/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share: the strategy's stages and one run's working set.
 */
#ifndef TIERED_AGGREGATE_INTERNAL_H
#define TIERED_AGGREGATE_INTERNAL_H

#include "core/aggregate/kernels.h"
#include "core/aggregate/strategy.h"
#include "core/privacy/filters.h"

#define STRATEGY_CHUNK       4096u /* elements stepped, or given to columns, at once */
#define STRATEGY_TILE_MEMORY (64ull << 20)
#define STRATEGY_CACHE       (512u << 10) /* bytes that one worker keeps near itself */

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
    double multiplier; /* as its options say */
    double deviation;  /* of the open pass, on the delta */
    bool told;         /* of a group's rounding, which makes it larger */
};

/* The bound of the children's adaptive clip. */
struct strategy_follow {
    const struct tiered_filter_ops *ops; /* NULL: none */
    struct tiered_config config;
    double norm;
    bool grouped; /* the children are a group */
};

struct tiered_strategy {
    const struct tiered_hosting *hosting;
    struct strategy_stage stage; /* the aggregator */
    struct tiered_aggregator_ops ops;
    struct strategy_optimizer *optimizers;
    size_t n_optimizers;
    struct strategy_noise noise;
    struct strategy_follow follow;

    double local_steps; /* what the last run's result stands for; NAN: unknown */

    /* Steps taken, and the slots after the last of them; NULL before the first. */
    uint64_t step;
    struct tiered_model *slots;
    struct tiered_digest slots_for; /* the model's layout */
};

/** The first value, in tensor order, that a round of finite updates made infinite or
    NaN: in the model, or in a slot of an optimizer. */
struct strategy_overflow {
    bool found;
    uint32_t tensor;
    uint64_t element;
    double value;
    const struct strategy_optimizer *optimizer; /* NULL: in the model */
    uint32_t slot;
};

/** Per worker. raw and sum hold a block, tiles what a worker keeps of all rows. */
struct strategy_scratch {
    uint8_t *raw, *tiles;
    size_t tiles_bytes;
    double *sum;
    const void **row_at;
    double x[STRATEGY_CHUNK], tile[STRATEGY_CHUNK];
    double slots[TIERED_MAX_SLOTS][STRATEGY_CHUNK];
    double out[STRATEGY_CHUNK];
    struct strategy_overflow overflow;
};

/** Coefficients of the rows for the tensors under one rule. */
struct strategy_weights {
    double *w;       /* run->n_rows of them; 0: not read */
    double rest;     /* of the base, when rows are parameters */
    size_t n_active; /* how many are not 0 */
    size_t *active;  /* those rows, in order */
};

struct strategy_work {
    struct tiered_strategy *strategy;
    const struct kernels *kernels;
    const struct tiered_strategy_run *run;
    const struct tiered_layout *layout;
    struct strategy_weights rule, by_examples;
    struct tiered_model *model;
    struct tiered_model *slots; /* the next state; NULL without optimizers */
    uint32_t *ordinals;         /* by tensor: its place among those with slots */
    bool *
        measured; /* by tensor: it enters what the rule needs; NULL: it needs nothing */
    struct strategy_scratch **scratch;
    size_t n_scratch;
    double next_norm; /* of a bound that follows */
};

/* weigh.c */
int tiered_strategy_weigh(struct strategy_work *work, struct tiered_error *err);

/* measure.c */
int tiered_strategy_measure(struct strategy_work *work, struct tiered_error *err);
/** Any tensor of the block is measured. */
bool tiered_strategy_is_measured(const struct strategy_work *work,
                                 const struct tiered_block *block);
/** Of the elements at.. of a block (n of them) set those not measured to 0. */
void tiered_strategy_mask(const struct strategy_work *work,
                          const struct tiered_block *block, uint64_t at, size_t n,
                          double *values);

/* gram.c: `ret` is n_rows values for norms, n_rows squared (zeroed by the caller) for
   the Gram matrix. An excluded row, and one with an infinite square, has an infinite
   square and is orthogonal to all. */
#define STRATEGY_CENTRE_BASE SIZE_MAX /* the base, or the first row without one */
int tiered_strategy_norms(struct strategy_work *work, double *ret,
                          struct tiered_error *err);
int tiered_strategy_gram(struct strategy_work *work, size_t centre_row, double *ret,
                         struct tiered_error *err);

/* whole.c: a run of an aggregator that merges whole models. */
int tiered_strategy_merge(struct tiered_strategy *strategy,
                          const struct tiered_strategy_run *run,
                          struct tiered_model **ret_model, struct tiered_error *err);

/* distances.c: n_rows squared values, zeroed by the caller. */
int tiered_strategy_distances(struct strategy_work *work, double *ret,
                              struct tiered_error *err);
int tiered_strategy_centred(struct strategy_work *work, double *ret,
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

/* step.c */
/** True when aggregated values are stored as they are. */
bool tiered_strategy_is_plain(const struct strategy_work *work,
                              const struct tiered_block *block, double rest);
/* From the aggregated values of the elements at.. of a block (n of them, at
   most STRATEGY_CHUNK, f64, overwritten) to the new model. `rest` times the base is
   added first. */
int tiered_strategy_finish(struct strategy_work *work, const struct tiered_block *block,
                           uint64_t at, size_t n, double rest, double *values,
                           struct strategy_scratch *scratch, struct tiered_error *err);
/** After all blocks: -1 TIERED_ERANGE when a value of the new model or state is not
    finite, the same one however many workers there were. */
int tiered_strategy_check_overflow(const struct strategy_work *work,
                                   struct tiered_error *err);

/* window.c: a stretch of one block of some rows, in memory all at once: where they lie
   already if they can be lent, else in a tile. The tile is bounded by tile_memory: when
   it does not hold the block of every row that is read, the block passes in several
   windows.

       init ( begin ( next )* )* finish                                            */
struct strategy_window {
    struct strategy_work *work;
    size_t n;
    const size_t *rows; /* their indices */
    const struct tiered_block *block;
    const uint8_t **at_row; /* by row: its elements at .. at + length */
    uint64_t at;
    size_t length;

    const uint8_t **lent; /* by row: its block; NULL: read */
    size_t *slots;        /* by row: its place in the tile, when it is read */
    uint8_t *tile;
    size_t tile_bytes, capacity, stride, n_read;
};
/** `rows` is borrowed. */
int tiered_strategy_window_init(struct strategy_window *w, struct strategy_work *work,
                                const size_t *rows, size_t n, struct tiered_error *err);
void tiered_strategy_window_finish(struct strategy_window *w);
/** Windows but the last hold a multiple of `unit` elements. */
int tiered_strategy_window_begin(struct strategy_window *w,
                                 const struct tiered_block *block, size_t unit,
                                 struct tiered_error *err);
/** 1: the next window is there; 0: the block is done. Nothing is screened yet. */
int tiered_strategy_window_next(struct strategy_window *w, struct tiered_error *err);

/* noise.c */
int tiered_strategy_noise_create(struct tiered_strategy *strategy,
                                 const struct tiered_use *use,
                                 struct tiered_error *err);
void tiered_strategy_noise_destroy(struct tiered_strategy *strategy);
/** How far one of a group's updates, of norm `norm`, moves the sum that the run's row
    stands for. */
double tiered_strategy_group_norm(const struct tiered_strategy_run *run, double norm,
                                  double expected);
/** The same for the open run, and a warning, once, where it is much. */
double tiered_strategy_group_bound(struct strategy_work *work, double norm);
/** After weigh: the coefficients that its sensitivity needs, and the pass begins. */
int tiered_strategy_noise_begin(struct strategy_work *work, struct tiered_error *err);
int tiered_strategy_noise_add(struct strategy_work *work,
                              const struct tiered_block *block, uint64_t at, size_t n,
                              double *values, struct tiered_error *err);
int tiered_strategy_noise_end(struct strategy_work *work, struct tiered_error *err);

/* follow.c */
void tiered_strategy_follow_destroy(struct tiered_strategy *strategy);
/** By what the delta's noise is raised, >= 1, for the share of updates within the bound
    is told as well. */
double tiered_strategy_noise_raise(const struct tiered_strategy *strategy);
/** Before the noise ends: the bound after this run. */
int tiered_strategy_follow_next(struct strategy_work *work, struct tiered_error *err);

/* rows.c */
/** The dtype to read a row's values as: deltas of unsigned integers wrap, so they are
    the signed type's. */
enum tiered_dtype tiered_strategy_row_dtype(const struct strategy_work *work,
                                            enum tiered_dtype dtype);
/** One block of one row, screened unless bad updates are allowed. */
int tiered_strategy_read(const struct strategy_work *work, size_t row, uint32_t block,
                         void *out, struct tiered_error *err);
/** The same where it lies, if it can be lent, else in `raw`; NULL: failed. */
const void *tiered_strategy_borrow(const struct strategy_work *work, size_t row,
                                   uint32_t block, void *raw, struct tiered_error *err);
/** Where a row's block lies, not screened; NULL: it must be read. */
const uint8_t *tiered_strategy_lent(const struct strategy_work *work, size_t row,
                                    uint32_t block);
/** Elements at .. at + n of a block, by read_part where the row has it; not screened.
    `raw` has room for a block. */
int tiered_strategy_read_part(const struct strategy_work *work, size_t row,
                              const struct tiered_block *block, uint64_t at, size_t n,
                              void *out, void *raw, struct tiered_error *err);
/** Refuses elements at .. of a block, at `data`, when one is not finite, unless bad
    updates are allowed. */
int tiered_strategy_screen(const struct strategy_work *work, size_t row,
                           const struct tiered_block *block, uint64_t at, size_t n,
                           const void *data, struct tiered_error *err);
/** All of the rows that a rule leaves out. */
int tiered_strategy_screen_left_out(struct strategy_work *work,
                                    struct tiered_error *err);
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
/** scratch->tiles of at least `bytes`, aligned; NULL: no memory. */
void *tiered_strategy_tiles(struct strategy_scratch *scratch, size_t bytes,
                            struct tiered_error *err);
int tiered_strategy_cancelled(const struct strategy_work *work,
                              struct tiered_error *err);

#endif
