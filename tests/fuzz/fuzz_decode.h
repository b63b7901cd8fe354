/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding an encoded object by the pipe that its head names, where that is made of
   zstd alone. */
#ifndef TIERED_TESTS_FUZZ_DECODE_H
#define TIERED_TESTS_FUZZ_DECODE_H

#include "core/pipe/pipe.h"
#include "fuzz.h"

#define FUZZ_MOST_FILTERS 3u
#define FUZZ_MOST_BYTES   (16u << 20) /* of a model that is decoded whole */

static inline const struct tiered_loaded *fuzz_zstd(void)
{
    static struct tiered_plugins *plugins;
    const struct tiered_loaded *loaded = NULL;
    struct tiered_error err = {0};
    if (!plugins) {
        plugins = tiered_plugins_create(NULL, &err);
        FUZZ_CHECK(plugins, "%s", err.text);
    }
    FUZZ_CHECK(tiered_plugins_get(plugins, "zstd", TIERED_FILTER, &loaded, &err) == 0,
               "%s", err.text);
    return loaded;
}

/* A model is made of blocks that decode, and of nothing else. */
static inline void fuzz_decode_with(struct tiered_decoder *decoder)
{
    struct tiered_error err = {0};
    struct tiered_model *model = NULL;
    const struct tiered_layout *layout = tiered_decoder_layout(decoder);
    bool whole = true;
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        size_t size = (size_t)layout->blocks[i].size_bytes;
        uint8_t *out = malloc(size ? size : 1);
        FUZZ_CHECK(out, "out of memory");
        if (tiered_decoder_read(decoder, i, out, &err) < 0) {
            fuzz_check_error(&err);
            whole = false;
        }
        free(out);
    }
    if (tiered_decoder_screen(decoder, NULL, &err) == 0) {
        FUZZ_CHECK(whole, "screened, but not decoded");
    }
    if (tiered_decoder_model(decoder, NULL, &model, &err) == 0) {
        FUZZ_CHECK(whole, "a model of blocks that do not decode");
    }
    tiered_model_unref(model);
}

static inline void fuzz_decode(struct tiered_encoded *encoded)
{
    const Tiered__V1__Head *head = tiered_encoded_head(encoded);
    struct tiered_use uses[FUZZ_MOST_FILTERS];
    struct tiered_hosting hosting;
    struct tiered_decoder *decoder = NULL;
    struct tiered_error err = {0};
    size_t n = head->n_pipe;
    if (n > FUZZ_MOST_FILTERS ||
        tiered_encoded_layout(encoded)->m.data_bytes > FUZZ_MOST_BYTES) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uses[i] = (struct tiered_use){.loaded = fuzz_zstd()};
    }
    tiered_hosting_init(&hosting, 7, "fuzz", "edge", "edge-0", "1");
    if (tiered_decoder_create(uses, n, &hosting, encoded, &decoder, &err) < 0) {
        fuzz_check_error(&err);
        return;
    }
    fuzz_decode_with(decoder);
    tiered_decoder_destroy(decoder);
}

#endif
