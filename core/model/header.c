/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a safetensors header: JSON of unknown origin to a layout. */
#include "core/model/header.h"

#include <jansson.h>

/* A header's own depth is 3: the object, a tensor, its shape. */
#define DEPTH_MAX 3
/* Per tensor at most 3 containers, and 16 commas among its keys and numbers. */
#define CONTAINERS_MAX (4u * TIERED_MAX_TENSORS)
#define COMMAS_MAX     (16u * TIERED_MAX_TENSORS)

/* One tensor as the file has it. */
struct entry {
    const char *name;
    enum tiered_dtype dtype;
    enum tiered_role role;
    uint32_t rank;
    uint64_t shape[TIERED_MAX_RANK];
    uint64_t begin, end;
    size_t place; /* in the JSON */
};

void tiered_header_finish(struct tiered_header *header)
{
    tiered_layout_unref(header->layout);
    tiered_metadata_finish(&header->metadata);
    free(header->begins);
    *header = (struct tiered_header){0};
}

/* A look at the bytes before any of them becomes an object: what no safetensors header
   needs (depth, millions of containers) is refused before memory is spent on it. */
static int survey(const char *json, size_t size, struct tiered_error *err)
{
    bool in_string = false;
    size_t depth = 0, containers = 0, commas = 0;
    for (size_t i = 0; i < size; i++) {
        char c = json[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            containers++;
            if (++depth > DEPTH_MAX) {
                return tiered_fail(err, TIERED_EINVAL,
                                   "the header is nested deeper than %d at its byte "
                                   "%zu",
                                   DEPTH_MAX, i);
            }
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else {
            commas += c == ',';
        }
    }
    if (containers > CONTAINERS_MAX || commas > COMMAS_MAX) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "the header has more values than %u "
                           "tensors need",
                           TIERED_MAX_TENSORS);
    }
    return 0;
}

static int fail_tensor(struct tiered_error *err, const struct entry *e,
                       const char *what)
{
    return tiered_fail(err, TIERED_EINVAL, "tensor '%.100s': %s", e->name, what);
}

static int read_dtype(struct entry *e, const json_t *value, struct tiered_error *err)
{
    const char *name = json_string_value(value);
    if (!name) {
        return fail_tensor(err, e, "'dtype' must be a string");
    }
    if (tiered_dtype_parse(name, &e->dtype)) {
        return 0;
    }
    static const char *const later[] = {"F8_E4M3", "F8_E5M2",     "F8_E8M0",
                                        "F4",      "F6_E2M3",     "F6_E3M2",
                                        "C64",     "F8_E4M3FNUZ", "F8_E5M2FNUZ"};
    for (size_t i = 0; i < TIERED_COUNT(later); i++) {
        if (strcmp(name, later[i]) == 0) {
            return tiered_fail(err, TIERED_ENOTSUP,
                               "tensor '%.100s': dtype '%s' is not in this version; "
                               "convert it to F16 or F32",
                               e->name, name);
        }
    }
    return tiered_fail(err, TIERED_EINVAL, "tensor '%.100s': unknown dtype '%.20s'",
                       e->name, name);
}

static bool read_size(const json_t *value, uint64_t *ret)
{
    json_int_t n = json_is_integer(value) ? json_integer_value(value) : -1;
    *ret = (uint64_t)n;
    return n >= 0;
}

static int read_shape(struct entry *e, const json_t *value, struct tiered_error *err)
{
    if (!json_is_array(value)) {
        return fail_tensor(err, e, "'shape' must be a list of lengths");
    }
    size_t rank = json_array_size(value);
    if (rank > TIERED_MAX_RANK) {
        return tiered_fail(err, TIERED_EINVAL, "tensor '%.100s': rank %zu; at most %d",
                           e->name, rank, TIERED_MAX_RANK);
    }
    e->rank = (uint32_t)rank;
    for (size_t i = 0; i < rank; i++) {
        if (!read_size(json_array_get(value, i), &e->shape[i])) {
            return fail_tensor(err, e, "a length in 'shape' is not an integer from 0");
        }
    }
    return 0;
}

