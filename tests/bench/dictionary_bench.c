/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dictionary_bench: what `dictionary: true` of zstd does to the updates of a network,
 * round after round, behind the filters that usually stand before it.
 *
 * usage: dictionary_bench MODEL MODEL MODEL...
 *
 * The files are a model as it was after each round; their differences are the updates.
 * A pipe goes through them as on an uplink, each round in a new pipe with the state of
 * the one before. Bytes are of all rounds together; what a dictionary saves is told
 * with its own bytes paid, of the blocks and of whole updates, in whose heads the
 * tensors' names stand. Milliseconds are of the sender, a round.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/model/safetensors.h"
#include "core/pipe/pipe.h"

#define MOST_FILTERS 3

static struct tiered_plugins *plugins;
static struct tiered_hosting hosting;

static void die(const char *what, const struct tiered_error *err)
{
    fprintf(stderr, "dictionary_bench: %s: %s\n", what, err->text);
    exit(1);
}

/* Running statistics travel as such; in a file nothing says which tensors are. */
static struct tiered_layout *layout_of(const struct tiered_manifest *m)
{
    struct tiered_error err;
    struct tiered_layout_builder *b = tiered_layout_build();
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct tiered_tensor *t = &m->tensors[i];
        enum tiered_role role = strstr(t->name, "running") ? TIERED_BUFFER : t->role;
        if (tiered_layout_add(b, t->name, t->dtype, role, t->rank, t->shape, &err) <
            0) {
            die("layout", &err);
        }
    }
    struct tiered_layout *layout = tiered_layout_seal(b, &err);
    if (!layout) {
        die("layout", &err);
    }
    return layout;
}

