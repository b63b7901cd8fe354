/* SPDX-License-Identifier: Apache-2.0 */
/**
 * One filter of a pipe, opened for one direction. Internal to core/pipe.
 */
#ifndef TIERED_CORE_PIPE_STAGE_H
#define TIERED_CORE_PIPE_STAGE_H

#include "core/pipe/pipe.h"
#include "tiered/filter.h"

struct pipe_stage {
    const struct tiered_plugin *plugin;
    const struct tiered_filter_ops *ops;
    struct tiered_config config;
    void *state;
};

struct pipe_stages {
    size_t n;
    struct pipe_stage *items;
    bool concurrent; /* every filter is */
    bool lossy;      /* one filter is */
};

int pipe_stages_open(const struct tiered_use *filters, size_t n,
                     const struct tiered_layout *layout,
                     const struct tiered_hosting *hosting, struct pipe_stages *ret,
                     struct tiered_error *err);
void pipe_stages_close(struct pipe_stages *stages);

/** "filter 'NAME': " in front of what a filter said. Always -1. */
int pipe_stage_failed(const struct pipe_stage *stage, struct tiered_error *err);

/** Tell the filters that can use it of a model that both ends have, or of none. One of
    another layout is none. */
int pipe_stages_refer(const struct pipe_stages *stages,
                      const struct tiered_layout *layout,
                      const struct tiered_model *reference, struct tiered_error *err);

/** Tell the filter whose bound follows norms of the parent's; 0: none was told. */
int pipe_stages_bound_to(const struct pipe_stages *stages, double norm,
                         struct tiered_error *err);

/** Some filter carries state from pass to pass; as bytes, and back. */
bool pipe_stages_have_state(const struct pipe_stages *stages);
int pipe_stages_save(const struct pipe_stages *stages, struct tiered_bytes *ret,
                     struct tiered_error *err);
int pipe_stages_load(const struct pipe_stages *stages, const void *data, size_t size,
                     struct tiered_error *err);

/** Of the pass whose header was made or read last: 1, 0, or NAN without such a bound.
 */
double pipe_stages_within(const struct pipe_stages *stages);
uint64_t pipe_stages_released(const struct pipe_stages *stages);

/** The most bytes after the first `n` stages of a block of `raw` bytes. */
int pipe_stages_bound(const struct pipe_stages *stages, size_t n, size_t raw,
                      size_t *ret, struct tiered_error *err);
/** The largest of all such bounds, for scratch. */
int pipe_stages_scratch(const struct pipe_stages *stages,
                        const struct tiered_layout *layout, size_t *ret,
                        struct tiered_error *err);

/** -1 with TIERED_ERANGE names the tensor and the index of the first non-finite value.
 */
int pipe_screen(const struct tiered_layout *layout, const struct tiered_block *block,
                const void *data, struct tiered_error *err);

#endif