static int read_offsets(struct entry *e, const json_t *value, struct tiered_error *err)
{
    if (!json_is_array(value) || json_array_size(value) != 2 ||
        !read_size(json_array_get(value, 0), &e->begin) ||
        !read_size(json_array_get(value, 1), &e->end)) {
        return fail_tensor(err, e, "'data_offsets' must be two integers from 0");
    }
    return e->begin <= e->end ? 0
                              : fail_tensor(err, e,
                                            "'data_offsets' end before they "
                                            "begin");
}

static int read_entry(struct entry *e, const json_t *value, struct tiered_error *err)
{
    const json_t *dtype = json_object_get(value, "dtype");
    const json_t *shape = json_object_get(value, "shape");
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (!dtype || !shape || !offsets || json_object_size(value) != 3) {
        return fail_tensor(err, e,
                           "must have 'dtype', 'shape' and 'data_offsets', no more");
    }
    return read_dtype(e, dtype, err) < 0 || read_shape(e, shape, err) < 0 ||
                   read_offsets(e, offsets, err) < 0
               ? -1
               : 0;
}

static int read_role(struct entry *e, const json_t *metadata, struct tiered_error *err)
{
    char key[TIERED_ROLE_KEY_SIZE + TIERED_MAX_NAME + 1];
    e->role = tiered_role_default(e->dtype);
    int n = snprintf(key, sizeof(key), TIERED_ROLE_KEY "%s", e->name);
    if (n < 0 || (size_t)n >= sizeof(key)) {
        return 0; /* the layout will refuse so long a name */
    }
    const char *text = json_string_value(json_object_get(metadata, key));
    if (text && !tiered_role_parse(text, &e->role)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "tensor '%.100s': unknown role '%.20s'; one of parameter, "
                           "buffer, control, personal",
                           e->name, text);
    }
    return 0;
}

static int read_metadata(const json_t *metadata, struct tiered_metadata *ret,
                         struct tiered_error *err)
{
    const char *key;
    json_t *value;
    if (metadata && !json_is_object(metadata)) {
        return tiered_fail(err, TIERED_EINVAL, "'__metadata__' must be an object");
    }
    json_object_foreach ((json_t *)(uintptr_t)metadata, key, value) {
        if (!json_is_string(value)) {
            return tiered_fail(err, TIERED_EINVAL,
                               "'__metadata__': the value of '%.100s' must be a string",
                               key);
        }
        if (strncmp(key, TIERED_ROLE_KEY, TIERED_ROLE_KEY_SIZE) != 0 &&
            tiered_metadata_append(ret, key, json_string_value(value), err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* By place in the data; what is empty stands before what begins there. */
static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->end != y->end) {
        return x->end < y->end ? -1 : 1;
    }
    return x->place < y->place ? -1 : x->place > y->place;
}

static int check_tiling(const struct entry *entries, size_t n, uint64_t data_bytes,
                        struct tiered_error *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const struct entry *e = &entries[i];
        if (e->end > data_bytes) {
            return tiered_fail(err, TIERED_ECORRUPT,
                               "tensor '%.100s' ends at byte %llu of %llu: the file is "
                               "cut off",
                               e->name, (unsigned long long)e->end,
                               (unsigned long long)data_bytes);
        }
        if (e->begin != at) {
            return tiered_fail(err, TIERED_ECORRUPT, "tensor '%.100s' %s", e->name,
                               e->begin < at ? "overlaps the one before it"
                                             : "leaves a gap before it");
        }
        at = e->end;
    }
    if (at != data_bytes) {
        return tiered_fail(err, TIERED_ECORRUPT, "%llu bytes follow the last tensor",
                           (unsigned long long)(data_bytes - at));
    }
    return 0;
}

static struct tiered_layout *make_layout(const struct entry *entries, size_t n,
                                         struct tiered_error *err)
{
    struct tiered_layout_builder *b = tiered_layout_build();
    if (!b) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        const struct entry *e = &entries[i];
        if (tiered_layout_add(b, e->name, e->dtype, e->role, e->rank, e->shape, err) <
            0) {
            tiered_layout_builder_destroy(b);
            return NULL;
        }
    }
    return tiered_layout_seal(b, err);
}

