/* SPDX-License-Identifier: Apache-2.0 */
/* The server optimizers: steps worked by hand, schedules, saved state, what is never
   stepped, and numbers that do not fit. */
#include "strategy_kit.h"

#include <unistd.h>

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

static const char *const optimizers[] = {"fedavgm:momentum=0.9", "fedadagrad",
                                         "fedadam", "fedyogi"};

/* -------- steps -------- */

/* One value that starts at 1 and is given the deltas; after each its new value. */
static void follow(const char *rule, const double *deltas, const double *want, size_t n)
{
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fedavg", rule);
    BASE(&k, 1);
    ROW(&k, 1, 0);
    k.run.rows_are_deltas = true;
    for (size_t i = 0; i < n; i++) {
        kit_fill(k.models[0], &deltas[i]);
        struct tiered_model *model = kit_run(&k);
        double got = kit_value(model, 0, 0);
        if (!(fabs(got - want[i]) <= 1e-14)) {
            fail_msg("%s, step %zu: %.17g, not %.17g", rule, i + 1, got, want[i]);
        }
        kit_fill(k.base, &got);
        tiered_model_unref(model);
    }
    kit_finish(&k);
}

/* The x after each of the three steps. */
static void three(const char *rule, double first, double second, double third)
{
    const double deltas[] = {1, 2, -1};
    const double want[] = {1 + first, 1 + first + second, 1 + first + second + third};
    follow(rule, deltas, want, 3);
}

/* v = 1, 2.5, 0.25 */
static void test_fedavgm(void **state)
{
    (void)state;
    three("fedavgm:lr=0.5,momentum=0.5", 0.5, 1.25, 0.125);
    three("fedavgm:momentum=0.5", 1, 2.5, 0.25);
    three("fedavgm", 1, 2, -1); /* is fedavg */
}

/* v = 1 + 1, + 4, + 1; m = D, or 0.5, 1.25, 0.125 */
static void test_fedadagrad(void **state)
{
    (void)state;
    three("fedadagrad:lr=0.5,tau=1", 0.5 / (sqrt(2) + 1), 1 / (sqrt(6) + 1),
          -0.5 / (sqrt(7) + 1));
    three("fedadagrad:lr=1,beta1=0.5,tau=1", 0.5 / (sqrt(2) + 1), 1.25 / (sqrt(6) + 1),
          0.125 / (sqrt(7) + 1));
}

/* From v = 1: 0.5 + 0.5, 0.5 + 2, 1.25 + 0.5. From v = 0: 0.5, 2.25, 1.625, and the
   rate is 1 / sqrt(1 - 0.5^t), as both betas are 0.5. */
static void test_fedadam(void **state)
{
    (void)state;
    three("fedadam:lr=1,beta1=0.5,beta2=0.5,tau=1", 0.5 / 2, 1.25 / (sqrt(2.5) + 1),
          0.125 / (sqrt(1.75) + 1));
    three("fedadam:lr=1,beta1=0.5,beta2=0.5,tau=1,bias_correction=adam",
          0.5 / (sqrt(0.5) + 1) / sqrt(0.5), 1.25 / 2.5 / sqrt(0.75),
          0.125 / (sqrt(1.625) + 1) / sqrt(0.875));
    three("fedadam:lr=1,beta1=0.5,beta2=0.5,tau=1,bias_correction=flower",
          0.5 / (sqrt(0.5) + 1) / sqrt(0.75), 1.25 / 2.5 / sqrt(0.875),
          0.125 / (sqrt(1.625) + 1) / sqrt(0.9375));
}

/* v = 1 stays, as D^2 is v and the sign of 0 is 0; then 1 + 2; then 3 - 0.5. */
static void test_fedyogi(void **state)
{
    (void)state;
    three("fedyogi:lr=1,beta1=0.5,beta2=0.5,tau=1", 0.5 / 2, 1.25 / (sqrt(3) + 1),
          0.125 / (sqrt(2.5) + 1));
}

/* The first step with the defaults: each rule's m over sqrt(v) + tau. */
static void test_defaults(void **state)
{
    (void)state;
    const double one = 1;
    const double want[] = {1 + 1, 1 + 0.1 / (sqrt(1 + 1e-6) + 1e-3),
                           1 + 0.1 * 0.1 / (sqrt(0.01 + 0.99e-6) + 1e-3),
                           1 + 0.01 * 0.1 / (sqrt(0.01 + 1e-6) + 1e-3)};
    for (size_t i = 0; i < TIERED_COUNT(optimizers); i++) {
        follow(optimizers[i], &one, &want[i], 1);
    }
}

static void test_zero_delta(void **state)
{
    (void)state;
    const double zeros[3] = {0}, ones[3] = {1, 1, 1};
    for (size_t i = 0; i < TIERED_COUNT(optimizers); i++) {
        follow(optimizers[i], zeros, ones, 3);
    }
    follow("fedadam:bias_correction=adam", zeros, ones, 3);
    follow("fedadam:bias_correction=flower", zeros, ones, 3);
}

