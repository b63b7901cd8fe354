/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers as people write them, and back. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/options/internal.h"

static const char *skip_digits(const char *p)
{
    return p + strspn(p, "0123456789");
}

/* strtod() also reads "0x1p3", "nan" and leading spaces: this does not. */
static bool is_decimal(const char *text)
{
    const char *p = text + (*text == '-' || *text == '+');
    const char *whole = skip_digits(p);
    const char *end = whole;
    size_t n_digits = (size_t)(whole - p);
    if (*end == '.') {
        const char *fraction = skip_digits(end + 1);
        n_digits += (size_t)(fraction - (end + 1));
        end = fraction;
    }
    if (n_digits == 0) {
        return false;
    }
    if (*end == 'e' || *end == 'E') {
        const char *digits = end + 1 + (end[1] == '-' || end[1] == '+');
        end = skip_digits(digits);
        if (end == digits) {
            return false;
        }
    }
    return *end == 0;
}

bool tiered_number_parse(const char *text, double *ret)
{
    double value;
    if (!is_decimal(text)) {
        return false;
    }
    value = strtod(text, NULL);
    if (!isfinite(value)) {
        return false;
    }
    *ret = value;
    return true;
}

bool tiered_integer_parse(const char *text, int64_t *ret)
{
    const char *digits = text + (*text == '-' || *text == '+');
    double value;
    if (*digits && !*skip_digits(digits)) {
        errno = 0;
        long long whole = strtoll(text, NULL, 10);
        if (errno) {
            return false;
        }
        *ret = whole;
        return true;
    }
    if (!tiered_number_parse(text, &value) || value != floor(value) ||
        fabs(value) > 0x1p53) {
        return false;
    }
    *ret = (int64_t)value;
    return true;
}

void tiered_number_format(double value, char out[32])
{
    if (fabs(value) < 1e15 && value == floor(value)) {
        snprintf(out, 32, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, value);
        if (strtod(out, NULL) == value) {
            return;
        }
    }
}
