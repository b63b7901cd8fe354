/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zstd filter: each block becomes one Zstandard frame that declares its size.
 *
 * The mutex guards the lists of idle contexts; zstd is never called with it held.
 * Contexts are made when threads first need them and used again for later blocks.
 */
#include <pthread.h>
#include <stdlib.h>

#include <zstd.h>

#include "tiered/filter.h"

struct config {
    int64_t level, window_log;
    bool dictionary;
};

static const struct tiered_option options[] = {
    TIERED_OPTION_INTEGER(struct config, level, "3", 1, 22,
                          "1 is fastest, 22 smallest"),
    TIERED_OPTION_INTEGER(struct config, window_log, NULL, 10, 27,
                          "how far back matches reach, as a power of two; by level if "
                          "absent",
                          .unit = "bits"),
    TIERED_OPTION_BOOLEAN(struct config, dictionary, "false",
                          "train a dictionary over the blocks; not in this version"),
};

struct idle {
    struct idle *next;
    void *context; /* ZSTD_CCtx or ZSTD_DCtx, by its list */
};

struct state {
    int level, window_log; /* 0: by level */
    pthread_mutex_t lock;
    struct idle *compressors, *decompressors;
};

static struct idle *take(struct state *s, struct idle **list)
{
    pthread_mutex_lock(&s->lock);
    struct idle *one = *list;
    if (one) {
        *list = one->next;
    }
    pthread_mutex_unlock(&s->lock);
    return one;
}

static void give(struct state *s, struct idle **list, struct idle *one)
{
    pthread_mutex_lock(&s->lock);
    one->next = *list;
    *list = one;
    pthread_mutex_unlock(&s->lock);
}

static void *compressor_create(const struct state *s)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (context && (ZSTD_isError(ZSTD_CCtx_setParameter(
                        context, ZSTD_c_compressionLevel, s->level)) ||
                    ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog,
                                                        s->window_log)))) {
        ZSTD_freeCCtx(context);
        context = NULL;
    }
    return context;
}

static struct idle *take_compressor(struct state *s)
{
    struct idle *one = take(s, &s->compressors);
    if (!one && (one = calloc(1, sizeof(*one)))) {
        one->context = compressor_create(s);
    }
    if (one && !one->context) {
        free(one);
        one = NULL;
    }
    return one;
}

static struct idle *take_decompressor(struct state *s)
{
    struct idle *one = take(s, &s->decompressors);
    if (!one && (one = calloc(1, sizeof(*one)))) {
        one->context = ZSTD_createDCtx();
    }
    if (one && !one->context) {
        free(one);
        one = NULL;
    }
    return one;
}

static int filter_init(const struct tiered_host *host, const void *config,
                       const struct tiered_manifest *manifest, void **ret_state,
                       struct tiered_error *err)
{
    const struct config *c = config;
    (void)host;
    (void)manifest;
    if (c->dictionary) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "option 'dictionary' of filter 'zstd' is not in this "
                           "version");
    }
    struct state *s = calloc(1, sizeof(*s));
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->level = (int)c->level;
    s->window_log = (int)c->window_log;
    pthread_mutex_init(&s->lock, NULL);
    *ret_state = s;
    return 0;
}

static void filter_destroy(void *state)
{
    struct state *s = state;
    struct idle *one;
    if (!s) {
        return;
    }
    while ((one = take(s, &s->compressors))) {
        ZSTD_freeCCtx(one->context);
        free(one);
    }
    while ((one = take(s, &s->decompressors))) {
        ZSTD_freeDCtx(one->context);
        free(one);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return ZSTD_compressBound(in_size);
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    struct state *s = state;
    struct idle *one = take_compressor(s);
    (void)block;
    if (!one) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a compressor");
    }
    size_t made = ZSTD_compress2(one->context, out, capacity, in, in_size);
    give(s, &s->compressors, one);
    if (ZSTD_isError(made)) {
        return tiered_fail(err, TIERED_ENOMEM, "%s", ZSTD_getErrorName(made));
    }
    *ret_size = made;
    return 0;
}

/* One frame and nothing else, and no more than the caller takes. */
static int check_frame(const void *in, size_t in_size, size_t capacity,
                       size_t *ret_size, struct tiered_error *err)
{
    unsigned long long declared = ZSTD_getFrameContentSize(in, in_size);
    if (declared == ZSTD_CONTENTSIZE_ERROR) {
        return tiered_fail(err, TIERED_ECORRUPT, "not a zstd frame");
    }
    if (declared == ZSTD_CONTENTSIZE_UNKNOWN) {
        return tiered_fail(err, TIERED_ECORRUPT, "the frame does not declare its size");
    }
    if (declared > capacity) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the frame declares %llu bytes; at most %zu are expected",
                           declared, capacity);
    }
    size_t size = ZSTD_findFrameCompressedSize(in, in_size);
    if (ZSTD_isError(size)) {
        return tiered_fail(err, TIERED_ECORRUPT, "the frame is damaged: %s",
                           ZSTD_getErrorName(size));
    }
    if (size != in_size) {
        return tiered_fail(err, TIERED_ECORRUPT, "%zu bytes follow the frame",
                           in_size - size);
    }
    *ret_size = (size_t)declared;
    return 0;
}

static int filter_inverse(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    struct state *s = state;
    size_t declared = 0;
    (void)block;
    if (check_frame(in, in_size, capacity, &declared, err) < 0) {
        return -1;
    }
    struct idle *one = take_decompressor(s);
    if (!one) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a decompressor");
    }
    size_t made = ZSTD_decompressDCtx(one->context, out, declared, in, in_size);
    give(s, &s->decompressors, one);
    if (ZSTD_isError(made) || made != declared) {
        return tiered_fail(err, TIERED_ECORRUPT, "the frame is damaged: %s",
                           ZSTD_isError(made) ? ZSTD_getErrorName(made)
                                              : "it is shorter than it declares");
    }
    *ret_size = made;
    return 0;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .bound = filter_bound,
    .forward = filter_forward,
    .inverse = filter_inverse,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "zstd", .version = "1.0",
                     .summary = "Zstandard: smaller blocks, bit for bit the same at "
                                "every tier",
                     .traits = TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
