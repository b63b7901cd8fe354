/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors files: round trips, foreign files, and files that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/model/safetensors.h"

static char folder[64], path[96];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tiered-test-XXXXXX");
    if (!mkdtemp(folder)) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/m.safetensors", folder);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails if a temporary file was left behind */
}

/* A file of this header and `n` bytes 0, 1, 2 … of data. */
static void put(const char *header, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    uint64_t size = strlen(header);
    fwrite(&size, 8, 1, f);
    fwrite(header, 1, (size_t)size, f);
    for (size_t i = 0; i < n; i++) {
        fputc((int)(i & 255), f);
    }
    fclose(f);
}

static void put_raw(const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(data, 1, n, f);
    fclose(f);
}

/* The last read's error without the path that it must begin with. */
static const char *refusal(void)
{
    static struct tiered_error err;
    struct tiered_model *model = NULL;
    struct tiered_metadata metadata = {0};
    memset(&err, 0, sizeof(err));
    assert_int_equal(tiered_safetensors_read(path, &model, &metadata, &err), -1);
    assert_null(model);
    assert_int_equal(metadata.n, 0);
    char want[128];
    int n = snprintf(want, sizeof(want), "'%s': ", path);
    assert_memory_equal(err.text, want, (size_t)n);
    return err.text + n;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t w[] = {2, 3}, big[] = {300000}, none[] = {0, 4};
    tiered_layout_add(b, "fc\"1\\.w\xc3\xa9", TIERED_F32, TIERED_PARAMETER, 2, w, &err);
    tiered_layout_add(b, "half", TIERED_F16, TIERED_BUFFER, 2, w, &err);
    tiered_layout_add(b, "none", TIERED_F64, TIERED_PARAMETER, 2, none, &err);
    tiered_layout_add(b, "big", TIERED_F64, TIERED_CONTROL, 1, big, &err);
    tiered_layout_add(b, "scalar", TIERED_BOOL, TIERED_BUFFER, 0, NULL, &err);
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create(layout, &err);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        for (uint64_t k = 0; k < layout->blocks[i].size_bytes; k++) {
            model->data[layout->blocks[i].offset_bytes + k] = (uint8_t)(k * 31 + i);
        }
    }
    assert_int_equal(tiered_model_seal(model, &err), 0);
    struct tiered_metadata metadata = {0}, back = {0};
    tiered_metadata_set(&metadata, "num_examples", "12", &err);
    tiered_metadata_set(&metadata, "note", "line\n\"two\"", &err);
    tiered_metadata_set(&metadata, "tiered.role.half", "personal", &err); /* ignored */
    assert_int_equal(tiered_safetensors_write(path, model, &metadata, &err), 0);

    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *again = NULL;
    assert_int_equal(tiered_safetensors_read(path, &again, &back, &err), 0);
    assert_int_equal(tiered_layout_match(layout, again->layout, &err), 0);
    assert_true(tiered_digest_equal(&model->digest, &again->digest));
    assert_memory_equal(model->data, again->data, layout->m.data_bytes);
    assert_int_equal(back.n, 2);
    assert_string_equal(tiered_metadata_get(&back, "note"), "line\n\"two\"");

    TIERED_CLEANUP(tiered_safetensors_closep) struct tiered_safetensors *f = NULL;
    assert_int_equal(tiered_safetensors_open(path, &f, &err), 0);
    TIERED_FREE uint8_t *block = malloc(TIERED_BLOCK_BYTES);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *k = &layout->blocks[i];
        assert_int_equal(tiered_safetensors_read_block(f, i, block, &err), 0);
        assert_memory_equal(block, model->data + k->offset_bytes, k->size_bytes);
    }
    assert_int_equal(tiered_safetensors_read_block(f, layout->n_blocks, block, &err),
                     -1);
    assert_string_equal(
        tiered_metadata_get(tiered_safetensors_get_metadata(f), "num_examples"), "12");
    tiered_metadata_finish(&metadata);
    tiered_metadata_finish(&back);
}

