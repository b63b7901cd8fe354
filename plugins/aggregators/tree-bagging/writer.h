/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Writes a document in either encoding, as XGBoost would. Memory that is not there is
 * remembered and told at the end: look at `failed` before using the bytes.
 */
#ifndef TREE_BAGGING_WRITER_H
#define TREE_BAGGING_WRITER_H

#include "document.h"

struct writer {
    enum encoding encoding;
    uint8_t *data;
    size_t n, capacity;
    bool failed;
    bool comma, after_key; /* JSON: what the next value is preceded by */
};

/** `capacity` is a guess. */
void writer_begin(struct writer *w, enum encoding encoding, size_t capacity);
void writer_finish(struct writer *w);

void writer_object(struct writer *w);
void writer_object_end(struct writer *w);
/** Exactly n values follow. */
void writer_array(struct writer *w, uint32_t n);
void writer_array_end(struct writer *w);
/** Plain letters without a quote or a backslash. */
void writer_key(struct writer *w, const void *key, size_t n);
void writer_text(struct writer *w, const char *text);
void writer_integer(struct writer *w, int64_t value);
/** A value of a document: its very bytes where the encoding is the same. Else JSON's
    numbers become 32-bit floats, as XGBoost has them, and known arrays get their types.
 */
void writer_node(struct writer *w, const struct document *d, const struct node *node);
/** Bytes of a document in the writer's own encoding, as part of a value. */
void writer_raw(struct writer *w, const void *bytes, size_t n);

#endif
