/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for each instruction set, and the choice among them when the plugin runs.

   The functions carry their target one by one instead of being cloned by the compiler:
   gcc lowers vector types before it clones, so that every clone would work in the
   narrowest vectors. */
#include "matrix.h"

#include <stdint.h>

#if defined(__x86_64__)
#define KERNEL(name)  name##_avx512
#define KERNEL_NAME   "avx512"
#define KERNEL_TARGET __attribute__((target("avx512f")))
#define WIDTH         16
#define TILE_ROWS     4
#define TILE_VECTORS  2
#include "matrix_body.h"

#define KERNEL(name)  name##_avx2
#define KERNEL_NAME   "avx2"
#define KERNEL_TARGET __attribute__((target("avx2")))
#define WIDTH         8
#define TILE_ROWS     4
#define TILE_VECTORS  2
#include "matrix_body.h"
#endif

#define KERNEL(name) name##_plain
#define KERNEL_NAME  "plain"
#define KERNEL_TARGET
#define WIDTH        4
#define TILE_ROWS    2
#define TILE_VECTORS 2
#include "matrix_body.h"

const struct tiered_kernels *tiered_kernels_at(size_t i)
{
    const struct tiered_kernels *found[4] = {0};
    size_t n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        found[n++] = &kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2")) {
        found[n++] = &kernels_avx2;
    }
#endif
    found[n++] = &kernels_plain;
    return i < n ? found[i] : NULL;
}

const struct tiered_kernels *tiered_kernels_choose(void)
{
    return tiered_kernels_at(0);
}
