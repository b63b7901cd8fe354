/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts, their blocks and digests; models; metadata. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/model/model.h"

#define MIB (1ull << 20)

struct row {
    const char *name;
    enum tiered_dtype dtype;
    enum tiered_role role;
    uint32_t rank;
    uint64_t shape[3];
};

static struct tiered_layout *build(const struct row *rows, size_t n,
                                   struct tiered_error *err)
{
    struct tiered_layout_builder *b = tiered_layout_build();
    assert_non_null(b);
    for (size_t i = 0; i < n; i++) {
        if (tiered_layout_add(b, rows[i].name, rows[i].dtype, rows[i].role,
                              rows[i].rank, rows[i].shape, err) < 0) {
            tiered_layout_builder_destroy(b);
            return NULL;
        }
    }
    return tiered_layout_seal(b, err);
}

static void check_block(const struct tiered_layout *layout, uint32_t i, uint64_t offset,
                        uint64_t size, uint32_t tensor, uint64_t element)
{
    const struct tiered_block *b = &layout->blocks[i];
    assert_int_equal(b->index, i);
    assert_int_equal(b->offset_bytes, offset);
    assert_int_equal(b->size_bytes, size);
    assert_int_equal(b->first_tensor, tensor);
    assert_int_equal(b->first_element, element);
    assert_int_equal(b->n_elements * tiered_dtype_size(b->dtype), size);
}

static void test_places(void **state)
{
    (void)state;
    const struct row rows[] = {
        {"w", TIERED_F32, TIERED_PARAMETER, 2, {3, 5}},    /* 60 bytes at 0 */
        {"none", TIERED_F32, TIERED_BUFFER, 1, {0}},       /* nothing at 60 */
        {"b", TIERED_F32, TIERED_PARAMETER, 0, {0}},       /* 4 bytes at 60 */
        {"mean", TIERED_F32, TIERED_BUFFER, 1, {2}},       /* 8 bytes at 64 */
        {"n", TIERED_I64, TIERED_BUFFER, 1, {1}},          /* 8 bytes at 128 */
        {"gone", TIERED_F16, TIERED_PARAMETER, 2, {7, 0}}, /* nothing at 192 */
        {"m", TIERED_I64, TIERED_BUFFER, 1, {2}},          /* 16 bytes at 192 */
    };
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = build(rows, TIERED_COUNT(rows), &err);
    assert_non_null(layout);
    const uint64_t offsets[] = {0, 60, 60, 64, 128, 192, 192};
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        assert_int_equal(layout->m.tensors[i].offset_bytes, offsets[i]);
        assert_string_equal(layout->m.tensors[i].name, rows[i].name);
    }
    assert_int_equal(layout->m.data_bytes, 208);
    assert_int_equal(layout->n_blocks, 4);
    check_block(layout, 0, 0, 64, 0, 0); /* w and b share it */
    check_block(layout, 1, 64, 8, 3, 0); /* another role */
    check_block(layout, 2, 128, 8, 4, 0);
    check_block(layout, 3, 192, 16, 6, 0); /* not next to the one before */
}

static void test_big_tensors_are_split(void **state)
{
    (void)state;
    const struct row rows[] = {
        {"a", TIERED_F64, TIERED_PARAMETER, 1, {MIB / 8 - 1}},
        {"b", TIERED_F64, TIERED_PARAMETER, 1, {2 * MIB / 8}},
        {"c", TIERED_F64, TIERED_PARAMETER, 1, {3}},
    };
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = build(rows, 3, &err);
    assert_non_null(layout);
    assert_int_equal(layout->n_blocks, 4);
    check_block(layout, 0, 0, MIB, 0, 0);
    check_block(layout, 1, MIB, MIB, 1, 1);
    check_block(layout, 2, 2 * MIB, MIB, 1, MIB / 8 + 1);
    check_block(layout, 3, 3 * MIB, 16, 2, 1);
}

static void test_empty(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = build(NULL, 0, &err);
    assert_non_null(layout);
    assert_int_equal(layout->n_blocks, 0);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    assert_int_equal(tiered_model_seal(model, &err), 0);
    assert_false(tiered_digest_is_none(&model->digest));
}

