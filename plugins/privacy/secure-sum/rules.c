/* SPDX-License-Identifier: Apache-2.0 */
/* What both sides count by: thresholds, group sizes, ranks, commitments. */
#include "inside.h"

uint32_t ss_threshold(const struct ss_rules *rules, uint32_t n)
{
    /* "0.666667" of 6 is meant as 4 */
    double share = rules->threshold * n - 2e-6 * n;
    uint32_t up = (uint32_t)share + ((double)(uint32_t)share < share);
    uint32_t half = n / 2 + 1;
    up = up > half ? up : half;
    return up < n ? up : n;
}

uint32_t ss_enough(const struct ss_rules *rules, uint32_t n)
{
    uint32_t enough = ss_threshold(rules, n);
    return enough > rules->min_group ? enough : rules->min_group;
}

uint32_t ss_needed(const struct ss_rules *rules, uint32_t n)
{
    uint32_t enough = ss_enough(rules, n);
    return enough > rules->least ? enough : rules->least;
}

struct ss_rules ss_round_rules(const struct ss_rules *rules,
                               const struct tiered_group_round *round)
{
    struct ss_rules made = *rules;
    made.least = TIERED_HAS(round, least) ? round->least : 0;
    return made;
}

int ss_check_group(struct ss_rules *rules, uint32_t n, struct tiered_error *err)
{
    uint32_t degree = ss_degree(n, rules->neighbours);
    if (n < rules->min_group) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a group of %u, and min_group asks for %u members; lower "
                           "min_group or give it more children",
                           n, rules->min_group);
    }
    if (n < rules->least) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a group of %u, and the noise of its members is counted for "
                           "sums of %u and more",
                           n, rules->least);
    }
    if (n > SS_MOST_MEMBERS || degree >= SS_MOST_HOLDERS) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a group of %u with %u neighbours each; at most %u members "
                           "and %u neighbours can be: more parents make smaller groups",
                           n, degree, SS_MOST_MEMBERS, SS_MOST_HOLDERS - 1);
    }
    return ss_ring_fit(&rules->ring, n, err);
}

int ss_commit(enum ss_kind kind, const uint8_t *session, uint32_t owner,
              uint32_t holder, const uint8_t share[SS_SECRET_BYTES],
              uint8_t out[SS_KEY_BYTES], struct tiered_error *err)
{
    const struct ss_use use = {kind == SS_SEED ? "share b" : "share s", session, owner,
                               holder};
    return ss_digest(&use, share, SS_SECRET_BYTES, out, err);
}

uint32_t ss_rank(const uint32_t *neighbours, uint32_t n, uint32_t owner,
                 uint32_t holder)
{
    uint32_t rank = owner < holder;
    for (uint32_t i = 0; i < n && neighbours[i] < holder; i++) {
        rank++;
    }
    return rank;
}
