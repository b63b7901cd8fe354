/* SPDX-License-Identifier: Apache-2.0 */
/* From labels to classes: a hash table of the distinct ones, and their order. */
#include "labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_bytes(const void *data, size_t n)
{
    uint64_t h = 14695981039346656037ull; /* FNV-1a */
    for (size_t i = 0; i < n; i++) {
        h = (h ^ ((const uint8_t *)data)[i]) * 1099511628211ull;
    }
    return h ^ (h >> 29);
}

static uint64_t hash_label(const struct tiered_label *label)
{
    return label->text ? hash_bytes(label->text, strlen(label->text))
                       : hash_bytes(&label->value, sizeof(label->value));
}

static bool same(const struct tiered_label *a, const struct tiered_label *b)
{
    return a->text && b->text ? strcmp(a->text, b->text) == 0
                              : !a->text && !b->text && a->value == b->value;
}

/* The slot that holds the label, or the free one where it belongs. */
static uint32_t *find_slot(const struct tiered_labels *labels,
                           const struct tiered_label *label)
{
    uint32_t i = (uint32_t)hash_label(label) & (labels->n_slots - 1);
    while (labels->slots[i] && !same(&labels->items[labels->slots[i] - 1], label)) {
        i = (i + 1) & (labels->n_slots - 1);
    }
    return &labels->slots[i];
}

/* Room for one label more, with at least half of the slots free. */
static bool grow(struct tiered_labels *labels)
{
    if (2 * (labels->n + 1) <= labels->n_slots) {
        return true;
    }
    uint32_t n = labels->n_slots ? 2 * labels->n_slots : 64;
    uint32_t *slots = calloc(n, sizeof(*slots));
    struct tiered_label *items =
        realloc(labels->items, n / 2 * sizeof(struct tiered_label));
    if (items) {
        labels->items = items;
    }
    if (!slots || !items) {
        free(slots);
        return false;
    }
    free(labels->slots);
    labels->slots = slots;
    labels->n_slots = n;
    for (uint32_t code = 0; code < labels->n; code++) {
        *find_slot(labels, &labels->items[code]) = code + 1;
    }
    return true;
}

/* Takes over label.text. */
static uint32_t add(struct tiered_labels *labels, struct tiered_label label)
{
    if (!grow(labels)) {
        free(label.text);
        return UINT32_MAX;
    }
    uint32_t *slot = find_slot(labels, &label);
    if (*slot || labels->n == TIERED_MAX_CLASSES) {
        free(label.text);
        return *slot ? *slot - 1 : UINT32_MAX;
    }
    labels->items[labels->n++] = label;
    labels->n_texts += label.text != NULL;
    *slot = labels->n;
    return labels->n - 1;
}

uint32_t tiered_labels_integer(struct tiered_labels *labels, int64_t value)
{
    return add(labels, (struct tiered_label){.value = value});
}

/* [+-]digits that fit. */
static bool read_integer(const char *text, size_t n, int64_t *ret)
{
    size_t i = n > 0 && (text[0] == '-' || text[0] == '+');
    int64_t value = 0;
    if (i == n) {
        return false;
    }
    for (; i < n; i++) {
        int digit = text[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    *ret = text[0] == '-' ? -value : value;
    return true;
}

uint32_t tiered_labels_text(struct tiered_labels *labels, const char *text, size_t n)
{
    struct tiered_label label = {0};
    if (read_integer(text, n, &label.value)) {
        return add(labels, label);
    }
    label.text = strndup(text, n);
    return label.text ? add(labels, label) : UINT32_MAX;
}

struct ranked {
    const struct tiered_label *label;
    uint32_t code;
};

static int by_value(const void *a, const void *b)
{
    int64_t x = ((const struct ranked *)a)->label->value,
            y = ((const struct ranked *)b)->label->value;
    return (x > y) - (x < y);
}

static int by_text(const void *a, const void *b)
{
    char numbers[2][24];
    const char *texts[2];
    const struct ranked *items[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        const struct tiered_label *label = items[i]->label;
        snprintf(numbers[i], sizeof(numbers[i]), "%lld", (long long)label->value);
        texts[i] = label->text ? label->text : numbers[i];
    }
    return strcmp(texts[0], texts[1]);
}

uint32_t *tiered_labels_rank(const struct tiered_labels *labels)
{
    struct ranked *ranked = malloc((labels->n + 1) * sizeof(*ranked));
    uint32_t *class_of = malloc((labels->n + 1) * sizeof(*class_of));
    if (!ranked || !class_of) {
        free(ranked);
        free(class_of);
        return NULL;
    }
    for (uint32_t i = 0; i < labels->n; i++) {
        ranked[i] = (struct ranked){&labels->items[i], i};
    }
    qsort(ranked, labels->n, sizeof(*ranked), labels->n_texts ? by_text : by_value);
    for (uint32_t i = 0; i < labels->n; i++) {
        class_of[ranked[i].code] = i;
    }
    free(ranked);
    return class_of;
}

void tiered_labels_finish(struct tiered_labels *labels)
{
    for (uint32_t i = 0; i < labels->n; i++) {
        free(labels->items[i].text);
    }
    free(labels->items);
    free(labels->slots);
    *labels = (struct tiered_labels){0};
}
