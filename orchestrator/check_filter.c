/* SPDX-License-Identifier: Apache-2.0 */
/* What every filter must do with what it should get: bring it back, whatever its size,
   and on several threads where it says so. */
#include "orchestrator/check_filter.h"

#include <math.h>
#include <string.h>

#include "core/model/numeric.h"

#define N_THREADS 4

bool filter_has(const struct check *check, enum tiered_trait trait)
{
    return check->loaded.plugin.traits & trait;
}

void filter_close(struct check *check, void *state)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    ops->destroy(state);
}

static int filter_init(struct check *check, const void *config, void **ret_state,
                       struct tiered_error *err)
{
    static struct tiered_layout
        *layout; /* the state may refer to it as long as it is */
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    if (!layout) {
        layout = made_layout_flat(100);
    }
    return ops->init(&check->hosting.host, config, &layout->m, ret_state, err);
}

static int decode_on_another(struct check *check, const struct made_pass *pass,
                             uint8_t *out, struct tiered_error *err)
{
    void *receiver;
    if (filter_open(check, pass->layout, &receiver, err) < 0) {
        return -1;
    }
    int result = made_pass_decode(check, receiver, pass, out, err);
    filter_close(check, receiver);
    return result;
}

static int filter_use(struct check *check, void *state, struct tiered_error *err)
{
    uint8_t out[400];
    struct made_pass pass = made_pass(made_layout_flat(100), MADE_NORMAL);
    int result = made_pass_encode(check, state, &pass, err);
    result = result == 0 ? decode_on_another(check, &pass, out, err) : result;
    made_pass_finish(&pass);
    return result;
}

struct made_pass filter_mixed(const struct check *check, enum made_values values)
{
    return made_pass(made_layout_mixed(filter_has(check, TIERED_ACCEPTS_BLOBS)),
                     values);
}

int filter_mixed_begun(struct check *check, void **ret_state, struct made_pass *ret,
                       struct tiered_error *err)
{
    *ret = filter_mixed(check, MADE_NORMAL);
    if (filter_open(check, ret->layout, ret_state, err) < 0) {
        made_pass_finish(ret);
        return -1;
    }
    if (made_pass_begin(check, *ret_state, ret, err) < 0) {
        filter_close(check, *ret_state);
        made_pass_finish(ret);
        return -1;
    }
    return 0;
}

/* ---- round trips ---- */

static double norm_of(const struct made_pass *pass)
{
    double sum = 0, value;
    for (uint32_t i = 0; i < pass->layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &pass->layout->m.tensors[i];
        size_t width = tiered_dtype_size(t->dtype);
        for (uint64_t k = 0; k < t->n_elements && tiered_dtype_is_float(t->dtype);
             k++) {
            tiered_to_f64(t->dtype, pass->data + t->offset_bytes + k * width, 1,
                          &value);
            sum += value * value;
        }
    }
    return sqrt(sum);
}

/* Lossy, yet no value may move by more than the whole model's norm, and what came in
   finite must come out so. Noise has no bound. */
static int compare_loosely(const struct check *check, const struct made_pass *pass,
                           const uint8_t *out, struct tiered_error *err)
{
    double norm = norm_of(pass) * (1 + 1e-6), x, y;
    for (uint32_t i = 0; i < pass->layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &pass->layout->m.tensors[i];
        size_t width = tiered_dtype_size(t->dtype);
        for (uint64_t k = 0; k < t->n_elements && tiered_dtype_is_float(t->dtype);
             k++) {
            uint64_t at = t->offset_bytes + k * width;
            tiered_to_f64(t->dtype, pass->data + at, 1, &x);
            tiered_to_f64(t->dtype, out + at, 1, &y);
            bool bounded = filter_has(check, TIERED_PRIVACY) || fabs(y - x) <= norm;
            if (!isfinite(y) || !bounded) {
                return tiered_fail(err, TIERED_ERANGE,
                                   "%g of %s comes back as %g (the model's norm is %g)",
                                   x, tiered_dtype_name(t->dtype), y, norm);
            }
        }
    }
    return 0;
}

static int compare_exactly(const struct made_pass *pass, const uint8_t *out,
                           struct tiered_error *err)
{
    for (uint32_t i = 0; i < pass->layout->n_blocks; i++) {
        const struct tiered_block *b = &pass->layout->blocks[i];
        for (uint64_t k = 0; k < b->size_bytes; k++) {
            if (pass->data[b->offset_bytes + k] != out[b->offset_bytes + k]) {
                return tiered_fail(err, TIERED_EINVAL,
                                   "is not TIERED_LOSSY, but byte %llu of block %u "
                                   "(%s) comes back changed",
                                   (unsigned long long)k, i,
                                   tiered_dtype_name(b->dtype));
            }
        }
    }
    return 0;
}