static void test_wrong_options(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"fedadam:tau=0", "'tau' must be a number in (0, 1000000000], not '0'"},
        {"fedyogi:tau=-1", "'tau' must be a number in (0, 1000000000], not '-1'"},
        {"fedadagrad:tau=0", "'tau' must be a number in (0, 1000000000], not '0'"},
        {"fedadagrad:beta2=0.9", "unknown option 'beta2'"},
        {"fedavgm:momentum=1", "'momentum' must be a number in [0, 1), not '1'"},
        {"fedavgm:lr=0", "'lr' must be a number above 0, not '0'"},
        {"fedyogi:bias_correction=adam", "unknown option 'bias_correction'"},
        {"fedyogi:warmup=-1", "'warmup' must be an integer in [0, 1000000000]"},
        {"fedavgm:schedule=linear",
         "'schedule' must be one of constant, step, exponential, cosine"},
        {"fedavgm:schedule=cosine", "'schedule.cosine.rounds' of optimizer 'fedavgm' "
                                    "is required"},
        {"fedavgm:schedule.step.every=0", "'schedule.step.every' must be an integer"},
        {"fedavgm:schedule.exponential.factor=0",
         "'schedule.exponential.factor' must be a number in (0, 1], not '0'"},
    };
    for (size_t i = 0; i < TIERED_COUNT(wrong); i++) {
        struct kit k;
        const char *const rules[] = {"fedavg", wrong[i][0]};
        assert_int_equal(kit_begin(&k, kit_layout(TIERED_F32, 1), rules, 2), -1);
        if (!strstr(k.err.text, wrong[i][1])) {
            fail_msg("%s: %s", wrong[i][0], k.err.text);
        }
        kit_finish(&k);
    }
}

/* -------- schedules -------- */

/* The rates of the first eight steps: what plain momentum 0 makes of deltas of 1. */
static void rates(const char *options, const double want[8])
{
    static const double ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    double x[8];
    char rule[96];
    snprintf(rule, sizeof(rule), "fedavgm:lr=2,%s", options);
    for (size_t i = 0; i < 8; i++) {
        x[i] = (i ? x[i - 1] : 1) + 2 * want[i];
    }
    follow(rule, ones, x, 8);
}

static void test_schedules(void **state)
{
    (void)state;
    rates("schedule=constant", (const double[8]){1, 1, 1, 1, 1, 1, 1, 1});
    rates("schedule.step.every=3,schedule.step.factor=0.5",
          (const double[8]){1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25});
    rates("schedule.step.every=5", (const double[8]){1, 1, 1, 1, 1, 0.1, 0.1, 0.1});
    rates(
        "schedule.exponential.factor=0.5",
        (const double[8]){1, 0.5, 0.25, 0.125, 0.0625, 1 / 32.0, 1 / 64.0, 1 / 128.0});
    /* cos of 0, 45, 90, 135, 180 degrees */
    const double r = sqrt(0.5);
    rates("schedule.cosine.rounds=4",
          (const double[8]){1, (1 + r) / 2, 0.5, (1 - r) / 2, 0, 0, 0, 0});
    rates("schedule.cosine.rounds=4,schedule.cosine.min_factor=0.2",
          (const double[8]){1, 0.2 + 0.4 * (1 + r), 0.6, 0.2 + 0.4 * (1 - r), 0.2, 0.2,
                            0.2, 0.2});
}

/* The schedule begins after the warm-up. */
static void test_warmup(void **state)
{
    (void)state;
    rates("warmup=3", (const double[8]){0.25, 0.5, 0.75, 1, 1, 1, 1, 1});
    rates("warmup=1,schedule.exponential.factor=0.5",
          (const double[8]){0.5, 1, 0.5, 0.25, 0.125, 1 / 16.0, 1 / 32.0, 1 / 64.0});
    rates("warmup=2,schedule.cosine.rounds=2",
          (const double[8]){1 / 3.0, 2 / 3.0, 1, 0.5, 0, 0, 0, 0});
}

/* Against cos() all the way: the largest error is of rounding. */
static void test_cosine_is_exact(void **state)
{
    (void)state;
    enum { N = 1000 };
    static double ones[N], x[N];
    for (size_t i = 0; i < N; i++) {
        double rate = (1 + cos(3.14159265358979323846 * (double)i / N)) / 2;
        ones[i] = 1e-3;
        x[i] = (i ? x[i - 1] : 1) + 1e-3 * rate;
    }
    follow("fedavgm:schedule.cosine.rounds=1000", ones, x, N);
}

