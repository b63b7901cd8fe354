/* SPDX-License-Identifier: Apache-2.0 */
/* centered-clipping, norm-bounded and fednova against hand-worked numbers; fednova in a
   tree; every rule on every dtype; and what f children who send anything can do. */
#include "strategy_kit.h"

#include "core/base/log.h"
#include "tiered/random.h"

/* -------- centered-clipping -------- */

static void test_centered_clipping(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "centered-clipping:tau=2");
    ROW(&k, 1, 101);
    ROW(&k, 1000, 110);
    ROW(&k, 0, 98);
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "aggregator 'centered-clipping' measures how far the updates "
                        "moved, so it needs the model before the round");
    BASE(&k, 100);
    EXPECT(&k, 1e-12, 100 + 1.0 / 3); /* (1 + 2 - 2) / 3 */
    ROW(&k, 1, NAN);
    k.rows[3].contribution.excluded = 1;
    EXPECT(&k, 1e-12, 100 + 1.0 / 3);
    kit_finish(&k);
    /* From 1/3: 2/3, 29/3 and -7/3, of which the last two become 2 and -2. */
    BEGIN(&k, kit_layout(TIERED_F64, 1), "centered-clipping:tau=2,iterations=2");
    k.run.rows_are_deltas = true;
    ROW(&k, 1, 1);
    ROW(&k, 1, 10);
    ROW(&k, 1, -2);
    EXPECT(&k, 1e-12, 1.0 / 3 + 2.0 / 9);
    kit_finish(&k);
    /* An update at the centre counts in full; within tau it is the mean. */
    BEGIN(&k, kit_layout(TIERED_F64, 2), "centered-clipping:tau=100");
    BASE(&k, 1, 1);
    ROW(&k, 1, 1, 1);
    ROW(&k, 1, 4, 7);
    EXPECT(&k, 1e-12, 2.5, 4);
    kit_finish(&k);
}

/* The paper's update, on vectors, against the same in coefficients. */
static void test_centered_clipping_iterations(void **state)
{
    (void)state;
    enum { D = 20, N = 7, L = 5 };
    double rows[N][D], v[D], base[D];
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, D), "centered-clipping:tau=3.5,iterations=5");
    for (size_t r = 0; r <= N; r++) {
        const uint8_t key[32] = {(uint8_t)r, 5};
        struct tiered_rng rng;
        tiered_rng_init(&rng, key);
        for (size_t i = 0; i < D; i++) {
            double value = tiered_rng_normal(&rng) + (r == 3 ? 40 : 0);
            *(r < N ? &rows[r][i] : &base[i]) = value;
        }
        if (r < N) {
            kit_row(&k, rows[r], 1);
        }
    }
    kit_base(&k, base);
    memcpy(v, base, sizeof(v));
    for (size_t l = 0; l < L; l++) {
        double next[D];
        memcpy(next, v, sizeof(v));
        for (size_t r = 0; r < N; r++) {
            double square = 0;
            for (size_t i = 0; i < D; i++) {
                square += (rows[r][i] - v[i]) * (rows[r][i] - v[i]);
            }
            double factor = fmin(1, 3.5 / sqrt(square)) / N;
            for (size_t i = 0; i < D; i++) {
                next[i] += factor * (rows[r][i] - v[i]);
            }
        }
        memcpy(v, next, sizeof(v));
    }
    struct tiered_model *model = kit_run(&k);
    kit_expect(model, v, D, 1e-12);
    tiered_model_unref(model);
    kit_finish(&k);
}

/* -------- norm-bounded -------- */

static void test_norm_bounded(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 2), "norm-bounded:norm=1");
    BASE(&k, 10, 20);
    ROW(&k, 1, 13, 24);     /* norm 5: 0.6 and 0.8 of it */
    ROW(&k, 3, 10.3, 20.4); /* norm 0.5 */
    EXPECT(&k, 1e-12, 10.375, 20.5);
    ROW(&k, 4, 10, 20); /* did not move */
    EXPECT(&k, 1e-12, 10 + 0.375 / 2, 20.25);
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F64, 2), "norm-bounded:norm=1,weighted_by=uniform");
    k.run.rows_are_deltas = true;
    ROW(&k, 1, 3, 4);
    ROW(&k, 0, 0.3, 0.4);
    ROW(&k, 0, 1e300, 1e300); /* its square is infinite: it counts for nothing */
    EXPECT(&k, 1e-12, 0.3, 0.4);
    kit_finish(&k);
}