/* There on one state and back on another, as between two nodes. Takes the pass. */
static int there_and_back(struct check *check, struct made_pass pass,
                          struct tiered_error *err)
{
    void *sender;
    TIERED_FREE uint8_t *out =
        check_must(calloc(1, (size_t)pass.layout->m.data_bytes + 1));
    int result = filter_open(check, pass.layout, &sender, err);
    if (result == 0) {
        result = made_pass_encode(check, sender, &pass, err);
        filter_close(check, sender);
    }
    result = result == 0 ? decode_on_another(check, &pass, out, err) : result;
    if (result == 0) {
        result = filter_has(check, TIERED_LOSSY | TIERED_PRIVACY)
                     ? compare_loosely(check, &pass, out, err)
                     : compare_exactly(&pass, out, err);
    }
    made_pass_finish(&pass);
    return result;
}

static int round_trip(struct check *check, struct tiered_error *err)
{
    return there_and_back(check, filter_mixed(check, MADE_NORMAL), err);
}

static int zeros(struct check *check, struct tiered_error *err)
{
    return there_and_back(check, filter_mixed(check, MADE_ZERO), err);
}

static int any_bits(struct check *check, struct tiered_error *err)
{
    if (filter_has(check, TIERED_LOSSY | TIERED_PRIVACY)) {
        return check_skip(check, "is lossy: the host lets only finite values in");
    }
    return there_and_back(check, filter_mixed(check, MADE_BYTES), err);
}

static int sizes(struct check *check, struct tiered_error *err)
{
    static const uint64_t counts[] = {0,   1,   2,    3,    5,      7,
                                      8,   31,  63,   64,   511,    512,
                                      513, 999, 1024, 1025, 262144, 262145};
    for (size_t i = 0; i < TIERED_COUNT(counts); i++) {
        if (there_and_back(check, made_pass(made_layout_flat(counts[i]), MADE_NORMAL),
                           err) < 0) {
            return tiered_error_prefix(
                err, "a tensor of %llu values: ", (unsigned long long)counts[i]);
        }
    }
    return 0;
}

static int bytes_there_and_back(struct check *check, void *sender, void *receiver,
                                const struct made_pass *pass, size_t n,
                                struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    const struct tiered_block *block = &pass->layout->blocks[0];
    struct made_block there, back = {0};
    struct tiered_error why = {0};
    int result = 0;
    if (made_forward(check, sender, block, pass->data, n, ops->bound(sender, n), &there,
                     &why) < 0) {
        return check_refusal("forward", &why, err); /* it may want values */
    }
    if (made_inverse(check, receiver, block, there.data, there.size, n, &back, &why) <
        0) {
        result = check_call_failed("inverse of what forward made", &why, err);
    } else if (back.size != n || memcmp(back.data, pass->data, n) != 0) {
        result = tiered_fail(err, TIERED_EINVAL,
                             "%zu bytes of another filter come back changed", n);
    }
    free(there.data);
    free(back.data);
    return result;
}

/* Behind another filter the input is bytes of any number. */
static int behind_another(struct check *check, struct tiered_error *err)
{
    static const size_t counts[] = {0, 1, 2, 3, 5, 17, 999, 1001, 4096};
    struct made_pass pass;
    struct tiered_error why = {0};
    void *sender, *receiver;
    if (filter_has(check, TIERED_LOSSY | TIERED_PRIVACY | TIERED_NEEDS_SCAN)) {
        return check_skip(check, "works on values, not on another filter's bytes");
    }
    if (filter_mixed_begun(check, &sender, &pass, err) < 0) {
        return -1;
    }
    int result = filter_open(check, pass.layout, &receiver, err);
    if (result == 0) {
        if (made_inverse_begin(check, receiver, pass.header.data, pass.header.size,
                               &why) < 0) {
            result = check_call_failed("inverse_begin", &why, err);
        }
        for (size_t i = 0; i < TIERED_COUNT(counts) && result == 0; i++) {
            result =
                bytes_there_and_back(check, sender, receiver, &pass, counts[i], err);
        }
        filter_close(check, receiver);
    }
    filter_close(check, sender);
    made_pass_finish(&pass);
    return result;
}

/* ---- threads ---- */

