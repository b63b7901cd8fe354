/* SPDX-License-Identifier: Apache-2.0 */
/* When the noise of a group's members adds up to one Gaussian.

   A member rounds its value x with noise to steps h of the group's ring, up or down by
   a coin. For who knows the coin this is the density of x + coin + noise less a uniform
   number of [0, h), read at the steps. As a Fourier series it is that of the density
   and its copies 2 pi / h apart, none of which is above exp(-(pi sigma / h)^2 / 2): for
   16 steps in sigma that is 1e-548. But for this, the sum of m such numbers is spread
   like the sum of values and coins with noise of sigma * sqrt(m), less m uniform
   numbers, read at the steps; and that one gets from the sum of the values and that
   noise alone, by taking off m - 1 uniform numbers that depend on no value, and
   rounding down once. What is made of a noisy sum without looking at the values again
   tells nothing more. So the sum is no worse than the Gaussian mechanism of sigma *
   sqrt(m), and C is not enlarged: the rounding is behind the noise.

   Kairouz, Liu and Steinke 2021 (arXiv:2102.06387) treat the other order, discrete
   Gaussian noise behind the rounding, and bound there how far a sum of such noise is
   from a Gaussian's. */
#include "core/privacy/distributed.h"

#include <math.h>
#include <stdio.h>

#include "core/plan/plan.h"
#include "core/privacy/filters.h"

/* Steps in one deviation of a member's noise, at least. Four would do for the proof;
   at sixteen the rounding adds less than a thousandth to the noise, too. */
#define LEAST_STEPS 16.0

/* Deviations of noise that the ring's range leaves whole, at least. What is cut at the
   range is no Gaussian any more, and a normal value goes beyond nine deviations once in
   4e18 times: far below any delta. gaussian's own, of 53 bits, ends at 8.6. */
#define REACH 9.0

struct question {
    const struct tiered_plugin_list *uplink;
    const struct tiered_plugin_ref *rule; /* of the parent */
    const struct tiered_group_terms *terms;
    double norm, sigma;
};

static const char *name_of(const struct tiered_plugin_ref *ref)
{
    return ref->loaded->plugin.name;
}

/* Fills `why` where the noise does not add up. */
static void answer(const struct question *q, char why[TIERED_DISTRIBUTED_WHY])
{
    const struct tiered_plugin_ref *group = &q->uplink->items[q->uplink->n - 1];
    const struct tiered_plugin_ref *before = group - 1;
    double reach = q->norm + REACH * q->sigma;
    if (!tiered_privacy_is_noise(&before->loaded->plugin)) {
        snprintf(why, TIERED_DISTRIBUTED_WHY,
                 "'%s' stands between the noise and '%s'; put it first",
                 name_of(before), name_of(group));
    } else if (q->terms->needed == 0) {
        snprintf(why, TIERED_DISTRIBUTED_WHY,
                 "'%s' does not say how few updates it opens a sum of", name_of(group));
    } else if (!tiered_plan_counts_once(q->rule)) {
        snprintf(why, TIERED_DISTRIBUTED_WHY,
                 "'%s' above counts some updates for more than others; give it "
                 "weighted_by: uniform",
                 name_of(q->rule));
    } else if (q->terms->range < reach) {
        snprintf(why, TIERED_DISTRIBUTED_WHY,
                 "'%s' would cut the noise at +-%g; a range of +-%.9g or more does not",
                 name_of(group), q->terms->range, ceil(reach * 100) / 100);
    } else if (q->sigma < LEAST_STEPS * q->terms->step) {
        snprintf(why, TIERED_DISTRIBUTED_WHY,
                 "the steps of '%s', %.3g, are coarse for noise of %.3g; steps below "
                 "%.3g are not",
                 name_of(group), q->terms->step, q->sigma, q->sigma / LEAST_STEPS);
    }
}

int tiered_distributed_of(const struct tiered_plan *plan, uint32_t node,
                          const struct tiered_noise *noise, double norm,
                          struct tiered_distributed *ret, struct tiered_error *err)
{
    const struct tiered_node *parent = &plan->nodes[plan->nodes[node].parent];
    const struct tiered_plugin_list *uplink = &plan->nodes[node].settings->uplink;
    const struct tiered_plugin_ref *last = &uplink->items[uplink->n - 1];
    uint32_t n = tiered_rounds_sampled(&parent->settings->rounds, parent->n_children);
    struct tiered_group_terms terms;
    *ret = (struct tiered_distributed){0};
    if (last->loaded->plugin.kind != TIERED_GROUP || uplink->n < 2) {
        return 0;
    }
    TIERED_FREE char *options = tiered_plan_options(plan, node, last, err);
    if (!options ||
        tiered_group_terms(&last->loaded->plugin, options, n, &terms, err) < 0) {
        return -1;
    }
    const struct question q = {uplink, &parent->settings->aggregate.items[0], &terms,
                               norm, noise->noise_multiplier * norm};
    answer(&q, ret->why);
    ret->members = ret->why[0] ? 0 : terms.needed;
    return 0;
}
