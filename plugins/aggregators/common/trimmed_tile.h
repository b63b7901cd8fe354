/* SPDX-License-Identifier: Apache-2.0 */
/* The body of trimmed.c for one dtype: included once for f32 and once for f64 with
   REAL, KEY (the integer of its width), KEY_MAX, KEY_BITS and NAME defined. */

/** Bits of a number to an integer of the same order, and back: it is its own inverse.
 */
INLINE KEY NAME(key)(KEY bits)
{
    return bits ^ ((bits >> (KEY_BITS - 1)) & KEY_MAX);
}

INLINE void NAME(load)(const REAL *row, size_t lanes, KEY *keys)
{
    if (lanes == LANES) {
        memcpy(keys, row, LANES * sizeof(KEY));
    } else {
        memset(keys, 0, LANES * sizeof(KEY));
        memcpy(keys, row, lanes * sizeof(KEY));
    }
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

INLINE double NAME(value)(KEY key)
{
    KEY bits = NAME(key)(key);
    REAL value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/** The mean of `count` sorted rows of one tile. `scale` is a power of two below 1 when
    the plain sum overflows. */
INLINE void NAME(mean)(KEY (*keys)[LANES], size_t count, double scale, double *out)
{
    for (size_t l = 0; l < LANES; l++) {
        out[l] = NAME(value)(keys[0][l]) * scale;
    }
    for (size_t r = 1; r < count; r++) {
        for (size_t l = 0; l < LANES; l++) {
            out[l] += NAME(value)(keys[r][l]) * scale;
        }
    }
    for (size_t l = 0; l < LANES; l++) {
        out[l] /= (double)count * scale;
    }
}

/** The same without an order: the values strictly between two ranks in child order, and
    as many copies of those two as are kept. */
INLINE void NAME(mean_between)(KEY (*keys)[LANES], size_t n_rows, size_t trim,
                               double scale, const KEY *low, const KEY *high,
                               double *out)
{
    KEY up_to_low[LANES] = {0}, from_high[LANES] = {0};
    double sum[LANES] = {0};
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t l = 0; l < LANES; l++) {
            KEY k = keys[r][l];
            up_to_low[l] += k <= low[l];
            from_high[l] += k >= high[l];
            double v = NAME(value)(k) * scale;
            sum[l] += ((k > low[l]) & (k < high[l])) ? v : 0.0;
        }
    }
    double cut = (double)trim, count = (double)(n_rows - 2 * trim);
    for (size_t l = 0; l < LANES; l++) {
        double v_low = NAME(value)(low[l]), v_high = NAME(value)(high[l]);
        sum[l] += ((double)up_to_low[l] - cut) * (v_low * scale);
        sum[l] += ((double)from_high[l] - cut) * (v_high * scale);
        out[l] = low[l] == high[l] ? v_low : sum[l] / (count * scale);
    }
}

/** The key of a rank in each column: its bits from the top, each by counting how many
    keys lie below. Signed keys are counted against candidate - 2^(bits - 1). */
INLINE void NAME(select)(KEY (*keys)[LANES], size_t n_rows, size_t rank, KEY *out)
{
    for (size_t l = 0; l < LANES; l++) {
        out[l] = -KEY_MAX - 1;
    }
    for (int bit = KEY_BITS - 1; bit >= 0; bit--) {
        /* Adding the top bit to the smallest key gives 0: a flip, as for the others. */
        KEY flip = bit == KEY_BITS - 1 ? -KEY_MAX - 1 : (KEY)1 << bit;
        KEY candidate[LANES], below[LANES] = {0};
        for (size_t l = 0; l < LANES; l++) {
            candidate[l] = out[l] ^ flip;
        }
        for (size_t r = 0; r < n_rows; r++) {
            for (size_t l = 0; l < LANES; l++) {
                below[l] += keys[r][l] < candidate[l];
            }
        }
        for (size_t l = 0; l < LANES; l++) {
            out[l] = below[l] <= (KEY)rank ? candidate[l] : out[l];
        }
    }
}

/** The lanes past the last column hold zeros. Fewer than 2^31 floats cannot get there.
 */
INLINE bool NAME(overflowed)(const double *mean)
{
    int any = 0;
    for (size_t l = 0; l < LANES && sizeof(REAL) == sizeof(double); l++) {
        any |= !(fabs(mean[l]) <= DBL_MAX);
    }
    return any;
}

INLINE void NAME(store)(const double *mean, size_t lanes, REAL *out)
{
    for (size_t l = 0; l < lanes; l++) {
        out[l] = (REAL)mean[l];
    }
}

/** A power of two at most 1 / n. */
static double NAME(down_scale)(size_t n)
{
    return ldexp(1.0, -(int)ceil(log2((double)n)));
}

