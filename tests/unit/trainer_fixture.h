/* SPDX-License-Identifier: Apache-2.0 */
/* What the trainers' tests share: a host, an opened plugin, files in a fresh folder. */
#ifndef TIERED_TEST_TRAINER_FIXTURE_H
#define TIERED_TEST_TRAINER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <ftw.h>
#include <unistd.h>

#include "core/base/base.h"
#include "plugins/trainers/common/config.h"
#include "tiered/plugin.h"

/* A host whose seeds follow the contract; `path` is the round, `cancel` stops. */
struct fixture_host {
    struct tiered_host host;
    const char *path;
    bool cancel;
    double progress;
};

static inline void fixture_seed(const struct tiered_host *host, const char *purpose,
                                uint8_t out[32])
{
    const struct fixture_host *own = host->opaque;
    bool run = strncmp(purpose, "run:", 4) == 0;
    tiered_seed(7, purpose, run ? "" : host->node, run ? "" : own->path, out);
}

static inline void fixture_progress(const struct tiered_host *host, double fraction)
{
    struct fixture_host *own = host->opaque;
    assert_true(fraction >= 0 && fraction <= 1);
    own->progress = fraction;
}

static inline bool fixture_cancelled(const struct tiered_host *host)
{
    const struct fixture_host *own = host->opaque;
    return own->cancel;
}

static inline void fixture_log(const struct tiered_host *host, enum tiered_level level,
                               const char *text)
{
    (void)host, (void)level, (void)text;
}

static inline void fixture_host_init(struct fixture_host *own, const char *node)
{
    *own = (struct fixture_host){.host = {.size = sizeof(own->host),
                                          .opaque = own,
                                          .node = node,
                                          .path = "1",
                                          .log = fixture_log,
                                          .seed = fixture_seed,
                                          .progress = fixture_progress,
                                          .cancelled = fixture_cancelled},
                                 .path = "1"};
}

static inline const struct tiered_plugin *fixture_plugin(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s.so", getenv("TIERED_PLUGINS"), name);
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* stays open: traces keep names */
    if (!so) {
        fail_msg("%s", dlerror());
    }
    return dlsym(so, "tiered_plugin");
}

/* The options as a user would get them who writes only `data`. */
static inline struct tiered_trainer_config fixture_config(const char *data)
{
    return (struct tiered_trainer_config){.data = data,
                                          .local_epochs = 1,
                                          .batch_size = 32,
                                          .lr = 0.05,
                                          .momentum = 0.9,
                                          .test_fraction = 0.1};
}

/* One leaf of a trainer, loaded. */
struct leaf {
    const struct tiered_trainer_ops *ops;
    struct fixture_host host;
    void *state;
    const struct tiered_manifest *manifest;
};

static inline int leaf_start(struct leaf *leaf, const char *plugin,
                             const struct tiered_trainer_config *config, uint32_t index,
                             uint32_t count, struct tiered_error *err)
{
    const struct tiered_place place = {sizeof(place), "leaf", index, count, 0};
    *leaf = (struct leaf){.ops = fixture_plugin(plugin)->ops};
    fixture_host_init(&leaf->host, "leaf");
    if (leaf->ops->init(&leaf->host.host, config, &place, &leaf->state, err) < 0) {
        return -1;
    }
    if (leaf->ops->load(leaf->state, &leaf->host.host, err) < 0 ||
        leaf->ops->manifest(leaf->state, &leaf->manifest, err) < 0) {
        leaf->ops->destroy(leaf->state);
        return -1;
    }
    return 0;
}

/* As above, and it must work. */
static inline void leaf_open(struct leaf *leaf, const char *plugin,
                             const struct tiered_trainer_config *config, uint32_t index,
                             uint32_t count)
{
    struct tiered_error err = {0};
    if (leaf_start(leaf, plugin, config, index, count, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static inline void leaf_close(struct leaf *leaf)
{
    leaf->ops->destroy(leaf->state);
}

static inline float *leaf_model(const struct leaf *leaf)
{
    return calloc(1, leaf->manifest->data_bytes);
}

static inline float *leaf_initial(struct leaf *leaf)
{
    float *model = leaf_model(leaf);
    assert_int_equal(leaf->ops->initial(leaf->state, &leaf->host.host, model, NULL), 0);
    return model;
}

static inline struct tiered_train_result leaf_train(struct leaf *leaf, const float *in,
                                                    float *out)
{
    struct tiered_train_result result = {.size = sizeof(result)};
    struct tiered_error err = {0};
    if (leaf->ops->train(leaf->state, &leaf->host.host, in, out, &result, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return result;
}

static inline struct tiered_train_result leaf_evaluate(struct leaf *leaf,
                                                       const float *model)
{
    struct tiered_train_result result = {.size = sizeof(result)};
    struct tiered_error err = {0};
    if (leaf->ops->evaluate(leaf->state, &leaf->host.host, model, &result, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return result;
}

static inline double metric(const struct tiered_train_result *result, const char *name)
{
    for (uint32_t i = 0; i < result->metrics.n; i++) {
        if (strcmp(result->metrics.items[i].name, name) == 0) {
            return result->metrics.items[i].value;
        }
    }
    fail_msg("no metric '%s'", name);
    return NAN;
}

/* A folder of its own for each test: setup and teardown. */
static inline int folder_create(void **state)
{
    static char template[64];
    snprintf(template, sizeof(template), "/tmp/tiered-test-XXXXXX");
    *state = mkdtemp(template);
    return *state ? 0 : -1;
}

static inline int folder_remove_one(const char *path, const struct stat *info, int type,
                                    struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static inline int folder_remove(void **state)
{
    return nftw(*state, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Write a file; returns its path, which is valid until the next four calls. */
static inline const char *put_bytes(const char *folder, const char *name,
                                    const void *data, size_t n)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    fclose(file);
    return path;
}

static inline const char *put_text(const char *folder, const char *name,
                                   const char *text)
{
    return put_bytes(folder, name, text, strlen(text));
}

#endif
