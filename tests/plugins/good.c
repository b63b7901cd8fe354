/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin with every type of option: accepted. */
#include "minimal.h"

#include <math.h>

struct config {
    double beta;
    int64_t trim;
    bool on;
    const char *label;
    uint64_t timeout, room;
    int32_t partition;
    double alpha;
    bool adaptive;
    double quantile;
    struct tiered_integers hidden;
    struct tiered_strings command, env;
};

static const struct tiered_option dirichlet[] = {
    TIERED_OPTION_DOUBLE(struct config, alpha, "1", 0, INFINITY, "concentration",
                         .flags = TIERED_EXCLUSIVE_MIN),
};
static const struct tiered_option partitions[] = {
    {.name = "iid", .help = "shuffled"},
    {.name = "dirichlet",
     .help = "by label shares",
     .nested = dirichlet,
     .n_nested = 1},
};
static const struct tiered_option adaptive[] = {
    TIERED_OPTION_DOUBLE(struct config, quantile, "0.5", 0, 1, "share not clipped"),
};
static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, beta, "0.2", 0, 0.5, "share cut a side",
                         .flags = TIERED_EXCLUSIVE_MAX),
    TIERED_OPTION_INTEGER(struct config, trim, NULL, 1, 100, "count cut a side",
                          .unit = "rows", .flags = TIERED_REQUIRED),
    TIERED_OPTION_BOOLEAN(struct config, on, "true", "whether at all"),
    TIERED_OPTION_STRING(struct config, label, NULL, "a column"),
    {.name = "timeout",
     .type = TIERED_DURATION,
     .fallback = "30s",
     .help = "longest wait",
     .offset = offsetof(struct config, timeout)},
    {.name = "room",
     .type = TIERED_BYTES,
     .fallback = "64KiB",
     .help = "a buffer",
     .offset = offsetof(struct config, room)},
    TIERED_OPTION_CHOICE(struct config, partition, "iid", partitions, "who gets what"),
    {.name = "adaptive",
     .type = TIERED_SECTION,
     .help = "follow a quantile",
     .offset = offsetof(struct config, adaptive),
     .nested = adaptive,
     .n_nested = 1},
    {.name = "hidden",
     .type = TIERED_INTEGERS,
     .fallback = "[128]",
     .min = 1,
     .max = 65536,
     .help = "widths",
     .offset = offsetof(struct config, hidden)},
    {.name = "command",
     .type = TIERED_STRINGS,
     .help = "what to start",
     .offset = offsetof(struct config, command)},
    {.name = "env",
     .type = TIERED_PAIRS,
     .help = "its environment",
     .offset = offsetof(struct config, env)},
};

static const struct tiered_aggregator_ops ops = {.size = sizeof(ops),
                                                 .needs = TIERED_NEEDS_NORMS,
                                                 .acts_on =
                                                     TIERED_ROLE_BIT(TIERED_PARAMETER),
                                                 MINIMAL_OPS};

TIERED_PLUGIN_DEFINE(.kind = TIERED_AGGREGATOR, .name = "good", .version = "1.2",
                     .summary = "means of everything",
                     .traits = TIERED_NEEDS_INDIVIDUAL_UPDATES | TIERED_CONCURRENT,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
