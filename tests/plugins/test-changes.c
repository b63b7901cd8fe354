/* SPDX-License-Identifier: Apache-2.0 */
/* A filter that is for changes alone, as it says, and passes them on as they are. */
#include <string.h>

#include "tiered/filter.h"

static int init(const struct tiered_host *host, const void *config,
                const struct tiered_manifest *manifest, void **ret_state,
                struct tiered_error *err)
{
    (void)host;
    (void)config;
    (void)manifest;
    (void)err;
    *ret_state = NULL;
    return 0;
}

static void destroy(void *state)
{
    (void)state;
}

static size_t bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

static int pass(void *state, const struct tiered_block *block, const void *in,
                size_t in_size, void *out, size_t capacity, size_t *ret_size,
                struct tiered_error *err)
{
    (void)state;
    (void)block;
    if (in_size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "no room");
    }
    memcpy(out, in, in_size);
    *ret_size = in_size;
    return 0;
}

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             .init = init,
                                             .destroy = destroy,
                                             .bound = bound,
                                             .forward = pass,
                                             .inverse = pass};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "test-changes", .version = "1.0",
                     .summary = "a test", .traits = TIERED_CHANGES_ONLY,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
