/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of pipes share: filters, models to send, one call there and one back.
 */
#ifndef TIERED_TESTS_PIPE_KIT_H
#define TIERED_TESTS_PIPE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "core/model/numeric.h"
#include "core/pipe/pipe.h"

static struct tiered_plugins *plugins;
static struct tiered_hosting hosting;
static struct tiered_use zstd, delta_filter;

static inline int set_up(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    tiered_hosting_init(&hosting, 7, "test", "edge", "edge-1", "3");
    plugins = tiered_plugins_create(NULL, &err);
    if (!plugins ||
        tiered_plugins_get(plugins, "zstd", TIERED_FILTER, &zstd.loaded, &err) < 0 ||
        tiered_plugins_get(plugins, "delta", TIERED_FILTER, &delta_filter.loaded,
                           &err) < 0) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    tiered_plugins_destroy(plugins);
    return 0;
}

static inline struct tiered_layout *adversarial_layout(void)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    const uint64_t odd[] = {7, 11}, big[] = {3, 262144}, none[] = {0}, n[] = {5},
                   blob[] = {1500000};
    tiered_layout_add(b, "odd", TIERED_F32, TIERED_PARAMETER, 2, odd, &err);
    tiered_layout_add(b, "scalar", TIERED_F32, TIERED_PARAMETER, 0, NULL, &err);
    tiered_layout_add(b, "half", TIERED_F16, TIERED_PARAMETER, 2, odd, &err);
    tiered_layout_add(b, "none", TIERED_F64, TIERED_PARAMETER, 1, none, &err);
    tiered_layout_add(b, "big", TIERED_F32, TIERED_PARAMETER, 2, big, &err);
    tiered_layout_add(b, "steps", TIERED_I64, TIERED_BUFFER, 1, n, &err);
    tiered_layout_add(b, "trees", TIERED_U8, TIERED_BUFFER, 1, blob, &err);
    tiered_layout_add(b, "wide", TIERED_F64, TIERED_PARAMETER, 1, n, &err);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

static inline struct tiered_layout *floats(uint64_t n)
{
    struct tiered_error err;
    struct tiered_layout_builder *b = tiered_layout_build();
    assert_int_equal(
        tiered_layout_add(b, "w", TIERED_F32, TIERED_PARAMETER, 1, &n, &err), 0);
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

/* Any bits at all: NaN with payloads, infinities, negative zeros, subnormals. */
static inline struct tiered_model *noise(struct tiered_layout *layout, uint64_t seed)
{
    struct tiered_error err;
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        for (uint64_t k = 0; k < block->size_bytes; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            model->data[block->offset_bytes + k] = (uint8_t)(seed >> 56);
        }
    }
    assert_int_equal(tiered_model_seal(model, &err), 0);
    return model;
}

/* Small numbers, exact in every dtype, so that differences are exact too. */
static inline struct tiered_model *small_numbers(struct tiered_layout *layout, int step)
{
    struct tiered_error err;
    struct tiered_model *model = tiered_model_create(layout, &err);
    assert_non_null(model);
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        size_t width = tiered_dtype_size(block->dtype);
        for (uint64_t k = 0; k < block->n_elements; k++) {
            double x = (double)((k * (uint64_t)step + i) % 97);
            tiered_from_f64(block->dtype, &x, 1,
                            model->data + block->offset_bytes + k * width);
        }
    }
    assert_int_equal(tiered_model_seal(model, &err), 0);
    return model;
}

static inline int make_in_memory(void *user, Tiered__V1__Head *head,
                                 struct tiered_encoded **ret, struct tiered_error *err)
{
    const struct tiered_model *content = user;
    if (content) {
        head->content.data = (uint8_t *)(uintptr_t)content->digest.bytes;
        head->content.len = 32;
    }
    return tiered_encoded_begin(head, NULL, ret, err);
}

static inline int encode(const struct tiered_use *filters, size_t n,
                         const struct tiered_model *model,
                         const struct tiered_model *base, bool screen,
                         struct tiered_pool *pool, struct tiered_encoded **ret,
                         struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_pipe_destroyp) struct tiered_pipe *pipe = NULL;
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    const struct tiered_encode_job job = {
        .data = model->data,
        .base = base ? base->data : NULL,
        .screen = screen,
        .hosting = &hosting,
        .pool = pool,
        .make = make_in_memory,
        .user = base ? NULL : (void *)(uintptr_t)model,
    };
    if (tiered_pipe_create(filters, n, model->layout, &hosting, &pipe, err) < 0 ||
        tiered_pipe_encode(pipe, &job, &e, err) < 0 ||
        tiered_encoded_seal(e, false, err) < 0) {
        return -1;
    }
    *ret = TIERED_STEAL(e);
    return 0;
}

static inline int decode(const struct tiered_use *filters, size_t n,
                         struct tiered_encoded *e, struct tiered_pool *pool,
                         struct tiered_model **ret, struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_decoder_destroyp) struct tiered_decoder *d = NULL;
    return tiered_decoder_create(filters, n, &hosting, e, &d, err) < 0
               ? -1
               : tiered_decoder_model(d, pool, ret, err);
}

static inline void check_round_trip(const struct tiered_use *filters, size_t n,
                                    const struct tiered_model *model,
                                    struct tiered_pool *pool)
{
    struct tiered_error err = {0};
    TIERED_CLEANUP(tiered_encoded_unrefp) struct tiered_encoded *e = NULL;
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *back = NULL;
    assert_int_equal(encode(filters, n, model, NULL, false, pool, &e, &err), 0);
    assert_int_equal(decode(filters, n, e, pool, &back, &err), 0);
    assert_true(tiered_digest_equal(&model->digest, &back->digest));
    assert_memory_equal(model->data, back->data, model->layout->m.data_bytes);
}

#endif
