/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The JSON header of a safetensors file. Internal to core/model.
 */
#ifndef TIERED_CORE_HEADER_H
#define TIERED_CORE_HEADER_H

#include "core/model/model.h"

#define TIERED_HEADER_MAX    100000000u /* as the reference reader has it */
#define TIERED_ROLE_KEY      "tiered.role."
#define TIERED_ROLE_KEY_SIZE (sizeof(TIERED_ROLE_KEY) - 1)

struct tiered_header {
    struct tiered_layout *layout;
    struct tiered_metadata metadata; /* without the roles */
    uint64_t *begins;                /* of each tensor, from the start of the data */
};

/** Parse `size` bytes of JSON that stand before `data_bytes` bytes of tensors. The
    tensors must tile those exactly. */
int tiered_header_parse(const char *json, size_t size, uint64_t data_bytes,
                        struct tiered_header *ret, struct tiered_error *err);
void tiered_header_finish(struct tiered_header *header);

/** The JSON for a layout, padded with spaces so that 8 + size is a multiple of 8. */
int tiered_header_format(const struct tiered_layout *layout,
                         const struct tiered_metadata *metadata,
                         struct tiered_bytes *ret, struct tiered_error *err);

#endif
