/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON header of a safetensors file: one tensor looked up by name. */
#ifndef TIERED_TRAINERS_HEADER_H
#define TIERED_TRAINERS_HEADER_H

#include <stddef.h>
#include <stdint.h>

struct tiered_header_tensor {
    const char *name; /* the name asked for; NULL: not there */
    char dtype[8];
    uint32_t rank;
    uint64_t shape[8];
    uint64_t begin, end; /* in the data; unchecked */
};

/** Reads the whole header, which is followed by a NUL. NULL, or what is wrong with it
    ("is not JSON"). */
const char *tiered_header_find(const char *header, size_t n, const char *name,
                               struct tiered_header_tensor *ret);

#endif
