/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the filters of one link made of what went over it: bytes before them all, and
 * after each, as the heads of updates and models tell. Each object counts once, however
 * often its blocks had to be sent. Threads: the agent's event loop.
 */
#ifndef TIERED_AGENTS_TRAFFIC_H
#define TIERED_AGENTS_TRAFFIC_H

#include <jansson.h>

#include "core/spool/encoded.h"

#define TRAFFIC_FILTERS 16

/** Zeroed is none yet. */
struct traffic {
    uint64_t raw;                    /* before the first filter */
    uint64_t after[TRAFFIC_FILTERS]; /* in the pipe's order */
};

void traffic_add(struct traffic *traffic, const struct tiered_encoded *encoded);
/** Likewise a masked update of a model of `plain`. Its head names the group alone, the
    last of `n_filters`; those before it keep every block's size. */
void traffic_add_masked(struct traffic *traffic, const struct tiered_layout *plain,
                        size_t n_filters, const struct tiered_encoded *encoded);
/** What has come since `before`. */
struct traffic traffic_since(const struct traffic *now, const struct traffic *before);
/** [{"name", "bytes"}, …] by the names of a pipe; NULL: out of memory. */
json_t *traffic_json(const struct traffic *traffic,
                     Tiered__V1__PluginUse *const *filters, size_t n);
/** For a heartbeat: `space` holds TRAFFIC_FILTERS of each. Returns how many. */
size_t traffic_fill(const struct traffic *traffic,
                    Tiered__V1__PluginUse *const *filters, size_t n,
                    Tiered__V1__FilterBytes *space, Tiered__V1__FilterBytes **pointers);

#endif
