/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The filters that keep 16 bits of a float: fp16 and bf16 differ in the dtype alone.
 * f32 and f64 values of the blocks that codecs act on become 2 bytes each; the rest,
 * 16-bit floats among it, goes through as it is. There is no header and no state.
 */
#ifndef TIERED_CODECS_NARROW_H
#define TIERED_CODECS_NARROW_H

#include "codec.h"

int narrow_init(const struct tiered_host *host, const void *config,
                const struct tiered_manifest *manifest, void **ret_state,
                struct tiered_error *err);
void narrow_destroy(void *state);
size_t narrow_bound(void *state, size_t in_size);
int narrow_forward(enum tiered_dtype to, const struct tiered_block *block,
                   const void *in, size_t in_size, void *out, size_t capacity,
                   size_t *ret_size, struct tiered_error *err);
int narrow_inverse(enum tiered_dtype from, const struct tiered_block *block,
                   const void *in, size_t in_size, void *out, size_t capacity,
                   size_t *ret_size, struct tiered_error *err);

#endif
