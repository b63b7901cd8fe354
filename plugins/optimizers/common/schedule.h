/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Learning-rate schedules: the factor that an optimizer's `lr` has in each of its
 * steps.
 *
 * A pure function of the options and of the step's number, which the host saves with
 * the slots: a restart goes on where the schedule was. Only additions, multiplications
 * and divisions, so that the factor is the same bits with every C library.
 *
 * The first `warmup` steps climb: step t of them has t / (warmup + 1). Then the
 * schedule begins, with k = 0 in its first step:
 *
 *     constant      1
 *     step          factor^floor(k / every)
 *     exponential   factor^k
 *     cosine        min_factor + (1 - min_factor) (1 + cos(pi k / rounds)) / 2, and
 *                   min_factor from k = rounds on
 */
#ifndef TIERED_OPTIMIZERS_SCHEDULE_H
#define TIERED_OPTIMIZERS_SCHEDULE_H

#include "tiered/option.h"

enum tiered_schedule_kind {
    TIERED_SCHEDULE_CONSTANT,
    TIERED_SCHEDULE_STEP,
    TIERED_SCHEDULE_EXPONENTIAL,
    TIERED_SCHEDULE_COSINE,
};

/** The first member of every optimizer's config, so that the rows below fit them all.
 */
struct tiered_schedule {
    int32_t schedule; /* enum tiered_schedule_kind */
    int64_t warmup;
    int64_t every, rounds;
    double step_factor, exponential_factor, min_factor;
};

/** Of step 1, 2, …: in [0, 1]. */
double tiered_schedule_factor(const struct tiered_schedule *schedule, uint64_t step);

/** x^n by squaring. */
double tiered_power(double x, uint64_t n);

/** Two steps' options are called `factor`, so the rows cannot take the member's name.
 */
#define TIERED_SCHEDULE_FACTOR(member, ...)                                            \
    {                                                                                  \
        .name = "factor", .type = TIERED_DOUBLE, .min = 0, .max = 1,                   \
        .offset = offsetof(struct tiered_schedule, member), __VA_ARGS__                \
    }

static const struct tiered_option tiered_schedule_step[] = {
    TIERED_OPTION_INTEGER(struct tiered_schedule, every, NULL, 1, 1e9,
                          "rounds with one rate", .unit = "rounds",
                          .flags = TIERED_REQUIRED),
    TIERED_SCHEDULE_FACTOR(step_factor, .fallback = "0.1",
                           .help = "the rate is multiplied by it after each of them",
                           .flags = TIERED_EXCLUSIVE_MIN),
};

static const struct tiered_option tiered_schedule_exponential[] = {
    TIERED_SCHEDULE_FACTOR(exponential_factor,
                           .help = "the rate is multiplied by it after every round",
                           .flags = TIERED_EXCLUSIVE_MIN | TIERED_REQUIRED),
};

static const struct tiered_option tiered_schedule_cosine[] = {
    TIERED_OPTION_INTEGER(struct tiered_schedule, rounds, NULL, 1, 1e9,
                          "rounds from the whole rate to the least", .unit = "rounds",
                          .flags = TIERED_REQUIRED),
    TIERED_OPTION_DOUBLE(struct tiered_schedule, min_factor, "0", 0, 1,
                         "the least rate, as a share of lr"),
};

static const struct tiered_option tiered_schedules[] = {
    [TIERED_SCHEDULE_CONSTANT] = {.name = "constant", .help = "always lr"},
    [TIERED_SCHEDULE_STEP] = {.name = "step",
                              .help = "down by a factor, every so many rounds",
                              .nested = tiered_schedule_step,
                              .n_nested = 2},
    [TIERED_SCHEDULE_EXPONENTIAL] = {.name = "exponential",
                                     .help = "down by a factor every round",
                                     .nested = tiered_schedule_exponential,
                                     .n_nested = 1},
    [TIERED_SCHEDULE_COSINE] = {.name = "cosine",
                                .help = "down along half a cosine",
                                .nested = tiered_schedule_cosine,
                                .n_nested = 2},
};

#define TIERED_SCHEDULE_OPTIONS                                                        \
    TIERED_OPTION_CHOICE(struct tiered_schedule, schedule, "constant",                 \
                         tiered_schedules,                                             \
                         "how the rate goes on from round to round"),                  \
        TIERED_OPTION_INTEGER(struct tiered_schedule, warmup, "0", 0, 1e9,             \
                              "rounds in which the rate climbs to lr; the schedule "   \
                              "begins after them",                                     \
                              .unit = "rounds")

#endif