/* The bytes of a small file, by hand. */
static void test_written_bytes(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t two[] = {2};
    tiered_layout_add(b, "a", TIERED_U8, TIERED_BUFFER, 1, two, &err);
    tiered_layout_add(b, "s", TIERED_F32, TIERED_BUFFER, 0, NULL, &err);
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create(layout, &err);
    memcpy(model->data, "xy", 2);
    memcpy(model->data + 64, "\0\0\x80\x3f", 4); /* 1.0 */
    assert_int_equal(tiered_safetensors_write(path, model, NULL, &err), 0);
    const char header[] =
        "{\"__metadata__\":{\"tiered.role.s\":\"buffer\"},"
        "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
        "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[2,6]}}";
    struct tiered_bytes got = {0};
    assert_int_equal(tiered_file_read(path, 4096, &got, &err), 0);
    uint64_t size;
    memcpy(&size, got.data, 8);
    assert_int_equal(size % 8, 0);
    assert_true(size - strlen(header) < 8);
    assert_memory_equal(got.data + 8, header, strlen(header));
    assert_int_equal(got.size, 8 + size + 6);
    assert_memory_equal(got.data + 8 + size, "xy\0\0\x80\x3f", 6);
    tiered_bytes_finish(&got);
}

/* Not sorted, not aligned, spaces, no metadata: all allowed. */
static void test_foreign_file(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    put("{\"late\": {\"dtype\":\"F32\", \"shape\":[2], \"data_offsets\":[3,11]},\n"
        " \"e\": {\"data_offsets\":[3,3],\"shape\":[0],\"dtype\":\"I64\"},"
        " \"early\": {\"shape\":[3],\"dtype\":\"I8\",\"data_offsets\":[0,3]}}  ",
        11);
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = NULL;
    struct tiered_metadata metadata = {0};
    assert_int_equal(tiered_safetensors_read(path, &model, &metadata, &err), 0);
    const struct tiered_manifest *m = &model->layout->m;
    assert_int_equal(m->n_tensors, 3);
    assert_string_equal(m->tensors[0].name, "early");
    assert_int_equal(m->tensors[0].role, TIERED_BUFFER);
    assert_string_equal(m->tensors[1].name, "e");
    assert_string_equal(m->tensors[2].name, "late");
    assert_int_equal(m->tensors[2].offset_bytes, 64);
    assert_memory_equal(model->data, "\0\1\2", 3);
    assert_memory_equal(model->data + 64, "\3\4\5\6\7\10\11\12", 8);
    assert_int_equal(metadata.n, 0);

    put("{}", 0);
    TIERED_CLEANUP(tiered_layout_unrefp) struct tiered_layout *layout = NULL;
    assert_int_equal(tiered_safetensors_layout(path, &layout, NULL, &err), 0);
    assert_int_equal(layout->m.n_tensors, 0);
}

#define W         "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define V(o)      ",\"v\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":" o "}}"
#define ONE(rest) "{\"w\":{" rest "}}"

