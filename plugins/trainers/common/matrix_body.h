/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels, included once per instruction set with KERNEL(name) and KERNEL_TARGET
   defined, WIDTH (floats in a vector), and a tile of TILE_ROWS rows and TILE_VECTORS
   vectors of C, as many as its registers hold. */

typedef float KERNEL(vector) __attribute__((vector_size(4 * WIDTH)));

/* rows x (WIDTH * vectors) elements of C. The sizes are constants where it is called,
   so that the sums stay in registers. */
KERNEL_TARGET __attribute__((always_inline)) static inline void
KERNEL(tile)(const struct tiered_product *p, size_t i, size_t j, const size_t rows,
             const size_t vectors)
{
    KERNEL(vector) sums[TILE_ROWS][TILE_VECTORS];
    for (size_t r = 0; r < rows; r++) {
        for (size_t v = 0; v < vectors; v++) {
            sums[r][v] = p->first ? *(const KERNEL(vector) *)(p->first + j + WIDTH * v)
                                  : (KERNEL(vector)){0};
        }
    }
    const float *a = p->a + i * p->a_row, *b = p->b + j;
    for (size_t k = 0; k < p->k; k++, a += p->a_column, b += p->b_row) {
        for (size_t r = 0; r < rows; r++) {
            float factor = a[r * p->a_row];
            for (size_t v = 0; v < vectors; v++) {
                sums[r][v] += factor * *(const KERNEL(vector) *)(b + WIDTH * v);
            }
        }
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t v = 0; v < vectors; v++) {
            *(KERNEL(vector) *)(p->c + (i + r) * p->c_row + j + WIDTH * v) = sums[r][v];
        }
    }
}

KERNEL_TARGET __attribute__((always_inline)) static inline void
KERNEL(panel)(const struct tiered_product *p, size_t j, const size_t vectors)
{
    size_t i = 0;
    for (; i + TILE_ROWS <= p->m; i += TILE_ROWS) {
        KERNEL(tile)(p, i, j, TILE_ROWS, vectors);
    }
    for (; i < p->m; i++) {
        KERNEL(tile)(p, i, j, 1, vectors);
    }
}

KERNEL_TARGET static void KERNEL(multiply)(const struct tiered_product *p)
{
    size_t j = 0;
    for (; j + WIDTH * TILE_VECTORS <= p->n; j += WIDTH * TILE_VECTORS) {
        KERNEL(panel)(p, j, TILE_VECTORS);
    }
    for (; j < p->n; j += WIDTH) {
        KERNEL(panel)(p, j, 1);
    }
}

KERNEL_TARGET static void KERNEL(step)(const struct tiered_step *s)
{
    float *restrict w = s->w, *restrict v = s->v;
    const float *restrict g = s->g, *restrict anchor = s->anchor;
    if (s->mu == 0) {
        for (size_t i = 0; i < s->n; i++) {
            v[i] = s->momentum * v[i] + g[i];
            w[i] -= s->lr * v[i];
        }
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        v[i] = s->momentum * v[i] + (g[i] + s->mu * (w[i] - anchor[i]));
        w[i] -= s->lr * v[i];
    }
}

static const struct tiered_kernels KERNEL(kernels) = {KERNEL_NAME, KERNEL(multiply),
                                                      KERNEL(step)};

#undef KERNEL
#undef KERNEL_TARGET
#undef KERNEL_NAME
#undef WIDTH
#undef TILE_ROWS
#undef TILE_VECTORS
