/* SPDX-License-Identifier: Apache-2.0 */
/* A member's side: it trusts the aggregator to pass messages on, and with nothing else.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "inside.h"

/* Forget an attempt. */
static void clear(struct ss_member *m)
{
    if (m->neighbours) {
        ss_wipe(m->neighbours, m->n_neighbours * sizeof(*m->neighbours));
    }
    if (m->last_out) {
        ss_wipe(m->last_out, m->last_size);
    }
    free(m->neighbours);
    free(m->advertised);
    free(m->shared);
    free(m->last_out);
    struct ss_member fresh = {
        .host = m->host, .n_values = m->n_values, .spent = m->spent, .rules = m->rules};
    ss_wipe(m, sizeof(*m));
    *m = fresh;
}

void ss_member_finish(struct ss_member *m)
{
    clear(m);
    *m = (struct ss_member){0};
}

int ss_member_begin(struct ss_member *m, const struct ss_rules *rules,
                    const struct tiered_group_round *round, struct tiered_error *err)
{
    (void)err;
    clear(m);
    m->host = round->host;
    m->n_values = 0;
    m->spent = round->spent;
    m->rules = ss_round_rules(rules, round);
    return 0;
}

static void write_header(const struct ss_member *m, struct ss_writer *w, uint32_t step)
{
    const struct ss_header header = {m->self, m->session};
    ss_write_header(w, step, true, &header);
}

/* ---- 1: hello -> keys ---- */

struct hello {
    struct ss_header header;
    uint32_t n;
    uint64_t n_values;
    struct ss_rules rules;
};

static int check_rules(const struct ss_member *m, struct ss_reader *r,
                       uint64_t *ret_n_values, struct tiered_error *err)
{
    const struct ss_rules *ours = &m->rules;
    uint64_t n_values, threshold, clip, max_weight, our_threshold, our_clip;
    uint32_t min_group, neighbours, word_bytes;
    if (!ss_read_u64(r, &n_values) || !ss_read_u64(r, &threshold) ||
        !ss_read_u64(r, &clip) || !ss_read_u64(r, &max_weight) ||
        !ss_read_u32(r, &min_group) || !ss_read_u32(r, &neighbours) ||
        !ss_read_u32(r, &word_bytes)) {
        return ss_fail_short(err);
    }
    memcpy(&our_threshold, &ours->threshold, sizeof(our_threshold));
    memcpy(&our_clip, &ours->ring.clip, sizeof(our_clip));
    if (threshold != our_threshold || clip != our_clip ||
        max_weight != ours->ring.max_weight || min_group != ours->min_group ||
        neighbours != ours->neighbours || word_bytes != ours->ring.word_bytes) {
        return tiered_fail(err, TIERED_EPEER,
                           "the aggregator's options of secure-sum are not this "
                           "node's");
    }
    *ret_n_values = n_values;
    return 0;
}

static int read_hello(const struct ss_member *m, struct ss_reader *r, struct hello *ret,
                      struct tiered_error *err)
{
    ret->rules = m->rules;
    if (ss_read_header(r, SS_HELLO, false, &ret->header, err) < 0) {
        return -1;
    }
    if (!ss_read_u32(r, &ret->n)) {
        return ss_fail_short(err);
    }
    if (check_rules(m, r, &ret->n_values, err) < 0 || ss_read_end(r, err) < 0 ||
        ss_check_group(&ret->rules, ret->n, err) < 0) {
        return -1;
    }
    return ret->header.member < ret->n
               ? 0
               : tiered_fail(err, TIERED_EPEER, "member %u of %u", ret->header.member,
                             ret->n);
}

static int make_keys(struct ss_member *m, struct tiered_error *err)
{
    uint8_t *secrets[] = {m->secret_c, m->secret_s, m->seed};
    for (int i = 0; i < 3; i++) {
        if (m->host->secret(m->host, secrets[i], SS_KEY_BYTES, err) < 0) {
            return -1;
        }
    }
    m->host->seed(m->host, "secure-sum rounding", m->coins);
    return ss_public_key(m->secret_c, m->public_c, err) < 0
               ? -1
               : ss_public_key(m->secret_s, m->public_s, err);
}

static int take_hello(struct ss_member *m, struct ss_reader *r, struct ss_writer *w,
                      struct tiered_error *err)
{
    struct hello hello;
    if (m->spent) {
        return tiered_fail(err, TIERED_ESTATE,
                           "shares of this round were revealed: no other attempt at it "
                           "is joined");
    }
    if (read_hello(m, r, &hello, err) < 0) {
        return -1;
    }
    clear(m);
    m->rules = hello.rules;
    m->n = hello.n;
    m->n_values = hello.n_values;
    m->self = hello.header.member;
    memcpy(m->session, hello.header.session, SS_SESSION_BYTES);
    if (make_keys(m, err) < 0) {
        return -1;
    }
    write_header(m, w, SS_HELLO);
    ss_write(w, m->public_c, SS_KEY_BYTES);
    ss_write(w, m->public_s, SS_KEY_BYTES);
    return 0;
}

