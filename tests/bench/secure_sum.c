/* SPDX-License-Identifier: Apache-2.0 */
/* What secure-sum costs a member and the aggregator: whole rounds without a network,
   each side's processor time and each member's bytes. One JSON object a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/options/options.h"
#include "core/plugins/hosting.h"
#include "core/plugins/plugins.h"
#include "tiered/group.h"

#define STRETCH 65536u /* values masked at a time */

struct bench {
    const struct tiered_group_ops *ops;
    struct tiered_hosting hosting;
    void *aggregator, **members;
    uint32_t n, n_dropped;
    uint64_t n_values;
    uint32_t *sum;
    uint64_t tail[2];
    double client, server; /* seconds, all members together */
    uint64_t sent, received;
    struct tiered_error err;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(const struct bench *b, int result)
{
    if (result < 0) {
        fprintf(stderr, "secure_sum: %s\n", b->err.text);
        exit(1);
    }
}

static double value_of(uint32_t member, uint64_t i)
{
    return (double)((member * 131u + (uint32_t)i * 7919u) % 2001u) / 1000.0 - 1.0;
}

static void step(struct bench *b, uint32_t number, uint32_t n)
{
    uint8_t *in = malloc(TIERED_GROUP_MESSAGE_MAX);
    uint8_t *out = malloc(TIERED_GROUP_MESSAGE_MAX);
    double begun = now();
    for (uint32_t i = 0; i < n; i++) {
        size_t asked = 0, answered = 0;
        must(b, b->ops->aggregator_step(b->aggregator, number, i, in,
                                        TIERED_GROUP_MESSAGE_MAX, &asked, &b->err));
        double turn = now();
        b->server += turn - begun;
        must(b, b->ops->member_step(b->members[i], number, in, asked, out,
                                    TIERED_GROUP_MESSAGE_MAX, &answered, &b->err));
        begun = now();
        b->client += begun - turn;
        must(b, b->ops->aggregator_receive(b->aggregator, number, i, out, answered,
                                           &b->err));
        b->received += asked;
        b->sent += answered;
    }
    must(b, b->ops->aggregator_close(b->aggregator, number, &b->err));
    b->server += now() - begun;
    free(in);
    free(out);
}

static void add(struct bench *b, uint32_t member)
{
    const struct tiered_group_weight one = {1, 100};
    double *values = malloc(STRETCH * sizeof(double));
    uint32_t *words = malloc(STRETCH * sizeof(uint32_t));
    uint8_t open[TIERED_GROUP_OPEN];
    uint64_t tail[2], clipped = 0;
    double begun = now();
    must(b, b->ops->open(b->members[member], &one, b->n_values, open, (uint8_t *)tail,
                         &b->err));
    b->client += now() - begun;
    b->tail[0] += tail[0];
    b->tail[1] += tail[1];
    for (uint64_t at = 0; at < b->n_values; at += STRETCH) {
        uint64_t left = b->n_values - at;
        size_t n = left < STRETCH ? (size_t)left : STRETCH;
        for (size_t i = 0; i < n; i++) {
            values[i] = value_of(member, at + i);
        }
        begun = now();
        must(b,
             b->ops->mask(b->members[member], at, n, values, words, &clipped, &b->err));
        double done = now();
        b->client += done - begun;
        for (size_t i = 0; i < n; i++) {
            b->sum[at + i] += words[i];
        }
        b->server += now() - done;
    }
    b->sent += b->n_values * sizeof(uint32_t) + TIERED_GROUP_OPEN + TIERED_GROUP_TAIL;
    free(values);
    free(words);
}

/* The mean is right, within a step. */
static void check(const struct bench *b, uint64_t first, size_t n, const double *mean)
{
    uint32_t survivors = b->n - b->n_dropped;
    for (size_t i = 0; i < n; i += 997) {
        double want = 0;
        for (uint32_t m = 0; m < survivors; m++) {
            want += value_of(m, first + i);
        }
        want /= survivors;
        if (mean[i] - want > 0.01 || want - mean[i] > 0.01) {
            fprintf(stderr, "secure_sum: value %zu is %g, not %g\n", i, mean[i], want);
            exit(1);
        }
    }
}

static void finish(struct bench *b)
{
    uint32_t survivors = b->n - b->n_dropped;
    uint32_t *who = malloc(survivors * sizeof(*who));
    double *mean = malloc(STRETCH * sizeof(double));
    struct tiered_group_weight sums;
    for (uint32_t i = 0; i < survivors; i++) {
        who[i] = i;
    }
    must(b, b->ops->aggregator_survivors(b->aggregator, who, survivors, &b->err));
    step(b, 4, survivors);
    double begun = now();
    must(b, b->ops->sums(b->aggregator, (uint8_t *)b->tail, &sums, &b->err));
    for (uint64_t at = 0; at < b->n_values; at += STRETCH) {
        uint64_t left = b->n_values - at;
        size_t n = left < STRETCH ? (size_t)left : STRETCH;
        must(b, b->ops->unmask(b->aggregator, at, n, b->sum + at, mean, &b->err));
        b->server += now() - begun;
        check(b, at, n, mean);
        begun = now();
    }
    free(who);
    free(mean);
}

static void run(struct bench *b)
{
    struct tiered_group_round round = {.size = sizeof(round),
                                       .host = &b->hosting.host,
                                       .n_members = b->n,
                                       .n_values = b->n_values};
    must(b, b->ops->aggregator_begin(b->aggregator, &round, &b->err));
    for (uint32_t i = 0; i < b->n; i++) {
        must(b, b->ops->member_begin(b->members[i], &round, &b->err));
    }
    for (uint32_t number = 1; number <= b->ops->pre_steps; number++) {
        step(b, number, b->n);
    }
    for (uint32_t i = 0; i < b->n - b->n_dropped; i++) {
        add(b, i);
    }
    finish(b);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s MEMBERS NEIGHBOURS DROPPED VALUES\n", argv[0]);
        return 2;
    }
    struct bench b = {.n = (uint32_t)atoi(argv[1]),
                      .n_dropped = (uint32_t)atoi(argv[3]),
                      .n_values = strtoull(argv[4], NULL, 10)};
    char options[96];
    snprintf(options, sizeof(options), "{\"neighbours\": %s, \"max_weight\": 1}",
             argv[2]);
    const struct tiered_loaded *loaded;
    struct tiered_config config;
    struct tiered_plugins *plugins = tiered_plugins_create(NULL, &b.err);
    must(&b, plugins ? 0 : -1);
    must(&b, tiered_plugins_get(plugins, "secure-sum", TIERED_GROUP, &loaded, &b.err));
    must(&b, tiered_config_from_json(&loaded->plugin, options, &config, &b.err));
    b.ops = loaded->plugin.ops;
    tiered_hosting_init(&b.hosting, 1, "bench", "edge", "bench", "1");
    b.members = calloc(b.n, sizeof(*b.members));
    b.sum = calloc(b.n_values, sizeof(*b.sum));
    must(&b, b.ops->init(&b.hosting.host, config.data, &b.aggregator, &b.err));
    for (uint32_t i = 0; i < b.n; i++) {
        must(&b, b.ops->init(&b.hosting.host, config.data, &b.members[i], &b.err));
    }
    run(&b);
    printf("{\"members\": %u, \"dropped\": %u, \"values\": %llu, \"client_s\": %.4f, "
           "\"server_s\": %.3f, \"client_sent\": %.0f, \"client_received\": %.0f}\n",
           b.n, b.n_dropped, (unsigned long long)b.n_values, b.client / b.n, b.server,
           (double)b.sent / (b.n - b.n_dropped), (double)b.received / b.n);
    for (uint32_t i = 0; i < b.n; i++) {
        b.ops->destroy(b.members[i]);
    }
    b.ops->destroy(b.aggregator);
    tiered_config_finish(&config);
    tiered_plugins_destroy(plugins);
    free(b.members);
    free(b.sum);
    return 0;
}
