/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a made-up model through a filter and back, as core/pipe would. */
#include "orchestrator/check_pass.h"

#include <stdio.h>
#include <string.h>

#include "core/model/numeric.h"
#include "tiered/random.h"

#define MOST_BYTES (16u << 20) /* that core/pipe takes of one block */
#define N_SMALL    40          /* small blocks: what one cannot pay for all may share */

static void add(struct tiered_layout_builder *b, enum tiered_dtype dtype, uint64_t n)
{
    static unsigned count;
    char name[32];
    snprintf(name, sizeof(name), "tensor-%u", count++);
    if (tiered_layout_add(b, name, dtype, tiered_role_default(dtype), 1, &n, NULL) <
        0) {
        check_end("the kit cannot lay out its model", "");
    }
}

struct tiered_layout *made_layout_mixed(bool blobs)
{
    static const enum tiered_dtype others[] = {
        TIERED_F64, TIERED_F16, TIERED_BF16, TIERED_I8,  TIERED_I16,
        TIERED_I32, TIERED_I64, TIERED_U16,  TIERED_U32, TIERED_U64};
    static const uint64_t sizes[] = {7, 1, 0, 1000, 600001};
    struct tiered_layout_builder *b = check_must(tiered_layout_build());
    for (size_t i = 0; i < TIERED_COUNT(sizes); i++) {
        add(b, TIERED_F32, sizes[i]);
    }
    for (size_t i = 0; i < TIERED_COUNT(others); i++) {
        add(b, others[i], 65 + i);
    }
    if (blobs) {
        add(b, TIERED_U8, 1001);
    }
    for (size_t i = 0; i < N_SMALL; i++) {
        add(b, i % 2 ? TIERED_I16 : TIERED_I32, 150);
    }
    return check_must(tiered_layout_seal(b, NULL));
}

struct tiered_layout *made_layout_flat(uint64_t n)
{
    struct tiered_layout_builder *b = check_must(tiered_layout_build());
    add(b, TIERED_F32, n);
    return check_must(tiered_layout_seal(b, NULL));
}

static void fill_tensor(struct tiered_rng *rng, const struct tiered_tensor *t,
                        enum made_values values, uint8_t *out)
{
    bool is_float = tiered_dtype_is_float(t->dtype);
    if (values == MADE_BYTES || tiered_dtype_is_opaque(t->dtype)) {
        for (uint64_t i = 0; i < t->size_bytes; i++) {
            out[i] = (uint8_t)tiered_rng_u64(rng);
        }
        return;
    }
    size_t width = tiered_dtype_size(t->dtype);
    for (uint64_t i = 0; i < t->n_elements; i++) {
        double value = is_float ? 0.1 * tiered_rng_normal(rng)
                                : (double)tiered_rng_below(rng, 201) - 100;
        tiered_from_f64(t->dtype, &value, 1, out + i * width);
    }
}

struct made_pass made_pass(struct tiered_layout *layout, enum made_values values)
{
    uint8_t key[32];
    struct tiered_rng rng;
    struct made_pass pass = {.layout = layout};
    tiered_seed(1, "check", "", "", key);
    tiered_rng_init(&rng, key);
    pass.data = check_must(calloc(1, (size_t)layout->m.data_bytes + 1));
    pass.blocks = check_must(calloc(layout->n_blocks + 1, sizeof(*pass.blocks)));
    for (uint32_t i = 0; i < layout->m.n_tensors && values != MADE_ZERO; i++) {
        const struct tiered_tensor *t = &layout->m.tensors[i];
        fill_tensor(&rng, t, values, pass.data + t->offset_bytes);
    }
    return pass;
}

static void drop(struct made_pass *pass)
{
    for (uint32_t i = 0; i < pass->layout->n_blocks; i++) {
        free(pass->blocks[i].data);
        pass->blocks[i] = (struct made_block){0};
    }
    free(pass->header.data);
    pass->header = (struct made_block){0};
}

void made_pass_finish(struct made_pass *pass)
{
    if (pass->layout) {
        drop(pass);
        free(pass->blocks);
        free(pass->data);
        tiered_layout_unref(pass->layout);
        *pass = (struct made_pass){0};
    }
}

