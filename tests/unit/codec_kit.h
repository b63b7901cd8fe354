/* SPDX-License-Identifier: Apache-2.0 */
/* A codec between two states, as between two nodes, and models to send through it. */
#ifndef TIERED_TESTS_CODEC_KIT_H
#define TIERED_TESTS_CODEC_KIT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/model/numeric.h"
#include "core/pipe/pipe.h"
#include "tiered/filter.h"
#include "tiered/random.h"

static struct tiered_plugins *kit_plugins;
static struct tiered_hosting kit_hosting;

static inline int kit_set_up(void **state)
{
    (void)state;
    struct tiered_error err = {0};
    tiered_hosting_init(&kit_hosting, 7, "test", "edge", "edge-1", "3");
    kit_plugins = tiered_plugins_create(NULL, &err);
    return kit_plugins ? 0 : -1;
}

static inline int kit_tear_down(void **state)
{
    (void)state;
    tiered_plugins_destroy(kit_plugins);
    return 0;
}

struct kit_tensor {
    enum tiered_dtype dtype;
    enum tiered_role role;
    uint64_t rows, columns; /* columns 0: rank 1 */
};

static inline struct tiered_layout *kit_layout(const struct kit_tensor *tensors,
                                               size_t n)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *b = tiered_layout_build();
    for (size_t i = 0; i < n; i++) {
        char name[32];
        const uint64_t shape[] = {tensors[i].rows, tensors[i].columns};
        snprintf(name, sizeof(name), "t%zu", i);
        assert_int_equal(tiered_layout_add(b, name, tensors[i].dtype, tensors[i].role,
                                           tensors[i].columns ? 2 : 1, shape, &err),
                         0);
    }
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    assert_non_null(layout);
    return layout;
}

static inline struct tiered_layout *kit_flat(enum tiered_dtype dtype, uint64_t n)
{
    const struct kit_tensor one = {dtype, TIERED_PARAMETER, n, 0};
    return kit_layout(&one, 1);
}

struct kit_codec {
    const struct tiered_filter_ops *ops;
    struct tiered_config config;
    struct tiered_layout *layout;
    void *state;
    uint32_t traits;
};

