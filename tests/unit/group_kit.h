/* SPDX-License-Identifier: Apache-2.0 */
/* A group and its aggregator in one process: who answers which step, what was said, and
   the sum. Every message that the aggregator gets is kept: its view. */
#ifndef TIERED_TEST_GROUP_KIT_H
#define TIERED_TEST_GROUP_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "core/options/options.h"
#include "core/plugins/hosting.h"
#include "core/plugins/plugins.h"
#include "plugins/privacy/secure-sum/inside.h"

#define GROUP_MOST  64
#define GROUP_STEPS 5 /* 1..4 */

struct group_message {
    uint8_t *data;
    size_t size;
};

struct group {
    struct tiered_plugins *plugins;
    const struct tiered_group_ops *ops;
    struct tiered_config config;
    struct tiered_hosting hosting[GROUP_MOST + 1]; /* the last one: the aggregator's */
    void *members[GROUP_MOST], *aggregator;
    uint32_t n;
    size_t n_values;
    uint32_t word_bytes, least, aggregator_least;
    struct ss_ring ring; /* of the default options: who has others changes it */
    double *values[GROUP_MOST];
    uint64_t weights[GROUP_MOST], examples[GROUP_MOST];
    uint8_t *masked[GROUP_MOST];
    uint8_t open[GROUP_MOST][TIERED_GROUP_OPEN], tail[GROUP_MOST][TIERED_GROUP_TAIL];
    /* Who goes silent: from this step on; 4 is after the masked update. */
    uint32_t silent_from[GROUP_MOST];
    struct group_message asked[GROUP_STEPS][GROUP_MOST];
    struct group_message view[GROUP_STEPS][GROUP_MOST];
    bool alive[GROUP_MOST];
    struct tiered_error err;
};

/* Values of all sizes inside and a few outside the range, the same for one seed. */
static inline double group_value(uint32_t member, size_t i)
{
    uint32_t h = (uint32_t)(member * 2654435761u + i * 40503u + 12345u);
    h ^= h >> 13;
    h *= 0x5bd1e995u;
    h ^= h >> 15;
    double v = ((double)h / 0x1p31 - 1) * 3;
    return i % 97 == 0 ? v * 10 : v;
}

static inline void group_begin(struct group *g, uint32_t n, size_t n_values,
                               const char *options)
{
    memset(g, 0, sizeof(*g));
    const struct tiered_loaded *loaded;
    g->n = n;
    g->n_values = n_values;
    g->plugins = tiered_plugins_create(NULL, &g->err);
    assert_non_null(g->plugins);
    assert_int_equal(
        tiered_plugins_get(g->plugins, "secure-sum", TIERED_GROUP, &loaded, &g->err),
        0);
    g->ops = loaded->plugin.ops;
    char *json = options ? tiered_options_parse(options, &g->err) : NULL;
    assert_int_equal(
        tiered_config_from_json(&loaded->plugin, json, &g->config, &g->err), 0);
    free(json);
    for (uint32_t i = 0; i <= n; i++) {
        char node[32];
        snprintf(node, sizeof(node), "leaf-%u", i);
        tiered_hosting_init(&g->hosting[i == n ? GROUP_MOST : i], 7, "test", "edge",
                            node, "1");
        void **state = i == n ? &g->aggregator : &g->members[i];
        assert_int_equal(
            g->ops->init(&g->hosting[0].host, g->config.data, state, &g->err), 0);
    }
    g->word_bytes = g->ops->word_bytes(g->aggregator);
    g->ring =
        (struct ss_ring){.word_bytes = g->word_bytes, .clip = 8, .max_weight = 1000};
    for (uint32_t i = 0; i < n; i++) {
        g->values[i] = malloc((n_values + 1) * sizeof(double));
        g->masked[i] = malloc((n_values + 1) * 8);
        g->weights[i] = g->examples[i] = 10 + 17 * i;
        g->silent_from[i] = 99;
        for (size_t k = 0; k < n_values; k++) {
            g->values[i][k] = group_value(i, k);
        }
    }
}

static inline void group_forget(struct group_message *m)
{
    free(m->data);
    *m = (struct group_message){0};
}

static inline void group_finish(struct group *g)
{
    for (uint32_t i = 0; i < g->n; i++) {
        g->ops->destroy(g->members[i]);
        free(g->values[i]);
        free(g->masked[i]);
        for (int s = 0; s < GROUP_STEPS; s++) {
            group_forget(&g->asked[s][i]);
            group_forget(&g->view[s][i]);
        }
    }
    g->ops->destroy(g->aggregator);
    tiered_config_finish(&g->config);
    tiered_plugins_destroy(g->plugins);
}