static struct tiered_model *load(const char *path)
{
    struct tiered_error err;
    struct tiered_model *file = NULL;
    if (tiered_safetensors_read(path, &file, NULL, &err) < 0) {
        die(path, &err);
    }
    struct tiered_layout *layout = layout_of(&file->layout->m);
    struct tiered_model *model = tiered_model_create(layout, &err);
    if (!model) {
        die(path, &err);
    }
    for (uint32_t i = 0; i < layout->m.n_tensors; i++) {
        const struct tiered_tensor *to = &layout->m.tensors[i];
        memcpy(model->data + to->offset_bytes,
               file->data + file->layout->m.tensors[i].offset_bytes, to->size_bytes);
    }
    tiered_layout_unref(layout);
    tiered_model_unref(file);
    return model;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int make(void *user, Tiered__V1__Head *head, struct tiered_encoded **ret,
                struct tiered_error *err)
{
    (void)user;
    return tiered_encoded_begin(head, NULL, ret, err);
}

struct cost {
    uint64_t blocks, headers, whole;
    double seconds;
};

static struct cost send(const struct tiered_use *uses, size_t n,
                        struct tiered_model *const models[2],
                        struct tiered_bytes *state)
{
    struct tiered_error err;
    struct tiered_pipe *pipe = NULL;
    struct tiered_encoded *e = NULL;
    const struct tiered_encode_job job = {.data = models[1]->data,
                                          .base = models[0]->data,
                                          .hosting = &hosting,
                                          .make = make};
    double begin = now();
    if (tiered_pipe_create(uses, n, models[0]->layout, &hosting, &pipe, &err) < 0 ||
        tiered_pipe_load(pipe, state->data, state->size, &err) < 0 ||
        tiered_pipe_encode(pipe, &job, &e, &err) < 0 ||
        tiered_encoded_seal(e, false, &err) < 0) {
        die("encode", &err);
    }
    tiered_bytes_finish(state);
    if (tiered_pipe_save(pipe, state, &err) < 0) {
        die("save", &err);
    }
    const struct cost cost = {tiered_pipe_counts(pipe).bytes[n],
                              tiered_encoded_head(e)->pipe[n - 1]->header.len,
                              tiered_encoded_bytes(e), now() - begin};
    tiered_encoded_unref(e);
    tiered_pipe_destroy(pipe);
    return cost;
}

struct filter {
    const char *name, *json;
};

static const struct {
    const char *text;
    struct filter filters[MOST_FILTERS];
} pipes[] = {
    {"`zstd`", {{NULL, NULL}}},
    {"`shuffle`, `zstd`", {{"shuffle", NULL}}},
    {"`fp16`, `shuffle`, `zstd`", {{"fp16", NULL}, {"shuffle", NULL}}},
    {"`int8`, `zstd`", {{"int8", NULL}}},
    {"`qsgd`, `zstd`", {{"qsgd", NULL}}},
    {"`qsgd: {levels: 7}`, `zstd`", {{"qsgd", "{\"levels\":7}"}}},
    {"`qsgd: {levels: 7, norm: linf}`, `zstd`",
     {{"qsgd", "{\"levels\":7,\"norm\":\"linf\"}"}}},
    {"`top-k: {ratio: 0.05}`, `zstd`", {{"top-k", "{\"ratio\":0.05}"}}},
};

static struct tiered_use use_of(const char *name, const char *json)
{
    struct tiered_error err;
    struct tiered_use use = {.options_json = json};
    if (tiered_plugins_get(plugins, name, TIERED_FILTER, &use.loaded, &err) < 0) {
        die(name, &err);
    }
    return use;
}

static struct cost run(const struct filter *filters, const char *zstd,
                       struct tiered_model **models, int n_models)
{
    struct tiered_use uses[MOST_FILTERS];
    struct tiered_bytes state = {0};
    struct cost sum = {0};
    size_t n = 0;
    for (; n + 1 < MOST_FILTERS && filters[n].name; n++) {
        uses[n] = use_of(filters[n].name, filters[n].json);
    }
    uses[n++] = use_of("zstd", zstd);
    for (int i = 0; i + 1 < n_models; i++) {
        struct cost one = send(uses, n, models + i, &state);
        sum.blocks += one.blocks;
        sum.headers += one.headers;
        sum.whole += one.whole;
        sum.seconds += one.seconds;
    }
    tiered_bytes_finish(&state);
    return sum;
}

int main(int argc, char **argv)
{
    struct tiered_error err;
    int n = argc - 1;
    struct tiered_model **models = calloc((size_t)argc, sizeof(*models));
    if (n < 3 || !models) {
        fputs("usage: dictionary_bench MODEL MODEL MODEL...\n", stderr);
        return 2;
    }
    tiered_hosting_init(&hosting, 7, "bench", "edge", "edge-0", "1");
    plugins = tiered_plugins_create(NULL, &err);
    if (!plugins) {
        die("plugins", &err);
    }
    for (int i = 0; i < n; i++) {
        models[i] = load(argv[i + 1]);
    }
    printf("%u tensors, %llu bytes, %u blocks, %d rounds\n\n",
           models[0]->layout->m.n_tensors,
           (unsigned long long)models[0]->layout->m.data_bytes,
           models[0]->layout->n_blocks, n - 1);
    puts(
        "| pipe | blocks | with `dictionary` | dictionaries | saved, % | of updates, % "
        "| ms a round | with `dictionary` |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (size_t k = 0; k < TIERED_COUNT(pipes); k++) {
        struct cost without = run(pipes[k].filters, NULL, models, n);
        struct cost with = run(pipes[k].filters, "{\"dictionary\":true}", models, n);
        double saved = (double)without.whole - (double)with.whole;
        printf("| %s | %llu | %llu | %llu | %.1f | %.1f | %.1f | %.1f |\n",
               pipes[k].text, (unsigned long long)without.blocks,
               (unsigned long long)with.blocks, (unsigned long long)with.headers,
               100 * saved / (double)without.blocks,
               100 * saved / (double)without.whole, 1e3 * without.seconds / (n - 1),
               1e3 * with.seconds / (n - 1));
    }
    for (int i = 0; i < n; i++) {
        tiered_model_unref(models[i]);
    }
    free(models);
    tiered_plugins_destroy(plugins);
    return 0;
}
