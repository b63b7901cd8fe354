/* SPDX-License-Identifier: Apache-2.0 */
/**
 * safetensors files (https://github.com/huggingface/safetensors): 8 bytes of header
 * length, a JSON header, the tensors' bytes. Nothing in a file is trusted: the header
 * is at most 100 MB, offsets must tile the data exactly, without gap or overlap, and
 * fit shapes and dtypes.
 *
 * Roles are written in __metadata__ as "tiered.role.<tensor>": "buffer" where they are
 * not the default (parameter for floats, buffer for integers).
 */
#ifndef TIERED_CORE_SAFETENSORS_H
#define TIERED_CORE_SAFETENSORS_H

#include "core/model/model.h"

/** Read a whole file, unsealed digest included (the model is sealed). Tensors come in
   the order of their data. `ret_metadata` may be NULL. Errors name the file and tensor.
 */
int tiered_safetensors_read(const char *path, struct tiered_model **ret_model,
                            struct tiered_metadata *ret_metadata,
                            struct tiered_error *err);
/** The header alone. */
int tiered_safetensors_layout(const char *path, struct tiered_layout **ret_layout,
                              struct tiered_metadata *ret_metadata,
                              struct tiered_error *err);
/** A file opened for reading spans of tensors: no more memory than its header. */
struct tiered_safetensors;
int tiered_safetensors_open(const char *path, struct tiered_safetensors **ret,
                            struct tiered_error *err);
struct tiered_layout *tiered_safetensors_get_layout(const struct tiered_safetensors *f);
const struct tiered_metadata *
tiered_safetensors_get_metadata(const struct tiered_safetensors *f);
/** One block of the layout into out (block->size_bytes). Any thread. */
int tiered_safetensors_read_block(const struct tiered_safetensors *f, uint32_t block,
                                  void *out, struct tiered_error *err);
/** `size` bytes from `offset` on of a tensor of the layout and, where they go past its
    end, of those that follow without a gap. Any thread. */
int tiered_safetensors_read_tensor(const struct tiered_safetensors *f, uint32_t tensor,
                                   uint64_t offset, size_t size, void *out,
                                   struct tiered_error *err);
void tiered_safetensors_close(struct tiered_safetensors *f);

/** Atomic: a temporary file, fsync, rename, fsync of the folder. metadata may be NULL.
 */
int tiered_safetensors_write(const char *path, const struct tiered_model *model,
                             const struct tiered_metadata *metadata,
                             struct tiered_error *err);

TIERED_DEFINE_FREE(struct tiered_safetensors, tiered_safetensors_close)

#endif
