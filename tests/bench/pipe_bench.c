/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pipe_bench: GB/s of filters and pipes, both directions, on one thread and two, on the
 * same bytes and in the same run as memcpy, libzstd's own level 1 and OpenSSL's own
 * ChaCha20.
 *
 * usage: pipe_bench [MiB] [SECONDS a figure]
 *
 * The bytes are an f32 update: normal values whose size differs from tensor to tensor.
 * GB/s are of raw bytes; a figure is the fastest of its passes.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <zstd.h>

#include "core/pipe/pipe.h"
#include "tiered/random.h"

#define MOST_FILTERS 4

struct bench {
    struct tiered_plugins *plugins;
    struct tiered_hosting hosting;
    struct tiered_layout *layout;
    struct tiered_model *model, *before; /* before: it differs in a sixteenth */
    struct tiered_pool *pool;            /* of two */
    double seconds;
};

static void die(const char *what, const struct tiered_error *err)
{
    fprintf(stderr, "pipe_bench: %s: %s\n", what, err ? err->text : "failed");
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The fastest of as many calls as fit, three at least: what else the machine does only
   ever adds. The first, which meets new pages, counts only where it takes longer than
   all are given. */
static double time_of(const struct bench *b, void (*call)(void *user), void *user)
{
    double begin = now(), best = INFINITY;
    call(user);
    double first = now() - begin;
    for (int n = 0; first < b->seconds && (n < 3 || now() - begin < b->seconds); n++) {
        double start = now();
        call(user);
        best = fmin(best, now() - start);
    }
    return fmin(best, first);
}

static double rate(const struct bench *b, double seconds)
{
    return (double)b->layout->m.data_bytes / seconds / 1e9;
}

static void make_model(struct bench *b, uint64_t bytes)
{
    struct tiered_error err = {0};
    struct tiered_layout_builder *builder = tiered_layout_build();
    const uint8_t key[32] = {1, 2, 3};
    struct tiered_rng rng;
    for (int i = 0; i < 8; i++) {
        char name[16];
        const uint64_t shape[] = {bytes / 8 / 4 / 512, 512};
        snprintf(name, sizeof(name), "layer-%d", i);
        if (tiered_layout_add(builder, name, TIERED_F32, TIERED_PARAMETER, 2, shape,
                              &err) < 0) {
            die("layout", &err);
        }
    }
    b->layout = tiered_layout_seal(builder, &err);
    b->model = b->layout ? tiered_model_create(b->layout, &err) : NULL;
    if (!b->model) {
        die("model", &err);
    }
    tiered_rng_init(&rng, key);
    for (uint32_t i = 0; i < b->layout->m.n_tensors; i++) {
        const struct tiered_tensor *t = &b->layout->m.tensors[i];
        float *values = (float *)(b->model->data + t->offset_bytes);
        for (uint64_t k = 0; k < t->n_elements; k++) {
            values[k] = (float)(ldexp(0.01, -(int)i) * tiered_rng_normal(&rng));
        }
    }
    if (tiered_model_seal(b->model, &err) < 0) {
        die("model", &err);
    }
}

/* The model of a round before: every sixteenth row has changed. */
static void make_before(struct bench *b)
{
    struct tiered_error err = {0};
    const size_t row = 512 * sizeof(float);
    b->before = tiered_model_create(b->layout, &err);
    if (!b->before) {
        die("model", &err);
    }
    memcpy(b->before->data, b->model->data, b->layout->m.data_bytes);
    for (size_t at = 0; at < b->layout->m.data_bytes; at += 16 * row) {
        memset(b->before->data + at, 0, row);
    }
    if (tiered_model_seal(b->before, &err) < 0) {
        die("model", &err);
    }
}

/* ---- what libraries do alone ---- */

struct raw {
    const struct bench *b;
    uint8_t *out;
    EVP_CIPHER_CTX *cipher;
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *decompressor;
    size_t *sizes; /* of each block's frame */
    size_t bound, total;
};

static void copy_all(void *user)
{
    struct raw *r = user;
    memcpy(r->out, r->b->model->data, r->b->layout->m.data_bytes);
}

static void compress_all(void *user)
{
    struct raw *r = user;
    r->total = 0;
    for (uint32_t i = 0; i < r->b->layout->n_blocks; i++) {
        const struct tiered_block *k = &r->b->layout->blocks[i];
        r->sizes[i] =
            ZSTD_compressCCtx(r->compressor, r->out + i * r->bound, r->bound,
                              r->b->model->data + k->offset_bytes, k->size_bytes, 1);
        r->total += r->sizes[i];
    }
}

static void decompress_all(void *user)
{
    static uint8_t block[TIERED_BLOCK_BYTES];
    struct raw *r = user;
    for (uint32_t i = 0; i < r->b->layout->n_blocks; i++) {
        if (ZSTD_isError(ZSTD_decompressDCtx(r->decompressor, block, sizeof(block),
                                             r->out + i * r->bound, r->sizes[i]))) {
            die("libzstd", NULL);
        }
    }
}

/* A keystream as long as the model. */
static void expand_all(void *user)
{
    struct raw *r = user;
    size_t size = r->b->layout->m.data_bytes;
    int made;
    for (size_t at = 0; at < size; at += TIERED_BLOCK_BYTES) {
        size_t n = size - at < TIERED_BLOCK_BYTES ? size - at : TIERED_BLOCK_BYTES;
        if (EVP_EncryptUpdate(r->cipher, r->out, &made, r->out + at, (int)n) != 1) {
            die("OpenSSL", NULL);
        }
    }
}

static double bench_chacha(struct raw *r)
{
    const uint8_t key[32] = {1}, iv[16] = {0};
    r->cipher = EVP_CIPHER_CTX_new();
    if (!r->cipher ||
        EVP_EncryptInit_ex(r->cipher, EVP_chacha20(), NULL, key, iv) != 1) {
        die("OpenSSL", NULL);
    }
    double seconds = time_of(r->b, expand_all, r);
    EVP_CIPHER_CTX_free(r->cipher);
    return seconds;
}

static void bench_raw(const struct bench *b)
{
    struct raw r = {.b = b, .bound = ZSTD_compressBound(TIERED_BLOCK_BYTES)};
    r.out = malloc(r.bound * b->layout->n_blocks);
    r.sizes = calloc(b->layout->n_blocks, sizeof(*r.sizes));
    r.compressor = ZSTD_createCCtx();
    r.decompressor = ZSTD_createDCtx();
    if (!r.out || !r.sizes || !r.compressor || !r.decompressor) {
        die("memory", NULL);
    }
    double copy = time_of(b, copy_all, &r);
    printf("| memcpy | 100.0 | %.3g | | | |\n", rate(b, copy));
    double there = time_of(b, compress_all, &r);
    double back = time_of(b, decompress_all, &r);
    printf("| libzstd level 1, alone | %.1f | %.3g | %.3g | | |\n",
           100.0 * (double)r.total / (double)b->layout->m.data_bytes, rate(b, there),
           rate(b, back));
    printf("| OpenSSL's ChaCha20, alone | 100.0 | %.3g | | | |\n",
           rate(b, bench_chacha(&r)));
    ZSTD_freeCCtx(r.compressor);
    ZSTD_freeDCtx(r.decompressor);
    free(r.sizes);
    free(r.out);
}

/* ---- pipes ---- */

struct run {
    struct bench *b;
    const struct tiered_use *uses;
    size_t n;
    const struct tiered_model *reference;
    struct tiered_pool *pool;
    struct tiered_pipe *pipe;
    struct tiered_encoded *encoded;
    uint8_t *out;
};

static int make_encoded(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                        struct tiered_error *err)
{
    (void)user;
    return tiered_encoded_begin(head, NULL, ret, err);
}

static void encode(void *user)
{
    struct run *r = user;
    struct tiered_error err = {0};
    const struct tiered_encode_job job = {.data = r->b->model->data,
                                          .reference = r->reference,
                                          .hosting = &r->b->hosting,
                                          .pool = r->pool,
                                          .make = make_encoded};
    tiered_encoded_unref(r->encoded);
    r->encoded = NULL;
    if (tiered_pipe_encode(r->pipe, &job, &r->encoded, &err) < 0 ||
        tiered_encoded_seal(r->encoded, false, &err) < 0) {
        die("encode", &err);
    }
}

struct reading {
    struct run *run;
    struct tiered_decoder *decoder;
};

static int read_block(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    struct reading *reading = user;
    const struct tiered_block *block = &reading->run->b->layout->blocks[i];
    (void)worker;
    return tiered_decoder_read(reading->decoder, (uint32_t)i,
                               reading->run->out + block->offset_bytes, err);
}

static void decode(void *user)
{
    struct run *r = user;
    struct tiered_error err = {0};
    struct reading reading = {.run = r};
    if (tiered_decoder_create_with(r->uses, r->n, &r->b->hosting, r->reference,
                                   r->encoded, &reading.decoder, &err) < 0 ||
        tiered_pool_for(r->pool, r->b->layout->n_blocks, read_block, &reading, &err) <
            0) {
        die("decode", &err);
    }
    tiered_decoder_destroy(reading.decoder);
}

static void bench_pipe(struct bench *b, const char *label,
                       const struct tiered_use *uses, size_t n)
{
    struct tiered_error err = {0};
    struct run r = {.b = b, .uses = uses, .n = n};
    double there[2], back[2];
    r.reference = tiered_pipe_refers(uses, n) ? b->before : NULL;
    r.out = malloc(b->layout->m.data_bytes);
    if (!r.out ||
        tiered_pipe_create(uses, n, b->layout, &b->hosting, &r.pipe, &err) < 0) {
        die(label, &err);
    }
    for (int threads = 0; threads < 2; threads++) {
        r.pool = threads ? b->pool : NULL;
        there[threads] = rate(b, time_of(b, encode, &r));
        back[threads] = rate(b, time_of(b, decode, &r));
    }
    printf("| %s | %.1f | %.3g | %.3g | %.3g | %.3g |\n", label,
           100.0 * (double)tiered_encoded_bytes(r.encoded) /
               (double)b->layout->m.data_bytes,
           there[0], back[0], there[1], back[1]);
    fflush(stdout);
    tiered_encoded_unref(r.encoded);
    tiered_pipe_destroy(r.pipe);
    free(r.out);
}

static const struct {
    const char *label;
    struct {
        const char *name, *json;
    } filters[MOST_FILTERS];
} pipes[] = {
    {"none: blocks and their checksums", {{NULL, NULL}}},
    {"`zstd: {level: 1}`", {{"zstd", "{\"level\":1}"}}},
    {"`zstd`", {{"zstd", NULL}}},
    {"`shuffle`", {{"shuffle", NULL}}},
    {"`shuffle`, `zstd`", {{"shuffle", NULL}, {"zstd", NULL}}},
    {"`lzma`", {{"lzma", NULL}}},
    {"`fp16`", {{"fp16", NULL}}},
    {"`bf16`", {{"bf16", NULL}}},
    {"`fp16`, `shuffle`, `zstd`", {{"fp16", NULL}, {"shuffle", NULL}, {"zstd", NULL}}},
    {"`int8`", {{"int8", NULL}}},
    {"`qsgd` (8 bits)", {{"qsgd", NULL}}},
    {"`qsgd: {levels: 7, norm: linf}` (4 bits)",
     {{"qsgd", "{\"levels\":7,\"norm\":\"linf\"}"}}},
    {"`qsgd: {levels: 1, norm: linf}` (2 bits)",
     {{"qsgd", "{\"levels\":1,\"norm\":\"linf\"}"}}},
    {"`qsgd: {levels: 1, packing: elias}`",
     {{"qsgd", "{\"levels\":1,\"packing\":\"elias\"}"}}},
    {"`qsgd`, `zstd`", {{"qsgd", NULL}, {"zstd", NULL}}},
    {"`qsgd: {levels: 7, norm: linf}`, `zstd`",
     {{"qsgd", "{\"levels\":7,\"norm\":\"linf\"}"}, {"zstd", NULL}}},
    {"`top-k: {ratio: 0.01}`", {{"top-k", NULL}}},
    {"`delta`, of which a sixteenth changed", {{"delta", NULL}}},
    {"`delta`, `shuffle`, `zstd`, likewise",
     {{"delta", NULL}, {"shuffle", NULL}, {"zstd", NULL}}},
    {"`clip`", {{"clip", "{\"norm\":1}"}}},
    {"`gaussian`", {{"gaussian", "{\"noise_multiplier\":1}"}}},
    {"`clip`, `gaussian`, `qsgd`",
     {{"clip", "{\"norm\":1}"},
      {"gaussian", "{\"noise_multiplier\":1}"},
      {"qsgd", NULL}}},
};

static size_t find_filters(const struct bench *b, size_t which, struct tiered_use *uses)
{
    struct tiered_error err = {0};
    size_t n = 0;
    while (n < MOST_FILTERS && pipes[which].filters[n].name) {
        uses[n].options_json = pipes[which].filters[n].json;
        if (tiered_plugins_get(b->plugins, pipes[which].filters[n].name, TIERED_FILTER,
                               &uses[n].loaded, &err) < 0) {
            die(pipes[which].label, &err);
        }
        n++;
    }
    return n;
}

int main(int argc, char **argv)
{
    struct tiered_error err = {0};
    struct bench b = {.seconds = argc > 2 ? atof(argv[2]) : 1};
    double mib = argc > 1 ? atof(argv[1]) : 64;
    tiered_hosting_init(&b.hosting, 7, "bench", "edge", "edge-0", "1");
    b.plugins = tiered_plugins_create(NULL, &err);
    if (!b.plugins || tiered_pool_create(2, &b.pool, &err) < 0 || mib < 1 ||
        mib > 4096) {
        die("usage: pipe_bench [MiB] [SECONDS]", &err);
    }
    make_model(&b, (uint64_t)(mib * (1 << 20)));
    make_before(&b);
    printf("| pipe, on %.0f MiB of f32 | bytes, %% | there, GB/s | back, GB/s | there, "
           "two threads | back, two threads |\n| --- | --- | --- | --- | --- | --- |\n",
           mib);
    bench_raw(&b);
    for (size_t i = 0; i < TIERED_COUNT(pipes); i++) {
        struct tiered_use uses[MOST_FILTERS] = {{NULL, NULL}};
        bench_pipe(&b, pipes[i].label, uses, find_filters(&b, i, uses));
    }
    tiered_model_unref(b.model);
    tiered_model_unref(b.before);
    tiered_layout_unref(b.layout);
    tiered_pool_destroy(b.pool);
    tiered_plugins_destroy(b.plugins);
    return 0;
}
