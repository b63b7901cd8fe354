/* SPDX-License-Identifier: Apache-2.0 */
/* What columns must do: follow a shift, agree in both precisions, not care how the host
   cuts a model into pieces or on which thread a piece is made. And blobs. */
#include "orchestrator/check_aggregator.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/model/model.h"

#define DIM       1000
#define N_THREADS 4
#define N_TURNS   50

struct columns {
    struct made_round round;
    struct made_result result;
};

/* An ordinary round, for the body; skipped where the host makes the sum. */
static int with_columns(struct check *check,
                        int (*body)(struct check *, void *, struct columns *,
                                    struct tiered_error *),
                        struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct columns columns;
    void *state;
    if (!ops->columns_f64) {
        return check_skip(check, "has no columns: the host makes the sum");
    }
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    int result =
        check_ordinary_round(check, state, DIM, &columns.round, &columns.result, err);
    if (result == 0) {
        result = body(check, state, &columns, err);
        made_round_finish(&columns.round);
        made_result_finish(&columns.result);
    }
    check_close(check, state);
    return result;
}

/* Rows are parameters or deltas, and the rule must not depend on which. */
static int translation(struct check *check, void *state, struct columns *c,
                       struct tiered_error *err)
{
    double out[DIM];
    const double shift = 3.5;
    for (size_t i = 0; i < c->round.n * DIM; i++) {
        c->round.rows[i] += shift;
    }
    if (made_columns_f64(check, state, &c->round, c->result.weights, 0, DIM, out, err) <
        0) {
        return -1;
    }
    for (size_t k = 0; k < DIM; k++) {
        out[k] -= shift;
    }
    return check_same(c->result.out, out, DIM, 1e-12,
                      "3.5 added to every row does not add 3.5 to the result", err);
}

static int precisions(struct check *check, void *state, struct columns *c,
                      struct tiered_error *err)
{
    float narrow[DIM];
    double out[DIM];
    if (made_columns_f32(check, state, &c->round, c->result.weights, 0, DIM, narrow,
                         err) < 0) {
        return -1;
    }
    for (size_t k = 0; k < DIM; k++) {
        out[k] = (double)narrow[k];
    }
    return check_same(c->result.out, out, DIM, 4 * FLT_EPSILON,
                      "columns_f32 and columns_f64 differ", err);
}

/* The host cuts where memory says. */
static int pieces(struct check *check, void *state, struct columns *c,
                  struct tiered_error *err)
{
    static const size_t sizes[] = {1, 2, 3, 7, 64, 100, 0, 129};
    double out[DIM];
    size_t from = 0;
    for (size_t i = 0; from < DIM; i++) {
        size_t n = sizes[i % TIERED_COUNT(sizes)];
        n = n < DIM - from ? n : DIM - from;
        if (made_columns_f64(check, state, &c->round, c->result.weights, from, n,
                             out + from, err) < 0) {
            return -1;
        }
        from += n;
    }
    for (size_t k = 0; k < DIM; k++) {
        if (!check_same_bits(&out[k], &c->result.out[k], sizeof(double))) {
            return tiered_fail(err, TIERED_EINVAL,
                               "element %zu depends on the elements it is called with "
                               "(%.9g or %.9g)",
                               k, out[k], c->result.out[k]);
        }
    }
    return 0;
}

/* The largest and the smallest values, of both signs, and zeros. */
static void fill_extremes(struct made_round *round, double most, double least)
{
    const double values[] = {most, -most, least, -least, 0, -0.0, most / 2, 1};
    for (size_t k = 0; k < round->dim; k++) {
        for (size_t i = 0; i < round->n; i++) {
            size_t which = k < 3 ? k : (i * 5 + k * 3 + i * k) % TIERED_COUNT(values);
            round->rows[i * round->dim + k] = values[which];
        }
    }
}

