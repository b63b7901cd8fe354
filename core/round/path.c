/* SPDX-License-Identifier: Apache-2.0 */
/* Round paths: compared, extended, written and read. */
#include "core/round/path.h"

#include <stdio.h>
#include <string.h>

int tiered_path_compare(const struct tiered_path *a, const struct tiered_path *b)
{
    for (uint32_t i = 0; i < a->depth && i < b->depth; i++) {
        if (a->n[i] != b->n[i]) {
            return a->n[i] < b->n[i] ? -1 : 1;
        }
    }
    return (a->depth > b->depth) - (a->depth < b->depth);
}

bool tiered_path_equal(const struct tiered_path *a, const struct tiered_path *b)
{
    return tiered_path_compare(a, b) == 0;
}

bool tiered_path_child(const struct tiered_path *path, uint32_t n,
                       struct tiered_path *ret)
{
    if (path->depth >= TIERED_MAX_DEPTH) {
        return false;
    }
    struct tiered_path longer = *path;
    longer.n[longer.depth++] = n;
    *ret = longer;
    return true;
}

void tiered_path_text(const struct tiered_path *path, char out[192])
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < path->depth && i < TIERED_MAX_DEPTH; i++) {
        used +=
            (size_t)snprintf(out + used, 192 - used, "%s%u", i ? "." : "", path->n[i]);
    }
}

/* One number without a sign or leading zeros; NULL when there is none. */
static const char *parse_number(const char *text, uint32_t *ret)
{
    uint64_t value = 0;
    if (*text < '1' || *text > '9') {
        return NULL;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        value = value * 10 + (uint64_t)(*text - '0');
        if (value > UINT32_MAX) {
            return NULL;
        }
    }
    *ret = (uint32_t)value;
    return text;
}

bool tiered_path_parse(const char *text, struct tiered_path *ret)
{
    struct tiered_path path = {0};
    while (*text) {
        if (path.depth == TIERED_MAX_DEPTH) {
            return false;
        }
        text = parse_number(text, &path.n[path.depth]);
        if (!text || (*text && (*text != '.' || !text[1]))) {
            return false;
        }
        path.depth++;
        text += *text == '.';
    }
    *ret = path;
    return true;
}