/* ---- 2: roster -> shares ---- */

/* A set that this node is in, large enough, and within `outer` (NULL: anything). */
static int read_members(const struct ss_member *m, struct ss_reader *r,
                        const uint8_t *outer, const uint8_t **ret,
                        struct tiered_error *err)
{
    const uint8_t *set = ss_read_set(r, m->n);
    uint32_t needed = ss_needed(&m->rules, m->n);
    if (!set) {
        return tiered_fail(err, TIERED_EPEER, "a set of members is malformed");
    }
    for (uint32_t i = 0; outer && i < m->n; i++) {
        if (ss_set_has(set, i) && !ss_set_has(outer, i)) {
            return tiered_fail(err, TIERED_EPEER,
                               "member %u is back, though it was out already", i);
        }
    }
    if (!ss_set_has(set, m->self)) {
        return tiered_fail(err, TIERED_EPEER, "this node is not in the group any more");
    }
    if (ss_set_count(set, m->n) < needed) {
        return tiered_fail(err, TIERED_EPEER,
                           "%u of %u members are left; %u are needed",
                           ss_set_count(set, m->n), m->n, needed);
    }
    *ret = set;
    return 0;
}

static int find_neighbours(struct ss_member *m, struct tiered_error *err)
{
    uint32_t count = 0, place = 0, *circle;
    uint32_t *members = calloc(m->n, sizeof(*members));
    uint32_t *found = calloc(SS_MOST_HOLDERS, sizeof(*found));
    m->neighbours = calloc(SS_MOST_HOLDERS, sizeof(*m->neighbours));
    int result = members && found && m->neighbours
                     ? 0
                     : tiered_fail(err, TIERED_ENOMEM, "out of memory");
    for (uint32_t i = 0; result == 0 && i < m->n; i++) {
        if (ss_set_has(m->advertised, i)) {
            members[count++] = i;
        }
    }
    if (result == 0 &&
        (result = ss_circle(m->session, members, count, &circle, err)) == 0) {
        while (circle[place] != m->self) {
            place++;
        }
        uint32_t degree = ss_degree(m->n, m->rules.neighbours);
        m->n_neighbours = ss_neighbours(circle, count, place, degree, found);
        for (uint32_t i = 0; i < m->n_neighbours; i++) {
            m->neighbours[i].member = found[i];
        }
        free(circle);
    }
    free(found);
    free(members);
    return result;
}

