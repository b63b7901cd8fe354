/* SPDX-License-Identifier: Apache-2.0 */
/* Clipping and noise: what they do to values, what they keep, and what noise is
   measured by. Statistics are of noise from a fixed seed, so they say the same in every
   run. */
#include "strategy_kit.h"
#include "tiered/filter.h"

#define N 100000

static struct tiered_plugins *plugins;

static int set_up(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    plugins = tiered_plugins_create(NULL, &err);
    return plugins ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tiered_plugins_destroy(plugins);
    return 0;
}

/* ---- a pipe of one or two filters ---- */

struct line {
    struct tiered_use uses[3];
    char *options[3];
    size_t n;
    const char *path;
    struct tiered_pool *pool;
    double norm, within;       /* the parent's; what the update says of it */
    struct tiered_bytes state; /* from pass to pass */
    uint64_t released;
    struct tiered_error err;
};

static struct line line_of(const char *path, const char *first, const char *second)
{
    struct line line = {.path = path};
    const char *const specs[] = {first, second};
    for (size_t i = 0; i < 2 && specs[i]; i++) {
        char name[32] = "";
        size_t length = strcspn(specs[i], ":");
        memcpy(name, specs[i], length);
        line.options[i] = tiered_options_parse(
            specs[i][length] ? specs[i] + length + 1 : "", &line.err);
        line.uses[i].options_json = line.options[i];
        if (tiered_plugins_get(plugins, name, TIERED_FILTER, &line.uses[i].loaded,
                               &line.err) < 0) {
            fail_msg("%s", line.err.text);
        }
        line.n++;
    }
    return line;
}

static void line_finish(struct line *line)
{
    for (size_t i = 0; i < line->n; i++) {
        free(line->options[i]);
    }
    tiered_bytes_finish(&line->state);
}

static int make(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                struct tiered_error *err)
{
    (void)user;
    return tiered_encoded_begin(head, NULL, ret, err);
}

/* One pass of an update, as a node sends it and its parent reads it. */
static struct tiered_model *through(struct line *line, const struct tiered_model *in)
{
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *d = NULL;
    struct tiered_model *out = NULL;
    struct tiered_hosting hosting;
    tiered_hosting_init(&hosting, 7, "test", "edge", "edge-1", line->path);
    const struct tiered_encode_job job = {.data = in->data,
                                          .norm = line->norm,
                                          .hosting = &hosting,
                                          .pool = line->pool,
                                          .make = make};
    if (tiered_pipe_create(line->uses, line->n, in->layout, &hosting, &pipe,
                           &line->err) < 0 ||
        tiered_pipe_load(pipe, line->state.data, line->state.size, &line->err) < 0 ||
        tiered_pipe_encode(pipe, &job, &e, &line->err) < 0) {
        return NULL;
    }
    tiered_bytes_finish(&line->state);
    line->state = (struct tiered_bytes){0};
    line->released = tiered_pipe_released(pipe);
    assert_int_equal(tiered_pipe_save(pipe, &line->state, &line->err), 0);
    assert_int_equal(tiered_encoded_seal(e, false, &line->err), 0);
    assert_int_equal(
        tiered_decoder_create(line->uses, line->n, &hosting, e, &d, &line->err), 0);
    assert_int_equal(tiered_decoder_model(d, line->pool, &out, &line->err), 0);
    line->within = tiered_decoder_within(d);
    double said = tiered_pipe_within(pipe);
    assert_true(said == line->within || (isnan(said) && isnan(line->within)));
    return out;
}

static struct tiered_model *vector(enum tiered_dtype dtype, uint64_t n, double value)
{
    struct tiered_layout *layout = kit_layout(dtype, n);
    struct tiered_model *model = kit_model(layout);
    tiered_layout_unref(layout);
    for (uint64_t i = 0; i < n; i++) {
        tiered_from_f64(dtype, &value, 1, model->data + i * tiered_dtype_size(dtype));
    }
    return model;
}

