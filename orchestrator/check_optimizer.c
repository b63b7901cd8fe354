/* SPDX-License-Identifier: Apache-2.0 */
/* What every optimizer must do: stay where there is nothing to do, stay finite, not
   care how the host cuts a model into tiles, and go on from saved slots. */
#include "orchestrator/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tiered/optimizer.h"
#include "tiered/random.h"

#define DIM       1000
#define N_STEPS   6
#define N_THREADS 4

/* One optimizer's run, as the host keeps it. */
struct course {
    double x[DIM], delta[DIM], slots[TIERED_MAX_SLOTS][DIM];
};

static int optimizer_open(struct check *check, const void *config, void **ret_state,
                          struct tiered_error *err)
{
    const struct tiered_optimizer_ops *ops = check->loaded.plugin.ops;
    return ops->init(&check->hosting.host, config, ret_state, err);
}

static void optimizer_close(struct check *check, void *state)
{
    const struct tiered_optimizer_ops *ops = check->loaded.plugin.ops;
    ops->destroy(state);
}

static void fill_normal(double *out, size_t n, uint64_t seed, double scale)
{
    uint8_t key[32];
    struct tiered_rng rng;
    tiered_seed(seed, "check", "", "", key);
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < n; i++) {
        out[i] = scale * tiered_rng_normal(&rng);
    }
}

/* begin, and at step 1 the slots' first values. */
static int begin(struct check *check, void *state, uint64_t step, struct course *c,
                 struct tiered_error *err)
{
    const struct tiered_optimizer_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    struct guard initial =
        guard_make("ret_slot_initial", ops->n_slots * sizeof(double));
    double *values = (double *)initial.data;
    for (uint32_t k = 0; k < ops->n_slots; k++) {
        values[k] = NAN; /* what is not filled shows */
    }
    check_step(check, "begin of step %llu", (unsigned long long)step);
    int result = ops->begin(state, step, values, &why);
    result = result < 0 ? check_call_failed("begin", &why, err) : 0;
    for (uint32_t k = 0; k < ops->n_slots && step == 1 && result == 0; k++) {
        if (!isfinite(values[k])) {
            result = tiered_fail(err, TIERED_EINVAL,
                                 "begin of step 1 does not fill slot '%s' with a "
                                 "finite value",
                                 ops->slot_names[k]);
        }
        for (size_t i = 0; i < DIM; i++) {
            c->slots[k][i] = values[k];
        }
    }
    guard_free(&initial);
    return result;
}

/* One tile, in guarded buffers. */
static void step_tile(struct check *check, const void *state, struct course *c,
                      size_t from, size_t n)
{
    const struct tiered_optimizer_ops *ops = check->loaded.plugin.ops;
    struct guard x = guard_make("x", n * sizeof(double));
    struct guard delta = guard_make("delta", n * sizeof(double));
    struct guard guards[TIERED_MAX_SLOTS] = {0};
    double *slots[TIERED_MAX_SLOTS] = {0};
    memcpy(x.data, c->x + from, n * sizeof(double));
    memcpy(delta.data, c->delta + from, n * sizeof(double));
    for (uint32_t k = 0; k < ops->n_slots; k++) {
        guards[k] = guard_make("a slot", n * sizeof(double));
        slots[k] = (double *)guards[k].data;
        memcpy(slots[k], c->slots[k] + from, n * sizeof(double));
    }
    guard_freeze(&x);
    check_step(check, "step of %zu values", n);
    ops->step(state, n, (const double *)x.data, (double *)delta.data, slots);
    memcpy(c->delta + from, delta.data, n * sizeof(double));
    for (uint32_t k = 0; k < ops->n_slots; k++) {
        memcpy(c->slots[k] + from, slots[k], n * sizeof(double));
        guard_free(&guards[k]);
    }
    guard_free(&x);
    guard_free(&delta);
}

