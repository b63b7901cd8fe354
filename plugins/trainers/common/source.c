/* SPDX-License-Identifier: Apache-2.0 */
/* From the `data` option to files, and from a source to its format's reader. */
#include "source.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "stream.h"

#define FASHION_MNIST "/usr/share/datasets/fashion-mnist"

/* File names of a set in a folder, by format. */
static const struct known {
    enum tiered_format format;
    const char *train, *train_labels, *test, *test_labels;
} known_files[] = {
    {TIERED_IDX, "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
     "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"},
    {TIERED_CSV, "train.csv", NULL, "test.csv", NULL},
    {TIERED_SAFETENSORS, "train.safetensors", NULL, "test.safetensors", NULL},
};

#define N_KNOWN (sizeof(known_files) / sizeof(known_files[0]))

static int no_memory(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ENOMEM, "out of memory");
}

static bool is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* FOLDER/NAME or FOLDER/NAME.gz, whichever is there; *ret NULL when neither is. */
static int find_file(const char *folder, const char *name, char **ret,
                     struct tiered_error *err)
{
    *ret = NULL;
    for (int i = 0; i < 2; i++) {
        char *path;
        if (asprintf(&path, "%s/%s%s", folder, name, i ? ".gz" : "") < 0) {
            return no_memory(err);
        }
        if (is_file(path)) {
            *ret = path;
            return 0;
        }
        free(path);
    }
    return 0;
}

/* One set of a folder; source->path stays NULL where it has none. */
static int find_set(const char *folder, enum tiered_format format, const char *name,
                    const char *labels_name, struct tiered_source *source,
                    struct tiered_error *err)
{
    source->format = format;
    if (find_file(folder, name, &source->path, err) < 0) {
        return -1;
    }
    if (!source->path || !labels_name) {
        return 0;
    }
    if (find_file(folder, labels_name, &source->labels_path, err) < 0) {
        return -1;
    }
    if (!source->labels_path) {
        return tiered_fail_in(err, TIERED_ENOENT, folder, "holds %s but no %s[.gz]",
                              name, labels_name);
    }
    return 0;
}