static inline struct tiered_group_round group_round(struct group *g, uint32_t who)
{
    return (struct tiered_group_round){
        .size = sizeof(struct tiered_group_round),
        .host = &g->hosting[who == g->n ? GROUP_MOST : who].host,
        .n_members = who == g->n ? g->n : 0,
        .n_values = g->n_values,
        .least = who == g->n ? g->aggregator_least : g->least};
}

/* The aggregator's and the members' begin. */
static inline int group_open(struct group *g)
{
    struct tiered_group_round round = group_round(g, g->n);
    if (g->ops->aggregator_begin(g->aggregator, &round, &g->err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < g->n; i++) {
        struct tiered_group_round own = group_round(g, i);
        g->alive[i] = true;
        assert_int_equal(g->ops->member_begin(g->members[i], &own, &g->err), 0);
    }
    return 0;
}

static inline int group_ask(struct group *g, uint32_t step, uint32_t member,
                            struct group_message *ret)
{
    uint8_t *data = malloc(TIERED_GROUP_MESSAGE_MAX);
    size_t size = 0;
    int result = g->ops->aggregator_step(g->aggregator, step, member, data,
                                         TIERED_GROUP_MESSAGE_MAX, &size, &g->err);
    group_forget(ret);
    *ret = (struct group_message){realloc(data, size + 1), size};
    return result;
}

static inline int group_answer(struct group *g, uint32_t step, uint32_t member,
                               const struct group_message *in,
                               struct group_message *ret)
{
    uint8_t *data = malloc(TIERED_GROUP_MESSAGE_MAX);
    size_t size = 0;
    int result = g->ops->member_step(g->members[member], step, in->data, in->size, data,
                                     TIERED_GROUP_MESSAGE_MAX, &size, &g->err);
    group_forget(ret);
    *ret = (struct group_message){realloc(data, size + 1), size};
    return result;
}

static inline int group_tell(struct group *g, uint32_t step, uint32_t member,
                             const struct group_message *m)
{
    return g->ops->aggregator_receive(g->aggregator, step, member, m->data, m->size,
                                      &g->err);
}

/* One step with all who are alive and not silent in it. */
static inline int group_step(struct group *g, uint32_t step)
{
    for (uint32_t i = 0; i < g->n; i++) {
        g->alive[i] = g->alive[i] && step < g->silent_from[i];
        if (!g->alive[i]) {
            continue;
        }
        if (group_ask(g, step, i, &g->asked[step][i]) < 0 ||
            group_answer(g, step, i, &g->asked[step][i], &g->view[step][i]) < 0 ||
            group_tell(g, step, i, &g->view[step][i]) < 0) {
            return -1;
        }
    }
    return g->ops->aggregator_close(g->aggregator, step, &g->err);
}

static inline int group_pre(struct group *g)
{
    return group_step(g, 1) < 0 || group_step(g, 2) < 0 ? -1 : group_step(g, 3);
}

/* In ranges of odd sizes, as blocks are. */
static inline int group_mask(struct group *g, uint32_t member)
{
    const struct tiered_group_weight weight = {g->weights[member], g->examples[member]};
    uint64_t clipped = 0;
    if (g->ops->open(g->members[member], &weight, g->n_values, g->open[member],
                     g->tail[member], &g->err) < 0) {
        return -1;
    }
    for (size_t at = 0; at < g->n_values;) {
        size_t n = 1 + at % 333;
        n = n < g->n_values - at ? n : g->n_values - at;
        if (g->ops->mask(g->members[member], at, n, g->values[member] + at,
                         g->masked[member] + at * g->word_bytes, &clipped,
                         &g->err) < 0) {
            return -1;
        }
        at += n;
    }
    return 0;
}

/* Members alive after the pre phase that send an update: silent from 5 or later, or
   from 4, which is after it. */
static inline uint32_t group_survivors(struct group *g, uint32_t *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->alive[i]) {
            out[n++] = i;
        }
    }
    return n;
}

static inline void group_add(const struct group *g, const uint32_t *who, uint32_t n,
                             uint8_t *words, uint64_t tail[2])
{
    memset(words, 0, g->n_values * g->word_bytes);
    tail[0] = tail[1] = 0;
    for (uint32_t s = 0; s < n; s++) {
        uint64_t own[2];
        memcpy(own, g->tail[who[s]], sizeof(own));
        tail[0] += own[0];
        tail[1] += own[1];
        for (size_t k = 0; k < g->n_values; k++) {
            if (g->word_bytes == 4) {
                ((uint32_t *)words)[k] += ((const uint32_t *)g->masked[who[s]])[k];
            } else {
                ((uint64_t *)words)[k] += ((const uint64_t *)g->masked[who[s]])[k];
            }
        }
    }
}

