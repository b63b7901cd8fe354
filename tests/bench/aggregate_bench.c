/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows in memory through tiered_strategy_run, for ./dev bench aggregate.
 *
 *     aggregate_bench N PARAMETERS          commands on stdin, one line each on stdout,
 *                                       SECONDS CPU_SECONDS:
 *         limit        to read all rows once and sum them, on all processors
 *         seal         to digest one model
 *         run RULE     one aggregation into the memory of the last result;
 *                      "none" without such a plugin
 *         fresh RULE   the same into new memory
 *     aggregate_bench N PARAMETERS FOLDER   writes the rows there as safetensors files
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/aggregate/strategy.h"
#include "core/model/safetensors.h"
#include "tiered/vector.h"

#define PIECE (256u << 10) /* elements that one worker fills or sums at once */

struct bench {
    size_t n;
    uint64_t parameters, stride;
    float *data;
    struct tiered_layout *layout;
    struct tiered_row *rows;
    struct tiered_model *base;
    struct tiered_plugins *plugins;
    struct tiered_pool *pool;
    uint64_t sums[64];
};

static void check(int rc, const struct tiered_error *err)
{
    if (rc != 0) {
        fprintf(stderr, "aggregate_bench: %s\n", err->text);
        exit(1);
    }
}

/** Seconds that passed, and that all threads worked: other programs take turns too. */
struct stamp {
    double wall, cpu;
};

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct stamp now(void)
{
    return (struct stamp){seconds_of(CLOCK_MONOTONIC),
                          seconds_of(CLOCK_PROCESS_CPUTIME_ID)};
}

static struct stamp since(struct stamp begin)
{
    struct stamp end = now();
    return (struct stamp){end.wall - begin.wall, end.cpu - begin.cpu};
}

/** Numbers about as large as weights are, the same on every machine. */
static void fill(float *row, uint64_t at, size_t n, size_t index)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)(at + i) * 2654435761u ^ (uint32_t)index * 0x9E3779B9u;
        x ^= x >> 15;
        x *= 0x2C1B3C6Du;
        x ^= x >> 12;
        x *= 0x297A2D39u;
        x ^= x >> 15;
        row[at + i] = (float)(int32_t)x * 0x1p-35f;
    }
}

static size_t pieces(const struct bench *b)
{
    return (size_t)((b->parameters + PIECE - 1) / PIECE);
}

static size_t piece_of(const struct bench *b, size_t i, size_t *row, uint64_t *at)
{
    *row = i / pieces(b);
    *at = i % pieces(b) * PIECE;
    return b->parameters - *at < PIECE ? (size_t)(b->parameters - *at) : PIECE;
}

static int fill_piece(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    (void)worker, (void)err;
    struct bench *b = user;
    size_t row;
    uint64_t at;
    size_t n = piece_of(b, i, &row, &at);
    fill(b->data + row * b->stride, at, n, row);
    return 0;
}

#define LANES 32u

static inline __attribute__((always_inline)) uint64_t sum_words(const uint64_t *words,
                                                                size_t n)
{
    uint64_t lanes[LANES] = {0}, sum = 0;
    for (size_t i = 0; i < n; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            lanes[l] += words[i + l];
        }
    }
    for (size_t l = 0; l < LANES; l++) {
        sum += lanes[l];
    }
    return sum;
}

static uint64_t sum_portable(const uint64_t *words, size_t n)
{
    return sum_words(words, n);
}

#ifdef TIERED_VECTOR_X86
TIERED_AVX2 static uint64_t sum_avx2(const uint64_t *words, size_t n)
{
    return sum_words(words, n);
}

TIERED_AVX512 static uint64_t sum_avx512(const uint64_t *words, size_t n)
{
    return sum_words(words, n);
}
#endif

/** As fast as this machine reads: integers, sums that do not wait for one another. */
static int sum_piece(void *user, size_t i, unsigned worker, struct tiered_error *err)
{
    (void)err;
    struct bench *b = user;
    size_t row;
    uint64_t at;
    size_t n = piece_of(b, i, &row, &at) / 2 / LANES * LANES;
    const uint64_t *words = (const uint64_t *)(b->data + row * b->stride + at);
    uint64_t (*sum)(const uint64_t *, size_t) = sum_portable;
#ifdef TIERED_VECTOR_X86
    enum tiered_vector_level level = tiered_vector_level();
    sum = level == TIERED_VECTOR_AVX512 ? sum_avx512
          : level == TIERED_VECTOR_AVX2 ? sum_avx2
                                        : sum_portable;
#endif
    b->sums[worker % TIERED_COUNT(b->sums)] += sum(words, n);
    return 0;
}

static struct tiered_layout *the_layout;

static const void *borrow_row(void *source, uint32_t block)
{
    return (const uint8_t *)source + the_layout->blocks[block].offset_bytes;
}

static int read_row(void *source, uint32_t block, void *out, struct tiered_error *err)
{
    (void)err;
    memcpy(out, borrow_row(source, block), the_layout->blocks[block].size_bytes);
    return 0;
}

