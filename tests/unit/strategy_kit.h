/* SPDX-License-Identifier: Apache-2.0 */
/* Fixtures for strategies: models of numbers, rows over them, one call to run. */
#ifndef TIERED_TEST_STRATEGY_KIT_H
#define TIERED_TEST_STRATEGY_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "core/aggregate/strategy.h"
#include "core/model/numeric.h"

#define KIT_MAX_ROWS 200

/* One tensor "w" of n values. */
static inline struct tiered_layout *kit_layout(enum tiered_dtype dtype, uint64_t n)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    assert_int_equal(
        tiered_layout_add(b, "w", dtype, tiered_role_default(dtype), 1, &n, &err), 0);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

static inline struct tiered_model *kit_model(struct tiered_layout *layout)
{
    struct tiered_error err = {0};
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    return model;
}

/* Values of all tensors, in order. */
static inline void kit_fill(struct tiered_model *model, const double *values)
{
    for (uint32_t i = 0; i < model->layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &model->layout->m.tensors[i];
        tiered_from_f64(t->dtype, values, (size_t)t->n_elements,
                        model->data + t->offset_bytes);
        values += t->n_elements;
    }
}

static inline double kit_value(const struct tiered_model *model, uint32_t tensor,
                               size_t element)
{
    const struct tiered_tensor *t = &model->layout->m.tensors[tensor];
    double value;
    tiered_to_f64(t->dtype,
                  model->data + t->offset_bytes + element * tiered_dtype_size(t->dtype),
                  1, &value);
    return value;
}

struct kit {
    struct tiered_plugins *plugins;
    struct tiered_hosting hosting;
    struct tiered_strategy *strategy;
    struct tiered_layout *layout;
    struct tiered_model *base;
    struct tiered_model *models[KIT_MAX_ROWS];
    struct tiered_row rows[KIT_MAX_ROWS];
    struct tiered_strategy_run run;
    struct tiered_error err;
};

static inline int kit_read(void *source, uint32_t block, void *out,
                           struct tiered_error *err)
{
    (void)err;
    const struct tiered_model *model = source;
    const struct tiered_block *b = &model->layout->blocks[block];
    memcpy(out, model->data + b->offset_bytes, (size_t)b->size_bytes);
    return 0;
}

static inline void kit_init(struct kit *k, struct tiered_layout *layout)
{
    memset(k, 0, sizeof(*k));
    k->layout = layout;
    k->run.layout = layout;
    k->run.rows = k->rows;
    tiered_hosting_init(&k->hosting, 1, "test", NULL, NULL, NULL);
}

/* Rules are "NAME" or "NAME:key=value,…". Returns what creation returned. */
static inline int kit_begin(struct kit *k, struct tiered_layout *layout,
                            const char *const *rules, size_t n_rules)
{
    kit_init(k, layout);
    k->plugins = tiered_plugins_create(NULL, &k->err);
    assert_non_null(k->plugins);
    struct tiered_use uses[4];
    char *options[4] = {NULL};
    for (size_t i = 0; i < n_rules; i++) {
        char name[32] = "";
        size_t length = strcspn(rules[i], ":");
        memcpy(name, rules[i], length);
        if (rules[i][length]) {
            options[i] = tiered_options_parse(rules[i] + length + 1, &k->err);
            assert_non_null(options[i]);
        }
        uses[i].options_json = options[i];
        assert_int_equal(
            tiered_plugins_get(k->plugins, name, 0, &uses[i].loaded, &k->err), 0);
    }
    int rc = tiered_strategy_create(uses, n_rules, &k->hosting, &k->strategy, &k->err);
    for (size_t i = 0; i < n_rules; i++) {
        free(options[i]);
    }
    return rc;
}

static inline void kit_row(struct kit *k, const double *values, uint64_t num_examples)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    size_t i = k->run.n_rows++;
    assert_true(i < KIT_MAX_ROWS);
    k->models[i] = kit_model(k->layout);
    kit_fill(k->models[i], values);
    k->rows[i] = (struct tiered_row){
        .contribution = {.size = sizeof(struct tiered_contribution),
                         .node = names[i % 8],
                         .num_examples = num_examples,
                         .local_steps = NAN,
                         .a_norm = NAN},
        .read = kit_read,
        .source = k->models[i],
    };
}

static inline void kit_base(struct kit *k, const double *values)
{
    if (!k->base) {
        k->base = kit_model(k->layout);
    }
    kit_fill(k->base, values);
    k->run.base = k->base;
}

static inline struct tiered_model *kit_run(struct kit *k)
{
    struct tiered_model *model = NULL;
    if (tiered_strategy_run(k->strategy, &k->run, &model, &k->err) != 0) {
        fail_msg("%s", k->err.text);
    }
    return model;
}

static inline const char *kit_refusal(struct kit *k, enum tiered_code code)
{
    struct tiered_model *model = NULL;
    memset(&k->err, 0, sizeof(k->err));
    assert_int_equal(tiered_strategy_run(k->strategy, &k->run, &model, &k->err), -1);
    assert_null(model);
    assert_int_equal(k->err.code, code);
    return k->err.text;
}

static inline void kit_finish(struct kit *k)
{
    for (size_t i = 0; i < k->run.n_rows; i++) {
        tiered_model_unref(k->models[i]);
    }
    tiered_model_unref(k->base);
    tiered_strategy_destroy(k->strategy);
    tiered_plugins_destroy(k->plugins);
    tiered_layout_unref(k->layout);
}