struct crowd {
    const struct tiered_filter_ops *ops;
    void *state;
    const struct made_pass *pass;
    const uint8_t *decoded;
    bool forward;
};

static bool one_block(const struct crowd *crowd, uint32_t i)
{
    const struct tiered_block *block = &crowd->pass->layout->blocks[i];
    const struct made_block *made = &crowd->pass->blocks[i];
    size_t raw = (size_t)block->size_bytes, size = 0;
    size_t capacity = crowd->forward ? crowd->ops->bound(crowd->state, raw) : raw;
    const uint8_t *want =
        crowd->forward ? made->data : crowd->decoded + block->offset_bytes;
    size_t want_size = crowd->forward ? made->size : raw;
    uint8_t *out = malloc(capacity + 1);
    int result = !out ? -1
                 : crowd->forward
                     ? crowd->ops->forward(crowd->state, block,
                                           crowd->pass->data + block->offset_bytes, raw,
                                           out, capacity, &size, NULL)
                     : crowd->ops->inverse(crowd->state, block, made->data, made->size,
                                           out, capacity, &size, NULL);
    bool same = result == 0 && size == want_size && memcmp(out, want, size) == 0;
    free(out);
    return same;
}

static bool every_block(void *user, size_t thread)
{
    const struct crowd *crowd = user;
    uint32_t n = crowd->pass->layout->n_blocks;
    bool same = true;
    for (uint32_t turn = 0; turn < 3 * n && same; turn++) {
        same = one_block(crowd, (turn + (uint32_t)thread) % n);
    }
    return same;
}

/* Within one pass the same input gives the same output: first in turn, then at once. */
static int forward_at_once(struct check *check, void *state, struct made_pass *pass,
                           struct tiered_error *err)
{
    struct crowd crowd = {check->loaded.plugin.ops, state, pass, NULL, true};
    if (made_pass_forward(check, state, pass, err) < 0) {
        return -1;
    }
    check_step(check, "forward on %d threads", N_THREADS);
    return check_threads(N_THREADS, every_block, &crowd)
               ? made_pass_end(check, state, err)
               : tiered_fail(err, TIERED_EINVAL,
                             "is TIERED_CONCURRENT, but several threads at once make "
                             "other bytes than one");
}

static int inverse_at_once(struct check *check, void *state, struct made_pass *pass,
                           struct tiered_error *err)
{
    TIERED_FREE uint8_t *out =
        check_must(calloc(1, (size_t)pass->layout->m.data_bytes + 1));
    struct crowd crowd = {check->loaded.plugin.ops, state, pass, out, false};
    struct tiered_error why = {0};
    if (decode_on_another(check, pass, out, err) < 0) {
        return -1;
    }
    if (made_inverse_begin(check, state, pass->header.data, pass->header.size, &why) <
        0) {
        return check_call_failed("inverse_begin", &why, err);
    }
    check_step(check, "inverse on %d threads", N_THREADS);
    return check_threads(N_THREADS, every_block, &crowd)
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "is TIERED_CONCURRENT, but inverse on several threads "
                             "gives other values");
}

static int threads(struct check *check, struct tiered_error *err)
{
    struct made_pass pass;
    void *sender, *receiver;
    if (!filter_has(check, TIERED_CONCURRENT)) {
        return check_skip(check, "is not TIERED_CONCURRENT");
    }
    if (filter_mixed_begun(check, &sender, &pass, err) < 0) {
        return -1;
    }
    int result = forward_at_once(check, sender, &pass, err);
    filter_close(check, sender);
    if (result == 0 &&
        (result = filter_open(check, pass.layout, &receiver, err)) == 0) {
        result = inverse_at_once(check, receiver, &pass, err);
        filter_close(check, receiver);
    }
    made_pass_finish(&pass);
    return result;
}

static const struct check_case cases[] = {
    {"round trip", round_trip},
    {"zeros", zeros},
    {"any bits", any_bits},
    {"sizes", sizes},
    {"behind another filter", behind_another},
    {"small outputs", check_small_outputs},
    {"damaged blocks", check_damaged_blocks},
    {"damaged headers", check_damaged_headers},
    {"non-finite values", check_nonfinite},
    {"same pass again", check_same_pass},
    {"dropped pass", check_dropped_pass},
    {"saved state", check_saved_state},
    {"threads", threads},
    {"norm", check_norm},
    {"noise", check_noise},
};

const struct check_kind check_filter = {
    .open = filter_init,
    .close = filter_close,
    .use = filter_use,
    .cases = cases,
    .n_cases = TIERED_COUNT(cases),
};
