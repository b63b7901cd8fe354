/* SPDX-License-Identifier: Apache-2.0 */
/* Bagging of trees: the model before the round and all the children's new trees in one
   ensemble. */
#include <inttypes.h>
#include <stdlib.h>

#include "forest.h"
#include "xgboost.h"

enum format {
    FORMAT_XGBOOST,
    FORMAT_FOREST,
};

struct config {
    int64_t max_trees;
    int32_t format;
    bool format_given, max_given;
};

static const struct tiered_option formats[] = {
    [FORMAT_XGBOOST] = {.name = "xgboost",
                        .help = "one U8 tensor that holds the model's UBJSON or JSON"},
    [FORMAT_FOREST] = {.name = "forest",
                       .help = "arrays a tree: t0.left, t0.right, t0.feature, "
                               "t0.threshold, t0.value, t1.left …"},
};

static const struct tiered_option options[] = {
    TIERED_OPTION_CHOICE(struct config, format, NULL, formats,
                         "how the trees are written; seen from the updates when absent",
                         .given_offset = offsetof(struct config, format_given)),
    TIERED_OPTION_INTEGER(struct config, max_trees, NULL, 1, INT32_MAX,
                          "the most trees that the model may have; a round that would "
                          "make more leaves it as it is. Unbounded when absent",
                          .given_offset = offsetof(struct config, max_given)),
};

struct bagging {
    struct config config;
    struct tiered_host host;
};

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    struct bagging *self = calloc(1, sizeof(*self));
    if (!self) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    self->config = *(const struct config *)config;
    memcpy(&self->host, host,
           host->size < sizeof(self->host) ? host->size : sizeof(self->host));
    *ret_state = self;
    return 0;
}

static void destroy(void *state)
{
    free(state);
}

/* No model yet: no tensors, or one without bytes. */
static bool is_empty(const struct tiered_whole *whole)
{
    return !whole || whole->manifest->data_bytes == 0;
}

static enum format format_of(const struct bagging *self,
                             const struct tiered_whole *whole)
{
    const struct tiered_manifest *m = whole->manifest;
    if (self->config.format_given) {
        return (enum format)self->config.format;
    }
    return m->n_tensors == 1 && m->tensors[0].dtype == TIERED_U8 ? FORMAT_XGBOOST
                                                                 : FORMAT_FOREST;
}

static int check_count(const struct bagging *self, uint64_t n, const char *what,
                       struct tiered_error *err)
{
    uint64_t most =
        self->config.max_given ? (uint64_t)self->config.max_trees : INT32_MAX;
    return n <= most ? 0
                     : tiered_fail(err, TIERED_ERANGE,
                                   "%s %" PRIu64 " trees, and max_trees is %" PRIu64,
                                   what, n, most);
}

/* ---- XGBoost ---- */

static int open_xgboost(const struct tiered_whole *whole, struct xgb_model *ret,
                        struct tiered_error *err)
{
    const struct tiered_manifest *m = whole->manifest;
    *ret = (struct xgb_model){0};
    if (m->n_tensors != 1 || m->tensors[0].dtype != TIERED_U8) {
        return tiered_fail(
            err, TIERED_ESHAPE,
            "an XGBoost model is one U8 tensor with the bytes of "
            "save_raw('ubj') or save_raw('json'), and this has %u tensors",
            m->n_tensors);
    }
    return xgb_open(ret, whole->data + m->tensors[0].offset_bytes,
                    (size_t)m->tensors[0].size_bytes, err);
}

static int write_xgboost(const struct xgb_model *const *models, size_t n,
                         enum encoding encoding, const struct tiered_tensor *like,
                         const struct tiered_merged *merged, struct tiered_error *err)
{
    struct writer out;
    size_t guess = 1024;
    for (size_t i = 0; i < n; i++) {
        guess += models[i]->document.size;
    }
    writer_begin(&out, encoding, guess);
    xgb_merge(models, n, &out);
    struct tiered_tensor tensor = {.name = like->name,
                                   .dtype = TIERED_U8,
                                   .role = like->role,
                                   .rank = 1,
                                   .shape = {out.n}};
    const struct tiered_manifest *manifest;
    uint8_t *data;
    int result = out.failed
                     ? tiered_fail(err, TIERED_ENOMEM, "no memory for the merged model")
                     : merged->make(merged, &tensor, 1, &manifest, &data, err);
    if (result == 0 && out.n) {
        memcpy(data + manifest->tensors[0].offset_bytes, out.data, out.n);
    }
    writer_finish(&out);
    return result;
}

