/* SPDX-License-Identifier: Apache-2.0 */
/* The aggregator's side of the pre phase: it passes on what members say to each other,
   and decides who is in. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "inside.h"

const char *ss_name(const struct ss_aggregator *a, uint32_t member, char out[32])
{
    if (a->names) {
        return a->names[member];
    }
    snprintf(out, 32, "member %" PRIu32, member);
    return out;
}

void ss_aggregator_finish(struct ss_aggregator *a)
{
    for (uint32_t i = 0; a->peers && i < a->n; i++) {
        struct ss_peer *p = &a->peers[i];
        free(p->neighbours);
        free(p->sealed);
        free(p->commits);
        free(p->reveals);
    }
    if (a->masks) {
        ss_wipe(a->masks, a->n_masks * sizeof(*a->masks));
    }
    free(a->peers);
    free(a->masks);
    *a = (struct ss_aggregator){0};
}

int ss_aggregator_begin(struct ss_aggregator *a, const struct ss_rules *rules,
                        const struct tiered_group_round *round,
                        struct tiered_error *err)
{
    struct ss_rules fitted = ss_round_rules(rules, round);
    uint8_t session[SS_SESSION_BYTES];
    if (ss_check_group(&fitted, round->n_members, err) < 0 ||
        round->host->secret(round->host, session, sizeof(session), err) < 0) {
        return -1;
    }
    struct ss_peer *peers = calloc(round->n_members, sizeof(*peers));
    if (!peers) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory for a group of %u",
                           round->n_members);
    }
    ss_aggregator_finish(a);
    a->rules = fitted;
    a->n = round->n_members;
    a->n_values = round->n_values;
    a->names = round->names;
    a->peers = peers;
    a->step = SS_HELLO;
    a->running = true;
    memcpy(a->session, session, sizeof(session));
    return 0;
}

/* An attempt that cannot be finished is over. Always -1. */
static int end(struct ss_aggregator *a)
{
    a->running = false;
    return -1;
}

/* ---- messages to a member ---- */

static void write_hello(const struct ss_aggregator *a, struct ss_writer *w)
{
    const struct ss_rules *rules = &a->rules;
    uint64_t threshold, clip;
    memcpy(&threshold, &rules->threshold, sizeof(threshold));
    memcpy(&clip, &rules->ring.clip, sizeof(clip));
    ss_write_u32(w, a->n);
    ss_write_u64(w, a->n_values);
    ss_write_u64(w, threshold);
    ss_write_u64(w, clip);
    ss_write_u64(w, rules->ring.max_weight);
    ss_write_u32(w, rules->min_group);
    ss_write_u32(w, rules->neighbours);
    ss_write_u32(w, rules->ring.word_bytes);
}

static int write_set(const struct ss_aggregator *a, uint32_t step, struct ss_writer *w,
                     struct tiered_error *err)
{
    uint8_t *set = calloc(1, ss_set_bytes(a->n));
    if (!set) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < a->n; i++) {
        const struct ss_peer *p = &a->peers[i];
        if (step == SS_ROSTER     ? p->advertised
            : step == SS_DELIVERY ? p->shared
                                  : p->survived) {
            ss_set_add(set, i);
        }
    }
    ss_write(w, set, ss_set_bytes(a->n));
    free(set);
    return 0;
}

static uint32_t index_of(const struct ss_peer *peer, uint32_t neighbour)
{
    uint32_t i = 0;
    while (i < peer->n_neighbours && peer->neighbours[i] != neighbour) {
        i++;
    }
    return i;
}

static void write_neighbours(const struct ss_aggregator *a, uint32_t step,
                             uint32_t member, struct ss_writer *w)
{
    const struct ss_peer *to = &a->peers[member];
    for (uint32_t i = 0; i < to->n_neighbours; i++) {
        const struct ss_peer *from = &a->peers[to->neighbours[i]];
        if (step == SS_ROSTER) {
            ss_write(w, from->public_c, SS_KEY_BYTES);
            ss_write(w, from->public_s, SS_KEY_BYTES);
        } else if (from->shared) {
            size_t at = (size_t)index_of(from, member) * SS_SEALED_BYTES;
            ss_write(w, from->sealed + at, SS_SEALED_BYTES);
        }
    }
}

static bool takes_part(const struct ss_aggregator *a, uint32_t member, uint32_t step)
{
    const struct ss_peer *p = &a->peers[member];
    return step == SS_HELLO      ? true
           : step == SS_ROSTER   ? p->advertised
           : step == SS_DELIVERY ? p->shared
                                 : p->survived;
}