static int read_roster(struct ss_member *m, struct ss_reader *r,
                       struct tiered_error *err)
{
    const uint8_t *set;
    if (read_members(m, r, NULL, &set, err) < 0) {
        return -1;
    }
    free(m->advertised);
    free(m->neighbours);
    m->neighbours = NULL;
    m->n_neighbours = 0;
    m->advertised = malloc(ss_set_bytes(m->n));
    if (!m->advertised) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(m->advertised, set, ss_set_bytes(m->n));
    if (find_neighbours(m, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < m->n_neighbours; i++) {
        const uint8_t *keys = ss_read(r, (size_t)2 * SS_KEY_BYTES);
        if (!keys) {
            return ss_fail_short(err);
        }
        memcpy(m->neighbours[i].public_c, keys, SS_KEY_BYTES);
        memcpy(m->neighbours[i].public_s, keys + SS_KEY_BYTES, SS_KEY_BYTES);
    }
    return ss_read_end(r, err);
}

/* The shares of one holder, of b and of s in that order. */
struct dealing {
    uint32_t threshold;
    uint8_t *coefficients; /* of b's polynomial, then of s's */
};

static void deal(const struct ss_member *m, const struct dealing *d, uint32_t rank,
                 uint8_t out[2 * SS_SECRET_BYTES])
{
    uint8_t x = (uint8_t)(rank + 1);
    size_t half = (size_t)(d->threshold - 1) * SS_SECRET_BYTES;
    ss_share(m->seed, d->coefficients, d->threshold, x, out);
    ss_share(m->secret_s, d->coefficients + half, d->threshold, x,
             out + SS_SECRET_BYTES);
}

static int seal_share(const struct ss_member *m, const struct ss_neighbour *to,
                      const uint8_t shares[2 * SS_SECRET_BYTES], struct ss_writer *w,
                      struct tiered_error *err)
{
    const struct ss_use use = {"seal", m->session, m->self, to->member};
    uint8_t key[SS_KEY_BYTES];
    uint8_t sealed[SS_SEALED_BYTES];
    int result = ss_agree(m->secret_c, to->public_c, &use, key, err);
    if (result == 0) {
        result = ss_seal(key, &use, shares, (size_t)2 * SS_SECRET_BYTES, sealed, err);
        ss_write(w, sealed, sizeof(sealed));
    } else {
        tiered_error_prefix(err, "member %u: ", to->member);
    }
    ss_wipe(key, sizeof(key));
    return result;
}

static int write_commits(const struct ss_member *m, uint32_t holder,
                         const uint8_t shares[2 * SS_SECRET_BYTES], uint8_t *out,
                         struct tiered_error *err)
{
    return ss_commit(SS_SEED, m->session, m->self, holder, shares, out, err) < 0
               ? -1
               : ss_commit(SS_SECRET, m->session, m->self, holder,
                           shares + SS_SECRET_BYTES, out + SS_KEY_BYTES, err);
}

/* Holders ascending: the neighbours, and this node in its place among them. */
static int deal_all(struct ss_member *m, const struct dealing *d, uint8_t *commits,
                    struct ss_writer *w, struct tiered_error *err)
{
    uint8_t shares[2 * SS_SECRET_BYTES];
    uint32_t rank = 0;
    bool own = false;
    int result = 0;
    for (uint32_t i = 0; result == 0 && i <= m->n_neighbours; i++) {
        bool last = i == m->n_neighbours;
        if (!own && (last || m->neighbours[i].member > m->self)) {
            deal(m, d, rank, shares);
            memcpy(m->own_share, shares, SS_SECRET_BYTES);
            result = write_commits(m, m->self, shares,
                                   commits + (size_t)rank * SS_COMMIT_BYTES, err);
            own = true;
            rank++;
        }
        if (result == 0 && !last) {
            deal(m, d, rank, shares);
            result = write_commits(m, m->neighbours[i].member, shares,
                                   commits + (size_t)rank * SS_COMMIT_BYTES, err) < 0
                         ? -1
                         : seal_share(m, &m->neighbours[i], shares, w, err);
            rank++;
        }
    }
    ss_wipe(shares, sizeof(shares));
    return result;
}

static int take_roster(struct ss_member *m, struct ss_reader *r, struct ss_writer *w,
                       struct tiered_error *err)
{
    if (read_roster(m, r, err) < 0) {
        return -1;
    }
    uint32_t holders = m->n_neighbours + 1;
    struct dealing d = {.threshold = ss_threshold(&m->rules, holders)};
    size_t size = 2 * (size_t)(d.threshold - 1) * SS_SECRET_BYTES;
    uint8_t *commits = malloc((size_t)holders * SS_COMMIT_BYTES);
    d.coefficients = malloc(size + 1);
    int result = -1;
    if (!commits || !d.coefficients) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
    } else if (m->host->secret(m->host, d.coefficients, size, err) == 0) {
        write_header(m, w, SS_ROSTER);
        result = deal_all(m, &d, commits, w, err);
        ss_write(w, commits, (size_t)holders * SS_COMMIT_BYTES);
    }
    if (d.coefficients) {
        ss_wipe(d.coefficients, size);
    }
    free(d.coefficients);
    free(commits);
    return result;
}

/* ---- 3: delivery -> ready ---- */

static int take_shares(struct ss_member *m, struct ss_neighbour *from,
                       const uint8_t *sealed, struct tiered_error *err)
{
    const struct ss_use use = {"seal", m->session, from->member, m->self};
    uint32_t low = from->member < m->self ? from->member : m->self;
    uint32_t high = from->member < m->self ? m->self : from->member;
    const struct ss_use mask = {"mask", m->session, low, high};
    uint8_t key[SS_KEY_BYTES];
    int result =
        ss_agree(m->secret_c, from->public_c, &use, key, err) < 0 ||
                ss_unseal(key, &use, sealed, (size_t)2 * SS_SECRET_BYTES,
                          (uint8_t *)from->share, err) < 0 ||
                ss_agree(m->secret_s, from->public_s, &mask, from->mask, err) < 0
            ? tiered_error_prefix(err, "member %u: ", from->member)
            : 0;
    ss_wipe(key, sizeof(key));
    from->sharing = result == 0;
    return result;
}

