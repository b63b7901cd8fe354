/* SPDX-License-Identifier: Apache-2.0 */
/* Trees from strangers through tree-bagging: two XGBoost models in either encoding, or
   two forests of arrays. What it accepts it must accept again, with all of the trees.
   Input: a byte (0..127 models, else forests; odd: the second is the base), the first
   one's size, the two. Of a forest: trees, then each tree's nodes, outputs, arrays. */
#include "fuzz.h"
#include "plugins/aggregators/tree-bagging/forest.h"
#include "plugins/aggregators/tree-bagging/xgboost.h"

extern const struct tiered_plugin tiered_plugin;

#define MAX_TREES 3u
#define MAX_NODES 7u
#define ARRAYS    5u

struct whole {
    struct tiered_manifest manifest;
    struct tiered_tensor tensors[2 * MAX_TREES * ARRAYS];
    char names[2 * MAX_TREES * ARRAYS][24];
    uint8_t *data;
    struct tiered_whole view;
};

static void seal(struct whole *w, uint32_t n)
{
    w->manifest = (struct tiered_manifest){sizeof(w->manifest), n, w->tensors, 0};
    for (uint32_t i = 0; i < n; i++) {
        struct tiered_tensor *t = &w->tensors[i];
        t->n_elements = 1;
        for (uint32_t k = 0; k < t->rank; k++) {
            t->n_elements *= t->shape[k];
        }
        t->size_bytes = t->n_elements * tiered_dtype_size(t->dtype);
        t->offset_bytes =
            (w->manifest.data_bytes + TIERED_ALIGN - 1) / TIERED_ALIGN * TIERED_ALIGN;
        w->manifest.data_bytes = t->offset_bytes + t->size_bytes;
    }
    size_t size = (size_t)w->manifest.data_bytes;
    w->data = aligned_alloc(TIERED_ALIGN,
                            (size + TIERED_ALIGN) / TIERED_ALIGN * TIERED_ALIGN);
    FUZZ_CHECK(w->data, "out of memory");
    memset(w->data, 0, size);
    w->view = (struct tiered_whole){&w->manifest, w->data};
}

/* A buffer of the very size, so that a read past its end is seen. */
static void make_blob(struct whole *w, struct fuzz_input in)
{
    *w = (struct whole){.tensors[0] = {.name = "model",
                                       .dtype = TIERED_U8,
                                       .rank = 1,
                                       .shape = {in.size},
                                       .n_elements = in.size,
                                       .size_bytes = in.size}};
    w->manifest = (struct tiered_manifest){sizeof(w->manifest), 1, w->tensors, in.size};
    w->data = malloc(in.size ? in.size : 1);
    FUZZ_CHECK(w->data, "out of memory");
    if (in.size) {
        memcpy(w->data, in.data, in.size);
    }
    w->view = (struct tiered_whole){&w->manifest, w->data};
}

static void make_forest(struct whole *w, struct fuzz_input in)
{
    static const char *const names[ARRAYS] = {"left", "right", "feature", "threshold",
                                              "value"};
    uint32_t n_trees = fuzz_byte(&in) % (MAX_TREES + 1), n = 0;
    *w = (struct whole){0};
    for (uint32_t tree = 0; tree < n_trees; tree++) {
        uint64_t nodes = fuzz_byte(&in) % (MAX_NODES + 1), outputs = fuzz_byte(&in) % 3;
        for (uint32_t k = 0; k < ARRAYS; k++, n++) {
            uint8_t twist = fuzz_byte(&in); /* mostly as it should be */
            snprintf(w->names[n], sizeof(w->names[n]), "t%u.%s", tree + (twist == 1),
                     names[(k + (twist == 2)) % ARRAYS]);
            w->tensors[n] = (struct tiered_tensor){
                .name = w->names[n],
                .dtype = k < 3 || twist == 3 ? TIERED_I32 : TIERED_F64,
                .rank = k == 4 ? 2 : 1,
                .shape = {nodes + (twist == 4), outputs}};
        }
    }
    seal(w, n);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *out = w->data + w->tensors[i].offset_bytes;
        for (uint64_t e = 0; e < w->tensors[i].n_elements; e++) {
            int32_t value = (int8_t)fuzz_byte(&in);
            double real = value == 127 ? 1.0 / 0.0 : value;
            bool f64 = w->tensors[i].dtype == TIERED_F64;
            memcpy(out + e * (f64 ? 8 : 4), f64 ? (void *)&real : (void *)&value,
                   f64 ? 8 : 4);
        }
    }
}

