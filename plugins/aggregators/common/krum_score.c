/* SPDX-License-Identifier: Apache-2.0 */
/* Krum's scores. Source: Blanchard et al. 2017 (arXiv:1703.02757), section 3. */
#include "krum_score.h"

#include <stdlib.h>

struct other {
    double distance;
    uint32_t index;
};

static int compare(const void *a, const void *b)
{
    const struct other *x = a, *y = b;
    if (x->distance != y->distance) {
        return x->distance < y->distance ? -1 : 1;
    }
    return (x->index > y->index) - (x->index < y->index);
}

uint32_t *krum_order(const double *distances, size_t n)
{
    uint32_t *order = calloc(n, n * sizeof(order[0]));
    struct other *others = calloc(n, sizeof(others[0]));
    for (size_t i = 0; order && others && i < n; i++) {
        size_t count = 0;
        for (size_t j = 0; j < n; j++) {
            if (j != i) {
                others[count++] = (struct other){distances[i * n + j], (uint32_t)j};
            }
        }
        qsort(others, count, sizeof(others[0]), compare);
        for (size_t k = 0; k < count; k++) {
            order[i * (n - 1) + k] = others[k].index;
        }
    }
    if (!others) {
        free(order);
        order = NULL;
    }
    free(others);
    return order;
}

size_t krum_neighbours(size_t n, size_t byzantine)
{
    return n > byzantine + 3 ? n - byzantine - 2 : 1;
}

double krum_score(const double *distances, const uint32_t *order, const bool *in,
                  size_t n, size_t row, size_t neighbours)
{
    double sum = 0;
    for (size_t k = 0; k + 1 < n && neighbours > 0; k++) {
        uint32_t other = order[row * (n - 1) + k];
        if (in[other]) {
            sum += distances[row * n + other];
            neighbours--;
        }
    }
    return sum;
}