/* ---- a round of either ---- */

/* What is merged, in order: the base if there is one, then the updates. */
struct round {
    const struct bagging *self;
    size_t n;
    const struct tiered_whole **wholes;
    const char **names;
    struct xgb_model *models;
    const struct xgb_model **pointers;
    struct forest *forests;
    const struct tiered_whole *first; /* update */
};

static int round_begin(struct round *r, const struct tiered_round_view *view,
                       const struct tiered_whole *base,
                       const struct tiered_whole *updates, struct tiered_error *err)
{
    size_t room = view->n + 1;
    r->wholes = calloc(room, sizeof(r->wholes[0]));
    r->names = calloc(room, sizeof(r->names[0]));
    r->models = calloc(room, sizeof(r->models[0]));
    r->pointers = calloc(room, sizeof(r->pointers[0]));
    r->forests = calloc(room, sizeof(r->forests[0]));
    if (!r->wholes || !r->names || !r->models || !r->pointers || !r->forests) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %zu updates", view->n);
    }
    if (!is_empty(base)) {
        r->wholes[0] = base;
        r->names[0] = "the model before the round";
        r->n = 1;
    }
    for (size_t i = 0; i < view->n; i++) {
        if (updates[i].manifest) {
            r->first = r->first ? r->first : &updates[i];
            r->wholes[r->n] = &updates[i];
            r->names[r->n++] = view->contributions[i]->node;
        }
    }
    return r->first ? 0
                    : tiered_fail(err, TIERED_ERANGE,
                                  "no update has trees; the model stays");
}

static void round_finish(struct round *r)
{
    for (size_t i = 0; i < r->n; i++) {
        xgb_close(&r->models[i]);
        forest_close(&r->forests[i]);
    }
    free(r->wholes);
    free(r->names);
    free(r->models);
    free(r->pointers);
    free(r->forests);
}

static int round_cancelled(const struct round *r, struct tiered_error *err)
{
    const struct tiered_host *host = &r->self->host;
    return host->cancelled && host->cancelled(host)
               ? tiered_fail(err, TIERED_ECANCELED, "stopped on request")
               : 0;
}

static int round_xgboost(struct round *r, const struct tiered_merged *merged,
                         struct tiered_error *err)
{
    uint64_t n_trees = 0;
    enum encoding encoding = ENCODING_JSON;
    for (size_t i = 0; i < r->n; i++) {
        struct xgb_model *model = &r->models[i];
        if (round_cancelled(r, err) != 0) {
            return -1;
        }
        if (open_xgboost(r->wholes[i], model, err) != 0 ||
            xgb_check_trees(model, err) != 0 ||
            xgb_agree(&r->models[0], r->names[0], model, err) != 0) {
            return tiered_error_prefix(err, "'%.80s': ", r->names[i]);
        }
        if (r->wholes[i] == r->first) {
            encoding = model->document.encoding;
        }
        n_trees += model->n_trees;
        r->pointers[i] = model;
    }
    if (check_count(r->self, n_trees, "the model would have", err) != 0) {
        return -1;
    }
    return write_xgboost(r->pointers, r->n, encoding, &r->first->manifest->tensors[0],
                         merged, err);
}

static int same_outputs(const struct forest *a, const char *who, const struct forest *b,
                        struct tiered_error *err)
{
    return a->n_outputs == b->n_outputs || !a->n_outputs || !b->n_outputs
               ? 0
               : tiered_fail(err, TIERED_ESHAPE,
                             "its trees have %" PRIu64 " outputs, and %" PRIu64
                             " in '%.80s': train all clients on the same classes",
                             b->n_outputs, a->n_outputs, who);
}

