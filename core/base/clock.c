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

void tiered_wall_text(char out[32])
{
    uint64_t ms = tiered_wall_ms();
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 32 - n, ".%03uZ", (unsigned)(ms % 1000));
}
