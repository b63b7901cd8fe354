/* SPDX-License-Identifier: Apache-2.0 */
/* tree-bagging on models small enough to write down, and what the host does for
   aggregators that merge whole models. */
#include "strategy_kit.h"

/* A model of stumps: head and trees as XGBoost writes them, members in its order. */
#define HEAD(objective, base_score, classes)                                           \
    "\"learner_model_param\":{\"base_score\":\"" base_score                            \
    "\",\"boost_from_average\":\"0\",\"num_class\":\"" classes                         \
    "\",\"num_feature\":\"2\",\"num_target\":\"1\"},\"objective\":{\"name\":"          \
    "\"" objective "\"}},\"version\":[3,2,0]}"
#define MODEL(n, parallel, rounds, info, trees, head)                                  \
    "{\"learner\":{\"attributes\":{},\"feature_names\":[],\"feature_types\":[],"       \
    "\"gradient_booster\":{\"model\":{\"gbtree_model_param\":{\"num_parallel_tree\":"  \
    "\"" parallel "\",\"num_trees\":\"" n "\"},\"iteration_indptr\":[" rounds          \
    "],\"tree_info\":[" info "],\"trees\":[" trees "]},\"name\":\"gbtree\"}," head
#define STUMP(id, left, right)                                                         \
    "{\"base_weights\":[0E0," left "," right "],\"categories\":[],"                    \
    "\"categories_nodes\":[],\"categories_segments\":[],\"categories_sizes\":[],"      \
    "\"default_left\":[0,0,0],\"id\":" id ",\"left_children\":[1,-1,-1],"              \
    "\"loss_changes\":[1E0,0E0,0E0],\"parents\":[2147483647,0,0],"                     \
    "\"right_children\":[2,-1,-1],\"split_conditions\":[5E-1," left "," right "],"     \
    "\"split_indices\":[1,0,0],\"split_type\":[0,0,0],\"sum_hessian\":[2E0,1E0,1E0],"  \
    "\"tree_param\":{\"num_deleted\":\"0\",\"num_feature\":\"2\",\"num_nodes\":\"3\"," \
    "\"size_leaf_vector\":\"1\"}}"
#define LINEAR HEAD("reg:squarederror", "[5E-1]", "0")
#define ONE    MODEL("1", "1", "0,1", "0", STUMP("0", "-1E0", "1E0"), LINEAR)
#define TWO                                                                            \
    MODEL("2", "1", "0,1,2", "0,0",                                                    \
          STUMP("0", "1.00000001E-1", "3E-45") "," STUMP("1", "-0E0", "2E0"), LINEAR)

static struct tiered_model *blob(const char *name, const void *bytes, size_t size)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    uint64_t shape = size;
    assert_int_equal(
        tiered_layout_add(b, name, TIERED_U8, TIERED_BUFFER, 1, &shape, &err), 0);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    if (size) {
        memcpy(model->data, bytes, size);
    }
    tiered_layout_unref(layout);
    return model;
}

/* A row that owns the model. */
static void row(struct kit *k, struct tiered_model *model)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    size_t i = k->run.n_rows++;
    k->models[i] = model;
    k->rows[i] = (struct tiered_row){
        .contribution = {.size = sizeof(struct tiered_contribution), .node = names[i]},
        .read = kit_read,
        .source = model,
        .layout = model->layout};
}

static void text_row(struct kit *k, const char *text)
{
    row(k, blob("model", text, strlen(text)));
}

static void begin(struct kit *k, const char *rule)
{
    BEGIN(k, NULL, rule);
}

static void expect_text(struct kit *k, const char *want)
{
    struct tiered_model *got = kit_run(k);
    assert_int_equal(got->layout->m.n_tensors, 1);
    assert_int_equal(got->layout->m.tensors[0].dtype, TIERED_U8);
    if (got->layout->m.tensors[0].size_bytes != strlen(want) ||
        memcmp(got->data, want, strlen(want)) != 0) {
        fail_msg("%.*s\nis not\n%s", (int)got->layout->m.tensors[0].size_bytes,
                 (const char *)got->data, want);
    }
    tiered_model_unref(got);
}