INLINE void NAME(sort_tiles)(const struct network *net, const REAL *const *rows,
                             size_t n_rows, size_t trim, size_t n, REAL *out)
{
    _Alignas(64) KEY keys[TIERED_SORTED_ROWS][LANES];
    double mean[LANES];
    size_t count = n_rows - 2 * trim;
    for (size_t at = 0; at < n; at += LANES) {
        size_t lanes = n - at < LANES ? n - at : LANES;
        for (size_t r = 0; r < n_rows; r++) {
            NAME(load)(rows[r] + at, lanes, keys[r]);
        }
        for (size_t i = 0; i < net->n; i++) {
            NAME(exchange)(keys[net->items[i].low], keys[net->items[i].high]);
        }
        if (count == 1) {
            for (size_t l = 0; l < LANES; l++) {
                keys[trim][l] = NAME(key)(keys[trim][l]);
            }
            memcpy(out + at, keys[trim], lanes * sizeof(REAL));
            continue;
        }
        NAME(mean)(keys + trim, count, 1.0, mean);
        if (NAME(overflowed)(mean)) {
            NAME(mean)(keys + trim, count, NAME(down_scale)(count), mean);
        }
        NAME(store)(mean, lanes, out + at);
    }
}

INLINE void NAME(select_tiles)(KEY (*keys)[LANES], const REAL *const *rows,
                               size_t n_rows, size_t trim, size_t n, REAL *out)
{
    double mean[LANES];
    KEY low[LANES], high[LANES];
    for (size_t at = 0; at < n; at += LANES) {
        size_t lanes = n - at < LANES ? n - at : LANES;
        for (size_t r = 0; r < n_rows; r++) {
            NAME(load)(rows[r] + at, lanes, keys[r]);
        }
        NAME(select)(keys, n_rows, trim, low);
        if (2 * trim + 1 == n_rows) {
            memcpy(high, low, sizeof(high));
        } else {
            NAME(select)(keys, n_rows, n_rows - 1 - trim, high);
        }
        NAME(mean_between)(keys, n_rows, trim, 1.0, low, high, mean);
        if (NAME(overflowed)(mean)) {
            NAME(mean_between)
            (keys, n_rows, trim, NAME(down_scale)(n_rows), low, high, mean);
        }
        NAME(store)(mean, lanes, out + at);
    }
}

/** With `net` by sorting, in the caller's `keys` by counting otherwise. */
INLINE void NAME(tiles)(const struct network *net, KEY (*keys)[LANES],
                        const REAL *const *rows, size_t n_rows, size_t trim, size_t n,
                        REAL *out)
{
    if (net) {
        NAME(sort_tiles)(net, rows, n_rows, trim, n, out);
    } else {
        NAME(select_tiles)(keys, rows, n_rows, trim, n, out);
    }
}

#define TILES(name, target)                                                            \
    target static void name(const struct network *net, KEY(*keys)[LANES],              \
                            const REAL *const *rows, size_t n_rows, size_t trim,       \
                            size_t n, REAL *out)                                       \
    {                                                                                  \
        NAME(tiles)(net, keys, rows, n_rows, trim, n, out);                            \
    }
TILES(NAME(tiles_portable), )
#ifdef TIERED_VECTOR_X86
TILES(NAME(tiles_avx2), TIERED_AVX2)
TILES(NAME(tiles_avx512), TIERED_AVX512)
#endif
#undef TILES

static void NAME(dispatch)(const struct network *net, KEY (*keys)[LANES],
                           const REAL *const *rows, size_t n_rows, size_t trim,
                           size_t n, REAL *out)
{
    switch (tiered_vector_level()) {
#ifdef TIERED_VECTOR_X86
    case TIERED_VECTOR_AVX512:
        NAME(tiles_avx512)(net, keys, rows, n_rows, trim, n, out);
        return;
    case TIERED_VECTOR_AVX2:
        NAME(tiles_avx2)(net, keys, rows, n_rows, trim, n, out);
        return;
#endif
    default:
        NAME(tiles_portable)(net, keys, rows, n_rows, trim, n, out);
    }
}

int NAME(trimmed)(const REAL *const *rows, size_t n_rows, size_t trim, size_t n,
                  REAL *out, struct tiered_error *err)
{
    if (n_rows <= TIERED_SORTED_ROWS) {
        NAME(dispatch)(network_for(n_rows, trim), NULL, rows, n_rows, trim, n, out);
        return 0;
    }
    KEY(*keys)[LANES] = n_rows <= INT32_MAX / 2 ? calloc(n_rows, sizeof(*keys)) : NULL;
    if (!keys) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for a tile of %zu rows",
                           n_rows);
    }
    NAME(dispatch)(NULL, keys, rows, n_rows, trim, n, out);
    free(keys);
    return 0;
}
