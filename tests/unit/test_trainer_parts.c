/* SPDX-License-Identifier: Apache-2.0 */
/* The pieces behind softmax and mlp: partitions, kernels, numbers, labels, headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "plugins/trainers/common/header.h"
#include "plugins/trainers/common/labels.h"
#include "plugins/trainers/common/lines.h"
#include "plugins/trainers/common/matrix.h"
#include "plugins/trainers/common/partition.h"
#include "tiered/random.h"

enum { N = 3000, CLASSES = 10 };

/* Classes 0..9, dealt out by index, 300 of each. */
static void fill_classes(uint32_t class_of[N])
{
    for (uint32_t i = 0; i < N; i++) {
        class_of[i] = i % CLASSES;
    }
}

/* counts[k][c]: how many examples of class c leaf k got. */
static void assign(enum tiered_split split, double alpha, uint32_t count, uint8_t seed,
                   uint32_t owner[N], uint32_t counts[][CLASSES])
{
    uint32_t class_of[N];
    uint8_t key[32] = {seed};
    struct tiered_error err = {0};
    fill_classes(class_of);
    const struct tiered_partition partition = {split,    alpha, count,
                                               class_of, N,     CLASSES};
    memset(owner, 0xff, N * sizeof(*owner));
    if (tiered_partition_assign(&partition, key, owner, &err) < 0) {
        fail_msg("%s", err.text);
    }
    memset(counts, 0, count * sizeof(*counts));
    for (uint32_t i = 0; i < N; i++) {
        assert_true(owner[i] < count); /* each to exactly one */
        counts[owner[i]][class_of[i]]++;
    }
}

static uint32_t total(const uint32_t counts[CLASSES])
{
    uint32_t sum = 0;
    for (int c = 0; c < CLASSES; c++) {
        sum += counts[c];
    }
    return sum;
}

static void test_iid_is_even(void **state)
{
    uint32_t owner[N], counts[7][CLASSES];
    (void)state;
    assign(TIERED_SPLIT_IID, 0, 7, 1, owner, counts);
    for (int k = 0; k < 7; k++) {
        assert_in_range(total(counts[k]), N / 7, N / 7 + 1);
        for (int c = 0; c < CLASSES; c++) {
            assert_in_range(counts[k][c], 20, 70); /* 43 on average */
        }
    }
}

static void test_shards_hold_few_classes(void **state)
{
    uint32_t owner[N], counts[20][CLASSES];
    (void)state;
    assign(TIERED_SPLIT_SHARDS, 0, 20, 1, owner, counts);
    for (int k = 0; k < 20; k++) {
        int classes = 0;
        for (int c = 0; c < CLASSES; c++) {
            classes += counts[k][c] > 0;
        }
        assert_int_equal(total(counts[k]), N / 20);
        assert_in_range(classes, 1, 2); /* 40 shards of 75: four to a class */
    }
}

static void test_dirichlet_skews_by_alpha(void **state)
{
    static const struct {
        double alpha, least, most; /* mean share of a leaf's largest class */
    } cases[] = {{0.1, 0.5, 1}, {1, 0.22, 0.45}, {1000, 0.1, 0.13}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t owner[N], counts[12][CLASSES];
        double share = 0;
        assign(TIERED_SPLIT_DIRICHLET, cases[i].alpha, 12, 3, owner, counts);
        for (int k = 0; k < 12; k++) {
            uint32_t largest = 0;
            for (int c = 0; c < CLASSES; c++) {
                largest = counts[k][c] > largest ? counts[k][c] : largest;
            }
            assert_true(total(counts[k]) >= 10);
            share += largest / (double)total(counts[k]) / 12;
        }
        if (share < cases[i].least || share > cases[i].most) {
            fail_msg("alpha %g: largest class %g", cases[i].alpha, share);
        }
    }
}