static void test_refusals(void **state)
{
    (void)state;
    char longest[258];
    memset(longest, 'x', 257);
    longest[257] = 0;
    const struct {
        struct row row;
        enum tiered_code code;
        const char *text;
    } bad[] = {
        {{"", TIERED_F32, TIERED_PARAMETER, 0, {0}},
         TIERED_EINVAL,
         "a tensor has an empty name"},
        {{longest, TIERED_F32, TIERED_PARAMETER, 0, {0}},
         TIERED_EINVAL,
         "tensor 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…': a name of 257 bytes; at "
         "most 255"},
        {{"a\xc0\x80", TIERED_F32, TIERED_PARAMETER, 0, {0}},
         TIERED_EINVAL,
         "a tensor's name is not UTF-8 at its byte 1"},
        {{"\xed\xa0\x80", TIERED_F32, TIERED_PARAMETER, 0, {0}},
         TIERED_EINVAL,
         "a tensor's name is not UTF-8 at its byte 0"},
        {{"ab\xe2\x82", TIERED_F32, TIERED_PARAMETER, 0, {0}},
         TIERED_EINVAL,
         "a tensor's name is not UTF-8 at its byte 2"},
        {{"a\nb", TIERED_F32, TIERED_PARAMETER, 0, {0}},
         TIERED_EINVAL,
         "a tensor's name has a control character at its byte 1"},
        {{"w", TIERED_N_DTYPES, TIERED_PARAMETER, 0, {0}},
         TIERED_EINVAL,
         "tensor 'w': unknown dtype or role"},
        {{"w", TIERED_F32, TIERED_PARAMETER, 9, {0}},
         TIERED_EINVAL,
         "tensor 'w': rank 9; at most 8"},
        {{"w", TIERED_F32, TIERED_PARAMETER, 2, {1ull << 33, 1ull << 33}},
         TIERED_EINVAL,
         "tensor 'w': the shape's product overflows"},
        {{"w", TIERED_F32, TIERED_PARAMETER, 1, {1ull << 62}},
         TIERED_ENOMEM,
         "tensor 'w' is larger than 1 TiB"},
    };
    for (size_t i = 0; i < TIERED_COUNT(bad); i++) {
        struct tiered_error err = {0};
        assert_null(build(&bad[i].row, 1, &err));
        assert_int_equal(err.code, bad[i].code);
        assert_string_equal(err.text, bad[i].text);
    }
    const struct row twice[] = {{"w", TIERED_F32, TIERED_PARAMETER, 0, {0}},
                                {"v", TIERED_F32, TIERED_PARAMETER, 0, {0}},
                                {"w", TIERED_F32, TIERED_PARAMETER, 0, {0}}};
    struct tiered_error err = {0};
    assert_null(build(twice, 3, &err));
    assert_string_equal(err.text, "two tensors are named 'w'");
    const struct row huge[] = {{"w", TIERED_U8, TIERED_BUFFER, 1, {1ull << 40}},
                               {"v", TIERED_U8, TIERED_BUFFER, 1, {1}}};
    assert_null(build(huge, 2, &err));
    assert_string_equal(err.text, "tensor 'v' makes the model larger than 1 TiB");
}

