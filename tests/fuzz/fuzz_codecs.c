/* SPDX-License-Identifier: Apache-2.0 */
/* What each codec makes of a peer's header and block. Input: a byte that picks the
   codec and its options, a byte that picks the model, a byte n, n bytes of header, then
   the first block as it was encoded. A block that is taken has its size, and what
   forward makes of it comes back. The last choice is zstd with a dictionary, whose
   bytes the input has in the header's place: the checksum that no fuzzer finds is put
   around them here. */
#include <zstd.h>

#include "core/model/numeric.h"
#include "core/pipe/pipe.h"
#include "fuzz.h"
#include "tiered/filter.h"

static const struct {
    const char *name, *json;
} codecs[] = {{"zstd", "{}"},
              {"lzma", "{}"},
              {"shuffle", "{}"},
              {"fp16", "{}"},
              {"bf16", "{}"},
              {"int8", "{}"},
              {"int8", "{\"per\":\"channel\"}"},
              {"qsgd", "{}"},
              {"qsgd", "{\"levels\":3,\"bucket\":16,\"packing\":\"elias\"}"},
              {"top-k", "{\"ratio\":0.1}"},
              {"zstd", "{\"dictionary\":true}"}};

#define WITH_DICTIONARY (TIERED_COUNT(codecs) - 1)

static struct tiered_plugins *plugins;
static struct tiered_hosting hosting;

static struct tiered_layout *make_layout(unsigned which)
{
    static const struct {
        enum tiered_dtype dtype;
        uint64_t shape[2];
    } kinds[] = {{TIERED_F32, {4, 16}},  {TIERED_F32, {1, 4097}}, {TIERED_F64, {3, 7}},
                 {TIERED_F16, {5, 33}},  {TIERED_BF16, {1, 1}},   {TIERED_F32, {2, 0}},
                 {TIERED_U8, {1, 1000}}, {TIERED_F32, {600, 1}}};
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    FUZZ_CHECK(b, "out of memory");
    for (unsigned i = 0; i < 2; i++) {
        unsigned kind = (which + 3 * i) % (unsigned)TIERED_COUNT(kinds);
        FUZZ_CHECK(tiered_layout_add(b, i ? "v" : "w", kinds[kind].dtype,
                                     TIERED_PARAMETER, 2, kinds[kind].shape, &err) == 0,
                   "%s", err.text);
    }
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    FUZZ_CHECK(layout, "%s", err.text);
    return layout;
}

/* What came in finite can be sent on. */
static void send_on(const struct tiered_filter_ops *ops, void *state,
                    const struct tiered_block *block, bool scans, const uint8_t *values)
{
    struct tiered_error err = {0};
    size_t size = (size_t)block->size_bytes, bound = ops->bound(state, size), made;
    uint8_t header[64], *out = malloc(bound + 1);
    FUZZ_CHECK(out, "out of memory");
    int result = ops->begin ? ops->begin(state, &hosting.host, &err) : 0;
    if (result == 0 && scans) {
        result = ops->scan(state, block, values, size, &err);
    }
    if (result == 0 && ops->header) {
        result = ops->header(state, header, sizeof(header), &made, &err);
    }
    if (result == 0) {
        result = ops->forward(state, block, values, size, out, bound, &made, &err);
    }
    FUZZ_CHECK(result == 0 ? made <= bound : err.text[0], "a bad forward");
    FUZZ_CHECK(result == 0 || err.code == TIERED_ERANGE, "refused: %s", err.text);
    free(out);
}

static void try_codec(const struct tiered_loaded *loaded, void *state,
                      const struct tiered_block *block, struct fuzz_input header,
                      struct fuzz_input in)
{
    const struct tiered_filter_ops *ops = loaded->plugin.ops;
    struct tiered_error err = {0};
    size_t size = (size_t)block->size_bytes, made = 0;
    uint8_t *out = malloc(size + !size);
    FUZZ_CHECK(out, "out of memory");
    if ((ops->inverse_begin &&
         ops->inverse_begin(state, header.data, header.size, &err) < 0) ||
        ops->inverse(state, block, in.data, in.size, out, size, &made, &err) < 0) {
        fuzz_check_error(&err);
    } else {
        FUZZ_CHECK(made <= size, "more than its capacity");
        if (made == size &&
            tiered_first_nonfinite(block->dtype, out, (size_t)block->n_elements) ==
                block->n_elements) {
            send_on(ops, state, block, loaded->plugin.traits & TIERED_NEEDS_SCAN, out);
        }
    }
    free(out);
}

/* The dictionary as its sender would pack it. */
static struct fuzz_input pack(struct fuzz_input dictionary)
{
    static uint8_t packed[1024];
    ZSTD_CCtx *context = ZSTD_createCCtx();
    FUZZ_CHECK(context, "out of memory");
    packed[0] = 1;
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    size_t made = ZSTD_compress2(context, packed + 1, sizeof(packed) - 1,
                                 dictionary.data, dictionary.size);
    FUZZ_CHECK(!ZSTD_isError(made), "%s", ZSTD_getErrorName(made));
    ZSTD_freeCCtx(context);
    return (struct fuzz_input){packed, 1 + made};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct tiered_error err = {0};
    struct tiered_config config;
    const struct tiered_loaded *loaded;
    void *state;
    if (!plugins) {
        plugins = tiered_plugins_create(NULL, &err);
        FUZZ_CHECK(plugins, "%s", err.text);
        tiered_hosting_init(&hosting, 7, "fuzz", "edge", "edge-0", "1");
    }
    unsigned which = fuzz_byte(&in) % (unsigned)TIERED_COUNT(codecs);
    struct tiered_layout *layout = make_layout(fuzz_byte(&in) & 7);
    size_t header_size = fuzz_byte(&in);
    struct fuzz_input header = fuzz_take(&in, header_size);
    if (which == WITH_DICTIONARY) {
        header = pack(header);
    }
    FUZZ_CHECK(tiered_plugins_get(plugins, codecs[which].name, TIERED_FILTER, &loaded,
                                  &err) == 0,
               "%s", err.text);
    FUZZ_CHECK(tiered_config_from_json(&loaded->plugin, codecs[which].json, &config,
                                       &err) == 0,
               "%s", err.text);
    const struct tiered_filter_ops *ops = loaded->plugin.ops;
    FUZZ_CHECK(ops->init(&hosting.host, config.data, &layout->m, &state, &err) == 0,
               "%s", err.text);
    if (layout->n_blocks) {
        try_codec(loaded, state, &layout->blocks[0], header, in);
    }
    ops->destroy(state);
    tiered_config_finish(&config);
    tiered_layout_unref(layout);
    return 0;
}