/* Parameters of every float dtype, and what is no parameter. */
static struct tiered_model *mixed(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t n[] = {500};
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64, TIERED_F16,
                                               TIERED_BF16};
    static const char *const names[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < 4; i++) {
        tiered_layout_add(b, names[i], dtypes[i], TIERED_PARAMETER, 1, n, &err);
    }
    tiered_layout_add(b, "mean", TIERED_F32, TIERED_BUFFER, 1, n, &err);
    tiered_layout_add(b, "steps", TIERED_I64, TIERED_BUFFER, 1, n, &err);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    struct tiered_model *model = kit_model(layout);
    double values[3000];
    for (size_t i = 0; i < 3000; i++) {
        values[i] =
            i < 2000 ? ((double)(i * 7919 % 2003) - 1001) / 500 : 1000 + (double)i;
    }
    kit_fill(model, values);
    tiered_layout_unref(layout);
    return model;
}

static double norm_of(const struct tiered_model *model)
{
    double sum = 0;
    for (uint32_t t = 0; t < model->layout->m.n_tensors; t++) {
        const struct tiered_tensor *tensor = &model->layout->m.tensors[t];
        for (size_t i = 0; tensor->role == TIERED_PARAMETER && i < tensor->n_elements;
             i++) {
            sum += kit_value(model, t, i) * kit_value(model, t, i);
        }
    }
    return sqrt(sum);
}

/* ---- clip ---- */

static void clip_bounds_the_norm(void **state)
{
    (void)state;
    struct tiered_model *in = mixed();
    struct line line = line_of("1", "clip:norm=0.3", NULL);
    struct tiered_model *out = through(&line, in);
    assert_non_null(out);
    double before = norm_of(in), after = norm_of(out);
    assert_true(before > 10);
    assert_true(after <= 0.3 * (1 + 1e-12) && after > 0.299); /* in every dtype */
    for (uint32_t t = 0; t < 4; t++) {
        for (size_t i = 0; i < 500; i++) {
            double want = kit_value(in, t, i) * (0.3 / before);
            assert_true(fabs(kit_value(out, t, i) - want) <= 0.01 * fabs(want) + 1e-7);
        }
    }
    const struct tiered_tensor *mean = &in->layout->m.tensors[4];
    assert_memory_equal(in->data + mean->offset_bytes, out->data + mean->offset_bytes,
                        500 * 4);
    assert_true(kit_value(out, 5, 499) == kit_value(in, 5, 499));
    assert_int_equal(line.state.size, 0); /* a norm that is given is no state */
    tiered_model_unref(in);
    tiered_model_unref(out);
    line_finish(&line);
}

static void clip_leaves_what_is_within(void **state)
{
    (void)state;
    struct tiered_model *in = mixed(), *zero = vector(TIERED_F32, 10, 0);
    struct line line = line_of("1", "clip:norm=1000", NULL);
    struct tiered_model *out = through(&line, in), *nothing = through(&line, zero);
    assert_memory_equal(in->data, out->data, in->layout->m.data_bytes);
    assert_memory_equal(zero->data, nothing->data, 40);
    tiered_model_unref(in);
    tiered_model_unref(out);
    tiered_model_unref(zero);
    tiered_model_unref(nothing);
    line_finish(&line);
}

static void clip_refuses_what_has_no_norm(void **state)
{
    (void)state;
    static const double bad[] = {NAN, INFINITY, -INFINITY, 1e200};
    struct line line = line_of("1", "clip:norm=1", NULL);
    for (size_t i = 0; i < 4; i++) {
        struct tiered_model *in = vector(TIERED_F64, 10, bad[i]);
        assert_null(through(&line, in));
        assert_int_equal(line.err.code, TIERED_ERANGE);
        assert_non_null(
            strstr(line.err.text, "filter 'clip': the update has no finite"));
        tiered_model_unref(in);
    }
    line_finish(&line);
}

