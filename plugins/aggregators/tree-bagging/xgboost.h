/* SPDX-License-Identifier: Apache-2.0 */
/**
 * XGBoost models
 * (https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html): what
 * tree-bagging must know of one, and many merged into one.
 *
 *   xgb_open ( xgb_check_trees )? … ( xgb_agree )* … xgb_merge … xgb_close
 */
#ifndef TREE_BAGGING_XGBOOST_H
#define TREE_BAGGING_XGBOOST_H

#include "document.h"
#include "writer.h"

struct xgb_model {
    struct document document;
    const struct node *learner, *booster, *trees_of,
        *counts;                                       /* the objects on the way */
    const struct node *trees, *tree_info, *iterations; /* iterations may be NULL */
    const struct node *parameters, *base_score, *objective;
    const struct node *feature_names, *feature_types, *categories; /* may be NULL */
    uint32_t n_trees, n_features, n_classes, n_targets, n_parallel;
    uint32_t n_groups; /* trees of one boosting round and parallel tree */
};

/** Read a model: its head, and what there is of trees. Zeroed, it may be closed
   whatever came of it. The bytes are borrowed. */
int xgb_open(struct xgb_model *model, const void *data, size_t size,
             struct tiered_error *err);
void xgb_close(struct xgb_model *model);
/** Check all of its trees: a loader need not, and predictors follow their pointers. */
int xgb_check_trees(const struct xgb_model *model, struct tiered_error *err);
/** May the trees of both be added up? The text says how `model` differs from
    `leader_name`'s, and the cure. */
int xgb_agree(const struct xgb_model *leader, const char *leader_name,
              const struct xgb_model *model, struct tiered_error *err);
/** The first model with the trees of all, in order. n >= 1. */
void xgb_merge(const struct xgb_model *const *models, size_t n, struct writer *out);

/* For xgboost_tree.c. */
/** The decimal count that an object of texts holds under `key`. */
int xgb_count(const struct document *d, const struct node *object, const char *key,
              uint32_t fallback, uint32_t *ret, struct tiered_error *err);

#endif
