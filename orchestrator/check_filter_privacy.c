/* SPDX-License-Identifier: Apache-2.0 */
/* What a privacy filter says of itself must be so: the norm that it bounds, and noise
   that depends on its element alone. */
#include "orchestrator/check_filter.h"

#include <math.h>
#include <string.h>

#include "core/privacy/filters.h"

#define N 4160 /* of noise: more than a tile */

static double norm_of(const uint8_t *data, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, data + i * sizeof(value), sizeof(value));
        sum += (double)value * (double)value;
    }
    return sqrt(sum);
}

/* One update, to the bound that the options fix, or to one that its parent tells. */
static int clip_to(struct check *check, double bound, bool told,
                   struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct made_pass pass = made_pass(made_layout_flat(100000), MADE_NORMAL);
    TIERED_FREE uint8_t *out = check_must(calloc(1, 400000));
    struct tiered_error why = {0};
    void *state;
    int within = 0, result = filter_open(check, pass.layout, &state, err);
    if (result == 0) {
        result = told && ops->bound_to(state, bound, &why) < 0
                     ? check_call_failed("bound_to", &why, err)
                     : made_pass_encode(check, state, &pass, err);
        within = result == 0 && told ? ops->within(state) : 0;
        result = result == 0 ? made_pass_decode(check, state, &pass, out, err) : result;
        filter_close(check, state);
    }
    double norm = result == 0 ? norm_of(out, 100000) : 0;
    bool was_within = norm_of(pass.data, 100000) <= bound;
    if (norm > bound * (1 + 1e-9)) {
        result = tiered_fail(err, TIERED_ERANGE,
                             "says that it bounds the norm to %g, and lets %.12g out",
                             bound, norm);
    } else if (result == 0 && told && within != was_within) {
        result = tiered_fail(err, TIERED_EINVAL,
                             "says within: %d of an update that is %s its bound of %g",
                             within, was_within ? "within" : "above", bound);
    }
    made_pass_finish(&pass);
    return result;
}

/* Whatever the share, noise on it included, the next bound is one. */
static int check_next(struct check *check, double first, struct tiered_error *err)
{
    static const double shares[] = {-1e6, -1, 0, 0.5, 1, 2, 1e6};
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    for (size_t i = 0; i < TIERED_COUNT(shares); i++) {
        double next = ops->next_norm(check->config.data, first, shares[i]);
        if (!(next > 0) || !isfinite(next)) {
            return tiered_fail(err, TIERED_ERANGE,
                               "makes %g of a bound of %g and a share of %g", next,
                               first, shares[i]);
        }
    }
    return 0;
}

static int check_following(struct check *check, double first, struct tiered_error *err)
{
    const double bounds[] = {first, 1e-3, 1e6};
    int result = check_next(check, first, err);
    for (size_t i = 0; i < TIERED_COUNT(bounds) && result == 0; i++) {
        result = clip_to(check, bounds[i], true, err);
    }
    return result;
}

int check_norm(struct check *check, struct tiered_error *err)
{
    const struct tiered_plugin *plugin = &check->loaded.plugin;
    double bound = tiered_privacy_norm(plugin, check->config.data);
    double first = tiered_privacy_first_norm(plugin, check->config.data);
    if (!(bound > 0) && !(first > 0)) {
        return check_skip(check, "says no norm that it bounds");
    }
    if (tiered_privacy_is_noise(plugin)) {
        return check_skip(check, "adds noise behind its bound");
    }
    return bound > 0 ? clip_to(check, bound, false, err)
                     : check_following(check, first, err);
}

static int begin_noise(struct check *check, void *state, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    if (ops->sensitivity(state, 1, &why) < 0) {
        return check_call_failed("sensitivity", &why, err);
    }
    return ops->begin && ops->begin(state, &check->hosting.host, &why) < 0
               ? check_call_failed("begin", &why, err)
               : 0;
}

static int add(struct check *check, void *state, const struct tiered_block *block,
               uint64_t at, size_t n, double *values, struct tiered_error *err)
{
    const struct tiered_filter_ops *ops = check->loaded.plugin.ops;
    struct tiered_error why = {0};
    return ops->add(state, block, at, n, values, &why) < 0
               ? check_call_failed("add", &why, err)
               : 0;
}

/* In one piece and in pieces of 64, from the last to the first. */
static int compare_pieces(struct check *check, void *state,
                          const struct tiered_block *block, struct tiered_error *err)
{
    double whole[N] = {0}, pieces[N] = {0};
    size_t n_zero = 0;
    if (begin_noise(check, state, err) < 0 ||
        add(check, state, block, 0, N, whole, err) < 0) {
        return -1;
    }
    for (size_t at = N; at > 0; at -= 64) {
        if (add(check, state, block, at - 64, 64, pieces + at - 64, err) < 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < N; i++) {
        n_zero += whole[i] == 0;
        if (!isfinite(whole[i])) {
            return tiered_fail(err, TIERED_ERANGE, "adds %g to element %zu", whole[i],
                               i);
        }
    }
    if (!check_same_bits(whole, pieces, sizeof(whole))) {
        return tiered_fail(err, TIERED_EINVAL,
                           "the noise of an element depends on which others are asked "
                           "for with it");
    }
    return n_zero > N / 2 ? tiered_fail(err, TIERED_EINVAL,
                                        "adds nothing to %zu of %d elements", n_zero, N)
                          : 0;
}

int check_noise(struct check *check, struct tiered_error *err)
{
    struct tiered_noise noise;
    void *state;
    if (!tiered_privacy_noise(&check->loaded.plugin, check->config.data, &noise)) {
        return check_skip(check, "adds no noise");
    }
    if (!(noise.noise_multiplier > 0) || !isfinite(noise.noise_multiplier) ||
        !(noise.delta > 0 && noise.delta < 1)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "says a noise multiplier of %g and a delta of %g",
                           noise.noise_multiplier, noise.delta);
    }
    struct made_pass pass = made_pass(made_layout_flat(N), MADE_ZERO);
    int result = filter_open(check, pass.layout, &state, err);
    if (result == 0) {
        result = compare_pieces(check, state, &pass.layout->blocks[0], err);
        filter_close(check, state);
    }
    made_pass_finish(&pass);
    return result;
}