/* Its first bound until the parent tells one, and a word to the parent. */
static void clip_follows_its_parent(void **state)
{
    (void)state;
    static const double told[] = {0, 0.5, 2, 3};
    struct tiered_model *in = vector(TIERED_F64, 7, 1); /* of norm 2.65 */
    struct line line = line_of("1", "clip:adaptive.initial=0.1", NULL);
    struct line fixed = line_of("1", "clip:norm=1", NULL);
    for (size_t i = 0; i < TIERED_COUNT(told); i++) {
        double bound = told[i] > 0 ? told[i] : 0.1;
        line.norm = told[i];
        struct tiered_model *out = through(&line, in);
        assert_true(fabs(norm_of(out) - fmin(bound, sqrt(7))) < 1e-9);
        assert_true(line.within == (bound > sqrt(7)));
        tiered_model_unref(out);
    }
    assert_int_equal(line.state.size, 0);
    static const double bad[] = {-1, NAN, INFINITY};
    for (size_t i = 0; i < TIERED_COUNT(bad); i++) {
        line.norm = bad[i];
        assert_null(through(&line, in));
        assert_non_null(strstr(line.err.text, "filter 'clip': a bound of"));
    }
    fixed.norm = 2; /* nobody asked */
    struct tiered_model *out = through(&fixed, in);
    assert_true(fabs(norm_of(out) - 1) < 1e-9 && isnan(fixed.within));
    tiered_model_unref(out);
    tiered_model_unref(in);
    line_finish(&line);
    line_finish(&fixed);
}

/* Its one byte comes from the network. */
static void clip_reads_no_other_header(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        uint8_t byte;
        size_t size;
        bool good;
    } rows[] = {
        {"clip:adaptive.initial=1", 0, 1, true},
        {"clip:adaptive.initial=1", 1, 1, true},
        {"clip:adaptive.initial=1", 2, 1, false},
        {"clip:adaptive.initial=1", 0, 0, false},
        {"clip:adaptive.initial=1", 1, 2, false},
        {"clip:norm=1", 0, 0, true},
        {"clip:norm=1", 1, 1, false},
    };
    struct tiered_layout *layout = kit_layout(TIERED_F32, 3);
    struct tiered_hosting hosting;
    tiered_hosting_init(&hosting, 7, "test", "edge", "edge-1", "1");
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        struct line line = line_of("1", rows[i].spec, NULL);
        const struct tiered_filter_ops *ops = line.uses[0].loaded->plugin.ops;
        const uint8_t header[2] = {rows[i].byte};
        struct tiered_config config = {0};
        void *filter;
        assert_int_equal(tiered_config_from_json(&line.uses[0].loaded->plugin,
                                                 line.options[0], &config, &line.err),
                         0);
        assert_int_equal(
            ops->init(&hosting.host, config.data, &layout->m, &filter, &line.err), 0);
        int result = ops->inverse_begin(filter, header, rows[i].size, &line.err);
        assert_int_equal(result, rows[i].good ? 0 : -1);
        assert_true(rows[i].good || line.err.code == TIERED_ECORRUPT);
        ops->destroy(filter);
        tiered_config_finish(&config);
        line_finish(&line);
    }
    tiered_layout_unref(layout);
}

static void clip_wants_one_kind_of_bound(void **state)
{
    (void)state;
    static const char *const specs[] = {"clip", "clip:norm=1,adaptive.lr=0.1"};
    struct tiered_model *in = vector(TIERED_F32, 10, 1);
    for (size_t i = 0; i < 2; i++) {
        struct line line = line_of("1", specs[i], NULL);
        assert_null(through(&line, in));
        assert_non_null(strstr(line.err.text, "clip needs either norm or adaptive"));
        line_finish(&line);
    }
    tiered_model_unref(in);
}

/* ---- gaussian ---- */

