/* SPDX-License-Identifier: Apache-2.0 */
/* Aggregators that merge whole models: every row is read into memory with a layout of
   its own, and the plugin makes one model of them. */
#include "core/aggregate/internal.h"

/** The rows' bytes and the model that the plugin asks room for. */
struct merge {
    size_t n;
    struct tiered_model **rows; /* NULL: excluded */
    struct tiered_whole *wholes;
    const struct tiered_contribution **contributions;
    struct tiered_model *result;
};

bool tiered_strategy_is_whole(const struct tiered_strategy *strategy)
{
    return strategy->stage.loaded->plugin.traits & TIERED_ACCEPTS_BLOBS;
}

static struct tiered_whole whole_of(const struct tiered_model *model)
{
    return (struct tiered_whole){&model->layout->m, model->data};
}

static int read_row(const struct tiered_row *row, struct tiered_model **ret,
                    struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create(row->layout, err);
    if (!model) {
        return -1;
    }
    for (uint32_t b = 0; b < row->layout->n_blocks; b++) {
        uint8_t *out = model->data + row->layout->blocks[b].offset_bytes;
        if (row->read(row->source, b, out, err) != 0) {
            return -1;
        }
    }
    *ret = TIERED_STEAL(model);
    return 0;
}

int tiered_strategy_check(struct tiered_strategy *strategy,
                          const struct tiered_model *base, const struct tiered_row *row,
                          struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = NULL;
    if (!strategy->ops.blobs_check) {
        return 0;
    }
    if (read_row(row, &model, err) != 0) {
        return -1;
    }
    struct tiered_whole update = whole_of(model), before;
    if (base) {
        before = whole_of(base);
    }
    if (strategy->ops.blobs_check(strategy->stage.state, base ? &before : NULL, &update,
                                  err) != 0) {
        return tiered_error_prefix(err, "'%s': ", row->contribution.node);
    }
    return 0;
}

/** The host's side of tiered_merged: a model of the plugin's tensors. */
static int make_result(const struct tiered_merged *merged,
                       const struct tiered_tensor *tensors, uint32_t n,
                       const struct tiered_manifest **ret_manifest, uint8_t **ret_data,
                       struct tiered_error *err)
{
    struct merge *merge = merged->opaque;
    if (merge->result) {
        return tiered_fail(err, TIERED_ESTATE, "the merged model was made already");
    }
    struct tiered_layout_builder *b = tiered_layout_build();
    if (!b) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %u tensors", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct tiered_tensor *t = &tensors[i];
        if (tiered_layout_add(b, t->name, t->dtype, t->role, t->rank, t->shape, err) !=
            0) {
            tiered_layout_builder_destroy(b);
            return -1;
        }
    }
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, err);
    if (layout) {
        merge->result = tiered_model_create(layout, err);
    }
    if (!merge->result) {
        return -1;
    }
    *ret_manifest = &merge->result->layout->m;
    *ret_data = merge->result->data;
    return 0;
}

static int merge_begin(struct merge *merge, const struct tiered_strategy_run *run,
                       struct tiered_error *err)
{
    size_t n = run->n_rows;
    merge->rows = calloc(n, sizeof(merge->rows[0]));
    merge->wholes = calloc(n, sizeof(merge->wholes[0]));
    merge->contributions = calloc(n, sizeof(merge->contributions[0]));
    if (!merge->rows || !merge->wholes || !merge->contributions) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates", n);
    }
    for (merge->n = 0; merge->n < n; merge->n++) {
        size_t i = merge->n;
        merge->contributions[i] = &run->rows[i].contribution;
        if (run->rows[i].contribution.excluded) {
            continue;
        }
        if (read_row(&run->rows[i], &merge->rows[i], err) != 0) {
            return -1;
        }
        merge->wholes[i] = whole_of(merge->rows[i]);
    }
    return 0;
}

static void merge_finish(struct merge *merge)
{
    for (size_t i = 0; i < merge->n; i++) {
        tiered_model_unref(merge->rows[i]);
    }
    free(merge->rows);
    free(merge->wholes);
    free(merge->contributions);
    tiered_model_unref(merge->result);
}

static int merge_run(struct merge *merge, struct tiered_strategy *strategy,
                     const struct tiered_strategy_run *run, struct tiered_error *err)
{
    struct tiered_merged merged = {sizeof(merged), merge, make_result};
    struct tiered_round_view view = {sizeof(view), run->n_rows, merge->contributions,
                                     NULL};
    struct tiered_whole before;
    if (run->base) {
        before = whole_of(run->base);
    }
    if (strategy->ops.blobs(strategy->stage.state, &view, run->base ? &before : NULL,
                            merge->wholes, &merged, err) != 0) {
        return -1;
    }
    if (!merge->result) {
        return tiered_fail(err, TIERED_EINVAL, "aggregator '%s' made no model",
                           strategy->stage.loaded->plugin.name);
    }
    return tiered_model_seal(merge->result, err);
}

int tiered_strategy_merge(struct tiered_strategy *strategy,
                          const struct tiered_strategy_run *run,
                          struct tiered_model **ret_model, struct tiered_error *err)
{
    struct merge merge = {0};
    int rc = merge_begin(&merge, run, err);
    if (rc == 0) {
        rc = merge_run(&merge, strategy, run, err);
    }
    if (rc == 0) {
        strategy->step++;
        *ret_model = TIERED_STEAL(merge.result);
    }
    merge_finish(&merge);
    return rc;
}
