/* SPDX-License-Identifier: Apache-2.0 */
/* Strategies: optimizers and their state, roles, coefficients, threads, bad updates. */
#include "strategy_kit.h"

#include <unistd.h>

#include "core/model/safetensors.h"

static char folder[64], path[96];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tiered-test-XXXXXX");
    if (!mkdtemp(folder)) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/s.safetensors", folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* -------- optimizers -------- */

/* fedadam from 1 towards 2, then towards 4, with the defaults: m = 0.1 D,
   v = 0.99 v0 + 0.01 D^2, x' = x + 0.1 m / (sqrt(v) + 1e-3), with v0 = 1e-6 (none) and
   v0 = 0 (adam, flower, whose rates are corrected). */
#define NONE_1   1.0990050488825425
#define NONE_2   1.2225383498696765
#define ADAM_1   1.099009900990099
#define ADAM_2   1.1907289055407153
#define FLOWER_1 1.0735108701389573
#define FLOWER_2 1.1519826778297313

/* Two steps from 1 with one child at 2, then at 4; the second in a new strategy with
   the first one's saved state. */
static void two_steps(const char *rule, double first, double second)
{
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg", rule);
    assert_true(tiered_strategy_has_state(k.strategy));
    /* The state of no step: a round may have no result, and a restart follow. */
    assert_int_equal(tiered_strategy_save(k.strategy, path, &k.err), 0);
    kit_finish(&k);

    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg", rule);
    assert_int_equal(tiered_strategy_load(k.strategy, path, k.layout, &k.err), 0);
    BASE(&k, 1);
    ROW(&k, 1, 2);
    EXPECT(&k, 1e-15, first);
    assert_int_equal(tiered_strategy_save(k.strategy, path, &k.err), 0);
    kit_finish(&k);

    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg", rule);
    assert_int_equal(tiered_strategy_load(k.strategy, path, k.layout, &k.err), 0);
    BASE(&k, first);
    ROW(&k, 1, 4);
    EXPECT(&k, 1e-15, second);
    kit_finish(&k);
}

static void test_fedadam_two_steps(void **state)
{
    (void)state;
    two_steps("fedadam", NONE_1, NONE_2);
    two_steps("fedadam:bias_correction=adam", ADAM_1, ADAM_2);
    two_steps("fedadam:bias_correction=flower", FLOWER_1, FLOWER_2);
}

/* Deltas and parameters are the same round. D = 0 leaves the model where it is. */
static void test_fedadam_of_deltas(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 2), "fedavg", "fedadam");
    BASE(&k, 1, 5);
    k.run.rows_are_deltas = true;
    ROW(&k, 1, 1, 0);
    EXPECT(&k, 1e-15, NONE_1, 5);
    kit_finish(&k);
}

