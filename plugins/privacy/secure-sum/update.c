/* SPDX-License-Identifier: Apache-2.0 */
/* A member's masked update: each value once, in order, under this attempt's masks. */
#include <inttypes.h>

#include "inside.h"

static int add_mask(struct ss_stream *stream, const uint8_t *key, enum ss_region region,
                    uint32_t word_bytes, uint64_t first, void *words, size_t n,
                    int sign, struct tiered_error *err)
{
    return ss_stream_begin(stream, key, (uint8_t)region, first * word_bytes, err) < 0
               ? -1
               : ss_ring_mask(word_bytes, words, n, sign, stream, err);
}

/* Of two neighbours the lower adds what the higher takes away. */
static int add_masks(const struct ss_member *m, struct ss_stream *stream,
                     enum ss_region region, uint32_t word_bytes, uint64_t first,
                     void *words, size_t n, struct tiered_error *err)
{
    int result = add_mask(stream, m->seed, region, word_bytes, first, words, n, 1, err);
    for (uint32_t i = 0; result == 0 && i < m->n_neighbours; i++) {
        const struct ss_neighbour *with = &m->neighbours[i];
        if (with->sharing) {
            result = add_mask(stream, with->mask, region, word_bytes, first, words, n,
                              m->self < with->member ? 1 : -1, err);
        }
    }
    return result;
}

int ss_member_open(struct ss_member *m, const struct tiered_group_weight *weight,
                   uint64_t n_values, uint8_t open[TIERED_GROUP_OPEN],
                   uint8_t tail[TIERED_GROUP_TAIL], struct tiered_error *err)
{
    if (m->step != SS_PRE_STEPS || m->opened) {
        return tiered_fail(err, TIERED_ESTATE,
                           "an update is masked once, after the pre phase");
    }
    if (n_values != m->n_values) {
        return tiered_fail(err, TIERED_ESHAPE,
                           "the aggregator sums updates of %" PRIu64
                           " values; this one has %" PRIu64,
                           m->n_values, n_values);
    }
    if (weight->num_examples > SS_MOST_WORTH) {
        return tiered_fail(err, TIERED_ERANGE,
                           "num_examples is %" PRIu64 "; at most 2^43 can be summed",
                           weight->num_examples);
    }
    uint64_t most = m->rules.ring.max_weight;
    uint64_t w = weight->weight < most ? weight->weight : most;
    uint64_t words[2] = {w, weight->num_examples};
    struct ss_stream *stream = ss_stream_create();
    if (!stream) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    int result = add_masks(m, stream, SS_TAIL, sizeof(*words), 0, words, 2, err);
    ss_stream_destroy(stream);
    if (result == 0) {
        m->weight = w;
        m->opened = true;
        memcpy(open, m->session, SS_SESSION_BYTES);
        memcpy(tail, words, sizeof(words));
    }
    return result;
}

int ss_member_mask(struct ss_member *m, uint64_t first, size_t n, const double *values,
                   void *out, uint64_t *ret_clipped, struct tiered_error *err)
{
    const struct ss_ring *ring = &m->rules.ring;
    if (!m->opened || first != m->next || n > m->n_values - m->next) {
        return tiered_fail(err, TIERED_ESTATE, "an update is masked in order and once");
    }
    struct ss_stream *stream = ss_stream_create();
    if (!stream) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    int result = ss_stream_begin(stream, m->coins, SS_VALUES, first * 4, err) < 0 ||
                         ss_ring_encode(ring, values, n, m->weight, stream, out,
                                        ret_clipped, err) < 0 ||
                         add_masks(m, stream, SS_VALUES, ring->word_bytes, first, out,
                                   n, err) < 0
                     ? -1
                     : 0;
    ss_stream_destroy(stream);
    m->next += result == 0 ? n : 0;
    return result;
}
