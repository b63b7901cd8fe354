/* SPDX-License-Identifier: Apache-2.0 */
/* What a filter must survive: outputs that are too small, and what a broken or hostile
   peer sends. The host checks a block's size and a model's digest, so nonsense may come
   out; more than was allowed may not. */
#include "orchestrator/check_filter.h"

#include <string.h>

#include "core/model/numeric.h"
#include "tiered/random.h"

#define N_DAMAGES 100

/* A second pass, which may send what the first one made, and a receiver that has its
   header. */
struct received {
    struct made_pass pass;
    void *state;
};

static void received_finish(struct check *check, struct received *r)
{
    if (r->state) {
        filter_close(check, r->state);
    }
    made_pass_finish(&r->pass);
}

static int received_open(struct check *check, struct received *r,
                         struct tiered_error *err)
{
    void *sender;
    struct tiered_error why = {0};
    *r = (struct received){0};
    if (filter_mixed_begun(check, &sender, &r->pass, err) < 0) {
        return -1;
    }
    int result = made_pass_encode(check, sender, &r->pass, err) < 0 ||
                         made_pass_begin(check, sender, &r->pass, err) < 0
                     ? -1
                     : made_pass_forward(check, sender, &r->pass, err);
    filter_close(check, sender);
    if (result < 0 || filter_open(check, r->pass.layout, &r->state, err) < 0) {
        made_pass_finish(&r->pass);
        return -1;
    }
    if (made_inverse_begin(check, r->state, r->pass.header.data, r->pass.header.size,
                           &why) < 0) {
        received_finish(check, r);
        return check_call_failed("inverse_begin", &why, err);
    }
    return 0;
}

/* A call that may fail with a reason, or make what fits. *ret_size is 0 if refused. */
static int inverse_of(struct check *check, const struct received *r, uint32_t i,
                      const uint8_t *in, size_t in_size, size_t capacity,
                      bool *ret_refused, size_t *ret_size, struct tiered_error *err)
{
    struct made_block out;
    struct tiered_error why = {0};
    *ret_refused = made_inverse(check, r->state, &r->pass.layout->blocks[i], in,
                                in_size, capacity, &out, &why) < 0;
    *ret_size = out.size;
    free(out.data);
    return *ret_refused ? check_refusal("inverse", &why, err) : 0;
}

/* ---- small outputs ---- */

static int small_forward(struct check *check, void *state, const struct made_pass *pass,
                         uint32_t i, struct tiered_error *err)
{
    const struct tiered_block *block = &pass->layout->blocks[i];
    const size_t capacities[] = {0, 1, pass->blocks[i].size / 2,
                                 pass->blocks[i].size - 1};
    for (size_t k = 0; k < TIERED_COUNT(capacities) && pass->blocks[i].size > 0; k++) {
        struct made_block out;
        struct tiered_error why = {0};
        int result = made_forward(check, state, block, pass->data + block->offset_bytes,
                                  (size_t)block->size_bytes, capacities[k], &out, &why);
        free(out.data);
        if (result < 0 && check_refusal("forward", &why, err) < 0) {
            return -1;
        }
    }
    return 0;
}

static int small_inverse(struct check *check, const struct received *r, uint32_t i,
                         struct tiered_error *err)
{
    const struct made_block *made = &r->pass.blocks[i];
    size_t raw = (size_t)r->pass.layout->blocks[i].size_bytes, size;
    const size_t capacities[] = {0, 1, raw / 2, raw - 1};
    bool refused;
    for (size_t k = 0; k < TIERED_COUNT(capacities); k++) {
        if (inverse_of(check, r, i, made->data, made->size, capacities[k], &refused,
                       &size, err) < 0) {
            return -1;
        }
    }
    return 0;
}