static void make_rows(struct bench *b)
{
    b->stride = (b->parameters + 1023) / 1024 * 1024 + 80; /* no power of two */
    size_t bytes = (size_t)(b->n * b->stride) * sizeof(float);
    b->data =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    b->rows = calloc(b->n, sizeof(b->rows[0]));
    if (b->data == MAP_FAILED || !b->rows) {
        fprintf(stderr, "aggregate_bench: no memory for %zu rows\n", b->n);
        exit(1);
    }
    madvise(b->data, bytes, MADV_HUGEPAGE);
    tiered_pool_for(b->pool, b->n * pieces(b), fill_piece, b, NULL);
    for (size_t i = 0; i < b->n; i++) {
        b->rows[i] = (struct tiered_row){
            .contribution = {.size = sizeof(struct tiered_contribution),
                             .node = "row",
                             .num_examples = 100 + i,
                             .local_steps = 10,
                             .a_norm = NAN},
            .read = read_row,
            .borrow = borrow_row,
            .source = b->data + i * b->stride,
        };
    }
}

static void write_files(const struct bench *b, const char *folder)
{
    struct tiered_error err = {0};
    for (size_t i = 0; i < b->n; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%03zu.safetensors", folder, i);
        TIERED_CLEANUP(tiered_model_unrefp)
        struct tiered_model *model = tiered_model_create(b->layout, &err);
        if (!model) {
            check(-1, &err);
        }
        fill((float *)model->data, 0, (size_t)b->parameters, i);
        struct tiered_metadata metadata = {0}; /* fednova counts by it */
        check(tiered_metadata_set(&metadata, "local_steps", "10", &err), &err);
        check(tiered_safetensors_write(path, model, &metadata, &err), &err);
        tiered_metadata_finish(&metadata);
    }
}

static struct stamp time_limit(struct bench *b)
{
    struct stamp begin = now();
    tiered_pool_for(b->pool, b->n * pieces(b), sum_piece, b, NULL);
    return since(begin);
}

/** Below 0: no such plugin. */
static struct stamp time_rule(struct bench *b, char *rule, bool fresh)
{
    struct tiered_error err = {0};
    struct tiered_use use = {0};
    char *colon = strchr(rule, ':'), *options = NULL;
    if (colon) {
        *colon = 0;
        options = tiered_options_parse(colon + 1, &err);
        check(options ? 0 : -1, &err);
    }
    use.options_json = options;
    if (tiered_plugins_get(b->plugins, rule, TIERED_AGGREGATOR, &use.loaded, &err) !=
        0) {
        free(options);
        return (struct stamp){-1, -1};
    }
    struct tiered_hosting hosting;
    tiered_hosting_init(&hosting, 1, "bench", NULL, NULL, NULL);
    struct tiered_strategy *strategy = NULL;
    check(tiered_strategy_create(&use, 1, &hosting, &strategy, &err), &err);
    struct tiered_strategy_run run = {.layout = b->layout,
                                      .base = b->base,
                                      .rows = b->rows,
                                      .n_rows = b->n,
                                      .unsealed = true,
                                      .pool = b->pool};
    struct tiered_model *model = NULL;
    if (fresh) {
        tiered_map_tidy(0); /* what the last run left would serve this one */
    }
    struct stamp begin = now();
    check(tiered_strategy_run(strategy, &run, &model, &err), &err);
    struct stamp taken = since(begin);
    tiered_model_unref(model);
    tiered_strategy_destroy(strategy);
    free(options);
    return taken;
}

static struct stamp time_seal(const struct bench *b)
{
    struct tiered_error err = {0};
    struct stamp begin = now();
    check(tiered_model_seal(b->base, &err), &err);
    return since(begin);
}

static void serve(struct bench *b)
{
    char line[256];
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = 0;
        struct stamp taken =
            strcmp(line, "limit") == 0        ? time_limit(b)
            : strcmp(line, "seal") == 0       ? time_seal(b)
            : strncmp(line, "fresh ", 6) == 0 ? time_rule(b, line + 6, true)
            : strncmp(line, "run ", 4) == 0   ? time_rule(b, line + 4, false)
                                              : (struct stamp){-1, -1};
        if (taken.wall < 0) {
            puts("none");
        } else {
            printf("%.9f %.9f\n", taken.wall, taken.cpu);
        }
        fflush(stdout);
    }
    uint64_t all = 0;
    for (size_t i = 0; i < TIERED_COUNT(b->sums); i++) {
        all += b->sums[i];
    }
    fprintf(stderr, "sum %" PRIu64 "\n", all); /* or the sums would be no work */
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct tiered_error err = {0};
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: aggregate_bench N PARAMETERS [FOLDER]\n");
        return 2;
    }
    b.n = strtoul(argv[1], NULL, 10);
    b.parameters = strtoull(argv[2], NULL, 10);
    struct tiered_layout_builder *builder = tiered_layout_build();
    check(tiered_layout_add(builder, "w", TIERED_F32, TIERED_PARAMETER, 1,
                            &b.parameters, &err),
          &err);
    b.layout = tiered_layout_seal(builder, &err);
    check(b.layout ? 0 : -1, &err);
    the_layout = b.layout;
    if (argc == 4) {
        write_files(&b, argv[3]);
        return 0;
    }
    b.plugins = tiered_plugins_create(NULL, &err);
    check(b.plugins ? tiered_pool_create(0, &b.pool, &err) : -1, &err);
    b.base = tiered_model_create(b.layout, &err);
    check(b.base ? 0 : -1, &err);
    make_rows(&b);
    puts("ready");
    fflush(stdout);
    serve(&b);
    return 0;
}