static int check_turn(const struct ss_aggregator *a, uint32_t step, uint32_t member,
                      struct tiered_error *err)
{
    char name[32];
    if (!a->running || step != a->step) {
        return tiered_fail(err, TIERED_ESTATE, "step %u is not open", step);
    }
    if (member >= a->n || !takes_part(a, member, step)) {
        return tiered_fail(err, TIERED_EPEER, "%s has no part in step %u",
                           member < a->n ? ss_name(a, member, name) : "nobody", step);
    }
    return 0;
}

int ss_aggregator_step(struct ss_aggregator *a, uint32_t step, uint32_t member,
                       void *out, size_t capacity, size_t *ret_size,
                       struct tiered_error *err)
{
    struct ss_writer w = {out, 0, capacity};
    if (check_turn(a, step, member, err) < 0) {
        return -1;
    }
    const struct ss_header header = {member, a->session};
    ss_write_header(&w, step, false, &header);
    if (step == SS_HELLO) {
        write_hello(a, &w);
    } else if (write_set(a, step, &w, err) < 0) {
        return -1;
    } else if (step != SS_SURVIVORS) {
        write_neighbours(a, step, member, &w);
    }
    return ss_write_end(&w, ret_size, err);
}

/* ---- messages from a member ---- */

static int take_keys(struct ss_peer *peer, struct ss_reader *r,
                     struct tiered_error *err)
{
    const uint8_t *keys = ss_read(r, (size_t)2 * SS_KEY_BYTES);
    if (!keys) {
        return ss_fail_short(err);
    }
    if (ss_read_end(r, err) < 0) {
        return -1;
    }
    memcpy(peer->public_c, keys, SS_KEY_BYTES);
    memcpy(peer->public_s, keys + SS_KEY_BYTES, SS_KEY_BYTES);
    return 0;
}

static int take_shares(struct ss_peer *peer, struct ss_reader *r,
                       struct tiered_error *err)
{
    size_t sealed_size = (size_t)peer->n_neighbours * SS_SEALED_BYTES;
    size_t commits_size = ((size_t)peer->n_neighbours + 1) * SS_COMMIT_BYTES;
    const uint8_t *sealed = ss_read(r, sealed_size);
    const uint8_t *commits = sealed ? ss_read(r, commits_size) : NULL;
    if (!commits) {
        return ss_fail_short(err);
    }
    if (ss_read_end(r, err) < 0) {
        return -1;
    }
    uint8_t *kept = malloc(sealed_size + 1), *kept_commits = malloc(commits_size);
    if (!kept || !kept_commits) {
        free(kept);
        free(kept_commits);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    memcpy(kept, sealed, sealed_size);
    memcpy(kept_commits, commits, commits_size);
    peer->sealed = kept;
    peer->commits = kept_commits;
    return 0;
}

static int take_message(struct ss_aggregator *a, uint32_t step, uint32_t member,
                        struct ss_reader *r, struct tiered_error *err)
{
    struct ss_peer *peer = &a->peers[member];
    struct ss_header header;
    if (peer->answered) {
        return tiered_fail(err, TIERED_EPEER, "it has answered step %u already", step);
    }
    if (ss_read_header(r, step, true, &header, err) < 0) {
        return -1;
    }
    if (memcmp(header.session, a->session, SS_SESSION_BYTES) != 0) {
        return tiered_fail(err, TIERED_EPEER, "its message is of another attempt");
    }
    if (header.member != member) {
        return tiered_fail(err, TIERED_EPEER, "its message is another member's");
    }
    switch (step) {
    case SS_HELLO:
        return take_keys(peer, r, err);
    case SS_ROSTER:
        return take_shares(peer, r, err);
    case SS_DELIVERY:
        return ss_read_end(r, err);
    default:
        return ss_take_reveal(a, member, r, err);
    }
}

int ss_aggregator_receive(struct ss_aggregator *a, uint32_t step, uint32_t member,
                          const void *in, size_t in_size, struct tiered_error *err)
{
    struct ss_reader r = {in, in_size};
    char name[32];
    if (check_turn(a, step, member, err) < 0) {
        return -1;
    }
    if (take_message(a, step, member, &r, err) < 0) {
        return tiered_error_prefix(err, "%s: ", ss_name(a, member, name));
    }
    a->peers[member].answered = true;
    return 0;
}

/* ---- closing ---- */

static int draw_graph(struct ss_aggregator *a, struct tiered_error *err)
{
    uint32_t count = 0, *circle;
    assert(a->n > 0); /* begin() took no smaller group than min_group */
    uint32_t *members = calloc(a->n, sizeof(*members));
    if (!members) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < a->n; i++) {
        if (a->peers[i].advertised) {
            members[count++] = i;
        }
    }
    int result = ss_circle(a->session, members, count, &circle, err);
    free(members);
    if (result < 0) {
        return -1;
    }
    uint32_t degree = ss_degree(a->n, a->rules.neighbours);
    for (uint32_t place = 0; result == 0 && place < count; place++) {
        struct ss_peer *p = &a->peers[circle[place]];
        p->neighbours = calloc(SS_MOST_HOLDERS, sizeof(*p->neighbours));
        if (p->neighbours) {
            p->n_neighbours =
                ss_neighbours(circle, count, place, degree, p->neighbours);
        } else {
            result = tiered_fail(err, TIERED_ENOMEM, "out of memory");
        }
    }
    free(circle);
    return result;
}