/* Steps first..last, each of ordinary deltas of `scale`, tile by tile; x follows. */
static int run_steps(struct check *check, void *state, struct course *c, uint64_t first,
                     uint64_t last, double scale, size_t tile, struct tiered_error *err)
{
    for (uint64_t step = first; step <= last; step++) {
        if (begin(check, state, step, c, err) < 0) {
            return -1;
        }
        fill_normal(c->delta, DIM, step, scale);
        for (size_t from = 0; from < DIM; from += tile) {
            step_tile(check, state, c, from, tile < DIM - from ? tile : DIM - from);
        }
        for (size_t i = 0; i < DIM; i++) {
            c->x[i] += c->delta[i];
        }
    }
    return 0;
}

static int check_finite(const struct check *check, const struct course *c,
                        const char *what, struct tiered_error *err)
{
    const struct tiered_optimizer_ops *ops = check->loaded.plugin.ops;
    for (size_t i = 0; i < DIM; i++) {
        if (!isfinite(c->delta[i])) {
            return tiered_fail(err, TIERED_ERANGE, "%s: a step of %g", what,
                               c->delta[i]);
        }
        for (uint32_t k = 0; k < ops->n_slots; k++) {
            if (!isfinite(c->slots[k][i])) {
                return tiered_fail(err, TIERED_ERANGE, "%s: slot '%s' holds %g", what,
                                   ops->slot_names[k], c->slots[k][i]);
            }
        }
    }
    return 0;
}

static int compare(const struct check *check, const struct course *a,
                   const struct course *b, const char *what, struct tiered_error *err)
{
    const struct tiered_optimizer_ops *ops = check->loaded.plugin.ops;
    bool same = check_same_bits(a->x, b->x, sizeof(a->x));
    for (uint32_t k = 0; k < ops->n_slots; k++) {
        same = same && check_same_bits(a->slots[k], b->slots[k], sizeof(a->slots[k]));
    }
    return same ? 0 : tiered_fail(err, TIERED_EINVAL, "%s", what);
}

static int optimizer_use(struct check *check, void *state, struct tiered_error *err)
{
    static struct course c;
    return run_steps(check, state, &c, 1, 1, 1, DIM, err);
}

static int with_state(struct check *check,
                      int (*body)(struct check *, void *, struct tiered_error *),
                      struct tiered_error *err)
{
    void *state;
    if (check_open(check, &state, err) < 0) {
        return -1;
    }
    int result = body(check, state, err);
    check_close(check, state);
    return result;
}

/* ---- the checks ---- */

