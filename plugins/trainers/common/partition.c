/* SPDX-License-Identifier: Apache-2.0 */
/* The three ways to deal out examples: evenly, by shards of sorted labels (McMahan et
   al. 2017), and by Dirichlet draws per class (Hsu et al. 2019). */
#include "partition.h"

#include <inttypes.h>
#include <stdlib.h>

#include "tiered/random.h"

#define SHARDS_PER_LEAF 2
#define ENOUGH_EXAMPLES 10  /* a leaf with fewer asks for another draw */
#define MOST_GAMMAS     2e7 /* of all draws together: about two seconds */

/* Where part k of `parts` begins when n things are cut as evenly as can be. */
static uint32_t cut(uint32_t n, uint64_t k, uint64_t parts)
{
    return (uint32_t)((uint64_t)n * k / parts);
}

/* All examples shuffled, then put in order of their class. starts: n_classes + 1. */
static void sort_by_class(const struct tiered_partition *p, const uint32_t *shuffled,
                          uint32_t *out, uint32_t *starts)
{
    memset(starts, 0, (p->n_classes + 1) * sizeof(*starts));
    for (uint32_t i = 0; i < p->n; i++) {
        starts[p->class_of[i] + 1]++;
    }
    for (uint32_t c = 0; c < p->n_classes; c++) {
        starts[c + 1] += starts[c];
    }
    for (uint32_t i = 0; i < p->n; i++) {
        out[starts[p->class_of[shuffled[i]]]++] = shuffled[i];
    }
    for (uint32_t c = p->n_classes; c > 0; c--) { /* filling moved them on by one */
        starts[c] = starts[c - 1];
    }
    starts[0] = 0;
}

static void assign_iid(const struct tiered_partition *p, const uint32_t *shuffled,
                       uint32_t *owner)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        while (i == cut(p->n, k + 1, p->count)) {
            k++;
        }
        owner[shuffled[i]] = k;
    }
}

static int assign_shards(const struct tiered_partition *p, const uint32_t *sorted,
                         struct tiered_rng *rng, uint32_t *owner,
                         struct tiered_error *err)
{
    uint32_t n_shards = SHARDS_PER_LEAF * p->count;
    uint32_t *order = malloc(n_shards * sizeof(*order));
    if (!order) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t s = 0; s < n_shards; s++) {
        order[s] = s;
    }
    tiered_rng_shuffle(rng, order, n_shards);
    for (uint32_t s = 0; s < n_shards; s++) {
        uint32_t end = cut(p->n, order[s] + 1ull, n_shards);
        for (uint32_t i = cut(p->n, order[s], n_shards); i < end; i++) {
            owner[sorted[i]] = s / SHARDS_PER_LEAF;
        }
    }
    free(order);
    return 0;
}

/* The logarithm of a draw from Gamma(alpha, 1), by Marsaglia and Tsang (2000). As a
   logarithm, since for a small alpha the draw itself is 0 in floating point. */
static double draw_log_gamma(struct tiered_rng *rng, double alpha)
{
    double shape = alpha < 1 ? alpha + 1 : alpha;
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d), v, x, u;
    do {
        x = tiered_rng_normal(rng);
        v = 1 + c * x;
        v = v * v * v;
        u = 1 - tiered_rng_uniform(rng);
    } while (v <= 0 || log(u) >= 0.5 * x * x + d - d * v + d * log(v));
    double boost = alpha < 1 ? log(1 - tiered_rng_uniform(rng)) / alpha : 0;
    return log(d * v) + boost;
}

/* p ~ Dir(alpha), as running sums of which the last is 1. */
static void draw_shares(struct tiered_rng *rng, double alpha, uint32_t count,
                        double *sums)
{
    double most = -INFINITY, total = 0;
    for (uint32_t k = 0; k < count; k++) {
        sums[k] = draw_log_gamma(rng, alpha);
        most = sums[k] > most ? sums[k] : most;
    }
    for (uint32_t k = 0; k < count; k++) {
        total += exp(sums[k] - most);
        sums[k] = total;
    }
    for (uint32_t k = 0; k < count; k++) {
        sums[k] /= total;
    }
}

/* Cut every class by a draw: ends[c * count + k] is where leaf k's part of class c
   ends. Returns how many examples the poorest leaf has. */