/* Those who are left in a step must be as many as a sum needs; those who answer the
   last one reveal what the sum has already. */
static uint32_t needed_in(const struct ss_aggregator *a, uint32_t step)
{
    return step == SS_SURVIVORS ? ss_enough(&a->rules, a->n)
                                : ss_needed(&a->rules, a->n);
}

static int fail_too_few(const struct ss_aggregator *a, uint32_t left, uint32_t step,
                        struct tiered_error *err)
{
    uint32_t needed = needed_in(a, step);
    bool counted = needed > ss_enough(&a->rules, a->n);
    return tiered_fail(err, TIERED_ERANGE,
                       "after step %u of secure-sum %u of %u members are left; %u are "
                       "needed (threshold %g, min_group %u%s): nothing was summed",
                       step, left, a->n, needed, a->rules.threshold, a->rules.min_group,
                       counted ? ", and as the noise is counted" : "");
}

int ss_aggregator_close(struct ss_aggregator *a, uint32_t step,
                        struct tiered_error *err)
{
    uint32_t left = 0;
    if (!a->running || step != a->step) {
        return tiered_fail(err, TIERED_ESTATE, "step %u is not open", step);
    }
    for (uint32_t i = 0; i < a->n; i++) {
        struct ss_peer *p = &a->peers[i];
        bool in = p->answered && takes_part(a, i, step);
        left += in;
        p->answered = false;
        if (step == SS_HELLO) {
            p->advertised = in;
        } else if (step == SS_ROSTER) {
            p->shared = in;
        } else if (step == SS_SURVIVORS) {
            p->revealed = in;
        }
    }
    a->step = 0;
    a->closed = step;
    if (left < needed_in(a, step)) {
        fail_too_few(a, left, step, err);
        return end(a);
    }
    if ((step == SS_HELLO && draw_graph(a, err) < 0) ||
        (step == SS_SURVIVORS && ss_reconstruct(a, err) < 0)) {
        return end(a);
    }
    if (step < SS_PRE_STEPS) {
        a->step = step + 1;
    }
    return 0;
}

int ss_aggregator_check(struct ss_aggregator *a, uint32_t member, const uint8_t *open,
                        struct tiered_error *err)
{
    char name[32];
    if (!a->running || member >= a->n || !a->peers[member].shared) {
        return tiered_fail(err, TIERED_EPEER, "it is not in the group");
    }
    return memcmp(open, a->session, SS_SESSION_BYTES) == 0
               ? 0
               : tiered_fail(err, TIERED_EPEER,
                             "%s: its update was masked for another attempt",
                             ss_name(a, member, name));
}

int ss_aggregator_survivors(struct ss_aggregator *a, const uint32_t *members,
                            uint32_t n, struct tiered_error *err)
{
    char name[32];
    if (!a->running || a->closed != SS_PRE_STEPS || a->step != 0) {
        return tiered_fail(err, TIERED_ESTATE,
                           "survivors are named once, after the pre phase");
    }
    for (uint32_t i = 0; i < n; i++) {
        bool known = members[i] < a->n && a->peers[members[i]].shared &&
                     (i == 0 || members[i] > members[i - 1]);
        if (!known) {
            return tiered_fail(err, TIERED_EINVAL, "%s cannot be a survivor",
                               members[i] < a->n ? ss_name(a, members[i], name)
                                                 : "nobody");
        }
    }
    if (n < ss_needed(&a->rules, a->n)) {
        fail_too_few(a, n, SS_PRE_STEPS, err);
        return end(a);
    }
    for (uint32_t i = 0; i < n; i++) {
        a->peers[members[i]].survived = true;
    }
    a->n_survivors = n;
    a->step = SS_SURVIVORS;
    return 0;
}
