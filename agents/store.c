/* SPDX-License-Identifier: Apache-2.0 */
/* An inner node's state folder: models, optimizer state, the commit record. */
#include "agents/store.h"

#include <dirent.h>
#include <jansson.h>
#include <unistd.h>

#include "core/model/metrics.h"
#include "core/model/safetensors.h"

#define RECORD_LIMIT (64u << 20)
#define CONTENT_KEY  "tiered.content"

static char *model_path(const char *folder, const struct tiered_digest *digest)
{
    char hex[65], *path = NULL;
    tiered_digest_hex(digest, hex);
    return asprintf(&path, "%s/model-%s.safetensors", folder, hex) < 0 ? NULL : path;
}

char *store_optimizer_path(const char *folder, uint32_t total_rounds)
{
    char *path = NULL;
    return asprintf(&path, "%s/optimizer-%u.safetensors", folder, total_rounds) < 0
               ? NULL
               : path;
}

static int write_model(const char *folder, const struct tiered_model *model,
                       struct tiered_error *err)
{
    TIERED_FREE char *path = model_path(folder, &model->digest);
    if (!path) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (access(path, R_OK) == 0) {
        return 0; /* written whole under its name, or not there at all */
    }
    TIERED_CLEANUP(tiered_metadata_finish) struct tiered_metadata metadata = {0};
    char hex[65];
    tiered_digest_hex(&model->content, hex);
    if (!tiered_digest_equal(&model->content, &model->digest) &&
        tiered_metadata_set(&metadata, CONTENT_KEY, hex, err) < 0) {
        return -1;
    }
    return tiered_safetensors_write(path, model, &metadata, err);
}

/* Its content must be what was written, which its name tells unless it was changed. */
static bool is_whole(const struct tiered_model *model, const struct tiered_digest *name,
                     const struct tiered_metadata *metadata)
{
    const char *hex = tiered_metadata_get(metadata, CONTENT_KEY);
    struct tiered_digest content = *name;
    return (!hex || tiered_digest_parse(hex, &content)) &&
           tiered_digest_equal(&model->content, &content);
}

int store_model(const char *folder, const struct tiered_digest *digest,
                struct tiered_model **ret, struct tiered_error *err)
{
    TIERED_FREE char *path = model_path(folder, digest);
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *model = NULL;
    if (!path) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    TIERED_CLEANUP(tiered_metadata_finish) struct tiered_metadata metadata = {0};
    if (tiered_safetensors_read(path, &model, &metadata, err) < 0) {
        return -1;
    }
    if (!is_whole(model, digest, &metadata)) {
        return tiered_fail(err, TIERED_ECORRUPT, "'%s' is damaged", path);
    }
    model->digest = *digest;
    *ret = TIERED_STEAL(model);
    return 0;
}

static json_t *record_json(const struct store_commit *commit)
{
    const struct tiered_round_record *r = commit->record;
    char turn[192], base[65], model[65];
    tiered_path_text(&r->turn, turn);
    tiered_digest_hex(&r->turn_base, base);
    tiered_digest_hex(&r->model, model);
    json_t *list = json_array();
    for (uint32_t i = 0; i < r->n_contributions; i++) {
        json_array_append_new(
            list,
            json_pack("{s:I, s:I}", "child", (json_int_t)r->contributions[i].child,
                      "num_examples", (json_int_t)r->contributions[i].num_examples));
    }
    json_t *record = json_pack(
        "{s:i, s:s, s:I, s:s, s:s, s:I, s:s, s:I, s:I, s:f, s:o, s:o, s:b, s:b, s:I}",
        "format", 1, "run", commit->run, "generation", (json_int_t)r->generation,
        "turn", turn, "turn_base", base, "round", (json_int_t)r->round, "model", model,
        "num_examples", (json_int_t)r->num_examples, "group_examples",
        (json_int_t)r->group_examples, "local_steps", r->local_steps, "metrics",
        tiered_metrics_json(&r->metrics), "contributions", list, "finished",
        r->finished != 0, "evaluation_due", r->evaluation_due != 0, "total_rounds",
        (json_int_t)r->total_rounds);
    return record;
}

