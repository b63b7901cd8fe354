/* SPDX-License-Identifier: Apache-2.0 */
/* A config's memory, and configs from JSON. */
#include <stdio.h>
#include <string.h>

#include "core/options/internal.h"
#include "core/plugins/plugins.h"

void *tiered_config_allocate(struct tiered_config_memory *memory, size_t n_items,
                             size_t item_size)
{
    if (memory->n == memory->capacity) {
        size_t capacity = memory->capacity ? 2 * memory->capacity : 8;
        void **items = realloc(memory->items, capacity * sizeof(*items));
        if (!items) {
            return NULL;
        }
        memory->items = items;
        memory->capacity = capacity;
    }
    void *block = calloc(n_items ? n_items : 1, item_size);
    if (block) {
        memory->items[memory->n++] = block;
    }
    return block;
}

void tiered_config_finish(struct tiered_config *config)
{
    if (!config) {
        return;
    }
    for (size_t i = 0; config->memory && i < config->memory->n; i++) {
        free(config->memory->items[i]);
    }
    if (config->memory) {
        free(config->memory->items);
    }
    free(config->memory);
    free(config->data);
    memset(config, 0, sizeof(*config));
}

int tiered_config_from_json(const struct tiered_plugin *plugin, const char *json,
                            struct tiered_config *ret, struct tiered_error *err)
{
    struct tiered_diagnostics diag = {0};
    struct tiered_mark mark = {0};
    char what[80];
    snprintf(what, sizeof(what), "%s '%s'", tiered_kind_name(plugin->kind),
             plugin->name);
    memset(ret, 0, sizeof(*ret));
    TIERED_CLEANUP(tiered_document_destroyp) struct tiered_document *document = NULL;
    if (json && json[0]) {
        document = tiered_document_parse(what, json, strlen(json), &diag);
    }
    int result = -1;
    if (document || !json || !json[0]) {
        result = tiered_config_fill(plugin->options, plugin->n_options,
                                    plugin->option_size, plugin->config_size, what,
                                    document ? tiered_document_root(document) : NULL,
                                    mark, NULL, ret, &diag);
    }
    for (size_t i = 0; result < 0 && i < diag.n; i++) {
        if (!diag.items[i].warning) {
            tiered_fail(err, TIERED_EINVAL, "%s", diag.items[i].text);
            break;
        }
    }
    tiered_diag_finish(&diag);
    return result;
}
