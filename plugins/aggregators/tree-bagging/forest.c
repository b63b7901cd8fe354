/* SPDX-License-Identifier: Apache-2.0 */
/* Forests of arrays: names to trees, the trees' shape, and the union of forests. */
#include "forest.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define NAME_ROOM 24 /* "t209714.threshold" */

static const struct {
    const char *name;
    enum tiered_dtype dtype;
    uint32_t rank;
} arrays[FOREST_ARRAYS] = {{"left", TIERED_I32, 1},
                           {"right", TIERED_I32, 1},
                           {"feature", TIERED_I32, 1},
                           {"threshold", TIERED_F64, 1},
                           {"value", TIERED_F64, 2}};

/* "t12.left" to 12 and FOREST_LEFT: no sign, no leading zero. */
static int parse_name(const char *name, uint32_t *ret_tree, int *ret_array)
{
    uint64_t tree = 0;
    size_t at = 1;
    while (name[0] == 't' && name[at] >= '0' && name[at] <= '9' && at < 9) {
        tree = 10 * tree + (uint64_t)(name[at++] - '0');
    }
    if (name[0] != 't' || at == 1 || name[at] != '.' || (name[1] == '0' && at > 2)) {
        return -1;
    }
    for (int k = 0; k < FOREST_ARRAYS; k++) {
        if (strcmp(name + at + 1, arrays[k].name) == 0) {
            *ret_tree = (uint32_t)tree;
            *ret_array = k;
            return 0;
        }
    }
    return -1;
}

static int place_tensor(struct forest *f, const struct tiered_tensor *t,
                        struct tiered_error *err)
{
    uint32_t tree;
    int k;
    if (parse_name(t->name, &tree, &k) != 0) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "tensor '%.60s' is none of a forest's: t0.left, t0.right, "
                           "t0.feature, t0.threshold, t0.value, t1.left …",
                           t->name);
    }
    if (tree >= f->n_trees) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "there is a '%.60s', and tensors for %u trees: they count "
                           "from 0 without a gap, with %d tensors each",
                           t->name, f->n_trees, FOREST_ARRAYS);
    }
    if (t->dtype != arrays[k].dtype || t->rank != arrays[k].rank) {
        return tiered_fail(
            err, TIERED_ESHAPE, "tensor '%.60s' must be %s, of rank %u: astype('%s')%s",
            t->name, arrays[k].dtype == TIERED_I32 ? "I32" : "F64", arrays[k].rank,
            arrays[k].dtype == TIERED_I32 ? "int32" : "float64",
            k == FOREST_VALUE ? ", reshape(nodes, -1)" : "");
    }
    f->tensors[(size_t)tree * FOREST_ARRAYS + (size_t)k] = t;
    return 0;
}

static const int32_t *ints_of(const struct forest *f, uint32_t tree, int k)
{
    const struct tiered_tensor *t =
        f->tensors[(size_t)tree * FOREST_ARRAYS + (size_t)k];
    return (const int32_t *)(const void *)(f->whole->data + t->offset_bytes);
}

static int check_finite(const struct forest *f, uint32_t tree, int k,
                        struct tiered_error *err)
{
    const struct tiered_tensor *t =
        f->tensors[(size_t)tree * FOREST_ARRAYS + (size_t)k];
    const double *x = (const double *)(const void *)(f->whole->data + t->offset_bytes);
    for (uint64_t i = 0; i < t->n_elements; i++) {
        if (!isfinite(x[i])) {
            return tiered_fail(err, TIERED_ERANGE,
                               "tensor '%.60s' has %s at index %" PRIu64, t->name,
                               isnan(x[i]) ? "NaN" : "an infinite value", i);
        }
    }
    return 0;
}

/* Every node is the child of one before it or of one after, but of one only: so no walk
   from the root comes back. Nodes that the root does not reach are let be. */
static int check_nodes(const struct forest *f, uint32_t tree, uint64_t n,
                       uint8_t *has_parent, struct tiered_error *err)
{
    const int32_t *left = ints_of(f, tree, FOREST_LEFT);
    const int32_t *right = ints_of(f, tree, FOREST_RIGHT);
    const int32_t *feature = ints_of(f, tree, FOREST_FEATURE);
    memset(has_parent, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        if (left[i] == -1 && right[i] == -1) {
            continue;
        }
        const int32_t children[] = {left[i], right[i]};
        for (int k = 0; k < 2; k++) {
            bool inside = children[k] > 0 && (uint64_t)children[k] < n;
            if (!inside || has_parent[children[k]]) {
                return tiered_fail(err, TIERED_EINVAL,
                                   "tree %u: node %" PRIu64 " has the child %d, which "
                                   "%s",
                                   tree, i, children[k],
                                   inside ? "another has too" : "is none of its nodes");
            }
            has_parent[children[k]] = 1;
        }
        if (feature[i] < 0) {
            return tiered_fail(err, TIERED_EINVAL,
                               "tree %u: node %" PRIu64 " splits feature %d", tree, i,
                               feature[i]);
        }
    }
    return 0;
}