/* -------- fednova -------- */

static void test_fednova(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fednova");
    BASE(&k, 10);
    ROW(&k, 10, 2); /* -8 in 4 steps */
    ROW(&k, 30, 9); /* -1 in 1 step */
    k.rows[0].contribution.local_steps = 4;
    assert_string_equal(kit_refusal(&k, TIERED_EINVAL),
                        "'b' does not say its local_steps, which fednova needs");
    k.rows[1].contribution.local_steps = 1;
    /* tau_eff 1.75 times (0.25 * 2 + 0.75 * 1) */
    EXPECT(&k, 1e-14, 10 - 1.75 * 1.25);
    assert_true(tiered_strategy_local_steps(k.strategy) == 1.75);
    k.rows[0].contribution.a_norm = 2;
    EXPECT(&k, 1e-14, 10 - 1.75 * 1.75);
    ROW(&k, 1000, 900); /* took no step: not there */
    k.rows[2].contribution.local_steps = 0;
    EXPECT(&k, 1e-14, 10 - 1.75 * 1.75);
    assert_true(tiered_strategy_local_steps(k.strategy) == 1.75);
    k.run.base = NULL;
    assert_non_null(strstr(kit_refusal(&k, TIERED_EINVAL),
                           "so it needs the model before the round"));
    kit_finish(&k);
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fednova");
    ROW(&k, 1, 1);
    k.rows[0].contribution.local_steps = 0;
    assert_string_equal(kit_refusal(&k, TIERED_ERANGE),
                        "none of the 1 updates took a local step; the model stays");
    kit_finish(&k);
}

/* Equal steps are fedavg, and need no base. */
static void test_fednova_equal_steps(void **state)
{
    (void)state;
    struct kit k;
    BEGIN(&k, kit_layout(TIERED_F64, 1), "fednova");
    ROW(&k, 10, 2);
    ROW(&k, 30, 9);
    ROW(&k, 60, 4);
    for (size_t i = 0; i < 3; i++) {
        k.rows[i].contribution.local_steps = 7;
    }
    EXPECT(&k, 1e-14, (20 + 270 + 240) / 100.0);
    kit_finish(&k);
}

#define N_LEAVES 11
#define D_TREE   40

struct leaf {
    double values[D_TREE];
    uint64_t examples;
    double steps, a_norm;
};

static void fold(const struct leaf *leaves, size_t n, enum tiered_dtype dtype,
                 const double *base, struct leaf *ret)
{
    struct kit k;
    BEGIN(&k, kit_layout(dtype, D_TREE), "fednova");
    kit_base(&k, base);
    ret->examples = 0;
    for (size_t i = 0; i < n; i++) {
        kit_row(&k, leaves[i].values, leaves[i].examples);
        k.rows[i].contribution.local_steps = leaves[i].steps;
        k.rows[i].contribution.a_norm = leaves[i].a_norm;
        ret->examples += leaves[i].examples;
    }
    struct tiered_model *model = kit_run(&k);
    for (size_t i = 0; i < D_TREE; i++) {
        ret->values[i] = kit_value(model, 0, i);
    }
    ret->steps = tiered_strategy_local_steps(k.strategy);
    ret->a_norm = NAN;
    tiered_model_unref(model);
    kit_finish(&k);
}

