/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Up to TIERED_SORTED_ROWS rows: a sorting network (merge exchange, Knuth vol.
 * 3, 5.2.2, algorithm M) without the exchanges that no kept rank depends on, run on
 * LANES columns at once so that each exchange is a vector minimum and maximum. Above:
 * the two ranks that bound the kept values are found bit by bit, by counting, also on
 * LANES columns at once.
 */
#include "trimmed.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "tiered/vector.h"

#define INLINE static inline __attribute__((always_inline))

#define LANES         64   /* columns of one tile: a whole number of vectors */
#define MAX_EXCHANGES 3839 /* of the network for 256 rows */

struct network {
    size_t n_rows, trim; /* what it is for; no rows: nothing yet */
    size_t n;
    struct exchange {
        uint8_t low, high;
    } items[MAX_EXCHANGES];
};
_Static_assert(TIERED_SORTED_ROWS <= 256, "rows of an exchange are bytes");

static void network_sort(struct network *net, size_t n_rows)
{
    size_t top = 1;
    while (top * 2 < n_rows) {
        top *= 2;
    }
    net->n = 0;
    for (size_t p = top; p > 0; p /= 2) {
        size_t q = top, r = 0, d = p;
        for (;;) {
            for (size_t i = 0; i + d < n_rows; i++) {
                if ((i & p) == r) {
                    net->items[net->n++] =
                        (struct exchange){(uint8_t)i, (uint8_t)(i + d)};
                }
            }
            if (q == p) {
                break;
            }
            d = q - p;
            q /= 2;
            r = p;
        }
    }
}

/** Drop the exchanges that the ranks first..last do not depend on. */
static void network_prune(struct network *net, size_t first, size_t last)
{
    bool wanted[TIERED_SORTED_ROWS] = {false};
    for (size_t i = first; i <= last; i++) {
        wanted[i] = true;
    }
    size_t kept = net->n;
    for (size_t i = net->n; i-- > 0;) {
        struct exchange e = net->items[i];
        if (wanted[e.low] || wanted[e.high]) {
            wanted[e.low] = wanted[e.high] = true;
            net->items[--kept] = e;
        }
    }
    net->n -= kept;
    memmove(net->items, net->items + kept, net->n * sizeof(net->items[0]));
}

/** Made once for a run of blocks: a large one takes as long as some tiles. */
static const struct network *network_for(size_t n_rows, size_t trim)
{
    static _Thread_local struct network kept;
    if (kept.n_rows != n_rows || kept.trim != trim) {
        network_sort(&kept, n_rows);
        network_prune(&kept, trim, n_rows - 1 - trim);
        kept.n_rows = n_rows;
        kept.trim = trim;
    }
    return &kept;
}

#define REAL     float
#define KEY      int32_t
#define KEY_MAX  INT32_MAX
#define KEY_BITS 32
#define NAME(x)  x##_f32
#include "trimmed_tile.h"
#undef REAL
#undef KEY
#undef KEY_MAX
#undef KEY_BITS
#undef NAME

#define REAL     double
#define KEY      int64_t
#define KEY_MAX  INT64_MAX
#define KEY_BITS 64
#define NAME(x)  x##_f64
#include "trimmed_tile.h"
