/* SPDX-License-Identifier: Apache-2.0 */
/* Data that the trainers read, and data that they must refuse: nothing crashes, and
   the message names the file and the place. */
#include "trainer_fixture.h"

#include <string.h>
#include <zlib.h>

#include "tiered/random.h"

/* The message of a softmax over `data`, "" when it loads. */
static const char *load_with(struct tiered_trainer_config config)
{
    static struct tiered_error err;
    struct leaf leaf;
    memset(&err, 0, sizeof(err));
    if (leaf_start(&leaf, "softmax", &config, 0, 1, &err) == 0) {
        leaf_close(&leaf);
    } else {
        assert_true(err.code != TIERED_OK && err.text[0]);
    }
    return err.text;
}

static const char *load(const char *data)
{
    return load_with(fixture_config(data));
}

/* The message, of which `%s` is the path. */
static void expect_message(const char *message, const char *path, const char *format)
{
    char want[512];
    const char *mark = strstr(format, "%s");
    snprintf(want, sizeof(want), "%.*s%s%s", (int)(mark ? mark - format : 0), format,
             mark ? path : "", mark ? mark + 2 : format);
    assert_string_equal(message, want);
}

static void put_be32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

enum { IMAGES = 40, SIDE = 2, IMAGE_BYTES = 16 + IMAGES * SIDE * SIDE };

struct idx {
    uint8_t images[IMAGE_BYTES], labels[8 + IMAGES];
};

/* 40 images of 2 x 2 in 4 classes: one bright pixel says which. */
static void fill_idx(struct idx *idx)
{
    memset(idx, 0, sizeof(*idx));
    put_be32(idx->images, 0x803);
    put_be32(idx->images + 4, IMAGES);
    put_be32(idx->images + 8, SIDE);
    put_be32(idx->images + 12, SIDE);
    put_be32(idx->labels, 0x801);
    put_be32(idx->labels + 4, IMAGES);
    for (int i = 0; i < IMAGES; i++) {
        idx->labels[8 + i] = (uint8_t)(i % 4);
        idx->images[16 + 4 * i + i % 4] = 255;
    }
}

static void put_idx(const char *folder, const struct idx *idx, size_t n_images,
                    size_t n_labels)
{
    put_bytes(folder, "train-images-idx3-ubyte", idx->images, n_images);
    put_bytes(folder, "train-labels-idx1-ubyte", idx->labels, n_labels);
}

static void test_idx_loads(void **state)
{
    struct idx idx;
    fill_idx(&idx);
    put_idx(*state, &idx, sizeof(idx.images), sizeof(idx.labels));
    assert_string_equal(load(*state), "");
    char path[256];
    snprintf(path, sizeof(path), "%s/train-images-idx3-ubyte", (char *)*state);
    assert_string_equal(load(path), ""); /* a file, its labels found beside it */

    struct tiered_trainer_config config = fixture_config(*state);
    struct leaf leaf;
    config.local_epochs = 60;
    config.batch_size = 4;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
    leaf_train(&leaf, w, out);
    struct tiered_train_result result = leaf_evaluate(&leaf, out);
    assert_int_equal(result.num_examples, 4);
    assert_true(metric(&result, "accuracy") == 1);
    free(w);
    free(out);
    leaf_close(&leaf);
}

static void test_idx_cut_anywhere(void **state)
{
    struct idx idx;
    fill_idx(&idx);
    for (size_t n = 0; n < sizeof(idx.images); n++) {
        put_idx(*state, &idx, n, sizeof(idx.labels));
        assert_non_null(strstr(load(*state), "/train-images-idx3-ubyte: "));
    }
    for (size_t n = 0; n < sizeof(idx.labels); n++) {
        put_idx(*state, &idx, sizeof(idx.images), n);
        assert_non_null(strstr(load(*state), "/train-labels-idx1-ubyte: "));
    }
}

static size_t deflate_file(uint8_t *out, size_t capacity, const void *data, size_t n)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)data;
    z.avail_in = (unsigned)n;
    z.next_out = out;
    z.avail_out = (unsigned)capacity;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t size = z.total_out;
    deflateEnd(&z);
    return size;
}

