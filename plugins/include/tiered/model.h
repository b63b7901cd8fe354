/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The shape of a model: named tensors, and how their bytes are cut into blocks.
 *
 * A model is a manifest and one buffer of manifest.data_bytes bytes in host order
 * (little endian). Tensors lie in manifest order; tensors of one dtype follow each
 * other without a gap, and where the dtype changes the next one starts at a multiple of
 * TIERED_ALIGN. So a block, which never mixes dtypes, is one contiguous span.
 *
 * All of these structs are borrowed by a plugin for the length of a call, unless a
 * function says otherwise. They are immutable while borrowed: any thread may read.
 */
#ifndef TIERED_MODEL_H
#define TIERED_MODEL_H

#include <stddef.h>
#include <stdint.h>

#define TIERED_ALIGN       64
#define TIERED_MAX_RANK    8
#define TIERED_BLOCK_BYTES (1u << 20) /* a block's largest raw size */

/** Stable values: they cross the wire. */
enum tiered_dtype {
    TIERED_F32 = 0,
    TIERED_F64 = 1,
    TIERED_F16 = 2,
    TIERED_BF16 = 3,
    TIERED_I8 = 4,
    TIERED_I16 = 5,
    TIERED_I32 = 6,
    TIERED_I64 = 7,
    TIERED_U8 = 8, /* an opaque blob: only for aggregators that accept blobs */
    TIERED_U16 = 9,
    TIERED_U32 = 10,
    TIERED_U64 = 11,
    TIERED_BOOL = 12, /* opaque like u8 */
    TIERED_N_DTYPES
};

enum tiered_role {
    TIERED_PARAMETER = 0, /* trained; the default for floats */
    TIERED_BUFFER = 1,    /* running statistics, counters; the default for integers */
    TIERED_CONTROL = 2,   /* a method's own variates */
    TIERED_PERSONAL = 3,  /* never leaves the node */
    TIERED_N_ROLES
};

#define TIERED_ROLE_BIT(role) (1u << (role))

/** Frozen. */
struct tiered_tensor {
    const char *name; /* unique in its manifest, 1..255 bytes of UTF-8 */
    enum tiered_dtype dtype;
    enum tiered_role role;
    uint32_t rank;                   /* 0: a scalar, one element */
    uint64_t shape[TIERED_MAX_RANK]; /* zero lengths are allowed */
    uint64_t n_elements;
    uint64_t offset_bytes; /* in the model's buffer */
    uint64_t size_bytes;
};

struct tiered_manifest {
    size_t size;
    uint32_t n_tensors;
    const struct tiered_tensor *tensors;
    uint64_t data_bytes;
};

/** Frozen. One block: `n` elements of one dtype, contiguous in the model's buffer. */
struct tiered_block {
    uint32_t index;
    enum tiered_dtype dtype;
    enum tiered_role role; /* blocks never mix roles either */
    uint64_t n_elements;
    uint64_t offset_bytes;
    uint64_t size_bytes;
    uint32_t first_tensor;  /* the tensor that holds the first element */
    uint64_t first_element; /* … and that element's index in it */
};

static inline size_t tiered_dtype_size(enum tiered_dtype dtype)
{
    static const uint8_t sizes[TIERED_N_DTYPES] = {4, 8, 2, 2, 1, 2, 4,
                                                   8, 1, 2, 4, 8, 1};
    return (unsigned)dtype < TIERED_N_DTYPES ? sizes[dtype] : 0;
}

#define TIERED_MAX_METRICS 16

/** Frozen. Named figures of one call. Classification: "accuracy" and "loss". */
struct tiered_metrics {
    uint32_t n;
    struct tiered_metric {
        char name[32];
        double value;
    } items[TIERED_MAX_METRICS];
};

#endif