static void test_every_optimizer_has_a_schedule(void **state)
{
    (void)state;
    const double one = 1;
    const double want[] = {1 + 1, 1 + 0.1 / (sqrt(1 + 1e-6) + 1e-3),
                           1 + 0.1 * 0.1 / (sqrt(0.01 + 0.99e-6) + 1e-3),
                           1 + 0.01 * 0.1 / (sqrt(0.01 + 1e-6) + 1e-3)};
    static const char *const rules[] = {"fedavgm:warmup=3", "fedadagrad:warmup=3",
                                        "fedadam:warmup=3", "fedyogi:warmup=3"};
    for (size_t i = 0; i < TIERED_COUNT(rules); i++) {
        const double quarter = 1 + (want[i] - 1) / 4;
        follow(rules[i], &one, &quarter, 1);
    }
}

/* -------- state -------- */

#define N_VALUES 5000u /* more than a chunk */

static struct tiered_layout *mixed_layout(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t many = N_VALUES, two = 2, none = 0;
    tiered_layout_add(b, "a", TIERED_F32, TIERED_PARAMETER, 1, &many, &err);
    tiered_layout_add(b, "mean", TIERED_F32, TIERED_BUFFER, 1, &two, &err);
    tiered_layout_add(b, "b", TIERED_F64, TIERED_PARAMETER, 0, NULL, &err);
    tiered_layout_add(b, "c", TIERED_BF16, TIERED_PARAMETER, 1, &two, &err);
    tiered_layout_add(b, "none", TIERED_F32, TIERED_PARAMETER, 1, &none, &err);
    tiered_layout_add(b, "count", TIERED_I64, TIERED_BUFFER, 1, &two, &err);
    tiered_layout_add(b, "index", TIERED_I32, TIERED_PARAMETER, 1, &two, &err);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

#define N_MIXED (N_VALUES + 9)

static void mixed_values(double out[N_MIXED], size_t step)
{
    for (size_t v = 0; v < N_MIXED; v++) {
        out[v] = (double)((v * 7 + step * 31) % 101) / 16 - 3;
    }
}

/* Six steps in deltas; `restart` bit s: the process ends after step s + 1. */
static struct tiered_model *six_steps(const char *rule, unsigned restart)
{
    static double values[N_MIXED];
    struct tiered_model *model = NULL;
    struct kit k;
    for (size_t s = 0; s < 6; s++) {
        if (s == 0 || (restart >> (s - 1) & 1)) {
            BEGIN(&k, mixed_layout(), "fedavg", rule);
            if (s > 0) {
                assert_int_equal(
                    tiered_strategy_load(k.strategy, path, k.layout, &k.err), 0);
            }
            mixed_values(values, 0);
            kit_base(&k, values);
            kit_row(&k, values, 3);
            k.run.rows_are_deltas = true;
        }
        if (model) {
            memcpy(k.base->data, model->data, k.layout->m.data_bytes);
            tiered_model_unref(model);
        }
        mixed_values(values, s);
        kit_fill(k.models[0], values);
        model = kit_run(&k);
        if (s == 5 || (restart >> s & 1)) {
            assert_int_equal(tiered_strategy_save(k.strategy, path, &k.err), 0);
            kit_finish(&k);
        }
    }
    return model;
}

static const char *const scheduled[] = {
    "fedavgm:momentum=0.9,warmup=2",
    "fedadagrad:beta1=0.5,schedule.step.every=2,schedule.step.factor=0.5",
    "fedadam:bias_correction=flower,schedule.exponential.factor=0.9",
    "fedadam:schedule.cosine.rounds=5",
    "fedyogi:warmup=1,schedule.cosine.rounds=4,schedule.cosine.min_factor=0.1",
};

static void test_restart_is_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < TIERED_COUNT(scheduled); i++) {
        struct tiered_model *straight = six_steps(scheduled[i], 0);
        for (unsigned restart = 1; restart < 32; restart += 3) {
            struct tiered_model *model = six_steps(scheduled[i], restart);
            assert_memory_equal(model->data, straight->data,
                                straight->layout->m.data_bytes);
            tiered_model_unref(model);
        }
        tiered_model_unref(straight);
    }
}

