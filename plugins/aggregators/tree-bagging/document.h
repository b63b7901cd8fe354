/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A JSON or UBJSON document as XGBoost writes them, read in place: nodes that point
 * into its bytes, so that what is not understood can be copied as it stands.
 *
 * Nothing in the bytes is trusted: at most 4 GiB, MAX_DEPTH levels, and nodes in
 * proportion to the size; lengths are checked against what is left. Scalars in an array
 * have no nodes of their own; they are read in order with document_scalar().
 *
 * JSON is strict but for the plain words NaN, Infinity and -Infinity, which XGBoost
 * writes. Of UBJSON: what XGBoost and its like write, i.e. arrays with a count, of any
 * values or of one type, and objects without.
 */
#ifndef TREE_BAGGING_DOCUMENT_H
#define TREE_BAGGING_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tiered/error.h"

#define DOCUMENT_MAX_DEPTH 32

enum encoding {
    ENCODING_JSON,
    ENCODING_UBJSON,
};

enum node_kind {
    NODE_OBJECT,
    NODE_ARRAY,
    NODE_STRING,
    NODE_INTEGER, /* fits in int64 */
    NODE_REAL,
    NODE_BOOLEAN,
    NODE_NULL,
};

struct node {
    uint8_t kind;
    char type;         /* UBJSON array of one type: its marker; else 0 */
    bool numbers;      /* ARRAY: of integers, reals and booleans alone */
    uint16_t key_size; /* of an object's member */
    uint32_t key;      /* the places are offsets in the document */
    uint32_t start, end;
    uint32_t content; /* STRING: its first byte; ARRAY: its first element */
    uint32_t n;    /* STRING: bytes as they stand; ARRAY: elements; OBJECT: members */
    uint32_t next; /* the node after this one and all in it */
};

struct document {
    enum encoding encoding;
    const uint8_t *data;
    size_t size;
    struct node *nodes; /* nodes[0] is the whole; children follow their parent */
    uint32_t n_nodes, capacity;
};

/** A number, word or string. */
struct scalar {
    enum node_kind kind;
    int64_t integer;     /* INTEGER, BOOLEAN */
    double real;         /* INTEGER, BOOLEAN and REAL */
    float single;        /* REAL: rounded once */
    bool wide;           /* REAL: written in 64 bits */
    const uint8_t *text; /* STRING: as it stands, escapes and all */
    size_t n;
};

/** Zeroed, `document` may be finished whatever came of it. The data is borrowed. */
int document_parse(struct document *document, const void *data, size_t size,
                   struct tiered_error *err);
void document_finish(struct document *document);

/** The member of an object, or NULL. -1 when there are two, or it has another kind. */
int document_member(const struct document *d, const struct node *object,
                    const char *key, enum node_kind kind, const struct node **ret,
                    struct tiered_error *err);
/** The same; that there is none is an error as well. */
int document_need(const struct document *d, const struct node *object, const char *key,
                  enum node_kind kind, const struct node **ret,
                  struct tiered_error *err);
bool document_key_is(const struct document *d, const struct node *member,
                     const char *key);
/** From the end of an array's element to the next one: past JSON's commas and spaces.
 */
uint32_t document_skip(const struct document *d, uint32_t at);
/** The scalar at `at` of a parsed document, in an array or a scalar's node; returns the
    place after it. `type` is the array's; 0 elsewhere. */
uint32_t document_scalar(const struct document *d, uint32_t at, char type,
                         struct scalar *ret);

/** Two strings' meaning, whatever their documents' encodings. False without memory. */
bool document_same_text(const struct document *a, const struct scalar *x,
                        const struct document *b, const struct scalar *y);

/* For the two parsers: json.c and ubjson.c. */
struct node *document_add(struct document *d, enum node_kind kind, size_t start,
                          struct tiered_error *err);
int json_parse(struct document *d, struct tiered_error *err);
uint32_t json_scalar(const struct document *d, uint32_t at, struct scalar *ret);
/** A string of JSON without its escapes: never more than its n bytes. Returns how many.
 */
size_t json_unescape(const struct scalar *text, uint8_t *out);
int ubjson_parse(struct document *d, struct tiered_error *err);
uint32_t ubjson_scalar(const struct document *d, uint32_t at, char type,
                       struct scalar *ret);

#endif
