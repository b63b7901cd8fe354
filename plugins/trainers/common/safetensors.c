/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors: 8 bytes of header length, a JSON header, the tensors' bytes. Here the
   tensors are examples, so rows are read from the file one by one. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "header.h"
#include "source.h"
#include "stream.h"

#define MAX_HEADER  (100u << 20) /* as the format's own library */
#define LABEL_CHUNK 4096u

static const char *const train_x[] = {"x_train", "x", "features", "images"};
static const char *const train_y[] = {"y_train", "y", "labels"};
static const char *const test_x[] = {"x_test"}, *const test_y[] = {"y_test"};

struct file {
    int fd;
    const char *path;
    uint64_t bytes, data_offset;
    char *header;
    size_t header_bytes;
};

static void close_file(struct file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    free(file->header);
}

static int read_at(const struct file *file, void *out, uint64_t n, uint64_t offset,
                   struct tiered_error *err)
{
    for (uint64_t done = 0; done < n;) {
        ssize_t got =
            pread(file->fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got == 0) {
            return tiered_fail_in(err, TIERED_ECORRUPT, file->path, "is cut off");
        }
        if (got < 0 && errno != EINTR) {
            return tiered_fail_in(err, TIERED_EIO, file->path, "%s", strerror(errno));
        }
        done += got > 0 ? (uint64_t)got : 0;
    }
    return 0;
}

static int read_header(struct file *file, struct tiered_error *err)
{
    uint64_t n;
    if (file->bytes < sizeof(n)) {
        return tiered_fail_in(err, TIERED_ECORRUPT, file->path,
                              "is cut off in its header");
    }
    if (read_at(file, &n, sizeof(n), 0, err) < 0) {
        return -1;
    }
    if (n > MAX_HEADER || n > file->bytes - sizeof(n)) {
        return tiered_fail_in(err, TIERED_ECORRUPT, file->path,
                              "says that its header has %" PRIu64
                              " bytes, which its %" PRIu64 " bytes do not hold",
                              n, file->bytes);
    }
    file->header = malloc(n + 1);
    if (!file->header) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    file->header[n] = 0;
    file->header_bytes = n;
    file->data_offset = sizeof(n) + n;
    return read_at(file, file->header, n, sizeof(n), err);
}

static int open_file(struct file *file, const char *path, struct tiered_error *err)
{
    struct stat info;
    *file = (struct file){.path = path};
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0) {
        return tiered_fail_in(err, errno == ENOENT ? TIERED_ENOENT : TIERED_EIO, path,
                              "%s", strerror(errno));
    }
    if (fstat(file->fd, &info) < 0 || !S_ISREG(info.st_mode)) {
        close_file(file);
        return tiered_fail_in(err, TIERED_EINVAL, path, "is not a regular file");
    }
    file->bytes = (uint64_t)info.st_size;
    if (read_header(file, err) < 0) {
        close_file(file);
        return -1;
    }
    return 0;
}

/* The first of the names that the file has; ret->name NULL when it has none. */
static int find_any(const struct file *file, const char *const *names, size_t n,
                    struct tiered_header_tensor *ret, struct tiered_error *err)
{
    ret->name = NULL;
    for (size_t i = 0; i < n && !ret->name; i++) {
        const char *problem =
            tiered_header_find(file->header, file->header_bytes, names[i], ret);
        if (problem) {
            return tiered_fail_in(err, TIERED_ECORRUPT, file->path, "its header %s",
                                  problem);
        }
    }
    return 0;
}

/* Do dtype, shape, offsets and the file's size agree? */
static int check_tensor(const struct file *file, const struct tiered_header_tensor *t,
                        size_t item_bytes, struct tiered_error *err)
{
    uint64_t n = item_bytes;
    for (uint32_t i = 0; i < t->rank; i++) {
        if (__builtin_mul_overflow(n, t->shape[i], &n)) {
            n = UINT64_MAX;
        }
    }
    if (t->begin > t->end || t->end > file->bytes - file->data_offset ||
        t->end - t->begin != n) {
        return tiered_fail_in(err, TIERED_ECORRUPT, file->path,
                              "tensor '%s': its offsets do not fit its shape or the "
                              "file",
                              t->name);
    }
    if (t->rank == 0 || t->shape[0] == 0 || t->shape[0] > TIERED_MAX_ROWS) {
        return tiered_fail_in(err, TIERED_EINVAL, file->path,
                              "tensor '%s' holds no examples or more than %u", t->name,
                              TIERED_MAX_ROWS);
    }
    return 0;
}

static int find_examples(const struct file *file, struct tiered_source *source,
                         struct tiered_error *err)
{
    struct tiered_header_tensor x;
    bool test = source->held_in_file;
    if (find_any(file, test ? test_x : train_x, test ? 1 : 4, &x, err) < 0) {
        return -1;
    }
    if (!x.name) {
        return tiered_fail_in(err, TIERED_EINVAL, file->path,
                              "has no tensor x (or x_train, features, images)");
    }
    source->bytes = strcmp(x.dtype, "U8") == 0;
    if (!source->bytes && strcmp(x.dtype, "F32") != 0) {
        return tiered_fail_in(err, TIERED_EINVAL, file->path,
                              "tensor '%s' is %s; F32 and U8 are read", x.name,
                              x.dtype);
    }
    if (check_tensor(file, &x, source->bytes ? 1 : 4, err) < 0) {
        return -1;
    }
    source->n = (uint32_t)x.shape[0];
    source->inputs = (x.end - x.begin) / (source->bytes ? 1 : 4) / x.shape[0];
    source->x_offset = file->data_offset + x.begin;
    return source->inputs > 0 && source->inputs <= TIERED_MAX_INPUTS
               ? 0
               : tiered_fail_in(err, TIERED_EINVAL, file->path,
                                "tensor '%s' has examples of no numbers or more than "
                                "%u",
                                x.name, TIERED_MAX_INPUTS);
}