static void test_idx_compressed(void **state)
{
    struct idx idx;
    uint8_t packed[1024];
    fill_idx(&idx);
    size_t n = deflate_file(packed, sizeof(packed), idx.images, sizeof(idx.images));
    put_bytes(*state, "train-labels-idx1-ubyte", idx.labels, sizeof(idx.labels));
    put_bytes(*state, "train-images-idx3-ubyte.gz", packed, n);
    assert_string_equal(load(*state), "");
    for (size_t cut = 0; cut < n; cut++) {
        put_bytes(*state, "train-images-idx3-ubyte.gz", packed, cut);
        assert_non_null(strstr(load(*state), "/train-images-idx3-ubyte.gz: "));
    }
    packed[n - 6] ^= 1; /* the checksum behind the data */
    put_bytes(*state, "train-images-idx3-ubyte.gz", packed, n);
    assert_non_null(strstr(load(*state), "cannot be read: "));
}

/* Few bytes that claim to be many are refused before memory is asked for. */
static void test_idx_compressed_lies(void **state)
{
    struct idx idx;
    uint8_t packed[1024];
    char path[256];
    fill_idx(&idx);
    put_be32(idx.images + 4, 1u << 30);
    put_be32(idx.images + 8, 4096);
    put_be32(idx.images + 12, 4096);
    size_t n = deflate_file(packed, sizeof(packed), idx.images, sizeof(idx.images));
    put_bytes(*state, "train-labels-idx1-ubyte", idx.labels, sizeof(idx.labels));
    snprintf(path, sizeof(path), "%s",
             put_bytes(*state, "train-images-idx3-ubyte.gz", packed, n));
    char want[512];
    snprintf(want, sizeof(want),
             "%s: says that it holds 18014398509482000 bytes, which its %zu bytes do "
             "not",
             path, n);
    assert_string_equal(load(*state), want);
}

