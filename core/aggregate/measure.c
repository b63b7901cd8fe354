/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensors enter norms and dot products. Running statistics and integers stay out:
   their scale would drown the parameters. A rule may leave out more; a block then is
   measured in part, and the rest of it counts as zeros. */
#include "core/aggregate/internal.h"

#include "core/model/numeric.h"

static bool could_measure(const struct tiered_aggregator_ops *ops,
                          const struct tiered_tensor *tensor)
{
    return (ops->acts_on & TIERED_ROLE_BIT(tensor->role)) &&
           tensor->role != TIERED_BUFFER && tiered_dtype_is_float(tensor->dtype) &&
           tensor->n_elements > 0;
}

int tiered_strategy_measure(struct strategy_work *work, struct tiered_error *err)
{
    const struct tiered_strategy *s = work->strategy;
    const struct tiered_manifest *m = &work->layout->m;
    size_t possible = 0, measured = 0;
    work->measured = calloc(m->n_tensors + 1u, sizeof(work->measured[0]));
    if (!work->measured) {
        return tiered_fail(err, TIERED_ENOMEM, "no memory for %u tensors",
                           m->n_tensors);
    }
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        bool could = could_measure(&s->ops, &m->tensors[i]);
        work->measured[i] = could && (!s->ops.measures ||
                                      s->ops.measures(s->stage.state, &m->tensors[i]));
        possible += could;
        measured += work->measured[i];
    }
    if (possible > 0 && measured == 0) {
        return tiered_fail(err, TIERED_EINVAL,
                           "aggregator '%s' measures none of the model's %u tensors, "
                           "so all updates would look alike",
                           s->stage.loaded->plugin.name, m->n_tensors);
    }
    return 0;
}

/** The tensor of the element `at` of a block; *ret_left: how many of its elements come
    from there on. */
static uint32_t tensor_at(const struct strategy_work *work,
                          const struct tiered_block *block, uint64_t at,
                          uint64_t *ret_left)
{
    const struct tiered_tensor *tensors = work->layout->m.tensors;
    uint32_t tensor = block->first_tensor;
    uint64_t element = block->first_element + at;
    while (element >= tensors[tensor].n_elements) {
        element -= tensors[tensor++].n_elements;
    }
    *ret_left = tensors[tensor].n_elements - element;
    return tensor;
}

bool tiered_strategy_is_measured(const struct strategy_work *work,
                                 const struct tiered_block *block)
{
    uint64_t left;
    for (uint64_t at = 0; at < block->n_elements; at += left) {
        if (work->measured[tensor_at(work, block, at, &left)]) {
            return true;
        }
    }
    return false;
}

void tiered_strategy_mask(const struct strategy_work *work,
                          const struct tiered_block *block, uint64_t at, size_t n,
                          double *values)
{
    if (!work->strategy->ops.measures) {
        return; /* blocks do not mix roles or dtypes */
    }
    for (size_t done = 0; done < n;) {
        uint64_t left;
        uint32_t tensor = tensor_at(work, block, at + done, &left);
        size_t piece = left < n - done ? (size_t)left : n - done;
        if (!work->measured[tensor]) {
            memset(values + done, 0, piece * sizeof(values[0]));
        }
        done += piece;
    }
}
