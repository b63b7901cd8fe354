/* SPDX-License-Identifier: Apache-2.0 */
/* The trees of an XGBoost model: arrays by node, which a loader and a predictor follow
   without looking. */
#include "xgboost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NO_PARENT    INT32_MAX /* the root's, as is -1 */
#define MAX_CATEGORY (1 << 24)

enum array {
    LEFT,
    RIGHT,
    PARENT,
    FEATURE,
    N_INTS,
};

/* The arrays of one tree; room for the largest so far. */
struct tree {
    const struct document *d;
    const struct node *object;
    uint32_t n, capacity;
    int32_t *ints[N_INTS];
    uint8_t *categorical;
    float *condition;
    uint32_t *stack;
};

static int need_numbers(const struct tree *t, const char *key, uint32_t n,
                        const struct node **ret, struct tiered_error *err)
{
    if (document_need(t->d, t->object, key, NODE_ARRAY, ret, err) != 0) {
        return -1;
    }
    if (!(*ret)->numbers || (*ret)->n != n) {
        return tiered_fail(err, TIERED_EINVAL, "'%s' is not %u numbers", key, n);
    }
    return 0;
}

static int read_ints(const struct tree *t, const struct node *array, const char *key,
                     int32_t *out, struct tiered_error *err)
{
    uint32_t at = array->content;
    for (uint32_t i = 0; i < array->n; i++) {
        struct scalar s;
        at = document_scalar(t->d, at, array->type, &s);
        if (s.kind == NODE_REAL || s.integer != (int32_t)s.integer) {
            return tiered_fail(err, TIERED_EINVAL, "'%s' has no integer at index %u",
                               key, i);
        }
        out[i] = (int32_t)s.integer;
    }
    return 0;
}

static int make_room(struct tree *t, struct tiered_error *err)
{
    if (t->n <= t->capacity) {
        return 0;
    }
    bool failed = false;
    size_t n = t->n;
    for (int i = 0; i < N_INTS; i++) {
        free(t->ints[i]);
        t->ints[i] = malloc(n * sizeof(int32_t));
        failed = failed || !t->ints[i];
    }
    free(t->categorical);
    free(t->condition);
    free(t->stack);
    t->categorical = malloc(n);
    t->condition = malloc(n * sizeof(float));
    t->stack = malloc(n * sizeof(uint32_t));
    t->capacity = t->n;
    return failed || !t->categorical || !t->condition || !t->stack
               ? tiered_fail(err, TIERED_ENOMEM, "no memory for %u nodes", t->n)
               : 0;
}

static int read_params(struct tree *t, const struct xgb_model *m,
                       struct tiered_error *err)
{
    const struct node *params, *id;
    uint32_t leaf_vector;
    if (document_need(t->d, t->object, "tree_param", NODE_OBJECT, &params, err) != 0 ||
        document_need(t->d, t->object, "id", NODE_INTEGER, &id, err) != 0 ||
        xgb_count(t->d, params, "num_nodes", UINT32_MAX, &t->n, err) != 0 ||
        xgb_count(t->d, params, "size_leaf_vector", 1, &leaf_vector, err) != 0) {
        return -1;
    }
    if (leaf_vector > 1) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "its leaves are vectors of %u: train with multi_strategy "
                           "one_output_per_tree",
                           leaf_vector);
    }
    if (t->n == 0 || t->n > m->document.size) {
        return tiered_fail(err, TIERED_EINVAL, "num_nodes is %u", t->n);
    }
    return 0;
}

