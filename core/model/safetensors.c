/* SPDX-License-Identifier: Apache-2.0 */
/* Reading safetensors files: the whole, the header, or block by block. */
#include "core/model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/model/header.h"

struct tiered_safetensors {
    int fd;
    uint64_t data_start;
    struct tiered_header header;
    char *path;
};

/* A path's last part that fits a message. */
static const char *tail(const char *path)
{
    size_t n = strlen(path);
    return n > 100 ? path + n - 100 : path;
}

static int prefix(struct tiered_error *err, const char *path)
{
    return tiered_error_prefix(err, "'%s': ", tail(path));
}

static int read_header(struct tiered_safetensors *f, uint64_t file_size,
                       struct tiered_error *err)
{
    uint64_t size;
    if (file_size < sizeof(size)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "not a safetensors file: it has %llu bytes",
                           (unsigned long long)file_size);
    }
    if (tiered_read_at(f->fd, &size, sizeof(size), 0, err) < 0) {
        return -1;
    }
    if (size > TIERED_HEADER_MAX) {
        return tiered_fail(err, TIERED_EINVAL,
                           "not a safetensors file: its header would have %llu bytes; "
                           "at most %u",
                           (unsigned long long)size, TIERED_HEADER_MAX);
    }
    if (size > file_size - sizeof(size)) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the header has %llu bytes, but the file ends after %llu",
                           (unsigned long long)size,
                           (unsigned long long)(file_size - sizeof(size)));
    }
    TIERED_FREE char *json = malloc((size_t)size + 1);
    if (!json) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    f->data_start = sizeof(size) + size;
    return tiered_read_at(f->fd, json, (size_t)size, sizeof(size), err) < 0
               ? -1
               : tiered_header_parse(json, (size_t)size, file_size - f->data_start,
                                     &f->header, err);
}

static int open_file(struct tiered_safetensors *f, const char *path,
                     struct tiered_error *err)
{
    struct stat info;
    f->path = strdup(path);
    if (!f->path) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &info) < 0) {
        return tiered_fail(err, errno == ENOENT ? TIERED_ENOENT : TIERED_EIO,
                           "cannot open: %s", strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return tiered_fail(err, TIERED_EINVAL, "not a regular file");
    }
    return read_header(f, (uint64_t)info.st_size, err);
}

int tiered_safetensors_open(const char *path, struct tiered_safetensors **ret,
                            struct tiered_error *err)
{
    struct tiered_safetensors *f = calloc(1, sizeof(*f));
    if (!f) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    f->fd = -1;
    if (open_file(f, path, err) < 0) {
        tiered_safetensors_close(f);
        return prefix(err, path);
    }
    *ret = f;
    return 0;
}

void tiered_safetensors_close(struct tiered_safetensors *f)
{
    if (!f) {
        return;
    }
    if (f->fd >= 0) {
        close(f->fd);
    }
    tiered_header_finish(&f->header);
    free(f->path);
    free(f);
}

struct tiered_layout *tiered_safetensors_get_layout(const struct tiered_safetensors *f)
{
    return f->header.layout;
}

const struct tiered_metadata *
tiered_safetensors_get_metadata(const struct tiered_safetensors *f)
{
    return &f->header.metadata;
}

int tiered_safetensors_read_tensor(const struct tiered_safetensors *f, uint32_t tensor,
                                   uint64_t offset, size_t size, void *out,
                                   struct tiered_error *err)
{
    uint64_t from = f->data_start + f->header.begins[tensor] + offset;
    if (tiered_read_at(f->fd, out, size, from, err) < 0) {
        tiered_error_prefix(
            err, "tensor '%.100s': ", f->header.layout->m.tensors[tensor].name);
        return prefix(err, f->path);
    }
    return 0;
}

/* A block's tensors follow each other without a gap in the file as they do in memory:
   both keep one order, and the file has no padding at all. */
int tiered_safetensors_read_block(const struct tiered_safetensors *f, uint32_t block,
                                  void *out, struct tiered_error *err)
{
    const struct tiered_layout *layout = f->header.layout;
    if (block >= layout->n_blocks) {
        return tiered_fail(err, TIERED_EINVAL, "'%s': block %u of %u", tail(f->path),
                           block, layout->n_blocks);
    }
    const struct tiered_block *b = &layout->blocks[block];
    return tiered_safetensors_read_tensor(
        f, b->first_tensor, b->first_element * tiered_dtype_size(b->dtype),
        (size_t)b->size_bytes, out, err);
}

static void give_metadata(struct tiered_safetensors *f, struct tiered_metadata *ret)
{
    if (ret) {
        *ret = f->header.metadata;
        f->header.metadata = (struct tiered_metadata){0};
    }
}

int tiered_safetensors_layout(const char *path, struct tiered_layout **ret_layout,
                              struct tiered_metadata *ret_metadata,
                              struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_safetensors_closep) struct tiered_safetensors *f = NULL;
    if (tiered_safetensors_open(path, &f, err) < 0) {
        return -1;
    }
    *ret_layout = TIERED_STEAL(f->header.layout);
    give_metadata(f, ret_metadata);
    return 0;
}

int tiered_safetensors_read(const char *path, struct tiered_model **ret_model,
                            struct tiered_metadata *ret_metadata,
                            struct tiered_error *err)
{
    TIERED_CLEANUP(tiered_safetensors_closep) struct tiered_safetensors *f = NULL;
    if (tiered_safetensors_open(path, &f, err) < 0) {
        return -1;
    }
    const struct tiered_layout *layout = f->header.layout;
    TIERED_CLEANUP(tiered_model_unrefp)
    struct tiered_model *model = tiered_model_create(f->header.layout, err);
    if (!model) {
        return prefix(err, path);
    }
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        if (tiered_safetensors_read_block(
                f, i, model->data + layout->blocks[i].offset_bytes, err) < 0) {
            return -1;
        }
    }
    if (tiered_model_seal(model, err) < 0) {
        return -1;
    }
    *ret_model = TIERED_STEAL(model);
    give_metadata(f, ret_metadata);
    return 0;
}