static void test_match(void **state)
{
    (void)state;
    const struct row rows[] = {{"w", TIERED_F32, TIERED_PARAMETER, 2, {2, 3}},
                               {"b", TIERED_F32, TIERED_PARAMETER, 1, {3}}};
    struct row other[3] = {rows[0], rows[1], rows[1]};
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *want = build(rows, 2, &err);
    const struct {
        int at;
        struct row row;
        size_t n;
        const char *text;
    } cases[] = {
        {0, rows[0], 2, NULL},
        {1,
         {"c", TIERED_F32, TIERED_PARAMETER, 1, {3}},
         2,
         "tensor 'c' stands where 'b' is expected"},
        {0,
         {"w", TIERED_F32, TIERED_PARAMETER, 2, {3, 2}},
         2,
         "tensor 'w' is F32 [3, 2], expected F32 [2, 3]"},
        {0,
         {"w", TIERED_F16, TIERED_PARAMETER, 2, {2, 3}},
         2,
         "tensor 'w' is F16 [2, 3], expected F32 [2, 3]"},
        {1,
         {"b", TIERED_F32, TIERED_CONTROL, 1, {3}},
         2,
         "tensor 'b' has the role 'control', expected 'parameter'"},
        {0, rows[0], 1, "tensor 'b' is missing"},
        {2,
         {"d", TIERED_F32, TIERED_PARAMETER, 0, {0}},
         3,
         "tensor 'd' is not expected"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        memcpy(other, rows, sizeof(rows));
        other[cases[i].at] = cases[i].row;
        TIERED_CLEANUP(tiered_layout_unrefp)
        struct tiered_layout *got = build(other, cases[i].n, &err);
        assert_non_null(got);
        assert_int_equal(tiered_layout_match(want, got, &err), cases[i].text ? -1 : 0);
        if (cases[i].text) {
            assert_int_equal(err.code, TIERED_ESHAPE);
            assert_string_equal(err.text, cases[i].text);
            assert_false(tiered_digest_equal(&want->digest, &got->digest));
        }
    }
}

static void test_copy(void **state)
{
    (void)state;
    const struct row rows[] = {{"w", TIERED_F32, TIERED_PARAMETER, 2, {2, 3}},
                               {"n", TIERED_I64, TIERED_BUFFER, 0, {0}}};
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *a = build(rows, 2, &err);
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *b = tiered_layout_copy(&a->m, &err);
    assert_non_null(b);
    assert_int_equal(tiered_layout_match(a, b, &err), 0);
    struct tiered_tensor tensors[2] = {a->m.tensors[0], a->m.tensors[1]};
    struct tiered_manifest m = a->m;
    m.tensors = tensors;
    tensors[1].offset_bytes = 32; /* not a multiple of 64 */
    assert_null(tiered_layout_copy(&m, &err));
    assert_string_equal(err.text,
                        "tensor 'n': its size or offset is not what its place "
                        "and shape give");
    tensors[1] = a->m.tensors[1];
    m.data_bytes--;
    assert_null(tiered_layout_copy(&m, &err));
    assert_string_equal(err.text, "the manifest's data_bytes does not fit its tensors");
    tensors[0].name = NULL;
    assert_null(tiered_layout_copy(&m, &err));
    assert_string_equal(err.text, "a tensor has no name");
}

static void test_model(void **state)
{
    (void)state;
    const struct row rows[] = {{"w", TIERED_F32, TIERED_PARAMETER, 1, {3}},
                               {"n", TIERED_I64, TIERED_BUFFER, 1, {100000}}};
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *l = build(rows, 2, &err);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *a = tiered_model_create(l, &err);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *b = tiered_model_create(l, &err);
    assert_true((uintptr_t)a->data % TIERED_ALIGN == 0);
    for (uint64_t i = 0; i < l->m.data_bytes; i++) {
        assert_int_equal(a->data[i], 0);
    }
    assert_int_equal(tiered_model_seal(a, &err), 0);
    b->data[20] = 1; /* between the tensors: no part of the model */
    assert_int_equal(tiered_model_seal(b, &err), 0);
    assert_true(tiered_digest_equal(&a->digest, &b->digest));
    b->data[l->m.data_bytes - 1] = 1;
    assert_int_equal(tiered_model_seal(b, &err), 0);
    assert_false(tiered_digest_equal(&a->digest, &b->digest));
    tiered_model_unref(tiered_model_ref(a));
    assert_int_equal(a->data[0], 0); /* still there */
}

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i < TIERED_N_DTYPES; i++) {
        enum tiered_dtype dtype = TIERED_N_DTYPES;
        assert_true(
            tiered_dtype_parse(tiered_dtype_name((enum tiered_dtype)i), &dtype));
        assert_int_equal(dtype, i);
    }
    enum tiered_dtype dtype;
    enum tiered_role role;
    assert_false(tiered_dtype_parse("f32", &dtype));
    assert_true(tiered_role_parse("personal", &role));
    assert_int_equal(role, TIERED_PERSONAL);
    assert_false(tiered_role_parse("", &role));
    assert_int_equal(tiered_role_default(TIERED_BF16), TIERED_PARAMETER);
    assert_int_equal(tiered_role_default(TIERED_I32), TIERED_BUFFER);
}

static void test_metadata(void **state)
{
    (void)state;
    struct tiered_metadata m = {0};
    struct tiered_error err = {0};
    uint64_t n = 7;
    assert_int_equal(tiered_metadata_num_examples(&m, 1, &n, &err), 0);
    assert_int_equal(n, 1);
    char key[8];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_int_equal(tiered_metadata_set(&m, key, key, &err), 0);
    }
    assert_int_equal(tiered_metadata_set(&m, "k3", "three", &err), 0);
    assert_int_equal(m.n, 20);
    assert_string_equal(tiered_metadata_get(&m, "k3"), "three");
    assert_string_equal(m.items[19].key, "k19");
    assert_null(tiered_metadata_get(&m, "k20"));
    const char *const good[] = {"0", "12", "9007199254740992"};
    const uint64_t values[] = {0, 12, 1ull << 53};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(tiered_metadata_set(&m, "num_examples", good[i], &err), 0);
        assert_int_equal(tiered_metadata_num_examples(&m, 1, &n, &err), 0);
        assert_int_equal(n, values[i]);
    }
    const char *const bad[] = {
        "", "-1", "1.5", " 1", "1e3", "9007199254740993", "99999999999999999999999"};
    for (size_t i = 0; i < TIERED_COUNT(bad); i++) {
        char want[128];
        snprintf(want, sizeof(want),
                 "num_examples is '%s'; it must be an integer in 0..2^53", bad[i]);
        assert_int_equal(tiered_metadata_set(&m, "num_examples", bad[i], &err), 0);
        assert_int_equal(tiered_metadata_num_examples(&m, 1, &n, &err), -1);
        assert_string_equal(err.text, want);
    }
    tiered_metadata_finish(&m);
    assert_int_equal(m.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),   cmocka_unit_test(test_big_tensors_are_split),
        cmocka_unit_test(test_empty),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_match),    cmocka_unit_test(test_copy),
        cmocka_unit_test(test_model),    cmocka_unit_test(test_names),
        cmocka_unit_test(test_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
