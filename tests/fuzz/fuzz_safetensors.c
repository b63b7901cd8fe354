/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors files: read whole, by block, and written again. Input: the file. */
#include "core/model/safetensors.h"
#include "fuzz.h"

/* The blocks are the model's bytes. */
static void check_blocks(const char *path, const struct tiered_model *model)
{
    struct tiered_error err = {0};
    struct tiered_safetensors *f = NULL;
    FUZZ_CHECK(tiered_safetensors_open(path, &f, &err) == 0, "%s", err.text);
    const struct tiered_layout *layout = tiered_safetensors_get_layout(f);
    FUZZ_CHECK(tiered_layout_match(model->layout, layout, &err) == 0, "%s", err.text);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        uint8_t *bytes = malloc(block->size_bytes ? block->size_bytes : 1);
        FUZZ_CHECK(bytes, "out of memory");
        FUZZ_CHECK(tiered_safetensors_read_block(f, i, bytes, &err) == 0, "%s",
                   err.text);
        FUZZ_CHECK(
            memcmp(bytes, model->data + block->offset_bytes, block->size_bytes) == 0,
            "block %u differs", i);
        free(bytes);
    }
    tiered_safetensors_close(f);
}

/* What was read can be written, and is then the same. */
static void check_written(const struct tiered_model *model,
                          const struct tiered_metadata *metadata)
{
    struct tiered_error err = {0};
    struct tiered_model *again = NULL;
    struct tiered_metadata pairs = {0};
    const char *path = fuzz_path("again.safetensors");
    FUZZ_CHECK(tiered_safetensors_write(path, model, metadata, &err) == 0, "%s",
               err.text);
    FUZZ_CHECK(tiered_safetensors_read(path, &again, &pairs, &err) == 0, "%s",
               err.text);
    FUZZ_CHECK(tiered_digest_equal(&again->digest, &model->digest),
               "the written model is another");
    FUZZ_CHECK(pairs.n == metadata->n, "%zu pairs of metadata became %zu", metadata->n,
               pairs.n);
    for (size_t i = 0; i < metadata->n; i++) {
        const char *value = tiered_metadata_get(&pairs, metadata->items[i].key);
        FUZZ_CHECK(value && strcmp(value, metadata->items[i].value) == 0,
                   "metadata '%s' changed", metadata->items[i].key);
    }
    tiered_model_unref(again);
    tiered_metadata_finish(&pairs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tiered_error err = {0};
    struct tiered_model *model = NULL;
    struct tiered_layout *layout = NULL;
    struct tiered_metadata metadata = {0};
    uint64_t num_examples;
    const char *path = fuzz_file("m.safetensors", data, size);
    int result = tiered_safetensors_read(path, &model, &metadata, &err);
    if (result < 0) {
        fuzz_check_error(&err);
    }
    FUZZ_CHECK(tiered_safetensors_layout(path, &layout, NULL, &err) == result,
               "header and file disagree: %s", err.text);
    if (result == 0) {
        check_blocks(path, model);
        check_written(model, &metadata);
        if (tiered_metadata_num_examples(&metadata, 1, &num_examples, &err) == 0) {
            FUZZ_CHECK(num_examples <= 1ull << 53, "too many examples");
        }
    }
    tiered_layout_unref(layout);
    tiered_model_unref(model);
    tiered_metadata_finish(&metadata);
    return 0;
}
