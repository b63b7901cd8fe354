/* SPDX-License-Identifier: Apache-2.0 */
/* Counting what filters made of a link's updates and models. */
#include "agents/traffic.h"

static uint64_t raw_bytes(const struct tiered_layout *layout)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        sum += layout->blocks[i].size_bytes;
    }
    return sum;
}

void traffic_add(struct traffic *traffic, const struct tiered_encoded *encoded)
{
    const Tiered__V1__Head *head = tiered_encoded_head(encoded);
    traffic->raw += raw_bytes(tiered_encoded_layout(encoded));
    for (size_t k = 0; k < head->n_pipe && k < TRAFFIC_FILTERS; k++) {
        traffic->after[k] += head->pipe[k]->bytes;
    }
}

void traffic_add_masked(struct traffic *traffic, const struct tiered_layout *plain,
                        size_t n_filters, const struct tiered_encoded *encoded)
{
    uint64_t raw = raw_bytes(plain);
    traffic->raw += raw;
    for (size_t k = 0; k < n_filters && k < TRAFFIC_FILTERS; k++) {
        traffic->after[k] +=
            k + 1 < n_filters ? raw : raw_bytes(tiered_encoded_layout(encoded));
    }
}

struct traffic traffic_since(const struct traffic *now, const struct traffic *before)
{
    struct traffic since = {.raw = now->raw - before->raw};
    for (size_t k = 0; k < TRAFFIC_FILTERS; k++) {
        since.after[k] = now->after[k] - before->after[k];
    }
    return since;
}

json_t *traffic_json(const struct traffic *traffic,
                     Tiered__V1__PluginUse *const *filters, size_t n)
{
    json_t *list = json_array();
    for (size_t k = 0; k < n && k < TRAFFIC_FILTERS; k++) {
        json_array_append_new(list, json_pack("{s:s, s:I}", "name", filters[k]->name,
                                              "bytes", (json_int_t)traffic->after[k]));
    }
    return list;
}

size_t traffic_fill(const struct traffic *traffic,
                    Tiered__V1__PluginUse *const *filters, size_t n,
                    Tiered__V1__FilterBytes *space, Tiered__V1__FilterBytes **pointers)
{
    size_t k = 0;
    for (; k < n && k < TRAFFIC_FILTERS; k++) {
        tiered__v1__filter_bytes__init(&space[k]);
        space[k].name = filters[k]->name;
        space[k].bytes = traffic->after[k];
        pointers[k] = &space[k];
    }
    return k;
}