static void test_partition_follows_the_key(void **state)
{
    (void)state;
    for (int split = TIERED_SPLIT_IID; split <= TIERED_SPLIT_DIRICHLET; split++) {
        uint32_t a[N], b[N], c[N], counts[9][CLASSES];
        assign((enum tiered_split)split, 0.5, 9, 1, a, counts);
        assign((enum tiered_split)split, 0.5, 9, 1, b, counts);
        assign((enum tiered_split)split, 0.5, 9, 2, c, counts);
        assert_memory_equal(a, b, sizeof(a));
        assert_memory_not_equal(a, c, sizeof(a));
    }
}

/* Random sizes, down to one example a leaf and classes without examples. */
static void test_partition_is_complete(void **state)
{
    struct tiered_rng rng;
    uint8_t key[32] = {9};
    (void)state;
    tiered_rng_init(&rng, key);
    for (int round = 0; round < 300; round++) {
        uint32_t n = 1 + (uint32_t)tiered_rng_below(&rng, 200), class_of[200],
                 owner[200], sizes[100] = {0};
        uint32_t count = 1 + (uint32_t)tiered_rng_below(&rng, (n + 1) / 2);
        struct tiered_partition p = {
            (enum tiered_split)(round % 3), 8.0, count, class_of, n, 8};
        p.split = count * 2 > n && p.split == TIERED_SPLIT_SHARDS ? TIERED_SPLIT_IID
                                                                  : p.split;
        for (uint32_t i = 0; i < n; i++) {
            class_of[i] = (uint32_t)tiered_rng_below(&rng, 5) * 2 % 8;
            owner[i] = UINT32_MAX;
        }
        if (tiered_partition_assign(&p, key, owner, NULL) < 0) {
            assert_int_equal(p.split, TIERED_SPLIT_DIRICHLET); /* no good draw */
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            assert_true(owner[i] < count);
            sizes[owner[i]]++;
        }
        for (uint32_t k = 0; k < count; k++) {
            assert_true(sizes[k] > 0);
        }
    }
}

static void test_partition_refuses(void **state)
{
    uint32_t class_of[40] = {0}, owner[40];
    uint8_t key[32] = {1};
    struct tiered_error err = {0};
    (void)state;
    struct tiered_partition p = {TIERED_SPLIT_IID, 0, 41, class_of, 40, 1};
    assert_int_equal(tiered_partition_assign(&p, key, owner, &err), -1);
    assert_string_equal(err.text, "40 training examples are too few for 41 leaves");
    p = (struct tiered_partition){TIERED_SPLIT_SHARDS, 0, 21, class_of, 40, 1};
    assert_int_equal(tiered_partition_assign(&p, key, owner, &err), -1);
    assert_string_equal(err.text, "40 training examples are too few for 21 leaves");
    p = (struct tiered_partition){TIERED_SPLIT_DIRICHLET, 1e-4, 4, class_of, 40, 1};
    assert_int_equal(tiered_partition_assign(&p, key, owner, &err), -1);
    assert_string_equal(err.text,
                        "partition dirichlet with alpha 0.0001: in each of 10000 draws "
                        "some of the 4 leaves had fewer than 5 of the 40 examples; "
                        "raise alpha or have fewer leaves");
}

static void fill_random(struct tiered_rng *rng, float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        p[i] = (float)tiered_rng_normal(rng);
    }
}

/* Every kernel against plain sums in the order that matrix.h promises: equal bits. */
static void check_product(size_t m, size_t k, size_t n, bool turned, bool first)
{
    struct tiered_rng rng;
    uint8_t key[32] = {5};
    size_t row = tiered_padded(n);
    float *a = malloc(m * k * sizeof(*a)), *c = aligned_alloc(64, m * row * 4);
    float *b = aligned_alloc(64, k * row * 4), *bias = aligned_alloc(64, row * 4);
    tiered_rng_init(&rng, key);
    fill_random(&rng, a, m * k);
    fill_random(&rng, b, k * row);
    fill_random(&rng, bias, row);
    const struct tiered_product product = {
        m, k,  row, a, turned ? 1 : k, turned ? m : 1, b, row, first ? bias : NULL,
        c, row};
    for (size_t kernel = 0; tiered_kernels_at(kernel); kernel++) {
        memset(c, 0xff, m * row * 4);
        tiered_kernels_at(kernel)->multiply(&product);
        for (size_t i = 0; i < m; i++) {
            for (size_t j = 0; j < row; j++) {
                float sum = first ? bias[j] : 0;
                for (size_t l = 0; l < k; l++) {
                    sum += (turned ? a[l * m + i] : a[i * k + l]) * b[l * row + j];
                }
                assert_memory_equal(&c[i * row + j], &sum, sizeof(sum));
            }
        }
    }
    free(a);
    free(b);
    free(c);
    free(bias);
}

