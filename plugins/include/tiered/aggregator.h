/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Aggregators: from the children's rows make one. A row is one child's update, seen
 * block by block; the host stores, decodes, converts and screens it.
 *
 * A round:   weigh   ( columns(block) )*      or      blobs_check*   blobs
 *
 * weigh() gives each child a coefficient from what the plugin `needs`. A coefficient of
 * 0 means that the row is not read again. With columns() the host then calls it for
 * each block with the rows of non-zero coefficient; without, it forms sum(w_i * row_i)
 * in f64 in canonical order, plus (1 - sum w_i) times the base, so that a rule may
 * shrink.
 *
 * Rows are parameters or deltas against the base: a rule must not depend on which
 * (translation-equivariant), except through norms and the Gram matrix, which the host
 * always computes of deltas, centred on the base, in f64.
 *
 * acts_on says which roles the rule governs; other tensors are averaged by
 * num_examples. What the host measures for `needs` is the float tensors among them,
 * without buffers, whose scale would drown the rest; measures() may leave out more.
 *
 * What weigh() is given may be infinite, never NaN: an excluded row is infinitely far
 * from everything, and so is one whose squares are too large for f64.
 *
 * A rule with blobs() merges whole models that have no mean, such as trees: each
 * child's tensors and bytes are handed to it as they came, so they may differ in number
 * and size from child to child, and from what it makes of them. Nothing may follow it
 * in a strategy. Such updates hold what the child adds, not the model that it started
 * from.
 */
#ifndef TIERED_AGGREGATOR_H
#define TIERED_AGGREGATOR_H

#include "plugin.h"

enum tiered_needs {
    TIERED_NEEDS_NOTHING =
        0,                  /* coefficients from the counts alone: rows are streamed */
    TIERED_NEEDS_NORMS = 1, /* gram[i] is the squared L2 norm of delta i */
    TIERED_NEEDS_GRAM = 2,  /* gram[i * n + j] is the dot product of deltas i and j */
    TIERED_NEEDS_DISTANCES = 3, /* gram[i * n + j] is the squared L2 distance of rows i
                                   and j, exact also where it is tiny beside their norms
                                   (subtracted before squared). 0 on the diagonal */
    TIERED_NEEDS_CENTRED = 4,   /* gram[i * n + j] is the dot product of rows i and j
                                   about a point of the host's choice, near enough to
                                   most of them that their distances survive; for rules
                                   that depend on differences between rows alone */
};

/** One contribution, as weigh() sees it. Frozen for its first members; may grow. */
struct tiered_contribution {
    size_t size;
    const char *node;
    uint64_t num_examples; /* 0..2^53 */
    double local_steps;    /* from the update's metadata; NaN when absent */
    double a_norm;         /* FedNova's ||a||_1; NaN when absent */
    uint32_t staleness;    /* async rounds: published versions since its base */
    uint32_t excluded; /* 1: a bad update kept only for n and f; its distances are +Inf,
                          and the host ignores whatever coefficient it gets */
};

struct tiered_round_view {
    size_t size;
    size_t n; /* contributions, in canonical child order */
    const struct tiered_contribution *const *contributions;
    const double *gram; /* by ops->needs; NULL for nothing */
};

/** A whole model, borrowed for the call. Frozen. */
struct tiered_whole {
    const struct tiered_manifest *manifest;
    const uint8_t *data; /* manifest->data_bytes of them */
};

/** Where blobs() puts what it made. */
struct tiered_merged {
    size_t size;
    void *opaque; /* the host's own */
    /** Room for a model of n tensors, of which name, dtype, role, rank and shape are
        read. *ret_manifest tells their places in *ret_data, which is zeroed; both are
        valid until blobs() returns. Once a call. */
    int (*make)(const struct tiered_merged *merged, const struct tiered_tensor *tensors,
                uint32_t n, const struct tiered_manifest **ret_manifest,
                uint8_t **ret_data, struct tiered_error *err);
};

struct tiered_aggregator_ops {
    size_t size;
    enum tiered_needs needs;
    uint32_t acts_on; /* TIERED_ROLE_BIT()s */

    int (*init)(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err);
    void (*destroy)(void *state);
    /** Write view->n coefficients, finite. Refuse a round that has no sensible result
        (no examples at all) with TIERED_ERANGE: the model then stays. */
    int (*weigh)(void *state, const struct tiered_round_view *view, double *ret_weights,
                 struct tiered_error *err);
    /** From `n_rows` >= 1 rows of `n` finite values make out[n]. Rows do not alias out.
        weights holds the rows' own coefficients. May run for several blocks at once
       when the plugin is TIERED_CONCURRENT. Both NULL: the weighted sum. */
    int (*columns_f32)(void *state, const float *const *rows, const double *weights,
                       size_t n_rows, size_t n, float *out, struct tiered_error *err);
    int (*columns_f64)(void *state, const double *const *rows, const double *weights,
                       size_t n_rows, size_t n, double *out, struct tiered_error *err);
    /** Whole models (TIERED_ACCEPTS_BLOBS), instead of weigh and columns: merge the
        base, the model before the round (NULL: none), and view->n updates in canonical
        child order into what merged->make() gives room for. An excluded child's update
        has no manifest (NULL) and is left out. All of it may come from the network.
        Refuse with TIERED_ERANGE a round that has no sensible result: the model then
        stays. */
    int (*blobs)(void *state, const struct tiered_round_view *view,
                 const struct tiered_whole *base, const struct tiered_whole *updates,
                 const struct tiered_merged *merged, struct tiered_error *err);
    /** Is this update sound by itself, and fit for the base (may be NULL)? So that a
       bad one is told by its child's name before the round that it would spoil. The
       text does not name the child. With blobs() only; may be NULL. */
    int (*blobs_check)(void *state, const struct tiered_whole *base,
                       const struct tiered_whole *update, struct tiered_error *err);
    struct tiered_saved_state saved;
    /** Whether a tensor enters the norms and products that the rule needs, of those
        that could. NULL: all. A rule that measures none of a model's is refused. */
    bool (*measures)(const void *state, const struct tiered_tensor *tensor);
    /** The local_steps that the round's result stands for at the next tier, after
        weigh() of the same view; NAN: unknown. NULL: the mean by num_examples over the
        rows not excluded. */
    double (*local_steps)(const void *state, const struct tiered_round_view *view);
};

#endif