static void test_headers_that_lie(void **state)
{
    (void)state;
    const struct {
        const char *header;
        size_t data;
        const char *text;
    } cases[] = {
        {"", 0, "not a safetensors file: its header is not a JSON object"},
        {"[]", 0, "not a safetensors file: its header is not a JSON object"},
        {"{\"w\":", 0, "the header is not JSON: unexpected token near end of file"},
        {W "} x", 8, "the header is not JSON: end of file expected near 'x'"},
        {W ",\"w\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[8,8]}}", 8,
         "the header is not JSON: duplicate object key near '\"w\"'"},
        {W "}", 7, "tensor 'w' ends at byte 8 of 7: the file is cut off"},
        {W "}", 9, "1 bytes follow the last tensor"},
        {W V("[7,11]"), 12, "tensor 'v' overlaps the one before it"},
        {W V("[9,13]"), 13, "tensor 'v' leaves a gap before it"},
        {W V("[0,4]"), 12, "tensor 'w' overlaps the one before it"},
        {W V("[8,13]"), 13,
         "tensor 'v': its shape needs 4 bytes, 'data_offsets' give it 5"},
        {W V("[12,8]"), 12, "tensor 'v': 'data_offsets' end before they begin"},
        {W V("[-1,4]"), 12, "tensor 'v': 'data_offsets' must be two integers from 0"},
        {W V("[8]"), 12, "tensor 'v': 'data_offsets' must be two integers from 0"},
        {W V("[8,12.0]"), 12, "tensor 'v': 'data_offsets' must be two integers from 0"},
        {W V("[8,1e999]"), 12,
         "the header is not JSON: real number overflow near '1e999'"},
        {W V("[8,99999999999999999999]"), 12,
         "the header is not JSON: too big integer near '99999999999999999999'"},
        {ONE("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,"
             "0]"),
         0, "tensor 'w': the shape's product overflows"},
        {ONE("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4,
         "tensor 'w': a length in 'shape' is not an integer from 0"},
        {ONE("\"dtype\":\"F32\",\"shape\":3,\"data_offsets\":[0,4]"), 4,
         "tensor 'w': 'shape' must be a list of lengths"},
        {ONE("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]"),
         4, "tensor 'w': rank 9; at most 8"},
        {ONE("\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]"), 4,
         "tensor 'w': dtype 'F8_E4M3' is not in this version; convert it to F16 or "
         "F32"},
        {ONE("\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4,
         "tensor 'w': unknown dtype 'f32'"},
        {ONE("\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]"), 4,
         "tensor 'w': 'dtype' must be a string"},
        {ONE("\"dtype\":\"F32\",\"shape\":[1]"), 4,
         "tensor 'w': must have 'dtype', 'shape' and 'data_offsets', no more"},
        {ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1"), 4,
         "tensor 'w': must have 'dtype', 'shape' and 'data_offsets', no more"},
        {"{\"w\":7}", 0,
         "tensor 'w': must have 'dtype', 'shape' and 'data_offsets', no more"},
        {"{\"\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "a tensor has an empty name"},
        {"{\"__metadata__\":7}", 0, "'__metadata__' must be an object"},
        {"{\"__metadata__\":{\"num_examples\":3}}", 0,
         "'__metadata__': the value of 'num_examples' must be a string"},
        {"{\"__metadata__\":{\"tiered.role.w\":\"boss\"},"
         "\"w\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1,
         "tensor 'w': unknown role 'boss'; one of parameter, buffer, control, "
         "personal"},
        {"{\"a\":[[[[]]]]}", 0, "the header is nested deeper than 3 at its byte 7"},
        {"{\"w\\u0000x\":{}}", 0,
         "the header is not JSON: NUL byte in object key not supported near "
         "'\"w\\u0000x\"'"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        put(cases[i].header, cases[i].data);
        const char *got = refusal();
        if (strcmp(got, cases[i].text) != 0) {
            print_error("case %zu\n", i);
        }
        assert_string_equal(got, cases[i].text);
    }
}

static void test_lengths_that_lie(void **state)
{
    (void)state;
    put_raw("", 0);
    assert_string_equal(refusal(), "not a safetensors file: it has 0 bytes");
    put_raw("\1\0\0\0\0\0\0", 7);
    assert_string_equal(refusal(), "not a safetensors file: it has 7 bytes");
    put_raw("\3\0\0\0\0\0\0\0{}", 10);
    assert_string_equal(refusal(), "the header has 3 bytes, but the file ends after 2");
    put_raw("\1\xe1\xf5\5\0\0\0\0{}", 10);
    assert_string_equal(refusal(), "not a safetensors file: its header would have "
                                   "100000001 bytes; at most 100000000");
    put_raw("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    assert_string_equal(refusal(), "not a safetensors file: its header would have "
                                   "18446744073709551615 bytes; at most 100000000");
    unlink(path);
    assert_string_equal(refusal(), "cannot open: No such file or directory");
}

/* Every prefix of a good file, and every byte of its header changed: an error or a
   model, never a crash. */
static void test_every_cut_and_flip(void **state)
{
    (void)state;
    put(W V("[8,12]"), 12);
    struct tiered_bytes good = {0};
    struct tiered_error err = {0};
    assert_int_equal(tiered_file_read(path, 4096, &good, &err), 0);
    for (size_t n = 0; n < good.size; n++) {
        put_raw(good.data, n);
        refusal();
    }
    for (size_t i = 0; i < good.size - 12; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct tiered_model *model = NULL;
            good.data[i] ^= (uint8_t)(1 << bit);
            put_raw(good.data, good.size);
            if (tiered_safetensors_read(path, &model, NULL, &err) == 0) {
                assert_int_equal(model->layout->m.n_tensors, 2);
            }
            tiered_model_unref(model);
            good.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    tiered_bytes_finish(&good);
}

static void test_write_errors(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    tiered_layout_add(b, "__metadata__", TIERED_F32, TIERED_PARAMETER, 0, NULL, &err);
    TIERED_CLEANUP(tiered_layout_unrefp)
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_int_equal(tiered_safetensors_write(path, model, NULL, &err), -1);
    assert_non_null(
        strstr(err.text, "a tensor cannot be named '__metadata__' in a file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_written_bytes),
        cmocka_unit_test(test_foreign_file),
        cmocka_unit_test(test_headers_that_lie),
        cmocka_unit_test(test_lengths_that_lie),
        cmocka_unit_test(test_every_cut_and_flip),
        cmocka_unit_test(test_write_errors),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
