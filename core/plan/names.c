/* SPDX-License-Identifier: Apache-2.0 */
/* A table of names, for uniqueness and for finding nodes and agents. */
#include <string.h>

#include "core/plan/inside.h"

static uint32_t hash(const char *name) /* FNV-1a */
{
    uint32_t h = 2166136261u;
    for (; *name; name++) {
        h = (h ^ (unsigned char)*name) * 16777619u;
    }
    return h ^ h >> 15;
}

int plan_name_table_init(struct name_table *table, struct tiered_arena *arena,
                         uint64_t n)
{
    uint64_t size = 16;
    while (size < 2 * n) {
        size *= 2;
    }
    table->slots = tiered_arena_alloc(arena, size, sizeof(*table->slots));
    table->mask = (uint32_t)size - 1;
    return table->slots ? 0 : -1;
}

/* The slot of the name, or the free one where it would go. */
static uint32_t slot_of(const struct name_table *table, const char *name,
                        const char *(*name_of)(const void *user, uint32_t number),
                        const void *user)
{
    uint32_t i = hash(name) & table->mask;
    while (table->slots[i] && strcmp(name_of(user, table->slots[i] - 1), name) != 0) {
        i = (i + 1) & table->mask;
    }
    return i;
}

uint32_t plan_name_table_add(struct name_table *table, const char *name,
                             uint32_t number,
                             const char *(*name_of)(const void *user, uint32_t number),
                             const void *user)
{
    uint32_t i = slot_of(table, name, name_of, user);
    if (table->slots[i]) {
        return table->slots[i] - 1;
    }
    table->slots[i] = number + 1;
    return UINT32_MAX;
}

uint32_t plan_name_table_find(const struct name_table *table, const char *name,
                              const char *(*name_of)(const void *user, uint32_t number),
                              const void *user)
{
    uint32_t i = slot_of(table, name, name_of, user);
    return table->slots[i] ? table->slots[i] - 1 : UINT32_MAX;
}

const char *plan_node_name_of(const void *nodes, uint32_t number)
{
    return ((const struct tiered_node *)nodes)[number].name;
}