static double *values_of(const struct tiered_model *model, double minus)
{
    size_t n = (size_t)model->layout->m.tensors[0].n_elements;
    double *values = malloc(n * sizeof(*values));
    for (size_t i = 0; i < n; i++) {
        values[i] = kit_value(model, 0, i) - minus;
    }
    return values;
}

static void noise_is_normal(void **state)
{
    (void)state;
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64, TIERED_BF16};
    static const char *const filters[][3] = {
        /* deviation 0.5 * 4 */
        {"clip:norm=4", "gaussian:noise_multiplier=0.5,insecure_seed=1"},
        /* without a bound: in units of 1 */
        {"gaussian:noise_multiplier=2,insecure_seed=2", NULL},
        /* noise of the operating system's: 1 % of all runs may miss KS, so not here */
    };
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < 3; k++) {
            struct line line = line_of("1", filters[i][0], filters[i][1]);
            struct tiered_model *in = vector(dtypes[k], N, 0),
                                *out = through(&line, in);
            assert_non_null(out);
            double *values = values_of(out, 0);
            if (dtypes[k] != TIERED_BF16) {
                kit_check_normal(values, N, 2);
            } else { /* eight bits are steps that KS sees */
                double squares = 0;
                for (size_t v = 0; v < N; v++) {
                    squares += values[v] * values[v];
                }
                assert_true(fabs(squares / N - 4) < 3 * 4 * sqrt(2.0 / N));
            }
            free(values);
            tiered_model_unref(in);
            tiered_model_unref(out);
            line_finish(&line);
        }
    }
}

/* No element's noise is another's: neighbours, blocks and tiles are uncorrelated. */
static void noise_is_independent(void **state)
{
    (void)state;
    static const size_t lags[] = {1, 2, 8, 64, 4096, 262144};
    struct line line =
        line_of("1", "gaussian:noise_multiplier=1,insecure_seed=3", NULL);
    size_t n = 600000;
    struct tiered_model *in = vector(TIERED_F32, n, 0), *out = through(&line, in);
    double *values = values_of(out, 0);
    for (size_t k = 0; k < 6; k++) {
        double sum = 0;
        size_t pairs = n - lags[k];
        for (size_t i = 0; i < pairs; i++) {
            sum += values[i] * values[i + lags[k]];
        }
        assert_true(fabs(sum / (double)pairs) < 4 / sqrt((double)pairs));
    }
    free(values);
    tiered_model_unref(in);
    tiered_model_unref(out);
    line_finish(&line);
}

static bool same(const char *a_spec, const char *a_path, const char *b_spec,
                 const char *b_path, struct tiered_pool *pool)
{
    struct line a = line_of(a_path, a_spec, NULL), b = line_of(b_path, b_spec, NULL);
    b.pool = pool;
    struct tiered_model *in = vector(TIERED_F32, 600000, 1);
    struct tiered_model *x = through(&a, in), *y = through(&b, in);
    bool equal = memcmp(x->data, y->data, 600000 * 4) == 0;
    tiered_model_unref(in);
    tiered_model_unref(x);
    tiered_model_unref(y);
    line_finish(&a);
    line_finish(&b);
    return equal;
}

static void noise_is_nobodys_seed(void **state)
{
    (void)state;
    const char *secret = "gaussian:noise_multiplier=1";
    const char *one = "gaussian:noise_multiplier=1,insecure_seed=1";
    const char *two = "gaussian:noise_multiplier=1,insecure_seed=2";
    struct tiered_pool *pool;
    struct tiered_error err;
    assert_int_equal(tiered_pool_create(3, &pool, &err), 0);
    assert_false(same(secret, "1", secret, "1", NULL)); /* the run's seed is the same */
    assert_true(same(one, "1", one, "1", NULL));
    assert_true(same(one, "1", one, "1", pool)); /* whatever the threads */
    assert_false(same(one, "1", one, "2", NULL));
    assert_false(same(one, "1", two, "1", NULL));
    tiered_pool_destroy(pool);
}

