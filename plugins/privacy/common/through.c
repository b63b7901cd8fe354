/* SPDX-License-Identifier: Apache-2.0 */
/* What clip and gaussian do alike. */
#include "through.h"

#include <string.h>

size_t through_bound(void *state, size_t in_size)
{
    (void)state;
    return in_size;
}

int through_check(const char *name, const struct tiered_block *block, size_t in_size,
                  struct tiered_error *err)
{
    return in_size == block->size_bytes
               ? 0
               : tiered_fail(err, TIERED_EINVAL,
                             "a block of %zu bytes where %llu are raw: %s works on "
                             "values, so it stands before the codecs",
                             in_size, (unsigned long long)block->size_bytes, name);
}

int through_room(size_t in_size, size_t capacity, struct tiered_error *err)
{
    return in_size <= capacity
               ? 0
               : tiered_fail(err, TIERED_ENOMEM, "no room for %zu bytes", in_size);
}

int through_copy(const void *in, size_t in_size, void *out, size_t capacity,
                 size_t *ret_size, struct tiered_error *err)
{
    if (through_room(in_size, capacity, err) < 0) {
        return -1;
    }
    if (in_size) {
        memcpy(out, in, in_size);
    }
    *ret_size = in_size;
    return 0;
}

int through_inverse(void *state, const struct tiered_block *block, const void *in,
                    size_t in_size, void *out, size_t capacity, size_t *ret_size,
                    struct tiered_error *err)
{
    (void)state;
    if (in_size != block->size_bytes) {
        return tiered_fail(err, TIERED_ECORRUPT, "a block of %zu bytes, not %llu",
                           in_size, (unsigned long long)block->size_bytes);
    }
    return through_copy(in, in_size, out, capacity, ret_size, err);
}
