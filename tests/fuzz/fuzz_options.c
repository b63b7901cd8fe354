/* SPDX-License-Identifier: Apache-2.0 */
/* Options as the command line writes them, to JSON and on to a trainer's config.
   Input: the text. */
#include "core/options/options.h"
#include "fuzz.h"
#include "plugins/trainers/common/config.h"

static const struct tiered_option rows[] = {TIERED_TRAINER_OPTIONS};

static void check_json(const char *json)
{
    struct tiered_diagnostics diag = {0};
    struct tiered_document *document =
        tiered_document_parse("json", json, strlen(json), &diag);
    FUZZ_CHECK(document && tiered_document_root(document)->kind == TIERED_MAPPING,
               "not a mapping: %.300s", json);
    tiered_document_destroy(document);
    tiered_diag_finish(&diag);
}

static void fill(const char *json)
{
    static const struct tiered_plugin plugin = {
        .kind = TIERED_TRAINER,
        .name = "fuzz",
        .options = rows,
        .n_options = TIERED_COUNT(rows),
        .option_size = sizeof(rows[0]),
        .config_size = sizeof(struct tiered_trainer_config)};
    struct tiered_config config = {0};
    struct tiered_error err = {0};
    if (tiered_config_from_json(&plugin, json, &config, &err) < 0) {
        fuzz_check_error(&err);
        FUZZ_CHECK(!config.data && !config.memory, "a config in spite of an error");
        return;
    }
    const struct tiered_trainer_config *c = config.data;
    FUZZ_CHECK(c->data && c->batch_size >= 1 && c->batch_size <= 65536 && c->lr > 0 &&
                   c->momentum >= 0 && c->momentum < 1,
               "a config out of its ranges");
    tiered_config_finish(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tiered_error err = {0};
    char *text = malloc(size + 1);
    FUZZ_CHECK(text, "out of memory");
    if (size) {
        memcpy(text, data, size);
    }
    text[size] = 0;
    char *json = tiered_options_parse(text, &err);
    if (json) {
        check_json(json);
        fill(json);
    } else {
        fuzz_check_error(&err);
    }
    fill(text); /* what an assignment carries comes from outside too */
    free(json);
    free(text);
    return 0;
}
