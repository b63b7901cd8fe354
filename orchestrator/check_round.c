/* SPDX-License-Identifier: Apache-2.0 */
/* Running made-up rounds through an aggregator's ops, as core/aggregate would. */
#include "orchestrator/check_round.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tiered/random.h"

static struct made_round empty_round(size_t n, size_t dim)
{
    struct made_round round = {.n = n, .dim = dim};
    round.rows = check_must(calloc(n * dim + 1, sizeof(double)));
    round.children = check_must(calloc(n + 1, sizeof(*round.children)));
    round.names = check_must(calloc(n + 1, sizeof(*round.names)));
    return round;
}

struct made_round made_round(size_t n, size_t dim, uint64_t seed)
{
    uint8_t key[32];
    struct tiered_rng rng;
    struct made_round round = empty_round(n, dim);
    tiered_seed(seed, "check", "", "", key);
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < n; i++) {
        snprintf(round.names[i], sizeof(round.names[i]), "child-%zu", i);
        round.children[i] = (struct tiered_contribution){
            .size = sizeof(round.children[i]),
            .node = round.names[i],
            .num_examples = 10 + tiered_rng_below(&rng, 100),
            .local_steps = (double)(1 + tiered_rng_below(&rng, 5)),
            .a_norm = NAN,
        };
    }
    for (size_t i = 0; i < n * dim; i++) {
        round.rows[i] = (double)(float)tiered_rng_normal(&rng);
    }
    return round;
}

struct made_round made_round_pick(const struct made_round *round, const size_t *order,
                                  size_t n)
{
    struct made_round picked = empty_round(n, round->dim);
    for (size_t i = 0; i < n; i++) {
        memcpy(picked.rows + i * round->dim, round->rows + order[i] * round->dim,
               round->dim * sizeof(double));
        memcpy(picked.names[i], round->names[order[i]], sizeof(picked.names[i]));
        picked.children[i] = round->children[order[i]];
        picked.children[i].node = picked.names[i];
    }
    return picked;
}

void made_round_finish(struct made_round *round)
{
    free(round->rows);
    free(round->children);
    free(round->names);
    *round = (struct made_round){0};
}

void made_result_finish(struct made_result *result)
{
    free(result->weights);
    free(result->out);
    *result = (struct made_result){0};
}

static double dot(const struct made_round *round, size_t i, size_t j)
{
    double sum = 0;
    if (round->children[i].excluded || round->children[j].excluded) {
        return i == j ? INFINITY : 0;
    }
    for (size_t k = 0; k < round->dim; k++) {
        sum += round->rows[i * round->dim + k] * round->rows[j * round->dim + k];
    }
    return sum;
}

static double distance(const struct made_round *round, size_t i, size_t j)
{
    double sum = 0;
    if (i != j && (round->children[i].excluded || round->children[j].excluded)) {
        return INFINITY;
    }
    for (size_t k = 0; k < round->dim; k++) {
        double d = round->rows[i * round->dim + k] - round->rows[j * round->dim + k];
        sum += d * d;
    }
    return sum;
}

/* What the plugin needs, read-only; the guard is empty where it needs nothing. */
static struct guard make_gram(const struct made_round *round, enum tiered_needs needs)
{
    size_t n = round->n;
    if (needs == TIERED_NEEDS_NOTHING) {
        return (struct guard){0};
    }
    size_t count = needs == TIERED_NEEDS_NORMS ? n : n * n;
    struct guard guard = guard_make("the Gram matrix", count * sizeof(double));
    double *gram = (double *)guard.data;
    for (size_t i = 0; i < n; i++) {
        if (needs == TIERED_NEEDS_NORMS) {
            gram[i] = dot(round, i, i);
            continue;
        }
        for (size_t j = 0; j < n; j++) {
            gram[i * n + j] = needs == TIERED_NEEDS_DISTANCES ? distance(round, i, j)
                                                              : dot(round, i, j);
        }
    }
    guard_freeze(&guard);
    return guard;
}

static int take_weights(const struct made_round *round, const double *got,
                        struct made_result *ret, struct tiered_error *err)
{
    ret->weights = check_must(calloc(round->n + 1, sizeof(double)));
    for (size_t i = 0; i < round->n; i++) {
        if (round->children[i].excluded) {
            continue; /* whatever it is, the host takes 0 */
        }
        if (!isfinite(got[i])) {
            return tiered_fail(err, TIERED_ERANGE,
                               "weigh gives child %zu of %zu the weight %g", i,
                               round->n, got[i]);
        }
        ret->weights[i] = got[i];
    }
    return 0;
}

/* A round as the plugin sees it. */
struct shown {
    const struct tiered_contribution **children;
    struct guard gram;
    struct tiered_round_view view;
};

static struct shown show(const struct made_round *round, enum tiered_needs needs)
{
    struct shown shown = {.children =
                              check_must(calloc(round->n + 1, sizeof(*shown.children))),
                          .gram = make_gram(round, needs)};
    for (size_t i = 0; i < round->n; i++) {
        shown.children[i] = &round->children[i];
    }
    shown.view = (struct tiered_round_view){.size = sizeof(shown.view),
                                            .n = round->n,
                                            .contributions = shown.children,
                                            .gram = (const double *)shown.gram.data};
    return shown;
}

static void hide(struct shown *shown)
{
    guard_free(&shown->gram);
    free(shown->children);
}

