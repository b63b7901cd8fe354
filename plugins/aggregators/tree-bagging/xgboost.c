/* SPDX-License-Identifier: Apache-2.0 */
/* One XGBoost model understood, and whether two may be added up. */
#include "xgboost.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_FALLBACK UINT32_MAX
#define MAX_TEXT    40

int xgb_count(const struct document *d, const struct node *object, const char *key,
              uint32_t fallback, uint32_t *ret, struct tiered_error *err)
{
    const struct node *text;
    if (document_member(d, object, key, NODE_STRING, &text, err) != 0) {
        return -1;
    }
    if (!text && fallback != NO_FALLBACK) {
        *ret = fallback;
        return 0;
    }
    uint64_t value = 0;
    bool good = text && text->n > 0 && text->n <= 10;
    for (uint32_t i = 0; good && i < text->n; i++) {
        uint8_t c = d->data[text->content + i];
        good = c >= '0' && c <= '9';
        value = 10 * value + (c - '0');
    }
    if (!good || value > INT32_MAX) {
        return tiered_fail(err, TIERED_EINVAL, "'%s' is no count", key);
    }
    *ret = (uint32_t)value;
    return 0;
}

static bool text_is(const struct document *d, const struct node *text, const char *want)
{
    size_t n = strlen(want);
    return text->n == n && memcmp(d->data + text->content, want, n) == 0;
}

/* A text for a message: plain letters, cut. */
static const char *shown(const struct document *d, const struct node *text,
                         char out[MAX_TEXT])
{
    size_t n = text->n < MAX_TEXT - 1 ? text->n : MAX_TEXT - 1;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = d->data[text->content + i];
        out[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    out[n] = 0;
    return out;
}

static int find_parts(struct xgb_model *m, struct tiered_error *err)
{
    const struct document *d = &m->document;
    const struct node *name;
    char text[MAX_TEXT];
    if (document_need(d, &d->nodes[0], "learner", NODE_OBJECT, &m->learner, err) != 0 ||
        document_need(d, m->learner, "gradient_booster", NODE_OBJECT, &m->booster,
                      err) != 0 ||
        document_need(d, m->booster, "name", NODE_STRING, &name, err) != 0) {
        return -1;
    }
    if (!text_is(d, name, "gbtree")) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "booster '%s' is no plain sum of trees: only gbtree models "
                           "can be merged",
                           shown(d, name, text));
    }
    if (document_need(d, m->booster, "model", NODE_OBJECT, &m->trees_of, err) != 0 ||
        document_need(d, m->trees_of, "gbtree_model_param", NODE_OBJECT, &m->counts,
                      err) != 0 ||
        document_need(d, m->trees_of, "trees", NODE_ARRAY, &m->trees, err) != 0 ||
        document_need(d, m->trees_of, "tree_info", NODE_ARRAY, &m->tree_info, err) !=
            0 ||
        document_member(d, m->trees_of, "iteration_indptr", NODE_ARRAY, &m->iterations,
                        err) != 0 ||
        document_member(d, m->trees_of, "cats", NODE_OBJECT, &m->categories, err) !=
            0 ||
        document_need(d, m->learner, "learner_model_param", NODE_OBJECT, &m->parameters,
                      err) != 0 ||
        document_need(d, m->parameters, "base_score", NODE_STRING, &m->base_score,
                      err) != 0 ||
        document_member(d, m->learner, "feature_names", NODE_ARRAY, &m->feature_names,
                        err) != 0 ||
        document_member(d, m->learner, "feature_types", NODE_ARRAY, &m->feature_types,
                        err) != 0) {
        return -1;
    }
    const struct node *objective;
    return document_need(d, m->learner, "objective", NODE_OBJECT, &objective, err) != 0
               ? -1
               : document_need(d, objective, "name", NODE_STRING, &m->objective, err);
}

