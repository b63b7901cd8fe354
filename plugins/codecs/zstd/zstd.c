/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zstd filter: each block becomes one Zstandard frame that declares its size.
 *
 * With a dictionary small blocks are made twice, with it and without, and the shorter
 * frame goes; a frame says which it is. A pass only collects samples; end() makes of
 * them what the next pass sends. See dictionary.h, samples.h and train.h.
 *
 * The mutex guards the lists of idle contexts; zstd is never called with it held.
 * Contexts are made when threads first need them and used again for later blocks.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

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
                          "for small blocks, trained on the sender's earlier rounds; "
                          "sent where it pays"),
};

struct idle {
    struct idle *next;
    void *context; /* ZSTD_CCtx or ZSTD_DCtx, by its list */
};

struct state {
    int level, window_log; /* 0: by level */
    bool trains;
    pthread_mutex_t lock;
    struct idle *compressors, *decompressors;
    struct dictionary dictionary; /* that this pass sends */
    struct samples samples;       /* … and those for the next one's */
    struct dictionary received;   /* by inverse_begin */
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
    struct state *s = calloc(1, sizeof(*s));
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->level = (int)c->level;
    s->window_log = (int)c->window_log;
    s->trains = c->dictionary;
    pthread_mutex_init(&s->lock, NULL);
    samples_init(&s->samples);
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
    dictionary_finish(&s->dictionary);
    dictionary_finish(&s->received);
    samples_finish(&s->samples);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int filter_begin(void *state, const struct tiered_host *host,
                        struct tiered_error *err)
{
    (void)host;
    (void)err;
    samples_clear(&((struct state *)state)->samples);
    return 0;
}

static int give_packed(const struct dictionary *d, void *out, size_t capacity,
                       size_t *ret_size, struct tiered_error *err)
{
    if (d->packed_size > capacity) {
        return tiered_fail(err, TIERED_ENOMEM, "%zu bytes do not fit into %zu",
                           d->packed_size, capacity);
    }
    if (d->packed_size) {
        memcpy(out, d->packed, d->packed_size);
    }
    *ret_size = d->packed_size;
    return 0;
}

static int filter_header(void *state, void *out, size_t capacity, size_t *ret_size,
                         struct tiered_error *err)
{
    const struct state *s = state;
    return give_packed(&s->dictionary, out, capacity, ret_size, err);
}

static size_t filter_bound(void *state, size_t in_size)
{
    (void)state;
    return ZSTD_compressBound(in_size);
}

/* Where the dictionary makes a shorter frame, that one. */
static int try_dictionary(const struct state *s, ZSTD_CCtx *context, const void *in,
                          size_t in_size, void *out, size_t *size,
                          struct tiered_error *err)
{
    size_t capacity = ZSTD_compressBound(in_size);
    uint8_t *other = malloc(capacity);
    if (!other) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    size_t made = press(context, &s->dictionary, in, in_size, other, capacity);
    if (!ZSTD_isError(made) && made < *size) {
        memcpy(out, other, made);
        *size = made;
    }
    free(other);
    return 0;
}

static int filter_forward(void *state, const struct tiered_block *block, const void *in,
                          size_t in_size, void *out, size_t capacity, size_t *ret_size,
                          struct tiered_error *err)
{
    struct state *s = state;
    if (s->trains && samples_add(&s->samples, block->index, in, in_size, err) < 0) {
        return -1;
    }
    struct idle *one = take_compressor(s);
    if (!one) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a compressor");
    }
    size_t made = press(one->context, NULL, in, in_size, out, capacity);
    int result = ZSTD_isError(made)
                     ? tiered_fail(err, TIERED_ENOMEM, "%s", ZSTD_getErrorName(made))
                     : 0;
    if (result == 0 && !dictionary_is_none(&s->dictionary) && in_size <= SAMPLE_MOST) {
        result = try_dictionary(s, one->context, in, in_size, out, &made, err);
    }
    give(s, &s->compressors, one);
    *ret_size = result == 0 ? made : *ret_size;
    return result;
}

static int filter_end(void *state, struct tiered_error *err)
{
    struct state *s = state;
    if (!s->trains) {
        return 0;
    }
    struct idle *one = take_compressor(s);
    if (!one) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a compressor");
    }
    samples_settle(&s->samples);
    int result =
        dictionary_choose(&s->dictionary, &s->samples, one->context, s->level, err);
    give(s, &s->compressors, one);
    samples_clear(&s->samples);
    return result;
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

static int filter_inverse_begin(void *state, const void *header, size_t header_size,
                                struct tiered_error *err)
{
    struct state *s = state;
    dictionary_finish(&s->received);
    return header_size ? dictionary_unpack(header, header_size, 0, &s->received, err)
                       : 0;
}

/* A frame names the dictionary that it was made with, or none. */
static int check_identity(const struct state *s, uint32_t id, struct tiered_error *err)
{
    if (id && dictionary_is_none(&s->received)) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the frame needs a dictionary, and none came with it");
    }
    if (id && id != s->received.id) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "the frame needs dictionary %u; %u came with it", id,
                           s->received.id);
    }
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
    uint32_t id = ZSTD_getDictID_fromFrame(in, in_size);
    if (check_identity(s, id, err) < 0) {
        return -1;
    }
    struct idle *one = take_decompressor(s);
    if (!one) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a decompressor");
    }
    size_t made = ZSTD_decompress_usingDDict(one->context, out, declared, in, in_size,
                                             id ? s->received.reader : NULL);
    give(s, &s->decompressors, one);
    if (ZSTD_isError(made) || made != declared) {
        return tiered_fail(err, TIERED_ECORRUPT, "the frame is damaged: %s",
                           ZSTD_isError(made) ? ZSTD_getErrorName(made)
                                              : "it is shorter than it declares");
    }
    *ret_size = made;
    return 0;
}

/* ---- saved state: the dictionary as it goes out next; nothing where there is none
 * ----
 */

static int filter_save(void *state, void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err)
{
    const struct state *s = state;
    if (capacity == 0) {
        *ret_size = s->dictionary.packed_size;
        return 0;
    }
    return give_packed(&s->dictionary, out, capacity, ret_size, err);
}

static int filter_load(void *state, uint32_t version, const void *in, size_t size,
                       struct tiered_error *err)
{
    struct state *s = state;
    struct dictionary loaded = {0};
    if (version != DICTIONARY_VERSION) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "a dictionary of version %u; this is version %d", version,
                           DICTIONARY_VERSION);
    }
    if (size && s->trains && /* otherwise it was switched off since: forget it */
        dictionary_unpack(in, size, s->level, &loaded, err) < 0) {
        return -1;
    }
    dictionary_finish(&s->dictionary);
    s->dictionary = loaded;
    return 0;
}

static const struct tiered_filter_ops ops = {
    .size = sizeof(ops),
    .init = filter_init,
    .destroy = filter_destroy,
    .begin = filter_begin,
    .header = filter_header,
    .bound = filter_bound,
    .forward = filter_forward,
    .end = filter_end,
    .inverse_begin = filter_inverse_begin,
    .inverse = filter_inverse,
    .saved = {.version = DICTIONARY_VERSION, .save = filter_save, .load = filter_load},
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_FILTER, .name = "zstd", .version = "1.0",
                     .summary = "Zstandard: smaller blocks, bit for bit the same at "
                                "every tier",
                     .traits = TIERED_CONCURRENT | TIERED_ACCEPTS_BLOBS,
                     TIERED_OPTIONS(options, struct config), .ops = &ops);