static struct tiered_layout *mixed_layout(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t two[] = {2}, none[] = {0, 3};
    tiered_layout_add(b, "half", TIERED_F16, TIERED_PARAMETER, 1, two, &err);
    tiered_layout_add(b, "empty", TIERED_F32, TIERED_PARAMETER, 2, none, &err);
    tiered_layout_add(b, "scalar", TIERED_F32, TIERED_PARAMETER, 0, NULL, &err);
    tiered_layout_add(b, "running", TIERED_F32, TIERED_BUFFER, 1, two, &err);
    tiered_layout_add(b, "wide", TIERED_F64, TIERED_PARAMETER, 1, two, &err);
    tiered_layout_add(b, "steps", TIERED_I64, TIERED_BUFFER, 0, NULL, &err);
    tiered_layout_add(b, "last", TIERED_F32, TIERED_PARAMETER, 1, two, &err);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

/* Parameters step from 1 to NONE_1 whatever their dtype; running statistics and
   counters take the mean. */
static void test_only_parameters_step(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, mixed_layout(), "fedavg", "fedadam");
    BASE(&k, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
    ROW(&k, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2);
    EXPECT(&k, 5e-4, NONE_1, NONE_1, NONE_1, 2, 2, NONE_1, NONE_1, 2, NONE_1, NONE_1);
    assert_int_equal(tiered_strategy_save(k.strategy, path, &k.err), 0);
    struct tiered_model *slots = NULL;
    struct tiered_metadata metadata = {0};
    assert_int_equal(tiered_safetensors_read(path, &slots, &metadata, &k.err), 0);
    assert_string_equal(tiered_metadata_get(&metadata, "tiered.step"), "1");
    assert_int_equal(slots->layout->m.n_tensors, 10);
    assert_string_equal(slots->layout->m.tensors[0].name, "0.fedadam.m/half");
    assert_int_equal(slots->layout->m.tensors[0].dtype, TIERED_F32);
    assert_string_equal(slots->layout->m.tensors[8].name, "0.fedadam.v/wide");
    assert_int_equal(slots->layout->m.tensors[8].dtype, TIERED_F64);
    for (size_t t = 0; t < 10; t++) {
        for (size_t e = 0; e < slots->layout->m.tensors[t].n_elements; e++) {
            double want = t < 5 ? 0.1 : 0.99e-6 + 0.01;
            assert_true(fabs(kit_value(slots, (uint32_t)t, e) - want) <= 1e-8);
        }
    }
    tiered_model_unref(slots);
    tiered_metadata_finish(&metadata);
    kit_finish(&k);
}

static void test_state_of_another_chain(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 2), "fedavg", "fedadam");
    BASE(&k, 1, 1);
    ROW(&k, 1, 2, 2);
    tiered_model_unref(kit_run(&k));
    assert_int_equal(tiered_strategy_save(k.strategy, path, &k.err), 0);
    struct tiered_layout *other = kit_layout(TIERED_F32, 3);
    assert_int_equal(tiered_strategy_load(k.strategy, path, other, &k.err), -1);
    assert_int_equal(k.err.code, TIERED_ESHAPE);
    assert_non_null(strstr(k.err.text, "is the state of other optimizers or another "
                                       "model: "));
    tiered_layout_unref(other);
    kit_finish(&k);

    BEGIN(&k, kit_layout(TIERED_F32, 2), "fedavg", "fedadam", "fedadam");
    assert_int_equal(tiered_strategy_load(k.strategy, path, k.layout, &k.err), -1);
    assert_int_equal(k.err.code, TIERED_ESHAPE);
    struct tiered_error err = {0};
    struct tiered_model *model = kit_model(k.layout);
    assert_int_equal(tiered_safetensors_write(path, model, NULL, &err), 0);
    tiered_model_unref(model);
    assert_int_equal(tiered_strategy_load(k.strategy, path, k.layout, &k.err), -1);
    assert_non_null(strstr(k.err.text, "is no optimizer state: its metadata has no "
                                       "tiered.step"));
    kit_finish(&k);
}

static int read_fails(void *source, uint32_t block, void *out, struct tiered_error *err)
{
    (void)source, (void)block, (void)out;
    return tiered_fail(err, TIERED_EIO, "the disk is gone");
}

/* A failed round, of either kind, takes no step. */
static void test_failure_leaves_the_state(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg", "fedadam");
    BASE(&k, 1);
    ROW(&k, 1, 2);
    EXPECT(&k, 1e-15, NONE_1);
    k.rows[0].read = read_fails;
    assert_string_equal(kit_refusal(&k, TIERED_EIO), "the disk is gone");
    k.rows[0].read = kit_read;
    k.rows[0].contribution.num_examples = 0;
    kit_refusal(&k, TIERED_ERANGE);
    k.rows[0].contribution.num_examples = 1;
    BASE(&k, NONE_1);
    kit_fill(k.models[0], (const double[]){4});
    EXPECT(&k, 1e-15, NONE_2);
    kit_finish(&k);
}

static void test_optimizer_needs_a_base(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 1), "fedavg", "fedadam");
    ROW(&k, 1, 2);
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "optimizer 'fedadam' needs the model before the round");
    kit_finish(&k);
    const char *const wrong[] = {"fedadam"};
    assert_int_equal(kit_begin(&k, kit_layout(TIERED_F32, 1), wrong, 1), -1);
    assert_string_equal(k.err.text, "'fedadam' is no aggregator: a strategy is one "
                                    "aggregator, then optimizers");
    kit_finish(&k);
}

/* -------- an aggregator of the test's own -------- */

static double seen[16], given[4];

static int probe_weigh(void *state, const struct tiered_round_view *view,
                       double *ret_weights, struct tiered_error *err)
{
    (void)state, (void)err;
    for (size_t i = 0; i < view->n * view->n && view->gram; i++) {
        seen[i] = view->gram[i];
    }
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = given[i];
    }
    return 0;
}

static void probe_begin(struct kit *k, struct tiered_layout *layout,
                        enum tiered_needs needs, uint32_t acts_on)
{
    const struct tiered_aggregator_ops ops = {
        .needs = needs, .acts_on = acts_on, .weigh = probe_weigh};
    kit_probe(k, layout, &ops);
}

