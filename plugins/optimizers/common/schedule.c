/* SPDX-License-Identifier: Apache-2.0 */
/* The factor of a step's learning rate. */
#include "schedule.h"

#define PI 3.14159265358979323846

double tiered_power(double x, uint64_t n)
{
    double power = 1;
    for (; n; n >>= 1) {
        power = n & 1 ? power * x : power;
        x *= x;
    }
    return power;
}

/** (1 + cos(pi a)) / 2 for a in [0, 1], which is cos^2(pi a / 2). Its series, over
    [0, pi/2] at most, is as good as a double after eleven terms. */
static double half_cosine(double a)
{
    double square = PI / 2 * a * (PI / 2 * a), cosine = 0;
    for (int i = 20; i >= 0; i -= 2) {
        cosine = 1 - square / ((i + 1) * (i + 2)) * cosine;
    }
    return cosine * cosine;
}

static double after_warmup(const struct tiered_schedule *s, uint64_t k)
{
    switch (s->schedule) {
    case TIERED_SCHEDULE_STEP:
        return tiered_power(s->step_factor, k / (uint64_t)s->every);
    case TIERED_SCHEDULE_EXPONENTIAL:
        return tiered_power(s->exponential_factor, k);
    case TIERED_SCHEDULE_COSINE:
        return k >= (uint64_t)s->rounds
                   ? s->min_factor
                   : s->min_factor + (1 - s->min_factor) *
                                         half_cosine((double)k / (double)s->rounds);
    default:
        return 1;
    }
}

double tiered_schedule_factor(const struct tiered_schedule *schedule, uint64_t step)
{
    uint64_t warmup = (uint64_t)schedule->warmup;
    return step <= warmup ? (double)step / (double)(warmup + 1)
                          : after_warmup(schedule, step - warmup - 1);
}