static int take_delivery(struct ss_member *m, struct ss_reader *r, struct ss_writer *w,
                         struct tiered_error *err)
{
    const uint8_t *set;
    uint32_t holders = 1;
    if (read_members(m, r, m->advertised, &set, err) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < m->n_neighbours; i++) {
        struct ss_neighbour *from = &m->neighbours[i];
        if (!ss_set_has(set, from->member)) {
            continue;
        }
        const uint8_t *sealed = ss_read(r, SS_SEALED_BYTES);
        if (!sealed) {
            return ss_fail_short(err);
        }
        if (take_shares(m, from, sealed, err) < 0) {
            return -1;
        }
        holders++;
    }
    uint32_t needed = ss_threshold(&m->rules, m->n_neighbours + 1);
    if (holders < needed) {
        return tiered_fail(err, TIERED_EPEER,
                           "%u of %u neighbours are left; %u are needed", holders - 1,
                           m->n_neighbours, needed - 1);
    }
    assert(m->n > 0); /* the roster said so */
    free(m->shared);
    m->shared = malloc(ss_set_bytes(m->n));
    if (!m->shared) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(m->shared, set, ss_set_bytes(m->n));
    write_header(m, w, SS_DELIVERY);
    return ss_read_end(r, err);
}

/* ---- 4: survivors -> reveal ---- */

static void write_reveal(struct ss_writer *w, enum ss_kind kind, const uint8_t *share)
{
    const uint8_t byte = (uint8_t)kind;
    ss_write(w, &byte, 1);
    ss_write(w, share, SS_SECRET_BYTES);
}

/* Of each member one share and never the other: once this is answered, `spent` and the
   kept answer see to it. */
static int take_survivors(struct ss_member *m, struct ss_reader *r, struct ss_writer *w,
                          struct tiered_error *err)
{
    const uint8_t *set;
    if (!m->opened || m->next != m->n_values) {
        return tiered_fail(err, TIERED_EPEER,
                           "shares are asked for before the masked update is made");
    }
    if (read_members(m, r, m->shared, &set, err) < 0 || ss_read_end(r, err) < 0) {
        return -1;
    }
    write_header(m, w, SS_SURVIVORS);
    bool own = false;
    for (uint32_t i = 0; i <= m->n_neighbours; i++) {
        const struct ss_neighbour *of = &m->neighbours[i];
        bool last = i == m->n_neighbours;
        if (!own && (last || of->member > m->self)) {
            write_reveal(w, SS_SEED, m->own_share);
            own = true;
        }
        if (!last && of->sharing) {
            bool survived = ss_set_has(set, of->member);
            write_reveal(w, survived ? SS_SEED : SS_SECRET, of->share[!survived]);
        }
    }
    return 0;
}

/* ---- any step ---- */

static int take(struct ss_member *m, uint32_t step, struct ss_reader *r,
                struct ss_writer *w, struct tiered_error *err)
{
    struct ss_header header;
    if (step == SS_HELLO) {
        return take_hello(m, r, w, err);
    }
    if (step > SS_SURVIVORS || step != m->step + 1) {
        return tiered_fail(err, TIERED_ESTATE, "step %u does not follow step %u", step,
                           m->step);
    }
    if (ss_read_header(r, step, false, &header, err) < 0) {
        return -1;
    }
    if (memcmp(header.session, m->session, SS_SESSION_BYTES) != 0) {
        return tiered_fail(err, TIERED_EPEER, "a message of another attempt");
    }
    if (header.member != m->self) {
        return tiered_fail(err, TIERED_EPEER, "a message for member %u", header.member);
    }
    return step == SS_ROSTER     ? take_roster(m, r, w, err)
           : step == SS_DELIVERY ? take_delivery(m, r, w, err)
                                 : take_survivors(m, r, w, err);
}

static int remember(struct ss_member *m, uint32_t step, const uint8_t digest[32],
                    const uint8_t *out, size_t size, struct tiered_error *err)
{
    uint8_t *copy = malloc(size + 1);
    if (!copy) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(copy, out, size);
    free(m->last_out);
    m->last_out = copy;
    m->last_size = size;
    memcpy(m->last_in, digest, SS_KEY_BYTES);
    m->step = step;
    m->spent = m->spent || step > SS_PRE_STEPS;
    return 0;
}

int ss_member_step(struct ss_member *m, uint32_t step, const void *in, size_t in_size,
                   void *out, size_t capacity, size_t *ret_size,
                   struct tiered_error *err)
{
    static const uint8_t nothing[SS_SESSION_BYTES];
    const struct ss_use use = {"message", nothing, step, 0};
    struct ss_reader r = {in, in_size};
    struct ss_writer w = {out, 0, capacity};
    uint8_t digest[SS_KEY_BYTES];
    if (ss_digest(&use, in, in_size, digest, err) < 0) {
        return -1;
    }
    if (m->step > 0 && step == m->step &&
        memcmp(digest, m->last_in, SS_KEY_BYTES) == 0) {
        ss_write(&w, m->last_out, m->last_size);
        return ss_write_end(&w, ret_size, err);
    }
    size_t size = 0;
    if (take(m, step, &r, &w, err) < 0 || ss_write_end(&w, &size, err) < 0 ||
        remember(m, step, digest, out, size, err) < 0) {
        return -1;
    }
    *ret_size = size;
    return 0;
}
