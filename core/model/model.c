/* SPDX-License-Identifier: Apache-2.0 */
/* Models: one aligned buffer over a layout, and its digest. */
#include "core/model/model.h"

#include <stdatomic.h>

/* From here on a buffer is mapped, so that freeing it gives the memory back. */
#define MAPPED_BYTES (128u << 10)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "models are little endian in memory, as in files");

static size_t buffer_bytes(const struct tiered_layout *layout)
{
    size_t n = (size_t)layout->m.data_bytes;
    return n ? (n + TIERED_ALIGN - 1) / TIERED_ALIGN * TIERED_ALIGN : TIERED_ALIGN;
}

static uint8_t *small_buffer(size_t n)
{
    void *data = aligned_alloc(TIERED_ALIGN, n);
    return data ? memset(data, 0, n) : NULL;
}

static struct tiered_model *model_of(struct tiered_layout *layout, uint8_t *data,
                                     bool mapped, struct tiered_error *err)
{
    struct tiered_model *model = data ? calloc(1, sizeof(*model)) : NULL;
    if (!model) {
        if (mapped) {
            tiered_unmap(data, buffer_bytes(layout));
        } else {
            free(data);
        }
        tiered_fail(err, TIERED_ENOMEM, "out of memory for a model of %zu bytes",
                    buffer_bytes(layout));
        return NULL;
    }
    model->data = data;
    model->mapped = mapped;
    model->layout = tiered_layout_ref(layout);
    atomic_init(&model->refs, 1);
    return model;
}

struct tiered_model *tiered_model_create(struct tiered_layout *layout,
                                         struct tiered_error *err)
{
    size_t n = buffer_bytes(layout);
    bool mapped = n >= MAPPED_BYTES;
    return model_of(layout, mapped ? tiered_map(n) : small_buffer(n), mapped, err);
}

static void clear_gaps(struct tiered_model *model)
{
    const struct tiered_layout *layout = model->layout;
    uint64_t at = 0;
    for (uint32_t i = 0; i <= layout->n_blocks; i++) {
        bool last = i == layout->n_blocks;
        uint64_t next = last ? buffer_bytes(layout) : layout->blocks[i].offset_bytes;
        memset(model->data + at, 0, (size_t)(next - at));
        at = last ? next : next + layout->blocks[i].size_bytes;
    }
}

struct tiered_model *tiered_model_create_raw(struct tiered_layout *layout,
                                             struct tiered_error *err)
{
    size_t n = buffer_bytes(layout);
    bool mapped = n >= MAPPED_BYTES;
    struct tiered_model *model =
        model_of(layout, mapped ? tiered_map_any(n) : small_buffer(n), mapped, err);
    if (model && mapped) {
        clear_gaps(model);
    }
    return model;
}

struct tiered_model *tiered_model_adopt(struct tiered_layout *layout, uint8_t *data,
                                        struct tiered_error *err)
{
    return model_of(layout, data, true, err);
}

struct tiered_model *tiered_model_ref(struct tiered_model *model)
{
    if (model) {
        atomic_fetch_add_explicit(&model->refs, 1, memory_order_relaxed);
    }
    return model;
}

void tiered_model_unref(struct tiered_model *model)
{
    if (!model ||
        atomic_fetch_sub_explicit(&model->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (model->mapped) {
        tiered_unmap(model->data, buffer_bytes(model->layout));
    } else {
        free(model->data);
    }
    tiered_layout_unref(model->layout);
    free(model);
}

int tiered_model_seal(struct tiered_model *model, struct tiered_error *err)
{
    const struct tiered_layout *layout = model->layout;
    struct tiered_hash *hash = tiered_hash_create();
    if (!hash) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    tiered_hash_update(hash, layout->digest.bytes, sizeof(layout->digest.bytes));
    /* The blocks are the tensors' bytes in order, without what lies between. */
    for (uint32_t i = 0; i < layout->n_blocks; i++) {
        const struct tiered_block *block = &layout->blocks[i];
        tiered_hash_update(hash, model->data + block->offset_bytes,
                           (size_t)block->size_bytes);
    }
    tiered_hash_final(hash, &model->content);
    model->digest = model->content;
    tiered_hash_destroy(hash);
    return 0;
}