static void test_trees_follow_in_order(void **state)
{
    (void)state;
    struct kit k;
    begin(&k, "tree-bagging");
    text_row(&k, TWO);
    text_row(&k, ONE);
    /* each number as it was written; ids, rounds and counts anew */
    expect_text(&k, MODEL("3", "1", "0,1,2,3", "0,0,0",
                          STUMP("0", "1.00000001E-1", "3E-45") "," STUMP(
                              "1", "-0E0", "2E0") "," STUMP("2", "-1E0", "1E0"),
                          LINEAR));
    k.run.base = k.base = blob("model", ONE, strlen(ONE));
    k.rows[1].contribution.excluded = 1;
    expect_text(&k,
                MODEL("3", "1", "0,1,2,3", "0,0,0",
                      STUMP("0", "-1E0", "1E0") "," STUMP(
                          "1", "1.00000001E-1", "3E-45") "," STUMP("2", "-0E0", "2E0"),
                      LINEAR));
    k.rows[0].contribution.excluded = 1;
    kit_refusal(&k, TIERED_ERANGE);
    kit_finish(&k);
}

static void test_one_child_is_itself(void **state)
{
    (void)state;
    struct kit k;
    begin(&k, "tree-bagging");
    text_row(&k, TWO);
    expect_text(&k, TWO);
    /* a base of no bytes is no model yet */
    k.run.base = k.base = blob("model", "", 0);
    expect_text(&k, TWO);
    kit_finish(&k);
}

/* ---- UBJSON ---- */

struct bytes {
    uint8_t data[1024];
    size_t n;
};

static void put(struct bytes *b, const char *text)
{
    memcpy(b->data + b->n, text, strlen(text));
    b->n += strlen(text);
}

/* A marker, 'L', and a text with its length in 8 bytes. */
static void put_text(struct bytes *b, const char *marker, const char *text)
{
    const uint8_t length[8] = {[7] = (uint8_t)strlen(text)};
    put(b, marker);
    put(b, "L");
    memcpy(b->data + b->n, length, 8);
    b->n += 8;
    put(b, text);
}

static void put_pair(struct bytes *b, const char *key, const char *value)
{
    put_text(b, "", key);
    put_text(b, "S", value);
}

static void put_key(struct bytes *b, const char *key, const char *open)
{
    put_text(b, "", key);
    put(b, open);
}

static void put_empty(struct bytes *b, const char *key)
{
    put_key(b, key, "[#i");
    b->data[b->n++] = 0;
}

/* LINEAR's head without a tree. */
static void no_trees(struct bytes *b)
{
    b->n = 0;
    put(b, "{");
    put_key(b, "learner", "{");
    put_key(b, "attributes", "{}");
    put_empty(b, "feature_names");
    put_empty(b, "feature_types");
    put_key(b, "gradient_booster", "{");
    put_key(b, "model", "{");
    put_key(b, "gbtree_model_param", "{");
    put_pair(b, "num_parallel_tree", "1");
    put_pair(b, "num_trees", "0");
    put(b, "}");
    put_key(b, "iteration_indptr", "[#i\1U");
    b->data[b->n++] = 0;
    put_empty(b, "tree_info");
    put_empty(b, "trees");
    put(b, "}");
    put_pair(b, "name", "gbtree");
    put(b, "}");
    put_key(b, "learner_model_param", "{");
    put_pair(b, "base_score", "[5E-1]");
    put_pair(b, "boost_from_average", "0");
    put_pair(b, "num_class", "0");
    put_pair(b, "num_feature", "2");
    put_pair(b, "num_target", "1");
    put(b, "}");
    put_key(b, "objective", "{");
    put_pair(b, "name", "reg:squarederror");
    put(b, "}}");
    put_key(b, "version", "[#i\3i\3i\2i");
    b->data[b->n++] = 0;
    put(b, "}");
}

static const uint8_t *find(const struct tiered_model *model, const void *bytes,
                           size_t n)
{
    return memmem(model->data, model->layout->m.data_bytes, bytes, n);
}