static int make(const struct tiered_merged *merged, const struct tiered_tensor *tensors,
                uint32_t n, const struct tiered_manifest **ret_manifest,
                uint8_t **ret_data, struct tiered_error *err)
{
    (void)err;
    struct whole *w = merged->opaque;
    FUZZ_CHECK(!w->data && n <= 2 * MAX_TREES * ARRAYS, "%u tensors", n);
    for (uint32_t i = 0; i < n; i++) {
        w->tensors[i] = tensors[i];
        snprintf(w->names[i], sizeof(w->names[i]), "%s", tensors[i].name);
        w->tensors[i].name = w->names[i];
    }
    seal(w, n);
    *ret_manifest = &w->manifest;
    *ret_data = w->data;
    return 0;
}

static uint32_t count_trees(const struct whole *w, bool forest)
{
    struct tiered_error err;
    uint32_t n;
    if (forest) {
        struct forest f;
        FUZZ_CHECK(forest_open(&f, &w->view, &err) == 0, "the union: %s", err.text);
        n = f.n_trees;
        forest_close(&f);
    } else {
        struct xgb_model m;
        FUZZ_CHECK(xgb_open(&m, w->data, (size_t)w->tensors[0].size_bytes, &err) == 0 &&
                       xgb_check_trees(&m, &err) == 0,
                   "the merged model: %s", err.text);
        n = m.n_trees;
        xgb_close(&m);
    }
    return n;
}

static void merge(void *state, const struct whole *a, const struct whole *b,
                  bool has_base, bool forest)
{
    const struct tiered_aggregator_ops *ops = tiered_plugin.ops;
    const struct tiered_contribution one = {.size = sizeof(one), .node = "one"},
                                     two = {.size = sizeof(two), .node = "two"};
    const struct tiered_contribution *const children[] = {&one, &two};
    const struct tiered_whole updates[] = {a->view, b->view};
    const struct tiered_round_view view = {sizeof(view), has_base ? 1 : 2, children,
                                           NULL};
    struct whole out = {0};
    const struct tiered_merged merged = {sizeof(merged), &out, make};
    struct tiered_error err = {0};
    const struct tiered_whole *base = has_base ? &b->view : NULL;
    int sound = ops->blobs_check(state, base, &a->view, &err);
    if (sound != 0) {
        fuzz_check_error(&err);
    }
    if (ops->blobs(state, &view, base, updates, &merged, &err) != 0) {
        fuzz_check_error(&err);
    } else {
        bool empty = b->manifest.data_bytes == 0 && has_base;
        uint32_t want = count_trees(a, forest) + (empty ? 0 : count_trees(b, forest));
        FUZZ_CHECK(count_trees(&out, forest) == want, "trees are lost: not %u", want);
    }
    free(out.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint8_t how = fuzz_byte(&in);
    struct fuzz_input first = fuzz_take(&in, fuzz_u16(&in));
    bool forest = how >= 128;
    struct whole a, b;
    (forest ? make_forest : make_blob)(&a, first);
    (forest ? make_forest : make_blob)(&b, in);
    struct {
        int64_t max_trees;
        int32_t format;
        bool format_given, max_given;
    } config = {.format = forest, .format_given = true};
    static const struct tiered_host host = {.size = sizeof(host)};
    const struct tiered_aggregator_ops *ops = tiered_plugin.ops;
    struct tiered_error err;
    void *state;
    FUZZ_CHECK(sizeof(config) == tiered_plugin.config_size, "the config has changed");
    FUZZ_CHECK(ops->init(&host, &config, &state, &err) == 0, "%s", err.text);
    merge(state, &a, &b, how % 2 == 1, forest);
    ops->destroy(state);
    free(a.data);
    free(b.data);
    return 0;
}
