/* SPDX-License-Identifier: Apache-2.0 */
/* The aggregator's side of the post phase: from the shares of the survivors to the
   masks that do not cancel out, and from the sum to the mean. */
#include <stdlib.h>

#include "inside.h"

/* Of whose secrets this peer holds shares: its neighbours that dealt any, and itself.
   Calls back in ascending order. */
struct owners {
    const struct ss_peer *holder;
    uint32_t self, at;
    bool own;
};

static bool next_owner(const struct ss_aggregator *a, struct owners *o, uint32_t *ret)
{
    const struct ss_peer *p = o->holder;
    while (o->at < p->n_neighbours && !a->peers[p->neighbours[o->at]].shared) {
        o->at++;
    }
    bool last = o->at == p->n_neighbours;
    if (!o->own && (last || p->neighbours[o->at] > o->self)) {
        o->own = true;
        *ret = o->self;
        return true;
    }
    if (last) {
        return false;
    }
    *ret = p->neighbours[o->at++];
    return true;
}

/* One share is what its owner committed to, and of the kind that may be told. */
static int check_share(const struct ss_aggregator *a, uint32_t holder, uint32_t owner,
                       const uint8_t reveal[SS_REVEAL_BYTES], struct tiered_error *err)
{
    const struct ss_peer *of = &a->peers[owner];
    enum ss_kind kind = of->survived ? SS_SEED : SS_SECRET;
    uint8_t digest[SS_KEY_BYTES];
    char name[32];
    if (reveal[0] != (uint8_t)kind) {
        return tiered_fail(err, TIERED_EPEER, "its share of %s is of the wrong kind",
                           ss_name(a, owner, name));
    }
    if (ss_commit(kind, a->session, owner, holder, reveal + 1, digest, err) < 0) {
        return -1;
    }
    size_t rank = ss_rank(of->neighbours, of->n_neighbours, owner, holder);
    const uint8_t *commit =
        of->commits + rank * SS_COMMIT_BYTES + (kind == SS_SEED ? 0 : SS_KEY_BYTES);
    return memcmp(digest, commit, sizeof(digest)) == 0
               ? 0
               : tiered_fail(err, TIERED_EPEER,
                             "its share of %s is not the one that was dealt",
                             ss_name(a, owner, name));
}

int ss_take_reveal(struct ss_aggregator *a, uint32_t member, struct ss_reader *r,
                   struct tiered_error *err)
{
    struct ss_peer *peer = &a->peers[member];
    struct owners owners = {.holder = peer, .self = member};
    uint32_t owner;
    uint8_t *reveals = calloc((size_t)peer->n_neighbours + 1, SS_REVEAL_BYTES);
    int result =
        reveals ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory for shares");
    while (result == 0 && next_owner(a, &owners, &owner)) {
        const uint8_t *reveal = ss_read(r, SS_REVEAL_BYTES);
        uint32_t rank = ss_rank(peer->neighbours, peer->n_neighbours, member, owner);
        if (!reveal) {
            result = ss_fail_short(err);
            break;
        }
        result = check_share(a, member, owner, reveal, err);
        if (result == 0) {
            memcpy(reveals + (size_t)rank * SS_REVEAL_BYTES, reveal, SS_REVEAL_BYTES);
        }
    }
    if (result < 0 || ss_read_end(r, err) < 0) {
        free(reveals);
        return -1;
    }
    peer->reveals = reveals;
    return 0;
}

/* ---- secrets from shares ---- */

struct gathered {
    uint32_t n;
    uint8_t x[SS_MOST_HOLDERS];
    uint8_t shares[SS_MOST_HOLDERS][SS_SECRET_BYTES];
};

static void gather_one(const struct ss_aggregator *a, uint32_t owner, uint32_t holder,
                       struct gathered *g)
{
    const struct ss_peer *of = &a->peers[owner], *by = &a->peers[holder];
    if (!by->revealed) {
        return;
    }
    size_t rank = ss_rank(by->neighbours, by->n_neighbours, holder, owner);
    g->x[g->n] =
        (uint8_t)(ss_rank(of->neighbours, of->n_neighbours, owner, holder) + 1);
    memcpy(g->shares[g->n], by->reveals + rank * SS_REVEAL_BYTES + 1, SS_SECRET_BYTES);
    g->n++;
}

/* What `owner` hid: its b if it survived, its s if not. */
static int recover(const struct ss_aggregator *a, uint32_t owner,
                   uint8_t out[SS_SECRET_BYTES], struct tiered_error *err)
{
    const struct ss_peer *of = &a->peers[owner];
    uint32_t needed = ss_threshold(&a->rules, of->n_neighbours + 1);
    struct gathered g = {0};
    char name[32];
    gather_one(a, owner, owner, &g);
    for (uint32_t i = 0; i < of->n_neighbours; i++) {
        gather_one(a, owner, of->neighbours[i], &g);
    }
    if (g.n < needed) {
        return tiered_fail(err, TIERED_ERANGE,
                           "%u shares of %s are told; %u are needed: nothing was "
                           "summed",
                           g.n, ss_name(a, owner, name), needed);
    }
    ss_combine(g.x, (const uint8_t(*)[SS_SECRET_BYTES])g.shares, needed, out);
    ss_wipe(&g, sizeof(g));
    return 0;
}

