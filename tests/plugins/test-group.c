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

static uint32_t word_bytes(void *state)
{
    (void)state;
    return 8;
}

static int begin(void *state, const struct tiered_group_round *round,
                 struct tiered_error *err)
{
    (void)state;
    (void)round;
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

static int member_open(void *state, const struct tiered_group_weight *weight,
                       uint64_t n_values, uint8_t open[TIERED_GROUP_OPEN],
                       uint8_t tail[TIERED_GROUP_TAIL], struct tiered_error *err)
{
    (void)state;
    (void)weight;
    (void)n_values;
    (void)open;
    (void)tail;
    return refuse(err);
}

static int mask(void *state, uint64_t first, size_t n, const double *values, void *out,
                uint64_t *ret_clipped, struct tiered_error *err)
{
    (void)state;
    (void)first;
    (void)n;
    (void)values;
    (void)out;
    (void)ret_clipped;
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

static int close_step(void *state, uint32_t step, struct tiered_error *err)
{
    (void)state;
    (void)step;
    return refuse(err);
}

static int check(void *state, uint32_t member, const uint8_t open[TIERED_GROUP_OPEN],
                 struct tiered_error *err)
{
    (void)state;
    (void)member;
    (void)open;
    return refuse(err);
}

static int survivors(void *state, const uint32_t *members, uint32_t n,
                     struct tiered_error *err)
{
    (void)state;
    (void)members;
    (void)n;
    return refuse(err);
}

static int sums(void *state, const uint8_t tail[TIERED_GROUP_TAIL],
                struct tiered_group_weight *ret, struct tiered_error *err)
{
    (void)state;
    (void)tail;
    (void)ret;
    return refuse(err);
}

static int unmask(void *state, uint64_t first, size_t n, void *words, double *out,
                  struct tiered_error *err)
{
    (void)state;
    (void)first;
    (void)n;
    (void)words;
    (void)out;
    return refuse(err);
}

static const struct tiered_group_ops ops = {.size = sizeof(ops),
                                            .pre_steps = 1,
                                            .post_steps = 1,
                                            .init = init,
                                            .destroy = destroy,
                                            .word_bytes = word_bytes,
                                            .member_begin = begin,
                                            .member_step = member_step,
                                            .open = member_open,
                                            .mask = mask,
                                            .aggregator_begin = begin,
                                            .aggregator_step = aggregator_step,
                                            .aggregator_receive = receive,
                                            .aggregator_close = close_step,
                                            .aggregator_check = check,
                                            .aggregator_survivors = survivors,
                                            .sums = sums,
                                            .unmask = unmask};

TIERED_PLUGIN_DEFINE(.kind = TIERED_GROUP, .name = "test-group", .version = "1.0",
                     .summary = "a test", .option_size = sizeof(struct tiered_option),
                     .ops = &ops);