static int check_sizes(const struct entry *entries, const struct tiered_layout *layout,
                       struct tiered_error *err)
{
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        const struct entry *e = &entries[i];
        if (e->end - e->begin != layout->m.tensors[i].size_bytes) {
            return tiered_fail(err, TIERED_ECORRUPT,
                               "tensor '%.100s': its shape needs %llu bytes, "
                               "'data_offsets' give it %llu",
                               e->name,
                               (unsigned long long)layout->m.tensors[i].size_bytes,
                               (unsigned long long)(e->end - e->begin));
        }
    }
    return 0;
}

static int fill(const struct entry *entries, size_t n, uint64_t data_bytes,
                struct tiered_header *ret, struct tiered_error *err)
{
    ret->layout = make_layout(entries, n, err);
    if (!ret->layout || check_sizes(entries, ret->layout, err) < 0 ||
        check_tiling(entries, n, data_bytes, err) < 0) {
        return -1;
    }
    ret->begins = malloc(n * sizeof(*ret->begins) + 1);
    if (!ret->begins) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        ret->begins[i] = entries[i].begin;
    }
    return 0;
}

static int read_entries(const json_t *root, const json_t *metadata,
                        struct entry *entries, size_t *ret_n, struct tiered_error *err)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    json_object_foreach ((json_t *)(uintptr_t)root, key, value) {
        if (strcmp(key, "__metadata__") == 0) {
            continue;
        }
        entries[n] = (struct entry){.name = key, .place = n};
        if (read_entry(&entries[n], value, err) < 0 ||
            read_role(&entries[n], metadata, err) < 0) {
            return -1;
        }
        n++;
    }
    qsort(entries, n, sizeof(*entries), compare_entries);
    *ret_n = n;
    return 0;
}

static int read_root(const json_t *root, uint64_t data_bytes, struct tiered_header *ret,
                     struct tiered_error *err)
{
    const json_t *metadata = json_object_get(root, "__metadata__");
    size_t n = json_object_size(root);
    if (n > TIERED_MAX_TENSORS + 1) {
        return tiered_fail(err, TIERED_ENOMEM, "more than %u tensors",
                           TIERED_MAX_TENSORS);
    }
    TIERED_FREE struct entry *entries = malloc((n + 1) * sizeof(*entries));
    if (!entries) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return read_metadata(metadata, &ret->metadata, err) < 0 ||
                   read_entries(root, metadata, entries, &n, err) < 0 ||
                   fill(entries, n, data_bytes, ret, err) < 0
               ? -1
               : 0;
}

int tiered_header_parse(const char *json, size_t size, uint64_t data_bytes,
                        struct tiered_header *ret, struct tiered_error *err)
{
    if (size == 0 || json[0] != '{') {
        return tiered_fail(err, TIERED_EINVAL,
                           "not a safetensors file: its header is not a JSON object");
    }
    if (survey(json, size, err) < 0) {
        return -1;
    }
    json_error_t why;
    json_t *root = json_loadb(json, size, JSON_REJECT_DUPLICATES, &why);
    if (!root) {
        return tiered_fail(err, TIERED_EINVAL, "the header is not JSON: %.120s",
                           why.text);
    }
    struct tiered_header header = {0};
    int result = read_root(root, data_bytes, &header, err);
    json_decref(root);
    if (result < 0) {
        tiered_header_finish(&header);
        return -1;
    }
    *ret = header;
    return 0;
}