static uint32_t draw_ends(const struct tiered_partition *p, const uint32_t *starts,
                          struct tiered_rng *rng, double *sums, uint32_t *sizes,
                          uint32_t *ends)
{
    memset(sizes, 0, p->count * sizeof(*sizes));
    for (uint32_t c = 0; c < p->n_classes; c++) {
        uint32_t n = starts[c + 1] - starts[c], before = 0;
        draw_shares(rng, p->alpha, p->count, sums);
        for (uint32_t k = 0; k < p->count; k++) {
            uint32_t end = k + 1 == p->count ? n : (uint32_t)(sums[k] * n);
            ends[(size_t)c * p->count + k] = end;
            sizes[k] += end - before;
            before = end;
        }
    }
    uint32_t least = UINT32_MAX;
    for (uint32_t k = 0; k < p->count; k++) {
        least = sizes[k] < least ? sizes[k] : least;
    }
    return least;
}

static void assign_ends(const struct tiered_partition *p, const uint32_t *sorted,
                        const uint32_t *starts, const uint32_t *ends, uint32_t *owner)
{
    for (uint32_t c = 0; c < p->n_classes; c++) {
        uint32_t i = starts[c];
        for (uint32_t k = 0; k < p->count; k++) {
            for (; i < starts[c] + ends[(size_t)c * p->count + k]; i++) {
                owner[sorted[i]] = k;
            }
        }
    }
}

static uint32_t enough_examples(const struct tiered_partition *p)
{
    uint32_t half = p->n / (2 * p->count);
    return half > ENOUGH_EXAMPLES ? ENOUGH_EXAMPLES : half > 1 ? half : 1;
}

static int draw_until_enough(const struct tiered_partition *p, const uint32_t *sorted,
                             const uint32_t *starts, struct tiered_rng *rng,
                             double *sums, uint32_t *sizes, uint32_t *ends,
                             uint32_t *owner, struct tiered_error *err)
{
    uint32_t enough = enough_examples(p);
    double most = MOST_GAMMAS / ((double)p->n_classes * p->count);
    uint32_t attempts = most < 10 ? 10 : most > 10000 ? 10000 : (uint32_t)most;
    for (uint32_t i = 0; i < attempts; i++) {
        if (draw_ends(p, starts, rng, sums, sizes, ends) >= enough) {
            assign_ends(p, sorted, starts, ends, owner);
            return 0;
        }
    }
    return tiered_fail(err, TIERED_EINVAL,
                       "partition dirichlet with alpha %g: in each of %" PRIu32
                       " draws some of the %" PRIu32 " leaves had fewer than %" PRIu32
                       " of the %" PRIu32 " examples; raise alpha or have fewer leaves",
                       p->alpha, attempts, p->count, enough, p->n);
}

static int assign_dirichlet(const struct tiered_partition *p, const uint32_t *sorted,
                            const uint32_t *starts, struct tiered_rng *rng,
                            uint32_t *owner, struct tiered_error *err)
{
    double *sums = malloc(p->count * sizeof(*sums));
    uint32_t *sizes = malloc(p->count * sizeof(*sizes));
    uint32_t *ends = malloc((size_t)p->n_classes * p->count * sizeof(*ends));
    int result =
        sums && sizes && ends
            ? draw_until_enough(p, sorted, starts, rng, sums, sizes, ends, owner, err)
            : tiered_fail(err, TIERED_ENOMEM, "out of memory");
    free(sums);
    free(sizes);
    free(ends);
    return result;
}

/* order: room for n twice. */
static int assign(const struct tiered_partition *p, struct tiered_rng *rng,
                  uint32_t *order, uint32_t *starts, uint32_t *owner,
                  struct tiered_error *err)
{
    uint32_t *sorted = order + p->n;
    for (uint32_t i = 0; i < p->n; i++) {
        order[i] = i;
    }
    tiered_rng_shuffle(rng, order, p->n);
    if (p->split == TIERED_SPLIT_IID) {
        assign_iid(p, order, owner);
        return 0;
    }
    sort_by_class(p, order, sorted, starts);
    return p->split == TIERED_SPLIT_SHARDS
               ? assign_shards(p, sorted, rng, owner, err)
               : assign_dirichlet(p, sorted, starts, rng, owner, err);
}

int tiered_partition_assign(const struct tiered_partition *p, const uint8_t key[32],
                            uint32_t *owner, struct tiered_error *err)
{
    struct tiered_rng rng;
    uint32_t needed = p->split == TIERED_SPLIT_SHARDS ? SHARDS_PER_LEAF : 1;
    if ((uint64_t)p->count * needed > p->n) {
        return tiered_fail(err, TIERED_EINVAL,
                           "%" PRIu32 " training examples are too few for %" PRIu32
                           " leaves",
                           p->n, p->count);
    }
    uint32_t *order = malloc(2 * (size_t)p->n * sizeof(*order));
    uint32_t *starts = malloc(((size_t)p->n_classes + 1) * sizeof(*starts));
    tiered_rng_init(&rng, key);
    int result = order && starts ? assign(p, &rng, order, starts, owner, err)
                                 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
    free(order);
    free(starts);
    return result;
}
