/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest aggregator, for plugins that are right or wrong in one point. */
#ifndef TIERED_TESTS_MINIMAL_H
#define TIERED_TESTS_MINIMAL_H

#include "tiered/aggregator.h"

static inline int minimal_init(const struct tiered_host *host, const void *config,
                               void **ret_state, struct tiered_error *err)
{
    (void)host;
    (void)config;
    (void)err;
    *ret_state = NULL;
    return 0;
}

static inline void minimal_destroy(void *state)
{
    (void)state;
}

static inline int minimal_weigh(void *state, const struct tiered_round_view *view,
                                double *ret_weights, struct tiered_error *err)
{
    (void)state;
    (void)err;
    size_t n = 0;
    for (size_t i = 0; i < view->n; i++) {
        n += !view->contributions[i]->excluded;
    }
    for (size_t i = 0; i < view->n; i++) {
        ret_weights[i] = view->contributions[i]->excluded ? 0 : 1.0 / (double)n;
    }
    return 0;
}

#define MINIMAL_OPS                                                                    \
    .init = minimal_init, .destroy = minimal_destroy, .weigh = minimal_weigh

/* By hand what TIERED_PLUGIN_DEFINE does, with the version and the size to choose. */
#define DESCRIPTOR(abi, bytes, ...)                                                    \
    extern __attribute__((visibility("default")))                                      \
    const struct tiered_plugin tiered_plugin;                                          \
    const struct tiered_plugin tiered_plugin = {.abi_version = (abi),                  \
                                                .struct_size = (bytes),                \
                                                .kind = TIERED_AGGREGATOR,             \
                                                .version = "1.0",                      \
                                                .summary = "a test",                   \
                                                __VA_ARGS__}

#endif