/* What a member put into the ring, without masks: from the rounding that its seed
   decides. */
static inline void group_plain(struct group *g, uint32_t member, uint8_t *words)
{
    struct ss_ring ring = g->ring;
    uint8_t coins[32];
    uint64_t clipped = 0;
    struct ss_stream *stream = ss_stream_create();
    const struct tiered_host *host = &g->hosting[member].host;
    host->seed(host, "secure-sum rounding", coins);
    assert_int_equal(ss_ring_fit(&ring, g->n, &g->err), 0);
    assert_int_equal(ss_stream_begin(stream, coins, SS_VALUES, 0, &g->err), 0);
    assert_int_equal(ss_ring_encode(&ring, g->values[member], g->n_values,
                                    g->weights[member], stream, words, &clipped,
                                    &g->err),
                     0);
    ss_stream_destroy(stream);
}

/* The whole round; the mean goes to `out`. -1 where it failed. */
static inline int run_round(struct group *g, double *out,
                            struct tiered_group_weight *sums)
{
    uint32_t who[GROUP_MOST];
    uint64_t tail[2];
    if (group_open(g) < 0 || group_pre(g) < 0) {
        return -1;
    }
    uint32_t n = group_survivors(g, who);
    for (uint32_t s = 0; s < n; s++) {
        assert_int_equal(group_mask(g, who[s]), 0);
        assert_int_equal(
            g->ops->aggregator_check(g->aggregator, who[s], g->open[who[s]], &g->err),
            0);
    }
    uint8_t *words = malloc(g->n_values * g->word_bytes + 1);
    group_add(g, who, n, words, tail);
    int result = g->ops->aggregator_survivors(g->aggregator, who, n, &g->err) < 0 ||
                         group_step(g, 4) < 0 ||
                         g->ops->sums(g->aggregator, (uint8_t *)tail, sums, &g->err) < 0
                     ? -1
                     : 0;
    for (size_t at = 0; result == 0 && at < g->n_values;) {
        size_t m = at % 777 + 1;
        m = m < g->n_values - at ? m : g->n_values - at;
        result = g->ops->unmask(g->aggregator, at, m, words + at * g->word_bytes,
                                out + at, &g->err);
        at += m;
    }
    if (result == 0) { /* unmask() leaves the sum of the plain words */
        uint8_t *plain = malloc(g->n_values * 8);
        uint8_t *sum = calloc(g->n_values, 8);
        for (uint32_t s = 0; s < n; s++) {
            group_plain(g, who[s], plain);
            for (size_t k = 0; k < g->n_values; k++) {
                if (g->word_bytes == 4) {
                    ((uint32_t *)sum)[k] += ((uint32_t *)plain)[k];
                } else {
                    ((uint64_t *)sum)[k] += ((uint64_t *)plain)[k];
                }
            }
        }
        assert_memory_equal(sum, words, g->n_values * g->word_bytes);
        free(plain);
        free(sum);
    }
    free(words);
    return result;
}

static inline void expect_mean(struct group *g, const double *got,
                               const struct tiered_group_weight *sums, double tolerance)
{
    uint64_t weight = 0, examples = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->silent_from[i] >= 4) {
            weight += g->weights[i] < 1000 ? g->weights[i] : 1000;
            examples += g->examples[i];
        }
    }
    assert_int_equal(sums->weight, weight);
    assert_int_equal(sums->num_examples, examples);
    for (size_t k = 0; k < g->n_values; k++) {
        double want = 0;
        for (uint32_t i = 0; i < g->n; i++) {
            if (g->silent_from[i] >= 4) {
                uint64_t w = g->weights[i] < 1000 ? g->weights[i] : 1000;
                want += (double)w * fmax(-8, fmin(8, g->values[i][k]));
            }
        }
        want /= (double)weight;
        if (fabs(want - got[k]) > tolerance) {
            fail_msg("value %zu is %.12g, not %.12g", k, got[k], want);
        }
    }
}

static inline void expect_refused(struct group *g, uint32_t step, uint32_t member,
                                  const struct group_message *m, const char *text)
{
    struct group_message answer = {0};
    memset(&g->err, 0, sizeof(g->err));
    assert_int_equal(group_answer(g, step, member, m, &answer), -1);
    if (!strstr(g->err.text, text)) {
        fail_msg("step %u: \"%s\" does not say \"%s\"", step, g->err.text, text);
    }
    group_forget(&answer);
}

static inline struct group_message changed(const struct group_message *m, size_t at,
                                           uint8_t with)
{
    struct group_message copy = {malloc(m->size + 1), m->size};
    memcpy(copy.data, m->data, m->size);
    copy.data[at] ^= with;
    return copy;
}

#endif