static void test_kernels_multiply_alike(void **state)
{
    (void)state;
    for (size_t m = 1; m < 10; m += 2) {
        check_product(m, 7, 10, false, true);
        check_product(m, 5, 33, true, false);
        check_product(m, 1, 48, m % 2, true);
    }
    check_product(32, 784, 128, false, true);
    check_product(784, 32, 10, true, false);
}

static void test_kernels_step(void **state)
{
    (void)state;
    for (size_t kernel = 0; tiered_kernels_at(kernel); kernel++) {
        float w[3] = {1, 2, 3}, v[3] = {0.5f, 0, -1}, g[3] = {1, -1, 0.25f},
              anchor[3] = {0, 2, 5};
        struct tiered_step step = {3, 0.5f, 0.5f, 0, w, v, g, NULL};
        tiered_kernels_at(kernel)->step(&step);
        /* v = v / 2 + g: 1.25, -1, -0.25; w -= v / 2 */
        assert_true(v[0] == 1.25f && v[1] == -1 && v[2] == -0.25f);
        assert_true(w[0] == 0.375f && w[1] == 2.5f && w[2] == 3.125f);
        step.mu = 2;
        step.anchor = anchor;
        tiered_kernels_at(kernel)->step(&step);
        /* v = v / 2 + g + 2 (w - anchor): 0.625 + 1 + 0.75, -0.5 - 1 + 1, … */
        assert_true(v[0] == 2.375f && v[1] == -0.5f && v[2] == -3.625f);
    }
}

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        enum tiered_number is;
    } cases[] = {
        {"0", TIERED_NUMBER},
        {"-0.5", TIERED_NUMBER},
        {"+3.", TIERED_NUMBER},
        {".25", TIERED_NUMBER},
        {"1e5", TIERED_NUMBER},
        {"-1.5E-7", TIERED_NUMBER},
        {"0.1", TIERED_NUMBER},
        {"16777217", TIERED_NUMBER},
        {"1e-50", TIERED_NUMBER},
        {"123456789012345678901234567890", TIERED_NUMBER},
        {"3.4028234663852886e38", TIERED_NUMBER},
        {"0.000000000000000000000000000001", TIERED_NUMBER},
        {"1e39", TIERED_NOT_A_FLOAT},
        {"-1e99999999999", TIERED_NOT_A_FLOAT},
        {"", TIERED_NOT_A_NUMBER},
        {"-", TIERED_NOT_A_NUMBER},
        {".", TIERED_NOT_A_NUMBER},
        {"1e", TIERED_NOT_A_NUMBER},
        {"1e+", TIERED_NOT_A_NUMBER},
        {"nan", TIERED_NOT_A_NUMBER},
        {"inf", TIERED_NOT_A_NUMBER},
        {"0x10", TIERED_NOT_A_NUMBER},
        {"1 2", TIERED_NOT_A_NUMBER},
        {"1.2.3", TIERED_NOT_A_NUMBER},
        {"--1", TIERED_NOT_A_NUMBER},
        {"1e5x", TIERED_NOT_A_NUMBER},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct tiered_cell cell = {cases[i].text, strlen(cases[i].text), 1};
        float got;
        if (tiered_lines_number(&cell, &got) != cases[i].is) {
            fail_msg("'%s' was taken for something else", cases[i].text);
        }
        if (cases[i].is == TIERED_NUMBER) {
            float want = (float)strtod(cases[i].text, NULL);
            assert_memory_equal(&got, &want, sizeof(got));
        }
    }
}