/* Groups of 1, 4, 6 and their parent, against all eleven at once. */
static void test_fednova_tree(void **state)
{
    (void)state;
    static const size_t groups[] = {1, 4, 6};
    static const enum tiered_dtype dtypes[] = {TIERED_F32, TIERED_F64};
    for (size_t d = 0; d < 2; d++) {
        struct leaf leaves[N_LEAVES], inner[3], tree, flat;
        double base[D_TREE];
        struct tiered_rng rng;
        const uint8_t key[32] = {9};
        tiered_rng_init(&rng, key);
        for (size_t i = 0; i < D_TREE; i++) {
            base[i] = (double)(float)tiered_rng_normal(&rng);
        }
        for (size_t l = 0; l < N_LEAVES; l++) {
            leaves[l].examples = 1 + tiered_rng_below(&rng, 1000);
            leaves[l].steps = (double)(1 + tiered_rng_below(&rng, 50));
            leaves[l].a_norm = l % 3 ? NAN : leaves[l].steps * 7.5;
            for (size_t i = 0; i < D_TREE; i++) {
                leaves[l].values[i] =
                    base[i] + (double)(float)tiered_rng_normal(&rng) / 16;
            }
        }
        fold(leaves, N_LEAVES, dtypes[d], base, &flat);
        for (size_t g = 0, at = 0; g < 3; at += groups[g++]) {
            fold(leaves + at, groups[g], dtypes[d], base, &inner[g]);
        }
        fold(inner, 3, dtypes[d], base, &tree);
        assert_int_equal(tree.examples, flat.examples);
        assert_true(fabs(tree.steps - flat.steps) < 1e-12 * flat.steps);
        for (size_t i = 0; i < D_TREE; i++) {
            assert_true(fabs(tree.values[i] - flat.values[i]) <= (d ? 1e-13 : 2e-6));
        }
    }
}

/* -------- every dtype -------- */

static const char *const rules[] = {"fednova",
                                    "krum",
                                    "geometric-median",
                                    "centered-clipping:tau=1e6",
                                    "norm-bounded:norm=1e6",
                                    "bulyan"};

/* bulyan needs three children: n >= 4f + 3 */
static void test_identity(void **state)
{
    (void)state;
    for (size_t d = 0; d < TIERED_COUNT(kit_dtypes); d++) {
        for (size_t r = 0; r < TIERED_COUNT(rules); r++) {
            if (strcmp(rules[r], "bulyan") != 0) {
                kit_identity(rules[r], kit_dtypes[d], 1, true);
            }
            kit_identity(rules[r], kit_dtypes[d], 3, true);
        }
    }
}

/* f16 and bf16 are measured as what they are; buffers go with the choice. */
static void test_narrow_floats(void **state)
{
    (void)state;
    static const enum tiered_dtype dtypes[] = {TIERED_F16, TIERED_BF16};
    for (size_t d = 0; d < 2; d++) {
        struct kit k;
        BEGIN(&k, kit_layout(dtypes[d], 2), "krum:byzantine=1");
        ROW(&k, 1, 1000, 1);
        ROW(&k, 1, 1008, 1.5);
        ROW(&k, 1, 1024, 1);
        ROW(&k, 1, 9984, 1);
        ROW(&k, 1, 1008, 1);
        EXPECT(&k, 0, 1008, 1); /* the last: 0.25 + 64 */
        kit_finish(&k);
    }
}

/* -------- children who send anything -------- */

#define N_CHILDREN 11
#define N_BAD      2
#define DIM        64

struct defence {
    const char *rule;
    double moves; /* promises how far the model moves at most, not where to; or 0 */
};

static const struct defence defences[] = {
    {"krum:byzantine=2", 0},
    {"krum:byzantine=2,keep=9", 0},
    {"bulyan:byzantine=2", 0},
    {"geometric-median:weighted_by=uniform", 0},
    {"median", 0},
    {"trimmed-mean:trim=2", 0},
    {"centered-clipping:tau=6,iterations=3", 18},
    {"norm-bounded:norm=6,weighted_by=uniform", 6},
};

enum attack { SIGN_FLIP, NOISE, LARGEST, NEGATIVE, LITTLE, NOT_A_NUMBER, N_ATTACKS };

