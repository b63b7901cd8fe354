/* SPDX-License-Identifier: Apache-2.0 */
/* The body of kernels.c for one vector width: included once for each, with NAME,
   TARGET, WIDTH and COLUMNS defined. */

typedef double NAME(vector) __attribute__((vector_size(WIDTH * 8), aligned(8)));
typedef uint32_t NAME(words) __attribute__((vector_size(WIDTH * 8), aligned(4)));

TARGET static void NAME(add_rows)(const float *const *rows, const double *w,
                                  size_t n_rows, size_t n, bool first,
                                  const float *const *next, double *restrict sum)
{
    switch (n_rows) {
    case 1:
        add_some(rows, w, 1, n, first, next, sum);
        return;
    case 2:
        add_some(rows, w, 2, n, first, next, sum);
        return;
    case 3:
        add_some(rows, w, 3, n, first, next, sum);
        return;
    case 4:
        add_some(rows, w, 4, n, first, next, sum);
        return;
    case 5:
        add_some(rows, w, 5, n, first, next, sum);
        return;
    case 6:
        add_some(rows, w, 6, n, first, next, sum);
        return;
    case 7:
        add_some(rows, w, 7, n, first, next, sum);
        return;
    default:
        add_some(rows, w, KERNEL_SUM, n, first, next, sum);
    }
}

TARGET static void NAME(add_row)(const double *restrict row, double w, size_t n,
                                 bool first, double *restrict sum)
{
    if (first) {
        for (size_t i = 0; i < n; i++) {
            sum[i] = w * row[i];
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        sum[i] += w * row[i];
    }
}

TARGET static bool NAME(all_below)(const double *values, size_t n, double limit)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= !(fabs(values[i]) < limit);
    }
    return !bad;
}

TARGET static void NAME(store)(const double *sum, size_t n, float *out)
{
    size_t at = 0;
    for (; at + LINE <= n; at += LINE) {
        float line[LINE];
        for (size_t l = 0; l < LINE; l++) {
            line[l] = (float)sum[at + l];
        }
        store_line(out + at, line);
    }
    store_end();
    for (; at < n; at++) {
        out[at] = (float)sum[at];
    }
}

/** Adding one to an exponent of all ones carries into the sign's place, which is
    cleared before. */
TARGET static bool NAME(row_finite)(const float *row, size_t n, const float *next)
{
    NAME(words) all = {0};
    uint32_t carried = 0;
    size_t at = 0;
    for (; at + LINE <= n; at += LINE) {
        __builtin_prefetch(next + at);
        for (size_t i = 0; i < LINE; i += 2 * WIDTH) {
            NAME(words) bits = *(const NAME(words) *)(row + at + i);
            all |= (bits & 0x7fffffffu) + 0x00800000u;
        }
    }
    for (size_t i = 0; i < 2 * WIDTH; i++) {
        carried |= all[i];
    }
    for (; at < n; at++) {
        uint32_t bits;
        memcpy(&bits, row + at, sizeof(bits));
        carried |= (bits & 0x7fffffffu) + 0x00800000u;
    }
    return !(carried >> 31);
}

TARGET static void NAME(centre)(const float *restrict row,
                                const double *restrict centre, size_t n,
                                const float *next, double *restrict out)
{
    size_t at = 0;
    for (; at + LINE <= n; at += LINE) {
        __builtin_prefetch(next + at);
        for (size_t i = at; i < at + LINE; i++) {
            out[i] = centre ? (double)row[i] - centre[i] : (double)row[i];
        }
    }
    for (; at < n; at++) {
        out[at] = centre ? (double)row[at] - centre[at] : (double)row[at];
    }
}

static inline double NAME(lanes)(const double s[KERNEL_LANES])
{
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/** KERNEL_ROWS rows from a against COLUMNS rows from b. Narrow vectors take the lanes a
    part at a time, over the whole tile: the sums stay in registers. */
TARGET static void NAME(block)(const double *a, const double *b, double *sums,
                               size_t stride)
{
    _Alignas(64) double lanes[KERNEL_ROWS][COLUMNS][KERNEL_LANES];
    for (size_t part = 0; part < KERNEL_LANES; part += WIDTH) {
        NAME(vector) acc[KERNEL_ROWS][COLUMNS] = {0};
        for (size_t k = part; k < KERNEL_TILE; k += KERNEL_LANES) {
            NAME(vector) x[KERNEL_ROWS];
#pragma GCC unroll 4
            for (size_t i = 0; i < KERNEL_ROWS; i++) {
                x[i] = *(const NAME(vector) *)(a + i * KERNEL_TILE + k);
            }
#pragma GCC unroll 4
            for (size_t j = 0; j < COLUMNS; j++) {
                NAME(vector) y = *(const NAME(vector) *)(b + j * KERNEL_TILE + k);
#pragma GCC unroll 4
                for (size_t i = 0; i < KERNEL_ROWS; i++) {
                    acc[i][j] += x[i] * y;
                }
            }
        }
#pragma GCC unroll 4
        for (size_t i = 0; i < KERNEL_ROWS; i++) {
#pragma GCC unroll 4
            for (size_t j = 0; j < COLUMNS; j++) {
                *(NAME(vector) *)(lanes[i][j] + part) = acc[i][j];
            }
        }
    }
    for (size_t i = 0; i < KERNEL_ROWS; i++) {
        for (size_t j = 0; j < COLUMNS; j++) {
            sums[i * stride + j] += NAME(lanes)(lanes[i][j]);
        }
    }
}

/** Some rows stay in the first cache while the others pass by. */
TARGET static void NAME(products)(const double *deltas, size_t n_rows, double *sums)
{
    const size_t stay = 2 * KERNEL_ROWS;
    for (size_t first = 0; first < n_rows; first += stay) {
        size_t end = first + stay < n_rows ? first + stay : n_rows;
        for (size_t j = 0; j < end; j += COLUMNS) {
            size_t i = j / KERNEL_ROWS * KERNEL_ROWS;
            for (i = i > first ? i : first; i < end; i += KERNEL_ROWS) {
                NAME(block)
                (deltas + i * KERNEL_TILE, deltas + j * KERNEL_TILE,
                 sums + i * n_rows + j, n_rows);
            }
        }
    }
}

TARGET static double NAME(square)(const double *row, size_t n)
{
    double lanes[KERNEL_LANES] = {0};
    size_t i = 0;
    for (; i + KERNEL_LANES <= n; i += KERNEL_LANES) {
        for (size_t l = 0; l < KERNEL_LANES; l++) {
            lanes[l] += row[i + l] * row[i + l];
        }
    }
    for (; i < n; i++) {
        lanes[i % KERNEL_LANES] += row[i] * row[i];
    }
    return NAME(lanes)(lanes);
}

static const struct kernels NAME(kernels) = {
    .add_rows = NAME(add_rows),
    .add_row = NAME(add_row),
    .all_below = NAME(all_below),
    .store = NAME(store),
    .row_finite = NAME(row_finite),
    .centre = NAME(centre),
    .products = NAME(products),
    .square = NAME(square),
};