static void test_idx_refuses(void **state)
{
    static const struct {
        size_t at; /* from the start of images; sizeof images on: in labels */
        uint32_t value;
        const char *file, *message;
    } cases[] = {
        {0, 0x802, "images-idx3", "" /* rank 2 is 40 x 2: the size does not fit */},
        {0, 0x801, "images-idx3",
         "%s: is not an IDX file of images in unsigned bytes: it begins 00 00 08 01, "
         "not 00 00 08 03"},
        {0, 0xd03, "images-idx3",
         "%s: is not an IDX file of images in unsigned bytes: it begins 00 00 0d 03, "
         "not 00 00 08 03"},
        {0, 0x1f8b0803, "images-idx3", ""},
        {4, 0, "images-idx3", "%s: holds 0 images"},
        {4, 41, "images-idx3",
         "%s: says that it holds 180 bytes, which its 176 bytes do not"},
        {4, 39, "images-idx3",
         "%s: says that it holds 172 bytes, which its 176 bytes do not"},
        {4, 0xffffffff, "images-idx3", "%s: holds 4294967295 images"},
        {8, 0, "images-idx3", "%s: has images of no pixels or more than 16777216"},
        {8, 0xffffffff, "images-idx3",
         "%s: has images of no pixels or more than 16777216"},
        {8, 1 << 23, "images-idx3",
         "%s: says that it holds 671088656 bytes, which its 176 bytes do not"},
        {IMAGE_BYTES, 0x803, "labels-idx1",
         "%s: is not an IDX file of labels in unsigned bytes: it begins 00 00 08 03, "
         "not 00 00 08 01"},
        {IMAGE_BYTES + 4, 41, "labels-idx1",
         "%s: says that it holds 49 bytes, which its 48 bytes do not"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct idx idx;
        char path[256];
        fill_idx(&idx);
        put_be32(cases[i].at < IMAGE_BYTES ? idx.images + cases[i].at
                                           : idx.labels + (cases[i].at - IMAGE_BYTES),
                 cases[i].value);
        put_idx(*state, &idx, sizeof(idx.images), sizeof(idx.labels));
        snprintf(path, sizeof(path), "%s/train-%s-ubyte", (char *)*state,
                 cases[i].file);
        const char *message = load(*state);
        if (cases[i].message[0]) {
            expect_message(message, path, cases[i].message);
        } else {
            assert_non_null(strstr(message, path));
        }
    }
}

static void test_idx_counts_differ(void **state)
{
    struct idx idx;
    char path[256];
    fill_idx(&idx);
    put_be32(idx.labels + 4, 39);
    put_idx(*state, &idx, sizeof(idx.images), sizeof(idx.labels) - 1);
    snprintf(path, sizeof(path), "%s/train-images-idx3-ubyte", (char *)*state);
    expect_message(load(*state), path,
                   "%s: holds 40 images, but its labels' file holds 39 labels");
    snprintf(path, sizeof(path), "%s/train-labels-idx1-ubyte", (char *)*state);
    assert_int_equal(remove(path), 0);
    expect_message(load(*state), *state,
                   "%s: holds train-images-idx3-ubyte but no "
                   "train-labels-idx1-ubyte[.gz]");
}

static void test_csv_loads(void **state)
{
    static const char *const good[] = {
        "1,2,a\n3,4,b\n",
        "x,y,kind\n1,2,a\n3,4,b\n",
        "\xef\xbb\xbfx,y,kind\r\n1,2,a\r\n\r\n3,4,b",
        " 1 ,\t2, \"a, b\"\n3e-2,-.4,\"say \"\"b\"\"\"\n",
        "1,0\n2,1\n",
    };
    for (size_t i = 0; i < TIERED_COUNT(good); i++) {
        struct tiered_trainer_config config =
            fixture_config(put_text(*state, "good.csv", good[i]));
        config.test_fraction = 0;
        assert_string_equal(load_with(config), "");
    }
}

static void test_csv_refuses(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "%s: holds no examples"},
        {"\n\n", "%s: holds no examples"},
        {"x,y,kind\n", "%s: holds no examples"},
        {"x\n1\n", "%s:1:1: one column only; an example has numbers and a label, with "
                   "commas between"},
        {"1,2,a\n3,x4,b\n", "%s:2:3: 'x4' is not a number"},
        {"1,2,a\nnan,4,b\n", "%s:2:1: 'nan' is not a number"},
        {"1,2,a\n3,inf,b\n", "%s:2:3: 'inf' is not a number"},
        {"1,2,a\n3, 1e39 ,b\n",
         "%s:2:4: '1e39' is beyond what a 32-bit float can hold"},
        {"1,2,a\n3,,b\n", "%s:2:3: the cell is empty; fill in missing values"},
        {"1,2,a\n3,4,\n", "%s:2:5: the label is empty"},
        {"1,2,a\n3,b\n", "%s:2:1: 2 cells, where the first line has 3"},
        {"1,2,a\n3,4,5,b\n", "%s:2:1: 4 cells, where the first line has 3"},
        {"1,2,a\n3,4,\"b\n", "%s:2:5: a quote is not closed on its line"},
        {"1,2,a\n3,4,\"b\"c\n", "%s:2:8: a comma must follow the quoted cell"},
        {"abc,2,1\n3,4,0\n", "%s:1:1: 'abc' is not a number"},
        {"0,1,kind\n1,2,0\n3,4,1\n",
         "%s:1:1: its label 'kind' is a word where all others are integers; if this is "
         "a header, name the columns in words"},
        {"1,2,a\n3,4,a\n", "%s: all labels are the same; there is nothing to learn"},
    };
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        const char *path = put_text(*state, "bad.csv", cases[i].text);
        struct tiered_trainer_config config = fixture_config(path);
        config.test_fraction = 0;
        expect_message(load_with(config), path, cases[i].message);
    }
    const char zero[] = "1,2,a\n3,\0004,b\n";
    const char *path = put_bytes(*state, "zero.csv", zero, sizeof(zero) - 1);
    expect_message(load(path), path, "%s:2:3: a zero byte: this is not text");
}

