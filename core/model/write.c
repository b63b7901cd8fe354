/* SPDX-License-Identifier: Apache-2.0 */
/* Writing safetensors files: the header, then the tensors in layout order, all or
   nothing. */
#include <inttypes.h>
#include <jansson.h>

#include "core/model/header.h"
#include "core/model/safetensors.h"

/* A JSON string of any UTF-8, quoted and escaped. */
static int append_string(struct tiered_bytes *out, const char *text,
                         struct tiered_error *err)
{
    json_t *string = json_string(text);
    TIERED_FREE char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    if (!quoted) {
        return tiered_fail(err, TIERED_EINVAL, "'%.40s' is not UTF-8", text);
    }
    return tiered_bytes_append(out, quoted, strlen(quoted), err);
}

static int append_pair(struct tiered_bytes *out, const char *key, const char *value,
                       bool *first, struct tiered_error *err)
{
    if (tiered_bytes_append(out, ",", *first ? 0 : 1, err) < 0 ||
        append_string(out, key, err) < 0 || tiered_bytes_append(out, ":", 1, err) < 0 ||
        append_string(out, value, err) < 0) {
        return -1;
    }
    *first = false;
    return 0;
}

static int append_role(struct tiered_bytes *out, const struct tiered_tensor *t,
                       bool *first, struct tiered_error *err)
{
    char key[TIERED_ROLE_KEY_SIZE + TIERED_MAX_NAME + 1];
    if (t->role == tiered_role_default(t->dtype)) {
        return 0;
    }
    snprintf(key, sizeof(key), TIERED_ROLE_KEY "%s", t->name);
    return append_pair(out, key, tiered_role_name(t->role), first, err);
}

static int append_metadata(struct tiered_bytes *out, const struct tiered_layout *layout,
                           const struct tiered_metadata *metadata,
                           struct tiered_error *err)
{
    static const char head[] = "\"__metadata__\":{";
    bool first = true;
    size_t start = out->size;
    if (tiered_bytes_append(out, head, sizeof(head) - 1, err) < 0) {
        return -1;
    }
    for (size_t i = 0; metadata && i < metadata->n; i++) {
        const struct tiered_pair *pair = &metadata->items[i];
        if (strncmp(pair->key, TIERED_ROLE_KEY, TIERED_ROLE_KEY_SIZE) != 0 &&
            append_pair(out, pair->key, pair->value, &first, err) < 0) {
            return -1;
        }
    }
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        if (append_role(out, &layout->m.tensors[i], &first, err) < 0) {
            return -1;
        }
    }
    if (first) { /* nothing to say */
        out->size = start;
        return 0;
    }
    return tiered_bytes_append(out, layout->m.n_tensors ? "}," : "}",
                               layout->m.n_tensors ? 2 : 1, err);
}

static int append_tensor(struct tiered_bytes *out, const struct tiered_tensor *t,
                         uint64_t begin, bool last, struct tiered_error *err)
{
    if (strcmp(t->name, "__metadata__") == 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "a tensor cannot be named '__metadata__' in a file");
    }
    if (append_string(out, t->name, err) < 0 ||
        tiered_bytes_printf(out, ":{\"dtype\":\"%s\",\"shape\":[",
                            tiered_dtype_name(t->dtype)) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < t->rank; i++) {
        if (tiered_bytes_printf(out, "%s%" PRIu64, i ? "," : "", t->shape[i]) < 0) {
            return tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
    }
    if (tiered_bytes_printf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}%s",
                            begin, begin + t->size_bytes, last ? "" : ",") < 0) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return 0;
}

static int format(const struct tiered_layout *layout,
                  const struct tiered_metadata *metadata, struct tiered_bytes *out,
                  struct tiered_error *err)
{
    uint64_t begin = 0;
    if (tiered_bytes_append(out, "{", 1, err) < 0 ||
        append_metadata(out, layout, metadata, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &layout->m.tensors[i];
        if (append_tensor(out, t, begin, i + 1 == layout->m.n_tensors, err) < 0) {
            return -1;
        }
        begin += t->size_bytes;
    }
    if (tiered_bytes_append(out, "}", 1, err) < 0 ||
        tiered_bytes_append(out, "       ", (8 - out->size % 8) % 8, err) < 0) {
        return -1;
    }
    if (out->size > TIERED_HEADER_MAX) {
        return tiered_fail(err, TIERED_ENOMEM,
                           "the header would have %zu bytes; at most %u", out->size,
                           TIERED_HEADER_MAX);
    }
    return 0;
}

int tiered_header_format(const struct tiered_layout *layout,
                         const struct tiered_metadata *metadata,
                         struct tiered_bytes *ret, struct tiered_error *err)
{
    struct tiered_bytes out = {0};
    if (format(layout, metadata, &out, err) < 0) {
        tiered_bytes_finish(&out);
        return -1;
    }
    *ret = out;
    return 0;
}

int tiered_safetensors_write(const char *path, const struct tiered_model *model,
                             const struct tiered_metadata *metadata,
                             struct tiered_error *err)
{
    const struct tiered_layout *layout = model->layout;
    struct tiered_bytes header = {0};
    size_t n = 2;
    TIERED_FREE struct tiered_part *parts =
        malloc((2 + (size_t)layout->n_blocks) * sizeof(*parts));
    if (!parts) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (tiered_header_format(layout, metadata, &header, err) < 0) {
        return tiered_error_prefix(err, "'%.100s': ", path);
    }
    uint64_t header_bytes = header.size;
    parts[0] = (struct tiered_part){&header_bytes, sizeof(header_bytes)};
    parts[1] = (struct tiered_part){header.data, header.size};
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        parts[n++] = (struct tiered_part){model->data + block->offset_bytes,
                                          (size_t)block->size_bytes};
    }
    int result = tiered_file_write_parts(path, 0666, parts, n, err);
    tiered_bytes_finish(&header);
    return result;
}
