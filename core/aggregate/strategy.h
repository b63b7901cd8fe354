/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A strategy at work: one aggregator, then optimizers, and last perhaps a filter that
 * adds noise. The agent and `tiered aggregate` both run this code.
 *
 * run() takes the children's rows in canonical order, block by block, in O(model) plus
 * a few tiles a worker, and writes the next model. The same rows give the same bits,
 * however many workers there are: each block is folded in child order in f64 by one
 * worker, and Gram sums are added per block in block order.
 *
 * Noise goes on the aggregated delta before the optimizers see it, though its filter is
 * written last: what they do with it is then post-processing. One child must be able to
 * change the delta by a known norm at most, so the coefficients must be equal, and each
 * becomes 1 / expected whatever number of updates came. A round without any update
 * still has its noise: a model that stays would tell that nobody was asked.
 *
 * Optimizer state (slots, step) is the strategy's; it advances only when run()
 * succeeds. Threads: one run at a time; it spreads blocks over the pool.
 */
#ifndef TIERED_CORE_STRATEGY_H
#define TIERED_CORE_STRATEGY_H

#include "core/loop/pool.h"
#include "core/model/model.h"
#include "core/pipe/pipe.h"
#include "tiered/aggregator.h"
#include "tiered/optimizer.h"

enum tiered_on_bad_update {
    TIERED_REJECT_BAD = 0,
    TIERED_EXCLUDE_BAD = 1,
    TIERED_ALLOW_BAD = 2,
};
bool tiered_on_bad_update_parse(const char *text, enum tiered_on_bad_update *ret);

/** One child's row, called from any worker. read() gives one block's raw bytes. A
    source that can do with less work says so by the two optional ones. */
struct tiered_row {
    struct tiered_contribution contribution; /* node, num_examples, local_steps … */
    int (*read)(void *source, uint32_t block, void *out, struct tiered_error *err);
    void *source;
    /** Optional: `size` bytes of a block from `offset` on, at about their share of the
        cost of the whole. */
    int (*read_part)(void *source, uint32_t block, size_t offset, size_t size,
                     void *out, struct tiered_error *err);
    /** Optional: where a block lies in memory, unchanged while the strategy runs, and
        aligned as its dtype is. NULL: read it. */
    const void *(*borrow)(void *source, uint32_t block);
    struct tiered_layout *layout; /* its own; read only where whole models are merged */
    /* Where the strategy follows norms: the share of the updates that the row stands
       for which were within the bound. */
    double within;
};

struct tiered_strategy;
/** uses[0] is the aggregator, the rest optimizers; the last may be a filter that adds
    noise. hosting is borrowed for life. */
int tiered_strategy_create(const struct tiered_use *uses, size_t n_uses,
                           const struct tiered_hosting *hosting,
                           struct tiered_strategy **ret, struct tiered_error *err);
void tiered_strategy_destroy(struct tiered_strategy *strategy);

/** True when the aggregator merges whole models: rows then have layouts of their own,
   as has the result, and updates hold what their child adds, delta or not. All of them
   are in memory at once. */
bool tiered_strategy_is_whole(const struct tiered_strategy *strategy);
/** Such a strategy's word on one row, alone and against the base (may be NULL). */
int tiered_strategy_check(struct tiered_strategy *strategy,
                          const struct tiered_model *base, const struct tiered_row *row,
                          struct tiered_error *err);
bool tiered_strategy_has_noise(const struct tiered_strategy *strategy);
/** What the noise is measured by, before the first run: the norm that bounds each
    child's delta (0: nothing does, and there is no epsilon) and how many children a
    round is expected to ask, > 0. */
void tiered_strategy_bound(struct tiered_strategy *strategy, double norm,
                           double expected);

/** The bound of the children's adaptive clip is kept here, as part of the state: it
    begins as the first such filter of `filters` says, and each run moves it. With noise
    it is what the noise is measured by, and part of the noise goes on the share of
    updates within it, so that what is published tells as little as the noise_multiplier
    promises (arXiv:1905.03871, theorem 1; sigma_b = expected / 20). Without such a
    filter nothing changes. After tiered_strategy_bound, before the first run. -1
    TIERED_ERANGE: too few children for the noise_multiplier. */
int tiered_strategy_follow(struct tiered_strategy *strategy,
                           const struct tiered_use *filters, size_t n_filters,
                           struct tiered_error *err);
/** That bound, for the next round's updates; 0: there is none. */
double tiered_strategy_norm(const struct tiered_strategy *strategy);

struct tiered_strategy_run {
    struct tiered_layout
        *layout; /* of the rows and of the model; unused for whole ones */
    const struct tiered_model
        *base; /* the model before the round; NULL: none (then the result is the
                  aggregated row, delta or not, and optimizers are an error) */
    bool rows_are_deltas;
    const struct tiered_row *rows; /* excluded ones are marked in their contribution */
    size_t n_rows;
    bool allow_bad;       /* on_bad_update: allow: no screening in the fold; an error
                             unless the aggregator is TIERED_ALLOWS_BAD_UPDATES */
    bool screen_all;      /* rows are screened where they are used; this way also those
                             that get no coefficient, before the fold */
    uint64_t tile_memory; /* scratch for rows, all workers together; 0: 64 MiB. Rules
                             over all rows at once read a block again for each tile when
                             a block of every row does not fit */
    struct tiered_pool *pool;
    bool unsealed;    /* leave the model's digest, which nobody will ask for */
    const char *path; /* of the round, which seeds depend on; NULL: none */
    /* Not 0: the one row is the mean of a group, this is the sum of its weights, each 1
       where there is noise, and a value was moved by less than group_step before it was
       summed. Noise goes by the sum then, as over rows. */
    uint64_t group_weight;
    double group_step;
};
/** *ret_model is new, and sealed unless asked not to be. TIERED_ERANGE: no result
   (weigh refused, a row that is read holds NaN or infinity, or the new model or state
   would; the text names it). On any failure the state is untouched: steps are taken on
   a copy of the slots. */
int tiered_strategy_run(struct tiered_strategy *strategy,
                        const struct tiered_strategy_run *run,
                        struct tiered_model **ret_model, struct tiered_error *err);

/** The local_steps that the last run's model stands for at the next tier; NAN: the rows
    do not say theirs. */
double tiered_strategy_local_steps(const struct tiered_strategy *strategy);

/** Read all of a row: -1 TIERED_ERANGE names its node and the tensor and index of the
    first value that is NaN or infinite. Any thread. */
int tiered_row_screen(const struct tiered_layout *layout, const struct tiered_row *row,
                      struct tiered_error *err);

/** True when there are optimizers, or a bound that follows norms. */
bool tiered_strategy_has_state(const struct tiered_strategy *strategy);
/** Optimizer state as a safetensors model: tensors "<i>.<plugin>.<slot>/<tensor>", and
    metadata "tiered.step"; before the first step no tensors, and step 0. A bound that
    follows norms stands in the metadata as "tiered.norm". load refuses another chain or
    layout, by name. */
int tiered_strategy_save(const struct tiered_strategy *strategy, const char *path,
                         struct tiered_error *err);
int tiered_strategy_load(struct tiered_strategy *strategy, const char *path,
                         struct tiered_layout *layout, struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_strategy, tiered_strategy_destroy)

#endif
