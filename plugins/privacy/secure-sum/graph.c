/* SPDX-License-Identifier: Apache-2.0 */
/* The graph of a group. */
#include "graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tiered/random.h"

#define ALL_UP_TO 64

/* Bell et al. need k = O(log n) so that nobody's holders fall below the threshold.
   Where 2/3 of the holders are needed and 100 of 1,000 members are gone, 2 log2 n fails
   two rounds in five, 6 log2 n one in 16,000 (hypergeometric tails, summed over
   members). */
uint32_t ss_degree(uint32_t n, uint32_t wanted)
{
    uint32_t all = n > 0 ? n - 1 : 0;
    uint32_t k = wanted;
    if (k == 0) {
        k = n <= ALL_UP_TO ? all : (uint32_t)ceil(6 * log2((double)n));
    }
    return k >= all ? all : k + (k & 1);
}

int ss_circle(const uint8_t session[SS_SESSION_BYTES], const uint32_t *members,
              uint32_t n, uint32_t **ret, struct tiered_error *err)
{
    const struct ss_use use = {.purpose = "graph", .session = session};
    uint8_t key[SS_KEY_BYTES];
    struct tiered_rng rng;
    if (ss_digest(&use, "", 0, key, err) < 0) {
        return -1;
    }
    uint32_t *circle = malloc((size_t)n * sizeof(*circle) + 1);
    if (!circle) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a group of %u", n);
    }
    memcpy(circle, members, (size_t)n * sizeof(*circle));
    tiered_rng_init(&rng, key);
    tiered_rng_shuffle(&rng, circle, n);
    *ret = circle;
    return 0;
}

static int by_index(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

uint32_t ss_neighbours(const uint32_t *circle, uint32_t n, uint32_t place,
                       uint32_t degree, uint32_t *out)
{
    uint32_t found = 0;
    if (n < 2) {
        return 0;
    }
    if (degree >= n - 1) {
        for (uint32_t i = 1; i < n; i++) {
            out[found++] = circle[(place + i) % n];
        }
    } else {
        for (uint32_t i = 1; i <= degree / 2; i++) {
            out[found++] = circle[(place + i) % n];
            out[found++] = circle[(place + n - i) % n];
        }
    }
    qsort(out, found, sizeof(*out), by_index);
    return found;
}
