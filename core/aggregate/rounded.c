/* SPDX-License-Identifier: Apache-2.0 */
/* What central noise is measured by over a group, which rounds twice: each member its
   update to the steps of the ring, and the aggregator their mean to the model's dtype.

   A member moves each of its d values by less than a step, so that an update of norm C
   adds a vector of norm S < C + sqrt(d) * step to the sum. The mean of m of them is at
   most of norm S, and rounded to a dtype of relative precision u, and of numbers that
   are t apart next to 0, off by a vector of norm u * S + sqrt(d) * t. Taken m times,
   and m is at most the expected n, that is part of the sum; and as two sums are
   compared, it is there twice. */
#include "core/aggregate/internal.h"

#include <math.h>
#include <stdio.h>

#define MUCH 1.1 /* so many times the noise are worth a word */

struct precision {
    double relative, absolute; /* half a unit in the last place; of subnormal numbers */
};

static struct precision precision_of(enum tiered_dtype dtype)
{
    switch (dtype) {
    case TIERED_F64:
        return (struct precision){0x1p-53, 0};
    case TIERED_F32:
        return (struct precision){0x1p-24, 0x1p-150};
    case TIERED_BF16:
        return (struct precision){0x1p-8, 0x1p-134};
    default:
        return (struct precision){0x1p-11, 0x1p-25};
    }
}

double tiered_strategy_group_norm(const struct tiered_strategy_run *run, double norm,
                                  double expected)
{
    const struct tiered_manifest *m = &run->layout->m;
    struct precision worst = {0, 0};
    double d = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct tiered_tensor *t = &m->tensors[i];
        if (t->role == TIERED_PARAMETER && tiered_dtype_is_float(t->dtype)) {
            struct precision p = precision_of(t->dtype);
            d += (double)t->n_elements;
            worst.relative = fmax(worst.relative, p.relative);
            worst.absolute = fmax(worst.absolute, p.absolute);
        }
    }
    double sum = norm + sqrt(d) * run->group_step;
    return sum + 2 * expected * (worst.relative * sum + sqrt(d) * worst.absolute);
}

double tiered_strategy_group_bound(struct strategy_work *work, double norm)
{
    struct strategy_noise *noise = &work->strategy->noise;
    const struct tiered_host *host = &work->strategy->hosting->host;
    double bound = tiered_strategy_group_norm(work->run, norm, noise->expected);
    if (bound > MUCH * norm && !noise->told) {
        char text[160];
        snprintf(
            text, sizeof(text),
            "the rounding of a group's updates makes the noise %.3g times as large; "
            "finer steps of the group cost less",
            bound / norm);
        host->log(host, TIERED_LOG_WARN, text);
        noise->told = true;
    }
    return bound;
}