static void attack(enum attack how, const double *mean, const double *deviation,
                   struct tiered_rng *rng, double *out)
{
    for (size_t i = 0; i < DIM; i++) {
        const double values[N_ATTACKS] = {
            -10 * mean[i], 1e3 * tiered_rng_normal(rng), 3.4e38,
            -3.4e38,       mean[i] - 1.5 * deviation[i], NAN};
        out[i] = values[how];
    }
}

static double apart(const double *a, const double *b)
{
    double sum = 0;
    for (size_t i = 0; i < DIM; i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sqrt(sum);
}

/* Mean and deviation of the honest, and how far the furthest lies from the mean. */
static double describe(double rows[N_CHILDREN][DIM], double *mean, double *deviation)
{
    double most = 0;
    size_t n = N_CHILDREN - N_BAD;
    for (size_t i = 0; i < DIM; i++) {
        double sum = 0, squares = 0;
        for (size_t r = 0; r < n; r++) {
            sum += rows[r][i];
        }
        mean[i] = sum / (double)n;
        for (size_t r = 0; r < n; r++) {
            squares += (rows[r][i] - mean[i]) * (rows[r][i] - mean[i]);
        }
        deviation[i] = sqrt(squares / (double)n);
    }
    for (size_t r = 0; r < n; r++) {
        most = fmax(most, apart(rows[r], mean));
    }
    return most;
}

/* The bad come first and claim all examples. An update with NaN is excluded, as the
   host does with on_bad_update: exclude. */
static void run_attack(const struct defence *defence, enum attack how, bool with_base)
{
    double rows[N_CHILDREN][DIM], mean[DIM], deviation[DIM], got[DIM], base[DIM];
    struct tiered_rng rng;
    const uint8_t key[32] = {(uint8_t)how, 3};
    struct kit k;
    tiered_rng_init(&rng, key);
    for (size_t r = 0; r < N_CHILDREN; r++) {
        for (size_t i = 0; i < DIM; i++) {
            rows[r][i] = 1 + tiered_rng_normal(&rng) / 2;
        }
    }
    double spread = describe(rows, mean, deviation);
    BEGIN(&k, kit_layout(TIERED_F32, DIM), defence->rule);
    for (size_t r = 0; r < N_BAD; r++) {
        attack(how, mean, deviation, &rng, rows[N_CHILDREN - 1 - r]);
        kit_row(&k, rows[N_CHILDREN - 1 - r], 1ull << 52);
        k.rows[r].contribution.excluded = how == NOT_A_NUMBER;
    }
    for (size_t r = 0; r < N_CHILDREN - N_BAD; r++) {
        kit_row(&k, rows[r], 100);
    }
    memset(base, 0, sizeof(base));
    if (with_base) {
        kit_base(&k, base);
    }
    struct tiered_model *model = kit_run(&k);
    for (size_t i = 0; i < DIM; i++) {
        got[i] = kit_value(model, 0, i);
    }
    bool moves = defence->moves > 0;
    double off = apart(got, moves ? base : mean);
    double limit = moves ? defence->moves * (1 + 1e-6) : 2 * spread;
    if (!(off <= limit)) {
        fail_msg("%s, attack %d, %s base: %g off, not %g", defence->rule, how,
                 with_base ? "with" : "without", off, limit);
    }
    tiered_model_unref(model);
    kit_finish(&k);
}

static void test_attacks(void **state)
{
    (void)state;
    for (size_t d = 0; d < TIERED_COUNT(defences); d++) {
        for (enum attack how = 0; how < N_ATTACKS; how++) {
            run_attack(&defences[d], how, true);
            if (defences[d].moves == 0) {
                run_attack(&defences[d], how, false);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_centered_clipping),
        cmocka_unit_test(test_centered_clipping_iterations),
        cmocka_unit_test(test_norm_bounded),
        cmocka_unit_test(test_fednova),
        cmocka_unit_test(test_fednova_equal_steps),
        cmocka_unit_test(test_fednova_tree),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_narrow_floats),
        cmocka_unit_test(test_attacks),
    };
    tiered_log_set_level(TIERED_LOG_ERROR); /* not what krum warns of */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