int filter_open(struct check *check, const struct tiered_layout *layout,
                void **ret_state, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    check_step(check, "init");
    *ret_state = NULL;
    return ops->init(&check->hosting.host, check->config.data, &layout->m, ret_state,
                     &why) < 0
               ? check_call_failed("init", &why, err)
               : 0;
}

/* ---- one call ---- */

typedef int (*call_fn)(void *state, const struct tiered_block *block, const void *in,
                       size_t in_size, void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err);

static struct guard guarded_copy(const char *what, const void *in, size_t size)
{
    struct guard guard = guard_make(what, size);
    if (size > 0) {
        memcpy(guard.data, in, size);
    }
    guard_freeze(&guard);
    return guard;
}

static int guarded_call(struct check *check, const char *name, call_fn call,
                        void *state, const struct tiered_block *block, const void *in,
                        size_t in_size, size_t capacity, struct made_block *ret,
                        struct tiered_error *why)
{
    struct guard input = guarded_copy("its input", in, in_size);
    struct guard output = guard_make("its output", capacity);
    size_t made = 0;
    *ret = (struct made_block){0};
    check_step(check, "%s of %zu bytes of block %u (%llu values of %s) into %zu", name,
               in_size, block->index, (unsigned long long)block->n_elements,
               tiered_dtype_name(block->dtype), capacity);
    int result =
        call(state, block, input.data, in_size, output.data, capacity, &made, why);
    if (result == 0 && made > capacity) {
        check_end("tells of more bytes than were allowed as its output", "");
    }
    if (result == 0) {
        ret->data = check_must(malloc(made + 1));
        memcpy(ret->data, output.data, made);
        ret->size = made;
    }
    guard_free(&input);
    guard_free(&output);
    return result;
}

int made_forward(struct check *check, void *state, const struct tiered_block *block,
                 const void *in, size_t in_size, size_t capacity,
                 struct made_block *ret, struct tiered_error *why)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    return guarded_call(check, "forward", ops->forward, state, block, in, in_size,
                        capacity, ret, why);
}

int made_inverse(struct check *check, void *state, const struct tiered_block *block,
                 const void *in, size_t in_size, size_t capacity,
                 struct made_block *ret, struct tiered_error *why)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    return guarded_call(check, "inverse", ops->inverse, state, block, in, in_size,
                        capacity, ret, why);
}

int made_inverse_begin(struct check *check, void *state, const void *header,
                       size_t size, struct tiered_error *why)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    if (!ops->inverse_begin) {
        return 0;
    }
    struct guard guard = guarded_copy("the header", header, size);
    check_step(check, "inverse_begin with a header of %zu bytes", size);
    int result = ops->inverse_begin(state, guard.data, size, why);
    guard_free(&guard);
    return result;
}

/* ---- a pass ---- */

static int scan_blocks(struct check *check, void *state, const struct made_pass *pass,
                       struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    if (!(check->loaded.plugin.traits & TIERED_NEEDS_SCAN)) {
        return 0;
    }
    for (uint32_t i = 0; i < pass->layout->n_blocks; i++) {
        const struct tiered_block *block = &pass->layout->blocks[i];
        size_t size = (size_t)block->size_bytes;
        struct guard guard =
            guarded_copy("its input", pass->data + block->offset_bytes, size);
        check_step(check, "scan of block %u", i);
        int result = ops->scan(state, block, guard.data, size, &why);
        guard_free(&guard);
        if (result < 0) {
            return check_call_failed("scan", &why, err);
        }
    }
    return 0;
}

static int take_header(struct check *check, void *state, struct made_pass *pass,
                       struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    size_t size = 0;
    if (!ops->header) {
        return 0;
    }
    struct guard guard = guard_make("its header", TIERED_FILTER_HEADER_MAX);
    check_step(check, "header");
    int result = ops->header(state, guard.data, guard.size, &size, &why);
    if (result == 0 && size > guard.size) {
        result = tiered_fail(&why, TIERED_ENOMEM, "it is larger than its limit");
    }
    if (result == 0) {
        pass->header.data = check_must(malloc(size + 1));
        memcpy(pass->header.data, guard.data, size);
        pass->header.size = size;
    }
    guard_free(&guard);
    return result < 0 ? check_call_failed("header", &why, err) : 0;
}

