/* SPDX-License-Identifier: Apache-2.0 */
/* A reader of just the JSON that a safetensors header is: an object of objects. */
#include "header.h"

#include <stdbool.h>
#include <string.h>

#define MAX_DEPTH 16

/* What is left to read, with a NUL behind it that ends every loop. */
struct text {
    const char *p, *end;
};

static void skip_space(struct text *t)
{
    t->p += strspn(t->p, " \t\r\n");
}

static bool take(struct text *t, char c)
{
    skip_space(t);
    if (t->p < t->end && *t->p == c) {
        t->p++;
        return true;
    }
    return false;
}

/* The raw inside of a string: escapes stay as they are, so a name that is written with
   them is not recognised. */
static bool take_string(struct text *t, const char **ret, size_t *ret_n)
{
    if (!take(t, '"')) {
        return false;
    }
    *ret = t->p;
    while (t->p < t->end && *t->p != '"') {
        t->p += *t->p == '\\' && t->p + 1 < t->end ? 2 : 1;
    }
    *ret_n = (size_t)(t->p - *ret);
    return take(t, '"');
}

static bool take_count(struct text *t, uint64_t *ret)
{
    skip_space(t);
    const char *start = t->p;
    *ret = 0;
    for (; t->p < t->end && *t->p >= '0' && *t->p <= '9'; t->p++) {
        if (__builtin_mul_overflow(*ret, 10, ret) ||
            __builtin_add_overflow(*ret, *t->p - '0', ret)) {
            return false;
        }
    }
    return t->p > start;
}

/* [1,2,3], at most `most` counts. */
static bool take_counts(struct text *t, uint64_t *out, uint32_t most, uint32_t *ret_n)
{
    *ret_n = 0;
    if (!take(t, '[')) {
        return false;
    }
    if (take(t, ']')) {
        return true;
    }
    do {
        if (*ret_n == most || !take_count(t, &out[(*ret_n)++])) {
            return false;
        }
    } while (take(t, ','));
    return take(t, ']');
}

static bool skip_value(struct text *t, int depth);

static bool skip_members(struct text *t, char close, int depth)
{
    const char *key;
    size_t n;
    if (take(t, close)) {
        return true;
    }
    do {
        if (close == '}' && (!take_string(t, &key, &n) || !take(t, ':'))) {
            return false;
        }
        if (!skip_value(t, depth + 1)) {
            return false;
        }
    } while (take(t, ','));
    return take(t, close);
}

static bool skip_value(struct text *t, int depth)
{
    const char *string;
    size_t n;
    if (depth > MAX_DEPTH) {
        return false;
    }
    skip_space(t);
    if (*t->p == '"') {
        return take_string(t, &string, &n);
    }
    if (take(t, '{')) {
        return skip_members(t, '}', depth);
    }
    if (take(t, '[')) {
        return skip_members(t, ']', depth);
    }
    n = strspn(t->p, "+-.0123456789eEtrufalsn"); /* numbers, true, false, null */
    t->p += n;
    return n > 0;
}

static bool is(const char *text, size_t n, const char *word)
{
    return n == strlen(word) && memcmp(text, word, n) == 0;
}

/* {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} */
static bool take_tensor(struct text *t, struct tiered_header_tensor *ret)
{
    unsigned seen = 0;
    if (!take(t, '{')) {
        return false;
    }
    do {
        const char *key, *dtype;
        size_t n, n_dtype;
        uint64_t offsets[2];
        uint32_t n_offsets = 0;
        if (!take_string(t, &key, &n) || !take(t, ':')) {
            return false;
        }
        if (is(key, n, "dtype")) {
            if (!take_string(t, &dtype, &n_dtype) || n_dtype >= sizeof(ret->dtype)) {
                return false;
            }
            memcpy(ret->dtype, dtype, n_dtype);
            ret->dtype[n_dtype] = 0;
            seen |= 1;
        } else if (is(key, n, "shape")) {
            if (!take_counts(t, ret->shape, 8, &ret->rank)) {
                return false;
            }
            seen |= 2;
        } else if (is(key, n, "data_offsets")) {
            if (!take_counts(t, offsets, 2, &n_offsets) || n_offsets != 2) {
                return false;
            }
            ret->begin = offsets[0];
            ret->end = offsets[1];
            seen |= 4;
        } else if (!skip_value(t, 0)) {
            return false;
        }
    } while (take(t, ','));
    return take(t, '}') && seen == 7;
}

const char *tiered_header_find(const char *header, size_t n, const char *name,
                               struct tiered_header_tensor *ret)
{
    struct text t = {header, header + n};
    *ret = (struct tiered_header_tensor){0};
    if (memchr(header, 0, n) || !take(&t, '{')) {
        return "is not JSON";
    }
    if (take(&t, '}')) {
        return NULL;
    }
    do {
        const char *key;
        size_t n_key;
        if (!take_string(&t, &key, &n_key) || !take(&t, ':')) {
            return "is not JSON";
        }
        if (is(key, n_key, name)) {
            if (ret->name) {
                return "names a tensor twice";
            }
            if (!take_tensor(&t, ret)) {
                return "does not give a tensor's dtype, shape and data_offsets";
            }
            ret->name = name;
        } else if (!skip_value(&t, 0)) {
            return "is not JSON";
        }
    } while (take(&t, ','));
    return take(&t, '}') ? NULL : "is not JSON";
}
