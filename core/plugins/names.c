/* SPDX-License-Identifier: Apache-2.0 */
/* Names of kinds and traits, and of the plugins that a later version brings. */
#include "core/plugins/internal.h"

const char *const tiered_absent_plugins[] = {
    "python",
    "https",
    "mqtt",
    "kafka",
};
const size_t tiered_n_absent_plugins = TIERED_COUNT(tiered_absent_plugins);

const char *tiered_kind_name(enum tiered_kind kind)
{
    static const char *const names[] = {
        [TIERED_AGGREGATOR] = "aggregator", [TIERED_OPTIMIZER] = "optimizer",
        [TIERED_FILTER] = "filter",         [TIERED_GROUP] = "group",
        [TIERED_TRANSPORT] = "transport",   [TIERED_TRAINER] = "trainer",
    };
    return kind >= TIERED_AGGREGATOR && kind <= TIERED_TRAINER ? names[kind] : "plugin";
}

const char *tiered_trait_name(uint32_t bit)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } traits[] = {
        {TIERED_NEEDS_INDIVIDUAL_UPDATES, "needs_individual_updates"},
        {TIERED_LOSSY, "lossy"},
        {TIERED_NEEDS_SCAN, "needs_scan"},
        {TIERED_COMPOSES_EXACTLY, "composes_exactly"},
        {TIERED_ACCEPTS_BLOBS, "accepts_blobs"},
        {TIERED_CONCURRENT, "concurrent"},
        {TIERED_PRIVACY, "privacy"},
        {TIERED_LOCAL_ONLY, "local_only"},
        {TIERED_BROKERED, "brokered"},
        {TIERED_ALLOWS_BAD_UPDATES, "allows_bad_updates"},
        {TIERED_SCALES, "scales"},
        {TIERED_REPLICATES, "replicates"},
        {TIERED_NEEDS_VALUES, "needs_values"},
        {TIERED_CHANGES_ONLY, "changes_only"},
    };
    for (size_t i = 0; i < TIERED_COUNT(traits); i++) {
        if (traits[i].bit == bit) {
            return traits[i].name;
        }
    }
    return NULL;
}