double made_local_steps(struct check *check, void *state,
                        const struct made_round *round)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct shown shown = show(round, ops->needs);
    check_step(check, "local_steps of %zu children", round->n);
    double steps = ops->local_steps(state, &shown.view);
    hide(&shown);
    return steps;
}

int made_round_weigh(struct check *check, void *state, const struct made_round *round,
                     struct made_result *ret, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct shown shown = show(round, ops->needs);
    struct guard weights = guard_make("ret_weights", round->n * sizeof(double));
    *ret = (struct made_result){0};
    check_step(check, "weigh of %zu children", round->n);
    int result = ops->weigh(state, &shown.view, (double *)weights.data, &ret->why);
    ret->refused = result < 0;
    result = ret->refused ? check_refusal("weigh", &ret->why, err)
                          : take_weights(round, (const double *)weights.data, ret, err);
    hide(&shown);
    guard_free(&weights);
    return result;
}

/* ---- columns ---- */

/* The active rows' elements, and the rows' own weights. */
struct active {
    size_t n_rows;
    struct guard values, weights;
    const void **rows;
};

static struct active make_active(const struct made_round *round, const double *weights,
                                 size_t from, size_t n, size_t element_bytes)
{
    struct active a = {.rows = check_must(calloc(round->n + 1, sizeof(void *)))};
    a.values = guard_make("the rows", round->n * n * element_bytes);
    a.weights = guard_make("weights", round->n * sizeof(double));
    for (size_t i = 0; i < round->n; i++) {
        a.n_rows += weights[i] != 0;
    }
    guard_fit(&a.values, a.n_rows * n * element_bytes);
    guard_fit(&a.weights, a.n_rows * sizeof(double));
    size_t row = 0;
    for (size_t i = 0; i < round->n; i++) {
        if (weights[i] == 0) {
            continue;
        }
        uint8_t *to = a.values.data + row * n * element_bytes;
        const double *values = round->rows + i * round->dim + from;
        for (size_t k = 0; k < n; k++) {
            float narrow = (float)values[k];
            memcpy(to + k * element_bytes,
                   element_bytes == sizeof(float) ? (const void *)&narrow : &values[k],
                   element_bytes);
        }
        a.rows[row] = to;
        ((double *)a.weights.data)[row++] = weights[i];
    }
    guard_freeze(&a.values);
    guard_freeze(&a.weights);
    return a;
}

static void finish_active(struct active *a)
{
    guard_free(&a->values);
    guard_free(&a->weights);
    free(a->rows);
}

int made_columns_f64(struct check *check, void *state, const struct made_round *round,
                     const double *weights, size_t from, size_t n, double *out,
                     struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct active a = make_active(round, weights, from, n, sizeof(double));
    struct guard guard = guard_make("out of columns_f64", n * sizeof(double));
    struct tiered_error why = {0};
    check_step(check, "columns_f64 of %zu rows of %zu values", a.n_rows, n);
    int result = ops->columns_f64(state, (const double *const *)a.rows,
                                  (const double *)a.weights.data, a.n_rows, n,
                                  (double *)guard.data, &why);
    memcpy(out, guard.data, n * sizeof(double));
    finish_active(&a);
    guard_free(&guard);
    return result < 0 ? check_call_failed("columns_f64", &why, err) : 0;
}

int made_columns_f32(struct check *check, void *state, const struct made_round *round,
                     const double *weights, size_t from, size_t n, float *out,
                     struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct active a = make_active(round, weights, from, n, sizeof(float));
    struct guard guard = guard_make("out of columns_f32", n * sizeof(float));
    struct tiered_error why = {0};
    check_step(check, "columns_f32 of %zu rows of %zu values", a.n_rows, n);
    int result = ops->columns_f32(state, (const float *const *)a.rows,
                                  (const double *)a.weights.data, a.n_rows, n,
                                  (float *)guard.data, &why);
    memcpy(out, guard.data, n * sizeof(float));
    finish_active(&a);
    guard_free(&guard);
    return result < 0 ? check_call_failed("columns_f32", &why, err) : 0;
}

/* ---- the whole ---- */

static int fold(struct check *check, void *state, const struct made_round *round,
                struct made_result *ret, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    bool any = false;
    ret->out = check_must(calloc(round->dim + 1, sizeof(double)));
    for (size_t i = 0; i < round->n; i++) {
        any = any || ret->weights[i] != 0;
        for (size_t k = 0; k < round->dim && !ops->columns_f64; k++) {
            ret->out[k] += ret->weights[i] * round->rows[i * round->dim + k];
        }
    }
    if (ops->columns_f64 && any &&
        made_columns_f64(check, state, round, ret->weights, 0, round->dim, ret->out,
                         err) < 0) {
        return -1;
    }
    for (size_t k = 0; k < round->dim; k++) {
        if (!isfinite(ret->out[k])) {
            return tiered_fail(err, TIERED_ERANGE,
                               "%zu finite rows make the value %g at element %zu",
                               round->n, ret->out[k], k);
        }
    }
    return 0;
}

int made_round_run(struct check *check, void *state, const struct made_round *round,
                   struct made_result *ret, struct tiered_error *err)
{
    if (made_round_weigh(check, state, round, ret, err) < 0) {
        return -1;
    }
    return ret->refused ? 0 : fold(check, state, round, ret, err);
}