/* JSON's trees in a model of UBJSON, and from there back, letter by letter. */
static void test_encodings(void **state)
{
    (void)state;
    struct kit k;
    struct bytes empty;
    no_trees(&empty);
    begin(&k, "tree-bagging");
    row(&k, blob("model", empty.data, empty.n));
    text_row(&k, TWO);
    struct tiered_model *got = kit_run(&k);
    assert_memory_equal(got->data, "{L\0\0\0\0\0\0\0\7learner{", 18);
    /* the types that XGBoost's loader takes: 0.5, 0.1 and the smallest but one */
    static const char conditions[] = "split_conditions[$d#L\0\0\0\0\0\0\0\3"
                                     "\x3f\0\0\0\x3d\xcc\xcc\xcd\0\0\0\2";
    static const char left[] = "left_children[$l#L\0\0\0\0\0\0\0\3"
                               "\0\0\0\1\xff\xff\xff\xff\xff\xff\xff\xff";
    static const char iterations[] = "iteration_indptr[#L\0\0\0\0\0\0\0\3i\0i\1i\2";
    assert_non_null(find(got, conditions, sizeof(conditions) - 1));
    assert_non_null(find(got, left, sizeof(left) - 1));
    assert_non_null(find(got, iterations, sizeof(iterations) - 1));
    kit_finish(&k);

    begin(&k, "tree-bagging");
    text_row(&k, MODEL("0", "1", "0", "", "", LINEAR));
    row(&k, got);
    expect_text(&k, MODEL("2", "1", "0,1,2", "0,0",
                          STUMP("0", "1E-1", "3E-45") "," STUMP("1", "-0E0", "2E0"),
                          LINEAR));
    kit_finish(&k);
}

static void test_damaged_ubjson(void **state)
{
    (void)state;
    struct bytes whole;
    no_trees(&whole);
    for (size_t n = 0; n < whole.n; n++) {
        struct kit k;
        struct tiered_error err = {0};
        begin(&k, "tree-bagging");
        row(&k, blob("model", whole.data, n));
        assert_int_equal(tiered_strategy_check(k.strategy, NULL, &k.rows[0], &err), -1);
        kit_finish(&k);
    }
    struct kit k;
    struct tiered_error err = {0};
    const char *const deep = "{L\0\0\0\0\0\0\0\1x";
    begin(&k, "tree-bagging");
    whole.n = 0;
    for (int i = 0; i < 60; i++) {
        memcpy(whole.data + whole.n, deep, 11);
        whole.n += 11;
    }
    row(&k, blob("model", whole.data, whole.n));
    assert_int_equal(tiered_strategy_check(k.strategy, NULL, &k.rows[0], &err), -1);
    assert_non_null(strstr(err.text, "too many levels"));
    /* a length of 2^63 - 1 */
    k.models[0]->data[2] = 0x7f;
    memset(k.models[0]->data + 3, 0xff, 7);
    assert_int_equal(tiered_strategy_check(k.strategy, NULL, &k.rows[0], &err), -1);
    assert_non_null(strstr(err.text, "a length past the end"));
    kit_finish(&k);
}

/* Two parallel trees of each of two classes: flwr's merge keeps two of the four. */
static void test_classes_and_parallel_trees(void **state)
{
    (void)state;
    struct kit k;
#define SOFT   HEAD("multi:softprob", "[5E-1]", "2")
#define LEAF_1 STUMP("0", "1E0", "1E0") "," STUMP("1", "2E0", "2E0")
#define LEAF_2 STUMP("2", "3E0", "3E0") "," STUMP("3", "4E0", "4E0")
#define LEAF_3 STUMP("4", "1E0", "1E0") "," STUMP("5", "2E0", "2E0")
#define LEAF_4 STUMP("6", "3E0", "3E0") "," STUMP("7", "4E0", "4E0")
    begin(&k, "tree-bagging:max_trees=8");
    text_row(&k, MODEL("4", "2", "0,4", "0,0,1,1", LEAF_1 "," LEAF_2, SOFT));
    text_row(&k, MODEL("4", "2", "0,4", "0,0,1,1", LEAF_1 "," LEAF_2, SOFT));
    expect_text(&k, MODEL("8", "2", "0,4,8", "0,0,1,1,0,0,1,1",
                          LEAF_1 "," LEAF_2 "," LEAF_3 "," LEAF_4, SOFT));
    text_row(&k, MODEL("4", "2", "0,4", "0,0,1,1", LEAF_1 "," LEAF_2, SOFT));
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "the model would have 12 trees, and max_trees is 8");
    kit_finish(&k);
}

