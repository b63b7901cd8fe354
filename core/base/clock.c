/* SPDX-License-Identifier: Apache-2.0 */
/* The clocks, in milliseconds. */
#include "core/base/base.h"

#include <time.h>

static uint64_t read_ms(clockid_t clock)
{
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t tiered_now_ms(void)
{
    return read_ms(CLOCK_MONOTONIC);
}

uint64_t tiered_wall_ms(void)
{
    return read_ms(CLOCK_REALTIME);
}
