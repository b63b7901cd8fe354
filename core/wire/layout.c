/* SPDX-License-Identifier: Apache-2.0 */
/* A Head's tensors to and from a layout. */
#include "core/wire/wire.h"

/* One allocation: the pointers, then what they point at. Names and shapes stay the
   layout's. */
int tiered_wire_tensors(const struct tiered_layout *layout, Tiered__V1__Tensor ***ret,
                        size_t *ret_n, struct tiered_error *err)
{
    size_t n = layout->m.n_tensors; /* at most TIERED_MAX_TENSORS: no overflow */
    Tiered__V1__Tensor **pointers =
        malloc(n * (sizeof(*pointers) + sizeof(**pointers)) + 1);
    if (!pointers) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    Tiered__V1__Tensor *tensors = (Tiered__V1__Tensor *)(pointers + n);
    for (size_t i = 0; i < n; i++) {
        const struct tiered_tensor *from = &layout->m.tensors[i];
        pointers[i] = &tensors[i];
        tiered__v1__tensor__init(&tensors[i]);
        tensors[i].name = (char *)(uintptr_t)from->name;
        tensors[i].dtype = from->dtype;
        tensors[i].role = from->role;
        tensors[i].n_shape = from->rank;
        tensors[i].shape = (uint64_t *)(uintptr_t)from->shape;
    }
    *ret = pointers;
    *ret_n = n;
    return 0;
}

void tiered_wire_free_tensors(Tiered__V1__Tensor **tensors, size_t n)
{
    (void)n;
    free(tensors);
}

static int add_tensor(struct tiered_layout_builder *b, const Tiered__V1__Tensor *t,
                      struct tiered_error *err)
{
    if (t->dtype >= TIERED_N_DTYPES) {
        return tiered_fail(err, TIERED_EPEER, "tensor '%.100s': unknown dtype %u",
                           t->name, t->dtype);
    }
    if (t->role >= TIERED_N_ROLES) {
        return tiered_fail(err, TIERED_EPEER, "tensor '%.100s': unknown role %u",
                           t->name, t->role);
    }
    if (t->n_shape > TIERED_MAX_RANK) {
        return tiered_fail(err, TIERED_EPEER, "tensor '%.100s': rank %zu is over %d",
                           t->name, t->n_shape, TIERED_MAX_RANK);
    }
    return tiered_layout_add(b, t->name, (enum tiered_dtype)t->dtype,
                             (enum tiered_role)t->role, (uint32_t)t->n_shape, t->shape,
                             err);
}

int tiered_wire_layout(const Tiered__V1__Head *head, struct tiered_layout **ret,
                       struct tiered_error *err)
{
    if (head->n_tensors > TIERED_MAX_TENSORS) {
        return tiered_fail(err, TIERED_EPEER, "a model of %zu tensors; at most %u",
                           head->n_tensors, TIERED_MAX_TENSORS);
    }
    struct tiered_layout_builder *b = tiered_layout_build();
    if (!b) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < head->n_tensors; i++) {
        if (add_tensor(b, head->tensors[i], err) < 0) {
            tiered_layout_builder_destroy(b);
            return -1;
        }
    }
    struct tiered_layout *layout = tiered_layout_seal(b, err);
    if (!layout) {
        return -1;
    }
    *ret = layout;
    return 0;
}