static void test_models_that_do_not_add_up(void **state)
{
    (void)state;
    static const struct {
        const char *model, *want;
    } cases[] = {
        {MODEL("1", "1", "0,1", "0", STUMP("0", "1E0", "1E0"),
               HEAD("reg:squarederror", "2.5E-1", "0")),
         "'b': base_score is 2.5E-1, and [5E-1] in 'a': set base_score explicitly at "
         "every client"},
        {MODEL("1", "1", "0,1", "0", STUMP("0", "1E0", "1E0"),
               HEAD("count:poisson", "[5E-1]", "0")),
         "'b': the objective is count:poisson, and reg:squarederror in 'a': set the "
         "same "
         "one at every client"},
        {MODEL("1", "1", "0,1", "0", STUMP("0", "1E0", "1E0"),
               HEAD("reg:squarederror", "[5E-1]", "3")),
         "'b': num_class is 3, and 0 in 'a': set num_class explicitly at every client"},
        {MODEL("1", "1", "0,1", "1", STUMP("0", "1E0", "1E0"), LINEAR),
         "'b': tree 0: its tree_info is not one of 1 outputs"},
        {MODEL("1", "1", "0,2", "0", STUMP("0", "1E0", "1E0"), LINEAR),
         "'b': iteration_indptr does not count up to 1 trees"},
        {MODEL("1", "1", "0,1", "0", STUMP("0", "NaN", "1E0"), LINEAR),
         "'b': tree 0: leaf 1 has NaN"},
        {MODEL("1", "1", "0,1", "0", STUMP("0", "01", "1E0"), LINEAR),
         "'b': is no JSON: a number that begins with 0 at byte 229"},
        {"not a model", "'b': is neither JSON nor UBJSON: write the model with "
                        "save_raw('ubj') or save_raw('json')"},
        {"{\"learner\":{},\"learner\":{}}", "'b': has two members 'learner'"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct kit k;
        struct tiered_model *out = NULL;
        begin(&k, "tree-bagging");
        text_row(&k, ONE);
        text_row(&k, cases[i].model);
        assert_int_equal(tiered_strategy_run(k.strategy, &k.run, &out, &k.err), -1);
        assert_string_equal(k.err.text, cases[i].want);
        /* told of the one that is wrong, before it spoils a round */
        struct tiered_error err = {0};
        struct tiered_model *base = k.models[0];
        assert_int_equal(tiered_strategy_check(k.strategy, base, &k.rows[0], &err), 0);
        assert_int_equal(tiered_strategy_check(k.strategy, base, &k.rows[1], &err), -1);
        assert_memory_equal(err.text, cases[i].want, 5);
        kit_finish(&k);
    }
}

/* "[5E-1]" since version 3.1 is "5E-1" before it. */
static void test_base_scores_are_numbers(void **state)
{
    (void)state;
    struct kit k;
    begin(&k, "tree-bagging");
    text_row(&k, ONE);
    text_row(&k, MODEL("1", "1", "0,1", "0", STUMP("0", "1E0", "1E0"),
                       HEAD("reg:squarederror", "0.50", "0")));
    struct tiered_model *out = kit_run(&k);
    tiered_model_unref(out);
    kit_finish(&k);
}

/* ---- forests ---- */

struct arrays {
    int32_t left[3], right[3], feature[3];
    double threshold[3], value[3];
};

static const struct arrays stump = {
    {1, -1, -1}, {2, -1, -1}, {4, -2, -2}, {.5, -2, -2}, {0, 1, 2}};

static struct tiered_model *forest(const struct arrays *trees, unsigned n)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    static const char *const names[] = {"value", "threshold", "feature", "right",
                                        "left"};
    uint64_t shape[] = {3, 1};
    for (unsigned i = 0; i < 5 * n; i++) { /* backwards: names decide, not places */
        char name[24];
        unsigned a = i % 5;
        snprintf(name, sizeof(name), "t%u.%s", n - 1 - i / 5, names[a]);
        enum tiered_dtype dtype = a < 2 ? TIERED_F64 : TIERED_I32;
        assert_int_equal(tiered_layout_add(b, name, dtype, tiered_role_default(dtype),
                                           a == 0 ? 2 : 1, shape, &err),
                         0);
    }
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    for (unsigned i = 0; i < 5 * n; i++) {
        const struct arrays *t = &trees[n - 1 - i / 5];
        const void *from[] = {t->value, t->threshold, t->feature, t->right, t->left};
        memcpy(model->data + layout->m.tensors[i].offset_bytes, from[i % 5],
               layout->m.tensors[i].size_bytes);
    }
    tiered_layout_unref(layout);
    return model;
}