static void test_csv_label_column(void **state)
{
    static const struct {
        const char *label, *message;
        uint64_t n_numbers; /* (inputs + 1) * classes */
    } cases[] = {
        {NULL, "", 3 * 3},
        {"kind", "", 3 * 3},
        {"x", "", 3 * 2}, /* two values of x */
        {"0", "", 3 * 2},
        {"2", "", 3 * 3},
        {"3", "%s:1:1: no column 3; the 3 columns count from 0", 0},
        {"sort", "%s:1:1: no column is named 'sort'", 0},
    };
    const char *path = put_text(*state, "t.csv", "x,y,kind\n1,2,10\n3,4,20\n1,4,30\n");
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        struct tiered_trainer_config config = fixture_config(path);
        config.label = cases[i].label;
        config.test_fraction = 0;
        if (cases[i].message[0]) {
            expect_message(load_with(config), path, cases[i].message);
            continue;
        }
        struct leaf leaf;
        leaf_open(&leaf, "softmax", &config, 0, 1);
        assert_int_equal(leaf.manifest->data_bytes, 4 * cases[i].n_numbers);
        leaf_close(&leaf);
    }
}

static void test_csv_test_set_must_fit(void **state)
{
    put_text(*state, "train.csv", "1,2,a\n3,4,b\n");
    const char *path = put_text(*state, "test.csv", "1,2,3,a\n");
    expect_message(load(*state), path,
                   "%s: an example has 3 numbers, but in the training set 2");
    put_text(*state, "test.csv", "1,2,a\n");
    assert_string_equal(load(*state), "");
}

/* Build a safetensors file: header text, then the bytes. */
static const char *put_tensors(const char *folder, const char *header, const void *data,
                               size_t n)
{
    uint8_t file[2048];
    uint64_t length = strlen(header);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    memcpy(file + 8 + length, data, n);
    return put_bytes(folder, "d.safetensors", file, 8 + length + n);
}

#define X_HEADER "\"x\":{\"dtype\":\"F32\",\"shape\":[4,2],\"data_offsets\":[0,32]}"
#define Y_HEADER "\"y\":{\"dtype\":\"I64\",\"shape\":[4],\"data_offsets\":[32,64]}"

struct tensors {
    float x[8];
    int64_t y[4];
};

static void test_safetensors_loads(void **state)
{
    const struct tensors data = {{1, 2, 3, 4, 5, 6, 7, 8}, {-1, 7, -1, 7}};
    const char *path =
        put_tensors(*state, "{" X_HEADER "," Y_HEADER "}", &data, sizeof(data));
    struct tiered_trainer_config config = fixture_config(path);
    struct leaf leaf;
    config.test_fraction = 0.25;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    assert_int_equal(leaf.manifest->data_bytes, 4 * 3 * 2);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
    assert_int_equal(leaf_train(&leaf, w, out).num_examples, 3);
    assert_int_equal(leaf_evaluate(&leaf, w).num_examples, 1);
    free(w);
    free(out);
    leaf_close(&leaf);
    uint8_t file[512];
    FILE *whole = fopen(path, "rb");
    size_t n = fread(file, 1, sizeof(file), whole);
    fclose(whole);
    for (size_t cut = 0; cut < n; cut++) {
        path = put_bytes(*state, "cut.safetensors", file, cut);
        assert_non_null(strstr(load(path), "/cut.safetensors: "));
    }
}

