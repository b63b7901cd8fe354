/* SPDX-License-Identifier: Apache-2.0 */
/* secure-sum: the aggregator learns the sum of its children's updates and nothing of
   one alone. Source: Bonawitz et al. 2017 (CCS, doi:10.1145/3133956.3133982), with the
   graph of Bell et al. 2020 (CCS, doi:10.1145/3372297.3417885) for large groups. */
#include <math.h>
#include <stdlib.h>

#include "inside.h"

struct config {
    double threshold, clip_range;
    int64_t min_group, max_weight, neighbours;
    int32_t bits; /* of word_bits[] */
};

static const struct tiered_option word_bits[] = {
    {.name = "32", .help = "half the bytes"},
    {.name = "64", .help = "finer steps, larger groups"},
};

static const struct tiered_option options[] = {
    TIERED_OPTION_DOUBLE(struct config, threshold, "0.666667", 0.5, 1,
                         "share of the group that must last to the end; also of the "
                         "neighbours who can open what one of them left",
                         .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_INTEGER(struct config, min_group, "3", 3, SS_MOST_MEMBERS,
                          "fewer updates than these are never summed",
                          .unit = "members"),
    TIERED_OPTION_DOUBLE(struct config, clip_range, "8", 0, 1e6,
                         "values of an update are clipped to +- this",
                         .flags = TIERED_EXCLUSIVE_MIN),
    TIERED_OPTION_CHOICE(struct config, bits, "32", word_bits, "of a word of the ring"),
    TIERED_OPTION_INTEGER(struct config, max_weight, "1000", 1, 1 << 24,
                          "a heavier update counts as this", .unit = "examples"),
    TIERED_OPTION_INTEGER(struct config, neighbours, "0", 0, SS_MOST_HOLDERS - 1,
                          "with how many each member shares masks and secrets; 0: with "
                          "all in groups of up to 64, with 6 log2 n in larger ones",
                          .unit = "members"),
};

static struct ss_rules rules_of(const struct config *c)
{
    return (struct ss_rules){
        .threshold = c->threshold,
        .min_group = (uint32_t)c->min_group,
        .neighbours = (uint32_t)c->neighbours,
        .ring = {.word_bytes = c->bits == 0 ? 4 : 8,
                 .clip = c->clip_range,
                 .max_weight = (uint64_t)c->max_weight},
    };
}

static int terms(const void *config, uint32_t n_members, struct tiered_group_terms *ret,
                 struct tiered_error *err)
{
    struct ss_rules rules = rules_of(config);
    if (ss_check_group(&rules, n_members, err) < 0) {
        return -1;
    }
    ret->needed = ss_needed(&rules, n_members);
    ret->range = rules.ring.clip;
    ret->step = ldexp(1, -rules.ring.exponent);
    return 0;
}

static int init(const struct tiered_host *host, const void *config, void **ret_state,
                struct tiered_error *err)
{
    (void)host;
    struct ss_state *s = calloc(1, sizeof(*s));
    if (!s) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    s->rules = rules_of(config);
    *ret_state = s;
    return 0;
}

static void destroy(void *state)
{
    struct ss_state *s = state;
    ss_member_finish(&s->member);
    ss_aggregator_finish(&s->aggregator);
    free(s);
}

static uint32_t word_bytes(void *state)
{
    const struct ss_state *s = state;
    return s->rules.ring.word_bytes;
}

static int member_begin(void *state, const struct tiered_group_round *round,
                        struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_member_begin(&s->member, &s->rules, round, err);
}

static int member_step(void *state, uint32_t step, const void *in, size_t in_size,
                       void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_member_step(&s->member, step, in, in_size, out, capacity, ret_size, err);
}

static int member_open(void *state, const struct tiered_group_weight *weight,
                       uint64_t n_values, uint8_t open[TIERED_GROUP_OPEN],
                       uint8_t tail[TIERED_GROUP_TAIL], struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_member_open(&s->member, weight, n_values, open, tail, err);
}

static int mask(void *state, uint64_t first, size_t n, const double *values, void *out,
                uint64_t *ret_clipped, struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_member_mask(&s->member, first, n, values, out, ret_clipped, err);
}

static int aggregator_begin(void *state, const struct tiered_group_round *round,
                            struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_begin(&s->aggregator, &s->rules, round, err);
}

static int aggregator_step(void *state, uint32_t step, uint32_t member, void *out,
                           size_t capacity, size_t *ret_size, struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_step(&s->aggregator, step, member, out, capacity, ret_size,
                              err);
}

static int aggregator_receive(void *state, uint32_t step, uint32_t member,
                              const void *in, size_t in_size, struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_receive(&s->aggregator, step, member, in, in_size, err);
}

static int aggregator_close(void *state, uint32_t step, struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_close(&s->aggregator, step, err);
}

static int aggregator_check(void *state, uint32_t member,
                            const uint8_t open[TIERED_GROUP_OPEN],
                            struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_check(&s->aggregator, member, open, err);
}

static int aggregator_survivors(void *state, const uint32_t *members, uint32_t n,
                                struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_survivors(&s->aggregator, members, n, err);
}

static int sums(void *state, const uint8_t tail[TIERED_GROUP_TAIL],
                struct tiered_group_weight *ret, struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_sums(&s->aggregator, tail, ret, err);
}

static int unmask(void *state, uint64_t first, size_t n, void *words, double *out,
                  struct tiered_error *err)
{
    struct ss_state *s = state;
    return ss_aggregator_unmask(&s->aggregator, first, n, words, out, err);
}

static const struct tiered_group_ops ops = {
    .size = sizeof(ops),
    .pre_steps = SS_PRE_STEPS,
    .post_steps = SS_POST_STEPS,
    .init = init,
    .destroy = destroy,
    .word_bytes = word_bytes,
    .member_begin = member_begin,
    .member_step = member_step,
    .open = member_open,
    .mask = mask,
    .aggregator_begin = aggregator_begin,
    .aggregator_step = aggregator_step,
    .aggregator_receive = aggregator_receive,
    .aggregator_close = aggregator_close,
    .aggregator_check = aggregator_check,
    .aggregator_survivors = aggregator_survivors,
    .sums = sums,
    .unmask = unmask,
    .terms = terms,
};

TIERED_PLUGIN_DEFINE(.kind = TIERED_GROUP, .name = "secure-sum", .version = "1.0",
                     .summary = "secure aggregation: a parent learns the sum of its "
                                "children's updates; at an inner tier, of each group",
                     .traits = TIERED_PRIVACY, TIERED_OPTIONS(options, struct config),
                     .ops = &ops);