int made_pass_begin(struct check *check, void *state, struct made_pass *pass,
                    struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    drop(pass);
    check_step(check, "begin");
    if (ops->begin && ops->begin(state, &check->hosting.host, &why) < 0) {
        return check_call_failed("begin", &why, err);
    }
    return scan_blocks(check, state, pass, err) < 0 ||
                   take_header(check, state, pass, err) < 0
               ? -1
               : 0;
}

static int forward_block(struct check *check, void *state, struct made_pass *pass,
                         uint32_t i, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    const struct tiered_block *block = &pass->layout->blocks[i];
    struct tiered_error why = {0};
    size_t size = (size_t)block->size_bytes;
    check_step(check, "bound of %zu bytes", size);
    size_t bound = ops->bound(state, size);
    if (bound > MOST_BYTES) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "bound says %zu bytes for %zu; the host takes at most %u",
                           bound, size, MOST_BYTES);
    }
    return made_forward(check, state, block, pass->data + block->offset_bytes, size,
                        bound, &pass->blocks[i], &why) < 0
               ? check_call_failed("forward within its bound", &why, err)
               : 0;
}

int made_pass_forward(struct check *check, void *state, struct made_pass *pass,
                      struct tiered_error *err)
{
    for (uint32_t i = 0; i < pass->layout->n_blocks; i++) {
        if (forward_block(check, state, pass, i, err) < 0) {
            return -1;
        }
    }
    return 0;
}

int made_pass_end(struct check *check, void *state, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    check_step(check, "end");
    return ops->end && ops->end(state, &why) < 0 ? check_call_failed("end", &why, err)
                                                 : 0;
}

int made_pass_encode(struct check *check, void *state, struct made_pass *pass,
                     struct tiered_error *err)
{
    return made_pass_begin(check, state, pass, err) < 0 ||
                   made_pass_forward(check, state, pass, err) < 0 ||
                   made_pass_end(check, state, err) < 0
               ? -1
               : 0;
}

int made_pass_decode(struct check *check, void *state, const struct made_pass *pass,
                     uint8_t *out, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    if (made_inverse_begin(check, state, pass->header.data, pass->header.size, &why) <
        0) {
        return check_call_failed("inverse_begin", &why, err);
    }
    for (uint32_t i = 0; i < pass->layout->n_blocks; i++) {
        const struct tiered_block *block = &pass->layout->blocks[i];
        size_t raw = (size_t)block->size_bytes;
        struct made_block back;
        if (made_inverse(check, state, block, pass->blocks[i].data,
                         pass->blocks[i].size, raw, &back, &why) < 0) {
            return check_call_failed("inverse of what forward made", &why, err);
        }
        size_t size = back.size;
        if (size > 0) {
            memcpy(out + block->offset_bytes, back.data, size);
        }
        free(back.data);
        if (size != raw) {
            return tiered_fail(err, TIERED_ESHAPE,
                               "inverse makes %zu bytes of a block of %zu", size, raw);
        }
    }
    check_step(check, "inverse_end");
    return ops->inverse_end && ops->inverse_end(state, &why) < 0
               ? check_call_failed("inverse_end", &why, err)
               : 0;
}

static bool same_block(const struct made_block *a, const struct made_block *b)
{
    return a->size == b->size &&
           (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

int made_pass_compare(const struct made_pass *a, const struct made_pass *b,
                      const char *what, struct tiered_error *err)
{
    if (!same_block(&a->header, &b->header)) {
        return tiered_fail(err, TIERED_EINVAL, "%s makes another header", what);
    }
    for (uint32_t i = 0; i < a->layout->n_blocks; i++) {
        if (!same_block(&a->blocks[i], &b->blocks[i])) {
            return tiered_fail(err, TIERED_EINVAL, "%s makes other bytes of block %u",
                               what, i);
        }
    }
    return 0;
}