static double value_at(const struct tiered_model *model, const char *name, size_t i)
{
    for (uint32_t t = 0; t < model->layout->m.n_tensors; t++) {
        if (strcmp(model->layout->m.tensors[t].name, name) == 0) {
            return kit_value(model, t, i);
        }
    }
    fail_msg("no tensor '%s'", name);
    return 0;
}

static void test_forests_are_united(void **state)
{
    (void)state;
    struct kit k;
    struct arrays trees[3] = {stump, stump, stump};
    for (int i = 0; i < 3; i++) {
        trees[i].value[2] = 10 + i;
        trees[i].feature[0] = i;
    }
    begin(&k, "tree-bagging:max_trees=4");
    row(&k, forest(trees, 2));
    row(&k, forest(&trees[2], 1));
    struct tiered_model *got = kit_run(&k);
    assert_int_equal(got->layout->m.n_tensors, 15);
    for (unsigned i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%u.value", i);
        assert_float_equal(value_at(got, name, 2), 10 + i, 0);
        snprintf(name, sizeof(name), "t%u.feature", i);
        assert_float_equal(value_at(got, name, 0), i, 0);
    }
    k.run.base = k.base = got; /* 3 more than its own 3 */
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "the model would have 6 trees, and max_trees is 4");
    k.rows[0].contribution.excluded = 1;
    struct tiered_model *grown = kit_run(&k);
    assert_float_equal(value_at(grown, "t3.value", 2), 12, 0);
    assert_float_equal(value_at(grown, "t0.value", 2), 10, 0);
    tiered_model_unref(grown);
    kit_finish(&k);
}

static void test_forests_that_go_nowhere(void **state)
{
    (void)state;
    static const struct {
        struct arrays tree;
        const char *want;
    } cases[] = {
        {{{1, 0, -1}, {2, -1, -1}, {0}, {0}, {0}},
         "'a': tree 0: node 1 has the child 0, which is none of its nodes"},
        {{{1, 2, -1}, {2, -1, -1}, {0}, {0}, {0}},
         "'a': tree 0: node 1 has the child 2, which another has too"},
        {{{1, -1, -1}, {3, -1, -1}, {0}, {0}, {0}},
         "'a': tree 0: node 0 has the child 3, which is none of its nodes"},
        {{{1, -1, -1}, {2, -1, -1}, {-2}, {0}, {0}},
         "'a': tree 0: node 0 splits feature -2"},
        {{{1, -1, -1}, {2, -1, -1}, {0}, {0, INFINITY}, {0}},
         "'a': tensor 't0.threshold' has an infinite value at index 1"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct kit k;
        struct tiered_model *out = NULL;
        begin(&k, "tree-bagging");
        row(&k, forest(&cases[i].tree, 1));
        assert_int_equal(tiered_strategy_run(k.strategy, &k.run, &out, &k.err), -1);
        assert_string_equal(k.err.text, cases[i].want);
        kit_finish(&k);
    }
}

/* ---- the host's rules ---- */

static void test_trees_have_no_mean(void **state)
{
    (void)state;
    struct kit k;
    const char *const rules[] = {"tree-bagging", "fedadam"};
    assert_int_equal(kit_begin(&k, NULL, rules, 2), -1);
    assert_string_equal(
        k.err.text, "optimizer 'fedadam' steps along a mean, and 'tree-bagging' "
                    "merges whole models, which have none: leave the optimizer out");
    kit_finish(&k);

    struct tiered_model *model = forest(&stump, 1);
    BEGIN(&k, tiered_layout_ref(model->layout), "fedavg");
    row(&k, model);
    k.rows[0].contribution.num_examples = 1;
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "the tensors are the trees of a forest (t0.left …), which "
                        "'fedavg' cannot average; tree-bagging unites them");
    kit_finish(&k);

    model = blob("model", ONE, strlen(ONE));
    BEGIN(&k, tiered_layout_ref(model->layout), "median");
    row(&k, model);
    kit_refusal(&k, TIERED_EINVAL);
    kit_finish(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees_follow_in_order),
        cmocka_unit_test(test_one_child_is_itself),
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_damaged_ubjson),
        cmocka_unit_test(test_classes_and_parallel_trees),
        cmocka_unit_test(test_models_that_do_not_add_up),
        cmocka_unit_test(test_base_scores_are_numbers),
        cmocka_unit_test(test_forests_are_united),
        cmocka_unit_test(test_forests_that_go_nowhere),
        cmocka_unit_test(test_trees_have_no_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