static size_t label_bytes(const char *dtype)
{
    return strcmp(dtype, "U8") == 0    ? 1
           : strcmp(dtype, "I32") == 0 ? 4
           : strcmp(dtype, "I64") == 0 ? 8
                                       : 0;
}

static int64_t label_at(const uint8_t *data, size_t item_bytes, uint32_t i)
{
    int32_t narrow;
    int64_t wide;
    if (item_bytes == 1) {
        return data[i];
    }
    if (item_bytes == 4) {
        memcpy(&narrow, data + 4 * (size_t)i, sizeof(narrow));
        return narrow;
    }
    memcpy(&wide, data + 8 * (size_t)i, sizeof(wide));
    return wide;
}

static int read_labels(const struct file *file, const struct tiered_header_tensor *y,
                       size_t item_bytes, struct tiered_source *source,
                       struct tiered_labels *labels, struct tiered_error *err)
{
    uint8_t chunk[LABEL_CHUNK * 8];
    source->labels = malloc(source->n * sizeof(*source->labels));
    if (!source->labels) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t done = 0; done < source->n;) {
        uint32_t n = source->n - done < LABEL_CHUNK ? source->n - done : LABEL_CHUNK;
        uint64_t offset = file->data_offset + y->begin + (uint64_t)done * item_bytes;
        if (read_at(file, chunk, n * item_bytes, offset, err) < 0) {
            return -1;
        }
        for (uint32_t i = 0; i < n; i++, done++) {
            source->labels[done] =
                tiered_labels_integer(labels, label_at(chunk, item_bytes, i));
            if (source->labels[done] == UINT32_MAX) {
                return tiered_labels_fail(labels, file->path, err);
            }
        }
    }
    return 0;
}

static int scan_labels(const struct file *file, struct tiered_source *source,
                       struct tiered_labels *labels, struct tiered_error *err)
{
    struct tiered_header_tensor y;
    bool test = source->held_in_file;
    if (find_any(file, test ? test_y : train_y, test ? 1 : 3, &y, err) < 0) {
        return -1;
    }
    if (!y.name) {
        return tiered_fail_in(err, TIERED_EINVAL, file->path, "has no tensor %s",
                              test ? "y_test" : "y (or y_train, labels)");
    }
    size_t item_bytes = label_bytes(y.dtype);
    if (!item_bytes) {
        return tiered_fail_in(err, TIERED_EINVAL, file->path,
                              "tensor '%s' is %s; labels are U8, I32 or I64", y.name,
                              y.dtype);
    }
    if (check_tensor(file, &y, item_bytes, err) < 0) {
        return -1;
    }
    if (y.shape[0] != source->n || (y.end - y.begin) / item_bytes != source->n) {
        return tiered_fail_in(err, TIERED_EINVAL, file->path,
                              "tensor '%s' holds %" PRIu64 " labels for %" PRIu32
                              " examples",
                              y.name, (y.end - y.begin) / item_bytes, source->n);
    }
    return read_labels(file, &y, item_bytes, source, labels, err);
}

int tiered_safetensors_scan(struct tiered_source *source, struct tiered_labels *labels,
                            struct tiered_error *err)
{
    struct file file;
    if (open_file(&file, source->path, err) < 0) {
        return -1;
    }
    int result = find_examples(&file, source, err);
    if (result == 0) {
        result = scan_labels(&file, source, labels, err);
    }
    close_file(&file);
    return result;
}

int tiered_safetensors_has_test(const char *path, bool *ret, struct tiered_error *err)
{
    struct file file;
    struct tiered_header_tensor x;
    if (open_file(&file, path, err) < 0) {
        return -1;
    }
    int result = find_any(&file, test_x, 1, &x, err);
    close_file(&file);
    *ret = result == 0 && x.name;
    return result;
}

static int check_finite(const struct file *file, const float *row, uint64_t n,
                        uint32_t number, struct tiered_error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        if (!isfinite(row[i])) {
            return tiered_fail_in(
                err, TIERED_EINVAL, file->path,
                "example %" PRIu32 " is not finite at number %" PRIu64, number, i);
        }
    }
    return 0;
}

int tiered_safetensors_read_rows(const struct tiered_source *source,
                                 const uint32_t *rows, uint32_t n_rows, void *out,
                                 struct tiered_error *err)
{
    struct file file;
    uint64_t row_bytes = source->inputs * (source->bytes ? 1 : sizeof(float));
    int result = 0;
    if (open_file(&file, source->path, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < n_rows && result == 0; i++) {
        char *row = (char *)out + i * row_bytes;
        result =
            read_at(&file, row, row_bytes, source->x_offset + rows[i] * row_bytes, err);
        if (result == 0 && !source->bytes) {
            result = check_finite(&file, (float *)row, source->inputs, rows[i], err);
        }
    }
    close_file(&file);
    return result;
}