static void releases_are_counted(void **state)
{
    (void)state;
    struct line line = line_of("1", "clip:norm=1", "gaussian:noise_multiplier=1");
    struct tiered_model *in = vector(TIERED_F32, 10, 1);
    struct tiered_model *bad = vector(TIERED_F32, 10, NAN);
    for (uint64_t i = 1; i <= 3; i++) {
        struct tiered_model *out = through(&line, in);
        assert_int_equal(line.released, i);
        tiered_model_unref(out);
        assert_null(through(&line, bad)); /* nothing left the node */
    }
    double norm = 0;
    assert_int_equal(tiered_pipe_norm(line.uses, line.n, &norm, &line.err), 0);
    assert_true(norm == 1);
    tiered_model_unref(in);
    tiered_model_unref(bad);
    line_finish(&line);
}

static void halves_stay_finite(void **state)
{
    (void)state;
    struct line line =
        line_of("1", "gaussian:noise_multiplier=1e6,insecure_seed=1", NULL);
    struct tiered_model *in = vector(TIERED_F16, 1000, 1), *out = through(&line, in);
    for (size_t i = 0; i < 1000; i++) {
        assert_true(isfinite(kit_value(out, 0, i)));
    }
    tiered_model_unref(in);
    tiered_model_unref(out);
    line_finish(&line);
}

/* ---- central noise ---- */

static void begin_central(struct kit *k, struct tiered_layout *layout,
                          const char *noise)
{
    const char *const rules[] = {"fedavg:weighted_by=uniform", noise};
    if (kit_begin(k, layout, rules, 2) != 0) {
        fail_msg("%s", k->err.text);
    }
    k->run.rows_are_deltas = true;
}

/* The divisor is the expected number, not that of the updates that came. */
static void central_mean_is_over_the_expected(void **state)
{
    (void)state;
    struct kit k;
    begin_central(&k, kit_layout(TIERED_F64, 2), "gaussian:noise_multiplier=1e-12");
    tiered_strategy_bound(k.strategy, 1, 4);
    BASE(&k, 10, 20);
    ROW(&k, 5, 1, 2);
    ROW(&k, 500, 3, 6);
    EXPECT(&k, 1e-9, 11, 22);
    kit_finish(&k);
}

static void central_noise_is_normal(void **state)
{
    (void)state;
    struct kit k;
    double *ones = malloc(N * sizeof(*ones));
    for (size_t i = 0; i < N; i++) {
        ones[i] = 1;
    }
    begin_central(&k, kit_layout(TIERED_F64, N),
                  "gaussian:noise_multiplier=2,insecure_seed=5");
    tiered_strategy_bound(k.strategy, 3, 4); /* deviation 2 * 3 / 4 */
    kit_base(&k, ones);
    for (int i = 0; i < 3; i++) {
        kit_row(&k, ones, 1);
    }
    k.run.path = "1";
    struct tiered_model *first = kit_run(&k);
    k.run.path = "2";
    struct tiered_model *second = kit_run(&k);
    assert_memory_not_equal(first->data, second->data, N * 8);
    double *values = values_of(first, 1.75);
    kit_check_normal(values, N, 1.5);
    free(values);

    for (int i = 0; i < 3; i++) { /* nobody came: noise all the same */
        tiered_model_unref(k.models[i]);
    }
    k.run.n_rows = 0;
    struct tiered_model *alone = kit_run(&k);
    values = values_of(alone, 1);
    kit_check_normal(values, N, 1.5);
    free(values);
    free(ones);
    tiered_model_unref(first);
    tiered_model_unref(second);
    tiered_model_unref(alone);
    kit_finish(&k);
}