static void test_gram(void **state)
{
    (void)state;
    struct kit k;
    probe_begin(&k, kit_layout(TIERED_F32, 2), TIERED_NEEDS_GRAM,
                TIERED_ROLE_BIT(TIERED_PARAMETER));
    BASE(&k, 10, 20);
    ROW(&k, 1, 13, 24);  /* delta 3, 4 */
    ROW(&k, 1, 9, 22);   /* delta -1, 2 */
    ROW(&k, 1, NAN, 20); /* excluded */
    k.rows[2].contribution.excluded = 1;
    given[0] = 1, given[1] = 0, given[2] = 5;
    EXPECT(&k, 0, 13, 24);
    const double want[] = {25, 5, 0, 5, 5, 0, 0, 0, INFINITY};
    for (size_t i = 0; i < 9; i++) {
        assert_true(seen[i] == want[i]);
    }
    k.run.base = NULL;
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "aggregator 'probe' measures how far the updates moved, so it "
                        "needs the model before the round");
    kit_finish(&k);
}

static void test_norms(void **state)
{
    (void)state;
    struct kit k;
    probe_begin(&k, kit_layout(TIERED_F16, 2), TIERED_NEEDS_NORMS,
                TIERED_ROLE_BIT(TIERED_PARAMETER));
    ROW(&k, 1, 13, 24);
    given[0] = 1;
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "aggregator 'probe' measures how far the updates moved, so it "
                        "needs the model before the round");
    BASE(&k, 10, 20);
    EXPECT(&k, 0, 13, 24);
    assert_true(seen[0] == 25);
    kit_finish(&k);
}

/* Coefficients that sum to 0.75 keep a quarter of the base. */
static void test_shrinking(void **state)
{
    (void)state;
    struct kit k;
    probe_begin(&k, kit_layout(TIERED_F32, 1), TIERED_NEEDS_NOTHING,
                TIERED_ROLE_BIT(TIERED_PARAMETER));
    ROW(&k, 1, 8);
    ROW(&k, 1, 4);
    given[0] = 0.5, given[1] = 0.25;
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "the coefficients of aggregator 'probe' sum to 0.75, so it "
                        "needs the model before the round");
    BASE(&k, 100);
    EXPECT(&k, 0, 30); /* 4 + 1 + 25 */
    k.run.rows_are_deltas = true;
    EXPECT(&k, 0, 105);
    k.run.base = NULL;
    EXPECT(&k, 0, 5);
    given[0] = INFINITY;
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "aggregator 'probe' gave 'a' a coefficient that is not finite");
    kit_finish(&k);
}

/* What the rule does not act on is averaged by examples. */
static void test_other_roles(void **state)
{
    (void)state;
    struct kit k;
    probe_begin(&k, mixed_layout(), TIERED_NEEDS_NOTHING,
                TIERED_ROLE_BIT(TIERED_PARAMETER));
    ROW(&k, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
    ROW(&k, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5);
    given[0] = 1, given[1] = 0;
    EXPECT(&k, 0, 1, 1, 1, 4, 4, 1, 1, 4, 1, 1);
    k.rows[0].contribution.num_examples = k.rows[1].contribution.num_examples = 0;
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "tensor 'running' is averaged by examples, and the 2 updates "
                        "have none");
    kit_finish(&k);
}

/* -------- bad updates -------- */

static void test_bad_updates(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 3), "fedavg");
    ROW(&k, 1, 1, 2, 3);
    ROW(&k, 1, 3, 4, NAN);
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "'b': tensor 'w' has NaN at index 2");
    struct tiered_error err = {0};
    assert_int_equal(tiered_row_screen(k.layout, &k.rows[0], &err), 0);
    assert_int_equal(tiered_row_screen(k.layout, &k.rows[1], &err), -1);
    assert_string_equal(err.text, "'b': tensor 'w' has NaN at index 2");
    k.run.allow_bad = true;
    struct tiered_model *model = kit_run(&k);
    assert_true(kit_value(model, 0, 0) == 2 && isnan(kit_value(model, 0, 2)));
    tiered_model_unref(model);
    k.run.allow_bad = false;
    k.rows[1].contribution.excluded = 1;
    EXPECT(&k, 0, 1, 2, 3);
    k.rows[0].contribution.excluded = 1;
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "no update to aggregate (2 excluded)");
    kit_finish(&k);

    BEGIN(&k, kit_layout(TIERED_F32, 1), "median");
    ROW(&k, 1, 1);
    ROW(&k, 1, -INFINITY);
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "'b': tensor 'w' has an infinite value at index 0");
    k.run.allow_bad = true;
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "aggregator 'median' cannot allow bad updates; reject or "
                        "exclude them");
    kit_finish(&k);
}

/* -------- threads and tiles -------- */

#define BIG (600000u) /* three blocks */