static int round_forest(struct round *r, const struct tiered_merged *merged,
                        struct tiered_error *err)
{
    uint64_t n_trees = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (round_cancelled(r, err) != 0) {
            return -1;
        }
        if (forest_open(&r->forests[i], r->wholes[i], err) != 0 ||
            same_outputs(&r->forests[0], r->names[0], &r->forests[i], err) != 0) {
            return tiered_error_prefix(err, "'%.80s': ", r->names[i]);
        }
        n_trees += r->forests[i].n_trees;
    }
    if (check_count(r->self, n_trees, "the model would have", err) != 0) {
        return -1;
    }
    return forest_merge(r->forests, r->n, merged, err);
}

static int blobs(void *state, const struct tiered_round_view *view,
                 const struct tiered_whole *base, const struct tiered_whole *updates,
                 const struct tiered_merged *merged, struct tiered_error *err)
{
    struct round r = {.self = state};
    int result = round_begin(&r, view, base, updates, err);
    if (result == 0) {
        result = format_of(r.self, r.first) == FORMAT_XGBOOST
                     ? round_xgboost(&r, merged, err)
                     : round_forest(&r, merged, err);
    }
    round_finish(&r);
    return result;
}

/* ---- one update ---- */

static int check_xgboost(const struct bagging *self, const struct tiered_whole *base,
                         const struct tiered_whole *update, struct tiered_error *err)
{
    struct xgb_model leader = {0}, model = {0};
    int result = open_xgboost(update, &model, err);
    if (result == 0) {
        result = xgb_check_trees(&model, err);
    }
    if (result == 0) {
        result = check_count(self, model.n_trees, "it has", err);
    }
    if (result == 0 && !is_empty(base)) { /* its trees are checked when it is merged */
        result = open_xgboost(base, &leader, err);
        if (result != 0) {
            tiered_error_prefix(err, "the model before the round: ");
        } else {
            result = xgb_agree(&leader, "the model before the round", &model, err);
        }
    }
    xgb_close(&model);
    xgb_close(&leader);
    return result;
}

static int check_forest(const struct bagging *self, const struct tiered_whole *base,
                        const struct tiered_whole *update, struct tiered_error *err)
{
    struct forest leader = {0}, forest = {0};
    int result = forest_open(&forest, update, err);
    if (result == 0 && forest.n_trees == 0) {
        result = tiered_fail(err, TIERED_ESHAPE, "it has no tensors");
    }
    if (result == 0) {
        result = check_count(self, forest.n_trees, "it has", err);
    }
    if (result == 0 && !is_empty(base)) {
        result = forest_open(&leader, base, err);
        if (result != 0) {
            tiered_error_prefix(err, "the model before the round: ");
        } else {
            result = same_outputs(&leader, "the model before the round", &forest, err);
        }
    }
    forest_close(&forest);
    forest_close(&leader);
    return result;
}

static int blobs_check(void *state, const struct tiered_whole *base,
                       const struct tiered_whole *update, struct tiered_error *err)
{
    const struct bagging *self = state;
    return format_of(self, update) == FORMAT_XGBOOST
               ? check_xgboost(self, base, update, err)
               : check_forest(self, base, update, err);
}

static const struct tiered_aggregator_ops ops = {
    .size = sizeof(ops),
    .acts_on = TIERED_ROLE_BIT(TIERED_PARAMETER) | TIERED_ROLE_BIT(TIERED_BUFFER),
    .init = init,
    .destroy = destroy,
    .blobs = blobs,
    .blobs_check = blobs_check,
};

TIERED_PLUGIN_DEFINE(
        .kind = TIERED_AGGREGATOR, .name = "tree-bagging", .version = "1.0",
        .summary =
            "one ensemble of all children's trees, XGBoost's or a forest's; at an "
            "inner tier it passes all of them up, so that the tree equals the flat "
            "result",
        .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_COMPOSES_EXACTLY |
                  TIERED_ACCEPTS_BLOBS,
        TIERED_OPTIONS(options, struct config), .ops = &ops);
