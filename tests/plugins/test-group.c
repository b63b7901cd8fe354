/* SPDX-License-Identifier: Apache-2.0 */
/* A group protocol that does nothing, for what the topology says of them. */
#include "tiered/group.h"

static int refuse(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ENOTSUP, "a test");
}

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host;
    (void)config;
    (void)err;
    *ret_state = NULL;
    return 0;
}

static void destroy(void *state)
{
    (void)state;
}

static int begin(void *state, const struct tiered_host *host, uint32_t n_members,
                 uint32_t self, struct tiered_error *err)
{
    (void)state;
    (void)host;
    (void)n_members;
    (void)self;
    return refuse(err);
}

static int member_step(void *state, uint32_t step, const void *in, size_t in_size,
                       void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err)
{
    (void)state;
    (void)step;
    (void)in;
    (void)in_size;
    (void)out;
    (void)capacity;
    (void)ret_size;
    return refuse(err);
}

static int receive(void *state, uint32_t step, uint32_t member, const void *in,
                   size_t in_size, struct tiered_error *err)
{
    (void)state;
    (void)step;
    (void)member;
    (void)in;
    (void)in_size;
    return refuse(err);
}

static int aggregator_step(void *state, uint32_t step, uint32_t member, void *out,
                           size_t capacity, size_t *ret_size, struct tiered_error *err)
{
    (void)state;
    (void)step;
    (void)member;
    (void)out;
    (void)capacity;
    (void)ret_size;
    return refuse(err);
}

static int mask(void *state, const struct tiered_block *block, double weight,
                const void *in, size_t in_size, void *out, size_t capacity,
                size_t *ret_size, struct tiered_error *err)
{
    (void)state;
    (void)block;
    (void)weight;
    (void)in;
    (void)in_size;
    (void)out;
    (void)capacity;
    (void)ret_size;
    return refuse(err);
}

static int unmask(void *state, const struct tiered_block *block, const void *sum,
                  size_t sum_size, double *out, struct tiered_error *err)
{
    (void)state;
    (void)block;
    (void)sum;
    (void)sum_size;
    (void)out;
    return refuse(err);
}

static const struct tiered_group_ops ops = {.size = sizeof(ops),
                                            .pre_steps = 1,
                                            .post_steps = 1,
                                            .word_bytes = 8,
                                            .init = init,
                                            .destroy = destroy,
                                            .begin = begin,
                                            .member_step = member_step,
                                            .aggregator_receive = receive,
                                            .aggregator_step = aggregator_step,
                                            .mask = mask,
                                            .unmask = unmask};

TIERED_PLUGIN_DEFINE(.kind = TIERED_GROUP, .name = "test-group", .version = "1.0",
                     .summary = "a test", .option_size = sizeof(struct tiered_option),
                     .ops = &ops);