static int read_counts(struct xgb_model *m, struct tiered_error *err)
{
    const struct document *d = &m->document;
    if (xgb_count(d, m->parameters, "num_feature", NO_FALLBACK, &m->n_features, err) !=
            0 ||
        xgb_count(d, m->parameters, "num_class", 0, &m->n_classes, err) != 0 ||
        xgb_count(d, m->parameters, "num_target", 1, &m->n_targets, err) != 0 ||
        xgb_count(d, m->counts, "num_trees", NO_FALLBACK, &m->n_trees, err) != 0 ||
        xgb_count(d, m->counts, "num_parallel_tree", 1, &m->n_parallel, err) != 0) {
        return -1;
    }
    uint64_t groups =
        (uint64_t)(m->n_classes ? m->n_classes : 1) * (m->n_targets ? m->n_targets : 1);
    m->n_parallel = m->n_parallel ? m->n_parallel : 1;
    if (groups > INT32_MAX) {
        return tiered_fail(err, TIERED_ERANGE, "has %" PRIu64 " classes and targets",
                           groups);
    }
    m->n_groups = (uint32_t)groups;
    if (m->trees->n != m->n_trees || m->tree_info->n != m->n_trees) {
        return tiered_fail(
            err, TIERED_EINVAL,
            "num_trees is %u, and there are %u trees and %u in tree_info", m->n_trees,
            m->trees->n, m->tree_info->n);
    }
    return 0;
}

/* tree_info says which output a tree adds to, iteration_indptr which trees were grown
   in one round of boosting. */
static int check_indices(const struct xgb_model *m, struct tiered_error *err)
{
    const struct document *d = &m->document;
    struct scalar s;
    uint32_t at = m->tree_info->content;
    for (uint32_t i = 0; i < m->tree_info->n; i++) {
        at = document_scalar(d, document_skip(d, at), m->tree_info->type, &s);
        if (!m->tree_info->numbers || s.kind != NODE_INTEGER || s.integer < 0 ||
            s.integer >= (int64_t)m->n_groups) {
            return tiered_fail(err, TIERED_EINVAL,
                               "tree %u: its tree_info is not one of %u outputs", i,
                               m->n_groups);
        }
    }
    if (!m->iterations) {
        uint64_t a_round = (uint64_t)m->n_parallel * m->n_groups;
        return m->n_trees % a_round == 0
                   ? 0
                   : tiered_fail(err, TIERED_EINVAL,
                                 "has %u trees, no whole rounds of %" PRIu64,
                                 m->n_trees, a_round);
    }
    int64_t last = 0;
    at = m->iterations->content;
    for (uint32_t i = 0; i < m->iterations->n; i++) {
        at = document_scalar(d, at, m->iterations->type, &s);
        bool good = m->iterations->numbers && s.kind == NODE_INTEGER &&
                    (i == 0 ? s.integer == 0 : s.integer >= last);
        if (!good || s.integer > (int64_t)m->n_trees) {
            return tiered_fail(err, TIERED_EINVAL,
                               "iteration_indptr does not count up to %u trees",
                               m->n_trees);
        }
        last = s.integer;
    }
    return m->iterations->n > 0 && last == (int64_t)m->n_trees
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "iteration_indptr does not end at %u trees", m->n_trees);
}

/* One number of base_score, "5E-1" or, since version 3.1, "[5E-1,4E-1]". */
static bool next_score(const struct document *d, const struct node *text, uint32_t *at,
                       float *ret)
{
    char number[32];
    size_t n = 0;
    while (*at < text->n && strchr("[], ", d->data[text->content + *at])) {
        ++*at;
    }
    while (*at < text->n && n + 1 < sizeof(number) &&
           !strchr("[], ", d->data[text->content + *at])) {
        number[n++] = (char)d->data[text->content + (*at)++];
    }
    number[n] = 0;
    char *end = number;
    *ret = n ? strtof(number, &end) : 0;
    return n && !*end && isfinite(*ret);
}

/* One number stands for all outputs. */
static bool same_scores(const struct xgb_model *a, const struct xgb_model *b)
{
    uint32_t at = 0, bt = 0, n = 0, m = 0;
    float x = 0, y = 0, x0 = 0, y0 = 0;
    bool more_x = true, more_y = true, same = true;
    for (uint32_t i = 0; more_x || more_y; i++) {
        more_x = more_x && next_score(&a->document, a->base_score, &at, &x);
        more_y = more_y && next_score(&b->document, b->base_score, &bt, &y);
        n += more_x;
        m += more_y;
        x0 = i == 0 ? x : x0;
        y0 = i == 0 ? y : y0;
        if (more_x || more_y) {
            same = same && (more_x ? x : x0) == (more_y ? y : y0);
        }
    }
    return same && (n == m || n == 1 || m == 1);
}

static int check_score(const struct xgb_model *m, struct tiered_error *err)
{
    char text[MAX_TEXT];
    uint32_t at = 0, n = 0;
    float score;
    while (next_score(&m->document, m->base_score, &at, &score)) {
        n++;
    }
    while (at < m->base_score->n &&
           strchr("[], ", m->document.data[m->base_score->content + at])) {
        at++;
    }
    return n > 0 && at == m->base_score->n
               ? 0
               : tiered_fail(err, TIERED_EINVAL, "base_score '%s' is no finite number",
                             shown(&m->document, m->base_score, text));
}

