/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Models in memory: a manifest that owns its names, one aligned buffer, a digest.
 *
 * Lifecycle: build a manifest (add tensors, then it is sealed and immutable), create a
 * model over it, fill its bytes, seal it to know its digest. Manifests and sealed
 * models are reference-counted and may be shared by threads; the counts are atomic.
 */
#ifndef TIERED_CORE_MODEL_H
#define TIERED_CORE_MODEL_H

#include "core/base/base.h"
#include "tiered/model.h"

#define TIERED_MAX_TENSORS     (1u << 20)
#define TIERED_MAX_MODEL_BYTES (1ull << 40)
#define TIERED_MAX_NAME        255

/** A manifest with its blocks. `m` is what plugins get. */
struct tiered_layout {
    struct tiered_manifest m;
    uint32_t n_blocks;
    const struct tiered_block *blocks;
    struct tiered_digest digest; /* of names, dtypes, roles, shapes in order */
};

struct tiered_layout_builder;
struct tiered_layout_builder *tiered_layout_build(void);
/** `name` is copied: UTF-8 without control characters. Refuses overflow, rank > 8, too
    many tensors; seal refuses duplicates. */
int tiered_layout_add(struct tiered_layout_builder *b, const char *name,
                      enum tiered_dtype dtype, enum tiered_role role, uint32_t rank,
                      const uint64_t *shape, struct tiered_error *err);
/** Consumes the builder, also on failure. The layout has one reference. */
struct tiered_layout *tiered_layout_seal(struct tiered_layout_builder *b,
                                         struct tiered_error *err);
void tiered_layout_builder_destroy(struct tiered_layout_builder *b);
/** A layout with a plugin's manifest (names, dtypes, roles, shapes; offsets are
 * checked). */
struct tiered_layout *tiered_layout_copy(const struct tiered_manifest *manifest,
                                         struct tiered_error *err);
struct tiered_layout *tiered_layout_ref(struct tiered_layout *layout);
void tiered_layout_unref(struct tiered_layout *layout);
/** Same names, dtypes, roles and shapes in the same order; -1 names the first
 * difference. */
int tiered_layout_match(const struct tiered_layout *want,
                        const struct tiered_layout *got, struct tiered_error *err);

/** Do its tensors begin a forest as tree-bagging has it: t0.left, t0.right, t0.feature
    (I32), t0.threshold, t0.value (F64)? */
bool tiered_layout_is_forest(const struct tiered_layout *layout);

struct tiered_model {
    struct tiered_layout *layout;
    uint8_t *data; /* layout->m.data_bytes, aligned to TIERED_ALIGN, padding zeroed */
    struct tiered_digest digest;  /* its name; valid once sealed */
    struct tiered_digest content; /* of its bytes: the same, unless it came through a
                                     lossy filter and keeps the name it was sent by */
    /* owned by model.c */
    _Atomic uint32_t refs;
    bool mapped;
};
/** Takes its own reference on layout. The bytes are zero. Large buffers come from mmap,
   so that they go back to the kernel when freed. */
struct tiered_model *tiered_model_create(struct tiered_layout *layout,
                                         struct tiered_error *err);
/** The same for a model whose every block is about to be written: only what lies
   between the blocks is zero. */
struct tiered_model *tiered_model_create_raw(struct tiered_layout *layout,
                                             struct tiered_error *err);
/** A model of bytes that are there: `data` comes from tiered_map(), holds the blocks as
    the layout has them, and is the model's from now on, also on failure. */
struct tiered_model *tiered_model_adopt(struct tiered_layout *layout, uint8_t *data,
                                        struct tiered_error *err);
struct tiered_model *tiered_model_ref(struct tiered_model *model);
void tiered_model_unref(struct tiered_model *model);
/** Compute both digests: SHA-256 of the layout's digest and every tensor's bytes in
 * order. */
int tiered_model_seal(struct tiered_model *model, struct tiered_error *err);

const char *tiered_dtype_name(enum tiered_dtype dtype); /* safetensors': "F32" */
bool tiered_dtype_parse(const char *name, enum tiered_dtype *ret);
const char *tiered_role_name(enum tiered_role role);
bool tiered_role_parse(const char *name, enum tiered_role *ret);
bool tiered_dtype_is_float(enum tiered_dtype dtype);
/** u8 and bool: never averaged, subtracted or converted. */
bool tiered_dtype_is_opaque(enum tiered_dtype dtype);
/** Parameter for floats, buffer for the rest. */
enum tiered_role tiered_role_default(enum tiered_dtype dtype);

/** Metadata of a file or update: ordered string pairs. Zeroed is empty. */
struct tiered_metadata {
    size_t n;
    struct tiered_pair {
        char *key, *value;
    } * items;
};
const char *tiered_metadata_get(const struct tiered_metadata *m, const char *key);
int tiered_metadata_set(struct tiered_metadata *m, const char *key, const char *value,
                        struct tiered_error *err); /* both copied; replaces */
/** The same without the search: `key` is known to be new. */
int tiered_metadata_append(struct tiered_metadata *m, const char *key,
                           const char *value, struct tiered_error *err);
void tiered_metadata_finish(struct tiered_metadata *m);
/** num_examples: absent is `fallback`; refuses what is not an integer in 0..2^53. */
int tiered_metadata_num_examples(const struct tiered_metadata *m, uint64_t fallback,
                                 uint64_t *ret, struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_model, tiered_model_unref)
TIERED_DEFINE_FREE(struct tiered_layout, tiered_layout_unref)

#endif