int store_commit(const struct store_commit *commit, struct tiered_error *err)
{
    TIERED_FREE char *path = NULL;
    if (write_model(commit->folder, commit->turn_base, err) < 0 ||
        write_model(commit->folder, commit->model, err) < 0) {
        return -1;
    }
    if (tiered_strategy_has_state(commit->strategy)) {
        TIERED_FREE char *state =
            store_optimizer_path(commit->folder, commit->record->total_rounds);
        if (!state || tiered_strategy_save(commit->strategy, state, err) < 0) {
            return state ? -1 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
    }
    json_t *record = record_json(commit);
    char *text = record ? json_dumps(record, JSON_INDENT(1)) : NULL;
    json_decref(record);
    int result = -1;
    if (!text || asprintf(&path, "%s/commit.json", commit->folder) < 0) {
        path = NULL;
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
    } else {
        result = tiered_file_write(path, text, strlen(text), err);
    }
    free(text);
    if (result == 0) {
        store_sweep(commit->folder, commit->record);
    }
    return result;
}

static int read_contributions(json_t *list, struct tiered_round_record *ret,
                              struct tiered_error *err)
{
    size_t n = json_array_size(list);
    struct tiered_counted *items = calloc(n ? n : 1, sizeof(*items));
    if (!items) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        json_t *item = json_array_get(list, i);
        items[i].child = (uint32_t)json_integer_value(json_object_get(item, "child"));
        items[i].num_examples =
            (uint64_t)json_integer_value(json_object_get(item, "num_examples"));
    }
    ret->contributions = items;
    ret->n_contributions = (uint32_t)n;
    return 0;
}

static uint64_t number(json_t *record, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(record, key));
}

static int read_record(json_t *record, struct tiered_round_record *ret,
                       struct tiered_error *err)
{
    const char *turn = json_string_value(json_object_get(record, "turn"));
    const char *base = json_string_value(json_object_get(record, "turn_base"));
    const char *model = json_string_value(json_object_get(record, "model"));
    memset(ret, 0, sizeof(*ret));
    if (!turn || !base || !model || !tiered_path_parse(turn, &ret->turn) ||
        !tiered_digest_parse(base, &ret->turn_base) ||
        !tiered_digest_parse(model, &ret->model)) {
        return tiered_fail(err, TIERED_ECORRUPT, "the commit record is damaged");
    }
    ret->generation = number(record, "generation");
    ret->round = (uint32_t)number(record, "round");
    ret->num_examples = number(record, "num_examples");
    ret->group_examples = number(record, "group_examples");
    ret->local_steps = json_number_value(json_object_get(record, "local_steps"));
    ret->total_rounds = (uint32_t)number(record, "total_rounds");
    ret->finished = json_is_true(json_object_get(record, "finished"));
    ret->evaluation_due = json_is_true(json_object_get(record, "evaluation_due"));
    tiered_metrics_from_json(json_object_get(record, "metrics"), &ret->metrics);
    return read_contributions(json_object_get(record, "contributions"), ret, err);
}

int store_load(const char *folder, const char *run, struct tiered_round_record *ret,
               struct tiered_error *err)
{
    TIERED_FREE char *path = NULL;
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes text = {0};
    if (asprintf(&path, "%s/commit.json", folder) < 0) {
        path = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (access(path, F_OK) < 0) {
        return 0;
    }
    if (tiered_file_read(path, RECORD_LIMIT, &text, err) < 0) {
        return -1;
    }
    json_t *record = json_loadb((const char *)text.data, text.size, 0, NULL);
    const char *of = json_string_value(json_object_get(record, "run"));
    int result = 0;
    if (!record) {
        result = tiered_fail(err, TIERED_ECORRUPT, "'%s' is damaged", path);
    } else if (of && strcmp(of, run) == 0) {
        result = read_record(record, ret, err) < 0 ? -1 : 1;
    }
    json_decref(record);
    return result;
}

void store_record_finish(struct tiered_round_record *record)
{
    free((void *)record->contributions);
    record->contributions = NULL;
    record->n_contributions = 0;
}

static bool named(const char *file, const struct tiered_round_record *record)
{
    char hex[65], name[128];
    if (!record) {
        return false;
    }
    const struct tiered_digest *digests[] = {&record->turn_base, &record->model};
    for (size_t i = 0; i < TIERED_COUNT(digests); i++) {
        tiered_digest_hex(digests[i], hex);
        snprintf(name, sizeof(name), "model-%s.safetensors", hex);
        if (strcmp(file, name) == 0) {
            return true;
        }
    }
    snprintf(name, sizeof(name), "optimizer-%u.safetensors", record->total_rounds);
    return strcmp(file, name) == 0;
}

void store_sweep(const char *folder, const struct tiered_round_record *record)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        bool ours = strncmp(entry->d_name, "model-", 6) == 0 ||
                    strncmp(entry->d_name, "optimizer-", 10) == 0;
        if (ours && !named(entry->d_name, record)) {
            unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    if (dir) {
        closedir(dir);
    }
}