int xgb_open(struct xgb_model *m, const void *data, size_t size,
             struct tiered_error *err)
{
    *m = (struct xgb_model){0};
    if (document_parse(&m->document, data, size, err) != 0) {
        return -1;
    }
    return find_parts(m, err) != 0 || read_counts(m, err) != 0 ||
                   check_score(m, err) != 0
               ? -1
               : check_indices(m, err);
}

void xgb_close(struct xgb_model *m)
{
    document_finish(&m->document);
}

/* ---- two models ---- */

/* The same texts in the same order, or one of them has none. */
static bool same_texts(const struct document *a, const struct node *x,
                       const struct document *b, const struct node *y)
{
    if (!x || !y || x->n == 0 || y->n == 0) {
        return true;
    }
    uint32_t at = x->content, bt = y->content;
    bool same = x->n == y->n;
    for (uint32_t i = 0; same && i < x->n; i++) {
        struct scalar s, t;
        at = document_scalar(a, at, x->type, &s);
        bt = document_scalar(b, bt, y->type, &t);
        same = s.kind == NODE_STRING && t.kind == NODE_STRING &&
               document_same_text(a, &s, b, &t);
    }
    return same;
}

static bool has_categories(const struct xgb_model *m)
{
    const struct node *codes = NULL;
    return m->categories &&
           document_member(&m->document, m->categories, "enc", NODE_ARRAY, &codes,
                           NULL) == 0 &&
           codes && codes->n > 0;
}

/* Category codes of a data frame are each client's own, and recoded by this table. */
static bool same_categories(const struct xgb_model *a, const struct xgb_model *b)
{
    if (!has_categories(a) && !has_categories(b)) {
        return true;
    }
    const struct node *x = a->categories, *y = b->categories;
    return has_categories(a) && has_categories(b) &&
           a->document.encoding == b->document.encoding &&
           x->end - x->start == y->end - y->start &&
           memcmp(a->document.data + x->start, b->document.data + y->start,
                  x->end - x->start) == 0;
}

static int differ(const char *what, uint32_t got, const char *who, uint32_t want,
                  const char *cure, struct tiered_error *err)
{
    return tiered_fail(err, TIERED_EINVAL, "%s is %u, and %u in '%.80s': %s", what, got,
                       want, who, cure);
}

int xgb_agree(const struct xgb_model *a, const char *who, const struct xgb_model *b,
              struct tiered_error *err)
{
    char x[MAX_TEXT], y[MAX_TEXT];
    const struct document *da = &a->document, *db = &b->document;
    if (a->objective->n != b->objective->n ||
        memcmp(da->data + a->objective->content, db->data + b->objective->content,
               b->objective->n) != 0) {
        return tiered_fail(
            err, TIERED_EINVAL,
            "the objective is %s, and %s in '%.80s': set the same one at "
            "every client",
            shown(db, b->objective, y), shown(da, a->objective, x), who);
    }
    if (a->n_classes != b->n_classes) {
        return differ("num_class", b->n_classes, who, a->n_classes,
                      "set num_class explicitly at every client", err);
    }
    if (a->n_features != b->n_features) {
        return differ("num_feature", b->n_features, who, a->n_features,
                      "give every client the same columns", err);
    }
    if (a->n_targets != b->n_targets) {
        return differ("num_target", b->n_targets, who, a->n_targets,
                      "give every client the same targets", err);
    }
    if (a->n_parallel != b->n_parallel) {
        return differ("num_parallel_tree", b->n_parallel, who, a->n_parallel,
                      "set the same at every client", err);
    }
    if (!same_scores(a, b)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "base_score is %s, and %s in '%.80s': set base_score "
                           "explicitly at every client",
                           shown(db, b->base_score, y), shown(da, a->base_score, x),
                           who);
    }
    if (!same_texts(da, a->feature_names, db, b->feature_names) ||
        !same_texts(da, a->feature_types, db, b->feature_types)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "its features have other names, types or order than those "
                           "of '%.80s': give every client the same columns",
                           who);
    }
    return same_categories(a, b)
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "its categories are coded otherwise than in '%.80s': give "
                             "every client the same category types, and one encoding "
                             "(JSON or UBJSON)",
                             who);
}