static int check_tree(struct forest *f, uint32_t tree, struct tiered_error *err)
{
    const struct tiered_tensor **t = &f->tensors[(size_t)tree * FOREST_ARRAYS];
    for (int k = 0; k < FOREST_ARRAYS; k++) {
        if (!t[k]) {
            return tiered_fail(err, TIERED_ESHAPE, "has no tensor 't%u.%s'", tree,
                               arrays[k].name);
        }
        if (t[k]->shape[0] != t[0]->shape[0] || t[k]->shape[0] == 0) {
            return tiered_fail(err, TIERED_ESHAPE,
                               "tensor '%.60s' has %" PRIu64 " nodes, and '%.60s' "
                               "%" PRIu64,
                               t[k]->name, t[k]->shape[0], t[0]->name, t[0]->shape[0]);
        }
    }
    uint64_t outputs = t[FOREST_VALUE]->shape[1], n = t[0]->shape[0];
    if (outputs == 0 || (f->n_outputs && f->n_outputs != outputs)) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "tensor '%.60s' has %" PRIu64
                           " outputs, and those before it "
                           "%" PRIu64,
                           t[FOREST_VALUE]->name, outputs, f->n_outputs);
    }
    f->n_outputs = outputs;
    uint8_t *has_parent = malloc(n);
    if (!has_parent) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %" PRIu64 " nodes", n);
    }
    int result = check_nodes(f, tree, n, has_parent, err);
    free(has_parent);
    return result != 0 || check_finite(f, tree, FOREST_THRESHOLD, err) != 0
               ? -1
               : check_finite(f, tree, FOREST_VALUE, err);
}

int forest_open(struct forest *f, const struct tiered_whole *whole,
                struct tiered_error *err)
{
    const struct tiered_manifest *m = whole->manifest;
    *f = (struct forest){.whole = whole, .n_trees = m->n_tensors / FOREST_ARRAYS};
    f->tensors = calloc((size_t)m->n_tensors + 1, sizeof(f->tensors[0]));
    if (!f->tensors) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %u tensors",
                           m->n_tensors);
    }
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        if (place_tensor(f, &m->tensors[i], err) != 0) {
            return -1;
        }
    }
    for (uint32_t tree = 0; tree < f->n_trees; tree++) {
        if (check_tree(f, tree, err) != 0) {
            return -1;
        }
    }
    return 0;
}

void forest_close(struct forest *f)
{
    free(f->tensors);
    *f = (struct forest){0};
}

/* ---- the union ---- */

struct union_of {
    const struct forest *forests;
    size_t n;
    uint32_t n_tensors;
    struct tiered_tensor *tensors;
    char (*names)[NAME_ROOM];
    const struct tiered_tensor **from; /* of each tensor … */
    const struct forest **of;          /* … and where its bytes are */
};

/* One dtype after the other, so that blocks, which never mix them, are few. */
static void add_arrays(struct union_of *u, int first, int last)
{
    uint32_t tree = 0;
    for (size_t i = 0; i < u->n; i++) {
        const struct forest *f = &u->forests[i];
        for (uint32_t k = 0; k < f->n_trees; k++, tree++) {
            for (int a = first; a <= last; a++) {
                uint32_t at = u->n_tensors++;
                u->from[at] = f->tensors[(size_t)k * FOREST_ARRAYS + (size_t)a];
                u->of[at] = f;
                u->tensors[at] = *u->from[at];
                snprintf(u->names[at], NAME_ROOM, "t%" PRIu32 ".%s", tree,
                         arrays[a].name);
                u->tensors[at].name = u->names[at];
            }
        }
    }
}

static int union_write(struct union_of *u, const struct tiered_merged *merged,
                       struct tiered_error *err)
{
    const struct tiered_manifest *manifest;
    uint8_t *data;
    add_arrays(u, FOREST_LEFT, FOREST_FEATURE);
    add_arrays(u, FOREST_THRESHOLD, FOREST_VALUE);
    if (merged->make(merged, u->tensors, u->n_tensors, &manifest, &data, err) != 0) {
        return -1;
    }
    for (uint32_t i = 0; i < u->n_tensors; i++) {
        memcpy(data + manifest->tensors[i].offset_bytes,
               u->of[i]->whole->data + u->from[i]->offset_bytes,
               u->from[i]->size_bytes);
    }
    return 0;
}

int forest_merge(const struct forest *forests, size_t n,
                 const struct tiered_merged *merged, struct tiered_error *err)
{
    struct union_of u = {.forests = forests, .n = n};
    size_t n_tensors = 1;
    for (size_t i = 0; i < n; i++) {
        n_tensors += (size_t)forests[i].n_trees * FOREST_ARRAYS;
    }
    u.tensors = calloc(n_tensors, sizeof(u.tensors[0]));
    u.names = calloc(n_tensors, sizeof(u.names[0]));
    u.from = calloc(n_tensors, sizeof(u.from[0]));
    u.of = calloc(n_tensors, sizeof(u.of[0]));
    int result =
        u.tensors && u.names && u.from && u.of && n_tensors < UINT32_MAX
            ? union_write(&u, merged, err)
            : tiered_fail(err, TIERED_ENOMEM, "no memory for %zu tensors", n_tensors);
    free(u.tensors);
    free(u.names);
    free(u.from);
    free(u.of);
    return result;
}