static int extremes(struct check *check, void *state, struct columns *c,
                    struct tiered_error *err)
{
    double out[DIM];
    float narrow[DIM];
    fill_extremes(&c->round, (double)FLT_MAX, (double)FLT_TRUE_MIN);
    if (made_columns_f32(check, state, &c->round, c->result.weights, 0, DIM, narrow,
                         err) < 0) {
        return -1;
    }
    fill_extremes(&c->round, 1e300, DBL_TRUE_MIN); /* room for the sum of a round */
    if (made_columns_f64(check, state, &c->round, c->result.weights, 0, DIM, out, err) <
        0) {
        return -1;
    }
    for (size_t k = 0; k < DIM; k++) {
        if (!isfinite(out[k]) || !isfinite((double)narrow[k])) {
            return tiered_fail(err, TIERED_ERANGE, "finite rows up to %s make %g",
                               isfinite(out[k]) ? "3.4e38 (f32)" : "1e300 (f64)",
                               isfinite(out[k]) ? (double)narrow[k] : out[k]);
        }
    }
    return 0;
}

/* ---- threads ---- */

struct crowd {
    const struct tiered_aggregator_ops *ops;
    void *state;
    const struct columns *columns;
    const double *rows[100];
    double weights[100];
    size_t n_rows;
};

static bool make_again(void *user, size_t thread)
{
    const struct crowd *crowd = user;
    const double *rows[100];
    double out[DIM];
    bool same = true;
    for (size_t turn = 0; turn < N_TURNS && same; turn++) {
        size_t from = (thread * 97 + turn * 13) % (DIM - 100), n = 100;
        for (size_t i = 0; i < crowd->n_rows; i++) {
            rows[i] = crowd->rows[i] + from;
        }
        same =
            crowd->ops->columns_f64(crowd->state, rows, crowd->weights, crowd->n_rows,
                                    n, out, NULL) == 0 &&
            check_same_bits(out, crowd->columns->result.out + from, n * sizeof(double));
    }
    return same;
}

static int threads(struct check *check, void *state, struct columns *c,
                   struct tiered_error *err)
{
    struct crowd crowd = {
        .ops = check->loaded.plugin.ops, .state = state, .columns = c};
    for (size_t i = 0; i < c->round.n; i++) {
        if (c->result.weights[i] != 0) {
            crowd.weights[crowd.n_rows] = c->result.weights[i];
            crowd.rows[crowd.n_rows++] = c->round.rows + i * DIM;
        }
    }
    check_step(check, "columns_f64 on %d threads", N_THREADS);
    return check_threads(N_THREADS, make_again, &crowd)
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "is TIERED_CONCURRENT, but several threads at once make "
                             "other values than one");
}

int check_moved_columns(struct check *check, struct tiered_error *err)
{
    return with_columns(check, translation, err);
}

int check_precisions(struct check *check, struct tiered_error *err)
{
    return with_columns(check, precisions, err);
}

int check_pieces(struct check *check, struct tiered_error *err)
{
    return with_columns(check, pieces, err);
}

/* Columns get the values; weigh sees their squares. */
static int extreme_norms(struct check *check, void *state, struct tiered_error *err)
{
    const double magnitudes[] = {0, 1e-160, 1e150};
    for (size_t i = 0; i < TIERED_COUNT(magnitudes); i++) {
        struct made_round round = made_round(7, 20, 4);
        struct made_result result;
        for (size_t k = 0; k < round.n * round.dim; k++) {
            round.rows[k] *= magnitudes[i];
        }
        int failed = made_round_weigh(check, state, &round, &result, err);
        made_round_finish(&round);
        made_result_finish(&result);
        if (failed < 0) {
            return tiered_error_prefix(err, "deltas of about %g: ", magnitudes[i]);
        }
    }
    return 0;
}

int check_extremes(struct check *check, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    if (check_with_state(check, extreme_norms, err) < 0) {
        return -1;
    }
    return ops->columns_f64 ? with_columns(check, extremes, err) : 0;
}

int check_columns_threads(struct check *check, struct tiered_error *err)
{
    if (!(check->loaded.plugin.traits & TIERED_CONCURRENT)) {
        return check_skip(check, "is not TIERED_CONCURRENT");
    }
    return with_columns(check, threads, err);
}

/* ---- tensors ---- */

/* Names and shapes are the user's: any of them may come, and gets the same answer
   twice. */