/* What is after it is post-processing: the optimizer steps by the noisy delta. */
static void noise_comes_before_optimizers(void **state)
{
    (void)state;
    struct kit k;
    const char *const rules[] = {"fedavg:weighted_by=uniform", "fedadam:lr=0.5",
                                 "gaussian:noise_multiplier=1e9,insecure_seed=1"};
    assert_int_equal(kit_begin(&k, kit_layout(TIERED_F64, 3), rules, 3), 0);
    k.run.rows_are_deltas = true;
    tiered_strategy_bound(k.strategy, 1, 1);
    BASE(&k, 0, 0, 0);
    ROW(&k, 1, 1, 1, 1);
    struct tiered_model *out = kit_run(&k);
    for (size_t i = 0; i < 3; i++) { /* Adam's first step is lr * 0.1 / sqrt(0.01) */
        assert_true(fabs(fabs(kit_value(out, 0, i)) - 0.5) < 1e-3);
    }
    tiered_model_unref(out);
    kit_finish(&k);
}

static void central_noise_wants_equal_shares(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg", "gaussian:noise_multiplier=1");
    k.run.rows_are_deltas = true;
    BASE(&k, 0);
    ROW(&k, 1, 1);
    ROW(&k, 2, 1);
    assert_non_null(strstr(kit_refusal(&k, TIERED_EINVAL), "which only a run knows"));
    tiered_strategy_bound(k.strategy, 1, 2);
    assert_non_null(strstr(kit_refusal(&k, TIERED_EINVAL), "weighted_by: uniform"));
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F64, 1), "median", "gaussian:noise_multiplier=1");
    k.run.rows_are_deltas = true;
    tiered_strategy_bound(k.strategy, 1, 2);
    BASE(&k, 0);
    ROW(&k, 1, 1);
    assert_non_null(strstr(kit_refusal(&k, TIERED_EINVAL), "what 'median' makes"));
    kit_finish(&k);
}

static void buffers_get_no_noise(void **state)
{
    (void)state;
    struct kit k;
    struct tiered_model *row = mixed();
    begin_central(&k, tiered_layout_ref(row->layout),
                  "gaussian:noise_multiplier=100,insecure_seed=1");
    tiered_strategy_bound(k.strategy, 1, 1);
    k.base = kit_model(k.layout);
    k.run.base = k.base;
    k.rows[0] =
        (struct tiered_row){.contribution = {.size = sizeof(struct tiered_contribution),
                                             .node = "a",
                                             .num_examples = 1,
                                             .local_steps = NAN,
                                             .a_norm = NAN},
                            .read = kit_read,
                            .source = row};
    k.models[0] = row;
    k.run.n_rows = 1;
    struct tiered_model *out = kit_run(&k);
    double moved = 0;
    for (size_t i = 0; i < 500; i++) {
        moved += fabs(kit_value(out, 0, i) - kit_value(row, 0, i));
        assert_true(kit_value(out, 4, i) == kit_value(row, 4, i));
        assert_true(kit_value(out, 5, i) == kit_value(row, 5, i));
    }
    assert_true(moved > 500 * 50);
    tiered_model_unref(out);
    kit_finish(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_bounds_the_norm),
        cmocka_unit_test(clip_leaves_what_is_within),
        cmocka_unit_test(clip_refuses_what_has_no_norm),
        cmocka_unit_test(clip_follows_its_parent),
        cmocka_unit_test(clip_reads_no_other_header),
        cmocka_unit_test(clip_wants_one_kind_of_bound),
        cmocka_unit_test(noise_is_normal),
        cmocka_unit_test(noise_is_independent),
        cmocka_unit_test(noise_is_nobodys_seed),
        cmocka_unit_test(releases_are_counted),
        cmocka_unit_test(halves_stay_finite),
        cmocka_unit_test(central_mean_is_over_the_expected),
        cmocka_unit_test(central_noise_is_normal),
        cmocka_unit_test(noise_comes_before_optimizers),
        cmocka_unit_test(central_noise_wants_equal_shares),
        cmocka_unit_test(buffers_get_no_noise),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
