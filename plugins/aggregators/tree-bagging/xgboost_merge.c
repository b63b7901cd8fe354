/* SPDX-License-Identifier: Apache-2.0 */
/* Models with the same head: the first one's, and the trees of all of them. */
#include "xgboost.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct merge {
    const struct xgb_model *const *models;
    size_t n;
    struct writer *out;
    uint32_t n_trees;
};

static void key(struct writer *w, const char *text)
{
    writer_key(w, text, strlen(text));
}

/* A member of the first model as it stands. */
static void copy_member(const struct merge *m, const struct node *member)
{
    const struct document *d = &m->models[0]->document;
    writer_key(m->out, d->data + member->key, member->key_size);
    writer_node(m->out, d, member);
}

typedef void (*member_fn)(const struct merge *m, const struct node *member);

/* An object of the first model; `other` writes the members. */
static void copy_object(const struct merge *m, const struct node *object,
                        member_fn other)
{
    const struct document *d = &m->models[0]->document;
    writer_object(m->out);
    for (const struct node *member = object + 1; member < d->nodes + object->next;
         member = d->nodes + member->next) {
        other(m, member);
    }
    writer_object_end(m->out);
}

static bool is(const struct merge *m, const struct node *member, const char *name)
{
    return document_key_is(&m->models[0]->document, member, name);
}

static void count_member(const struct merge *m, const struct node *member)
{
    char text[16];
    if (!is(m, member, "num_trees")) {
        copy_member(m, member);
        return;
    }
    snprintf(text, sizeof(text), "%" PRIu32, m->n_trees);
    key(m->out, "num_trees");
    writer_text(m->out, text);
}

static uint32_t rounds_of(const struct xgb_model *model)
{
    return model->iterations ? model->iterations->n - 1
                             : model->n_trees / (model->n_parallel * model->n_groups);
}

/* Each model's rounds of boosting follow those of the one before it. */
static void write_iterations(const struct merge *m)
{
    uint32_t n = 1, before = 0;
    for (size_t i = 0; i < m->n; i++) {
        n += rounds_of(m->models[i]);
    }
    key(m->out, "iteration_indptr");
    writer_array(m->out, n);
    writer_integer(m->out, 0);
    for (size_t i = 0; i < m->n; i++) {
        const struct xgb_model *model = m->models[i];
        struct scalar s;
        uint32_t at = 0;
        if (model->iterations) {
            at = document_scalar(&model->document, model->iterations->content,
                                 model->iterations->type, &s); /* the first is 0 */
        }
        for (uint32_t k = 1; k <= rounds_of(model); k++) {
            if (model->iterations) {
                at = document_scalar(&model->document, at, model->iterations->type, &s);
            } else {
                s.integer = (int64_t)k * model->n_parallel * model->n_groups;
            }
            writer_integer(m->out, before + s.integer);
        }
        before += model->n_trees;
    }
    writer_array_end(m->out);
}

static void write_tree_info(const struct merge *m)
{
    key(m->out, "tree_info");
    writer_array(m->out, m->n_trees);
    for (size_t i = 0; i < m->n; i++) {
        const struct xgb_model *model = m->models[i];
        uint32_t at = model->tree_info->content;
        for (uint32_t k = 0; k < model->n_trees; k++) {
            struct scalar s;
            at = document_scalar(&model->document, at, model->tree_info->type, &s);
            writer_integer(m->out, s.integer);
        }
    }
    writer_array_end(m->out);
}

/* The tree is as it was, but for its number, which is its place. */
static void write_tree(const struct merge *m, const struct document *d,
                       const struct node *tree, uint32_t id)
{
    writer_object(m->out);
    for (const struct node *member = tree + 1; member < d->nodes + tree->next;
         member = d->nodes + member->next) {
        writer_key(m->out, d->data + member->key, member->key_size);
        if (document_key_is(d, member, "id")) {
            writer_integer(m->out, id);
        } else {
            writer_node(m->out, d, member);
        }
    }
    writer_object_end(m->out);
}

static void write_trees(const struct merge *m)
{
    uint32_t id = 0;
    key(m->out, "trees");
    writer_array(m->out, m->n_trees);
    for (size_t i = 0; i < m->n; i++) {
        const struct document *d = &m->models[i]->document;
        const struct node *tree = m->models[i]->trees + 1;
        for (uint32_t k = 0; k < m->models[i]->n_trees; k++) {
            write_tree(m, d, tree, id++);
            tree = d->nodes + tree->next;
        }
    }
    writer_array_end(m->out);
}

static void model_member(const struct merge *m, const struct node *member)
{
    if (member == m->models[0]->counts) {
        key(m->out, "gbtree_model_param");
        copy_object(m, member, count_member);
    } else if (member == m->models[0]->trees) {
        write_iterations(m);
        write_tree_info(m);
        write_trees(m);
    } else if (member != m->models[0]->tree_info &&
               member != m->models[0]->iterations) {
        copy_member(m, member);
    }
}

static void booster_member(const struct merge *m, const struct node *member)
{
    if (member != m->models[0]->trees_of) {
        copy_member(m, member);
        return;
    }
    key(m->out, "model");
    copy_object(m, member, model_member);
}

/* What early stopping found is one client's, and would hide the others' trees. */
static void attribute(const struct merge *m, const struct node *member)
{
    if (!is(m, member, "best_iteration") && !is(m, member, "best_score") &&
        !is(m, member, "best_ntree_limit")) {
        copy_member(m, member);
    }
}

static void learner_member(const struct merge *m, const struct node *member)
{
    if (member == m->models[0]->booster) {
        key(m->out, "gradient_booster");
        copy_object(m, member, booster_member);
    } else if (member->kind == NODE_OBJECT && is(m, member, "attributes")) {
        key(m->out, "attributes");
        copy_object(m, member, attribute);
    } else {
        copy_member(m, member);
    }
}

static void root_member(const struct merge *m, const struct node *member)
{
    if (member != m->models[0]->learner) {
        copy_member(m, member);
        return;
    }
    key(m->out, "learner");
    copy_object(m, member, learner_member);
}

void xgb_merge(const struct xgb_model *const *models, size_t n, struct writer *out)
{
    struct merge m = {models, n, out, 0};
    for (size_t i = 0; i < n; i++) {
        m.n_trees += models[i]->n_trees;
    }
    copy_object(&m, models[0]->document.nodes, root_member);
}
