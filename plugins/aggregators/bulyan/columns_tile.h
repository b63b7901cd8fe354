/* SPDX-License-Identifier: Apache-2.0 */
/* The body of columns.c for one dtype: included once for f32 and once for f64 with
   REAL, KEY (the integer of its width), KEY_MAX, KEY_BITS and NAME defined. */

/** Bits of a number to an integer of the same order, and back: it is its own inverse.
 */
INLINE KEY NAME(key)(KEY bits)
{
    return bits ^ ((bits >> (KEY_BITS - 1)) & KEY_MAX);
}

INLINE double NAME(value)(KEY key)
{
    KEY bits = NAME(key)(key);
    REAL value;
    memcpy(&value, &bits, sizeof(value));
    return (double)value;
}

INLINE void NAME(load)(const REAL *row, size_t lanes, KEY *keys)
{
    memset(keys, 0, LANES * sizeof(KEY));
    memcpy(keys, row, lanes * sizeof(KEY));
    for (size_t l = 0; l < LANES; l++) {
        keys[l] = NAME(key)(keys[l]);
    }
}

INLINE void NAME(exchange)(KEY *restrict low, KEY *restrict high)
{
    for (size_t l = 0; l < LANES; l++) {
        KEY a = low[l], b = high[l];
        low[l] = a < b ? a : b;
        high[l] = a < b ? b : a;
    }
}

INLINE void NAME(sort)(KEY (*keys)[LANES], size_t n_rows)
{
    size_t top = 1;
    while (top * 2 < n_rows) {
        top *= 2;
    }
    for (size_t p = top; p > 0; p /= 2) {
        size_t q = top, r = 0, d = p;
        for (;;) {
            for (size_t i = 0; i + d < n_rows; i++) {
                if ((i & p) == r) {
                    NAME(exchange)(keys[i], keys[i + d]);
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

/** Where the run begins. While the value to be left behind lies further below the
    median than the next one lies above, the run moves up; it never moves on after it
    once stayed, so it is enough to count. Halves are taken first: sums of the largest
    numbers overflow. */
INLINE void NAME(place)(KEY (*keys)[LANES], size_t n_rows, size_t keep, KEY *start)
{
    double middle[LANES];
    for (size_t l = 0; l < LANES; l++) {
        middle[l] = NAME(value)(keys[(n_rows - 1) / 2][l]) * 0.5 +
                    NAME(value)(keys[n_rows / 2][l]) * 0.5;
        start[l] = 0;
    }
    for (size_t s = 0; s + keep < n_rows; s++) {
        for (size_t l = 0; l < LANES; l++) {
            start[l] += middle[l] > NAME(value)(keys[s][l]) * 0.5 +
                                        NAME(value)(keys[s + keep][l]) * 0.5;
        }
    }
}

INLINE void NAME(mean)(KEY (*keys)[LANES], size_t n_rows, size_t keep, double scale,
                       const KEY *start, double *out)
{
    for (size_t l = 0; l < LANES; l++) {
        out[l] = 0;
    }
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t l = 0; l < LANES; l++) {
            KEY from = (KEY)r - start[l];
            double v = NAME(value)(keys[r][l]) * scale;
            out[l] += ((from >= 0) & (from < (KEY)keep)) ? v : 0.0;
        }
    }
    for (size_t l = 0; l < LANES; l++) {
        out[l] /= (double)keep * scale;
    }
}

INLINE bool NAME(overflowed)(const double *mean, size_t lanes)
{
    bool any = false;
    for (size_t l = 0; l < lanes; l++) {
        any |= !isfinite(mean[l]);
    }
    return any;
}

CLONES static void NAME(columns)(KEY (*keys)[LANES], const REAL *const *rows,
                                 size_t n_rows, size_t keep, size_t n, double down,
                                 REAL *out)
{
    KEY start[LANES];
    double mean[LANES];
    for (size_t at = 0; at < n; at += LANES) {
        size_t lanes = n - at < LANES ? n - at : LANES;
        for (size_t r = 0; r < n_rows; r++) {
            NAME(load)(rows[r] + at, lanes, keys[r]);
        }
        NAME(sort)(keys, n_rows);
        NAME(place)(keys, n_rows, keep, start);
        NAME(mean)(keys, n_rows, keep, 1.0, start, mean);
        if (NAME(overflowed)(mean, lanes)) {
            NAME(mean)(keys, n_rows, keep, down, start, mean);
        }
        for (size_t l = 0; l < lanes; l++) {
            out[at + l] = (REAL)mean[l];
        }
    }
}

int NAME(bulyan)(const REAL *const *rows, size_t n_rows, size_t keep, size_t n,
                 REAL *out, struct tiered_error *err)
{
    KEY(*keys)[LANES] = n_rows <= INT32_MAX / 2 ? calloc(n_rows, sizeof(*keys)) : NULL;
    if (!keys) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for a tile of %zu rows",
                           n_rows);
    }
    double down = ldexp(1.0, -(int)ceil(log2((double)keep))); /* at most 1 / keep */
    NAME(columns)(keys, rows, n_rows, keep, n, down, out);
    free(keys);
    return 0;
}
