/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What privacy filters and groups say of themselves from their options alone: the norm
 * that they bound, whether it follows the updates', the noise that they add, the group
 * that can be. Pure functions of what is given; any thread.
 */
#ifndef TIERED_CORE_PRIVACY_FILTERS_H
#define TIERED_CORE_PRIVACY_FILTERS_H

#include "core/base/base.h"
#include "tiered/filter.h"
#include "tiered/group.h"

/** Can this plugin bound a norm, or add noise, whatever its options? */
bool tiered_privacy_bounds(const struct tiered_plugin *plugin);
bool tiered_privacy_is_noise(const struct tiered_plugin *plugin);

/** Its bound may follow the norms of updates, by its options. */
bool tiered_privacy_can_follow(const struct tiered_plugin *plugin);

/** The norm that a filter of these options fixes; 0: none. */
double tiered_privacy_norm(const struct tiered_plugin *plugin, const void *config);
/** The first of a bound that follows; 0: it does not. */
double tiered_privacy_first_norm(const struct tiered_plugin *plugin,
                                 const void *config);
/** Its noise; false when it adds none. */
bool tiered_privacy_noise(const struct tiered_plugin *plugin, const void *config,
                          struct tiered_noise *ret);

/** All of that. */
struct tiered_privacy {
    double norm, first_norm;   /* 0: none */
    struct tiered_noise noise; /* size 0: none */
};
/** From options as JSON. */
int tiered_privacy_of(const struct tiered_plugin *plugin, const char *options_json,
                      struct tiered_privacy *ret, struct tiered_error *err);

/** The count of updates within a bound that follows norms gets noise of the expected
    number over this (arXiv:1905.03871). */
#define TIERED_COUNT_NOISE 20
/** How far one update moves that count: a half where one may be missing, for (within -
    1/2) is summed. A group shows how many it sums, so an update is compared with one of
    zeros, which is within: it may be one. */
double tiered_privacy_count_step(bool grouped);
/** More children than this a round must ask, or the count's noise leaves none for the
    delta. */
double tiered_privacy_least_children(double noise_multiplier, bool grouped);
/** Can a bound that follows norms go up and down where only this share of the expected
    updates comes, and those that are missing count as half within? */
bool tiered_privacy_turns(const struct tiered_plugin *plugin, const char *options_json,
                          double participation);

/** Does this group tell its terms? */
bool tiered_group_tells(const struct tiered_plugin *plugin);
/** A group's terms from options as JSON. One that does not tell has needed 0. */
int tiered_group_terms(const struct tiered_plugin *plugin, const char *options_json,
                       uint32_t n_members, struct tiered_group_terms *ret,
                       struct tiered_error *err);

#endif
