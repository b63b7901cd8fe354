/* SPDX-License-Identifier: Apache-2.0 */
/* Names of dtypes and roles, and the string pairs that travel with a model. */
#include "core/model/model.h"

#include <errno.h>

static const char *const dtype_names[TIERED_N_DTYPES] = {
    [TIERED_F32] = "F32",   [TIERED_F64] = "F64", [TIERED_F16] = "F16",
    [TIERED_BF16] = "BF16", [TIERED_I8] = "I8",   [TIERED_I16] = "I16",
    [TIERED_I32] = "I32",   [TIERED_I64] = "I64", [TIERED_U8] = "U8",
    [TIERED_U16] = "U16",   [TIERED_U32] = "U32", [TIERED_U64] = "U64",
    [TIERED_BOOL] = "BOOL",
};

static const char *const role_names[TIERED_N_ROLES] = {"parameter", "buffer", "control",
                                                       "personal"};

const char *tiered_dtype_name(enum tiered_dtype dtype)
{
    return (unsigned)dtype < TIERED_N_DTYPES ? dtype_names[dtype] : "unknown";
}

bool tiered_dtype_parse(const char *name, enum tiered_dtype *ret)
{
    for (unsigned i = 0; i < TIERED_N_DTYPES; i++) {
        if (strcmp(name, dtype_names[i]) == 0) {
            *ret = (enum tiered_dtype)i;
            return true;
        }
    }
    return false;
}

const char *tiered_role_name(enum tiered_role role)
{
    return (unsigned)role < TIERED_N_ROLES ? role_names[role] : "unknown";
}

bool tiered_role_parse(const char *name, enum tiered_role *ret)
{
    for (unsigned i = 0; i < TIERED_N_ROLES; i++) {
        if (strcmp(name, role_names[i]) == 0) {
            *ret = (enum tiered_role)i;
            return true;
        }
    }
    return false;
}

bool tiered_dtype_is_float(enum tiered_dtype dtype)
{
    return dtype == TIERED_F32 || dtype == TIERED_F64 || dtype == TIERED_F16 ||
           dtype == TIERED_BF16;
}

bool tiered_dtype_is_opaque(enum tiered_dtype dtype)
{
    return dtype == TIERED_U8 || dtype == TIERED_BOOL;
}

enum tiered_role tiered_role_default(enum tiered_dtype dtype)
{
    return tiered_dtype_is_float(dtype) ? TIERED_PARAMETER : TIERED_BUFFER;
}

static struct tiered_pair *find_pair(const struct tiered_metadata *m, const char *key)
{
    for (size_t i = 0; i < m->n; i++) {
        if (strcmp(m->items[i].key, key) == 0) {
            return &m->items[i];
        }
    }
    return NULL;
}

const char *tiered_metadata_get(const struct tiered_metadata *m, const char *key)
{
    const struct tiered_pair *pair = find_pair(m, key);
    return pair ? pair->value : NULL;
}

int tiered_metadata_append(struct tiered_metadata *m, const char *key,
                           const char *value, struct tiered_error *err)
{
    /* Room is made at powers of two: the count says when. */
    if ((m->n & (m->n - 1)) == 0) {
        size_t capacity = m->n ? m->n * 2 : 1;
        struct tiered_pair *items = realloc(m->items, capacity * sizeof(*items));
        if (!items) {
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
        m->items = items;
    }
    struct tiered_pair pair = {.key = strdup(key), .value = strdup(value)};
    if (!pair.key || !pair.value) {
        free(pair.key);
        free(pair.value);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    m->items[m->n++] = pair;
    return 0;
}

int tiered_metadata_set(struct tiered_metadata *m, const char *key, const char *value,
                        struct tiered_error *err)
{
    struct tiered_pair *pair = find_pair(m, key);
    if (!pair) {
        return tiered_metadata_append(m, key, value, err);
    }
    char *copy = strdup(value);
    if (!copy) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    free(pair->value);
    pair->value = copy;
    return 0;
}

void tiered_metadata_finish(struct tiered_metadata *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->items[i].key);
        free(m->items[i].value);
    }
    free(m->items);
    *m = (struct tiered_metadata){0};
}

int tiered_metadata_num_examples(const struct tiered_metadata *m, uint64_t fallback,
                                 uint64_t *ret, struct tiered_error *err)
{
    const char *text = tiered_metadata_get(m, "num_examples");
    if (!text) {
        *ret = fallback;
        return 0;
    }
    size_t digits = strspn(text, "0123456789");
    errno = 0;
    unsigned long long n = digits ? strtoull(text, NULL, 10) : 0;
    if (digits == 0 || text[digits] || errno || n > 1ull << 53) {
        return tiered_fail(err, TIERED_EINVAL,
                           "num_examples is '%.40s'; it must be an integer in 0..2^53",
                           text);
    }
    *ret = n;
    return 0;
}