static struct tiered_model *run_big(unsigned n_threads, uint64_t tile_memory,
                                    const char *rule, enum tiered_dtype dtype)
{
    struct kit k;
    double *values = malloc(BIG * sizeof(double));
    assert_non_null(values);
    BEGIN(&k, kit_layout(dtype, BIG), rule, "fedadam");
    for (size_t i = 0; i < 5; i++) {
        for (size_t v = 0; v < BIG; v++) {
            values[v] = (double)((v * 7 + i * 31) % 101) / 64 + (double)i / 3;
        }
        kit_row(&k, values, i + 1);
    }
    kit_base(&k, values);
    free(values);
    k.run.tile_memory = tile_memory;
    if (n_threads) {
        assert_int_equal(tiered_pool_create(n_threads, &k.run.pool, &k.err), 0);
    }
    struct tiered_model *model = kit_run(&k);
    tiered_pool_destroy(k.run.pool);
    kit_finish(&k);
    return model;
}

static void test_threads_and_tiles(void **state)
{
    (void)state;
    static const char *const rules[] = {"fedavg", "median", "trimmed-mean",
                                        "krum",   "bulyan", "norm-bounded:norm=1"};
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_BF16, TIERED_F64};
    for (size_t i = 0; i < TIERED_COUNT(rules); i++) {
        struct tiered_model *one = run_big(0, 0, rules[i], dtypes[i % 3]);
        struct tiered_model *four = run_big(4, 0, rules[i], dtypes[i % 3]);
        struct tiered_model *tiled = run_big(2, 3000000, rules[i], dtypes[i % 3]);
        assert_memory_equal(one->data, four->data, one->layout->m.data_bytes);
        assert_memory_equal(one->data, tiled->data, one->layout->m.data_bytes);
        assert_true(tiered_digest_equal(&one->digest, &four->digest));
        tiered_model_unref(one);
        tiered_model_unref(four);
        tiered_model_unref(tiled);
    }
}

/* The Gram matrix of rows longer than a block: the same bits by any number of threads,
   width of vectors and size of tiles. */
static void run_gram(unsigned threads, const char *level, uint64_t tile_memory,
                     double sums[4])
{
    struct kit k;
    double *values = malloc(BIG * sizeof(double));
    assert_non_null(values);
    setenv("TIERED_VECTOR", level, 1);
    probe_begin(&k, kit_layout(TIERED_F32, BIG), TIERED_NEEDS_GRAM,
                TIERED_ROLE_BIT(TIERED_PARAMETER));
    for (size_t i = 0; i < 2; i++) {
        for (size_t v = 0; v < BIG; v++) {
            values[v] = i ? 1.0 / 3 : (double)(v % 2);
        }
        kit_row(&k, values, 1);
    }
    free(values);
    k.run.rows_are_deltas = true;
    k.run.tile_memory = tile_memory;
    assert_int_equal(tiered_pool_create(threads, &k.run.pool, &k.err), 0);
    given[0] = given[1] = 0.5;
    tiered_model_unref(kit_run(&k));
    tiered_pool_destroy(k.run.pool);
    kit_finish(&k);
    unsetenv("TIERED_VECTOR");
    memcpy(sums, seen, 4 * sizeof(sums[0]));
}

static void test_gram_threads(void **state)
{
    (void)state;
    static const char *const levels[] = {"portable", "avx2", "avx512"};
    double one[4], other[4];
    run_gram(1, "portable", 0, one);
    for (unsigned i = 0; i < 9; i++) {
        run_gram(1 + i % 3, levels[i / 3], i % 2 ? 1000000 : 1, other);
        assert_memory_equal(one, other, sizeof(one));
    }
    double third = (double)(float)(1.0 / 3);
    assert_true(one[0] == BIG / 2);
    assert_true(fabs(one[1] - BIG / 2 * third) <= 1e-6);
    assert_true(fabs(one[3] - BIG * third * third) <= 1e-6);
}

static void test_cancel(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F32, 1), "median");
    ROW(&k, 1, 2);
    atomic_store(&k.hosting.cancel, true);
    assert_string_equal(kit_refusal(&k, TIERED_ECANCELED), "aggregation was cancelled");
    kit_finish(&k);
}

static void test_on_bad_update_words(void **state)
{
    (void)state;
    enum tiered_on_bad_update how;
    assert_true(tiered_on_bad_update_parse("exclude", &how));
    assert_int_equal(how, TIERED_EXCLUDE_BAD);
    assert_false(tiered_on_bad_update_parse("ignore", &how));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fedadam_two_steps),
        cmocka_unit_test(test_fedadam_of_deltas),
        cmocka_unit_test(test_only_parameters_step),
        cmocka_unit_test(test_state_of_another_chain),
        cmocka_unit_test(test_failure_leaves_the_state),
        cmocka_unit_test(test_optimizer_needs_a_base),
        cmocka_unit_test(test_gram),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_shrinking),
        cmocka_unit_test(test_other_roles),
        cmocka_unit_test(test_bad_updates),
        cmocka_unit_test(test_threads_and_tiles),
        cmocka_unit_test(test_gram_threads),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_on_bad_update_words),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