int check_measures(struct check *check, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    static const char *const names[] = {"w",   "[",  "fc1.weight",
                                        "*?[", "\\", "layers/0/\xc3\xa9"};
    void *state;
    int result = 0;
    if (!TIERED_HAS(ops, measures) || !ops->measures) {
        return check_skip(check, "does not choose what is measured");
    }
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < TIERED_COUNT(names) && result == 0; i++) {
        const struct tiered_tensor tensor = {.name = names[i],
                                             .dtype = TIERED_F32,
                                             .rank = 1,
                                             .shape = {3},
                                             .n_elements = 3,
                                             .size_bytes = 12};
        check_step(check, "measures of a tensor '%s'", names[i]);
        if (ops->measures(state, &tensor) != ops->measures(state, &tensor)) {
            result = tiered_fail(err, TIERED_EINVAL,
                                 "measures a tensor once and not the next time");
        }
    }
    check_close(check, state);
    return result;
}

/* ---- blobs ---- */

/* A model of one U8 tensor, or of none. */
static struct tiered_model *made_blob(const char *bytes, struct tiered_error *err)
{
    uint64_t size = bytes ? strlen(bytes) : 0;
    struct tiered_layout_builder *b = tiered_layout_build();
    if (!b) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    if (bytes &&
        tiered_layout_add(b, "model", TIERED_U8, TIERED_BUFFER, 1, &size, err) < 0) {
        tiered_layout_builder_destroy(b);
        return NULL;
    }
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, err);
    struct tiered_model *model = layout ? tiered_model_create(layout, err) : NULL;
    if (model && size) {
        memcpy(model->data, bytes, size);
    }
    return model;
}

static int no_room(const struct tiered_merged *merged,
                   const struct tiered_tensor *tensors, uint32_t n,
                   const struct tiered_manifest **ret_manifest, uint8_t **ret_data,
                   struct tiered_error *err)
{
    (void)merged;
    (void)tensors;
    (void)n;
    (void)ret_manifest;
    (void)ret_data;
    return tiered_fail(err, TIERED_ENOMEM, "no room");
}

static int refuses(struct check *check, void *state, const struct tiered_model *model,
                   struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    struct made_round round = made_round(2, 1, 5);
    const struct tiered_contribution *children[] = {&round.children[0],
                                                    &round.children[1]};
    const struct tiered_round_view view = {
        .size = sizeof(view), .n = 2, .contributions = children};
    const struct tiered_whole one = {&model->layout->m, model->data};
    const struct tiered_whole both[] = {one, one};
    const struct tiered_merged merged = {.size = sizeof(merged), .make = no_room};
    struct tiered_error why = {0};
    int result = 0;
    if (ops->blobs(state, &view, NULL, both, &merged, &why) < 0) {
        result = check_refusal("blobs", &why, err);
    } else {
        result = tiered_fail(err, TIERED_EINVAL,
                             "takes nonsense, or goes on without room for its result");
    }
    memset(&why, 0, sizeof(why));
    if (result == 0 && ops->blobs_check &&
        ops->blobs_check(state, NULL, &one, &why) < 0) {
        result = check_refusal("blobs_check", &why, err);
    }
    made_round_finish(&round);
    return result;
}

/* Formats are the plugin's own: what can be made here is what it must refuse. */
int check_blobs(struct check *check, struct tiered_error *err)
{
    const struct tiered_aggregator_ops *ops = check->loaded.plugin.ops;
    static const char *const garbage[] = {
        NULL,           "",           "{",
        "\xff\xfe\x01", "[[[[[[[[[[", "{\"learner\":{\"gradient_booster\":"};
    void *state;
    int result = 0;
    if (!ops->blobs) {
        return check_skip(check, "takes no blobs");
    }
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < TIERED_COUNT(garbage) && result == 0; i++) {
        struct tiered_model *model = made_blob(garbage[i], err);
        check_step(check, "%zu bytes of nonsense", garbage[i] ? strlen(garbage[i]) : 0);
        result = model ? refuses(check, state, model, err) : -1;
        tiered_model_unref(model);
    }
    check_close(check, state);
    return result;
}