static int locate_in_folder(const char *folder,
                            const struct tiered_trainer_config *config,
                            struct tiered_source *train, struct tiered_source *test,
                            struct tiered_error *err)
{
    for (size_t i = 0; i < N_KNOWN; i++) {
        const struct known *k = &known_files[i];
        if (config->format_given && config->format != (int32_t)k->format) {
            continue;
        }
        if (find_set(folder, k->format, k->train, k->train_labels, train, err) < 0) {
            return -1;
        }
        if (train->path) {
            return find_set(folder, k->format, k->test, k->test_labels, test, err);
        }
    }
    return tiered_fail_in(err, TIERED_ENOENT, folder, "holds no %s",
                          !config->format_given ? "train-images-idx3-ubyte[.gz], "
                                                  "train.csv or train.safetensors"
                          : config->format == TIERED_IDX
                              ? "train-images-idx3-ubyte[.gz]"
                          : config->format == TIERED_CSV ? "train.csv[.gz]"
                                                         : "train.safetensors");
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* By the name, else by the first bytes. */
static int see_format(const char *path, enum tiered_format *ret,
                      struct tiered_error *err)
{
    struct tiered_stream stream;
    unsigned char head[4];
    size_t n;
    if (ends_with(path, ".safetensors")) {
        *ret = TIERED_SAFETENSORS;
        return 0;
    }
    if (ends_with(path, ".csv") || ends_with(path, ".csv.gz")) {
        *ret = TIERED_CSV;
        return 0;
    }
    if (tiered_stream_open(&stream, path, err) < 0) {
        return -1;
    }
    int result = tiered_stream_read(&stream, head, sizeof(head), &n, err);
    tiered_stream_close(&stream);
    if (result == 0 && n == sizeof(head) && head[0] == 0 && head[1] == 0 &&
        head[2] == 8) {
        *ret = TIERED_IDX;
        return 0;
    }
    return result < 0
               ? -1
               : tiered_fail_in(err, TIERED_EINVAL, path,
                                "is neither idx, .csv nor .safetensors; say which "
                                "with format");
}

/* "…images…idx3…" to "…labels…idx1…", in the last part of the path. */
static int name_labels(const char *path, char **ret, struct tiered_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *images = strstr(slash ? slash : path, "images");
    if (!images) {
        return tiered_fail_in(err, TIERED_EINVAL, path,
                              "its name does not hold 'images', so its labels' file is "
                              "not known; give the folder");
    }
    if (asprintf(ret, "%.*slabels%s", (int)(images - path), path,
                 images + strlen("images")) < 0) {
        *ret = NULL;
        return no_memory(err);
    }
    char *rank = strstr(*ret + (images - path), "idx3");
    if (rank) {
        rank[3] = '1';
    }
    return 0;
}

static int locate_file(const char *path, const struct tiered_trainer_config *config,
                       struct tiered_source *train, struct tiered_source *test,
                       struct tiered_error *err)
{
    bool has_test = false;
    train->format = (enum tiered_format)config->format;
    if (!config->format_given && see_format(path, &train->format, err) < 0) {
        return -1;
    }
    train->path = strdup(path);
    if (!train->path) {
        return no_memory(err);
    }
    if (train->format == TIERED_IDX) {
        return name_labels(path, &train->labels_path, err);
    }
    if (train->format == TIERED_SAFETENSORS &&
        tiered_safetensors_has_test(path, &has_test, err) < 0) {
        return -1;
    }
    if (has_test) {
        test->format = TIERED_SAFETENSORS;
        test->held_in_file = true;
        test->path = strdup(path);
        return test->path ? 0 : no_memory(err);
    }
    return 0;
}

int tiered_source_locate(const struct tiered_trainer_config *config,
                         struct tiered_source *train, struct tiered_source *test,
                         struct tiered_error *err)
{
    const char *data = config->data;
    *train = *test = (struct tiered_source){0};
    if (strcmp(data, "fashion-mnist") == 0) {
        if (!is_folder(FASHION_MNIST)) {
            return tiered_fail(err, TIERED_ENOENT,
                               "data set 'fashion-mnist' is not installed: apt-get "
                               "install dataset-fashion-mnist");
        }
        data = FASHION_MNIST;
    } else if (!strchr(data, '/')) { /* a path that is there came with its folder */
        return tiered_fail(
            err, TIERED_ENOENT,
            "data '%.120s' is no file or folder beside the topology, nor "
            "a known data set (fashion-mnist)",
            data);
    }
    return is_folder(data) ? locate_in_folder(data, config, train, test, err)
                           : locate_file(data, config, train, test, err);
}

int tiered_source_scan(struct tiered_source *source, const char *label,
                       struct tiered_labels *labels, struct tiered_error *err)
{
    switch (source->format) {
    case TIERED_IDX:
        return tiered_idx_scan(source, labels, err);
    case TIERED_CSV:
        return tiered_csv_scan(source, label, labels, err);
    case TIERED_SAFETENSORS:
        break;
    }
    return tiered_safetensors_scan(source, labels, err);
}

int tiered_source_read(const struct tiered_source *source, const uint32_t *rows,
                       uint32_t n_rows, void *out, struct tiered_error *err)
{
    switch (source->format) {
    case TIERED_IDX:
        return tiered_idx_read(source, rows, n_rows, out, err);
    case TIERED_CSV:
        return tiered_csv_read(source, rows, n_rows, out, err);
    case TIERED_SAFETENSORS:
        break;
    }
    return tiered_safetensors_read_rows(source, rows, n_rows, out, err);
}

void tiered_source_finish(struct tiered_source *source)
{
    free(source->path);
    free(source->labels_path);
    free(source->labels);
    *source = (struct tiered_source){0};
}

int tiered_labels_fail(const struct tiered_labels *labels, const char *path,
                       struct tiered_error *err)
{
    return labels->n < TIERED_MAX_CLASSES
               ? no_memory(err)
               : tiered_fail_in(err, TIERED_EINVAL, path,
                                "more than %u different labels: is it the label "
                                "column? (option label)",
                                TIERED_MAX_CLASSES);
}