static void test_safetensors_test_set_inside(void **state)
{
    const uint8_t data[] = {0, 255, 0, 255, 0, 1, 0, 1, 255, 0, 1, 0};
    const char *path = put_tensors(
        *state,
        "{\"x_train\":{\"dtype\":\"U8\",\"shape\":[4,1,1],\"data_offsets\":[0,4]},"
        "\"y_train\":{\"dtype\":\"U8\",\"shape\":[4,1],\"data_offsets\":[4,8]},"
        "\"x_test\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[8,10]},"
        "\"y_test\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[10,12]}}",
        data, sizeof(data));
    struct tiered_trainer_config config = fixture_config(path);
    struct leaf leaf;
    config.local_epochs = 100;
    leaf_open(&leaf, "softmax", &config, 0, 1);
    float *w = leaf_initial(&leaf), *out = leaf_model(&leaf);
    assert_int_equal(leaf_train(&leaf, w, out).num_examples, 4);
    struct tiered_train_result result = leaf_evaluate(&leaf, out);
    assert_int_equal(result.num_examples, 2);
    assert_true(metric(&result, "accuracy") == 1);
    free(w);
    free(out);
    leaf_close(&leaf);
}

static void test_safetensors_refuses(void **state)
{
    static const struct {
        const char *header, *message;
    } cases[] = {
        {"{}", "%s: has no tensor x (or x_train, features, images)"},
        {"{" X_HEADER "}", "%s: has no tensor y (or y_train, labels)"},
        {"[]", "%s: its header is not JSON"},
        {"{\"x\":{\"dtype\":\"F16\",\"shape\":[4,2],\"data_offsets\":[0,16]}," Y_HEADER
         "}",
         "%s: tensor 'x' is F16; F32 and U8 are read"},
        {"{" X_HEADER
         ",\"y\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
         "%s: tensor 'y' is F32; labels are U8, I32 or I64"},
        {"{" X_HEADER
         ",\"y\":{\"dtype\":\"I64\",\"shape\":[3],\"data_offsets\":[32,56]}}",
         "%s: tensor 'y' holds 3 labels for 4 examples"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[0,2],\"data_offsets\":[0,0]}," Y_HEADER
         "}",
         "%s: tensor 'x' holds no examples or more than 1073741824"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4,0],\"data_offsets\":[0,0]}," Y_HEADER
         "}",
         "%s: tensor 'x' has examples of no numbers or more than 16777216"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4,3],\"data_offsets\":[0,32]}," Y_HEADER
         "}",
         "%s: tensor 'x': its offsets do not fit its shape or the file"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4,2],\"data_offsets\":[64,96]}," Y_HEADER
         "}",
         "%s: tensor 'x': its offsets do not fit its shape or the file"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4,2],\"data_offsets\":[32,0]}," Y_HEADER
         "}",
         "%s: tensor 'x': its offsets do not fit its shape or the file"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":"
         "[0,0]}," Y_HEADER "}",
         "%s: tensor 'x': its offsets do not fit its shape or the file"},
    };
    struct tensors data = {{1, 2, 3, 4, 5, 6, 7, 8}, {0, 1, 0, 1}};
    for (size_t i = 0; i < TIERED_COUNT(cases); i++) {
        const char *path = put_tensors(*state, cases[i].header, &data, sizeof(data));
        expect_message(load(path), path, cases[i].message);
    }
    data.x[5] = NAN;
    const char *path =
        put_tensors(*state, "{" X_HEADER "," Y_HEADER "}", &data, sizeof(data));
    struct tiered_trainer_config config = fixture_config(path);
    config.test_fraction = 0;
    expect_message(load_with(config), path, "%s: example 2 is not finite at number 1");
    const uint64_t huge = UINT64_MAX;
    path = put_bytes(*state, "huge.safetensors", &huge, sizeof(huge));
    expect_message(load(path), path,
                   "%s: says that its header has 18446744073709551615 bytes, which its "
                   "8 bytes do not hold");
}

static void test_missing_and_unknown(void **state)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/none.csv", (char *)*state);
    expect_message(load(path), path, "%s: No such file or directory");
    expect_message(load(*state), *state,
                   "%s: holds no train-images-idx3-ubyte[.gz], train.csv or "
                   "train.safetensors");
    const char *odd = put_text(*state, "data.bin", "hello");
    expect_message(load(odd), odd,
                   "%s: is neither idx, .csv nor .safetensors; say which with format");
    put_text(*state, "train.csv", "1,2,a\n3,4,b\n");
    struct tiered_trainer_config config = fixture_config(*state);
    config.format_given = true;
    config.format = TIERED_SAFETENSORS;
    expect_message(load_with(config), *state, "%s: holds no train.safetensors");
    config.format = TIERED_CSV;
    assert_string_equal(load_with(config), "");
    assert_string_equal(load("/dev/zero"), "/dev/zero: is not a regular file");
}

