/* SPDX-License-Identifier: Apache-2.0 */
/* Between a delta's values and the words of a ring. */
#include <assert.h>

#include "core/pipe/masked.h"

#include "core/model/numeric.h"
#include "tiered/group.h"

static enum tiered_dtype word_dtype(uint32_t word_bytes)
{
    return word_bytes == 4 ? TIERED_U32 : TIERED_U64;
}

static int add_words(const struct tiered_tensor *t, uint32_t word_bytes,
                     struct tiered_layout_builder *b, struct tiered_error *err)
{
    if (tiered_dtype_is_opaque(t->dtype)) {
        return tiered_fail(err, TIERED_ENOTSUP,
                           "tensor '%.100s' is of %s, which a group cannot sum",
                           t->name, tiered_dtype_name(t->dtype));
    }
    return tiered_layout_add(b, t->name, word_dtype(word_bytes), t->role, t->rank,
                             t->shape, err);
}

static struct tiered_layout *make_words(const struct tiered_layout *plain,
                                        uint32_t word_bytes, uint64_t n_extras,
                                        struct tiered_error *err)
{
    const uint64_t tail = TIERED_GROUP_TAIL / sizeof(uint64_t);
    struct tiered_layout_builder *b = tiered_layout_build();
    int result = b ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
    for (uint32_t i = 0; result == 0 && i < plain->m.n_tensors; i++) {
        result = add_words(&plain->m.tensors[i], word_bytes, b, err);
    }
    if (result == 0 && n_extras) {
        result = tiered_layout_add(b, TIERED_MASKED_EXTRAS, word_dtype(word_bytes),
                                   TIERED_PARAMETER, 1, &n_extras, err);
    }
    if (result == 0) { /* a role of its own, so that it has a block of its own */
        result = tiered_layout_add(b, TIERED_MASKED_TAIL, TIERED_U64, TIERED_CONTROL, 1,
                                   &tail, err);
    }
    if (result < 0) {
        tiered_layout_builder_destroy(b);
        return NULL;
    }
    return tiered_layout_seal(b, err);
}

static uint64_t *first_values(const struct tiered_layout *layout, uint64_t *ret_n)
{
    uint64_t *first = malloc((layout->n_blocks + 1u) * sizeof(*first));
    uint64_t n = 0;
    for (uint32_t i = 0; first && i < layout->n_blocks; i++) {
        first[i] = n;
        n += layout->blocks[i].n_elements;
    }
    if (first) {
        first[layout->n_blocks] = n;
    }
    *ret_n = n;
    return first;
}

int tiered_masked_create(struct tiered_layout *plain, uint32_t word_bytes,
                         uint32_t n_extras, struct tiered_masked **ret,
                         struct tiered_error *err)
{
    uint64_t with_tail;
    TIERED_CLEANUP(tiered_masked_destroyp)
    struct tiered_masked *m = calloc(1, sizeof(*m));
    if (!m) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    m->plain = tiered_layout_ref(plain);
    m->word_bytes = word_bytes;
    m->n_extras = n_extras < TIERED_MASKED_MOST ? n_extras : TIERED_MASKED_MOST;
    m->words = make_words(plain, word_bytes, m->n_extras, err);
    if (!m->words) {
        return -1;
    }
    m->plain_first = first_values(m->plain, &m->n_values);
    m->words_first = first_values(m->words, &with_tail);
    if (!m->plain_first || !m->words_first) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    m->n_values += m->n_extras;
    assert(m->words->n_blocks > 0); /* the tail at least */
    m->n_word_blocks = m->words->n_blocks - 1;
    if (m->words_first[m->n_word_blocks] != m->n_values) { /* a control u64 before it */
        return tiered_fail(err, TIERED_ENOTSUP,
                           "a model whose last tensor is a control variate cannot be "
                           "summed in words of 64 bits");
    }
    *ret = TIERED_STEAL(m);
    return 0;
}

void tiered_masked_destroy(struct tiered_masked *m)
{
    if (m) {
        tiered_layout_unref(m->plain);
        tiered_layout_unref(m->words);
        free(m->plain_first);
        free(m->words_first);
        free(m);
    }
}

/* The block that holds this value. */
static uint32_t block_of(const struct tiered_masked *m, uint64_t value)
{
    uint32_t low = 0, high = m->plain->n_blocks;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (m->plain_first[middle] <= value) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* A stretch of values in one block: where it lies, its delta's dtype, how many. */
struct stretch {
    uint64_t offset;
    enum tiered_dtype dtype;
    size_t n;
};

static struct stretch stretch_at(const struct tiered_masked *m, uint64_t first,
                                 size_t most)
{
    uint32_t b = block_of(m, first);
    while (m->plain_first[b + 1] == first) { /* empty blocks */
        b++;
    }
    const struct tiered_block *block = &m->plain->blocks[b];
    uint64_t at = first - m->plain_first[b], left = block->n_elements - at;
    return (struct stretch){block->offset_bytes + at * tiered_dtype_size(block->dtype),
                            tiered_delta_dtype(block->dtype),
                            left < most ? (size_t)left : most};
}

/* How many of the values first.. are the layout's. */
static size_t plain_part(const struct tiered_masked *m, uint64_t first, size_t n)
{
    uint64_t n_plain = m->n_values - m->n_extras;
    uint64_t left = first < n_plain ? n_plain - first : 0;
    return left < n ? (size_t)left : n;
}

void tiered_masked_values(const struct tiered_masked *m,
                          const struct tiered_summand *from, uint64_t first, size_t n,
                          double *out)
{
    size_t done = 0, n_plain = plain_part(m, first, n);
    while (done < n_plain) {
        struct stretch s = stretch_at(m, first + done, n_plain - done);
        tiered_to_f64(s.dtype, from->delta + s.offset, s.n, out + done);
        done += s.n;
    }
    for (; done < n; done++) {
        out[done] = from->extras[first + done - (m->n_values - m->n_extras)];
    }
}

void tiered_masked_store(const struct tiered_masked *m, struct tiered_summand *to,
                         uint64_t first, size_t n, const double *values)
{
    size_t done = 0, n_plain = plain_part(m, first, n);
    while (done < n_plain) {
        struct stretch s = stretch_at(m, first + done, n_plain - done);
        tiered_from_f64(s.dtype, values + done, s.n, to->delta + s.offset);
        done += s.n;
    }
    for (; done < n; done++) {
        to->extras[first + done - (m->n_values - m->n_extras)] = values[done];
    }
}

int tiered_masked_check(const struct tiered_masked *m,
                        const struct tiered_encoded *encoded, struct tiered_error *err)
{
    if (tiered_layout_match(m->words, tiered_encoded_layout(encoded), err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < m->words->n_blocks; i++) {
        size_t size;
        uint32_t crc;
        tiered_encoded_block(encoded, i, &size, &crc);
        if (size != m->words->blocks[i].size_bytes) {
            return tiered_fail(err, TIERED_EPEER,
                               "block %u of a masked update has %zu bytes, not %llu", i,
                               size,
                               (unsigned long long)m->words->blocks[i].size_bytes);
        }
    }
    return 0;
}
