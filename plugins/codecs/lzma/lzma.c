/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lzma filter: each block becomes one .xz stream.
 *
 * A block has about 1 MiB, so a larger dictionary would only cost memory: the encoder
 * never asks for one, and the decoder refuses a stream that does.
 */
#include <stdlib.h>

#include <lzma.h>

#include "tiered/filter.h"

#define DICTIONARY  (1u << 20)
#define MOST_MEMORY (DICTIONARY + (1u << 20)) /* of a decoder, tables and all */

struct config {
    int64_t preset;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_INTEGER(struct config, preset, "6", 0, 9, "0 is fastest, 9 smallest"),
};

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    const struct config *c = config;
    (void)host;
    (void)manifest;
    lzma_options_lzma *lzma = malloc(sizeof(*lzma));
    if (!lzma) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (lzma_lzma_preset(lzma, (uint32_t)c->preset)) {
        free(lzma);
        return tiered_fail(err, TIERED_ENOTSUP,
                           "this liblzma has no preset %d of option 'preset'",
                           (int)c->preset);
    }
    if (lzma->dict_size > DICTIONARY) {
        lzma->dict_size = DICTIONARY;
    }
    *ret_state = lzma;
    return 0;
}

static void filter_destroy(void *state)
{
    free(state);
}

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return lzma_stream_buffer_bound(in_size);
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    lzma_filter chain[] = {{.id = LZMA_FILTER_LZMA2, .options = state},
                           {.id = LZMA_VLI_UNKNOWN}};
    size_t made = 0;
    (void)block;
    lzma_ret result = lzma_stream_buffer_encode(chain, LZMA_CHECK_CRC32, NULL, in,
                                                in_size, out, &made, capacity);
    if (result == LZMA_BUF_ERROR) {
        return tiered_fail(err, TIERED_ENOMEM, "the stream does not fit into %zu bytes",
                           capacity);
    }
    if (result != LZMA_OK) {
        return tiered_fail(err, TIERED_ENOMEM, "liblzma's code %d", (int)result);
    }
    *ret_size = made;
    return 0;
}

static int fail(lzma_ret result, size_t capacity, struct tiered_error *err)
{
    switch (result) {
    case LZMA_MEM_ERROR:
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a decoder");
    case LZMA_MEMLIMIT_ERROR:
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the stream wants more memory than a block needs");
    case LZMA_FORMAT_ERROR:
        return tiered_fail(err, TIERED_ECORRUPT, "not an xz stream");
    case LZMA_BUF_ERROR:
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the stream is cut off, or makes more than %zu bytes",
                           capacity);
    default:
        return tiered_fail(err, TIERED_ECORRUPT, "the stream is damaged");
    }
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    uint64_t memory = MOST_MEMORY;
    size_t read = 0, made = 0;
    (void)state;
    (void)block;
    lzma_ret result = lzma_stream_buffer_decode(&memory, 0, NULL, in, &read, in_size,
                                                out, &made, capacity);
    if (result != LZMA_OK) {
        return fail(result, capacity, err);
    }
    if (read != in_size) {
        return tiered_fail(err, TIERED_ECORRUPT, "%zu bytes follow the stream",
                           in_size - read);
    }
    *ret_size = made;
    return 0;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .bound = filter_bound,
    .forward = filter_forward,
    .inverse = filter_inverse,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "lzma", .version = "1.0",
                     .summary = "LZMA: smaller than zstd and much slower, bit for bit "
                                "the same at every tier",
                     .traits = TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