static void test_labels_rank_by_number(void **state)
{
    struct tiered_labels labels = {0};
    (void)state;
    assert_int_equal(tiered_labels_text(&labels, "10", 2), 0);
    assert_int_equal(tiered_labels_text(&labels, "9x", 1), 1);
    assert_int_equal(tiered_labels_integer(&labels, -3), 2);
    assert_int_equal(tiered_labels_text(&labels, "010", 3), 0);
    assert_int_equal(labels.n, 3);
    uint32_t *class_of = tiered_labels_rank(&labels);
    assert_true(class_of[0] == 2 && class_of[1] == 1 && class_of[2] == 0);
    free(class_of);
    /* one word, and all are words: "-3" < "10" < "9" < "oven" */
    assert_int_equal(tiered_labels_text(&labels, "oven", 4), 3);
    class_of = tiered_labels_rank(&labels);
    assert_true(class_of[0] == 1 && class_of[1] == 2 && class_of[2] == 0);
    assert_int_equal(class_of[3], 3);
    free(class_of);
    tiered_labels_finish(&labels);
}

static void test_labels_are_bounded(void **state)
{
    struct tiered_labels labels = {0};
    (void)state;
    for (uint32_t i = 0; i < TIERED_MAX_CLASSES; i++) {
        assert_int_equal(tiered_labels_integer(&labels, (int64_t)i * i), i);
    }
    assert_int_equal(tiered_labels_integer(&labels, -1), UINT32_MAX);
    assert_int_equal(tiered_labels_integer(&labels, 4), 2);
    tiered_labels_finish(&labels);
}

static const char *find(const char *header, struct tiered_header_tensor *ret)
{
    return tiered_header_find(header, strlen(header), "x", ret);
}

static void test_header_finds(void **state)
{
    struct tiered_header_tensor t;
    (void)state;
    assert_null(find("{\"__metadata__\":{\"a\":\"\\\"}\"},\"y\":{},\"x\" : "
                     "{\"shape\":[2,3],\"dtype\":\"F32\",\"data_offsets\":[8,32]}}  ",
                     &t));
    assert_string_equal(t.dtype, "F32");
    assert_true(t.rank == 2 && t.shape[0] == 2 && t.shape[1] == 3);
    assert_true(t.begin == 8 && t.end == 32);
    assert_null(find("{}", &t));
    assert_null(t.name);
    assert_null(find("{\"y\":[1,-2.5e3,true,null,\"s\",{}]}", &t));
    assert_null(t.name);
}

static void test_header_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{\"x\"",
        "{\"x\":",
        "{\"x\":1}",
        "{\"x\":{}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":"
        "[0,4]}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,"
        "4]}}",
        "{\"x\":{\"dtype\":\"FLOATFLOAT\",\"shape\":[1],\"data_offsets\":[0,4]}}",
        "{\"y\":[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]}",
        "{\"y\":\"unclosed}",
        "{\"y\":1,}",
    };
    const char *twice =
        "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
    struct tiered_header_tensor t;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (!find(bad[i], &t)) {
            fail_msg("taken: %s", bad[i]);
        }
    }
    assert_string_equal(find(twice, &t), "names a tensor twice");
    for (size_t n = 0; n < strlen(twice); n++) { /* cut anywhere */
        char *cut = strndup(twice, n);
        assert_non_null(find(cut, &t));
        free(cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iid_is_even),
        cmocka_unit_test(test_shards_hold_few_classes),
        cmocka_unit_test(test_dirichlet_skews_by_alpha),
        cmocka_unit_test(test_partition_follows_the_key),
        cmocka_unit_test(test_partition_is_complete),
        cmocka_unit_test(test_partition_refuses),
        cmocka_unit_test(test_kernels_multiply_alike),
        cmocka_unit_test(test_kernels_step),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_labels_rank_by_number),
        cmocka_unit_test(test_labels_are_bounded),
        cmocka_unit_test(test_header_finds),
        cmocka_unit_test(test_header_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
