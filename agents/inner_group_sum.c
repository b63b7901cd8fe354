/* SPDX-License-Identifier: Apache-2.0 */
/* From the survivors' masked updates to their weighted mean: added block by block in
   the ring, unmasked, rounded to the model's dtypes. */
#include "agents/group_inside.h"

#include <math.h>

struct summing {
    const struct inner_group *group;
    struct inner_update *const *updates;
    uint32_t n;
    struct tiered_summand mean;
};

/* A block that is borrowed may lie at any byte. */
static void add(uint32_t word_bytes, void *sum, const uint8_t *words, size_t n)
{
    if (word_bytes == 4) {
        uint32_t *to = sum, word;
        for (size_t i = 0; i < n; i++) {
            memcpy(&word, words + i * sizeof(word), sizeof(word));
            to[i] += word;
        }
    } else {
        uint64_t *to = sum, word;
        for (size_t i = 0; i < n; i++) {
            memcpy(&word, words + i * sizeof(word), sizeof(word));
            to[i] += word;
        }
    }
}

/* The sum of one block over all updates. `words` is room for one of them. */
static int add_blocks(const struct summing *s, uint32_t index, uint32_t word_bytes,
                      void *sum, void *words, struct tiered_error *err)
{
    const struct tiered_block *block = &s->group->masked->words->blocks[index];
    size_t size = (size_t)block->size_bytes;
    memset(sum, 0, size);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct tiered_encoded *e = s->updates[i]->encoded;
        const void *from = tiered_encoded_borrow(e, index);
        if (!from) {
            if (tiered_encoded_read(e, index, words, size, err) < 0) {
                return -1;
            }
            from = words;
        }
        add(word_bytes, sum, from, size / word_bytes);
    }
    return 0;
}

static int sum_block(void *user, size_t index, unsigned worker,
                     struct tiered_error *err)
{
    struct summing *s = user;
    const struct inner_group *g = s->group;
    const struct tiered_masked *m = g->masked;
    size_t n = (size_t)m->words->blocks[index].n_elements;
    (void)worker;
    TIERED_FREE void *sum = malloc(TIERED_BLOCK_BYTES);
    TIERED_FREE void *words = malloc(TIERED_BLOCK_BYTES);
    TIERED_FREE double *values = malloc((n + 1) * sizeof(*values));
    if (!sum || !words || !values) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a block");
    }
    if (add_blocks(s, (uint32_t)index, m->word_bytes, sum, words, err) < 0 ||
        g->ops->unmask(g->state, m->words_first[index], n, sum, values, err) < 0) {
        return -1;
    }
    tiered_masked_store(m, &s->mean, m->words_first[index], n, values);
    return 0;
}

static int open_sums(const struct summing *s, struct tiered_group_weight *ret,
                     struct tiered_error *err)
{
    const struct inner_group *g = s->group;
    uint64_t tail[TIERED_GROUP_TAIL / sizeof(uint64_t)], words[TIERED_COUNT(tail)];
    if (add_blocks(s, g->masked->n_word_blocks, sizeof(*tail), tail, words, err) < 0 ||
        g->ops->sums(g->state, (const uint8_t *)tail, ret, err) < 0) {
        return -1;
    }
    return ret->weight > 0 ? 0
                           : tiered_fail(err, TIERED_ERANGE,
                                         "the group's updates weigh nothing: no "
                                         "examples");
}

static int step_of(const struct inner_group *g, double *ret, struct tiered_error *err)
{
    struct tiered_group_terms terms = {.size = sizeof(terms)};
    if (TIERED_HAS(g->ops, terms) && g->ops->terms &&
        g->ops->terms(g->config.data, g->n, &terms, err) < 0) {
        return -1;
    }
    *ret = terms.step;
    return 0;
}

int inner_group_sum(struct inner_group *g, struct inner_update *const *updates,
                    uint32_t n, struct inner_sum *ret, struct tiered_error *err)
{
    struct tiered_group_weight sums;
    double step = 0;
    TIERED_CLEANUP(tiered_model_unrefp) struct tiered_model *delta = NULL;
    struct summing s = {.group = g, .updates = updates, .n = n};
    if (!g->running || !g->frozen) {
        return tiered_fail(err, TIERED_ERANGE,
                           "nobody was left to be asked for shares: nothing was "
                           "summed");
    }
    if (g->ops->aggregator_close(g->state, g->ops->pre_steps + g->ops->post_steps,
                                 err) < 0 ||
        open_sums(&s, &sums, err) < 0 || step_of(g, &step, err) < 0 ||
        !(delta = tiered_model_create_raw(g->masked->plain, err))) {
        return tiered_error_prefix(err, "%s: ", g->plugin->name);
    }
    s.mean.delta = delta->data;
    if (tiered_pool_for(g->inner->node->agent->workers, g->masked->n_word_blocks,
                        sum_block, &s, err) < 0) {
        return -1;
    }
    *ret = (struct inner_sum){.mean = TIERED_STEAL(delta),
                              .weight = sums.weight,
                              .num_examples = sums.num_examples,
                              .within = g->masked->n_extras ? s.mean.extras[0] : NAN,
                              .step = step};
    return 0;
}