static inline int kit_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Is it N(0, deviation^2)? Mean within 4 standard errors, variance within 3, and the
   largest distance from the distribution below Kolmogorov and Smirnov's 1 % point. */
static inline void kit_check_normal(double *values, size_t n, double deviation)
{
    double sum = 0, squares = 0, distance = 0;
    qsort(values, n, sizeof(*values), kit_compare);
    for (size_t i = 0; i < n; i++) {
        double below = 0.5 * erfc(-values[i] / (deviation * sqrt(2)));
        sum += values[i];
        squares += values[i] * values[i];
        distance = fmax(distance, fabs(below - (double)i / (double)n));
        distance = fmax(distance, fabs(below - (double)(i + 1) / (double)n));
    }
    double variance = squares / (double)n, exact = deviation * deviation;
    assert_true(fabs(sum / (double)n) < 4 * deviation / sqrt((double)n));
    assert_true(fabs(variance - exact) < 3 * exact * sqrt(2.0 / (double)n));
    assert_true(distance < 1.63 / sqrt((double)n));
}

#define ROW(k, examples, ...) kit_row(k, (const double[]){__VA_ARGS__}, examples)
#define BASE(k, ...)          kit_base(k, (const double[]){__VA_ARGS__})
#define BEGIN(k, layout, ...)                                                          \
    do {                                                                               \
        const char *const rules_[] = {__VA_ARGS__};                                    \
        if (kit_begin(k, layout, rules_, TIERED_COUNT(rules_)) != 0) {                 \
            fail_msg("%s", (k)->err.text);                                             \
        }                                                                              \
    } while (0)
/* Run and compare the values of all tensors within `tolerance`. */
#define EXPECT(k, tolerance, ...)                                                      \
    do {                                                                               \
        const double want_[] = {__VA_ARGS__};                                          \
        struct tiered_model *got_ = kit_run(k);                                        \
        kit_expect(got_, want_, TIERED_COUNT(want_), tolerance);                       \
        tiered_model_unref(got_);                                                      \
    } while (0)

static inline void kit_expect(const struct tiered_model *model, const double *want,
                              size_t n, double tolerance)
{
    size_t at = 0;
    for (uint32_t t = 0; t < model->layout->m.n_tensors; t++) {
        for (size_t e = 0; e < model->layout->m.tensors[t].n_elements; e++, at++) {
            double got = kit_value(model, t, e);
            if (!(fabs(got - want[at]) <= tolerance)) {
                fail_msg("value %zu is %.17g, not %.17g", at, got, want[at]);
            }
        }
    }
    assert_int_equal(at, n);
}

/* -------- one child alone, and copies of it -------- */

static const enum tiered_dtype kit_dtypes[] = {TIERED_F32,  TIERED_F64, TIERED_F16,
                                               TIERED_BF16, TIERED_I8,  TIERED_I64};

/* One child comes back bit for bit, and so do copies of it but for rounding. */
static inline void kit_identity(const char *rule, enum tiered_dtype dtype,
                                size_t copies, bool with_base)
{
    const double values[] = {-0.0, 0, 1e-3, -7, 100, 1.0 / 3};
    struct kit k;
    BEGIN(&k, kit_layout(dtype, 6), rule);
    if (with_base) {
        BASE(&k, 1, 2, 3, 4, 5, 6);
    }
    for (size_t i = 0; i < copies; i++) {
        kit_row(&k, values, 5);
        k.rows[i].contribution.local_steps = 3;
    }
    struct tiered_model *model = kit_run(&k);
    for (size_t v = 0; v < TIERED_COUNT(values); v++) {
        assert_true(fabs(kit_value(model, 0, v) - kit_value(k.models[0], 0, v)) <=
                    1e-13);
    }
    if (copies == 1) {
        assert_memory_equal(model->data, k.models[0]->data, k.layout->m.data_bytes);
    }
    tiered_model_unref(model);
    kit_finish(&k);
}

/* -------- an aggregator of the test's own -------- */

static inline int kit_probe_init(const struct tiered_host *host, const void *config,
                                 void **ret_state, struct tiered_error *err)
{
    (void)host, (void)config, (void)err;
    *ret_state = NULL;
    return 0;
}

static inline void kit_probe_destroy(void *state)
{
    (void)state;
}

/* The strategy is the aggregator 'probe': these ops, and a life without a state. */
static inline void kit_probe(struct kit *k, struct tiered_layout *layout,
                             const struct tiered_aggregator_ops *probe)
{
    static struct tiered_aggregator_ops ops;
    static struct tiered_loaded loaded;
    ops = *probe;
    ops.size = sizeof(ops);
    ops.init = kit_probe_init;
    ops.destroy = kit_probe_destroy;
    loaded.plugin = (struct tiered_plugin){.abi_version = TIERED_ABI_VERSION,
                                           .struct_size = sizeof(loaded.plugin),
                                           .kind = TIERED_AGGREGATOR,
                                           .name = "probe",
                                           .version = "1",
                                           .summary = "sees all",
                                           .ops = &ops};
    struct tiered_use use = {&loaded, NULL};
    kit_init(k, layout);
    assert_int_equal(
        tiered_strategy_create(&use, 1, &k->hosting, &k->strategy, &k->err), 0);
}

#endif