static void test_too_few_for_the_leaves(void **state)
{
    struct tiered_trainer_config config =
        fixture_config(put_text(*state, "t.csv", "1,2,a\n3,4,b\n5,6,a\n"));
    struct tiered_error err = {0};
    struct leaf leaf;
    config.test_fraction = 0;
    assert_int_equal(leaf_start(&leaf, "softmax", &config, 3, 4, &err), -1);
    assert_string_equal(err.text, "3 training examples are too few for 4 leaves");
    config.shard = "1/3";
    leaf_open(&leaf, "softmax", &config, 3, 4);
    leaf_close(&leaf);
}

/* Bytes changed at random: the file loads or is refused, and nothing else happens. */
static void check_damaged(const char *folder, const char *name, const uint8_t *file,
                          size_t n)
{
    struct tiered_rng rng;
    const uint8_t key[32] = {11};
    uint8_t damaged[2048];
    tiered_rng_init(&rng, key);
    for (int round = 0; round < 400; round++) {
        memcpy(damaged, file, n);
        for (uint64_t i = tiered_rng_below(&rng, 4) + 1; i > 0; i--) {
            damaged[tiered_rng_below(&rng, n)] = (uint8_t)tiered_rng_u64(&rng);
        }
        size_t cut = round % 3 ? n : tiered_rng_below(&rng, n + 1);
        const char *message = load(put_bytes(folder, name, damaged, cut));
        assert_true(strlen(message) < 256);
    }
}

static void test_damaged_files(void **state)
{
    const char csv[] = "a,b,kind\n1.5,-2e3,\"x\"\n3,4,y\n5,0.6,x\n7,8,y\n";
    const char header[] = "{" X_HEADER "," Y_HEADER "}";
    const struct tensors data = {{1, 2, 3, 4, 5, 6, 7, 8}, {0, 1, 0, 1}};
    const uint64_t length = strlen(header);
    uint8_t tensors[512], packed[1024];
    struct idx idx;
    check_damaged(*state, "d.csv", (const uint8_t *)csv, strlen(csv));
    memcpy(tensors, &length, 8);
    memcpy(tensors + 8, header, length);
    memcpy(tensors + 8 + length, &data, sizeof(data));
    check_damaged(*state, "d.safetensors", tensors, 8 + length + sizeof(data));
    fill_idx(&idx);
    put_bytes(*state, "d-labels-idx1", idx.labels, sizeof(idx.labels));
    check_damaged(*state, "d-images-idx3", idx.images, sizeof(idx.images));
    size_t n = deflate_file(packed, sizeof(packed), idx.images, sizeof(idx.images));
    put_bytes(*state, "d-labels-idx1.gz", idx.labels, sizeof(idx.labels));
    check_damaged(*state, "d-images-idx3.gz", packed, n);
}

int main(void)
{
#define IN_FOLDER(test)                                                                \
    cmocka_unit_test_setup_teardown(test, folder_create, folder_remove)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_idx_loads),
        IN_FOLDER(test_idx_cut_anywhere),
        IN_FOLDER(test_idx_compressed),
        IN_FOLDER(test_idx_compressed_lies),
        IN_FOLDER(test_idx_refuses),
        IN_FOLDER(test_idx_counts_differ),
        IN_FOLDER(test_csv_loads),
        IN_FOLDER(test_csv_refuses),
        IN_FOLDER(test_csv_label_column),
        IN_FOLDER(test_csv_test_set_must_fit),
        IN_FOLDER(test_safetensors_loads),
        IN_FOLDER(test_safetensors_test_set_inside),
        IN_FOLDER(test_safetensors_refuses),
        IN_FOLDER(test_missing_and_unknown),
        IN_FOLDER(test_too_few_for_the_leaves),
        IN_FOLDER(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
