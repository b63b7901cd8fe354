/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A group's aggregator from the inside. Internal to inner_group*.c.
 */
#ifndef TIERED_AGENTS_GROUP_INSIDE_H
#define TIERED_AGENTS_GROUP_INSIDE_H

#include "agents/inner_group.h"
#include "core/pipe/masked.h"
#include "tiered/group.h"

struct inner_group {
    struct inner *inner;
    const struct tiered_plugin *plugin;
    const struct tiered_group_ops *ops;
    struct tiered_config config;
    void *state;
    struct tiered_hosting hosting;
    char *file;               /* names the round whose shares were asked for … */
    struct tiered_path spent; /* … this one */
    struct tiered_path path;  /* of the attempt … */
    uint64_t attempt;         /* … and its number */
    bool running;             /* the attempt is open */
    bool pre_closed, frozen;  /* updates may come; survivors are named */
    bool refused;             /* the machine is told that `path` cannot be */
    uint32_t n;               /* members */
    uint32_t *rank;           /* of each child among the members */
    uint32_t *children;       /* of each member */
    const char **names;       /* of each member */
    struct tiered_masked *masked;
};

#endif
