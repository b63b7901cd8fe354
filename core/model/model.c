/* SPDX-License-Identifier: Apache-2.0 */
/* Models: one aligned buffer over a layout, and its digest. */
#include "core/model/model.h"

#include <stdatomic.h>
#include <sys/mman.h>

/* From here on a buffer is mapped, so that freeing it gives the memory back. */
#define MAPPED_BYTES (128u << 10)
/* And from here on in large pages, where the machine has them: a model is written in
   one sweep, and a fault for every 4 KiB takes longer than what is written. */
#define LARGE_BYTES (4u << 20)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "models are little endian in memory, as in files");

static size_t buffer_bytes(const struct tiered_layout *layout)
{
    size_t n = (size_t)layout->m.data_bytes;
    return n ? (n + TIERED_ALIGN - 1) / TIERED_ALIGN * TIERED_ALIGN : TIERED_ALIGN;
}

static uint8_t *buffer_create(size_t n, bool mapped)
{
    if (mapped) {
        void *data =
            mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data != MAP_FAILED && n >= LARGE_BYTES) {
            madvise(data, n, MADV_HUGEPAGE); /* best effort */
        }
        return data == MAP_FAILED ? NULL : data;
    }
    void *data = aligned_alloc(TIERED_ALIGN, n);
    return data ? memset(data, 0, n) : NULL;
}

struct tiered_model *tiered_model_create(struct tiered_layout *layout,
                                         struct tiered_error *err)
{
    struct tiered_model *model = calloc(1, sizeof(*model));
    if (!model) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    size_t n = buffer_bytes(layout);
    model->mapped = n >= MAPPED_BYTES;
    model->data = buffer_create(n, model->mapped);
    if (!model->data) {
        free(model);
        tiered_fail(err, TIERED_ENOMEM, "out of memory for a model of %zu bytes", n);
        return NULL;
    }
    model->layout = tiered_layout_ref(layout);
    atomic_init(&model->refs, 1);
    return model;
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
        munmap(model->data, buffer_bytes(model->layout));
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
    tiered_hash_final(hash, &model->digest);
    tiered_hash_destroy(hash);
    return 0;
}
