/* SPDX-License-Identifier: Apache-2.0 */
/* Data files of the built-in trainers, from the folder to one leaf's examples.
   Input: a byte for format and compression, one for the number of leaves, partition and
   test set; for idx a u16 size of the images; then the file (idx: images, labels). */
#include <unistd.h>
#include <zlib.h>

#include "fuzz.h"
#include "plugins/trainers/common/dataset.h"

static void host_seed(const struct tiered_host *host, const char *purpose,
                      uint8_t out[32])
{
    (void)host;
    tiered_seed(7, purpose, "", "", out);
}

static void host_progress(const struct tiered_host *host, double fraction)
{
    (void)host;
    FUZZ_CHECK(fraction >= 0 && fraction <= 1, "progress %g", fraction);
}

static bool host_cancelled(const struct tiered_host *host)
{
    (void)host;
    return false;
}

/* Under NAME or NAME.gz; the other one goes. */
static void put(const char *name, struct fuzz_input file, bool compress)
{
    char zipped[64];
    snprintf(zipped, sizeof(zipped), "%s.gz", name);
    if (!compress) {
        unlink(fuzz_path(zipped));
        fuzz_file(name, file.data, file.size);
        return;
    }
    unlink(fuzz_path(name));
    gzFile out = gzopen(fuzz_path(zipped), "wb1");
    FUZZ_CHECK(out, "cannot make '%s'", zipped);
    FUZZ_CHECK(!file.size || gzwrite(out, file.data, (unsigned)file.size) > 0,
               "cannot write '%s'", zipped);
    gzclose(out);
}

static void check_examples(const struct tiered_dataset *d,
                           const struct tiered_examples *examples)
{
    for (uint32_t i = 0; i < examples->n; i++) {
        FUZZ_CHECK(examples->y[i] < d->n_classes, "class %u of %u", examples->y[i],
                   d->n_classes);
    }
    for (size_t i = 0; !examples->bytes && i < examples->n * d->inputs; i++) {
        FUZZ_CHECK(isfinite(((const float *)examples->x)[i]), "a number is not finite");
    }
}

static void run(const struct tiered_trainer_config *config, uint32_t count)
{
    struct tiered_host host = {.size = sizeof(host),
                               .node = "leaf",
                               .path = "",
                               .seed = host_seed,
                               .progress = host_progress,
                               .cancelled = host_cancelled};
    struct tiered_dataset d = {0};
    struct tiered_error err = {0};
    if (tiered_dataset_scan(&d, config, &err) < 0 ||
        tiered_dataset_load(&d, config, count - 1, count, &host, &err) < 0) {
        fuzz_check_error(&err);
    } else {
        check_examples(&d, &d.train);
        check_examples(&d, &d.test);
    }
    tiered_dataset_finish(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"train-images-idx3-ubyte", "train.csv",
                                        "train.safetensors"};
    struct fuzz_input in = {data, size};
    struct tiered_trainer_config config = {.format_given = true};
    unsigned choice = fuzz_byte(&in), split = fuzz_byte(&in);
    bool compress = choice & 4;
    config.format = (int32_t)((choice & 3) % 3);
    config.label = choice & 8 ? "0" : choice & 16 ? "label" : NULL;
    config.partition = (int32_t)((split >> 2 & 3) % 3);
    config.alpha = 1;
    config.test_fraction = split & 16 ? 0.25 : 0;
    if (config.format == TIERED_IDX) {
        size_t n = fuzz_u16(&in);
        put(names[TIERED_IDX], fuzz_take(&in, n), compress);
        put("train-labels-idx1-ubyte", in, compress);
        config.data = fuzz_folder();
    } else {
        compress = compress && config.format == TIERED_CSV;
        put(names[config.format], in, compress);
        config.data = fuzz_path(compress ? "train.csv.gz" : names[config.format]);
    }
    run(&config, (split & 3) + 1);
    return 0;
}
