/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's rules, the shares they speak of, and who is sampled for a round. */
#include <assert.h>
#include <math.h>

#include "core/round/inside.h"
#include "tiered/random.h"

static bool is_share(double share)
{
    return share > 0 && share <= 1;
}

static int check_phase(const struct tiered_phase_rules *rules, const char *name,
                       const char *node, struct tiered_error *err)
{
    if (rules->steps && !is_share(rules->quorum)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "node '%s': the %s phase's quorum must be in (0, 1]", node,
                           name);
    }
    return 0;
}

int round_check_config(const struct tiered_round_config *config,
                       struct tiered_error *err)
{
    if (!config->node) {
        return tiered_fail(err, TIERED_EINVAL, "rounds need their node's name");
    }
    if (config->n_children == 0 || config->initial_child >= config->n_children) {
        return tiered_fail(
            err, TIERED_EINVAL,
            "node '%s' has %u children: it needs one, and no child %u of them",
            config->node, config->n_children, config->initial_child);
    }
    if (config->rounds_per_parent == 0) {
        return tiered_fail(err, TIERED_ERANGE, "node '%s' must run a round at least",
                           config->node);
    }
    if (!is_share(config->sample) || !is_share(config->quorum)) {
        return tiered_fail(err, TIERED_ERANGE,
                           "node '%s': sample and quorum must be in (0, 1]",
                           config->node);
    }
    if (!memchr(config->stop_metric, 0, sizeof(config->stop_metric))) {
        return tiered_fail(err, TIERED_EINVAL,
                           "node '%s': the stop metric's name is over 31 bytes",
                           config->node);
    }
    return check_phase(&config->pre, "pre", config->node, err) < 0
               ? -1
               : check_phase(&config->post, "post", config->node, err);
}

/* Shares are written in decimals (0.07 of 100 is 7, not 8): a hair is rounding. */
#define HAIR 1e-9

uint32_t round_share_up(double share, uint32_t n)
{
    double wanted = ceil(share * n - HAIR * n);
    return wanted < 1 ? 1 : (uint32_t)wanted;
}

static uint32_t share_near(double share, uint32_t n)
{
    double wanted = floor(share * n + 0.5 + HAIR * n);
    return wanted < 1 ? 1 : (uint32_t)wanted;
}

double tiered_round_expected(double sample, bool poisson, uint32_t n)
{
    return poisson ? sample * n : share_near(sample, n);
}

/* Mark the first `wanted` of a shuffle of all children that are not gone: a child that
   goes moves nobody else out. */
static int pick(struct tiered_round *r, const struct tiered_path *path, uint32_t wanted)
{
    uint32_t n = r->config.n_children;
    assert(n > 0); /* round_check_config() */
    TIERED_FREE uint32_t *order = malloc(n * sizeof(*order));
    if (!order) {
        r->out_of_memory = true;
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    char text[192];
    uint8_t key[32];
    struct tiered_rng rng;
    tiered_path_text(path, text);
    tiered_seed(r->config.seed, "sample", r->config.node, text, key);
    tiered_rng_init(&rng, key);
    tiered_rng_shuffle(&rng, order, n);
    for (uint32_t i = 0; i < n && r->n_sampled < wanted; i++) {
        if (r->children[order[i]].link != LINK_GONE) {
            round_set_member(r, order[i], MEMBER_WAITED);
            r->n_sampled++;
        }
    }
    return 0;
}

/* A draw for each child, gone or not: one that goes changes nobody else's. */
static void draw(struct tiered_round *r, const struct tiered_path *path)
{
    char text[192];
    uint8_t key[32];
    struct tiered_rng rng;
    tiered_path_text(path, text);
    tiered_seed(r->config.seed, "poisson", r->config.node, text, key);
    tiered_rng_init(&rng, key);
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        bool drawn = tiered_rng_uniform(&rng) < r->config.sample;
        if (drawn && r->children[i].link != LINK_GONE) {
            round_set_member(r, i, MEMBER_WAITED);
            r->n_sampled++;
        }
    }
}

int round_sample(struct tiered_round *r, const struct tiered_path *path)
{
    uint32_t alive = r->config.n_children - round_count_link(r, LINK_GONE);
    uint32_t wanted = share_near(r->config.sample, alive);
    r->n_sampled = 0;
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        round_set_member(r, i, MEMBER_NOT);
    }
    if (r->config.poisson) {
        draw(r, path);
        return 0;
    }
    if (wanted < alive) {
        return pick(r, path, wanted);
    }
    for (uint32_t i = 0; i < r->config.n_children; i++) {
        if (r->children[i].link != LINK_GONE) {
            round_set_member(r, i, MEMBER_WAITED);
            r->n_sampled++;
        }
    }
    return 0;
}
