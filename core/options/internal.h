/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of core/options share. */
#ifndef TIERED_CORE_OPTIONS_INTERNAL_H
#define TIERED_CORE_OPTIONS_INTERNAL_H

#include "core/options/options.h"

/** Decimal only: digits, a point, an exponent. False for anything else, also when the
    number is too large for a double. */
bool tiered_number_parse(const char *text, double *ret);
/** An integer written as one (any int64_t), or in another form of the same value up to
    2^53 ("1e3", "3.0"). */
bool tiered_integer_parse(const char *text, int64_t *ret);
/** The shortest text that reads back as the same number. */
__attribute__((nonnull)) void tiered_number_format(double value, char out[32]);

bool tiered_option_name_ok(const char *name);
/** min, max and flags of a number; `value` must be finite. */
bool tiered_option_in_range(const struct tiered_option *row, long double value);

/** Strings and lists of one config; freed together. */
struct tiered_config_memory {
    void **items;
    size_t n, capacity;
};
/** NULL when out of memory. */
void *tiered_config_allocate(struct tiered_config_memory *memory, size_t n_items,
                             size_t item_size);

#endif
