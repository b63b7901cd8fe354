/* SPDX-License-Identifier: Apache-2.0 */
/* Between a delta of any dtypes and the words of a group. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/model/numeric.h"
#include "core/pipe/masked.h"
#include "tiered/group.h"

struct tensor {
    const char *name;
    enum tiered_dtype dtype;
    uint64_t n;
};

static struct tiered_layout *layout_of(const struct tensor *tensors, size_t n)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tiered_layout_add(b, tensors[i].name, tensors[i].dtype,
                                           tiered_role_default(tensors[i].dtype), 1,
                                           &tensors[i].n, &err),
                         0);
    }
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

static const struct tensor mixed[] = {
    {"a", TIERED_F32, 300001}, {"none", TIERED_F32, 0}, {"b", TIERED_F16, 7},
    {"c", TIERED_F64, 200000}, {"d", TIERED_I64, 3},    {"e", TIERED_U32, 5},
    {"f", TIERED_I8, 1},       {"g", TIERED_BF16, 11},  {"h", TIERED_U16, 2},
};

/* Whole numbers that every one of these dtypes holds, as deltas: negative ones too. */
static double value_at(uint64_t i)
{
    return (double)(i % 61) - 30;
}

static void check_words(uint32_t word_bytes, uint32_t n_extras)
{
    struct tiered_error err = {0};
    struct tiered_layout *layout = layout_of(mixed, TIERED_COUNT(mixed));
    struct tiered_masked *m = NULL;
    assert_int_equal(tiered_masked_create(layout, word_bytes, n_extras, &m, &err), 0);
    assert_int_equal(m->n_values, 300001 + 7 + 200000 + 3 + 5 + 1 + 11 + 2 + n_extras);
    const struct tiered_manifest *words = &m->words->m;
    uint32_t n_tensors = TIERED_COUNT(mixed) + (n_extras > 0);
    assert_int_equal(words->n_tensors, n_tensors + 1);
    for (size_t i = 0; i < TIERED_COUNT(mixed); i++) {
        assert_string_equal(words->tensors[i].name, mixed[i].name);
        assert_int_equal(words->tensors[i].n_elements, mixed[i].n);
        assert_int_equal(tiered_dtype_size(words->tensors[i].dtype), word_bytes);
    }
    assert_string_equal(words->tensors[n_tensors].name, TIERED_MASKED_TAIL);
    assert_int_equal(m->words->blocks[m->n_word_blocks].size_bytes, TIERED_GROUP_TAIL);
    assert_int_equal(m->n_word_blocks, m->words->n_blocks - 1);
    assert_int_equal(m->words_first[m->n_word_blocks], m->n_values);

    /* every value comes back from where it went, whatever the stretches */
    struct tiered_model *delta = tiered_model_create(layout, &err);
    struct tiered_summand all = {.delta = delta->data};
    static double values[4096], back[4096];
    for (uint64_t at = 0; at < m->n_values;) {
        size_t n = 1 + at * 31 % 4096;
        n = n < m->n_values - at ? n : (size_t)(m->n_values - at);
        for (size_t i = 0; i < n; i++) {
            values[i] = value_at(at + i);
        }
        tiered_masked_store(m, &all, at, n, values);
        at += n;
    }
    uint64_t first = 0;
    for (size_t t = 0; t < TIERED_COUNT(mixed); t++) { /* … as its tensor sees it */
        const struct tiered_tensor *tensor = &layout->m.tensors[t];
        for (uint64_t i = 0; i < tensor->n_elements; i++) {
            double got;
            size_t size = tiered_dtype_size(tensor->dtype);
            tiered_to_f64(tiered_delta_dtype(tensor->dtype),
                          delta->data + tensor->offset_bytes + i * size, 1, &got);
            assert_true(got == value_at(first + i));
        }
        first += tensor->n_elements;
    }
    for (uint32_t i = 0; i < n_extras; i++) {
        assert_true(all.extras[i] == value_at(first + i));
    }
    for (uint64_t at = 0; at < m->n_values;) {
        size_t n = 1 + at * 17 % 4000;
        n = n < m->n_values - at ? n : (size_t)(m->n_values - at);
        tiered_masked_values(m, &all, at, n, back);
        for (size_t i = 0; i < n; i++) {
            assert_true(back[i] == value_at(at + i));
        }
        at += n;
    }
    tiered_model_unref(delta);
    tiered_masked_destroy(m);
    tiered_layout_unref(layout);
}

static void test_values(void **state)
{
    (void)state;
    check_words(4, 0);
    check_words(8, 0);
    check_words(4, 1);
    check_words(8, TIERED_MASKED_MOST);
}

static void test_what_cannot_be_summed(void **state)
{
    (void)state;
    static const struct tensor blob[] = {{"w", TIERED_F32, 3}, {"trees", TIERED_U8, 9}};
    static const struct tensor clash[] = {{TIERED_MASKED_TAIL, TIERED_F32, 3}};
    struct tiered_error err = {0};
    struct tiered_masked *m = NULL;
    struct tiered_layout *layout = layout_of(blob, 2);
    assert_int_equal(tiered_masked_create(layout, 4, 0, &m, &err), -1);
    assert_string_equal(err.text, "tensor 'trees' is of U8, which a group cannot sum");
    tiered_layout_unref(layout);
    layout = layout_of(clash, 1);
    assert_int_equal(tiered_masked_create(layout, 4, 0, &m, &err), -1);
    tiered_layout_unref(layout);
}

/* An object with the given tensors; block `odd` has one byte too few. */
static struct tiered_encoded *object_of(struct tiered_layout *layout, uint32_t odd)
{
    struct tiered_error err = {0};
    struct tiered_encoded *e = NULL;
    Tiered__V1__Head head = TIERED__V1__HEAD__INIT;
    static uint8_t bytes[TIERED_BLOCK_BYTES];
    assert_int_equal(tiered_wire_tensors(layout, &head.tensors, &head.n_tensors, &err),
                     0);
    assert_int_equal(tiered_encoded_begin(&head, NULL, &e, &err), 0);
    tiered_wire_free_tensors(head.tensors, head.n_tensors);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        size_t size = (size_t)layout->blocks[i].size_bytes - (i == odd);
        assert_int_equal(tiered_encoded_append(e, i, tiered_crc32c(0, bytes, size),
                                               bytes, size, &err),
                         0);
    }
    assert_int_equal(tiered_encoded_seal(e, false, &err), 0);
    return e;
}

static void test_received_objects(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout *layout = layout_of(mixed, TIERED_COUNT(mixed));
    struct tiered_masked *m = NULL;
    assert_int_equal(tiered_masked_create(layout, 4, 0, &m, &err), 0);
    struct tiered_encoded *e = object_of(m->words, UINT32_MAX);
    assert_int_equal(tiered_masked_check(m, e, &err), 0);
    tiered_encoded_unref(e);
    e = object_of(m->words, 1);
    assert_int_equal(tiered_masked_check(m, e, &err), -1);
    assert_int_equal(err.code, TIERED_EPEER);
    assert_non_null(strstr(err.text, "block 1 of a masked update has"));
    tiered_encoded_unref(e);
    e = object_of(layout, UINT32_MAX); /* an update that is not masked */
    assert_int_equal(tiered_masked_check(m, e, &err), -1);
    assert_int_equal(err.code, TIERED_ESHAPE);
    tiered_encoded_unref(e);
    tiered_masked_destroy(m);
    tiered_layout_unref(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_what_cannot_be_summed),
        cmocka_unit_test(test_received_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
