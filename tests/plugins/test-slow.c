/* SPDX-License-Identifier: Apache-2.0 */
/* A privacy filter that leaves values as they are, and takes its time for each block.
 */
#include <time.h>

#include "plain.h"

static int wait(void *state, const struct tiered_block *block, const void *in,
                size_t in_size, void *out, size_t capacity, size_t *ret_size,
                struct tiered_error *err)
{
    const struct timespec time = {.tv_nsec = 300000000};
    nanosleep(&time, NULL);
    return plain_copy(state, block, in, in_size, out, capacity, ret_size, err);
}

static const struct tiered_filter_ops ops = {.size = sizeof(ops),
                                             PLAIN_OPS,
                                             .bound = plain_bound,
                                             .forward = wait,
                                             .inverse = plain_copy};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "test-slow", .version = "1.0",
                     .summary = "a test", .traits = TIERED_PRIVACY,
                     .option_size = sizeof(struct tiered_option), .ops = &ops);
