/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes of a document: which of the two encodings it is, adding them, finding them. */
#include "document.h"

#include <stdlib.h>
#include <string.h>

/* An object of n bytes has at most so many nodes: what XGBoost writes has one for a
   dozen bytes, and hostile bytes may not take much more memory than they are. */
#define NODES_MIN        1024u
#define BYTES_FOR_A_NODE 4u

struct node *document_add(struct document *d, enum node_kind kind, size_t start,
                          struct tiered_error *err)
{
    if (d->n_nodes == d->capacity) {
        size_t most = NODES_MIN + d->size / BYTES_FOR_A_NODE;
        size_t capacity = d->capacity ? 2 * (size_t)d->capacity : 256;
        capacity = capacity < most ? capacity : most;
        if (capacity <= d->n_nodes || capacity > UINT32_MAX) {
            tiered_fail(err, TIERED_ERANGE, "has too many values for its size");
            return NULL;
        }
        struct node *nodes = realloc(d->nodes, capacity * sizeof(*nodes));
        if (!nodes) {
            tiered_fail(err, TIERED_ENOMEM, "no memory for its values");
            return NULL;
        }
        d->nodes = nodes;
        d->capacity = (uint32_t)capacity;
    }
    struct node *node = &d->nodes[d->n_nodes++];
    *node = (struct node){.kind = (uint8_t)kind, .start = (uint32_t)start};
    return node;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Both begin with a brace. JSON goes on with a quote or a closing brace; UBJSON with
   the marker of a length or, empty, with the closing brace too, which is no model. */
int document_parse(struct document *d, const void *data, size_t size,
                   struct tiered_error *err)
{
    const uint8_t *bytes = data;
    *d = (struct document){.data = data, .size = size};
    size_t at = 0;
    while (at < size && is_space(bytes[at])) {
        at++;
    }
    if (size > UINT32_MAX) {
        return tiered_fail(err, TIERED_ERANGE, "is larger than 4 GiB");
    }
    if (at == size || bytes[at] != '{') {
        return tiered_fail(err, TIERED_EINVAL,
                           "is neither JSON nor UBJSON: write the model with "
                           "save_raw('ubj') or save_raw('json')");
    }
    bool ubjson = at == 0 && size > 1 && bytes[1] && strchr("iUIlL", bytes[1]);
    d->encoding = ubjson ? ENCODING_UBJSON : ENCODING_JSON;
    return ubjson ? ubjson_parse(d, err) : json_parse(d, err);
}

void document_finish(struct document *d)
{
    free(d->nodes);
    *d = (struct document){0};
}

bool document_key_is(const struct document *d, const struct node *member,
                     const char *key)
{
    size_t n = strlen(key);
    return member->key_size == n && memcmp(d->data + member->key, key, n) == 0;
}

static const char *kind_name(unsigned kind)
{
    static const char *const names[] = {"an object",  "an array", "a string",
                                        "an integer", "a number", "a boolean",
                                        "null"};
    return names[kind];
}

int document_member(const struct document *d, const struct node *object,
                    const char *key, enum node_kind kind, const struct node **ret,
                    struct tiered_error *err)
{
    const struct node *found = NULL;
    for (uint32_t i = (uint32_t)(object - d->nodes) + 1; i < object->next;
         i = d->nodes[i].next) {
        if (!document_key_is(d, &d->nodes[i], key)) {
            continue;
        }
        if (found) {
            return tiered_fail(err, TIERED_EINVAL, "has two members '%s'", key);
        }
        found = &d->nodes[i];
    }
    if (found && found->kind != kind) {
        return tiered_fail(err, TIERED_EINVAL, "'%s' is %s, not %s", key,
                           kind_name(found->kind), kind_name(kind));
    }
    *ret = found;
    return 0;
}

int document_need(const struct document *d, const struct node *object, const char *key,
                  enum node_kind kind, const struct node **ret,
                  struct tiered_error *err)
{
    const struct node *found;
    if (document_member(d, object, key, kind, &found, err) != 0) {
        return -1;
    }
    if (!found) {
        return tiered_fail(err, TIERED_EINVAL, "has no '%s'", key);
    }
    *ret = found;
    return 0;
}

uint32_t document_skip(const struct document *d, uint32_t at)
{
    while (d->encoding == ENCODING_JSON && at < d->size &&
           (d->data[at] == ',' || is_space(d->data[at]))) {
        at++;
    }
    return at;
}

uint32_t document_scalar(const struct document *d, uint32_t at, char type,
                         struct scalar *ret)
{
    *ret = (struct scalar){0};
    return d->encoding == ENCODING_JSON ? json_scalar(d, at, ret)
                                        : ubjson_scalar(d, at, type, ret);
}

/* The text itself: where it has escapes, in *ret_memory, which is the caller's. */
static const uint8_t *meaning(const struct document *d, const struct scalar *s,
                              size_t *ret_n, uint8_t **ret_memory)
{
    *ret_n = s->n;
    *ret_memory = NULL;
    if (d->encoding != ENCODING_JSON || !memchr(s->text, '\\', s->n)) {
        return s->text;
    }
    *ret_memory = malloc(s->n);
    *ret_n = *ret_memory ? json_unescape(s, *ret_memory) : 0;
    return *ret_memory;
}

bool document_same_text(const struct document *a, const struct scalar *x,
                        const struct document *b, const struct scalar *y)
{
    size_t n, m;
    uint8_t *own_x, *own_y;
    const uint8_t *p = meaning(a, x, &n, &own_x), *q = meaning(b, y, &m, &own_y);
    bool same = p && q && n == m && memcmp(p, q, n) == 0;
    free(own_x);
    free(own_y);
    return same;
}
