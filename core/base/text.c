/* SPDX-License-Identifier: Apache-2.0 */
/* Words and units: the nearest name, sizes and durations with a unit. */
#include "core/base/base.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LONGEST_WORD 64 /* longer than any name; bounds the rows below */

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Damerau-Levenshtein distance by optimal string alignment: insertions, deletions,
   substitutions and swaps of neighbours. Both at most LONGEST_WORD bytes. */
static size_t distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t rows[3][LONGEST_WORD + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= n_b; j++) {
        last[j] = before[j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            row[j] =
                min3(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < row[j]) {
                row[j] = before[j - 2] + 1;
            }
        }
        size_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[n_b];
}

const char *tiered_nearest(const char *word, const char *const *candidates, size_t n)
{
    size_t length = strlen(word), best = length / 3 + 1;
    const char *nearest = NULL;
    if (length > LONGEST_WORD) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        size_t other = strlen(candidates[i]);
        if (other > LONGEST_WORD) {
            continue;
        }
        size_t d = distance(word, length, candidates[i], other);
        if (d < best) {
            best = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}

struct unit {
    const char *name;
    uint64_t size;
};

/* DIGITS[.DIGITS]UNIT whose product with the unit is a whole number. */
static bool parse_with_unit(const char *text, const struct unit *units, size_t n_units,
                            uint64_t *ret)
{
    uint64_t digits = 0, scale = 1, product;
    bool fraction = false, any = false;
    for (; (*text >= '0' && *text <= '9') || (*text == '.' && any && !fraction);
         text++) {
        if (*text == '.') {
            fraction = true;
            any = false; /* a digit must follow */
            continue;
        }
        any = true;
        if (!tiered_mul(digits, 10, &digits) ||
            !tiered_add(digits, (uint64_t)(*text - '0'), &digits) ||
            (fraction && !tiered_mul(scale, 10, &scale))) {
            return false;
        }
    }
    for (size_t i = 0; any && i < n_units; i++) {
        if (strcmp(text, units[i].name) == 0) {
            if (!tiered_mul(digits, units[i].size, &product) || product % scale) {
                return false;
            }
            *ret = product / scale;
            return true;
        }
    }
    return false;
}

bool tiered_parse_bytes(const char *text, uint64_t *ret)
{
    static const struct unit units[] = {
        {"B", 1},
        {"KiB", 1ull << 10},
        {"MiB", 1ull << 20},
        {"GiB", 1ull << 30},
        {"TiB", 1ull << 40},
        {"KB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", 1000000000000},
    };
    return parse_with_unit(text, units, TIERED_COUNT(units), ret);
}

bool tiered_parse_duration(const char *text, uint64_t *ret_ms)
{
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    return parse_with_unit(text, units, TIERED_COUNT(units), ret_ms);
}

void tiered_format_bytes(uint64_t n, char out[32])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (n < 1024) {
        snprintf(out, 32, "%" PRIu64 " B", n);
        return;
    }
    double value = (double)n / 1024;
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < TIERED_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 32, "%.1f %s", value, units[unit]);
}

void tiered_format_duration(uint64_t ms, char out[32])
{
    uint64_t s = ms / 1000;
    if (ms < 1000) {
        snprintf(out, 32, "%" PRIu64 "ms", ms);
    } else if (ms < 60000) {
        snprintf(out, 32, "%" PRIu64 ".%" PRIu64 "s", s, ms / 100 % 10);
    } else if (s < 3600) {
        snprintf(out, 32, "%" PRIu64 "m %02" PRIu64 "s", s / 60, s % 60);
    } else {
        snprintf(out, 32, "%" PRIu64 "h %02" PRIu64 "m", s / 3600, s / 60 % 60);
    }
}