static int read_arrays(struct tree *t, struct tiered_error *err)
{
    static const char *const names[N_INTS] = {"left_children", "right_children",
                                              "parents", "split_indices"};
    static const char *const others[] = {"base_weights", "loss_changes", "sum_hessian",
                                         "default_left"};
    const struct node *array;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (need_numbers(t, others[i], t->n, &array, err) != 0) {
            return -1;
        }
    }
    if (need_numbers(t, "split_conditions", t->n, &array, err) != 0 ||
        make_room(t, err) != 0) {
        return -1;
    }
    uint32_t at = array->content;
    for (uint32_t i = 0; i < t->n; i++) {
        struct scalar s;
        at = document_scalar(t->d, at, array->type, &s);
        t->condition[i] = s.kind == NODE_REAL ? s.single : (float)s.real;
    }
    for (int k = 0; k < N_INTS; k++) {
        if (need_numbers(t, names[k], t->n, &array, err) != 0 ||
            read_ints(t, array, names[k], t->ints[k], err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* split_type says which nodes split by category; the sets of categories stand in four
   arrays of their own. */
static int read_categories(struct tree *t, struct tiered_error *err)
{
    static const char *const names[] = {"categories", "categories_nodes",
                                        "categories_segments", "categories_sizes"};
    const struct node *types, *arrays[4];
    uint32_t at[4];
    memset(t->categorical, 0, t->n);
    if (document_member(t->d, t->object, "split_type", NODE_ARRAY, &types, err) != 0) {
        return -1;
    }
    for (size_t i = 0; types && i < 4; i++) {
        if (document_need(t->d, t->object, names[i], NODE_ARRAY, &arrays[i], err) !=
            0) {
            return -1;
        }
        if (!arrays[i]->numbers || (i > 1 && arrays[i]->n != arrays[1]->n)) {
            return tiered_fail(err, TIERED_EINVAL, "'%s' is not as the others",
                               names[i]);
        }
        at[i] = arrays[i]->content;
    }
    if (!types) {
        return 0; /* as before version 1.3: no categories */
    }
    struct scalar s, from, size;
    for (uint32_t i = 0; i < arrays[0]->n; i++) {
        at[0] = document_scalar(t->d, at[0], arrays[0]->type, &s);
        if (s.kind == NODE_REAL || s.integer < 0 || s.integer >= MAX_CATEGORY) {
            return tiered_fail(err, TIERED_EINVAL, "category %u is none", i);
        }
    }
    int64_t last = -1;
    for (uint32_t i = 0; i < arrays[1]->n; i++) {
        at[1] = document_scalar(t->d, at[1], arrays[1]->type, &s);
        at[2] = document_scalar(t->d, at[2], arrays[2]->type, &from);
        at[3] = document_scalar(t->d, at[3], arrays[3]->type, &size);
        if (s.kind == NODE_REAL || from.kind == NODE_REAL || size.kind == NODE_REAL ||
            s.integer <= last || s.integer >= (int64_t)t->n || from.integer < 0 ||
            size.integer < 0 || from.integer > (int64_t)arrays[0]->n ||
            size.integer > (int64_t)arrays[0]->n - from.integer) {
            return tiered_fail(err, TIERED_EINVAL,
                               "its categories of split %u are not among its %u", i,
                               arrays[0]->n);
        }
        last = s.integer;
        t->categorical[last] = 1;
    }
    if (!types->numbers || types->n != t->n) {
        return tiered_fail(err, TIERED_EINVAL, "'split_type' is not %u numbers", t->n);
    }
    at[0] = types->content;
    for (uint32_t i = 0; i < t->n; i++) {
        at[0] = document_scalar(t->d, at[0], types->type, &s);
        if (s.kind == NODE_REAL || s.integer != t->categorical[i]) {
            return tiered_fail(err, TIERED_EINVAL,
                               "node %u: its split_type and its categories differ", i);
        }
    }
    return 0;
}

static int check_node(const struct tree *t, const struct xgb_model *m, uint32_t i,
                      struct tiered_error *err)
{
    int32_t left = t->ints[LEFT][i], right = t->ints[RIGHT][i];
    if (left == -1 && right == -1) {
        return isfinite(t->condition[i])
                   ? 0
                   : tiered_fail(err, TIERED_ERANGE, "leaf %u has %s", i,
                                 isnan(t->condition[i]) ? "NaN" : "an infinite value");
    }
    const int32_t children[] = {left, right};
    for (int k = 0; k < 2; k++) {
        if (children[k] <= 0 || (uint32_t)children[k] >= t->n || left == right) {
            return tiered_fail(err, TIERED_EINVAL,
                               "node %u has children %d and %d, of %u nodes", i, left,
                               right, t->n);
        }
        /* each node has one parent, so no way leads to it twice or back */
        if (t->ints[PARENT][children[k]] != (int32_t)i) {
            return tiered_fail(err, TIERED_EINVAL,
                               "node %d is a child of %u, and its parent is %d",
                               children[k], i, t->ints[PARENT][children[k]]);
        }
    }
    if (t->ints[FEATURE][i] < 0 || (uint32_t)t->ints[FEATURE][i] >= m->n_features) {
        return tiered_fail(err, TIERED_EINVAL, "node %u splits feature %d of %u", i,
                           t->ints[FEATURE][i], m->n_features);
    }
    if (!t->categorical[i] && isnan(t->condition[i])) {
        return tiered_fail(err, TIERED_ERANGE, "node %u splits at NaN", i);
    }
    return 0;
}

/* From the root down. Every node has one parent and the root none, so the walk meets
   each at most once and the stack holds them all. */
static int check_nodes(const struct tree *t, const struct xgb_model *m,
                       struct tiered_error *err)
{
    uint32_t n = 0;
    if (t->ints[PARENT][0] != NO_PARENT && t->ints[PARENT][0] != -1) {
        return tiered_fail(err, TIERED_EINVAL, "its root has a parent");
    }
    t->stack[n++] = 0;
    while (n > 0) {
        uint32_t i = t->stack[--n];
        if (check_node(t, m, i, err) != 0) {
            return -1;
        }
        if (t->ints[LEFT][i] != -1) {
            t->stack[n++] = (uint32_t)t->ints[RIGHT][i];
            t->stack[n++] = (uint32_t)t->ints[LEFT][i];
        }
    }
    return 0;
}

int xgb_check_trees(const struct xgb_model *m, struct tiered_error *err)
{
    struct tree t = {.d = &m->document};
    const struct node *object = m->trees + 1;
    int result = 0;
    for (uint32_t i = 0; i < m->n_trees && result == 0; i++) {
        if (object >= m->document.nodes + m->trees->next ||
            object->kind != NODE_OBJECT) {
            result = tiered_fail(err, TIERED_EINVAL, "tree %u is no object", i);
            break;
        }
        t.object = object;
        if (read_params(&t, m, err) != 0 || read_arrays(&t, err) != 0 ||
            read_categories(&t, err) != 0 || check_nodes(&t, m, err) != 0) {
            result = tiered_error_prefix(err, "tree %u: ", i);
        }
        object = m->document.nodes + object->next;
    }
    for (int i = 0; i < N_INTS; i++) {
        free(t.ints[i]);
    }
    free(t.categorical);
    free(t.condition);
    free(t.stack);
    return result;
}