/* Running statistics and integers, of whatever role, take the aggregated value. */
static void test_only_float_parameters_step(void **state)
{
    (void)state;
    for (size_t i = 0; i < TIERED_COUNT(scheduled); i++) {
        struct kit plain, stepped;
        double values[N_MIXED];
        BEGIN(&plain, mixed_layout(), "fedavg");
        BEGIN(&stepped, mixed_layout(), "fedavg", scheduled[i]);
        for (size_t r = 0; r < 3; r++) {
            mixed_values(values, r);
            kit_row(&plain, values, r + 1);
            kit_row(&stepped, values, r + 1);
        }
        mixed_values(values, 9);
        kit_base(&plain, values);
        kit_base(&stepped, values);
        struct tiered_model *want = kit_run(&plain), *got = kit_run(&stepped);
        for (uint32_t t = 0; t < want->layout->m.n_tensors; t++) {
            const struct tiered_tensor *tensor = &want->layout->m.tensors[t];
            bool steps = tensor->role == TIERED_PARAMETER &&
                         tiered_dtype_is_float(tensor->dtype) && tensor->n_elements;
            assert_int_equal(memcmp(want->data + tensor->offset_bytes,
                                    got->data + tensor->offset_bytes,
                                    tensor->size_bytes) != 0,
                             steps);
        }
        tiered_model_unref(want);
        tiered_model_unref(got);
        kit_finish(&plain);
        kit_finish(&stepped);
    }
}

/* -------- numbers that do not fit -------- */

static void refused(const char *rule, enum tiered_dtype dtype, double base,
                    double delta, const char *want)
{
    struct kit k;
    const char *const rules[] = {"fedavg", rule};
    assert_int_equal(kit_begin(&k, kit_layout(dtype, 3), rules, rule ? 2 : 1), 0);
    BASE(&k, 1, 1, base);
    ROW(&k, 1, 0, 0, delta);
    k.run.rows_are_deltas = true;
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE), want);
    kit_finish(&k);
}

static void test_results_that_do_not_fit(void **state)
{
    (void)state;
    const char *infinite = "tensor 'w' would be infinite at index 2";
    refused(NULL, TIERED_F32, 3e38, 3e38, infinite);
    refused(NULL, TIERED_F16, 60000, 60000, infinite);
    refused("fedavgm:lr=1e300", TIERED_F64, 1, 1e100, infinite);
    refused("fedavgm:lr=1e30", TIERED_F32, 1, 1e30, infinite);
    refused("fedadam", TIERED_F32, 1, 1e30,
            "optimizer 'fedadam': its v of tensor 'w' would be infinite at index 2");
    refused("fedyogi", TIERED_F64, 1, 1e200,
            "optimizer 'fedyogi': its v of tensor 'w' would be infinite at index 2");
    refused("fedadagrad", TIERED_BF16, 1, 1e30,
            "optimizer 'fedadagrad': its v of tensor 'w' would be infinite at index 2");
}

/* The first in tensor order is told whatever the number of threads; no step is taken;
   and allow lets even that through. */
static void test_what_is_told_and_kept(void **state)
{
    (void)state;
    struct kit k;
    double *values = calloc(1000000, sizeof(double)); /* four blocks */
    assert_non_null(values);
    BEGIN(&k, kit_layout(TIERED_F32, 1000000), "fedavg", "fedavgm:momentum=0.5");
    kit_base(&k, values);
    values[300001] = values[300002] = values[999999] = 3e38;
    kit_row(&k, values, 1);
    k.run.rows_are_deltas = true;
    assert_int_equal(tiered_pool_create(3, &k.run.pool, &k.err), 0);
    tiered_model_unref(kit_run(&k)); /* v = 3e38 fits */
    memcpy(k.base->data, k.models[0]->data, k.layout->m.data_bytes);
    for (int i = 0; i < 10; i++) { /* v would be 4.5e38, the model too: as before */
        assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                            "optimizer 'fedavgm': its v of tensor 'w' would be "
                            "infinite at index 300001");
    }
    memset(values, 0, 1000000 * sizeof(double));
    kit_fill(k.base, values);
    kit_fill(k.models[0], values);
    struct tiered_model *model = kit_run(&k); /* v is half of what it was */
    assert_true(kit_value(model, 0, 300001) == (double)1.5e38f);
    assert_true(kit_value(model, 0, 5) == 0);
    tiered_model_unref(model);
    tiered_pool_destroy(k.run.pool);
    free(values);
    kit_finish(&k);

    BEGIN(&k, kit_layout(TIERED_F32, 1), "fedavg");
    BASE(&k, 3e38);
    ROW(&k, 1, 3e38);
    k.run.rows_are_deltas = true;
    k.run.allow_bad = true;
    model = kit_run(&k);
    assert_true(isinf(kit_value(model, 0, 0)));
    tiered_model_unref(model);
    kit_finish(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fedavgm),
        cmocka_unit_test(test_fedadagrad),
        cmocka_unit_test(test_fedadam),
        cmocka_unit_test(test_fedyogi),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_zero_delta),
        cmocka_unit_test(test_wrong_options),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_cosine_is_exact),
        cmocka_unit_test(test_every_optimizer_has_a_schedule),
        cmocka_unit_test_setup_teardown(test_restart_is_the_same_bits, make_folder,
                                        drop_folder),
        cmocka_unit_test(test_only_float_parameters_step),
        cmocka_unit_test(test_results_that_do_not_fit),
        cmocka_unit_test(test_what_is_told_and_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