/* A dropout's masks with the survivors among its neighbours are in their updates. */
static int unmask_dropout(struct ss_aggregator *a, uint32_t owner,
                          struct tiered_error *err)
{
    const struct ss_peer *of = &a->peers[owner];
    uint8_t secret[SS_SECRET_BYTES], public[SS_KEY_BYTES];
    char name[32];
    int result =
        recover(a, owner, secret, err) < 0 || ss_public_key(secret, public, err) < 0
            ? -1
            : 0;
    if (result == 0 && memcmp(public, of->public_s, sizeof(public)) != 0) {
        result =
            tiered_fail(err, TIERED_EPEER, "%s dealt shares that are not of its key",
                        ss_name(a, owner, name));
    }
    for (uint32_t i = 0; result == 0 && i < of->n_neighbours; i++) {
        uint32_t with = of->neighbours[i];
        if (!a->peers[with].survived) {
            continue;
        }
        const struct ss_use use = {"mask", a->session, owner < with ? owner : with,
                                   owner < with ? with : owner};
        struct ss_mask *mask = &a->masks[a->n_masks++];
        mask->sign = with < owner ? -1 : 1;
        result = ss_agree(secret, a->peers[with].public_s, &use, mask->key, err);
    }
    ss_wipe(secret, sizeof(secret));
    return result;
}

static size_t count_masks(const struct ss_aggregator *a)
{
    size_t n = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        const struct ss_peer *p = &a->peers[i];
        n += p->survived ? 1 : p->shared ? p->n_neighbours : 0;
    }
    return n;
}

int ss_reconstruct(struct ss_aggregator *a, struct tiered_error *err)
{
    a->masks = calloc(count_masks(a) + 1, sizeof(*a->masks));
    if (!a->masks) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for masks");
    }
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < a->n; i++) {
        if (a->peers[i].survived) {
            struct ss_mask *mask = &a->masks[a->n_masks++];
            mask->sign = -1;
            result = recover(a, i, mask->key, err);
        } else if (a->peers[i].shared) {
            result = unmask_dropout(a, i, err);
        }
    }
    a->unmaskable = result == 0;
    return result;
}

/* ---- from the sum to the mean ---- */

static int take_out(const struct ss_aggregator *a, enum ss_region region,
                    uint32_t word_bytes, uint64_t first, void *words, size_t n,
                    struct tiered_error *err)
{
    struct ss_stream *stream = ss_stream_create();
    int result = stream ? 0 : tiered_fail(err, TIERED_ENOMEM, "out of memory");
    for (size_t i = 0; result == 0 && i < a->n_masks; i++) {
        const struct ss_mask *mask = &a->masks[i];
        result = ss_stream_begin(stream, mask->key, (uint8_t)region, first * word_bytes,
                                 err) < 0
                     ? -1
                     : ss_ring_mask(word_bytes, words, n, mask->sign, stream, err);
    }
    ss_stream_destroy(stream);
    return result;
}

int ss_aggregator_sums(struct ss_aggregator *a, const uint8_t tail[TIERED_GROUP_TAIL],
                       struct tiered_group_weight *ret, struct tiered_error *err)
{
    uint64_t words[2];
    if (!a->unmaskable) {
        return tiered_fail(err, TIERED_ESTATE, "the post phase is not over");
    }
    memcpy(words, tail, sizeof(words));
    if (take_out(a, SS_TAIL, sizeof(*words), 0, words, 2, err) < 0) {
        return -1;
    }
    if (words[0] > a->n_survivors * a->rules.ring.max_weight ||
        words[1] > a->n_survivors * SS_MOST_WORTH) {
        a->unmaskable = false;
        return tiered_fail(err, TIERED_EPEER,
                           "the sum of the weights cannot be: an update was not masked "
                           "as it should");
    }
    *ret = (struct tiered_group_weight){words[0], words[1]};
    a->total_weight = words[0];
    return 0;
}

int ss_aggregator_unmask(struct ss_aggregator *a, uint64_t first, size_t n, void *words,
                         double *out, struct tiered_error *err)
{
    const struct ss_ring *ring = &a->rules.ring;
    if (!a->unmaskable || a->total_weight == 0 || first > a->n_values ||
        n > a->n_values - first) {
        return tiered_fail(err, TIERED_ESTATE, "there is no such sum");
    }
    if (take_out(a, SS_VALUES, ring->word_bytes, first, words, n, err) < 0) {
        return -1;
    }
    ss_ring_decode(ring, words, n, a->total_weight, out);
    return 0;
}
