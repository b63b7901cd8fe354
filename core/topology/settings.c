/* SPDX-License-Identifier: Apache-2.0 */
/* A tier's keys, laid over each other: built-in values, defaults, tier, node. */
#include <math.h>
#include <string.h>

#include "core/topology/inside.h"

void topology_tier_keys_read(struct loader *l, const char *what, unsigned refuse,
                             const struct tiered_value *value, struct tier_keys *keys)
{
    topology_section_read(l, what, tiered_tier_rows, tiered_tier_n_rows, refuse, value,
                          keys, &keys->given);
}

static bool has_meaning(const struct key_row *row, bool root, bool leaf)
{
    return !((row->where & KEY_BELOW) && root) &&
           (row->where & (leaf ? KEY_LEAF : KEY_INNER));
}

static uint64_t merge_rows(const struct key_row *rows, size_t n_rows,
                           const struct tier_keys *from, bool root, bool leaf,
                           struct tiered_settings *to, struct given *given)
{
    const size_t start = offsetof(struct tier_keys, settings);
    uint64_t fitting = 0;
    for (size_t i = 0; i < n_rows; i++) {
        const struct key_row *row = &rows[i];
        if (!has_meaning(row, root, leaf)) {
            continue;
        }
        fitting |= 1ull << row->id;
        if (row->type == KEY_SECTION) {
            fitting |=
                merge_rows(row->nested, row->n_nested, from, root, leaf, to, given);
        }
        if (!given_has(&from->given, row->id)) {
            continue;
        }
        if (row->offset >= start && row->offset < start + sizeof(*to)) {
            memcpy((char *)to + (row->offset - start), (const char *)from + row->offset,
                   row->size);
        }
        given->mask |= 1ull << row->id;
        given->marks[row->id] = from->given.marks[row->id];
    }
    return fitting;
}

uint64_t topology_tier_keys_merge(const struct tier_keys *from, bool root, bool leaf,
                                  struct tiered_settings *to, struct given *given)
{
    return merge_rows(tiered_tier_rows, tiered_tier_n_rows, from, root, leaf, to,
                      given);
}

static void check_inner(struct tiered_diagnostics *diag, const char *what,
                        const struct tiered_settings *settings,
                        const struct given *given, struct tiered_mark mark)
{
    if (!given_has(given, TIER_AGGREGATE)) {
        tiered_diag_error(diag, mark,
                          "%s has children and needs aggregate, such as "
                          "'aggregate: [fedavg]'",
                          what);
        return;
    }
    const struct tiered_loaded *aggregator =
        settings->aggregate.n ? settings->aggregate.items[0].loaded : NULL;
    if (aggregator && settings->on_bad_update == TIERED_ALLOW_BAD &&
        !(aggregator->plugin.traits & TIERED_ALLOWS_BAD_UPDATES)) {
        tiered_diag_error(diag, given->marks[TIER_ON_BAD_UPDATE],
                          "%s: on_bad_update: allow lets no sense come out of '%s'; "
                          "reject or exclude would work",
                          what, aggregator->plugin.name);
    }
}

void topology_tier_settings_check(struct tiered_diagnostics *diag, const char *what,
                                  bool leaf, const struct tiered_settings *settings,
                                  const struct given *given, struct tiered_mark mark)
{
    if (!leaf) {
        check_inner(diag, what, settings, given, mark);
    } else if (!given_has(given, TIER_TRAINER)) {
        tiered_diag_error(diag, mark,
                          "%s has no children and needs a trainer, such as "
                          "'trainer: {mlp: {data: fashion-mnist}}'",
                          what);
    }
}

uint32_t tiered_rounds_sampled(const struct tiered_rounds *rounds, uint32_t n_children)
{
    double sampled = floor(rounds->sample * n_children + 0.5);
    return sampled < 1 ? 1 : (uint32_t)sampled;
}

uint32_t tiered_rounds_needed(const struct tiered_rounds *rounds, uint32_t n_children)
{
    if (rounds->quorum_count) {
        return rounds->quorum_count;
    }
    double needed = ceil(rounds->quorum * tiered_rounds_sampled(rounds, n_children));
    return needed < 1 ? 1 : (uint32_t)needed;
}

double tiered_rounds_quorum_share(const struct tiered_rounds *rounds,
                                  uint32_t n_children)
{
    /* Half a child less, so that no rounding of the quotient adds one. */
    return rounds->quorum_count ? (rounds->quorum_count - 0.5) /
                                      tiered_rounds_sampled(rounds, n_children)
                                : rounds->quorum;
}
