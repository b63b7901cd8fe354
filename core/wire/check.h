/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Reading protobuf bytes without unpacking them: everything is bounded here before
 * protobuf-c allocates. Internal to core/wire. Pure functions.
 */
#ifndef TIERED_CORE_WIRE_CHECK_H
#define TIERED_CORE_WIRE_CHECK_H

#include "core/wire/wire.h"

/** Where a Frame's data field lies: the whole field, and its bytes. n 0: there is none.
 */
struct tiered_wire_span {
    size_t start, n;
    size_t body, body_size;
};

/** Walk `data` along `desc`: wire types, lengths, nesting, counts, no singular field
    twice; strings are UTF-8 without NUL and no longer than their field allows, digests
    0 or 32 bytes. Unknown fields are stepped over. `span` (may be NULL) is set for a
    Frame. -1 with `code`. */
int tiered_wire_check(const ProtobufCMessageDescriptor *desc, const uint8_t *data,
                      size_t size, struct tiered_wire_span *span, enum tiered_code code,
                      struct tiered_error *err);

#endif