int check_small_outputs(struct check *check, struct tiered_error *err)
{
    struct made_pass pass;
    struct received r;
    void *state;
    if (filter_mixed_begun(check, &state, &pass, err) < 0) {
        return -1;
    }
    int result = made_pass_forward(check, state, &pass, err);
    for (uint32_t i = 0; i < pass.layout->n_blocks && result == 0; i++) {
        result = small_forward(check, state, &pass, i, err);
    }
    filter_close(check, state);
    made_pass_finish(&pass);
    if (result < 0 || received_open(check, &r, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < r.pass.layout->n_blocks && result == 0; i++) {
        result = small_inverse(check, &r, i, err);
    }
    received_finish(check, &r);
    return result;
}

/* ---- damage ---- */

static int cut_block(struct check *check, const struct received *r, uint32_t i,
                     struct tiered_error *err)
{
    const struct made_block *made = &r->pass.blocks[i];
    size_t raw = (size_t)r->pass.layout->blocks[i].size_bytes, size;
    const size_t sizes[] = {0, 1, made->size / 2, made->size - 1};
    bool refused;
    for (size_t k = 0; k < TIERED_COUNT(sizes); k++) {
        if (sizes[k] >= made->size) {
            continue;
        }
        if (inverse_of(check, r, i, made->data, sizes[k], raw, &refused, &size, err) <
            0) {
            return -1;
        }
        if (!refused && size == raw) {
            return tiered_fail(err, TIERED_ECORRUPT,
                               "inverse takes the first %zu of %zu bytes for a whole "
                               "block",
                               sizes[k], made->size);
        }
    }
    return 0;
}

static void damage(struct tiered_rng *rng, uint8_t *data, size_t size)
{
    if (size == 0) {
        return;
    }
    uint64_t near = size < 32 ? size : 32; /* half the time where a frame begins */
    uint64_t at = tiered_rng_below(rng, tiered_rng_below(rng, 2) ? size : near);
    data[at] ^= (uint8_t)(1u << tiered_rng_below(rng, 8));
    if (tiered_rng_below(rng, 4) == 0) {
        data[at] = (uint8_t)tiered_rng_u64(rng);
    }
}

static int damage_block(struct check *check, const struct received *r, uint32_t i,
                        struct tiered_rng *rng, struct tiered_error *err)
{
    const struct made_block *made = &r->pass.blocks[i];
    size_t raw = (size_t)r->pass.layout->blocks[i].size_bytes, size;
    TIERED_FREE uint8_t *copy = check_must(malloc(made->size + 8));
    bool refused;
    for (int k = 0; k < N_DAMAGES / (raw > 100000 ? 10 : 1); k++) {
        memcpy(copy, made->data, made->size);
        for (int flips = 0; flips < 1 + k % 3; flips++) {
            damage(rng, copy, made->size);
        }
        if (inverse_of(check, r, i, copy, made->size, raw, &refused, &size, err) < 0) {
            return -1;
        }
    }
    memcpy(copy, made->data, made->size);
    memset(copy + made->size, 0, 8); /* more than there was */
    return inverse_of(check, r, i, copy, made->size + 8, raw, &refused, &size, err);
}

static int nonsense(struct check *check, const struct received *r, uint32_t i,
                    struct tiered_rng *rng, struct tiered_error *err)
{
    size_t raw = (size_t)r->pass.layout->blocks[i].size_bytes, size;
    uint8_t bytes[257];
    bool refused;
    for (size_t n = 0; n < sizeof(bytes); n = 2 * n + 1) {
        for (int fill = 0; fill < 3; fill++) {
            for (size_t k = 0; k < n; k++) {
                bytes[k] = fill == 0   ? 0
                           : fill == 1 ? 0xFF
                                       : (uint8_t)tiered_rng_u64(rng);
            }
            if (inverse_of(check, r, i, bytes, n, raw, &refused, &size, err) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

int check_damaged_blocks(struct check *check, struct tiered_error *err)
{
    const uint8_t key[32] = {1};
    struct tiered_rng rng;
    struct received r;
    int result = received_open(check, &r, err);
    if (result < 0) {
        return -1;
    }
    tiered_rng_init(&rng, key);
    for (uint32_t i = 0; i < r.pass.layout->n_blocks && result == 0; i++) {
        if (cut_block(check, &r, i, err) < 0 ||
            damage_block(check, &r, i, &rng, err) < 0 ||
            nonsense(check, &r, i, &rng, err) < 0) {
            result = -1;
        }
    }
    received_finish(check, &r);
    return result;
}

/* With a header that is not the pass's: refused, or every block of it survived. */
static int try_header(struct check *check, const struct received *r,
                      const uint8_t *header, size_t n, struct tiered_error *err)
{
    struct tiered_error why = {0};
    bool refused;
    size_t size;
    if (made_inverse_begin(check, r->state, header, n, &why) < 0) {
        return check_refusal("inverse_begin", &why, err);
    }
    for (uint32_t i = 0; i < r->pass.layout->n_blocks; i++) {
        const struct made_block *made = &r->pass.blocks[i];
        if (inverse_of(check, r, i, made->data, made->size,
                       (size_t)r->pass.layout->blocks[i].size_bytes, &refused, &size,
                       err) < 0) {
            return -1;
        }
    }
    return 0;
}

int check_damaged_headers(struct check *check, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    const uint8_t key[32] = {2};
    struct tiered_rng rng;
    struct received r;
    if (!ops->header || !ops->inverse_begin) {
        return check_skip(check, "has no header");
    }
    int result = received_open(check, &r, err);
    if (result < 0) {
        return -1;
    }
    size_t n = r.pass.header.size;
    TIERED_FREE uint8_t *copy = check_must(calloc(1, n + 8));
    tiered_rng_init(&rng, key);
    const size_t sizes[] = {0, 1, n / 2, n > 0 ? n - 1 : 0, n + 8};
    memcpy(copy, r.pass.header.data, n);
    for (size_t k = 0; k < TIERED_COUNT(sizes) && result == 0; k++) {
        result = try_header(check, &r, copy, sizes[k], err);
    }
    for (int k = 0; k < 30 && result == 0; k++) {
        memcpy(copy, r.pass.header.data, n);
        damage(&rng, copy, n);
        result = try_header(check, &r, copy, n, err);
    }
    received_finish(check, &r);
    return result;
}

/* The host screens; a filter that meets them all the same refuses or passes them on. */
int check_nonfinite(struct check *check, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct made_pass pass = filter_mixed(check, MADE_BYTES);
    struct tiered_error why = {0};
    void *state;
    int result = filter_open(check, pass.layout, &state, err);
    if (result < 0) {
        made_pass_finish(&pass);
        return -1;
    }
    /* whatever begins the pass, it has seen no NaN yet, unless it scans */
    result = made_pass_begin(check, state, &pass, &why);
    for (uint32_t i = 0; i < pass.layout->n_blocks && result == 0; i++) {
        const struct tiered_block *block = &pass.layout->blocks[i];
        size_t raw = (size_t)block->size_bytes;
        struct made_block out;
        int refused = made_forward(check, state, block, pass.data + block->offset_bytes,
                                   raw, ops->bound(state, raw), &out, &why);
        free(out.data);
        if (refused < 0 && check_refusal("forward", &why, err) < 0) {
            result = -1;
        }
    }
    filter_close(check, state);
    made_pass_finish(&pass);
    return result < 0 ? check_refusal("a pass of NaN", &why, err) : 0;
}