static int zero_delta(struct check *check, void *state, struct tiered_error *err)
{
    static struct course c;
    if (run_steps(check, state, &c, 1, 1, 0, DIM, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < DIM; i++) {
        if (c.delta[i] != 0) {
            return tiered_fail(err, TIERED_EINVAL,
                               "the first step of a zero delta at x = 0 is %g, not 0",
                               c.delta[i]);
        }
    }
    return 0;
}

static int finite_values(struct check *check, void *state, struct tiered_error *err)
{
    static const double scales[] = {0, 1e-300, 1e-30, 1, 1e30, 1e100};
    for (size_t i = 0; i < TIERED_COUNT(scales); i++) {
        struct course c = {0};
        char what[48];
        snprintf(what, sizeof(what), "deltas of about %g", scales[i]);
        if (run_steps(check, state, &c, 1, N_STEPS, scales[i], DIM, err) < 0 ||
            check_finite(check, &c, what, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static int tiles(struct check *check, void *state, struct tiered_error *err)
{
    static const size_t sizes[] = {1, 7, 64, 333};
    static struct course whole;
    if (run_steps(check, state, &whole, 1, 2, 1, DIM, err) < 0) {
        return -1;
    }
    for (size_t i = 0; i < TIERED_COUNT(sizes); i++) {
        struct course cut = {0};
        char what[80];
        snprintf(what, sizeof(what), "tiles of %zu values make other bits than one",
                 sizes[i]);
        if (run_steps(check, state, &cut, 1, 2, 1, sizes[i], err) < 0 ||
            compare(check, &whole, &cut, what, err) < 0) {
            return -1;
        }
    }
    step_tile(check, state, &whole, 0, 0); /* an empty tensor's */
    return 0;
}

/* What the host saves is x, the slots and the step; the rest must not matter. */
static int restart(struct check *check, void *state, struct tiered_error *err)
{
    static struct course straight, resumed;
    void *other;
    if (run_steps(check, state, &straight, 1, N_STEPS, 1, DIM, err) < 0 ||
        check_open(check, &other, err) < 0) {
        return -1;
    }
    int result = run_steps(check, other, &resumed, 1, 3, 1, DIM, err);
    check_close(check, other);
    if (result < 0 || check_open(check, &other, err) < 0) {
        return -1;
    }
    result = run_steps(check, other, &resumed, 4, N_STEPS, 1, DIM, err);
    check_close(check, other);
    return result < 0 ? -1
                      : compare(check, &straight, &resumed,
                                "a new state that goes on from the saved slots makes "
                                "other bits",
                                err);
}

/* A round that failed after begin is begun again. */
static int again(struct check *check, void *state, struct tiered_error *err)
{
    static struct course once, twice;
    void *other;
    if (check_open(check, &other, err) < 0) {
        return -1;
    }
    int result = run_steps(check, other, &once, 1, 3, 1, DIM, err);
    check_close(check, other);
    for (uint64_t step = 1; step <= 3 && result == 0; step++) {
        static struct course dropped;
        dropped = twice;
        result = run_steps(check, state, &dropped, step, step, 5, DIM, err) < 0 ||
                         run_steps(check, state, &twice, step, step, 1, DIM, err) < 0
                     ? -1
                     : 0;
    }
    return result < 0 ? -1
                      : compare(check, &once, &twice,
                                "a step that is begun again after it was dropped makes "
                                "other bits",
                                err);
}

/* ---- threads ---- */

struct crowd {
    const struct tiered_optimizer_ops *ops;
    const void *state;
    struct course *course;
};

static bool step_part(void *user, size_t thread)
{
    const struct crowd *crowd = user;
    struct course *c = crowd->course;
    for (size_t from = thread * 10; from < DIM; from += 10 * N_THREADS) {
        double *slots[TIERED_MAX_SLOTS];
        for (size_t k = 0; k < TIERED_MAX_SLOTS; k++) {
            slots[k] = c->slots[k] + from;
        }
        crowd->ops->step(crowd->state, 10, c->x + from, c->delta + from, slots);
    }
    return true;
}

static int threads(struct check *check, void *state, struct tiered_error *err)
{
    static struct course one, many;
    struct crowd crowd = {check->loaded.plugin.ops, state, &many};
    if (run_steps(check, state, &one, 1, 1, 1, DIM, err) < 0 ||
        begin(check, state, 1, &many, err) < 0) {
        return -1;
    }
    fill_normal(many.delta, DIM, 1, 1);
    check_step(check, "step on %d threads", N_THREADS);
    check_threads(N_THREADS, step_part, &crowd);
    for (size_t i = 0; i < DIM; i++) {
        many.x[i] += many.delta[i];
    }
    return compare(check, &one, &many,
                   "several threads at once make other bits than "
                   "one",
                   err);
}

#define WITH_STATE(name)                                                               \
    static int name##_case(struct check *check, struct tiered_error *err)              \
    {                                                                                  \
        return with_state(check, name, err);                                           \
    }
WITH_STATE(zero_delta)
WITH_STATE(finite_values)
WITH_STATE(tiles)
WITH_STATE(restart)
WITH_STATE(again)
WITH_STATE(threads)

static const struct check_case cases[] = {
    {"zero delta", zero_delta_case}, {"finite values", finite_values_case},
    {"tiles", tiles_case},           {"saved slots", restart_case},
    {"dropped step", again_case},    {"threads", threads_case},
};

const struct check_kind check_optimizer = {
    .open = optimizer_open,
    .close = optimizer_close,
    .use = optimizer_use,
    .cases = cases,
    .n_cases = TIERED_COUNT(cases),
};
