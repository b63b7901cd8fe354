/* SPDX-License-Identifier: Apache-2.0 */
/* What a document is made of; private to core/value. */
#ifndef TIERED_CORE_VALUE_DOCUMENT_H
#define TIERED_CORE_VALUE_DOCUMENT_H

#include "core/value/arena.h"
#include "core/value/value.h"

struct tiered_document {
    struct tiered_arena arena;
    struct tiered_value *root;
};

/** Parse into an arena. `mark_override` (may be NULL) becomes every value's place.
    NULL with diag filled; a text without a value gives TIERED_NULL when `allow_empty`.
 */
struct tiered_value *tiered_value_parse(struct tiered_arena *arena, const char *file,
                                        const void *text, size_t size,
                                        const struct tiered_mark *mark_override,
                                        bool allow_empty,
                                        struct tiered_diagnostics *diag);

#endif