static inline struct kit_codec kit_open(const char *name, const char *json,
                                        struct tiered_layout *layout)
{
    struct tiered_error err = {0};
    const struct tiered_loaded *loaded;
    struct kit_codec c = {.layout = tiered_layout_ref(layout)};
    assert_int_equal(
        tiered_plugins_get(kit_plugins, name, TIERED_FILTER, &loaded, &err), 0);
    assert_int_equal(tiered_config_from_json(&loaded->plugin, json, &c.config, &err),
                     0);
    c.ops = loaded->plugin.ops;
    c.traits = loaded->plugin.traits;
    if (c.ops->init(&kit_hosting.host, c.config.data, &layout->m, &c.state, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return c;
}

static inline void kit_close(struct kit_codec *c)
{
    c->ops->destroy(c->state);
    tiered_config_finish(&c->config);
    tiered_layout_unref(c->layout);
}

struct kit_pass {
    uint8_t header[65536];
    size_t header_size, n_blocks;
    struct kit_block {
        uint8_t *data;
        size_t size;
    } * blocks;
};

static inline void kit_pass_finish(struct kit_pass *p)
{
    for (size_t i = 0; i < p->n_blocks; i++) {
        free(p->blocks[i].data);
    }
    free(p->blocks);
    *p = (struct kit_pass){0};
}

/** begin, scan, header. */
static inline int kit_begin(struct kit_codec *c, const uint8_t *data,
                            struct kit_pass *p, struct tiered_error *err)
{
    *p = (struct kit_pass){0};
    if (c->ops->begin && c->ops->begin(c->state, &kit_hosting.host, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < c->layout->n_blocks && (c->traits & TIERED_NEEDS_SCAN);
         i++) {
        const struct tiered_block *b = &c->layout->blocks[i];
        if (c->ops->scan(c->state, b, data + b->offset_bytes, b->size_bytes, err) < 0) {
            return -1;
        }
    }
    return c->ops->header ? c->ops->header(c->state, p->header, sizeof(p->header),
                                           &p->header_size, err)
                          : 0;
}

/** A pass to its last block; its end is the caller's. */
static inline int kit_forward(struct kit_codec *c, const uint8_t *data,
                              struct kit_pass *p, struct tiered_error *err)
{
    if (kit_begin(c, data, p, err) < 0) {
        return -1;
    }
    p->blocks = calloc(c->layout->n_blocks + 1, sizeof(*p->blocks));
    p->n_blocks = c->layout->n_blocks;
    for (uint32_t i = 0; i < p->n_blocks; i++) {
        const struct tiered_block *b = &c->layout->blocks[i];
        size_t bound = c->ops->bound(c->state, b->size_bytes);
        p->blocks[i].data = malloc(bound + 1);
        if (c->ops->forward(c->state, b, data + b->offset_bytes, b->size_bytes,
                            p->blocks[i].data, bound, &p->blocks[i].size, err) < 0) {
            kit_pass_finish(p);
            return -1;
        }
        assert_true(p->blocks[i].size <= bound);
    }
    return 0;
}

static inline void kit_encode(struct kit_codec *c, const void *data, struct kit_pass *p)
{
    struct tiered_error err = {0};
    if (kit_forward(c, data, p, &err) < 0 ||
        (c->ops->end && c->ops->end(c->state, &err) < 0)) {
        fail_msg("%s", err.text);
    }
}

/** Into a buffer of the model's size, by a state that knows the options' defaults. */
static inline void kit_decode(const char *name, const char *json,
                              struct tiered_layout *layout, const struct kit_pass *p,
                              void *out)
{
    struct tiered_error err = {0};
    struct kit_codec c = kit_open(name, json, layout);
    if (c.ops->inverse_begin &&
        c.ops->inverse_begin(c.state, p->header, p->header_size, &err) < 0) {
        fail_msg("%s", err.text);
    }
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *b = &layout->blocks[i];
        size_t made = 0;
        if (c.ops->inverse(c.state, b, p->blocks[i].data, p->blocks[i].size,
                           (uint8_t *)out + b->offset_bytes, b->size_bytes, &made,
                           &err) < 0) {
            fail_msg("block %u: %s", i, err.text);
        }
        assert_int_equal(made, b->size_bytes);
    }
    kit_close(&c);
}

/** There and back; the bytes of all blocks. */
static inline size_t kit_trip(const char *name, const char *json,
                              struct tiered_layout *layout, const void *in, void *out)
{
    struct kit_pass p;
    struct kit_codec c = kit_open(name, json, layout);
    size_t size = 0;
    kit_encode(&c, in, &p);
    kit_close(&c);
    for (size_t i = 0; i < p.n_blocks; i++) {
        size += p.blocks[i].size;
    }
    kit_decode(name, json, layout, &p, out);
    kit_pass_finish(&p);
    return size;
}

/** Every cut of block 0, a byte too many, and every flip of one bit: no crash, and a
   cut is refused. The address sanitizer sees the rest. */
static inline void kit_damage(const char *name, const char *json,
                              struct tiered_layout *layout, const void *in)
{
    struct tiered_error err = {0};
    struct kit_pass p;
    struct kit_codec c = kit_open(name, json, layout);
    const struct tiered_block *b = &layout->blocks[0];
    kit_encode(&c, in, &p);
    if (c.ops->inverse_begin) {
        assert_int_equal(c.ops->inverse_begin(c.state, p.header, p.header_size, &err),
                         0);
    }
    size_t n = p.blocks[0].size, made;
    uint8_t *out = malloc(b->size_bytes);
    for (size_t cut = 0; cut <= n; cut++) {
        size_t size = cut < n ? cut : n + 1;
        uint8_t *copy = calloc(1, size + !size);
        memcpy(copy, p.blocks[0].data, cut < n ? cut : n);
        assert_int_equal(
            c.ops->inverse(c.state, b, copy, size, out, b->size_bytes, &made, &err),
            -1);
        assert_int_equal(err.code, TIERED_ECORRUPT);
        free(copy);
    }
    for (size_t bit = 0; bit < 8 * n; bit++) {
        p.blocks[0].data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        c.ops->inverse(c.state, b, p.blocks[0].data, n, out, b->size_bytes, &made,
                       &err);
        p.blocks[0].data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(out);
    kit_pass_finish(&p);
    kit_close(&c);
}

static inline void kit_expect_refused(const char *name, const char *json,
                                      struct tiered_layout *layout, const void *in,
                                      enum tiered_code code, const char *text)
{
    struct tiered_error err = {0};
    struct kit_pass p;
    struct kit_codec c = kit_open(name, json, layout);
    assert_int_equal(kit_forward(&c, in, &p, &err), -1);
    assert_int_equal(err.code, code);
    assert_string_equal(err.text, text);
    kit_close(&c);
}

/** f32 values of a normal distribution, always the same. */
static inline void kit_normal(float *out, size_t n, double sigma, uint8_t seed)
{
    const uint8_t key[32] = {seed};
    struct tiered_rng rng;
    tiered_rng_init(&rng, key);
    for (size_t i = 0; i < 16; i++) {
        tiered_rng_u64(&rng); /* so poor a key takes a while to spread */
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)(sigma * tiered_rng_normal(&rng));
    }
}

#endif
